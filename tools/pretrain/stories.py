"""Simple stories: who, where, what went wrong, who helped, how it ended.

A story is a list of beats, each a template; the hero, the friend and the thing
keep their names through it, so a model can only write it well by looking back.
"""

from grammar import expand

ANIMALS = ["cat", "dog", "mouse", "rabbit", "fox", "bear", "duck", "frog", "bird", "owl", "pony", "squirrel",
           "hen", "turtle", "lamb", "hedgehog"]
HEROES = ANIMALS + ["girl", "boy"]
GIRLS = ["Lily", "Anna", "Mia", "Rosie", "Nina", "Ella", "Molly", "Daisy", "Ruby", "Sara"]
BOYS = ["Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Oscar", "Jack", "Finn", "Bobby"]
ADJECTIVES = ["little", "small", "brave", "kind", "happy", "shy", "clever", "curious", "funny", "gentle"]
PLACES = ["in a small house by the river", "in a big green forest", "near the sea", "on a quiet farm",
          "at the foot of a hill", "in a sunny village", "under an old oak tree", "next to a blue lake"]
HOBBIES = ["play in the garden", "sing songs", "climb trees", "read books", "run in the grass", "paint pictures",
           "bake bread", "look at the stars", "jump in the rain", "pick flowers"]
THINGS = ["ball", "kite", "hat", "drum", "bell", "book", "cup", "key", "lamp", "toy boat", "basket", "ring"]
COLOURS = ["red", "blue", "green", "yellow", "shiny", "golden"]
HIDING = ["under the bed", "behind a tree", "in the tall grass", "under a stone", "in the pond", "at the top of the hill",
          "behind the door", "in the old barn"]
FOOD = ["apples", "berries", "bread", "honey", "cake", "soup", "nuts", "carrots", "cookies", "pears"]

OPENING = [
    "[Once upon a time|Long ago|One day], there was {a adj} {hero} named {name}. {name} lived {place}.",
    "{name} was {a adj} {hero} who lived {place}.",
    "Once there was {a adj} {hero}. {Poss} name was {name}, and {they} lived {place}.",
]
HOBBY = ["{name} loved to {hobby}.", "Every [day|morning], {name} liked to {hobby}.", "Most of all, {they} loved to {hobby}.", ""]
FRIEND = ["{name} had a friend, {a fadj} {friend} named {fname}.", "{Poss} best friend was {a friend} named {fname}."]
DAY = ["[One|One sunny|One cold|One windy|One warm] [day|morning|evening]"]
ENDING = [
    "From that day on, {name} and {fname} were best friends.",
    "{name} was very happy. It was the best day of all.",
    "That night, {name} went to bed with a big smile.",
    "And they all lived happily ever after.",
    "{name} smiled and said, \"Thank you, {fname}. You are a true friend.\"",
    "{name} learned that it is good to [be kind|share|help others|be brave|ask for help].",
    "They went home together and [ate {food}|drank warm milk|sat by the fire].",
]

