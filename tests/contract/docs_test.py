"""The documentation agrees with the repository: generated parts are up to date;
links, anchors, files, tests and commands that it names exist."""

import glob
import os
import re
import shlex
import sys
import unittest

SOURCE = os.environ.get("TUNDRA_SOURCE_DIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "../.."))
BIN = os.environ.get("TUNDRA_BIN_DIR") or os.path.join(SOURCE, "build/release/bin")
sys.path.insert(0, os.path.join(SOURCE, "tools"))
import generate_docs  # noqa: E402
from help_reader import commands_of, flags_of, help_of  # noqa: E402

# Not of the repository, or made by others' tools.
SKIPPED_FOLDERS = {".git", "build", "node_modules", "__pycache__"}
FENCE = re.compile(r"^( *)(```+|~~~+)([^\n`]*)\n(.*?)^\1\2 *$", re.S | re.M)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
HTML_LINK = re.compile(r"<(?:img|a|source)\b[^>]*?(?:src|href|srcset)=\"([^\"]+)\"")
PROGRAMS = ("tundra", "tundra-coordinator", "tundra-worker", "tundra-bench-train")
PATH = re.compile(r"^[\w.-]+(/[\w.*-]+)+/?$")
# What stands for a name of one's own.
PLACEHOLDER = re.compile(r"(?<![A-Za-z])(NAME|ID|HASH|STEP|DIR|SCRIPT|FILE)(?![A-Za-z])")


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def pages():
    """All Markdown files, as paths in the repository."""
    found = []
    for folder, inner, names in os.walk(SOURCE):
        inner[:] = sorted(set(inner) - SKIPPED_FOLDERS)
        found += [os.path.relpath(os.path.join(folder, name), SOURCE) for name in names if name.endswith(".md")]
    return sorted(found)


def prose(text):
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def spans(text):
    """What stands in backticks outside of blocks."""
    return [" ".join(match[1].split()).replace("\\|", "|") for match in SPAN.findall(prose(text))]


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found, counts = set(), {}
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", prose(text), re.M):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = counts.get(slug, 0)
        counts[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def broken_links(page, text, exists, read_page):
    """Links of a page that lead nowhere. `exists`, `read_page`: of paths in the repository."""
    broken = []
    plain = SPAN.sub("", prose(text))
    for target in LINK.findall(plain) + HTML_LINK.findall(plain):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not exists(path):
            broken.append(f"{page}: ({target}): there is no {path}")
        elif anchor and path.endswith(".md") and anchor not in anchors(read_page(path)):
            broken.append(f"{page}: ({target}): {path} has no such heading")
    return broken


def command_lines(text):
    """Lines that call one of the programs, in blocks and in backticks."""
    found = []
    for _, _, _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\s*(?:\$ )?", "", line)
            if line.split(" ")[0] in PROGRAMS:
                found.append(line)
    return found + [span for span in spans(text) if span.split(" ")[0] in PROGRAMS]


def words_of(line):
    """The words of one command: without comments, and up to a pipe or the like."""
    line = re.sub(r"\s[#(].*$", "", re.sub(r"\s+(\||&&|>|;|2>).*$", "", line))
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


class Programs:
    """What the built programs know: {("tundra", "submit"): {"--follow", …}}."""

    def __init__(self, folder):
        self.known = {}
        for program in PROGRAMS:
            path = os.path.join(folder, program)
            if not os.path.exists(path):
                continue
            for command in [(), *(commands_of(path) if program == "tundra" else [])]:
                self.known[(program, *command)] = flags_of(help_of(path, *command))

    def fault(self, line):
        """What is wrong with a command line; "" for nothing."""
        words = words_of(line)
        command = (words[0],)
        if command not in self.known:
            return f"{command[0]} is not built"
        rest = words[1:]
        while rest and (*command, rest[0]) in self.known:
            command, rest = (*command, rest[0]), rest[1:]
        has_commands = any(len(known) == len(command) + 1 and known[:-1] == command for known in self.known)
        if has_commands and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]) and "datasets" not in command:
            return f"{' '.join(command)} has no command {rest[0]}"
        allowed = self.known[command] | (self.known[("tundra",)] if command[0] == "tundra" else set())
        for word in rest:
            flag = word.split("=")[0]
            if re.fullmatch(r"--?[a-zA-Z][\w-]*", flag) and flag not in allowed:
                return f"{' '.join(command)} has no flag {flag}"
        return ""


