"""What the documentation shows is what the programs do: its sessions give the
output that is printed there, and the job file's keys have the defaults, ranges
and examples that the reference tells."""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest

from service import BIN, EXAMPLE, SOURCE, Service

sys.path.insert(0, os.path.join(SOURCE, "tools"))
from generate_docs import job_keys  # noqa: E402

BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.S | re.M)
# Of any length and for any loss, so that no key is refused for the data's sake.
ROW = json.dumps({"prompt": "Hi", "completion": " you"})


def blocks(path):
    """(language, text) of a page's fenced blocks, and whether each follows the one before at once."""
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        page = file.read()
    end = -1
    for match in BLOCK.finditer(page):
        yield match[1], match[2], match.start() == end + 1
        end = match.end()


def commands_of(session):
    """[command, output] pairs of a block in which commands stand behind "$ "."""
    found = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        else:
            found[-1][1] += line + "\n"
    return found


def edges(key):
    """(values that must be taken, values that must be refused) of a number's range."""
    step = 1 if key.type.startswith("whole number") else 1e-3
    text = key.range.split(", a multiple")[0].replace("2^63 - 1", str(2 ** 63 - 1))
    if match := re.fullmatch(r"(\d+) to below (\d+)", text):
        return [match[1], float(match[2]) - step], [float(match[1]) - step, match[2]]
    if match := re.fullmatch(r"above (\d+), at most (\d+)", text):
        return [float(match[1]) + step, match[2]], [match[1], float(match[2]) + step]
    if match := re.fullmatch(r"above (\d+)", text):
        return [float(match[1]) + step, 1e6], [match[1]]
    if match := re.fullmatch(r"(\d+) or more", text):
        return [match[1], 10 ** 6], [float(match[1]) - step if step < 1 else int(match[1]) - 1]
    if match := re.fullmatch(r"(\d+) to (\d+)", text):
        low, high = int(match[1]), int(match[2])
        return [low, high], [low - step, high + step]
    match = re.fullmatch(r"(\d+) to (what the base supports|the number of devices)", text)
    assert match, f"{key.path} has a range that this test doesn't understand: {key.range}"
    high = {"what the base supports": 512, "the number of devices": 2}[match[2]]
    return [match[1], high], [int(match[1]) - 1, high + 1]


