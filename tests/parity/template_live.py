"""Compares Tundra's chat templates with Transformers' on random templates, and on template files named.

Runs build/release/tests/tundra-chat-template-tool beside Transformers' render_jinja_template. A random
template is made of the statements and expressions of Jinja over a small conversation, from a seed; a
difference prints the template, both outcomes and the seed that makes it again. An outcome is the text,
or that there was an error (the messages are Python's, so they are not compared, except those of
raise_exception).

  python tests/parity/template_live.py --count 20000 --seed 1
  python tests/parity/template_live.py path/to/chat_template.jinja ...
"""

import argparse
import datetime
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import warnings  # noqa: E402

import jinja2  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

TOOL = Path(__file__).resolve().parents[2] / "build/release/tests/tundra-chat-template-tool"
ADDRESS = re.compile(r"( at 0x[0-9a-f]+|<(generator|function|bound|built-in|class|Macro|<?jinja2|dict_|reversed|method|itertools|list_|str_|transformers|cycler|Joiner))")
NOW = datetime.datetime(2026, 3, 7, 9, 5, 4)


class StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


CONTEXT = {
    "name": "Tundra", "n": 3, "m": -7, "x": 2.5, "big": 123456789, "flag": True, "off": False, "nothing": None,
    "empty": "", "text": "  Héllo wörld, it's a \"test\"\n<b>ok</b>  ", "words": ["b", "A", "c", "a", "B"], "nums": [3, 1, 2, 1],
    "nested": {"a": {"b": [1, {"c": "deep"}]}, "k": "v", "items": "shadowed", "n": None},
    "users": [{"name": "Zoe", "age": 30, "tags": ["x"]}, {"name": "adam", "age": 4, "tags": []}, {"name": "Bob", "age": 30}],
    "bos_token": "<s>", "eos_token": "</s>",
}
MESSAGES = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 😀"}, {"role": "assistant", "content": " Ahoy \n"},
    {"role": "user", "content": [{"type": "text", "text": "part"}]}, {"role": "assistant", "content": "Bye", "tool_calls": [{"function": {"name": "f", "arguments": {"q": 1}}}]},
]
TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object", "properties": {"c": {"type": "string"}}}}}]

NAMES = list(CONTEXT) + ["messages", "tools", "documents", "add_generation_prompt", "missing", "v", "w", "i", "loop", "ns", "mac"]
ATTRS = ["name", "age", "role", "content", "a", "b", "k", "items", "keys", "upper", "missing", "tags", "index", "first", "last", "index0", "length", "__class__", "n"]
FILTERS = ["upper", "lower", "trim", "length", "list", "first", "last", "join(',')", "join", "tojson", "tojson(indent=2)", "sort", "reverse", "reverse|list",
           "default('d')", "default('d', true)", "string", "int", "float", "abs", "round", "round(1)", "capitalize", "title", "replace('a', 'X')",
           "unique|list", "map('upper')|list", "map(attribute='name')|list", "selectattr('age')|list", "selectattr('age', 'gt', 5)|list",
           "rejectattr('name', 'equalto', 'Bob')|list", "select('string')|list", "reject('none')|list", "sum", "min", "max", "dictsort", "items|list",
           "batch(2)|list", "slice(2)|list", "indent(2)", "indent(2, true)", "truncate(8)", "wordcount", "e", "safe", "urlencode", "groupby('age')",
           "sort(attribute='name')", "sort(reverse=true)", "format(1)", "tojson(separators=(',', ':'))", "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "count",
           "striptags", "forceescape", "attr('k')", "xmlattr"]
TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "iterable", "boolean", "true", "false", "integer", "float", "odd", "even",
         "divisibleby(3)", "callable", "lower", "upper", "eq(3)", "in([1, 2, 3])", "sameas(none)", "gt(2)", "escaped", "filter", "test"]
METHODS = ["upper()", "lower()", "strip()", "lstrip()", "rstrip()", "split()", "split(',')", "split(' ', 1)", "rsplit(' ', 1)", "splitlines()", "title()", "capitalize()", "startswith('T')",
           "endswith(('a', 'b'))", "replace('l', 'L', 1)", "find('o')", "count('l')", "join(words)", "get('k')", "get('z', 9)", "items()", "keys()", "values()",
           "index('A')", "append(1)", "isdigit()", "isalpha()", "islower()", "zfill(12)", "center(20)", "partition(' ')", "swapcase()", "format(n)", "strip('<>b ')", "removeprefix('Tu')", "casefold()", "copy()", "pop()", "isspace()", "rfind('l')", "ljust(12, '.')"]
