#!/usr/bin/env python3
"""The Python client against a running service: the whole way of a job, and what goes wrong on it.

Needs grpcio (Debian: python3-grpcio) in this interpreter or in /usr/bin/python3; skipped where neither has it.
"""

import os
import sys

try:
    import grpc  # noqa: F401
except ImportError:
    SYSTEM = "/usr/bin/python3"
    if os.path.realpath(sys.executable) != os.path.realpath(SYSTEM) and os.path.exists(SYSTEM):
        os.execv(SYSTEM, [SYSTEM, *sys.argv])
    print("skipped: no Python here has grpcio; apt-get install python3-grpcio")
    sys.exit(77)

import hashlib
import io
import json
import shutil
import socket
import subprocess
import tempfile
import unittest

import service as e2e

PACKAGE = os.path.join(e2e.SOURCE, "client/python")


def setUpModule():
    """A package as pip would install it: the sources and generated stubs."""
    global LIB, client_module
    LIB = tempfile.mkdtemp(prefix="tundra-python-")
    shutil.copytree(os.path.join(PACKAGE, "tundra"), os.path.join(LIB, "tundra"),
                    ignore=shutil.ignore_patterns("v1", "__pycache__"))
    subprocess.run([sys.executable, os.path.join(PACKAGE, "generate_stubs.py"), LIB], check=True,
                   stdout=subprocess.DEVNULL)
    sys.path.insert(0, LIB)
    import tundra

    client_module = tundra


def tearDownModule():
    shutil.rmtree(LIB, ignore_errors=True)


class Shown(unittest.TestCase):
    def test_messages_do_nothing_to_a_terminal(self):
        from tundra.progress import Progress

        out = io.StringIO()
        Progress(out).event({"message": "a\x1b[2J\nb\x9b é"})
        self.assertEqual(out.getvalue(), "  a\\x1b[2J\\x0ab\\x9b é\n")


class PythonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = e2e.Service().start_coordinator()
        cls.service.start_worker(devices=1)
        cls.client = client_module.Client(
            f"127.0.0.1:{cls.service.port}",
            token=open(cls.service.tokens["admin"], encoding="utf-8").read().strip())

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.service.__exit__(None)

    def submit(self, **changes):
        values = dict(base="tiny-tales", train=os.path.join(e2e.EXAMPLE, "train.jsonl"), name="from-python",
                      lora={"rank": 2, "target_modules": "all-linear"},
                      training={"max_steps": 3, "batch_size": 4, "max_seq_length": 512, "lr_scheduler": "linear"},
                      resources={"devices": 1, "shards": "auto"}, labels={"team": "search"})
        values.update(changes)
        return self.client.submit(**values)

    def test_a_job_from_data_to_adapter(self):
        self.assertEqual([b["display_name"] for b in self.client.bases()], ["tiny-tales"])
        job = self.submit(validation=os.path.join(e2e.EXAMPLE, "val.jsonl"), eval={"samples": ["Hello?"]})
        self.assertIn(job.state, ("QUEUED", "STARTING", "RUNNING"))
        out = io.StringIO()
        self.assertIs(job.follow(out=out), job)
        self.assertEqual(job.state, "SUCCEEDED")
        self.assertIn("step 3/3", out.getvalue())
        metrics = job.metrics()
        self.assertEqual([m["step"] for m in metrics if "train_loss" in m], [1, 2, 3])
        self.assertIsInstance(metrics[-1]["tokens"], int)
        self.assertEqual(job.metrics(after_sequence=metrics[-2]["sequence"]), metrics[-1:])
        self.assertEqual(job.metrics(after_sequence=metrics[-1]["sequence"]), [])
        self.assertEqual(job.events(after_sequence=job.events()[-2]["sequence"]), job.events()[-1:])
        self.assertGreater(metrics[-1]["train_loss"], 0)
        self.assertGreater(job.data["validation_loss"], 0)
        self.assertEqual(job.data["samples"][0]["prompt"], "Hello?")
        self.assertEqual(job.events()[-1]["state"], "SUCCEEDED")
        self.assertEqual(job.data["end_time"].utcoffset().total_seconds(), 0)
        self.assertIn(job.name, [j.name for j in self.client.jobs(filter='labels.team = "search"')])
        # Every item once, also from the middle on.
        seen = [item["sequence"] for _, item in job.watch()]
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual([i["sequence"] for _, i in job.watch(after_sequence=seen[2])], seen[3:])

        folder = job.download(os.path.join(LIB, "adapter"))
        for file in job.data["adapter"]["files"]:
            with open(os.path.join(folder, file["filename"]), "rb") as content:
                self.assertEqual(hashlib.sha256(content.read()).hexdigest(), file["sha256"])
        with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["r"], 2)
        # A file that is damaged comes again.
        path = os.path.join(folder, "adapter_model.safetensors")
        os.truncate(path, 10)
        job.download(folder)
        self.assertGreater(os.path.getsize(path), 10)
        step = job.checkpoints()[0]["step"]
        self.assertTrue(os.path.exists(os.path.join(job.download(os.path.join(LIB, "of-step"), checkpoint=step),
                                                    "adapter_model.safetensors")))
        with self.assertRaisesRegex(client_module.TundraError, "no checkpoint of step 999"):
            job.download(folder, checkpoint=999)
        text = [a for a in self.client.generate(base="tiny-tales", adapter=job.data["adapter"]["name"],
                                                prompt="Hello", max_tokens=4)]
        self.assertIn(text[-1]["finish_reason"], ("stop", "length"))
        job.delete()
        with self.assertRaisesRegex(client_module.TundraError, "NOT_FOUND"):
            self.client.job(job.name)

    def test_jobs_that_are_stopped(self):
        job = self.submit(name="long", training={"max_steps": 5000, "batch_size": 2, "max_seq_length": 512})
        with self.assertRaises(TimeoutError):
            job.wait(timeout=0.01)
        job.pause()
        e2e.wait_until(lambda: job.refresh().state == "PAUSED", "the job is paused")
        self.assertEqual(job.resume().data["desired_state"], "RUN")
        job.cancel()
        with self.assertRaisesRegex(client_module.JobFailed, "CANCELLED") as caught:
            job.follow(progress=False)
        self.assertEqual(caught.exception.job["state"], "CANCELLED")
        with self.assertRaisesRegex(client_module.TundraError, "has no adapter yet"):
            job.download(LIB)

    def test_what_will_not_do_is_told(self):
        with self.assertRaisesRegex(ValueError, r"lora\.rang: no such key; there are alpha, dropout, rank"):
            self.submit(lora={"rang": 2})
        with self.assertRaisesRegex(ValueError, "none of constant, linear, cosine"):
            self.submit(training={"lr_scheduler": "polynomial"})
        with self.assertRaisesRegex(ValueError, r"training\.batch_size: 'x' is of the wrong kind"):
            self.submit(training={"batch_size": "x"})
        with self.assertRaisesRegex(ValueError, "the name must end in"):
            self.client.upload("rows.csv")
        with self.assertRaisesRegex(TypeError, "epochs"):
            self.submit(epochs=3)
        bad = os.path.join(LIB, "bad.jsonl")
        with open(bad, "w", encoding="utf-8") as file:
            file.write('{"text": "fine"}\n{"text": 3}\n')
        with self.assertRaisesRegex(client_module.TundraError, r"bad\.jsonl:2: "):
            self.submit(train=bad)
        # Every fault that the service finds, at once.
        with self.assertRaises(client_module.TundraError) as caught:
            self.submit(lora={"rank": 5000}, training={"max_steps": 3, "learning_rate": 7})
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
        self.assertIn("lora.rank", caught.exception.message)
        self.assertIn("learning_rate", caught.exception.message)
        with self.assertRaisesRegex(client_module.TundraError, "no-such-base"):
            self.submit(base="no-such-base")

    def test_where_the_service_is(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{free.getsockname()[1]}"
        with client_module.Client(nobody) as client:
            with self.assertRaisesRegex(client_module.TundraError, f"{nobody}: .*start it or set TUNDRA_ADDRESS"):
                client.bases()
        home = tempfile.mkdtemp(dir=LIB)
        saved = {k: os.environ.pop(k, None) for k in ("TUNDRA_ADDRESS", "TUNDRA_HOME")}
        try:
            os.environ["TUNDRA_HOME"] = home
            self.assertEqual(client_module.find_address(), "127.0.0.1:7700")
            for text, want in (('{"address": "127.0.0.1:9"}', "127.0.0.1:9"), ("[1]", "127.0.0.1:7700"),
                               ("{", "127.0.0.1:7700"), ('{"address": 3}', "127.0.0.1:7700")):
                with open(os.path.join(home, "local.json"), "w", encoding="utf-8") as file:
                    file.write(text)
                self.assertEqual(client_module.find_address(), want)
            os.environ["TUNDRA_ADDRESS"] = "127.0.0.1:10"
            self.assertEqual(client_module.find_address(), "127.0.0.1:10")
        finally:
            for key, value in saved.items():
                os.environ.pop(key, None)
                if value is not None:
                    os.environ[key] = value


if __name__ == "__main__":
    unittest.main()
