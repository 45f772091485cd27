"""Reads .proto files with their comments, as far as this project's go: one
declaration a line, comments before what they are about, no block comments."""

import re

FIELD = re.compile(
    r"^(optional |repeated )?(map<\s*\w+\s*,\s*[\w.]+\s*>|[\w.]+) (\w+) = (\d+)( \[.*\])?;$")
VALUE = re.compile(r"^(\w+) = (\d+);$")
OPEN = re.compile(r"^(message|enum|service|oneof) (\w+) \{(\})?$")
RPC = re.compile(r"^rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\);$")
# Comment lines that state one fact; see the head of job_spec.proto.
FACT = re.compile(r"^(Type|Unit|Range|Default|Bytes|Peers|Example): +(.*)$")


class Item:
    """A message, enum, service, oneof, field, value or method."""

    def __init__(self, kind, name, comment, **more):
        self.kind = kind
        self.name = name
        self.facts = {}
        lines = []
        for line in comment:
            fact = FACT.match(line)
            if fact:
                self.facts[fact[1].lower()] = fact[2]
            else:
                lines.append(line)
        self.comment = "\n".join(lines).strip()
        self.items = []
        # Of a field, its type and label; of a method, its request and answer.
        self.__dict__.update(more)

    def find(self, kind, name):
        for item in self.items:
            if item.kind == kind and item.name == name:
                return item
        raise KeyError(f"no {kind} {name} in {self.name}")

    def fields(self):
        """Fields in order; those of a oneof stand among them, with its name."""
        for item in self.items:
            if item.kind == "field":
                yield item, None
            elif item.kind == "oneof":
                for field in item.items:
                    yield field, item


def parse_line(line, comment):
    """The Item that a line declares, and whether its body follows."""
    opened = OPEN.match(line)
    if opened:
        return Item(opened[1], opened[2], comment), not opened[3]
    method = RPC.match(line)
    if method:
        return Item("rpc", method[1], comment, request_stream=bool(method[2]), request=method[3],
                    answer_stream=bool(method[4]), answer=method[5]), False
    value = VALUE.match(line)
    if value:
        return Item("value", value[1], comment, number=int(value[2])), False
    field = FIELD.match(line)
    if field:
        return Item("field", field[3], comment, label=(field[1] or "").strip(), type=field[2],
                    number=int(field[4])), False
    return None, False


def read_proto(path):
    """The file as an Item of kind "file". Its comment is the one at its head."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    root = Item("file", path, [])
    open_items = [root]
    comment = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line.startswith("//"):
            comment.append(line[2:].strip())
            continue
        if line.startswith("syntax"):
            root.comment = "\n".join(comment).strip()
        elif line == "}":
            open_items.pop()
        elif line and not line.startswith(("package", "import")):
            item, has_body = parse_line(line, comment)
            if item is None:
                raise ValueError(f"{path}:{number}: not understood: {line}")
            open_items[-1].items.append(item)
            if has_body:
                open_items.append(item)
        comment = []
    if len(open_items) != 1:
        raise ValueError(f"{path}: a brace is not closed")
    return root