LITERALS = ["1", "0", "-2", "2.5", "1e3", "''", "'ab'", "\"it's\"", "true", "false", "none", "[]", "[1, 'x', none]", "{}", "{'k': 1, 'z': [2]}", "(1, 2)", "()", "(1,)", "'é😀'", "'a\\nb'", "100", "'%s-%d'", "'{} {}'"]


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def expr(self, depth):
        r = self.r
        if depth <= 0 or r.random() < 0.12:
            names = NAMES if r.random() < 0.1 else list(CONTEXT)
            return r.choice(names) if r.random() < 0.65 else r.choice(LITERALS)
        sub = lambda: self.expr(depth - 1)  # noqa: E731
        kind = r.randrange(19)
        if kind < 4:
            return f"{sub()}|{r.choice(FILTERS)}" if r.random() < 0.7 else f"({sub()})|{r.choice(FILTERS)}"
        if kind < 6:
            return f"{r.choice(NAMES)}.{r.choice(ATTRS)}"
        if kind == 6:
            return f"{r.choice(NAMES)}.{r.choice(METHODS)}"
        if kind == 7:
            return f"({sub()})[{self.r.choice(['0', '-1', '1:', ':-1', '::-1', repr('name'), repr('k'), 'n', '1:3', '5', '::2', sub()])}]"
        if kind == 8:
            return f"{sub()} is {r.choice(['', 'not '])}{r.choice(TESTS)}"
        if kind == 9:
            return f"({sub()} if {sub()}{r.choice([' else ' + sub(), ''])})"
        if kind == 10:
            return f"{sub()} {r.choice(['==', '!=', '<', '>', '<=', '>='])} {sub()}"
        if kind == 11:
            return f"{sub()} {r.choice(['in', 'not in'])} {sub()}"
        if kind == 12:
            return f"{sub()} {r.choice(['and', 'or'])} {sub()}"
        if kind == 13:
            return f"not {sub()}"
        if kind == 14:
            return f"{sub()} ~ {sub()}"
        if kind == 15:
            return f"({sub()} {r.choice(['+', '-', '*', '/', '//', '%', '+', '+'])} {sub()})"
        if kind == 16:
            return r.choice(["loop.index", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.cycle('a', 'b')", "loop.revindex", "ns.a", "mac(1)", "mac(b=2)", "range(3)|list", "namespace(a=1).a", "dict(a=1)", "strftime_now('%d %b %Y')", "caller()", "loop.changed(i)", "cycler(1, 2).next()", "joiner()()"])
        if kind == 17:
            return f"[{sub()}, {sub()}]"
        return "{'k': " + sub() + "}"

    def template(self):
        """Mostly short: in a long one some part is refused, and hides the rest."""
        size = self.r.random()
        if size < 0.6:
            return "{{ " + self.expr(self.r.choice([1, 1, 2, 2, 3])) + " }}"
        return self.body(1 if size < 0.95 else 2)

    def tag(self, body):
        r = self.r
        return "{%" + r.choice(["", "", "-", "+"]) + f" {body} " + r.choice(["", "", "-", "+"]) + "%}"

    def space(self):
        return self.r.choice(["", "", " ", "\n", "\n  ", "txt", " a\n", "\n\n", "{# c #}", "  {#- c -#}\n"])

    def body(self, depth):
        return "".join(self.space() + self.stmt(depth) + self.space() for _ in range(self.r.randrange(1, 4)))

    def stmt(self, depth):
        r = self.r
        e = lambda d=2: self.expr(d)  # noqa: E731
        kind = r.randrange(16) if depth > 0 else 0
        if kind < 5:
            return "{{" + r.choice(["", "-"]) + f" {e()} " + r.choice(["", "-"]) + "}}"
        b = lambda: self.body(depth - 1)  # noqa: E731
        if kind < 8:
            target = r.choice(["i", "i", "v", "i, v", "k, v"])
            over = r.choice(["messages", "nums", "words", "users", "nested.items()", "nested|items", "range(3)", e(), "nums|sort", "name", "users|selectattr('age')"])
            test = f" if {e(1)}" if r.random() < 0.2 else ""
            control = self.tag("if " + e(1)) + self.tag(r.choice(["break", "continue"])) + self.tag("endif") if r.random() < 0.2 else ""
            other = self.tag("else") + b() if r.random() < 0.2 else ""
            return self.tag(f"for {target} in {over}{test}") + b() + control + b() + other + self.tag("endfor")
        if kind < 10:
            middle = (self.tag("elif " + e()) + b() if r.random() < 0.3 else "") + (self.tag("else") + b() if r.random() < 0.5 else "")
            return self.tag("if " + e()) + b() + middle + self.tag("endif")
        if kind == 10:
            return self.tag(f"set {r.choice(['v', 'w', 'n', 'v', 'i', 'v, w'])} = {e()}")
        if kind == 11:
            return self.tag("set " + r.choice(["v", "w"]) + r.choice(["", " | upper", " | trim"])) + b() + self.tag("endset")
        if kind == 12:
            return self.tag("set ns = namespace(a=" + e(1) + ")") + self.tag("set ns.a = " + e()) + b()
        if kind == 13:
            name = r.choice(["mac", "mac2"])
            return self.tag(f"macro {name}(a, b={r.choice(LITERALS)})") + "{{ a }}" + b() + r.choice(["", "{{ caller() if caller else '' }}", "{{ kwargs }}{{ varargs }}"]) + self.tag("endmacro") + "{{ " + name + r.choice(["(1)", "(v, 2)", "(a=n)", "()", "(1, 2, 3)", "(1, z=5)"]) + " }}"
        if kind == 14:
            return r.choice([
                self.tag("generation") + b() + self.tag("endgeneration"),
                self.tag("filter " + r.choice(["upper", "trim", "indent(2)", "replace('a', 'b')"])) + b() + self.tag("endfilter"),
                self.tag("call mac(1)") + b() + self.tag("endcall"),
                self.tag("with v = " + e(1)) + b() + self.tag("endwith"),
                "{% raw %}{{ x }}{% endraw %}",
            ])
        return "{{ raise_exception(" + e(1) + ") }}" if r.random() < 0.2 else "{{ " + e(3) + " }}"


def reference(template, request):
    try:
        text, spans = chat_template_utils.render_jinja_template(
            [request["messages"]], tools=request["tools"], chat_template=template, return_assistant_tokens_mask=True,
            add_generation_prompt=request["add_generation_prompt"], **request["variables"])
    except jinja2.exceptions.TemplateError as error:
        exact = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error.message) if exact else None}
    except Exception as error:  # noqa: BLE001  whatever Python raises is a refusal
        return {"error": None, "python": f"{type(error).__name__}: {error}"}
    bytes_of = lambda i: len(text[0][:i].encode())  # noqa: E731
    return {"rendered": text[0], "spans": [[bytes_of(a), bytes_of(b)] for a, b in spans[0]]}


