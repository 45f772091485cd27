"""Reads what the programs print for --help, as tables."""

import os
import re
import subprocess

# CLI11 puts descriptions into this column, or on the next line where the flag is too long.
COLUMN = 30
TITLES = {"Options:": "options", "Positionals:": "positionals", "Subcommands:": "commands"}


class Help:
    """One program's or command's --help."""

    def __init__(self, text):
        self.usage = ""
        self.about = []
        # (what, description) each.
        self.options = []
        self.positionals = []
        self.commands = []
        part = self.about
        for line in text.splitlines():
            if line.startswith("Usage: "):
                self.usage = re.sub(r"^Usage: (\S*/)?", "", line).strip()
            elif line.rstrip() in TITLES:
                part = getattr(self, TITLES[line.rstrip()])
            elif part is self.about:
                self.about.append(line)
            elif line.startswith("   "):
                self._continue(part, line.strip())
            elif line.startswith("  "):
                what = line[:COLUMN]
                # A long flag may have a space in this place, too, but only inside "INT in [0 - 9]".
                fits = (what.endswith(" ") and what.count("[") == what.count("]")
                        and not what.endswith(" in "))
                what = what if fits else line
                part.append((what.strip().replace(" ...", "…"), line[COLUMN:].strip() if fits else ""))
            elif line.strip():
                # A section of the program's own, behind CLI11's.
                part = []
        while self.about and not self.about[-1].strip():
            self.about.pop()

    @staticmethod
    def _continue(part, text):
        if part and text:
            what, description = part[-1]
            part[-1] = (what, (description + " " + text).strip() if description else text)


def help_of(program, *command):
    """Runs PROGRAM COMMAND… --help. The answer doesn't depend on who asks."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/home/you", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True,
                          env=environment, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(command)} --help: {done.stderr}")
    return Help(done.stdout.replace("/home/you/", "~/"))


def commands_of(program, *command):
    """All commands beneath, as tuples of words, in the order of --help."""
    found = []
    for name, _ in help_of(program, *command).commands:
        found.append((*command, name))
        found.extend(commands_of(program, *command, name))
    return found


def flags_of(help_text):
    """Every flag that a Help names: {"--follow", "-f", …}."""
    flags = set()
    for what, _ in help_text.options:
        flags.update(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", what.split(" ")[0]))
    return flags
