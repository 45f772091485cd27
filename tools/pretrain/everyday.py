"""Everyday questions and small talk: greetings, thanks, simple facts, advice.

`topics()` gives the same form as support.py; facts are spelled out one topic
each, so that a question about the sky is never answered about grass.
"""

SMALL_TALK = [
    ("hello", {}, [
        "Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning", "Good afternoon",
        "Good evening", "Hello there!", "Hello, can you help me?", "Can you help me?",
        "I need help.", "I have a question.", "Can I ask you something?",
    ], [
        "Hello! How can I help you[ today|]?",
        "Hello and welcome! What can I do for you[ today|]?",
    ]),
    ("thanks", {}, [
        "Thank you", "Thanks!", "Thank you very much.", "Thanks a lot!", "Thank you for your help.",
        "That helps, thank you.", "Great, thanks!", "Okay, thank you.", "That is all, thank you.",
        "Perfect, thank you!", "You are very kind.", "That was very helpful.",
    ], [
        "You are welcome! Have a nice day.",
        "You are welcome. Please write to us if you need anything else.",
        "I am happy to help. Have a lovely day!",
    ]),
    ("bye", {}, ["Bye", "Goodbye", "Good night", "See you later.", "Bye bye!", "Goodbye and thank you."], [
        "Goodbye! Have a nice day.",
        "Goodbye, and thank you for writing to us.",
    ]),
    ("who", {}, [
        "Who are you?", "What are you?", "What is your name?", "Are you a [robot|human|person|computer]?",
        "What can you do?", "How can you help me?", "Tell me about yourself.", "What do you do?",
    ], [
        "I am a small helper for this shop. I can answer questions about your order.",
        "I am a little computer helper. I can help you with orders, parcels and your account, and I can tell stories.",
    ]),
    ("how", {}, ["How are you?", "How are you today?", "How is it going?", "Are you okay?", "How do you do?"], [
        "I am very well, thank you. How can I help you[ today|]?",
        "I am fine, thank you for asking. What can I do for you?",
    ]),
    ("unknown", {}, [
        "What will the weather be tomorrow?", "Who will win the game?", "Who is the king?",
        "What is the meaning of life?", "Who won the election?", "Can you write a program?",
        "How do I fly a plane?", "What is the best [car|song|film|team]?", "Who is the best singer?",
        "How do I get rich?", "Which film should I see?", "What is [physics|history|maths|music]?",
        "Can you do my homework?", "Solve this for me.", "What is the news today?",
        "How do I build a rocket?", "Should I buy stocks?", "What is my name?", "How old am I?",
    ], [
        "I am sorry, I do not know that. Can I help you with an order?",
        "I am sorry, but I cannot answer that. I can help you with orders, parcels and your account.",
    ]),
    ("sad", {}, [
        "I am [sad|lonely|not well|tired].", "I feel [sad|bad|lonely].", "I had a bad day.",
        "What can I do when I am sad?", "Today was a hard day.",
    ], [
        "I am sorry to hear that. A walk in the fresh air or a talk with a friend can help.",
        "I am sorry that you feel that way. Take a rest, drink some tea and be kind to yourself.",
    ]),
    ("bored", {}, ["I am bored.", "What can I do today?", "What should I do?", "It is raining. What can I do?"], [
        "You could read a good book, draw a picture or bake a cake.",
        "How about a game with a friend, or a good book?",
    ]),
    ("cook", {}, ["What should I [cook|eat] today?", "What can I cook for dinner?", "I am hungry.", "What is for dinner?"], [
        "How about a warm soup with bread? It is easy to make and very good.",
        "You could make pasta with tomatoes and cheese. It is quick and tastes good.",
    ]),
    ("tea", {}, ["How do I make [tea|a cup of tea]?", "Can you tell me how to make tea?", "What is the best way to make tea?"], [
        "Boil some water and pour it over the tea. Wait for four minutes, then take the tea out and enjoy.",
    ]),
    ("sandwich", {}, ["How do I make a sandwich?", "Can you tell me how to make a sandwich?"], [
        "Take two slices of bread and put butter, cheese and tomatoes between them. Then cut it in half and enjoy.",
    ]),
    ("cake", {}, ["How do I [bake|make] a cake?", "Can you tell me how to bake a cake?"], [
        "Mix flour, sugar, eggs and butter in a bowl. Bake it in the oven for forty minutes and let it cool.",
    ]),
    ("plants", {}, ["How do I [water|care for|look after] [a plant|my plants|flowers]?", "My plant looks sad.", "How often do I water my plants?"], [
        "Give your plant some water two times a week and put it near a window. Plants love the light.",
    ]),
    ("sleep", {}, ["I cannot sleep.", "How can I sleep better?", "What helps me to sleep?"], [
        "Put your phone away, read a little and drink some warm milk. A dark and quiet room helps too.",
    ]),
    ("joke", {}, ["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Tell me something funny."], [
        "Why did the cow cross the road? To get to the other field!",
        "What do you call a sleeping bull? A very quiet neighbour!",
        "Why did the book go to bed? It was full of long stories!",
    ]),
]

