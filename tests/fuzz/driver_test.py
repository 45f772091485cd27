"""The driver of the fuzz targets notices a target's faults, and keeps the input that shows them."""

import os
import subprocess
import sys
import tempfile
import unittest

FAULTY = os.environ["TUNDRA_FUZZ_FAULTY"]


class Driver(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def run_driver(self, *flags, **seeds):
        corpus = os.path.join(self.folder.name, "corpus")
        os.makedirs(corpus)
        for name, text in seeds.items():
            with open(os.path.join(corpus, name), "w", encoding="ascii") as file:
                file.write(text)
        return subprocess.run(
            [FAULTY, corpus, "--artifacts", self.folder.name, *flags],
            capture_output=True, text=True, timeout=240, check=False)

    def artifact(self):
        with open(os.path.join(self.folder.name, os.path.basename(FAULTY) + "-fault"), "rb") as file:
            return file.read()

    def assert_found(self, result, words):
        self.assertNotEqual(result.returncode, 0, result.stderr)
        self.assertIn(words, result.stderr)
        self.assertIn("-fault", result.stderr)

    def test_a_good_corpus_passes(self):
        result = self.run_driver("--runs", "0", a="fine", b="also fine")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("inputs", result.stdout)

    def test_each_fault_is_found_and_its_input_kept(self):
        for fault, words in [("crash", "crashes"), ("broken promise", "input.empty()"),
                             ("exception", "crashes"), ("deep", "crashes"),
                             ("huge", "over 1 GiB was allocated")]:
            with self.subTest(fault):
                self.setUp()
                result = self.run_driver("--runs", "0", a="fine", b=fault)
                self.assert_found(result, words)
                self.assertEqual(self.artifact(), fault.encode())

    def test_an_input_that_takes_too_long_is_found(self):
        result = self.run_driver("--runs", "0", "--timeout", "1", a="fine", b="slow")
        self.assert_found(result, "takes too long")
        self.assertEqual(self.artifact(), b"slow")

    def test_what_only_a_cut_shows_is_found(self):
        result = self.run_driver("--runs", "100", a="version 10")
        self.assert_found(result, "crashes")
        self.assertEqual(self.artifact(), b"version")

    def test_what_only_a_mutation_shows_is_found_again_by_the_same_seed(self):
        found = []
        for _ in range(2):
            self.setUp()
            # No cut gives "version".
            result = self.run_driver("--runs", "3000", "--seed", "7", a="vers 10 of 20")
            self.assert_found(result, "crashes")
            found.append(self.artifact())
        self.assertIn(b"4294967296", found[0])
        self.assertEqual(found[0], found[1])

    def test_an_empty_corpus_is_an_error(self):
        self.assertNotEqual(self.run_driver().returncode, 0)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