class DocsExamples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service()
        cls.service.start_coordinator().start_worker()
        cls.folder = os.path.join(cls.service.dir, "here")

    @classmethod
    def tearDownClass(cls):
        cls.service.__exit__(None)

    def setUp(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.mkdir(self.folder)
        for name in ("train.jsonl", "val.jsonl"):
            shutil.copy(os.path.join(EXAMPLE, name), self.folder)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def shell(self, command):
        """What a command prints: its output, then its errors."""
        environment = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}",
                           TUNDRA_ADDRESS=f"127.0.0.1:{self.service.port}",
                           TUNDRA_TOKEN_FILE=self.service.tokens["admin"],
                           XDG_CONFIG_HOME=os.path.join(self.folder, "none"))
        environment.pop("TUNDRA_CONFIG", None)
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=environment, timeout=120,
                              capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def check_session(self, session):
        for command, shown in commands_of(session):
            with self.subTest(command=command):
                self.assertEqual(self.shell(command), shown)

    def test_data_formats(self):
        rows, previews, sessions = "", 0, 0
        for language, text, follows in blocks("docs/data-formats.md"):
            if language == "json":
                rows = text
                self.write("rows.jsonl", rows)
            elif text.startswith("$ "):
                sessions += 1
                self.check_session(text)
            else:
                self.assertTrue(follows, f"shows the preview of nothing:\n{text}")
                previews += 1
                shown = self.shell("tundra validate rows.jsonl --base tiny-tales --preview 100")
                parts = re.split(r"^line \d+, \d+ tokens .*:\n", shown, flags=re.M)[1:]
                self.assertEqual("\n".join(part.split("\n\nrows.jsonl:")[0].strip("\n") for part in parts),
                                 text.rstrip("\n"), rows)
        self.assertGreaterEqual(previews, 5)
        self.assertGreaterEqual(sessions, 6)

    def test_job_files(self):
        """Each is accepted, or answered as the session behind it shows."""
        accepted = refused = 0
        for page in ("README.md", "docs/job-file.md", "docs/guarantees.md"):
            found = list(blocks(page))
            for (language, text, _), (_, after, _) in zip(found, found[1:] + [("", "", False)]):
                if language != "yaml" or not re.search(r"^base:.*^dataset:", text, re.M | re.S):
                    continue
                self.write("job.yaml", text)
                if after.startswith("$ tundra submit job.yaml\n"):
                    refused += 1
                    self.check_session(after)
                else:
                    accepted += 1
                    shown = self.shell("tundra submit job.yaml --dry-run -o json")
                    self.assertIn('"display_name"', shown, f"{page}:\n{text}{shown}")
        self.assertGreaterEqual(accepted, 4)
        self.assertEqual(refused, 2)

    # ---- The keys ----

    def submit(self, **changes):
        """The dry run of a small job with some keys set, by their paths."""
        job = {"name": "n", "base": "tiny-tales", "dataset.train": "rows.jsonl"}
        job.update({path.replace("__", "."): value for path, value in changes.items()})
        lines, sections = [], {}
        for path, value in job.items():
            section, _, leaf = path.rpartition(".")
            if section:
                sections.setdefault(section, []).append(f"  {leaf}: {value}")
            else:
                lines.append(f"{leaf}: {value}")
        for section, inner in sections.items():
            lines += [f"{section}:", *inner]
        self.write("rows.jsonl", ROW + "\n")
        self.write("job.yaml", "\n".join(lines) + "\n")
        return self.service.run("submit", os.path.join(self.folder, "job.yaml"), "--dry-run", "-o", "json")

    def beside(self, key, value):
        """What else a key's value needs."""
        needed = {
            "training.micro_batch_tokens": {"training.max_seq_length": 64},
            "eval.every_steps": {"dataset.validation": "val.jsonl"},
            "resources.shards": {"resources.devices": 2},
        }.get(key.path, {})
        return {**needed, key.path: value}

    def test_defaults(self):
        spec = json.loads(self.submit().stdout)["spec"]
        told = 0
        for key in job_keys():
            default = key.default.split(", without")[0]
            if not re.fullmatch(r"[\d.e-]+|true|false|all-linear|\w+", default) or default in ("none", "required"):
                continue
            if key.path == "resources.shards":
                default = "0"
            value = spec.get(key.section, {}).get(key.leaf)
            if value is None:
                # Proto3's JSON leaves out what is zero.
                self.assertIn(default, ("0", "false"), key.path)
            elif isinstance(value, bool):
                self.assertEqual(str(value).lower(), default, key.path)
            elif isinstance(value, list):
                self.assertEqual(value, [default], key.path)
            elif isinstance(value, str) and not value.isdigit():
                self.assertEqual(value.lower(), default, key.path)
            else:
                self.assertEqual(float(value), float(default), key.path)
            told += 1
        self.assertGreaterEqual(told, 20)
        # Those that a sentence tells.
        self.assertEqual((spec["training"]["max_seq_length"], spec["training"]["micro_batch_tokens"]), (512, 1024))
        self.assertNotIn("max_steps", spec["training"])

    def test_ranges(self):
        tried = 0
        for key in job_keys():
            if not key.range or not key.type.startswith(("whole number", "number")):
                continue
            tried += 1
            taken, refused = edges(key)
            for value in taken:
                result = self.submit(**self.beside(key, value))
                self.assertEqual(result.returncode, 0, f"{key.path}: {value}\n{result.stderr}")
            for value in refused:
                result = self.submit(**self.beside(key, value))
                self.assertEqual(result.returncode, 2, f"{key.path}: {value} is taken")
                self.assertIn(key.path, result.stderr)
        self.assertGreaterEqual(tried, 18)
        for path, value in (("training.micro_batch_tokens", 1000), ("training.micro_batch_tokens", 384),
                            ("name", "x" * 129), ("eval.samples", json.dumps(["x"] * 17)),
                            ("labels", json.dumps({f"k{i}": "v" for i in range(65)}))):
            result = self.submit(**{path: value})
            self.assertEqual(result.returncode, 2, f"{path}: {value} is taken")
            self.assertIn(path, result.stderr)

    def test_examples_and_words(self):
        for key in job_keys():
            values = [key.example] + [name for name, _ in key.values]
            if key.path.startswith("dataset."):
                values = [f"{self.folder}/{key.example}"]
            for value in values:
                result = self.submit(**self.beside(key, value))
                self.assertEqual(result.returncode, 0, f"{key.path}: {value}\n{result.stderr}")


if __name__ == "__main__":
    unittest.main()
