#!/usr/bin/env python3
"""What deploy/monitoring holds, against Prometheus itself: promtool's checks and unit tests of the rules; the metrics'
own form and their list; the dashboards' form; and a Prometheus that scrapes a service of two workers with twenty
jobs, in which every rule and every panel finds its data.

Needs Debian's prometheus (promtool comes with it); skipped where it is not installed.
"""

import http.server
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.parse
import urllib.request

import service as e2e

FOLDER = os.path.join(e2e.SOURCE, "deploy/monitoring")
if not (shutil.which("prometheus") and shutil.which("promtool")):
    print("skipped: prometheus and promtool are not installed; apt-get install prometheus")
    sys.exit(77)

# Metrics that a service without their subject does not have. Queries over them are asked all the same, and may
# come back empty.
MISSING = {
    "tundra_cert_expiry_timestamp_seconds": "the service here has no TLS",
}
# What NVIDIA's exporter would serve of two cards: there are none in this test, and the joins are to be tried.
CARDS = "".join(
    f"# TYPE {name} gauge\n" + "".join(f'{name}{{gpu="{gpu}",UUID="GPU-{gpu}",device="nvidia{gpu}"}} {value}\n'
                                       for gpu in (0, 1))
    for name, value in {
        "DCGM_FI_DEV_GPU_UTIL": 80, "DCGM_FI_DEV_FB_USED": 60000, "DCGM_FI_DEV_FB_FREE": 21000,
        "DCGM_FI_DEV_SM_CLOCK": 1755, "DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_POWER_USAGE": 620.5,
        "DCGM_FI_DEV_XID_ERRORS": 0, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.4,
        "DCGM_FI_PROF_DRAM_ACTIVE": 0.3}.items())


def read(name, folder=FOLDER):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()


def dashboards():
    """File name -> dashboard."""
    folder = os.path.join(FOLDER, "dashboards")
    return {name: json.loads(read(name, folder)) for name in sorted(os.listdir(folder))}


def queries():
    """(dashboard and panel, expression) of each query of each dashboard."""
    return [(f"{name}: {panel['title']}", target["expr"])
            for name, board in dashboards().items()
            for panel in board["panels"] for target in panel.get("targets", [])]


def metrics_in(expression):
    """Names of metrics, without the endings of a histogram's series."""
    return {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\btundra_\w+", expression)}


def listed():
    """The README's table: (name, process) -> (type, labels). A process is C or W."""
    found = {}
    for name, labels, by, kind in re.findall(r"^\| `(tundra_\w+?)(?:\{([\w,]+)\})?` \| ([CW ]+) \| (\w+) \|",
                                             read("README.md"), re.M):
        for process in by.split():
            found[name, process] = (kind, set(filter(None, labels.split(","))))
    return found


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Rules(unittest.TestCase):
    def promtool(self, *arguments):
        done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_promtool_finds_no_fault(self):
        self.promtool("check", "config", "prometheus.yml")
        self.promtool("check", "rules", "rules.yml")
        self.promtool("test", "rules", "rules_test.yml")

    def test_each_alert_has_a_test_both_ways_and_a_page_of_the_runbook(self):
        alerts = re.findall(r"- alert: (\w+)", read("rules.yml"))
        self.assertGreater(len(alerts), 15)
        tests, runbook = read("rules_test.yml"), read("README.md")
        for alert in alerts:
            self.assertIn(f"alertname: {alert}, exp_alerts: []", tests)
            self.assertIn(f'alertname="{alert}"', tests)
            self.assertIn(f"### {alert}\n", runbook)
            self.assertIn(f"README.md#{alert.lower()}\n", read("rules.yml"))
        self.assertEqual(set(re.findall(r"^### (Tundra\w+)$", runbook, re.M)), set(alerts))

    def test_each_recording_rule_is_explained(self):
        for record in re.findall(r"- record: (\S+)", read("rules.yml")):
            self.assertIn(f"`{record}`", read("README.md"))


class Lists(unittest.TestCase):
    def test_the_table_has_the_names_that_the_programs_have(self):
        for process, source in (("C", "coordinator/http/metrics.cc"), ("W", "worker/worker_metrics.cc")):
            made = set(re.findall(r'"(tundra_\w+)"', read(source, e2e.SOURCE)))
            self.assertGreater(len(made), 15)
            self.assertEqual(made, {name for name, by in listed() if by == process})

    def test_rules_and_dashboards_ask_for_metrics_that_there_are(self):
        known = {name for name, _ in listed()}
        recorded = set(re.findall(r"- record: (\S+)", read("rules.yml")))
        self.assertGreater(len(queries()), 50)
        for where, expression in [("rules.yml", read("rules.yml")), *queries()]:
            self.assertLessEqual(metrics_in(expression), known, where)
            for record in re.findall(r"\btundra:\w+:\w+", expression):
                self.assertIn(record, recorded, where)

    def test_no_metric_is_left_without_a_panel(self):
        asked = set()
        for text in [read("rules.yml"), *(expression for _, expression in queries())]:
            asked |= metrics_in(text)
        self.assertEqual({name for name, _ in listed()} - asked, set())


class Dashboards(unittest.TestCase):
    def test_they_are_what_the_script_writes(self):
        done = subprocess.run([sys.executable, os.path.join(FOLDER, "make_dashboards.py"), "--check"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_each_panel_is_explained_has_a_unit_and_a_place_of_its_own(self):
        boards = dashboards()
        self.assertEqual(len({board["uid"] for board in boards.values()}), 5)
        for name, board in boards.items():
            taken = set()
            self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
            for panel in board["panels"]:
                where = f"{name}: {panel['title']}"
                if panel["type"] not in ("row", "text"):
                    self.assertTrue(panel["description"].endswith("."), where)
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], where)
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}", where)
                    self.assertTrue(all(target["legendFormat"] for target in panel["targets"]), where)
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                self.assertLessEqual(place["x"] + place["w"], 24, where)
                self.assertFalse(taken & cells, where)
                taken |= cells
            self.assertEqual([link["tags"] for link in board["links"]], [["tundra"]])

    def test_panels_that_may_have_nothing_to_show_say_so(self):
        for name, board in dashboards().items():
            for panel in board["panels"]:
                asked = [target["expr"] for target in panel.get("targets", [])]
                says = panel.get("fieldConfig", {"defaults": {}})["defaults"].get("noValue")
                if asked and all("DCGM" in expression for expression in asked):
                    self.assertEqual(says, "no GPU exporter", f"{name}: {panel['title']}")
                if metrics_in(" ".join(asked)) & set(MISSING):
                    self.assertTrue(says, f"{name}: {panel['title']}")


