#!/usr/bin/env python3
"""What deploy/monitoring holds, against Prometheus itself: promtool's checks and unit tests of the rules; the metrics'
own form; and a Prometheus that scrapes a running service, in which every rule finds its data.

Needs Debian's prometheus (promtool comes with it); skipped where it is not installed.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request

import service as e2e

FOLDER = os.path.join(e2e.SOURCE, "deploy/monitoring")
if not (shutil.which("prometheus") and shutil.which("promtool")):
    print("skipped: prometheus and promtool are not installed; apt-get install prometheus")
    sys.exit(77)


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


def panels():
    """(title, expression) of each query of each dashboard."""
    for name in sorted(os.listdir(os.path.join(FOLDER, "dashboards"))):
        for panel in json.loads(read(os.path.join("dashboards", name)))["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Rules(unittest.TestCase):
    def promtool(self, *arguments, text=None):
        done = subprocess.run(["promtool", *arguments], cwd=FOLDER, input=text, capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_promtool_finds_no_fault(self):
        self.promtool("check", "config", "prometheus.yml")
        self.promtool("check", "rules", "rules.yml")
        self.promtool("test", "rules", "rules_test.yml")

    def test_each_alert_has_a_test_both_ways_and_a_page_of_the_runbook(self):
        alerts = re.findall(r"- alert: (\w+)", read("rules.yml"))
        self.assertGreater(len(alerts), 10)
        tests, runbook = read("rules_test.yml"), read("README.md")
        for alert in alerts:
            self.assertIn(f"alertname: {alert}, exp_alerts: []", tests)
            self.assertIn(f'alertname="{alert}"', tests)
            self.assertIn(f"### {alert}\n", runbook)
            self.assertIn(f"README.md#{alert.lower()}\n", read("rules.yml"))


    def test_dashboards_ask_for_metrics_that_there_are(self):
        with open(os.path.join(e2e.SOURCE, "docs/operations.md"), encoding="utf-8") as file:
            known = set(re.findall(r"`(tundra_\w+)", file.read()))
        recorded = set(re.findall(r"- record: (\S+)", read("rules.yml")))
        found = list(panels())
        self.assertGreater(len(found), 10)
        for title, expression in found:
            for metric in re.findall(r"\btundra_\w+", expression):
                self.assertIn(re.sub("_(bucket|count|sum)$", "", metric), known, title)
            for record in re.findall(r"\btundra:\S+", expression):
                self.assertIn(record, recorded, title)


class RealPrometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tundra-prometheus-")
        cls.service = e2e.Service().start_coordinator("--heartbeat-seconds", "0.2", "--lease-seconds", "2")
        cls.targets = []
        for name in ("one", "two"):
            cls.targets.append(f"127.0.0.1:{free_port()}")
            cls.service.start_worker(name, flags=("--http", cls.targets[-1]))
        cls.prometheus, cls.port = None, free_port()

    @classmethod
    def tearDownClass(cls):
        if cls.prometheus:
            cls.prometheus.terminate()
            cls.prometheus.wait()
        cls.service.__exit__(None)
        shutil.rmtree(cls.dir, ignore_errors=True)

    def start_prometheus(self):
        """With the shipped configuration: other ports, and seconds instead of minutes."""
        config = read("prometheus.yml").replace("15s", "1s").replace("127.0.0.1:7701",
                                                                      f"127.0.0.1:{self.service.http}")
        for name, text in (("prometheus.yml", config),
                           ("workers.yml", f"- targets: {json.dumps(self.targets)}\n"),
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

    def test_every_rule_finds_its_data_in_a_running_service(self):
        self.start_prometheus()
        e2e.wait_until(lambda: len(self.query("up == 1")) == 3, "all targets are scraped")
        for i in range(3):
            job = self.service.submit(e2e.write_job(self.service.dir, max_steps=3, name=f"job{i}"))
            self.service.succeed(job)
        metrics = set(re.findall(r"\btundra_\w+", read("rules.yml")))
        self.assertGreater(len(metrics), 12)
        # Made by the first failure; no job of a healthy service fails.
        metrics.discard("tundra_job_failures_total")
        for metric in sorted(metrics):
            e2e.wait_until(lambda name=metric: self.query(name), f"{metric} has data")
        for record in re.findall(r"- record: (\S+)", read("rules.yml")):
            e2e.wait_until(lambda name=record: self.query(name), f"{record} has data")
        for title, expression in panels():
            if "tundra_job_failures_total" not in expression:
                e2e.wait_until(lambda query=expression: self.query(query), f"the panel {title!r} has data")
        e2e.wait_until(lambda: float(self.query("tundra:steps:rate5m")[0]["value"][1]) > 0, "steps are counted")
        for group in self.ask("rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["health"], "ok", rule)
                self.assertNotEqual(rule.get("state"), "firing", rule)
        # Each label of jobs or users would be a series a job: there is none.
        self.assertLess(len(self.query('{__name__=~"tundra_.*"}')), 1000)
        for page in (f"127.0.0.1:{self.service.http}", *self.targets):
            done = subprocess.run(["promtool", "check", "metrics"], input=fetch(f"http://{page}/metrics"),
                                  capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

        # A worker that goes is seen in both ways.
        self.service.workers["two"].kill()
        e2e.wait_until(lambda: self.query('up{job="tundra-worker"} == 0'), "its target is down")
        e2e.wait_until(lambda: self.query('sum(tundra_workers{state="connected"}) == 1'), "the coordinator misses it")
        e2e.wait_until(lambda: any(a["labels"]["alertname"] == "TundraWorkerDown" for a in self.ask("alerts")["alerts"]),
                       "the alert is pending")
        # And a queue that nobody can serve.
        self.service.submit(e2e.write_job(self.service.dir, devices=2, name="waits"))
        self.service.workers["one"].kill()
        alone = 'tundra_queue_devices > 0 unless on () (sum(tundra_workers{state="connected"}) > 0)'
        e2e.wait_until(lambda: self.query(alone), "a queue without workers is seen")


if __name__ == "__main__":
    unittest.main()
