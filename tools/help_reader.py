"""Reads what the programs print for --help, as tables."""

import os
import re
import subprocess

# CLI11 puts descriptions into this column, or on the next line where the flag is too long.
COLUMN = 30
MORE = re.compile(r"(\(Env:\w+\)|(?:Needs|Excludes):.*?)(?= Excludes:|$)")
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
        part = None
        for line in text.splitlines():
            if line.startswith("Usage: "):
                self.usage = re.sub(r"^Usage: (\S*/)?", "", line).strip()
                part = []
            elif self.usage == "":
                self.about.append(line)
            elif line and not line.startswith(" "):
                # Flags may stand in groups; what else a program tells is left out.
                part = getattr(self, TITLES.get(line.rstrip(), ""), [])
            elif line.startswith("   "):
                if part and line.strip():
                    what, about = part[-1]
                    part[-1] = (what, f"{about} {line.strip()}".strip())
            elif line.strip():
                part = self.options if line.startswith("  -") else part
                part.append(self._entry(line))
        while self.about and not self.about[-1].strip():
            self.about.pop()

    @staticmethod
    def _entry(line):
        what = line[:COLUMN]
        # A long flag may have a space in this place, too, but only inside "INT in [0 - 9]".
        fits = (what.endswith(" ") and what.count("[") == what.count("]")
                and not what.endswith((" in ", ": ")))
        what = (what if fits else line).strip().replace(" ...", "…")
        # What goes with other flags, or with a variable, belongs to the description.
        more = MORE.findall(what)
        about = " ".join([line[COLUMN:].strip() if fits else "", *more]).strip()
        return MORE.sub("", what).strip(), about


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