def bytes_of_spec_hash():
    """The names that SpecHash puts into the hash of a job's spec."""
    source = read("worker/train/train_spec.cc")
    start = source.index("std::string SpecHash(")
    return set(re.findall(r'hash\.Add\("(\w+)"', source[start:source.index("\n}\n", start)]))


class DocsTest(unittest.TestCase):
    def test_generated_parts_are_up_to_date(self):
        for path, text in generate_docs.pages(BIN).items():
            self.assertEqual(read(path), text, f"{path}: run tools/generate_docs.py")
        if not os.path.exists(os.path.join(BIN, "tundra")):
            self.skipTest(f"docs/cli.md is not compared: there is no tundra in {BIN}")

    def test_links_and_anchors(self):
        broken = []
        for page in pages():
            broken += broken_links(page, read(page), lambda path: os.path.exists(os.path.join(SOURCE, path)), read)
        self.assertEqual(broken, [])

    def test_every_page_is_found_from_the_readme(self):
        seen, open_pages = set(), ["README.md"]
        while open_pages:
            page = open_pages.pop()
            if page in seen:
                continue
            seen.add(page)
            for target in LINK.findall(SPAN.sub("", prose(read(page)))):
                path = os.path.normpath(os.path.join(os.path.dirname(page), target.partition("#")[0]))
                if os.path.isdir(os.path.join(SOURCE, path)):
                    path = os.path.join(path, "README.md")
                if path.endswith(".md") and os.path.exists(os.path.join(SOURCE, path)):
                    open_pages.append(path)
        self.assertEqual(sorted(set(pages()) - seen), [])

    def test_commands_and_flags_exist(self):
        programs = Programs(BIN)
        if ("tundra",) not in programs.known:
            self.skipTest(f"there is no tundra in {BIN}")
        lines = [(page, line) for page in pages() for line in command_lines(read(page))]
        self.assertGreater(len(lines), 100)
        # A program that is not part of every build (the benchmark) is looked at where it was built.
        faults = [f"{page}: {line}: {programs.fault(line)}" for page, line in lines
                  if (words_of(line)[0],) in programs.known and programs.fault(line)]
        self.assertEqual(faults, [])

    def test_named_files_exist(self):
        missing = []
        for page in pages():
            for span in spans(read(page)):
                first = span.split("/")[0]
                if not PATH.match(span) or PLACEHOLDER.search(span) or first in {"..", *SKIPPED_FOLDERS}:
                    continue
                # A path of the repository begins with one of its folders, or with one beside the page.
                starts = [start for start in (SOURCE, os.path.join(SOURCE, os.path.dirname(page)))
                          if os.path.isdir(os.path.join(start, first))]
                if starts and not any(glob.glob(os.path.join(start, span)) for start in starts):
                    missing.append(f"{page}: {span}")
        self.assertEqual(missing, [])

    def test_named_tests_exist(self):
        """The tables of what is shown by which test: programs, suites and methods."""
        sources = [read(os.path.relpath(path, SOURCE)) for pattern in ("*_test.cc", "*.txt", "*_test.py", "*suite*.cc")
                   for folder in ("common", "coordinator", "worker", "client", "tests", "bench")
                   for path in glob.glob(os.path.join(SOURCE, folder, "**", pattern), recursive=True)]
        everything = "\n".join(sources)
        missing = []
        for page in pages():
            for span in spans(read(page)):
                names = []
                if re.fullmatch(r"(test_)?\w+_test|test_\w+", span):
                    names = [span]
                elif match := re.fullmatch(r"([A-Z]\w+)\.([A-Z]\w+|\*)", span):
                    if f"({match[1]}," in everything:
                        names = [name for name in match.groups() if name != "*"]
                missing += [f"{page}: {span}" for name in names if not re.search(rf"\b{name}\b", everything)]
        self.assertEqual(missing, [])

    def test_bytes_of_keys_are_those_of_the_hash(self):
        keys = {key.leaf for key in generate_docs.job_keys() if key.bytes and key.section in ("lora", "training")}
        # These two act through the rows' tokens and targets, which are in the hash.
        keys -= {"truncate", "loss_on"}
        # Not in a job file, or of the rows; one module is hashed at a time.
        hashed = bytes_of_spec_hash() - {"warmup_steps", "beta1", "beta2", "epsilon", "rows", "tokens", "target"}
        self.assertEqual(keys - {"target_modules"}, hashed)

    def test_every_file_names_the_same_version(self):
        version = re.search(r"project\(tundra VERSION (\S+)", read("CMakeLists.txt"))[1]
        for path, pattern in {
            "docker/Dockerfile": r"^ARG VERSION=(\S+)|tundra/\S+:(\d\S*)",
            "docker/compose.yaml": r"tundra/\S+:(\d\S*)",
            "docker/README.md": r"tundra/\S+:(\d\S*)",
            "tests/deploy/images": r"version=(\d\S*)",
            "client/python/pyproject.toml": r'^version = "(.*)"',
            "deploy/README.md": r"tundra/\S+:(\d[\d.]*)|newTag: ([\d.]+)",
            "deploy/kubernetes/volume-shell.yaml": r"tundra/\S+:(\d\S*)",
            "deploy/kubernetes/overlays/single-node-cpu/kustomization.yaml": r"newTag: ([\d.]+)",
            "deploy/kubernetes/overlays/gpu/kustomization.yaml": r"newTag: ([\d.]+)",
        }.items():
            named = {"".join(match.groups(default="")) for match in re.finditer(pattern, read(path), re.M)}
            self.assertEqual(named, {version}, path)

    def test_every_method_has_a_role(self):
        """docs/security.md has each method once, with the role that the service asks for."""
        page = read("docs/security.md")
        told = {}
        for role, methods in re.findall(r"^\| (viewer|user|admin|none: workers only) \| (`[A-Z].*) \|$", page, re.M):
            for method in re.findall(r"`(\w+)`", methods):
                self.assertNotIn(method, told)
                told[method] = role.split(":")[0]
        protos = "\n".join(read(os.path.relpath(path, SOURCE))
                           for path in glob.glob(os.path.join(SOURCE, "proto/tundra/v1/*.proto")))
        self.assertEqual(set(re.findall(r"^  rpc (\w+)\(", protos, re.M)), set(told))
        policy = os.path.join(SOURCE, "coordinator/access/policy.cc")
        if os.path.exists(policy):
            with open(policy, encoding="utf-8") as file:
                asked = dict(re.findall(r'\{"(\w+)", k(\w+), (?:true|false)\}', file.read()))
            self.assertEqual({method: role.lower().replace("worker", "none") for method, role in asked.items()}, told)