def same(ours, theirs):
    if "rendered" in theirs:
        return ours == theirs
    return "error" in ours and (theirs["error"] is None or ours["error"].endswith(": " + theirs["error"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Python on the code that Jinja makes

    chat_template_utils.datetime = StoppedClock
    tool = subprocess.Popen([TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    templates = [(str(f), f.read_text(encoding="utf-8")) for f in options.files]
    if not templates:
        templates = [(f"seed {s}", Maker(s).template()) for s in range(options.seed, options.seed + options.count)]
    counts = {"rendered": 0, "refused": 0, "skipped": 0, "different": 0}
    now = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp())
    for label, template in templates:
        for messages in [MESSAGES] if not options.files else [MESSAGES[:k] for k in (2, 3, 1)] + [MESSAGES[1:3], MESSAGES]:
            request = {"messages": messages, "tools": TOOLS, "add_generation_prompt": True, "variables": CONTEXT}
            tool.stdin.write(json.dumps({**request, "template": template, "now": now, "drop_null_keys": False}, ensure_ascii=False) + "\n")
            tool.stdin.flush()
            answer = tool.stdout.readline()
            if not answer:
                sys.exit(f"{label}: the tool ended on {template!r}")
            ours, theirs = json.loads(answer), reference(template, request)
            if ADDRESS.search(theirs.get("rendered") or ""):
                counts["skipped"] += 1  # an object's address or Python's name of one: not for comparison
            elif same(ours, theirs):
                counts["rendered" if "rendered" in theirs else "refused"] += 1
            else:
                counts["different"] += 1
                if counts["different"] <= options.show:
                    print(f"--- {label}\n{template!r}\n ours   {ours}\n theirs {theirs}", flush=True)
    tool.stdin.close()
    tool.wait()
    print(counts)
    sys.exit(1 if counts["different"] else 0)


if __name__ == "__main__":
    main()
