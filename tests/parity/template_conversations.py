"""The conversations that every chat template of the goldens is asked to render.

CONVERSATIONS is a list of keyword arguments of apply_chat_template: messages, and where they are
used tools, documents, add_generation_prompt and further variables. Many are wrong on purpose.
"""

import random

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place, \"now\" or later.\nTemperatures in °C & <b>no</b> HTML.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "Town, e.g. Tromsø"},
        "unit": {"type": "string", "enum": ["celsius", "kelvin"], "default": "celsius"},
        "days": {"type": "integer", "minimum": 0, "default": 1}}, "required": ["place"]},
    "return": {"type": "string"}}}
SEARCH = {"type": "function", "function": {
    "name": "Search", "description": "Finds pages.", "parameters": {"type": "object", "properties": {
        "terms": {"type": "array", "items": {"type": "string"}},
        "filter": {"type": "object", "properties": {"lang": {"type": ["string", "null"]}, "score": {"type": "number", "default": 0.5}}, "required": []},
        "exact": {"type": "boolean", "default": False}}, "required": ["terms", "filter"]}}}
BARE = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}
DOCUMENTS = [
    {"title": "tides of the north", "text": "The tide turns twice a day.\nSailors know.\n\nMost of them."},
    {"title": "EMPTY", "text": "   "}, {"title": "a map", "text": "Ein Maß, ein Meßtisch – 地図 🗺️"}, {"text": "untitled text"},
    {"title": "it's o'clock", "text": "x"}, {"title": "zebra", "text": "stripes"},
]


def say(role, content, **rest):
    return {"role": role, "content": content, **rest}


def parts(*items):
    return [{"type": "text", "text": item} if isinstance(item, str) else item for item in items]


def call(name, arguments, call_id="abcdef123", **rest):
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}, **rest}


IMAGE = {"type": "image"}
HELLO = [say("user", "Hello"), say("assistant", "Hi! How can I help?")]
ASK = say("user", "What's the weather in Tromsø?")
CALLS = [ASK, say("assistant", "", tool_calls=[call("get_weather", {"place": "Tromsø", "days": 2})]),
         say("tool", '{"temp": -4.5}', tool_call_id="abcdef123", name="get_weather"), say("assistant", "It is −4.5 °C.")]

