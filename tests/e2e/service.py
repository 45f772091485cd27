"""Real processes for end-to-end tests: a coordinator and workers on loopback,
spoken to through the `tundra` command alone, as a user would.

Every process is started here and ended here, by its id.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time

SOURCE = os.environ.get("TUNDRA_SOURCE_DIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "../.."))
BIN = os.environ.get("TUNDRA_BIN_DIR") or os.path.join(SOURCE, "build/release/bin")
BASES = os.path.join(SOURCE, "examples/bases")
EXAMPLE = os.path.join(SOURCE, "examples/pirate-support")


def wait_until(condition, what, timeout=60):
    """Polls `condition` until it is true; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.02
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause)
        # Conditions run programs: asking too often would slow what is waited for.
        pause = min(0.2, 1.5 * pause)
    raise AssertionError(f"not within {timeout} s: {what}")


class Process:
    """One program, its log in a file."""

    def __init__(self, program, arguments, log):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [os.path.join(BIN, program), *arguments], stdout=out, stderr=out,
                stdin=subprocess.DEVNULL)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


class Service:
    """A coordinator and its workers, in a folder of their own."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="tundra-e2e-")
        self.port = 0
        self.tokens = {name: os.path.join(self.dir, f"{name}.token") for name in ("admin", "worker")}
        for path in self.tokens.values():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
                file.write(secrets.token_hex(32) + "\n")
        self.web = 0
        self.coordinator = None
        self.workers = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for worker in self.workers.values():
            worker.stop()
        if self.coordinator:
            self.coordinator.stop()
        if kind:
            for name in sorted(os.listdir(self.dir)):
                if name.endswith(".log"):
                    with open(os.path.join(self.dir, name), errors="replace") as file:
                        print(f"---- {name}\n" + "".join(file.readlines()[-40:]))
        shutil.rmtree(self.dir, ignore_errors=True)

    def start_coordinator(self, *flags):
        ports = os.path.join(self.dir, "ports.json")
        if os.path.exists(ports):
            os.remove(ports)
        self.coordinator = Process(
            "tundra-coordinator",
            ["--listen", f"127.0.0.1:{self.port}", "--http", "127.0.0.1:0",
             "--web", f"127.0.0.1:{self.web}", "--data-dir",
             os.path.join(self.dir, "coordinator"), "--ports-file", ports, "--bootstrap-token-file",
             self.tokens["admin"], "--worker-token-file", self.tokens["worker"], *flags],
            os.path.join(self.dir, "coordinator.log"))

        def started():
            assert self.coordinator.process.poll() is None, self.coordinator.text()
            return os.path.exists(ports)

        wait_until(started, "the coordinator serves")
        with open(ports, encoding="utf-8") as file:
            parsed = json.load(file)
        self.port = parsed["grpc"]
        self.http = parsed["http"]
        self.web = parsed["web"]
        return self

    def start_worker(self, name="worker", devices=1, threads=0, bases=BASES, flags=()):
        """`devices`: a number of CPU ranks, or what --devices takes."""
        devices = devices if isinstance(devices, str) else f"cpu:{devices}"
        self.workers[name] = Process(
            "tundra-worker",
            ["--coordinator", f"127.0.0.1:{self.port}", "--name", name, "--data-dir",
             os.path.join(self.dir, name), "--base-dir", bases, "--devices", devices, "--token-file",
             self.tokens["worker"],
             "--threads", str(threads), *flags],
            os.path.join(self.dir, f"{name}.log"))
        count = len(self.workers)
        wait_until(lambda: self.worker_count() >= count, f"{name} is connected")
        return self

    def worker_count(self):
        bases = self.json("bases").get("bases", [])
        return max([base.get("worker_count", 0) for base in bases], default=0)

    def rank_pid(self, rank, worker="worker"):
        """Process id of the newest process of a rank, from the worker's log."""
        found = re.findall(rf"rank {rank} is process (\d+)", self.workers[worker].text())
        return int(found[-1])

    def graph_layers(self, ranks, worker="worker"):
        """Layers launched as graphs by all ranks of the one job that has ended: from a log at level debug."""
        pattern = re.compile(r"(\d+) layers were launched as graphs")
        wait_until(lambda: len(pattern.findall(self.workers[worker].text())) >= ranks, "every rank tells its graphs")
        return sum(map(int, pattern.findall(self.workers[worker].text())))

    def run(self, *arguments, timeout=300):
        """The finished `tundra` command: returncode, stdout, stderr."""
        return subprocess.run(
            [os.path.join(BIN, "tundra"), *arguments, "--address", f"127.0.0.1:{self.port}"],
            env={"TUNDRA_TOKEN_FILE": self.tokens["admin"], **os.environ}, capture_output=True, text=True, timeout=timeout, check=False)

    def ok(self, *arguments, timeout=300):
        result = self.run(*arguments, timeout=timeout)
        assert result.returncode == 0, f"{arguments}: {result.returncode}\n{result.stderr}"
        return result.stdout

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "-o", "json"))

    def get(self, job):
        return self.json("get", job)

    def submit(self, job_file):
        return self.json("submit", job_file)["name"].split("/")[1]

    def wait(self, job, timeout=240):
        result = self.run("wait", job, "--timeout", str(timeout), timeout=timeout + 30)
        return result, self.get(job)

    def succeed(self, job, timeout=240):
        """Waits for success; the job."""
        result, state = self.wait(job, timeout)
        assert state["state"] == "SUCCEEDED", (
            f"{result.stderr}\n{json.dumps(state, indent=1)}\n" + self.ok("logs", job))
        return state

    def step(self, job):
        return int(self.get(job).get("step", 0))

    def wait_for_step(self, job, step, timeout=120):
        wait_until(lambda: self.step(job) >= step, f"{job} reaches step {step}", timeout)

    def metrics(self, job):
        lines = self.ok("metrics", job, "--format", "json").splitlines()
        return [json.loads(line) for line in lines]


def adapter_sha256(job):
    """SHA-256 of the delivered weights."""
    for file in job["adapter"]["files"]:
        if file["filename"] == "adapter_model.safetensors":
            return file["sha256"]
    raise AssertionError("no adapter_model.safetensors")


def write_job(folder, devices=1, shards=0, max_steps=12, every_steps=4, name="job", extra="", dropout=0.1):
    """A short job on the example's data; the path of its file."""
    path = os.path.join(folder, f"{name}-{devices}-{shards}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""name: {name}
base: tiny-tales
dataset: {{train: {EXAMPLE}/train.jsonl, validation: {EXAMPLE}/val.jsonl}}
lora: {{rank: 4, alpha: 8, dropout: {dropout}, target_modules: all-linear}}
training:
  max_steps: {max_steps}
  batch_size: 16
  micro_batch_tokens: 512
  max_seq_length: 512
  learning_rate: 2e-3
  seed: 3
resources: {{devices: {devices}, shards: {shards or 'auto'}}}
checkpoint: {{every_steps: {every_steps}, keep: 2}}
{extra}""")
    return path