class Exporter:
    """Serves CARDS as NVIDIA's exporter would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(CARDS.encode())

        def log_message(self, *_):
            pass

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class RealPrometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tundra-prometheus-")
        cls.service = e2e.Service().start_coordinator("--heartbeat-seconds", "0.2", "--lease-seconds", "2")
        cls.targets = {name: f"127.0.0.1:{free_port()}" for name in ("one", "two")}
        cls.exporter = Exporter()
        cls.prometheus, cls.port = None, free_port()
        cls.jobs = 0

    @classmethod
    def tearDownClass(cls):
        if cls.prometheus:
            cls.prometheus.terminate()
            cls.prometheus.wait()
        cls.exporter.stop()
        cls.service.__exit__(None)
        shutil.rmtree(cls.dir, ignore_errors=True)

    def start_prometheus(self):
        """With the shipped configuration: other ports, and seconds instead of minutes."""
        config = read("prometheus.yml").replace("15s", "1s").replace("127.0.0.1:7701",
                                                                      f"127.0.0.1:{self.service.http}")
        for name, text in (("prometheus.yml", config),
                           ("workers.yml", f"- targets: {json.dumps(list(self.targets.values()))}\n"),
                           ("gpus.yml", f"- targets: {json.dumps([self.exporter.address])}\n"),
                           ("rules.yml", read("rules.yml"))):
            with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
                file.write(text)
        with open(os.path.join(self.dir, "log"), "w", encoding="utf-8") as log:
            type(self).prometheus = subprocess.Popen(
                ["prometheus", "--config.file", os.path.join(self.dir, "prometheus.yml"),
                 "--storage.tsdb.path", os.path.join(self.dir, "data"),
                 "--web.listen-address", f"127.0.0.1:{self.port}"], stdout=log, stderr=log)

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return json.loads(fetch(url))["data"]

    def query(self, expression):
        try:
            return self.ask("query", query=expression)["result"]
        except OSError:
            return []

    def has_data(self, expression):
        """Figures: a quantile of nothing is NaN."""
        return any(not math.isnan(float(sample["value"][1])) for sample in self.query(expression))

    def submit(self, *changes, devices=1, shards=0, steps=2, every_steps=4):
        """A job on the example's first rows, of small steps."""
        type(self).jobs += 1
        path = e2e.write_job(self.service.dir, devices=devices, shards=shards, max_steps=steps,
                             every_steps=every_steps, name=f"job{self.jobs}")
        with open(path, encoding="utf-8") as file:
            job = file.read()
        for name, rows in (("train", 48), ("val", 4)):
            small = os.path.join(self.service.dir, f"{name}.jsonl")
            with open(os.path.join(e2e.EXAMPLE, f"{name}.jsonl"), encoding="utf-8") as all_rows:
                lines = all_rows.readlines()[:rows]
            with open(small, "w", encoding="utf-8") as file:
                file.writelines(lines)
            job = job.replace(f"{e2e.EXAMPLE}/{name}.jsonl", small)
        for old, new in (("batch_size: 16", "batch_size: 4"), *changes):
            self.assertIn(old, job)
            job = job.replace(old, new)
        with open(path, "w", encoding="utf-8") as file:
            file.write(job)
        return self.service.submit(path)

    def wait_for_state(self, job, state):
        e2e.wait_until(lambda: self.service.get(job)["state"] == state, f"{job} is {state}")

    def bases(self):
        """A folder with the example's base, and with one whose last weight is not a number."""
        folder = os.path.join(self.service.dir, "bases")
        shutil.copytree(e2e.BASES, folder)
        shutil.copytree(os.path.join(folder, "tiny-tales"), os.path.join(folder, "poisoned"))
        with open(os.path.join(folder, "poisoned/model.safetensors"), "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\xff" * 4)
        return folder

    def start_worker(self, name, bases, flags=(), **options):
        flags = ("--http", self.targets[name], *flags)
        self.service.start_worker(name, bases=bases, flags=flags, **options)
        # What happens before the first scrape is no increase.
        wanted = 1 + len(self.service.workers)
        e2e.wait_until(lambda: len(self.query('up{job=~"tundra-.*"} == 1')) == wanted, f"{name} is scraped")

    def lose_a_rank(self):
        """A job of two ranks that gather the base from each other; one is killed some steps after a checkpoint, so
        that these are done once more."""
        self.service.ok("admin", "tenants", "set", "default", "--active-jobs", "1000", "--devices", "8")
        self.assertNotEqual(self.service.run("jobs", "--token-file", self.service.tokens["worker"]).returncode, 0)
        job = self.submit(devices=2, shards=2, steps=120, every_steps=30)
        e2e.wait_until(lambda: 3 < self.service.step(job) % 30 < 15 and self.service.step(job) > 30,
                       "it is between checkpoints")
        os.kill(self.service.rank_pid(1, "one"), signal.SIGKILL)
        return job

    def run_twenty_jobs(self):
        """On one worker of two ranks and one of one: a rank is killed, one job is paused, one diverges, one has bad
        input that only its worker sees, three are cancelled, the others succeed. Returns the one that is resumed."""
        bases = self.bases()
        self.start_worker("one", bases, devices=2, flags=("--gather", "network"))
        lost_a_rank = self.lose_a_rank()
        self.start_worker("two", bases)
        paused = self.submit(steps=200)
        self.service.wait_for_step(paused, 1)
        self.service.ok("pause", paused)
        self.wait_for_state(paused, "PAUSED")
        diverges = self.submit(("base: tiny-tales", "base: poisoned"), steps=8)
        bad = self.submit(("alpha: 8", "alpha: 1.0e+38"))
        short = [self.submit() for _ in range(13)]
        cancelled = [self.submit(devices=3) for _ in range(3)]
        for job in cancelled:
            self.service.ok("cancel", job)
        for job in (*short, lost_a_rank):
            self.service.succeed(job)
        for job, code in ((diverges, "DIVERGED"), (bad, "BAD_INPUT")):
            self.wait_for_state(job, "FAILED")
            self.assertEqual(self.service.get(job)["failure"]["code"], code)
        for job in cancelled:
            self.wait_for_state(job, "CANCELLED")
        self.assertEqual(self.jobs, 20)
        self.service.ok("resume", paused)
        self.service.wait_for_step(paused, 2)
        return paused

    def check_pages(self):
        """The pages themselves: form, names, types, labels, number of series."""
        pages = {"C": [f"127.0.0.1:{self.service.http}"], "W": list(self.targets.values())}
        for process, addresses in pages.items():
            for address in addresses:
                page = fetch(f"http://{address}/metrics")
                done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True,
                                      check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
                self.assertLess(page.count("\n"), 2000)
                types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.M))
                self.assertEqual(set(re.findall(r"^# HELP (\w+) \S", page, re.M)), set(types))
                labels = {name: set() for name in types}
                for series, given in re.findall(r"^(\w+)\{(.*)\} \S+$", page, re.M):
                    name = series if series in types else re.sub("_(bucket|count|sum)$", "", series)
                    labels[name] |= set(re.findall(r'(\w+)="', given)) - {"le"}
                wanted = {name: kind for (name, by), kind in listed().items() if by == process}
                self.assertEqual({**wanted, **{name: (types[name], labels[name]) for name in types}}, wanted)
                self.assertLessEqual(set(wanted) - set(types), set(MISSING))

    def check_figures(self):
        """What has happened is what is counted."""
        for expression in (
                "sum(tundra_steps_total{job='tundra-coordinator'}) >= 120 + 13 * 2",
                "tundra_replayed_steps_total > 0", "tundra_recovery_duration_seconds_count >= 1",
                "sum(tundra_preemption_duration_seconds_count) == 1",
                "count(sum by (phase) (tundra_step_duration_seconds_sum) > 0) == 4",
                "count(sum by (stage) (tundra_checkpoint_duration_seconds_sum) > 0) == 4",
                "sum(tundra_nonfinite_steps_total) == 5", "tundra_job_failures_total{reason='DIVERGED'} == 1",
                "tundra_job_failures_total{reason='BAD_INPUT'} == 1",
                "tundra_jobs{state='CANCELLED'} == 3", "sum(tundra_gather_bytes_total) > 0",
                "sum(tundra_checkpoint_duration_seconds_count{stage='restore'}) >= 2",
                "sum(tundra_device_seconds_total) > sum(tundra_useful_device_seconds_total) > 0",
                "min(tundra_leader) == 1", "tundra_stalled_jobs == 0",
                "sum(tundra_collective_aborts_total{reason=~'peer_lost|next_epoch'}) >= 1"):
            e2e.wait_until(lambda asked=expression: self.query(asked), expression)

    def check_queries(self):
        asked = [(f"rules.yml: {name}", name) for name in sorted(metrics_in(read("rules.yml")))]
        asked = [(where, f"{{__name__=~'{name}(_count)?'}}") for where, name in asked]
        asked += [(f"rules.yml: {name}", name) for name in re.findall(r"- record: (\S+)", read("rules.yml"))]
        asked += queries()
        self.assertGreater(len(asked), 90)
        without = set()
        for where, expression in asked:
            missing = metrics_in(expression) & set(MISSING)
            if missing:
                without |= missing
                self.ask("query", query=expression)  # an error for what is no query
                continue
            e2e.wait_until(lambda query=expression: self.has_data(query), f"{where} has data: {expression}")
        self.assertEqual(without, set(MISSING), "the list of exceptions is as short as it can be")

    def test_every_rule_and_every_panel_finds_its_data_in_a_running_service(self):
        self.start_prometheus()
        paused = self.run_twenty_jobs()
        e2e.wait_until(lambda: len(self.query("up == 1")) == 4, "all targets are scraped")
        self.check_figures()
        self.check_queries()
        self.check_pages()
        for group in self.ask("rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["health"], "ok", rule)
                self.assertNotEqual(rule.get("state"), "firing", rule)
        # Each label of jobs or users would be a series a job: there is none.
        self.assertLess(len(self.query('{__name__=~"tundra_.*"}')), 2000)
        self.assertEqual(self.query('{__name__=~"tundra_.*", job_id!=""}'), [])
        self.service.run("cancel", paused)

        # A worker that goes is seen in both ways.
        self.service.workers["two"].kill()
        e2e.wait_until(lambda: self.query('up{job="tundra-worker"} == 0'), "its target is down")
        e2e.wait_until(lambda: self.query('sum(tundra_workers{state="connected"}) == 1'), "the coordinator misses it")
        e2e.wait_until(lambda: "TundraWorkerDown" in {a["labels"]["alertname"] for a in self.ask("alerts")["alerts"]},
                       "the alert is pending")
        # And a queue that nobody can serve.
        self.submit(devices=2)
        self.service.workers["one"].kill()
        alone = 'sum(tundra_queue_devices) > 0 unless on () (sum(tundra_workers{state="connected"}) > 0)'
        e2e.wait_until(lambda: self.query(alone), "a queue without workers is seen")


if __name__ == "__main__":
    unittest.main()
