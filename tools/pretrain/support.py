"""Customer-support topics: what people ask, and a plain, polite answer.

A topic is (name, default slots, questions, answers). Slots that a question does
not mention take the topic's defaults in the answer, so an answer always speaks
of what was asked: "my lamp is broken" is answered about the lamp, "it is
broken" about the item. See grammar.py for the template language.
"""

SHOPS = ["Green Leaf", "Blue Door", "Sunny Corner", "Little Lane", "Happy Home", "Red Barn"]

# Goods by kind; the ones in PAIRS have the grammar of a plural.
WORN = ["jacket", "hat", "coat", "dress", "shirt", "sweater", "scarf", "belt", "skirt",
        "shoes", "boots", "gloves", "socks", "trousers"]
ELECTRIC = ["lamp", "kettle", "phone", "clock", "camera", "watch", "radio", "headphones", "laptop", "tablet",
            "printer", "toaster", "fan", "speaker", "keyboard"]
OTHER = ["chair", "table", "bag", "book", "toy", "cup", "bike", "blanket", "sofa", "bed", "mug", "umbrella",
         "backpack", "pillow", "mirror", "guitar", "puzzle", "tent", "ring", "vase", "plate", "pan", "doll", "box"]
PAIRS = {"shoes", "boots", "gloves", "socks", "trousers", "headphones"}
# Topics that make sense for some goods only.
KINDS = {"exchange": WORN, "size": WORN, "power": ELECTRIC, "manual": ELECTRIC + ["chair", "table", "bed", "tent", "bike"],
         "warranty": ELECTRIC + ["bike", "sofa", "bed"]}
