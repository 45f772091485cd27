"""What a newcomer runs first comes to its end: ./quickstart, but for the build that stands here already."""

import os
import subprocess
import sys
import unittest

SOURCE = os.environ["TUNDRA_SOURCE_DIR"]
if os.path.realpath(os.environ["TUNDRA_BIN_DIR"]) != os.path.realpath(os.path.join(SOURCE, "build/release/bin")):
    print("skipped: quickstart runs what is in build/release, and this is another build")
    sys.exit(77)


class QuickstartTest(unittest.TestCase):
    def test_the_example_is_trained_and_shown(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNDRA_")}
        done = subprocess.run([os.path.join(SOURCE, "quickstart"), "--run-only"], env=environment, text=True, timeout=500,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        for shown in ("Succeeded after 90 steps", "adapter_model.safetensors", "PeftModel.from_pretrained"):
            self.assertIn(shown, done.stdout)


if __name__ == "__main__":
    unittest.main()
