"""Conversations in chat form, put together from the topics.

A conversation is a list of {"role", "content"} messages. Answers are given in a
style: `plain` for the corpus of the base, `pirate.speak` for the example data,
so that both speak of exactly the same subjects.
"""

import everyday
import stories
import support
import support_more
from grammar import expand, slots_of, upper_first

SUPPORT = support.TOPICS + support_more.TOPICS
SYSTEMS = [
    "You are a helpful assistant.",
    "You are a kind and helpful assistant.",
    "You help the customers of a shop.",
    "You are a support assistant. Answer in a polite way.",
    "You work for the shop {shop}.",
    "You are the helper of the shop {shop}. Be kind and polite.",
    "Answer the questions of our customers at {shop}.",
]
CLOSING = {"thanks", "bye"}
SHORT_FORMS = [("I am ", "I'm "), ("do not ", "don't "), ("cannot ", "can't "), ("does not ", "doesn't "), ("did not ", "didn't "),
               ("Where is ", "Where's "), ("What is ", "What's "), ("I have ", "I've "), ("It is ", "It's ")]


def plain(rng, topic, answer):
    return answer


def item_slots(rng, item):
    """The item and every word that has to agree with it."""
    pair = item in support.PAIRS
    colour = rng.choice(support.COLOURS)
    forms = {
        "item": item, "coloured": f"{colour} {item}", "plain": item if pair else _plural(item),
        "is": "are" if pair else "is", "does": "do" if pair else "does", "was": "were" if pair else "was",
        "makes": "make" if pair else "makes", "them": "them" if pair else "it",
        "one": "pair" if pair else "one", "this": "these" if pair else "this",
    }
    if pair:
        forms |= {"a_item": f"a pair of {item}", "a_coloured": f"a pair of {colour} {item}"}
    return forms


def _plural(word):
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    return {"scarf": "scarves"}.get(word, word + "s")


def ask(rng, topic):
    """A question and an answer template's slots: (question, answer) of a topic."""
    name, defaults, questions, answers = topic
    question = rng.choice(questions)
    item = rng.choice(support.KINDS.get(name, support.WORN + support.ELECTRIC + support.OTHER))
    slots = item_slots(rng, item)
    slots |= {
        "parcel": rng.choice(support.PARCELS), "order": rng.choice(["order", "order", "purchase"]),
        "day": rng.choice(support.DAYS), "number": rng.choice(support.NUMBERS),
        "colour": rng.choice(support.COLOURS), "country": rng.choice(support.COUNTRIES),
        "city": rng.choice(support.CITIES), "method": rng.choice(support.METHODS),
        "thing": rng.choice(["website", "website", "app", "page"]),
    }
    asked = expand(rng, question, slots)
    # What the question leaves open is answered with the topic's own words, but
    # a day or number that the customer named is not handed back.
    if "item" in defaults and not slots_of(question) & {"item", "coloured", "plain"}:
        slots |= item_slots(rng, defaults["item"])
    for slot in set(defaults) - slots_of(question) - {"item"}:
        slots[slot] = defaults[slot]
    slots["day"] = rng.choice([d for d in support.DAYS if d != slots["day"]])
    slots["number"] = rng.choice([n for n in support.NUMBERS if n != slots["number"]])
    return asked, expand(rng, rng.choice(answers), slots)


def roughen(rng, question):
    """Questions as people type them: short forms, greetings, no capitals, no question mark."""
    if rng.chance(25):
        for long, short in SHORT_FORMS:
            question = question.replace(long, short)
    if rng.chance(12):
        question = rng.choice(["Hello. ", "Hi. ", "Hello! ", "Hi! ", "Please help. ", "Good morning. "]) + question
    if rng.chance(8):
        question += rng.choice([" Please help me.", " Can you help?", " Thank you.", " Please help."])
    if rng.chance(12):
        question = question.lower()
    if rng.chance(10):
        question = question.rstrip("?.!")
    return question


def pick_topic(rng, stories_too):
    """(kind, topic): mostly support, some small talk and facts, now and then a story."""
    n = rng.below(100)
    if n < 66:
        return "support", rng.choice(SUPPORT)
    if n < 80:
        return "talk", rng.choice(everyday.SMALL_TALK)
    if n < 92 or not stories_too:
        return "fact", rng.choice(everyday.FACTS)
    return "story", None


def conversation(rng, style=plain, stories_too=True, rough=True):
    """One conversation of one to four exchanges, some with a system message."""
    messages = []
    shop = rng.choice(support.SHOPS)
    system = ""
    if rng.chance(35):
        system = expand(rng, rng.choice(SYSTEMS), {"shop": shop})
        messages.append({"role": "system", "content": system})
    n = rng.below(100)
    exchanges = 1 if n < 62 else 2 if n < 84 else 3 if n < 95 else 4
    for i in range(exchanges):
        kind, topic = pick_topic(rng, stories_too)
        if exchanges > 1 and i == exchanges - 1 and rng.chance(50):
            kind, topic = "talk", rng.choice([t for t in everyday.SMALL_TALK if t[0] in CLOSING])
        # Nobody says goodbye first.
        while i == 0 and topic and topic[0] in CLOSING and exchanges > 1:
            kind, topic = pick_topic(rng, stories_too)
        if kind == "story":
            question, answer = stories.told_story(rng)
        else:
            question, answer = ask(rng, topic)
        if topic and topic[0] == "hello" and shop in system and rng.chance(70):
            answer = f"Hello and welcome to {shop}! How can I help you?"
        if rough:
            question = roughen(rng, question)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": style(rng, topic, upper_first(answer))})
    return messages