PLOTS = [
    # Something is lost and found.
    ["{day}, {name} could not find {poss} {colour} {thing}. [{They} looked in the house. {They} looked in the garden.|{They} looked here, and {they} looked there.] But the {thing} was not there.",
     "{name} [was sad|began to cry|sat down and was very sad]. Then {fname} the {friend} came by. \"Why are you sad?\" asked {fname}.",
     "\"I [lost|cannot find] my {thing},\" said {name}. \"Do not worry. I will help you,\" said {fname}.",
     "They looked and looked. At last, they found the {thing} {hiding}. \"Here it is!\" said {fname}."],
    # Sharing.
    ["{day}, {name} had a [big basket|bag] of {food}. {fname} the {friend} came by. \"I am so hungry,\" said {fname}.",
     "{name} looked at the {food}. {They} wanted to eat it all. But {fname} looked [so sad|very hungry].",
     "\"Please take some,\" said {name}. They sat down [in the sun|under a tree] and ate together.",
     "\"[This is so good|You are very kind]!\" said {fname}. \"[Tomorrow|Next time], I will bring something for you.\""],
    # A storm.
    ["{day}, a big storm came. The wind was loud, and the rain fell [all day|all night]. {name} was afraid.",
     "Then {they} heard a [small voice|knock at the door]. It was {fname} the {friend}. \"I am cold and wet. May I come in?\" asked {fname}.",
     "\"Of course,\" said {name}. {They} gave {fname} a warm blanket and some [{food}|hot soup].",
     "Together they were not afraid any more. They told stories until the storm was over."],
    # A race.
    ["{day}, there was a big race [in the village|in the forest]. {name} wanted to win. {fname} the {friend} wanted to win too.",
     "\"One, two, three, go!\" They ran and ran. {name} was [very fast|in front]. But then {fname} fell down and hurt {fposs} leg.",
     "{name} stopped. {They} went back and helped {fname} up. \"Let us walk together,\" said {name}.",
     "They were the last, but everybody clapped. \"[You have a big heart|You are both winners]!\" they said."],
    # Afraid of something.
    ["{name} was afraid of [the dark|the water|high places|loud noises]. {day}, {fname} the {friend} said, \"Come and play with me!\"",
     "\"I cannot,\" said {name}. \"I am [too afraid|afraid].\" \"I will hold your hand,\" said {fname}.",
     "[Step by step|Slowly], {name} tried. {They} took one small step, and then one more. It was not so bad.",
     "\"I did it!\" said {name}. \"I knew you could do it,\" said {fname}."],
    # A seed.
    ["{day}, {name} found a small seed {hiding}. {They} put it in the ground and gave it water every day.",
     "But nothing happened. \"[It will never grow|It is no good],\" said {name}. \"You must wait,\" said {fname} the {friend}.",
     "So {name} waited. The sun came, and the rain came. Then, one morning, there was a [tiny|small] green leaf.",
     "The plant grew and grew until it was [a tall tree|a big flower]. {name} and {fname} danced around it."],
    # A cake.
    ["{day}, {name} wanted to bake a cake for {fname} the {friend}. It was {fposs} birthday.",
     "{name} mixed the flour, the eggs and the sugar. But there was no [milk|butter|honey] in the house. \"Oh no!\" said {name}.",
     "{They} [ran|went] to the [farm|shop] and asked for some. The [old farmer|kind lady] gave {them} [a full cup|a big cup] and said, \"Have fun!\"",
     "The cake was sweet and warm. \"Happy birthday, {fname}!\" said {name}. They ate it all up."],
    # A treasure map and a pirate.
    ["{day}, {name} found an old map {hiding}. There was a red cross on it. \"It is a treasure map!\" said {fname} the {friend}.",
     "They took a boat and sailed over the sea. There they met [an old pirate|a captain with a big hat] on a ship. \"Ahoy!\" said the [pirate|captain]. \"Are you looking for my treasure, matey?\"",
     "\"[Yes, we are|Please help us],\" said {name}. The pirate laughed. \"Arr! Then come with me,\" he said, and he showed them the way.",
     "They dug in the sand and found a chest. It was full of [gold|{food}|books]. The pirate shared it with them."],
    # The moon and the stars.
    ["{day}, {name} looked up and saw [a star|the moon]. \"I want to go there,\" {they} said.",
     "{They} climbed the [tallest tree|highest hill], but the sky was still far away. {They} jumped as high as {they} could. It did not help.",
     "\"What are you doing?\" asked {fname} the {friend}. \"I want to touch the sky,\" said {name}.",
     "{fname} pointed at the pond. In the water, all the stars were shining. \"Now you can touch it,\" said {fname}."],
    # A new one comes.
    ["{day}, a new {friend} came to live [in the village|near {name}]. {FPoss} name was {fname}. {FThey} did not know anybody.",
     "{name} saw that {fname} was [alone|sad]. {They} went over and said, \"Hello! Do you want to play with me?\"",
     "{fname} smiled. \"Yes, please!\" {fthey} said. They played with the {colour} {thing} all day.",
     "They [laughed|ran and jumped] until the sun went down. \"Will you come again tomorrow?\" asked {fname}. \"Yes!\" said {name}."],
    # A broken thing.
    ["{day}, {name} played with a {colour} {thing}. It belonged to {fname} the {friend}. Then, oh no, it fell down and broke.",
     "{name} was afraid to tell {fname}. {They} hid the {thing} {hiding}. But {they} felt bad [all day|inside].",
     "At last, {name} told the truth. \"I broke your {thing}. I am sorry,\" {they} said.",
     "{fname} was quiet for a moment. \"Thank you for telling me,\" said {fname}. \"We can fix it together.\" And they did."],
    # A baby bird.
    ["{day}, {name} heard a sad little sound. A baby bird had fallen out of its nest.",
     "\"Where is your mother?\" asked {name}. The bird was too small to answer. {name} called {fname} the {friend}.",
     "{fname} was [tall|good at climbing]. Very carefully, they put the bird back into the nest.",
     "Soon the mother bird came home. She sang a [beautiful|happy] song for {name} and {fname}."],
]
STRANGERS = next(p for p in PLOTS if "a new {friend}" in p[0])  # they cannot be friends before


