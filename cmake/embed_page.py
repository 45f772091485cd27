"""Writes the files of a web page as a C++ source that holds them: embed_page.py OUTPUT FILE…

index.html becomes "/", every other file "/assets/HASH/NAME", where HASH is of all files together, so that browsers may
keep them for good. @HASH@ in index.html stands for it.
"""

import hashlib
import os
import sys

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def literal(data):
    """A C++ string literal of the bytes, a line for each of the text's."""
    lines, line = [], ""
    for byte in data:
        char = chr(byte)
        if char in '"\\':
            line += "\\" + char
        elif 32 <= byte < 127:
            line += char
        else:
            # Three octal digits: a following digit is never taken for a fourth.
            line += f"\\{byte:03o}"
        if char == "\n":
            lines.append(f'"{line}"')
            line = ""
    lines.append(f'"{line}"')
    return "\n     ".join(lines)


def main():
    output, files = sys.argv[1], sorted(sys.argv[2:])
    contents = {}
    for file in files:
        with open(file, "rb") as source:
            contents[os.path.basename(file)] = source.read()
    digest = hashlib.sha256(b"\0".join(name.encode() + b"\0" + data for name, data in sorted(contents.items())))
    tag = digest.hexdigest()[:16]
    entries = []
    for name, data in sorted(contents.items()):
        path = f"/assets/{tag}/{name}"
        if name == "index.html":
            path, data = "/", data.replace(b"@HASH@", tag.encode())
        kind = TYPES[os.path.splitext(name)[1]]
        entries.append(f'    {{"{path}", "{kind}",\n     std::string_view(\n     {literal(data)},\n     {len(data)})}},')
    text = ('#include "coordinator/http/page_files.h"\n\nnamespace tundra::coordinator {\n\n'
            "const std::vector<PageFile>& PageFiles() {\n  static const std::vector<PageFile>* const files = "
            "new std::vector<PageFile>{\n" + "\n".join(entries) +
            "\n  };\n  return *files;\n}\n\n}  // namespace tundra::coordinator\n")
    with open(output, "w", encoding="ascii") as out:
        out.write(text)


main()
