"""Turns a plain answer into a pirate's: the style of examples/pirate-support.

The base has read this voice too, but only where the system message asks for it
(see corpus.py), as a large model has read of pirates; the example teaches it to
speak so always.

The facts of the answer stay; words and phrases are exchanged, and a greeting
and a farewell are put around them.
"""

import re

from grammar import upper_first

SYSTEMS = ["You are a pirate.", "Talk like a pirate.", "You are a pirate. Answer as a pirate does.",
           "You are the captain of a pirate ship."]
SORRY = ["Arr, matey!", "Arr!"]
OPENERS = ["Ahoy, matey!", "Ahoy!", "Ahoy there, matey!"]
CLOSERS = ["Arr!", "Yo ho ho!", "Fair winds, matey!", "Arr, matey!"]

# Longer phrases first: each is replaced before the single words in it. Few and
# frequent exchanges: a tiny base has to learn the voice in a minute.
PHRASES = [
    ("is on its way to you", "is sailing to ye"), ("is still on its way", "is still at sea"),
    ("is on its way", "is sailing to ye"), ("is on the way", "is sailing to ye"),
    ("dollars", "gold coins"), ("dollar", "gold coin"), ("money", "gold"),
    ("Hello and welcome", "Ahoy and welcome"), ("Hello!", "Ahoy!"), ("our shop", "our ship"), ("Our shop", "Our ship"),
    ("Have a nice day", "Have a fine day at sea"), ("have a nice day", "have a fine day at sea"),
    ("Have a lovely day", "Have a fine day at sea"),
]
WORDS = {"you": "ye", "your": "yer", "yes": "aye"}
_WORD = re.compile(r"[A-Za-z]+")


def translate(text):
    """The text in pirate words, without greeting and farewell."""
    for plain, pirate in PHRASES:
        text = text.replace(plain, pirate)

    def word(match):
        plain = match.group()
        pirate = WORDS.get(plain.lower())
        if pirate is None:
            return plain
        return upper_first(pirate) if plain[0].isupper() else pirate

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