def cast(rng):
    """The slots of one story: hero, friend, things, places."""
    def person(kind):
        female = kind == "girl" or (kind != "boy" and kind != "girl" and rng.chance(50))
        return rng.choice(GIRLS if female else BOYS), female

    hero, friend = rng.choice(HEROES), rng.choice(ANIMALS)
    while friend == hero:
        friend = rng.choice(ANIMALS)
    name, female = person(hero)
    fname, ffemale = person(friend)
    while fname == name:
        fname, ffemale = person(friend)
    return {
        "hero": hero, "name": name, "they": "she" if female else "he", "poss": "her" if female else "his",
        "them": "her" if female else "him",
        "friend": friend, "fname": fname, "fthey": "she" if ffemale else "he",
        "fposs": "her" if ffemale else "his",
        "adj": rng.choice(ADJECTIVES), "fadj": rng.choice(ADJECTIVES), "place": rng.choice(PLACES),
        "hobby": rng.choice(HOBBIES), "thing": rng.choice(THINGS), "colour": rng.choice(COLOURS),
        "hiding": rng.choice(HIDING), "food": rng.choice(FOOD), "day": DAY[0],
    }


def story(rng, slots=None):
    """One story as a paragraph of 8 to 16 sentences."""
    slots = slots or cast(rng)
    plot = rng.choice(PLOTS)
    parts = [rng.choice(OPENING), rng.choice(HOBBY)]
    if plot is not STRANGERS and rng.chance(50):
        parts.append(rng.choice(FRIEND))
    parts += plot
    parts += rng.sample(ENDING, 1 + rng.below(2))
    return expand(rng, " ".join(p for p in parts if p), slots)


def told_story(rng):
    """A request for a story and the story: (question, answer)."""
    slots = cast(rng)
    question = expand(rng, "[Tell me a story about|Can you tell me a story about|Write a story about|"
                           "I want a story about|Please tell me a story about] {about}.",
                      {"about": f"{{a hero}}" if rng.chance(60) else "{a adj} {hero} named {name}", **slots})
    if rng.chance(20):
        question = rng.choice(["Tell me a story.", "Can you tell me a story?", "Write a story for me.",
                               "I want to hear a story.", "Do you know a story?"])
    if question.startswith("Can"):
        question = question[:-1] + "?"
    parts = [rng.choice(OPENING)] + rng.choice(PLOTS) + [rng.choice(ENDING)]
    return question, expand(rng, " ".join(parts), slots)
