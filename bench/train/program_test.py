"""The program tundra-bench-train as a user meets it."""

import json
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.path.join(os.environ["TUNDRA_BIN_DIR"], "tundra-bench-train")
SOURCE = os.environ["TUNDRA_SOURCE_DIR"]
QUICK = ["--threads", "1", "--steps", "2", "--warm-up", "1", "--profiled-steps", "1", "--best-rate-ms", "1"]


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=100)


class Program(unittest.TestCase):
    def test_json_of_a_shape(self):
        done = run("tiny-tales", "--tokens", "256", "--precision", "bf16", "-o", "json", *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")  # progress is for terminals
        result = json.loads(done.stdout)
        self.assertEqual(result["options"]["tokens"], 256)
        self.assertEqual(len(result["step_seconds"]["all"]), 2)
        self.assertGreater(result["tokens_per_second"], 0)

    def test_a_base_folder_with_given_rows(self):
        with tempfile.TemporaryDirectory() as folder:
            rows = os.path.join(folder, "rows.jsonl")
            with open(rows, "w", encoding="utf-8") as file:
                file.write("[1, 2, 3, 4, 5]\n[6, 7, 8]\n")
            base = os.path.join(SOURCE, "examples/bases/tiny-tales")
            done = run(base, "--rows", rows, "-o", "json", *QUICK)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(done.stdout)
            self.assertEqual(result["options"]["tokens"], 8)
            self.assertEqual(result["target_tokens"], 6)
            self.assertFalse(result["model"]["random_weights"])
            with open(rows, "w", encoding="utf-8") as file:
                file.write("[1, 2]\n[3, \"x\"]\n")
            done = run(base, "--rows", rows, *QUICK)
            self.assertEqual(done.returncode, 2)
            self.assertIn("rows.jsonl:2:", done.stderr)

    def test_table_and_help(self):
        done = run("tiny-tales", "--tokens", "128", *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("tokens/s", "efficiency", "memory", "backward: attention", "frozen_backward"):
            self.assertIn(word, done.stdout)
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("smollm2-135m", "134.5 M", "--precision", "efficiency"):
            self.assertIn(word, done.stdout)

    def test_config_of_a_shape(self):
        config = json.loads(run("llama3-8b", "--print-config").stdout)
        self.assertEqual((config["hidden_size"], config["num_key_value_heads"]), (4096, 8))

    def test_mistakes_are_told(self):
        done = run("smolm2-135m")
        self.assertEqual(done.returncode, 2)
        self.assertIn("did you mean smollm2-135m", done.stderr)
        self.assertNotEqual(run("tiny-tales", "--precision", "fp8").returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