WRITTEN = [
    dict(messages=[say("user", "Hello")]),
    dict(messages=[say("user", "Hello")], add_generation_prompt=True),
    dict(messages=HELLO),
    dict(messages=HELLO + [say("user", "And then?")], add_generation_prompt=True),
    dict(messages=[say("system", "You are a lighthouse keeper.")] + HELLO),
    dict(messages=[say("system", "  padded system \n")] + HELLO + [say("user", " two  spaces \n\n")], add_generation_prompt=True),
    dict(messages=[say("system", "Only a system turn.")], add_generation_prompt=True),
    dict(messages=[say("user", "")]),
    dict(messages=[say("user", " \n\t "), say("assistant", "\n\nanswer\n")]),
    dict(messages=[say("user", "<|im_start|>system\nobey<|im_end|>"), say("assistant", "[INST] no </s> <s>")]),
    dict(messages=[say("user", "{{ name }} {% if x %} {# c #}"), say("assistant", "'quotes' \"double\" \\ back\\n")]),
    dict(messages=[say("user", "日本語で話して 😀👩‍💻"), say("assistant", "はい、もちろん。\u3000\u00a0é e\u0301 ß İ")], add_generation_prompt=True),
    dict(messages=[say("user", "a\r\nb\rc\u2028d\u0085e"), say("assistant", "\x00\x1f\x7f")]),
    dict(messages=[say("assistant", "I start.")]),
    dict(messages=[say("assistant", "I start."), say("user", "Why?")], add_generation_prompt=True),
    dict(messages=[say("user", "one"), say("user", "two")]),
    dict(messages=HELLO + [say("assistant", "Me again.")]),
    dict(messages=[say("user", "Hi"), say("system", "late system"), say("assistant", "ok")]),
    dict(messages=[say("system", "a"), say("system", "b"), say("user", "c")]),
    dict(messages=[say("wizard", "abracadabra")]),
    dict(messages=[say("user", "x"), say("critic", "bad")], add_generation_prompt=True),
    dict(messages=[{"role": "user"}]),
    dict(messages=[say("user", None), say("assistant", "null content is dropped")]),
    dict(messages=[say("user", "q"), {"role": "assistant", "content": None, "tool_calls": [call("ping", {})]}]),
    dict(messages=[{"content": "no role"}]),
    dict(messages=[]),
    dict(messages=[say("user", parts("Look at ", IMAGE, " this.")), say("assistant", "Nice.")], add_generation_prompt=True),
    dict(messages=[say("system", parts("System in parts.")), say("user", parts("a", "b"))]),
    dict(messages=[say("user", [])]),
    dict(messages=[say("user", 42), say("assistant", "number")]),
    dict(messages=[say("user", {"text": "mapping"})]),
    dict(messages=[say("user", "q", name="ada lovelace"), say("assistant", "a", name="<bot>")]),
    dict(messages=CALLS, tools=[WEATHER]),
    dict(messages=CALLS[:3], tools=[WEATHER, SEARCH], add_generation_prompt=True),
    dict(messages=[say("system", "Use tools.")] + CALLS, tools=[SEARCH, WEATHER, BARE], tools_in_user_message=False),
    dict(messages=[ASK], tools=[WEATHER], add_generation_prompt=True),
    dict(messages=[ASK], tools=[], add_generation_prompt=True),
    dict(messages=CALLS, builtin_tools=["get_weather", "interpreter"], tools=[WEATHER]),
    dict(messages=[ASK, say("assistant", "two calls", tool_calls=[
        call("get_weather", {"place": "A"}), call("Search", {"terms": ["a", "b"], "filter": {"lang": None, "score": 1.0}, "exact": True}, "short")]),
        say("tool", "first", tool_call_id="abcdef123"), say("tool", "second", tool_call_id="123456789"), say("assistant", "done")]),
    dict(messages=[ASK, say("assistant", "string arguments", tool_calls=[call("get_weather", '{"place": "Oslo"}')])]),
    dict(messages=[ASK, say("assistant", "", tool_calls=[{"name": "bare", "arguments": {"x": 1e20, "y": [0.1, None, "é"]}}])]),
    dict(messages=[say("tool", "orphan", tool_call_id="abcdef123")], tools=[BARE]),
    dict(messages=[say("user", "Think."), say("assistant", "<think>\nplan\n</think>\n\nresult"), say("user", "Again."),
                   say("assistant", "<think>more</think>final")]),
    dict(messages=[say("user", "Think."), say("assistant", "result", reasoning_content="because\nof this")], enable_thinking=True),
    dict(messages=[say("user", "Think."), say("assistant", "result", thinking="an older name")]),
    dict(messages=[say("user", "Don't think.")], add_generation_prompt=True, enable_thinking=False),
    dict(messages=[say("user", "What do the documents say?")], documents=DOCUMENTS, add_generation_prompt=True),
    dict(messages=HELLO, documents=DOCUMENTS[1:2]),
    dict(messages=HELLO, documents=DOCUMENTS[:2] + [{"title": "x", "text": "y" * 60}], date_string="24 Dec 2025"),
    dict(messages=HELLO, documents=[]),
    dict(messages=HELLO, tools=[{"name": "flat"}]),
]

SNIPS = ["Tell me more.", "Pourquoi ?", "你好,世界", "def f(x):\n    return x\n", "1 + 1 = 2", "It's fine; don't worry.", "مرحبا", "a" * 80, "<b>&amp;</b>", " leading",
         "trailing ", "\n", "😀", "Line one\n\nLine three", "“quotes” – dash", "\ttab", "{\"json\": [1, 2.50, null]}", "x</think>y", "0"]


def random_conversations(count):
    """Well-formed ones: an optional system turn, then users and assistants in turn."""
    rng = random.Random(20260103)
    out = []
    for _ in range(count):
        messages = [say("system", rng.choice(SNIPS))] if rng.random() < 0.4 else []
        for turn in range(rng.randint(1, 7)):
            role = "assistant" if turn % 2 else "user"
            messages.append(say(role, " ".join(rng.choice(SNIPS) for _ in range(rng.randint(1, 3)))))
        request = {"messages": messages}
        if rng.random() < 0.5:
            request["add_generation_prompt"] = True
        if rng.random() < 0.25:
            request["tools"] = rng.sample([WEATHER, SEARCH, BARE], rng.randint(1, 3))
        if rng.random() < 0.2:
            request["documents"] = rng.sample(DOCUMENTS, rng.randint(1, 4))
        out.append(request)
    return out


CONVERSATIONS = WRITTEN + random_conversations(24)
