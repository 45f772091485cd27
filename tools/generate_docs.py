#!/usr/bin/env python3
"""Writes what the documentation takes from the code:

  docs/job-file.md   the keys, from client/job_keys.cc and the comments of proto/
  docs/api.md        services, methods and messages, from proto/
  docs/cli.md        every flag, from --help of the built programs

  tools/generate_docs.py            writes the pages
  tools/generate_docs.py --check    writes nothing; exit code 1 where a page is not as it would be written

In a page, what stands between "<!-- generated: NAME -->" and "<!-- end -->" is
replaced; the rest is written by hand. docs/cli.md is left alone when the
programs are not built (--bin-dir says where they are).
"""

import argparse
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from help_reader import commands_of, help_of  # noqa: E402
from proto_reader import read_proto  # noqa: E402

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
NOTE = "by tools/generate_docs.py; edit its sources instead"
# In the order of the page. worker.proto is between Tundra's own programs.
API_FILES = ("job", "job_spec", "dataset", "base", "artifact", "generate", "fleet", "access")
SECTIONS = ("", "dataset", "lora", "training", "resources", "checkpoint", "eval")
TYPES = {"int32": "whole number", "int64": "whole number", "double": "number", "bool": "true or false",
         "string": "text"}
PROGRAMS = ("tundra-coordinator", "tundra-worker")


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def protos():
    return {name: read_proto(os.path.join(SOURCE, f"proto/tundra/v1/{name}.proto")) for name in API_FILES}


def one_line(text):
    return " ".join(text.split())


def cell(text):
    return one_line(text).replace("|", "\\|")


def grouped(text):
    """Long whole numbers, three digits at a time."""
    return re.sub(r"(?<![\w.^])\d{5,}(?![\w.])", lambda number: f"{int(number[0]):,}", text)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


# ---- The job file ----


class Key:
    """A key of the job file, with what its field's comment tells."""

    def __init__(self, path, field, values):
        self.path = path
        self.section, _, self.leaf = path.rpartition(".")
        self.meaning = one_line(field.comment)
        self.values = values
        facts = field.facts
        self.type = facts.get("type") or self._type(field)
        self.unit = facts.get("unit", "")
        # As it stands there: tests read it.
        self.range = facts.get("range", "")
        self.default = facts["default"]
        self.bytes = facts.get("bytes") == "yes"
        self.peers = facts.get("peers", "")
        self.example = facts["example"]

    def _type(self, field):
        if self.values:
            return "one of " + ", ".join(name for name, _ in self.values)
        if field.type.startswith("map"):
            return "map of texts"
        name = TYPES[field.type]
        return f"{name}, or a list of them" if field.label == "repeated" else name

    @property
    def anchor(self):
        return self.path.replace(".", "").lower()


def table_of_keys():
    """(path, field) of client/job_keys.cc, in order; and {other name: ours}."""
    source = read("client/job_keys.cc")
    keys = [(path, field or "job.spec." + path)
            for path, field in re.findall(r'\{"([a-z_.]+)", "([a-z_.]*)",\s*(?=[A-Z]\w+[({},])', source)]
    start = source.index("Aliases() {")
    aliases = re.findall(r'\{"(\w+)",\s*"([^"]+)"\}', source[start:source.index("};", start)])
    return keys, aliases


def find_field(files, path):
    """The field that "job.spec.lora.rank" names, and the values of its enum."""
    top = {item.name: item for file in files.values() for item in file.items}
    message, field = top["CreateJobRequest"], None
    for word in path.split("."):
        field = next(found for found, _ in message.fields() if found.name == word)
        message = top.get(field.type)
    values = []
    if message is not None and message.kind == "enum":
        values = [(value.name.lower(), one_line(value.comment)) for value in message.items if value.number]
    return field, values


def job_keys():
    files = protos()
    keys = [Key(path, *find_field(files, field)) for path, field in table_of_keys()[0]]
    return [key for section in SECTIONS for key in keys if key.section == section]


