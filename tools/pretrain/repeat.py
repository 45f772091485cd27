"""Exercises in repeating what the customer said, word for word.

A model this small learns to look back at a name or an item only after it has
seen very many of them. These dense exercises, with real and made-up words,
teach it within a fraction of the steps, so that it speaks of the lamp when it
is asked about the lamp.
"""

import everyday
import stories
import support
from grammar import expand

WORDS = sorted({*support.WORN, *support.ELECTRIC, *support.OTHER, *support.COLOURS, *support.DAYS, *support.NUMBERS,
                *support.COUNTRIES, *support.CITIES, *everyday.ANIMALS, *everyday.CAPITALS, *everyday.OPPOSITES,
                *stories.GIRLS, *stories.BOYS, *stories.ANIMALS, *stories.THINGS, *stories.FOOD})
ASK = ["[Please repeat|Repeat|Say|Please say|Read back|Can you repeat]: {words}",
       "[Please repeat|Repeat|Say|Write] [this|after me|these words]: {words}"]
MADE_UP = (["b", "br", "d", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w", "z"],
           ["a", "e", "i", "o", "u", "ee", "oo"], ["", "b", "k", "l", "m", "n", "nd", "p", "r", "s", "st", "t"])


def made_up(rng):
    return "".join("".join(rng.choice(part) for part in MADE_UP) for _ in range(rng.between(1, 3)))


def exercise(rng):
    """A request to repeat some words, and the words: a conversation of one exchange."""
    strange = rng.chance(30)
    words = [made_up(rng) if strange and rng.chance(40) else rng.choice(WORDS) for _ in range(rng.between(1, rng.choice([3, 6, 12])))]
    text = rng.choice([" ", " ", " ", ", "]).join(words)
    return [{"role": "user", "content": expand(rng, rng.choice(ASK), {"words": text})},
            {"role": "assistant", "content": text}]
