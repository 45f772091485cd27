"""More customer-support topics: goods, the shop's website, and feelings.

Same form as support.py, kept apart so that each file stays easy to read.
"""

ITEM = {"item": "item"}

TOPICS = [
    ("gift wrap", ITEM, [
        "Can you wrap my {item} as a [gift|present]?",
        "Do you [wrap gifts|have gift wrap]?",
        "My {item} {is} a [gift|present]. Can you wrap {them}?",
        "Can I add a card to my gift?",
        "How much is gift wrap?",
    ], [
        "Yes, we can wrap your {item} in nice paper. It costs two dollars, and you can add a card for free.",
        "Of course. Please choose Gift wrap when you pay, and write a few words for the card.",
    ]),
    ("stock", ITEM, [
        "[{Is}|Do you have] the {item} in stock?",
        "Do you have the {item} in {colour}?",
        "Do you sell {plain}?",
        "When will you have the {item} again?",
        "The {item} {is} sold out. When can I buy {them}?",
        "Do you have the {item} in a [small|large|medium] size?",
        "I am looking for {a item}.",
        "I want to buy {a item}.",
    ], [
        "Yes, we have the {item} in stock. You can order {them} on our website today.",
        "The {item} {is} sold out at the moment, but we will have more on {day}. We can send you an email then.",
        "Yes, we have the {item} in many colours and sizes. Please have a look at our website.",
    ]),
    ("size", ITEM, [
        "Which size [do I need|should I buy]?",
        "How do I find my size?",
        "Do you have a size [guide|chart]?",
        "What size {is} the {item}?",
        "{Does} the {item} come in [small|large]?",
        "How [big|large] {is} the {item}?",
    ], [
        "You can find a size guide next to the picture of the {item}. If you are not sure, take the bigger size.",
        "Please look at the size guide on our website. If the {item} {does} not fit, you can exchange {them} for free.",
    ]),
    ("warranty", ITEM, [
        "{Does} my {item} have a [warranty|guarantee]?",
        "How long is the [warranty|guarantee]?",
        "Is there a warranty [on|for] the {item}?",
        "What does the warranty cover?",
        "{Is} my {item} still under warranty?",
    ], [
        "Yes, there is a two year warranty on your {item}. If something breaks, we will fix {them} for free.",
        "The warranty for your {item} is two years. Please keep your receipt.",
    ]),
    ("clean", ITEM, [
        "How [do|can|should] I [wash|clean] my {item}?",
        "Can I wash my {item} [in the machine|with hot water|with soap]?",
        "My {item} {is} dirty. What can I do?",
        "There is a [stain|spot] on my {item}.",
        "What is the best way to clean my {item}?",
    ], [
        "Please clean your {item} with a soft cloth and warm water. Do not use strong soap.",
        "You can clean your {item} by hand with warm water. Then let {them} dry in the air.",
    ]),
    ("missing", ITEM, [
        "A part is missing[ from my {item}|].",
        "Something is missing in my [order|box|parcel].",
        "My {item} {was} not in the box.",
        "The box was empty.",
        "I ordered {number} things but got only one.",
        "One part of my {item} is missing.",
        "I did not get everything I ordered.",
    ], [
        "I am sorry that something is missing. We will send it to you today for free.",
        "I am sorry about that. Please tell us what is missing, and we will send it by {day}.",
    ]),
    ("newsletter", {}, [
        "How [do|can] I stop the [emails|newsletter]?",
        "I get too many emails[ from you|].",
        "Please [stop sending|do not send] me emails.",
        "I do not want your newsletter any more.",
        "How do I [unsubscribe|cancel my subscription]?",
        "I want to cancel my subscription.",
    ], [
        "You can stop our emails with the link at the end of each email. Click on Unsubscribe, and you are done.",
        "I am sorry about that. I have taken your name off our list, and you will get no more emails.",
    ]),
    ("website", {"thing": "website"}, [
        "Your {thing} does not work.",
        "The {thing} is [slow|very slow|so slow].",
        "The {thing} [crashes|does not open|does not load|shows an error].",
        "Why does the {thing} not work?",
        "I have a problem with your {thing}.",
        "I see only a white page.",
        "How do I [update|install] the app?",
    ], [
        "I am sorry that the {thing} does not work. Please close it, wait a minute and try again.",
        "I am sorry about the problem. Please update the {thing} and start your phone or computer again.",
    ]),
    ("power", ITEM, [
        "My {item} {does} not turn on.",
        "How do I turn on my {item}?",
        "The battery of my {item} is empty.",
        "My {item} {does} not charge.",
        "How long do I have to charge my {item}?",
        "My {item} {makes} a strange noise.",
    ], [
        "Please charge your {item} for {number} hours and try again. If that does not help, we will send you a new {one}.",
        "Please press the button on the side for {number} seconds. If your {item} still {does} not start, please tell us.",
    ]),
    ("manual", ITEM, [
        "How do I [use|build|set up] my {item}?",
        "I lost the [manual|instructions] for my {item}.",
        "Where is the manual[ of the {item}|]?",
        "There were no instructions in the box.",
        "I do not know how to [use|build] my {item}.",
        "{Is} my {item} hard to [build|set up|use]?",
    ], [
        "You can find the instructions for your {item} on our website. There is also a short film that shows each step.",
        "I have sent the instructions for your {item} to your email address. They show each step with a picture.",
    ]),
    ("pickup", {"order": "order"}, [
        "Can I pick up my order[ at the shop|]?",
        "Where can I pick up my order?",
        "When can I pick up my order?",
        "Do I need anything to pick up my order?",
        "Can my [friend|brother|sister] pick up my order?",
    ], [
        "Yes, you can pick up your order at our shop from nine to six. Please bring your order number.",
        "Your order will be ready on {day}. Please bring your order number and your name to the shop.",
    ]),
    ("not home", {"parcel": "parcel"}, [
        "I was not at home when the driver came.",
        "I [will not be|am not] at home on {day}.",
        "Can you leave my {parcel} [with|at] my neighbour?",
        "The driver did not ring the bell.",
        "Can you deliver my {parcel} on {day}?",
        "I missed my {parcel}.",
    ], [
        "That is no problem. The driver will come again tomorrow.",
        "We can leave your {parcel} with a neighbour or bring it again tomorrow. Please tell us what you like best.",
    ]),
    ("points", {}, [
        "How do I [get|use] my points?",
        "How many points do I have?",
        "What can I do with my points?",
        "Do you have a [club|member card]?",
        "Where can I see my points?",
    ], [
        "You get one point for each dollar you pay. You can see and use your points in your account.",
        "You can use your points when you pay. Open your account to see how many points you have.",
    ]),
    ("privacy", {}, [
        "What do you do with my data?",
        "Is my data safe[ with you|]?",
        "Do you sell my data?",
        "Is it safe to pay on your website?",
        "Who can see my address?",
    ], [
        "Your data is safe with us. We use it only for your order and do not sell it.",
        "Yes, it is safe. We keep your data safe, and only our team can see it.",
    ]),
    ("scam", {}, [
        "I got a strange [email|message|call] from you.",
        "Is this email from you?",
        "Somebody used my [card|account].",
        "I think my account was hacked.",
        "Somebody ordered with my name.",
    ], [
        "Please do not click on any link in it. Change your password today, and we will check your account.",
        "Thank you for telling us. We have locked your account to keep it safe. Please change your password.",
    ]),
    ("unhappy", {}, [
        "I am [not happy|unhappy|angry|very angry].",
        "Your service is [bad|very bad|too slow].",
        "This is the worst shop.",
        "I want to complain.",
        "Nobody helps me.",
        "I am not happy with my [order|parcel].",
        "How do I make a complaint?",
    ], [
        "I am very sorry to hear that. Please tell me what went wrong, and I will do my best to help you.",
        "I am sorry that you are not happy. Please tell me more, so that we can make it right.",
    ]),
    ("happy", ITEM, [
        "I am very happy with my {item}.",
        "I love my [new |]{item}.",
        "My {item} {is} [great|so nice|wonderful].",
        "You have a great shop.",
        "Your service is [great|very good].",
        "My order came very fast.",
    ], [
        "Thank you for your kind words. We are happy that you like our shop.",
        "That is good to hear. Thank you for telling us, and have a nice day.",
    ]),
    ("job", {}, [
        "Do you have a job for me?",
        "I want to work for you.",
        "Can I work in your shop?",
        "How do I apply for a job?",
    ], [
        "Thank you for asking. You can find all our jobs on our website, and you can apply by email.",
        "We are always happy to find new people. Please send us an email and tell us about yourself.",
    ]),
]