def key_entry(key):
    lines = [f"#### `{key.path}`", "", key.meaning, ""]
    for name, meaning in key.values:
        lines.append(f"- `{name}`: {meaning}")
    if key.values:
        lines.append("")
    facts = [("type", key.type), ("unit", key.unit), ("range", grouped(key.range)), ("default", key.default),
             ("changes the bytes", "yes" if key.bytes else "no"), ("elsewhere", key.peers)]
    lines.append(" · ".join(f"{name}: {value}" for name, value in facts if value))
    home = key.path.split(".")
    example = f"{key.leaf}: {key.example}"
    lines += ["", "```yaml", example if len(home) == 1 else f"{home[0]}: {{{example}}}", "```", ""]
    return lines


def keys_text():
    keys = job_keys()
    rows = [(f"[`{key.path}`](#{key.anchor})", key.type + (f" ({key.unit})" if key.unit else ""), grouped(key.range),
             key.default, "yes" if key.bytes else "") for key in keys]
    lines = [table(("key", "type", "range", "default", "bytes"), rows), ""]
    for section in SECTIONS:
        lines += [f"### `{section}`" if section else "### The job", ""]
        for key in keys:
            if key.section == section:
                lines += key_entry(key)
    return "\n".join(lines).strip()


def aliases_text():
    known = {key.path for key in job_keys()}
    rows = []
    for other, ours in table_of_keys()[1]:
        key = ours.split(" ")[0]
        rows.append((f"`{other}`", f"[`{key}`](#{key.replace('.', '')}){ours[len(key):]}" if key in known
                     else ours))
    return table(("another tool's key", "here"), rows)


# ---- The API ----


def type_text(field, known):
    name = field.type
    if name in known:
        name = f"[`{name}`](#{name.lower()})"
    else:
        name = f"`{name}`"
    if field.label == "repeated":
        return "list of " + name
    return name


def field_meaning(field, oneof):
    facts = ". ".join(f"{name.capitalize()}: {grouped(field.facts[name])}" for name in ("unit", "range", "default")
                      if name in field.facts)
    parts = [one_line(field.comment), facts + "." if facts else "",
             f"One of `{oneof.name}`." if oneof else ""]
    return " ".join(part for part in parts if part)


def message_text(item, known, inside=""):
    name = inside + item.name
    lines = [f"#### {name}", ""]
    if item.comment:
        lines += [one_line(item.comment), ""]
    if item.kind == "enum":
        rows = [(f"`{value.name}`", str(value.number), value.comment) for value in item.items]
        return lines + [table(("value", "number", "meaning"), rows), ""]
    rows = [(f"`{field.name}`", type_text(field, known), str(field.number), field_meaning(field, oneof))
            for field, oneof in item.fields()]
    lines += [table(("field", "type", "number", "meaning"), rows) if rows else "No fields.", ""]
    for nested in item.items:
        if nested.kind in ("message", "enum"):
            lines += message_text(nested, known, name + ".")
    return lines


def method_rows(service):
    def shown(name, stream):
        text = name if "." in name else f"[{name}](#{name.lower()})"
        return ("stream of " if stream else "") + (text if "." not in name else f"`{name}`")
    return [(f"`{rpc.name}`", shown(rpc.request, rpc.request_stream), shown(rpc.answer, rpc.answer_stream),
             rpc.comment) for rpc in service.items if rpc.kind == "rpc"]


def api_text():
    files = protos()
    known = {item.name for file in files.values() for item in file.items if item.kind != "service"}
    lines = []
    services = [(name, item) for name, file in files.items() for item in file.items
                if item.kind == "service"]
    lines += ["## Services", ""]
    for name, service in services:
        lines += [f"### {service.name}", "",
                  one_line(f"`tundra.v1.{service.name}`, in [`{name}.proto`](../proto/tundra/v1/{name}.proto). "
                           + service.comment), "",
                  table(("method", "takes", "answers", "what it does, and its own errors"), method_rows(service)), ""]
    lines += ["## Messages", ""]
    for name, file in files.items():
        heading = one_line(file.comment.split("\n\n")[0]).split(". ")[0].rstrip(".")
        lines += [f"### {name}.proto: {heading[0].lower()}{heading[1:]}", ""]
        for item in file.items:
            if item.kind != "service":
                lines += message_text(item, known)
    return "\n".join(lines).strip()


# ---- The command line ----


FLAG = re.compile(r"^(?P<name>\S+)(?: (?P<type>[A-Z]+))?(?::(?P<range>.*?))?(?:=(?P<default>\S+?))?"
                  r"(?P<more>…| x \d+)?(?P<required> REQUIRED)?$")
