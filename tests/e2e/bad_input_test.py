"""Every bad input gets a clear error, the right exit code, and loses nothing."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from service import BASES, BIN, EXAMPLE, Process, Service, wait_until, write_job

GOOD_ROW = json.dumps({"messages": [{"role": "user", "content": "Hi"},
                                    {"role": "assistant", "content": "Hello."}]})


class BadData(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service()
        cls.service.start_coordinator().start_worker()

    @classmethod
    def tearDownClass(cls):
        cls.service.__exit__(None)

    def data(self, text, name="data.jsonl"):
        path = os.path.join(self.service.dir, name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return path

    def refused(self, result, *wanted, code=2):
        message = result.stderr
        self.assertEqual(result.returncode, code, message)
        for text in wanted:
            self.assertIn(text, message)

    def validate(self, text, *flags):
        return self.service.run("validate", self.data(text), "--base", "tiny-tales", *flags)

    def job(self, text):
        path = os.path.join(self.service.dir, "job.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return self.service.run("submit", path)

    def example(self, old="", new=""):
        with open(os.path.join(EXAMPLE, "job.yaml"), encoding="utf-8") as file:
            text = file.read()
        if old:
            self.assertIn(old, text)
        text = text.replace(old, new)
        return text.replace("train.jsonl", f"{EXAMPLE}/train.jsonl").replace(
            "val.jsonl", f"{EXAMPLE}/val.jsonl")

    def test_malformed_line_is_named(self):
        self.refused(self.validate(GOOD_ROW + "\n{\"messages\": [\n"), "data.jsonl:2:", "JSON")

    def test_empty_file(self):
        self.refused(self.validate(""), "data.jsonl", "empty")
        blank = self.validate("\n \n")
        self.refused(blank, "data.jsonl: the file has no rows")
        self.assertEqual(blank.stderr.count("data.jsonl: the file"), 1, blank.stderr)
        self.assertNotIn("data.jsonl: data.jsonl", blank.stderr)

    def test_data_sets_are_deleted_but_not_under_a_job(self):
        run = self.service.run
        path = self.data(json.dumps({"text": "only here"}) + "\n", "gone.jsonl")
        self.assertEqual(run("validate", path, "--base", "tiny-tales").returncode, 0)
        made = [d["name"] for d in json.loads(run("datasets", "-o", "json").stdout)["datasets"]
                if d["display_name"] == "gone.jsonl"]
        self.assertEqual(len(made), 1)
        self.assertEqual(run("datasets", "delete", made[0]).returncode, 0)
        self.refused(run("datasets", "delete", made[0]), made[0])
        self.assertNotIn("gone.jsonl", run("datasets").stdout)
        self.refused(self.validate("\n\n"), "data.jsonl")

    def test_missing_file(self):
        self.refused(self.service.run("validate", "none.jsonl", "--base", "tiny-tales"),
                     "none.jsonl", "No such file")

    def test_unknown_keys_of_a_row(self):
        self.refused(self.validate('{"foo": 1}\n'), "data.jsonl:1:")

    def test_bad_utf8(self):
        self.refused(self.validate(GOOD_ROW.replace("Hello", "H\udcff")), "data.jsonl:1:", "UTF-8")

    def test_unknown_role(self):
        self.refused(self.validate(GOOD_ROW.replace("assistant", "asistant")), "data.jsonl:1:",
                     "asistant")

    def test_no_target_tokens(self):
        row = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
        self.refused(self.validate(row), "data.jsonl:1:", "nothing to train")

    def test_sequence_over_the_limit(self):
        row = json.dumps({"messages": [{"role": "user", "content": "Hi"},
                                       {"role": "assistant", "content": "word " * 600}]})
        self.refused(self.validate(row, "--max-seq-length", "256"), "data.jsonl:1:", "truncate")
        self.assertEqual(self.validate(row, "--max-seq-length", "256", "--truncate").returncode, 0)

    def test_missing_base(self):
        self.refused(self.job(self.example("base: tiny-tales", "base: tiny-tails")),
                     "job.yaml:4: base:", "tiny-tales")

    def test_unknown_key(self):
        self.refused(self.job(self.example("rank: 8", "r: 8")), "lora.rank")

    def test_rank_zero_and_nan_are_told_together(self):
        text = re.sub(r"learning_rate: \S+", "learning_rate: .nan", self.example("rank: 8", "rank: 0"))
        self.refused(self.job(text), "job.yaml:6: lora.rank:", "training.learning_rate:")

    def test_unknown_target_module_lists_those_there_are(self):
        self.refused(self.job(self.example("all-linear", "[q_prj]")), "lora.target_modules",
                     "q_proj", "down_proj")

    def test_more_devices_than_there_are_waits_with_the_reason(self):
        result = self.job(self.example("devices: 2", "devices: 64"))
        self.assertEqual(result.returncode, 0, result.stderr)
        name = result.stdout.split("jobs/")[1].split()[0]

        def reason():
            return self.service.get(name).get("waiting", {}).get("reason")

        self.assertIn("64", wait_until(reason, "the job says why it waits"))
        self.service.ok("cancel", name)

    def test_unknown_job(self):
        self.refused(self.service.run("get", "no-such-job"), "no-such-job", "tundra jobs")

    def test_download_before_the_end(self):
        result = self.job(self.example("devices: 2", "devices: 64"))
        name = result.stdout.split("jobs/")[1].split()[0]
        self.refused(self.service.run("download", name, "--to", self.service.dir), "no adapter yet")
        self.service.ok("cancel", name)


class BadSurroundings(unittest.TestCase):
    def test_coordinator_unreachable(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        result = subprocess.run([os.path.join(BIN, "tundra"), "jobs", "--address",
                                 f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=60,
                                check=False)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("tundra local up", result.stderr)

    def test_port_taken(self):
        with Service() as service, socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            result = subprocess.run(
                [os.path.join(BIN, "tundra-coordinator"), "--listen", f"127.0.0.1:{port}", "--http",
                 "127.0.0.1:0", "--web", "127.0.0.1:0", "--allow-anonymous", "--data-dir", service.dir + "/c"],
                capture_output=True, text=True,
                timeout=60, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(str(port), result.stderr)

    def test_an_address_beyond_loopback_needs_insecure(self):
        for program, flag in (("tundra-coordinator", "--listen"), ("tundra-worker", "--coordinator")):
            extra = ["--base-dir", BASES] if program == "tundra-worker" else []
            result = subprocess.run([os.path.join(BIN, program), flag, "0.0.0.0:0", *extra],
                                    capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("--insecure", result.stderr)

    def broken_base(self, break_it, *wanted):
        """A worker whose only base is broken says so and offers nothing."""
        with Service() as service:
            bases = os.path.join(service.dir, "bases")
            shutil.copytree(os.path.join(BASES, "tiny-tales"), os.path.join(bases, "tiny-tales"))
            break_it(os.path.join(bases, "tiny-tales"))
            service.start_coordinator()
            from service import Process
            worker = service.workers["w"] = Process(
                "tundra-worker", ["--coordinator", f"127.0.0.1:{service.port}", "--data-dir",
                                  service.dir + "/w", "--base-dir", bases],
                service.dir + "/w.log")
            wait_until(lambda: "left out" in worker.text(), "the worker tells of the broken base")
            for text in wanted:
                self.assertIn(text, worker.text())
            self.assertEqual(service.json("bases").get("bases", []), [])
            result = service.run("submit", write_job(service.dir))
            self.assertEqual(result.returncode, 2)
            self.assertIn("tiny-tales", result.stderr)

    def test_base_with_truncated_weights(self):
        def truncate(base):
            path = os.path.join(base, "model.safetensors")
            os.truncate(path, os.path.getsize(path) // 2)
        self.broken_base(truncate, "model.safetensors")

    def test_base_with_missing_shard(self):
        def remove_shard(base):
            os.remove(os.path.join(base, "model.safetensors"))
            with open(os.path.join(base, "model.safetensors.index.json"), "w",
                      encoding="utf-8") as file:
                json.dump({"metadata": {}, "weight_map": {
                    "model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}, file)
        self.broken_base(remove_shard, "model-00001-of-00002.safetensors")

    def test_disk_full_refuses_an_upload_and_keeps_serving(self):
        import resource
        with Service() as service:
            limit = 1 << 20
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                service.start_coordinator()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            service.start_worker()
            path = os.path.join(service.dir, "large.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                for _ in range(4 * limit // len(GOOD_ROW)):
                    file.write(GOOD_ROW + "\n")
            result = service.run("validate", path, "--base", "tiny-tales")
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn("large", result.stderr.lower())
            self.assertEqual(service.json("datasets").get("datasets", []), [])


class Settings(unittest.TestCase):
    """Files of settings: what a program prints it takes, and what it does not know it names."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def told(self, program, *arguments):
        return subprocess.run([os.path.join(BIN, program), *arguments], capture_output=True, text=True, timeout=60,
                              check=False)

    def test_a_worker_takes_the_file_that_it_printed(self):
        ports = self.path("ports.json")
        printed = self.told("tundra-worker", "--coordinator", "127.0.0.1:1", "--base-dir", BASES, "--data-dir",
                            self.path("worker"), "--ports-file", ports, "--print-config")
        self.assertEqual(printed.returncode, 0, printed.stderr)
        self.assertNotIn("print-config", printed.stdout)
        worker = Process("tundra-worker", ["--config", self.write("worker.ini", printed.stdout)], self.path("log"))
        try:
            wait_until(lambda: os.path.exists(ports) or worker.process.poll() is not None, "the worker runs")
            self.assertIsNone(worker.process.poll(), worker.text())
        finally:
            worker.stop()

    def test_a_worker_names_what_it_does_not_know(self):
        good = f'base-dir = ["{BASES}"]\n'
        for text, wanted in ((good + "colour = 3\n", "colour"), (good + "[rank]\nsize = 3\n", "rank"),
                             (good + "print-config = true\n", "print-config")):
            refused = self.told("tundra-worker", "--config", self.write("worker.ini", text))
            self.assertEqual(refused.returncode, 2, refused.stdout + refused.stderr)
            self.assertIn(wanted, refused.stderr)
            self.assertEqual(refused.stdout, "")

    def test_a_coordinator_says_2_for_a_file_that_a_setting_names_in_vain(self):
        ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--web", "127.0.0.1:0")
        secret = self.write("secret", "0123456789abcdef" * 4 + "\n")
        for flags in (("--bootstrap-token-file", self.path("none")),
                      ("--bootstrap-token-file", secret, "--worker-token-file", self.path("none")),
                      ("--config", self.path("none"))):
            refused = self.told("tundra-coordinator", *ports, "--data-dir", self.path("data"), *flags)
            self.assertEqual(refused.returncode, 2, refused.stderr)
            self.assertIn(self.path("none"), refused.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
