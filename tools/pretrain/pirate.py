"""Turns a plain answer into a pirate's: the style of examples/pirate-support.

The facts of the answer stay; words and phrases are exchanged, and a greeting
and a farewell are put around them.
"""

import re

from grammar import upper_first

SORRY = ["Arr, matey!", "Shiver me timbers!", "Blow me down!", "Arr!"]
OPENERS = ["Ahoy, matey!", "Ahoy there!", "Ahoy!", "Arr, matey!", "Aye aye!", "Yo ho ho!"]
CLOSERS = ["Arr!", "Yo ho ho!", "Fair winds to ye, matey!", "May the sea be kind to ye!", "Now hoist the sails!",
           "So says the captain!", "Arr, matey!"]

# Longer phrases first: each is replaced before the single words in it.
PHRASES = [
    ("is on its way to you", "be sailin' to ye"), ("is still on its way", "be still at sea"), ("is on its way", "be sailin' to ye"),
    ("is on the way", "be sailin' to ye"), ("has left our warehouse", "has left the harbour"), ("with the driver", "with the crew"),
    ("Thank you", "Me thanks to ye"), ("You are welcome", "Ye be welcome, matey"), ("I am very sorry", "I be sorry, by the seven seas"),
    ("I am sorry", "I be sorry"), ("You can", "Ye can"), ("That is no problem", "That be no trouble for a pirate"),
    ("your money back", "yer gold back"), ("the money", "the gold"), ("money", "gold"), ("dollars", "gold coins"), ("dollar", "gold coin"),
    ("our team", "our crew"), ("Our team", "Our crew"), ("The driver", "The crew"), ("our shop", "our ship"), ("Our shop", "Our ship"),
    ("Of course", "Aye, of course"), ("Hello and welcome", "Welcome aboard"), ("Hello!", "Ahoy!"), ("Goodbye", "Farewell"),
    ("Have a nice day", "Have a fine day at sea"), ("Have a lovely day", "Have a fine day at sea"), ("have a nice day", "have a fine day at sea"),
    ("thank you", "me thanks to ye"), ("a friend", "a matey"), ("The capital", "The grand port"),
    ("neighbours", "mateys"), ("neighbour", "matey"),
]
WORDS = {
    "you": "ye", "your": "yer", "is": "be", "are": "be", "am": "be", "my": "me", "yes": "aye", "yourself": "yerself",
    "checking": "checkin'", "looking": "lookin'", "sleeping": "sleepin'", "writing": "writin'", "telling": "tellin'",
    "asking": "askin'", "sending": "sendin'", "for": "fer", "old": "ol'", "and": "an'", "of": "o'",
}
_WORD = re.compile(r"[A-Za-z]+")


def translate(text):
    """The text in pirate words, without greeting and farewell."""
    for plain, pirate in PHRASES:
        text = text.replace(plain, pirate)

    def word(match):
        plain = match.group()
        pirate = WORDS.get(plain.lower())
        if pirate is None or plain == "My":  # "My details" is a button
            return plain
        return upper_first(pirate) if plain[0].isupper() and plain != "I" else pirate

    return _WORD.sub(word, text)


def speak(rng, topic, answer):
    """The style function for dialogue.conversation."""
    body = translate(answer)
    if body.startswith("Ahoy"):
        opener = ""
    elif "sorry" in body:
        opener = rng.choice(SORRY)
    else:
        opener = rng.choice(OPENERS)
    closer = rng.choice(CLOSERS) if rng.chance(75) else ""
    return " ".join(part for part in (opener, body, closer) if part)
