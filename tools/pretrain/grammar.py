"""A small template language with its own random numbers.

Why it exists: every text of the tiny-tales corpus and of the example data is
written by the grammars beside this file, so that it has no third-party author,
and the same seed must give the same bytes on every machine and every Python.
Python's own `random` does not promise that between versions, so a SplitMix64
generator is used instead.

How it works: `expand` resolves a template in two passes.
  [a|b|c]   one of the alternatives, which may nest; an empty one is allowed
  {name}    the value of a slot, itself expanded; {Name} with its first letter
            in upper case; {a name} with its indefinite article
"""

import re

MASK = (1 << 64) - 1


class Rng:
    """SplitMix64 (Steele, Lea and Flood 2014): 64 bits of state, stable for ever."""

    def __init__(self, seed, stream=0):
        # The stream number keeps, say, stories and dialogues of one seed apart.
        self.state = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) & MASK
        self.next()

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        """An integer in [0, n). The bias is under n / 2**64."""
        return (self.next() * n) >> 64

    def between(self, low, high):
        """An integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def choice(self, items):
        return items[self.below(len(items))]

    def sample(self, items, n):
        """n different items, in random order."""
        pool = list(items)
        self.shuffle(pool)
        return pool[:n]

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(a |A )?(\w+)\}")
MAX_PASSES = 64  # a template that needs more refers to itself


def article(word):
    return "an" if word[0].lower() in "aeiou" else "a"


def upper_first(text):
    return text[:1].upper() + text[1:]


def slots_of(template):
    """The lower-case names of the slots a template mentions."""
    return {m.group(2).lower() for m in _SLOT.finditer(template)}


def expand(rng, template, slots):
    """The text of a template. Raises KeyError for a slot that has no value."""

    def alternative(match):
        return rng.choice(match.group(1).split("|"))

    def slot(match):
        name = match.group(2)
        value = slots[name] if name in slots else upper_first(expand(rng, slots[name.lower()], slots))
        if match.group(1):
            # A slot "a_item" gives the whole form where the rule would be wrong ("a pair of shoes").
            value = slots.get("a_" + name.lower()) or f"{article(value)} {value}"
            if match.group(1) == "A ":
                value = upper_first(value)
        return value

    text = template
    for _ in range(MAX_PASSES):
        changed = _INNERMOST.sub(alternative, text)
        if changed == text:
            changed = _SLOT.sub(slot, text)
        if changed == text:
            return tidy(text)
        text = changed
    raise ValueError(f"the template does not come to an end: {template}")


def tidy(text):
    """Removes the gaps that empty alternatives leave."""
    text = re.sub(r" +", " ", text).strip()
    return re.sub(r" ([,.!?])", r"\1", text)