PARCELS = ["parcel", "parcel", "package", "order", "delivery"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
COLOURS = ["red", "blue", "green", "black", "white", "yellow"]
SIZES = ["small", "medium", "large"]
NUMBERS = ["two", "three", "four", "five", "six", "seven"]
COUNTRIES = ["France", "Spain", "Italy", "Germany", "Canada", "Japan", "Norway", "Ireland"]
CITIES = ["Paris", "Rome", "London", "Dublin", "Madrid", "Berlin"]
METHODS = ["card", "bank transfer", "gift card"]

ITEM = {"item": "item"}

TOPICS = [
    ("where", {"parcel": "parcel"}, [
        "Where is my {parcel}?",
        "Where is my {parcel} [now|right now|today]?",
        "Can you tell me where my {parcel} is?",
        "Do you know where my {parcel} is?",
        "I want to know where my {parcel} is.",
        "[What is the status of|Is there any news about] my {parcel}?",
        "When will my {parcel} [arrive|come|get here]?",
        "When [can I expect|do I get] my {parcel}?",
        "[Has|Did] my {parcel} [left|leave] the warehouse?",
        "I am [still waiting|waiting] for my {parcel}.",
        "I [ordered|bought] {a item} and it is not here yet.",
    ], [
        "Your {parcel} is on its way[ to you|]. It should [arrive|be with you] [by|on] {day}.",
        "Your {parcel} has left our warehouse and should arrive [in {number} days|on {day}].",
        "[I have checked this for you. |Let me check. |]Your {parcel} is [on the way|with the driver] and "
        "will [reach you|arrive] on {day}.",
        "Thank you for asking. Your {parcel} was sent on {day} and should reach you [soon|in {number} days].",
    ]),
    ("track", {"parcel": "parcel"}, [
        "How [do|can] I track my {parcel}?",
        "Can I track my {parcel}[ online|]?",
        "Where [can I find|is] my tracking number?",
        "I [did not get|do not have] a tracking number.",
        "My tracking [link|number] does not work.",
        "Is there a way to [track|follow] my {parcel}?",
    ], [
        "You can track your {parcel} with the link in your [email|order email]. It shows where it is each day.",
        "[Please open|Open] your account and click on Orders. There you can [see|find] the tracking number of your {parcel}.",
        "We sent you an email with a tracking number. [Please use|Use] it on our website to follow your {parcel}.",
    ]),
    ("late", {"parcel": "parcel"}, [
        "My {parcel} is late.",
        "My {parcel} is [{number} days|a week] late.",
        "Why is my {parcel} [late|so late|taking so long]?",
        "My {parcel} has not [arrived|come][ yet|].",
        "My {parcel} should have [come|arrived] on {day}.",
        "You said my {parcel} would [come|arrive] on {day}, but it is not here.",
        "I have waited {number} [days|weeks] for my {parcel}.",
    ], [
        "I am sorry that your {parcel} is late. [It will|It should] arrive [by {day}|in the next {number} days].",
        "I am sorry for the delay. Your {parcel} is still on its way and should be with you by {day}.",
        "I am sorry about the wait. [The driver had a delay, but|There was a delay, but] your {parcel} will arrive on {day}.",
    ]),
    ("lost", {"parcel": "parcel"}, [
        "My {parcel} is lost.",
        "I think my {parcel} [is|got] lost.",
        "It says my {parcel} was delivered, but [it is not here|I do not have it].",
        "My {parcel} never [came|arrived].",
        "Somebody [took|stole] my {parcel}.",
        "What [happens|can I do] if my {parcel} is lost?",
        "The tracking says delivered but I got nothing.",
    ], [
        "I am sorry that your {parcel} is lost. We will send you a new one [today|on {day}] for free.",
        "I am very sorry. [Please ask|Could you please ask] your neighbours first. If your {parcel} is not there, we will send a new one.",
        "I am sorry to hear that. We will look for your {parcel}, and if we cannot find it, we will give you your money back.",
    ]),
    ("wrong", ITEM, [
        "I [got|received] the wrong {item}.",
        "You sent me the wrong {item}.",
        "This is not the {item} I ordered.",
        "I ordered {a item} but [got|received] something else.",
        "There was something else in the box, not my {item}.",
        "My {item} {is} the wrong colour.",
        "I ordered {a coloured}, but I got a different colour.",
    ], [
        "I am sorry that we sent the wrong {item}. We will send you the right {one} [today|on {day}].",
        "I am sorry for the mistake. Please send the wrong {item} back for free, and we will send you the right {one}.",
        "That was our mistake, and I am sorry. The right {item} will be with you by {day}.",
    ]),
    ("broken", ITEM, [
        "My {item} {is} [broken|damaged].",
        "My {item} [arrived|came] broken.",
        "My {item} {does} not work.",
        "My new {item} stopped working[ after {number} days|].",
        "The {item} I [bought|ordered] {is} [broken|damaged].",
        "There is a [hole|crack|scratch] in my {item}.",
        "I opened the box and the {item} {was} broken.",
        "What can I do if my {item} {is} broken?",
        "Can you [fix|repair] my {item}?",
    ], [
        "I am sorry that your {item} {is} broken. We can send you a new {one} or give you your money back.",
        "I am sorry to hear that. Please send us a picture of the {item}, and we will send you a new {one}.",
        "I am sorry about your {item}. We will [fix|repair] {them} for free or send you a new {one}.",
    ]),
    ("return", ITEM, [
        "How [do|can] I return [my|the|{this}] {item}?",
        "Can I return [my|the|{this}] {item}?",
        "I want to [return|send back] my {item}.",
        "I would like to [return|send back] [my|the|{this}] {item}[, please|].",
        "I do not [like|want] my {item}[ any more|].",
        "How many days do I have to return [my|the] {item}?",
        "What is your return policy?",
        "Can I send my {item} back?",
        "Do I need the box to return my {item}?",
    ], [
        "Yes, you can return your {item} [within|in the first] thirty days. Please put {them} back in the box and use the label we sent you.",
        "You can send your {item} back for free within thirty days. [Please print|Just print] the return label from your account.",
        "That is no problem. Please pack your {item} well and bring {them} to the post office within thirty days.",
    ]),
    ("refund", ITEM, [
        "When [will|do] I get my money back?",
        "Where is my refund?",
        "How long does a refund take?",
        "I want my money back[ for the {item}|].",
        "I sent my {item} back but [have no refund|did not get my money].",
        "Can I [get|have] a refund[ for my {item}|]?",
        "I [am waiting|have waited {number} days] for my refund.",
        "How do I get a refund?",
    ], [
        "Your refund will be paid [within|in] {number} days. The money goes back to the card you used.",
        "We will pay your money back as soon as we get the {item}. This takes about {number} days.",
        "You will get your money back within {number} days. We will send you an email when it is done.",
    ]),
    ("exchange", ITEM, [
        "My {item} {is} too [small|big|tight|large].",
        "The {item} {does} not fit[ me|].",
        "Can I [exchange|change|swap] my {item} for [another|a bigger|a smaller] size?",
        "I [need|want] [a bigger|a smaller|another] size[ of my {item}|].",
        "How do I exchange [my|the] {item}?",
        "I would like my {item} in {colour}, please.",
        "Can I swap my {item} for a {colour} {one}?",
    ], [
        "Yes, you can exchange your {item} for free. Please tell us which size or colour you need.",
        "That is no problem. Please send your {item} back, and we will send you [the right size|another {one}].",
        "We are happy to exchange your {item}. Please choose the new size in your account and send the old {one} back.",
    ]),
    ("cancel", {"order": "order"}, [
        "How [do|can] I cancel my {order}?",
        "Can I cancel my {order}?",
        "I want to cancel my {order}.",
        "Please cancel my {order}.",
        "I [ordered|bought] something by mistake.",
        "Can I still stop my {order}?",
        "I do not need my {order} any more.",
        "I changed my mind about my {order}.",
    ], [
        "Yes, you can cancel your {order} before it is sent. Open your account, click on Orders and choose Cancel.",
        "I have cancelled your {order}. You will get your money back within {number} days.",
        "That is no problem. I can cancel your {order} for you, and you do not have to pay anything.",
    ]),
    ("address", {"parcel": "parcel"}, [
        "How [do|can] I change my [delivery address|address]?",
        "I [gave|typed|used] the wrong address.",
        "I have moved to a new [house|home|flat].",
        "I [need|want|would like] to change the address[ of my {parcel}|].",
        "Can you send my {parcel} to another address?",
        "My address is wrong.",
        "I live somewhere else now.",
    ], [
        "You can change your address in your account. Click on Address, type the new one and click on Save.",
        "Please tell us your new address, and we will send your {parcel} there.",
        "That is no problem. If your {parcel} has not left yet, we can send it to the new address.",
    ]),
    ("add", {"item": "item", "order": "order"}, [
        "Can I add {a item} to my order?",
        "I [forgot|want] to add {a item} to my order.",
        "Can I still change my order?",
        "How do I change my order?",
        "I also want {a item}.",
    ], [
        "Yes, you can add the {item} as long as your order has not been sent. Open your account and click on Change.",
        "Of course. I have added the {item} to your order, and it will all come in one box.",
        "I am happy to help with that. Please open your order, add the {item} and click on Save.",
    ]),
    ("password", {}, [
        "How [do|can] I [reset|change] my password?",
        "I [forgot|lost|do not know] my password.",
        "I [forgot|cannot remember] my password. What [can|should] I do?",
        "Can you help me with my password?",
        "My password does not work.",
        "I need a new password.",
        "I did not get the email to reset my password.",
    ], [
        "[To reset your password, click|Please click] on Forgot password on the login page. We will send you an email with a link.",
        "You can reset your password on the login page. Click on Forgot password and follow the link in the email.",
        "That is no problem. Go to the login page, click on Forgot password and choose a new one.",
    ]),
    ("login", {}, [
        "I cannot log in.",
        "Why can I not log in?",
        "My account is [locked|blocked].",
        "I cannot [open|get into] my account.",
        "The login [page |]does not work.",
        "How do I log in[ to my account|]?",
        "Can you [unlock|open] my account?",
    ], [
        "I am sorry that you cannot log in. Please check your email and password, and try again in {number} minutes.",
        "I am sorry about that. Please reset your password on the login page, and then you can log in again.",
        "I can help you with that. I have unlocked your account, so please try to log in again.",
    ]),
    ("email", {}, [
        "How [do|can] I change my email[ address|]?",
        "I have a new email address.",
        "I want to [change|update] my email address.",
        "My email address is wrong.",
        "Can you change the email of my account?",
        "How do I change my [phone number|name]?",
    ], [
        "You can change that in your account. Click on My details, type the new one and click on Save.",
        "Please log in and open My details. There you can change it, and we will send you an email to confirm.",
    ]),
    ("delete", {}, [
        "How [do|can] I [delete|close] my account?",
        "I want to [delete|close] my account.",
        "Please [delete|close] my account.",
        "Can you delete [my account|all my data]?",
        "I do not need my account any more.",
    ], [
        "You can close your account under My details. Click on Delete account, and all your data will be removed.",
        "I am sorry to see you go. I can close your account today, and your data will be deleted within thirty days.",
    ]),
    ("create", {}, [
        "How [do|can] I [create|make|open] an account?",
        "I want to [create|open] an account.",
        "Do I need an account to [order|buy something]?",
        "How do I sign up?",
        "Where can I sign up?",
        "I am new here. How do I start?",
    ], [
        "To create an account, click on Sign up and type your name and email. It is free and takes two minutes.",
        "You can sign up on our website with your email address. You do not need an account to order, but it helps.",
    ]),
    ("declined", {}, [
        "My card was [declined|refused].",
        "My payment [failed|did not work|was declined].",
        "Why can I not pay[ with my card|]?",
        "I cannot pay for my order.",
        "My card does not work.",
        "The payment page shows an error.",
    ], [
        "I am sorry that your payment did not work. Please check the card number and try again, or use another card.",
        "I am sorry about that. Please ask your bank first, or pay by bank transfer.",
    ]),
    ("charged", {}, [
        "I was charged twice.",
        "You [charged|billed] me twice.",
        "I paid {number} times for one order.",
        "Why did you take the money twice?",
        "There is a wrong charge on my [card|bill].",
        "My bill is wrong.",
        "I paid too much.",
    ], [
        "I am sorry about that. We will pay back the wrong charge within {number} days.",
        "I am sorry for the mistake. I have checked your bill, and you will get the extra money back by {day}.",
    ]),
    ("invoice", {}, [
        "[Can I get|Can you send me] [an invoice|a receipt]?", "I need [an invoice|a receipt].",
        "Where is my [invoice|receipt]?",
        "How do I get [an invoice|a receipt]?",
        "I lost my [invoice|receipt].",
        "Where can I [find|download] my invoice?",
        "Please send me the bill.",
    ], [
        "You can find your invoice in your account. Open Orders, choose your order and click on Invoice.",
        "I have sent the invoice to your email address. You can also download it in your account.",
    ]),
    ("methods", {"method": "card"}, [
        "How can I pay?",
        "Can I pay by {method}?",
        "Do you take [cash|cards|gift cards]?",
        "What are the ways to pay?",
        "Which cards do you take?",
        "Can I pay later?",
    ], [
        "You can pay by card, bank transfer or gift card. You can choose one when you order.",
        "We take all cards, bank transfers and gift cards. In our shop you can also pay with cash.",
    ]),
    ("gift card", {}, [
        "Do you [sell|have] gift cards?",
        "How [do|can] I use my gift card?",
        "My gift card does not work.",
        "Can I buy a gift card?",
        "How much money is on my gift card?",
        "I lost my gift card.",
    ], [
        "You can buy gift cards on our website. To use one, type its code on the payment page.",
        "Please type the code of your gift card on the payment page. There you can also see how much money is left.",
    ]),
    ("discount", {}, [
        "My [discount|voucher] code does not work.",
        "Do you have a [discount|discount code]?",
        "How do I use a discount code?",
        "Can I get a [discount|lower price|better price]?",
        "Where do I type my code?",
        "Is there a sale?",
        "Do students get a discount?",
    ], [
        "You can type your discount code on the payment page. Please note that each code works only once.",
        "We have a sale [this week|every month]. If you join our newsletter, you get a discount on your next order.",
    ]),
    ("shipping cost", {}, [
        "How much is [shipping|delivery|postage]?",
        "How much does [shipping|delivery] cost?",
        "Is [shipping|delivery] free?",
        "Do you have free [shipping|delivery]?",
        "What do I pay for [shipping|delivery]?",
        "Why is shipping so expensive?",
    ], [
        "Shipping costs {number} dollars. It is free for orders over fifty dollars.",
        "Delivery is free for orders over fifty dollars. For small orders it costs {number} dollars.",
    ]),
    ("delivery time", {}, [
        "How long does [shipping|delivery] take?",
        "How [fast|quick] is your delivery?",
        "How many days does delivery take?",
        "Do you deliver on [Sunday|{day}]?",
        "Can I get my order [tomorrow|faster|by {day}]?",
        "Do you have fast delivery?",
    ], [
        "Delivery takes {number} days. With fast delivery, your order comes the next day.",
        "We deliver from Monday to Saturday, and it takes about {number} days. You can also choose fast delivery.",
    ]),
    ("abroad", {"country": "other countries"}, [
        "Do you [ship|deliver|send] to {country}?",
        "Can you [ship|send] my order to {country}?",
        "I live in {country}. Can I order from you?",
        "How much is shipping to {country}?",
        "How long does it take to ship to {country}?",
    ], [
        "Yes, we ship to {country}. It takes about {number} days and costs ten dollars.",
        "Yes, we do. Shipping to {country} costs ten dollars and takes {number} days.",
    ]),
    ("hours", {"day": "Sunday"}, [
        "When are you open?",
        "What are your opening hours?",
        "When do you [open|close]?",
        "Are you open on {day}?",
        "Is the shop open [now|today|on {day}]?",
        "Until when are you open?",
        "What time do you [open|close]?",
    ], [
        "We are open from nine to six, Monday to Saturday. On Sunday we are closed.",
        "Our shop is open from nine in the morning until six in the evening. We are closed on Sunday.",
    ]),
    ("store", {"city": "the city"}, [
        "Where is your [shop|store]?",
        "Do you have a [shop|store] in {city}?",
        "How do I [find|get to] your shop?",
        "What is the address of your shop?",
        "Where are you?",
        "Is there a shop near me?",
        "Can I park near your shop?",
    ], [
        "Our shop is in the middle of {city}, next to the station. There is a place to park behind it.",
        "You can find our shop in {city}, across from the park. We are open from nine to six.",
    ]),
    ("contact", {}, [
        "How can I [contact|reach|call] you?",
        "What is your phone number?",
        "Can I call you?",
        "Do you have an email address?",
        "I want to [talk|speak] to [a person|a human|someone|the manager].",
        "Can I [talk|speak] to [a person|a human|someone]?",
        "Nobody answers the phone.",
        "How do I write to you?",
    ], [
        "You can call us from nine to six, or write us an email. You can find the number on our website.",
        "Of course. I will ask someone from our team to call you today. Please tell me your phone number.",
        "You can reach our team by phone or email every day from nine to six. We are happy to help you.",
    ]),
]