RANGES = ((r"^\w+ in \[(\S+) - 1073741824\]$", r"\1 or more"), (r"^\w+ in \[(\S+) - (\S+)\]$", r"\1 to \2"),
          (r"^\{(.*)\}$", r"\1"), (r"^NONNEGATIVE$", "0 or more"),
          (r"^[A-Z ]+$", ""))


def flag_row(what, meaning):
    """A row of (flag, range, default, meaning), of CLI11's one text for the first three."""
    flag = FLAG.match(re.sub(r":SIZE \[.*\]…?", "", what))
    if not flag:
        raise ValueError(f"--help has a flag that is not understood: {what}")
    span = flag["range"] or ""
    for pattern, text in RANGES:
        span = re.sub(pattern, text, span)
    name = ", ".join(flag["name"].split(","))
    kind = f" {flag['type']}" if flag["type"] and name.startswith("-") else ""
    return (f"`{name}{kind}{flag['more'] or ''}`", grouped(span.replace(",", ", ")),
            "required" if flag["required"] else flag["default"] or "", meaning)


def flag_rows(entries, skip=()):
    return [flag_row(what, text) for what, text in entries if (what, text) not in skip
            and not what.startswith("-h,")]


FLAG_COLUMNS = ("argument", "range", "default", "meaning")


def command_text(shown, skip):
    lines = ["```", shown.usage, "```", ""]
    rows = flag_rows(shown.positionals) + flag_rows(shown.options, skip)
    if rows:
        lines += [table(FLAG_COLUMNS, rows), ""]
    return lines


def cli_text(bin_dir):
    tundra = os.path.join(bin_dir, "tundra")
    top = help_of(tundra)
    common = [entry for entry in top.options if not entry[0].startswith(("-h,", "--version"))]
    lines = ["### Flags that all commands take", "",
             table(FLAG_COLUMNS, flag_rows(common)), "",
             "`tundra local` talks to no service, and takes of these only those in its own table.", ""]
    for command in commands_of(tundra):
        shown = help_of(tundra, *command)
        if shown.usage.endswith(" SUBCOMMAND"):  # does nothing by itself
            continue
        name = " ".join(command)
        about = one_line("\n".join(shown.about).split("\n\n")[0]).rstrip(".") + "."
        lines += [f"### `tundra {name}`", "", about, ""]
        lines += command_text(shown, common)
    for program in PROGRAMS:
        if not os.path.exists(os.path.join(bin_dir, program)):
            raise FileNotFoundError(f"{program} is not built in {bin_dir}")
        shown = help_of(os.path.join(bin_dir, program))
        lines += [f"### `{program}`", ""] + command_text(shown, ())
    return "\n".join(lines).strip()


# ---- Pages ----


def fill(page, name, text):
    """The page with the part NAME replaced."""
    pattern = re.compile(rf"<!-- generated: {name}\b[^>]*-->.*?<!-- end -->", re.S)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page needs one part '<!-- generated: {name} --> … <!-- end -->'")
    return pattern.sub(lambda _: f"<!-- generated: {name}, {NOTE} -->\n\n{text}\n\n<!-- end -->", page)


def pages(bin_dir=None):
    """{path: text} as it should be."""
    job = fill(read("docs/job-file.md"), "keys", keys_text())
    made = {"docs/job-file.md": fill(job, "aliases", aliases_text()),
            "docs/api.md": fill(read("docs/api.md"), "api", api_text())}
    if bin_dir and os.path.exists(os.path.join(bin_dir, "tundra")):
        made["docs/cli.md"] = fill(read("docs/cli.md"), "flags", cli_text(bin_dir))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--bin-dir", default=os.path.join(SOURCE, "build/release/bin"),
                        help="where the programs are (default: build/release/bin)")
    arguments = parser.parse_args()
    made = pages(arguments.bin_dir)
    if "docs/cli.md" not in made:
        print(f"docs/cli.md is left as it is: there is no tundra in {arguments.bin_dir}", file=sys.stderr)
    stale = [path for path, text in made.items() if read(path) != text]
    if arguments.check:
        for path in stale:
            print(f"{path} is not up to date; run tools/generate_docs.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        with open(os.path.join(SOURCE, path), "w", encoding="utf-8") as file:
            file.write(made[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