# thing -> colour
COLOURS = {
    "the sky": "blue", "grass": "green", "the sun": "yellow", "snow": "white", "a banana": "yellow",
    "a tomato": "red", "milk": "white", "the sea": "blue", "coal": "black", "a leaf": "green",
    "a carrot": "orange", "a frog": "green", "an orange": "orange", "a cherry": "red", "a lemon": "yellow",
}
# animal -> (sound, home, food, legs)
ANIMALS = {
    "cat": ("meow", "in a house", "fish and meat", "four"),
    "dog": ("woof", "in a house", "meat and bones", "four"),
    "cow": ("moo", "on a farm", "grass", "four"),
    "duck": ("quack", "near a pond", "bread and seeds", "two"),
    "sheep": ("baa", "on a farm", "grass", "four"),
    "bee": ("buzz", "in a hive", "honey", "six"),
    "bird": ("tweet", "in a nest", "seeds and worms", "two"),
    "mouse": ("squeak", "in a hole", "cheese and seeds", "four"),
    "frog": ("croak", "near a pond", "flies", "four"),
    "lion": ("roar", "in a hot country", "meat", "four"),
    "horse": ("neigh", "on a farm", "hay and apples", "four"),
    "owl": ("hoot", "in a tree", "mice", "two"),
}
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "England": "London",
    "Ireland": "Dublin", "Japan": "Tokyo", "Norway": "Oslo", "Portugal": "Lisbon", "Greece": "Athens",
    "Poland": "Warsaw", "Canada": "Ottawa", "Austria": "Vienna", "Egypt": "Cairo",
}
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "happy": "sad", "day": "night", "old": "new",
    "wet": "dry", "light": "dark", "up": "down", "open": "closed", "loud": "quiet", "long": "short",
    "cold": "hot", "small": "big", "slow": "fast", "dark": "light",
}
WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COUNTS = {
    "days are in a week": "There are seven days in a week.",
    "months are in a year": "There are twelve months in a year.",
    "hours are in a day": "There are twenty four hours in a day.",
    "minutes are in an hour": "There are sixty minutes in an hour.",
    "seasons are there": "There are four seasons: spring, summer, autumn and winter.",
    "legs does a spider have": "A spider has eight legs.",
    "wheels does a car have": "A car has four wheels.",
    "wheels does a bike have": "A bike has two wheels.",
    "fingers do I have": "You have ten fingers.",
}


def _facts():
    for thing, colour in COLOURS.items():
        upper = thing[0].upper() + thing[1:]
        yield (f"colour {thing}", [f"What colour is {thing}?", f"Which colour is {thing}?",
                                   f"Can you tell me the colour of {thing}?", f"Is {thing} {colour}?"],
               [f"{upper} is {colour}."])
    for animal, (sound, home, food, legs) in ANIMALS.items():
        a = ("an " if animal[0] in "aeiou" else "a ") + animal
        upper = a[0].upper() + a[1:]
        yield (f"sound {animal}", [f"What does {a} say?", f"What sound does {a} make?"], [f"{upper} says {sound}."])
        yield (f"home {animal}", [f"Where does {a} live?", f"What is the home of {a}?"], [f"{upper} lives {home}."])
        yield (f"food {animal}", [f"What does {a} eat?", f"What can I feed {a}?"], [f"{upper} likes to eat {food}."])
        yield (f"legs {animal}", [f"How many legs does {a} have?"], [f"{upper} has {legs} legs."])
    for country, city in CAPITALS.items():
        yield (f"capital {country}", [f"What is the capital of {country}?", f"Which city is the capital of {country}?",
                                      f"Do you know the capital of {country}?"],
               [f"The capital of {country} is {city}."])
    for word, other in OPPOSITES.items():
        yield (f"opposite {word}", [f"What is the opposite of {word}?", f"Tell me the opposite of {word}."],
               [f"The opposite of {word} is {other}."])
    for i, day in enumerate(WEEK):
        yield (f"after {day}", [f"What day comes after {day}?", f"Which day is after {day}?"],
               [f"The day after {day} is {WEEK[(i + 1) % 7]}."])
    for what, answer in COUNTS.items():
        yield (f"count {what}", [f"How many {what}?", f"Can you tell me how many {what}?"], [answer])
    for a in range(1, 6):
        for b in range(1, 6):
            yield (f"sum {a} {b}", [f"What is {NUMBER_WORDS[a]} plus {NUMBER_WORDS[b]}?", f"How much is {a} plus {b}?",
                                    f"What is {a} + {b}?"],
                   [f"{NUMBER_WORDS[a]} plus {NUMBER_WORDS[b]} is {NUMBER_WORDS[a + b]}.".capitalize()])


FACTS = [(name, {}, questions, answers) for name, questions, answers in _facts()]
