"""The includes agree with the layers of docs/architecture.md: who may depend on
whom, folder by folder."""

import os
import re
import unittest

SOURCE = os.environ.get("TUNDRA_SOURCE_DIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "../.."))

# Folder -> what its files may include, beside themselves and tundra/v1 protos.
# The longest matching folder counts.
ALLOWED = {
    "common": {"google"},
    "common/text": {"common"},
    "coordinator": {"common", "common/text", "google", "coordinator/store", "coordinator/blobs",
                    "coordinator/scheduler", "coordinator/workers", "coordinator/access"},
    "coordinator/store": {"common"},
    "coordinator/access": {"common", "coordinator/store"},
    "coordinator/blobs": {"common", "coordinator/store"},
    "coordinator/scheduler": {"common", "coordinator/store"},
    "coordinator/workers": {"common", "coordinator/store", "coordinator/blobs",
                            "coordinator/scheduler"},
    "worker": {"common", "common/text", "worker", "worker/device", "worker/ops",
               "worker/collective", "worker/model", "worker/train"},
    "worker/device": {"common"},
    "worker/collective": {"common", "worker/device"},
    "worker/ops": {"common", "worker/device"},
    "worker/cuda": {"common", "worker/device", "worker/ops", "worker/collective"},
    "worker/model": {"common", "worker/device", "worker/ops"},
    "worker/train": {"common", "worker/device", "worker/ops", "worker/collective",
                     "worker/model"},
    "client": {"common", "common/text", "google"},
}
TOP = ("common", "coordinator", "worker", "client")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def folder_of(path, folders):
    best = ""
    for folder in folders:
        if (path == folder or path.startswith(folder + "/")) and len(folder) > len(best):
            best = folder
    return best


def violations(files):
    """(file, include) pairs that break the table. `files`: path -> text."""
    found = []
    for path, text in files.items():
        here = folder_of(os.path.dirname(path), ALLOWED)
        is_test = re.search(r"_test\.cc$|test_util\.h$|/testing/", path)
        for include in INCLUDE.findall(text):
            if include.startswith("tundra/v1/") or not include.startswith(TOP + ("google/",)):
                continue
            there = "google" if include.startswith("google/") else folder_of(
                os.path.dirname(include), ALLOWED)
            if there == here or there in ALLOWED[here]:
                continue
            # Tests may look up (a model's test runs a collective), never across.
            if is_test and there.split("/")[0] in (here.split("/")[0], "common"):
                continue
            found.append((path, include))
    return found


class Layering(unittest.TestCase):
    def test_includes_follow_the_layers(self):
        files = {}
        for top in TOP:
            for root, _, names in os.walk(os.path.join(SOURCE, top)):
                for name in names:
                    if name.endswith((".cc", ".h", ".cu", ".cuh")):
                        path = os.path.join(root, name)
                        with open(path, encoding="utf-8") as file:
                            files[os.path.relpath(path, SOURCE)] = file.read()
        self.assertGreater(len(files), 50)
        self.assertEqual(violations(files), [])

    def test_a_wrong_arrow_is_seen(self):
        self.assertTrue(violations({"client/x.cc": '#include "worker/rank.h"\n'}))
        self.assertTrue(violations({"worker/ops/x.cc": '#include "worker/model/llama.h"\n'}))
        self.assertFalse(violations({"worker/model/x.cc": '#include "worker/ops/ops.h"\n'}))


if __name__ == "__main__":
    unittest.main(verbosity=2)
