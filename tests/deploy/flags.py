"""Which flags and settings the programs know, told by the programs themselves, and which of them
a text such as a manifest or a README uses."""

import os
import re
import subprocess

from rendered import SOURCE

BIN = os.environ.get("TUNDRA_BIN_DIR") or os.path.join(SOURCE, "build/release/bin")

def told(program, *arguments):
    done = subprocess.run([os.path.join(BIN, program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


def flags_of(program, *subcommand):
    """Long and short options in the help of a program or of one of its commands."""
    return set(re.findall(r"(?<![\w-])(--?[a-z][a-z0-9-]*)", told(program, *subcommand, "--help")))


def settings():
    """Keys of the coordinator's settings file."""
    return set(re.findall(r"^([a-z_]+):", told("tundra-coordinator", "--print-config"), re.MULTILINE))


def used(arguments):
    """The flags among a list of arguments."""
    return {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}


def commands(text, program):
    """Command lines of a program in a text, a list of words each. Continued lines are one."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#", 1)[0].split()
        if words and words[0] == program:
            found.append(words[1:])
    return found


def unknown(program, words):
    """The flags in a command line that its help does not name."""
    subcommand = []
    for word in words:
        help_text = told(program, *subcommand, "--help")
        listed = help_text.partition("\nSubcommands:")[2]
        if not re.search(rf"^  {re.escape(word)}(\s|$)", listed, re.MULTILINE):
            break
        subcommand.append(word)
    return used(words) - flags_of(program, *subcommand)