class CheckersTest(unittest.TestCase):
    """The checks above find what they are for."""

    def test_links(self):
        other = {"docs/b.md": "# One `two` (three)\n## One\n## One\n"}
        def broken(text):
            return len(broken_links("docs/a.md", text, lambda path: path in {"docs/a.md", *other}, other.get))
        self.assertEqual(broken("[x](b.md) [x](b.md#one-two-three) [x](b.md#one-1) [x](https://a.b/c)"), 0)
        self.assertEqual(broken("[x](c.md) [x](b.md#two) [a [b]](../b.md) <img src=\"c.svg\">"), 4)
        self.assertEqual(broken("`[x](c.md)`\n```\n[x](c.md)\n```\n"), 0)

    def test_commands(self):
        programs = Programs.__new__(Programs)
        programs.known = {("tundra",): {"--address"}, ("tundra", "jobs"): {"--limit"}}
        for line in ("tundra jobs --limit 3 --address X", "tundra", "tundra jobs | grep --x", "tundra jobs   # --y"):
            self.assertEqual(programs.fault(line), "", line)
        for line in ("tundra job", "tundra jobs --limits 3", "tundra-worker --x"):
            self.assertNotEqual(programs.fault(line), "", line)
        self.assertEqual(command_lines("```\n$ tundra a \\\n  --b\nx tundra\n```\n`tundra c` `tundrac`"),
                         ["tundra a    --b", "tundra c"])


if __name__ == "__main__":
    unittest.main()
