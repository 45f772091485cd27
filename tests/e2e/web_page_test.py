#!/usr/bin/env python3
"""The web page in a real browser, against a real service: what it shows, what can be done with it, by mouse and by keys
alone, light and dark, wide and narrow; that it breaks no rule of its own policy or of accessibility; and that it lives
through the loss of the service. What admins do with it is in web_admin_test.py.
"""

import csv
import hashlib
import json
import os
import shlex
import unittest

import service as e2e
from web_page import RULES, InBrowser


class WebPage(InBrowser):
    JOBS = {"first": "2e-3", "second": "1e-3"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.done, cls.other = cls.jobs["first"], cls.jobs["second"]

    def test_the_list_shows_each_job_as_it_stands(self):
        waiting = self.submit("needs-five", devices=5)
        self.live("", "needs-five")
        row = self.page.run("return [...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('first'))?.innerText")
        job = self.service.get(self.done)
        self.assertIn("Succeeded", row)
        self.assertIn("12 / 12", row)
        self.assertIn(f"{job['train_loss']:.4f}", row)
        self.assertIn(f"val {job['validation_loss']:.4f}", row)
        self.assertIn("team: search", row)
        self.page.wait_text("needs 5 devices")
        self.shot("jobs")
        # By state, and by a part of the name.
        self.page.click(".tabs a[href='#/jobs?state=queued']")
        self.page.wait("return document.querySelectorAll('tbody tr').length === 1", "one job is queued")
        self.assertIn("needs-five", self.page.text("tbody"))
        self.page.click(".tabs a[href='#/jobs']")
        self.page.wait("return document.querySelectorAll('tbody tr').length >= 3", "all jobs")
        self.page.type("input[type=search]", "SECO")
        self.page.wait("return document.querySelectorAll('tbody tr').length === 1", "one job fits")
        self.assertIn("second", self.page.text("tbody"))
        self.page.type("input[type=search]", "nothing is called so")
        self.page.wait_text("No job fits the filter")
        self.shot("jobs-none")
        # The queue says the same.
        self.live("#/queue", "needs-five")
        self.assertIn("needs 5 devices", self.page.text("tbody"))
        self.shot("queue")
        self.service.ok("cancel", waiting)
        self.page.wait_text("Nothing waits")
        self.assert_no_complaints()

    def test_a_job_runs_before_ones_eyes(self):
        job = self.submit("live", steps=120, every=20)
        self.live(f"#/jobs/{job}", "live")
        self.page.wait_text("Running")
        first = self.page.wait("return Number(document.querySelector('.steps-line span').textContent.split(' ')[0].replace(',', '')) || 0",
                               "steps are made")
        self.page.wait("return Number(document.querySelector('.steps-line span').textContent.split(' ')[0].replace(',', '')) > arguments[0]",
                       "more steps are seen without a reload", first)
        self.page.wait("return document.querySelectorAll('.chart path.line').length >= 4", "curves are drawn")
        self.shot("job-running")
        # Pause, look, resume, cancel, delete: each asks first.
        self.act("PauseJob", "Pause live?")
        self.page.wait("return document.querySelector('.title-line .state').dataset.state === 'PAUSED'", "it is paused", timeout=60)
        self.assertEqual(self.service.get(job)["state"], "PAUSED")
        self.shot("job-paused")
        self.act("ResumeJob", "Resume live?")
        self.page.wait("return document.querySelector('.title-line .state').dataset.state === 'RUNNING'", "it runs again", timeout=60)
        self.page.click("[data-action=CancelJob]")
        self.page.wait_text("Cancel live?", "dialog")
        self.shot("dialog")
        self.page.press("Escape")
        self.page.wait("return !document.querySelector('dialog')", "the question is gone")
        self.assertEqual(self.page.run("return document.activeElement.dataset.action"), "CancelJob")
        self.assertEqual(self.service.get(job)["desired_state"], "RUN")
        self.act("CancelJob", "Cancel live?")
        self.page.wait("return document.querySelector('.title-line .state').dataset.state === 'CANCELLED'", "it is cancelled", timeout=60)
        self.page.wait_text("Delete", ".actions")
        self.act("DeleteJob", "Delete live?")
        self.page.wait("return location.hash === '#/jobs'", "back at the list")
        self.assertNotEqual(self.service.run("get", job).returncode, 0)
        self.go(f"#/jobs/{job}")
        self.page.wait_text("No such job")
        self.shot("job-none")
        self.assert_no_complaints(f"GetJob - Failed to load resource: the server responded with a status of 404",
                                  "ListMetrics - Failed", "ListEvents - Failed", "ListCheckpoints - Failed")

    def test_curves_have_the_real_figures(self):
        self.live(f"#/jobs/{self.done}", "first")
        self.page.wait("return document.querySelectorAll('.chart path.line').length >= 5", "curves are drawn")
        metrics = [row for row in self.service.metrics(self.done) if int(row.get("step", 0)) > 0]
        sentence = self.lines_of("Loss")
        self.assertIn(f"to {metrics[-1]['train_loss']:.4g} at step 12", sentence)
        self.assertIn(f"validation from {self.service.get(self.done)['initial_validation_loss']:.4g} at step 0", sentence)
        # Each point of the drawn path lies where its figure belongs, by the axis's own labels.
        drawn = self.page.run("""
            const chart = [...document.querySelectorAll('.chart')].find((one) => one.querySelector('h3').textContent === 'Gradient norm');
            const labels = [...chart.querySelectorAll('.axis .y')].map((text) => [Number(text.textContent), Number(text.getAttribute('y'))]);
            const [[v0, y0], [v1, y1]] = [labels[0], labels.at(-1)];
            const points = chart.querySelector('path.line').getAttribute('d').split(/[ML]/).filter(Boolean).map((p) => Number(p.split(' ')[1]));
            return points.map((y) => v0 + (y - y0) / (y1 - y0) * (v1 - v0));""")
        self.assertEqual(len(drawn), len(metrics))
        span = max(row["grad_norm"] for row in metrics)
        for seen, row in zip(drawn, metrics):
            self.assertAlmostEqual(seen, row["grad_norm"], delta=0.01 * span)
        # The keyboard's cursor reads the figures.
        self.page.run("document.querySelector('.chart svg').focus()")
        self.page.press("Left")
        self.page.wait_text("Step 11", "#live")
        self.assertIn(f"training {metrics[10]['train_loss']:.4g}", self.page.text("#live"))
        # Zoom by the mouse shows a part; Escape all again. Smoothing keeps the raw line.
        self.page.drag(".chart svg", (0.5, 0.5), (0.8, 0.5))
        self.page.wait("return !document.querySelector('.bar-row button').disabled", "it is zoomed")
        self.shot("job-zoomed")
        self.page.run("document.querySelector('.chart svg').focus()")
        self.page.press("Escape")
        self.page.wait("return document.querySelector('.bar-row button').disabled", "it shows all again")
        self.page.press("+")
        self.page.wait("return !document.querySelector('.bar-row button').disabled", "a key zooms")
        self.page.click(".bar-row button")
        self.page.run("const r = document.querySelector('input[type=range]'); r.value = 0.6; r.dispatchEvent(new Event('input'))")
        self.page.wait("return document.querySelectorAll('path.raw').length >= 3", "smoothed lines beside raw ones")
        self.page.click(".bar-row input[type=checkbox]")
        self.page.wait("return document.querySelectorAll('.chart path.line').length >= 5", "logarithmic curves")
        self.shot("job-logarithmic")
        # What is beside the curves.
        text = self.page.text("main")
        for wanted in ("Where is my parcel?", "Before training", "After training", "Succeeded after 12 steps", "learning_rate: 0.002",
                       "Checkpoint, step 12"):
            self.assertIn(wanted, text)
        job = self.service.get(self.done)
        self.assertIn(job["samples"][0]["after"].strip()[:20], text)
        self.assert_no_complaints()

    def test_what_is_drawn_and_said_follows_from_the_figures(self):
        self.live("", "first")
        # Smoothing: weights of (1 - w) w^k over the values so far, made to add up to 1.
        values, weight = [3.0, 1.0, 4.0, 1.0, 5.0], 0.6
        wanted = []
        for n in range(1, len(values) + 1):
            weights = [weight ** (n - 1 - i) for i in range(n)]
            wanted.append(sum(w * v for w, v in zip(weights, values)) / sum(weights))
        smooth = self.module("scale.js", "m.smooth([3, 1, 4, 1, 5], 0.6)")
        for seen, right in zip(smooth, wanted):
            self.assertAlmostEqual(seen, right, places=12)
        # Of a hundred thousand figures a single spike is still drawn.
        drawn = self.module("scale.js", "m.thin(Array.from({length: 100000}, (_, i) => (i === 54321 ? 9 : 0)), 0, 100000, 500)")
        self.assertIn(54321, drawn)
        self.assertLessEqual(len(drawn), 2000)
        self.assertEqual(drawn, sorted(drawn))
        self.assertEqual(self.module("scale.js", "m.ticks(0, 90, 9)"), list(range(0, 91, 10)))
        self.assertEqual(self.module("scale.js", "m.ticks(0.3, 0.61, 5)"), [0.3, 0.4, 0.5, 0.6])
        self.assertEqual(self.module("scale.js", "m.logTicks(0.5, 30)"), [0.5, 1, 2, 5, 10, 20])
        self.assertEqual(self.module("scale.js", "m.path([0, 1, 2, 3], [1, NaN, 0, 2], [0, 1, 2, 3], (x) => x, (y) => y, true)"),
                         "M0.0 1.0M3.0 2.0", "what has no logarithm is a gap")
        self.assertEqual(self.module("scale.js", "[0, 3, 3.4, 3.6, 99].map((x) => m.nearest([1, 2, 3, 4], x))"), [0, 2, 2, 3, 3])
        for expression, text in (("m.figure(0.18214)", "0.1821"), ("m.figure(NaN)", "–"), ("m.figure(6.52e-7)", "6.52e−7"),
                                 ("m.figure(1234567)", "1.23e6"), ("m.loss(0.196)", "0.1960"), ("m.bytes('443000')", "443 kB"),
                                 ("String(m.parseBytes('1.5 gb'))", "1500000000"), ("String(m.parseBytes('lots'))", "NaN"),
                                 ("m.exactBytes('1500000000')", "1500 MB"), ("m.exactBytes('1000001')", "1000001 B"),
                                 ("m.duration(3725)", "1 h 2 min"), ("m.duration(65)", "1 min 5 s"), ("m.short(1967808)", "1.97M"),
                                 ("m.age('2026-01-01T00:00:00Z', Date.parse('2026-01-01T02:30:00Z'))", "2 h ago"),
                                 ("m.yaml({lora: {useRslora: false, targetModules: ['q_proj', 'v_proj']}, lrScheduler: 'COSINE'})",
                                  "lora:\n  use_rslora: false\n  target_modules: [q_proj, v_proj]\nlr_scheduler: cosine")):
            self.assertEqual(self.module("format.js", expression), text, expression)

    def test_only_new_figures_are_asked_for(self):
        job = self.submit("grows", steps=40, every=20)
        self.live(f"#/jobs/{job}", "grows")
        self.page.wait("return document.querySelectorAll('.chart path.line').length >= 4", "curves are drawn")
        self.spy()
        self.page.wait("return document.querySelector('.title-line .state').dataset.state === 'SUCCEEDED'", "it has ended", timeout=240)
        self.page.wait_text("Succeeded after 40 steps", ".events")
        self.page.wait("return window.calls.every((call) => call[2] !== null)", "all answers are there")
        # The state is shown before the figures behind it are fetched.
        metrics = self.service.metrics(job)
        e2e.wait_until(lambda: f"to {metrics[-1]['train_loss']:.4g} at step 40" in self.lines_of("Loss"), "the last figure is drawn")
        calls = self.page.run("return window.calls")
        for method, field in (("JobService/ListMetrics", "metrics"), ("JobService/ListEvents", "events")):
            seen = []
            for _, request, text in (call for call in calls if call[0] == method):
                self.assertGreater(int(request["afterSequence"]), max(seen, default=0) - 1, "behind what was seen")
                seen += [int(item["sequence"]) for item in json.loads(text).get(field, [])]
            self.assertEqual(seen, sorted(set(seen)), f"no item of {field} comes twice")
        drawn = self.page.run("""const chart = [...document.querySelectorAll('.chart')].find((one) => one.querySelector('h3').textContent === 'Gradient norm');
            return chart.querySelector('path.line').getAttribute('d').split(/[ML]/).filter(Boolean).length""")
        self.assertEqual(drawn, 40, "and none is missed")
        self.assert_no_complaints()

    def test_nobody_who_does_not_look_asks(self):
        """The loop that all views run in: rests while the tab is hidden, and slows down while the service fails."""
        self.live("", "first")
        count = """(async () => {
            let asked = 0;
            const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
            const hide = (hidden) => {
              Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
              document.dispatchEvent(new Event('visibilitychange'));
            };
            const poller = new m.Poller(async () => { asked += 1; %s }, () => {}, 20);
            poller.now();
            await wait(600);
            const seen = asked;
            hide(true);
            await wait(100);
            const before = asked;
            await wait(500);
            const hidden = asked - before;
            hide(false);
            await wait(100);
            poller.stop();
            return [seen, hidden, asked - before - hidden];
          })().then(done)"""
        seen, hidden, again = self.count_polls(count % "")
        self.assertGreater(seen, 10)
        self.assertEqual(hidden, 0, "a hidden tab asks nothing")
        self.assertGreaterEqual(again, 1, "and at once when it is seen again")
        failing, _, _ = self.count_polls(count % "throw new Error('away');")
        self.assertLessEqual(failing, 6, "20, 40, 80, 160, 320 ms")

    def count_polls(self, script):
        source = self.page.run("return [...document.querySelectorAll('link[rel=modulepreload]')].map((link) => link.href)"
                               ".find((url) => url.endsWith('/poll.js'))")
        return self.page.command("POST", "/execute/async", {
            "script": f"const done = arguments[arguments.length - 1]; import(arguments[0]).then((m) => {{ {script} }})",
            "args": [source]})

    def test_finds_jobs_by_terms_and_says_what_is_wrong_with_one(self):
        self.live("", "second")
        self.page.click("a.chip")
        self.page.wait("return document.querySelector('input[type=search]').value === 'labels.team = \"search\"'", "a label is a filter")
        self.page.wait("return document.querySelectorAll('tbody tr').length >= 2", "both jobs have it")
        self.page.retype("input[type=search]", "display_name = first")
        self.page.wait("return document.querySelectorAll('tbody tr').length === 1", "one is called so")
        self.page.retype("input[type=search]", "state = ASLEEP")
        self.page.wait_text("expected a state such as QUEUED", ".fault")
        self.assertEqual(self.page.run("return document.querySelector('input[type=search]').getAttribute('aria-invalid')"), "true")
        self.assertEqual(self.broken_rules(), [])
        self.shot("jobs-bad-filter")
        self.page.retype("input[type=search]", "")
        self.page.press("Backspace")
        self.page.run("document.querySelector('input[type=search]').dispatchEvent(new Event('input'))")
        self.page.wait("return !document.querySelector('.fault').textContent", "the fault is gone")
        # From an address as well.
        self.live("#/jobs?q=state+%3D+ASLEEP", "expected a state such as QUEUED")
        self.page.wait_text("No job fits the filter")
        self.assert_no_complaints("status of 400")

    def test_gives_away_figures_and_commands(self):
        self.live(f"#/jobs/{self.done}", "first")
        self.page.wait_text("train.jsonl", ".facts")
        self.page.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.page.dir)
        self.page.wait("return !document.querySelector('button[aria-label=\"Download all figures as CSV\"]').disabled", "there are figures")
        self.page.click("button[aria-label='Download all figures as CSV']")
        path = os.path.join(self.page.dir, f"{self.done}.csv")
        e2e.wait_until(lambda: os.path.exists(path), "the file is there")
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["train_loss"]]
        metrics = [row for row in self.service.metrics(self.done) if int(row.get("step", 0)) > 0]
        self.assertEqual([float(row["train_loss"]) for row in rows], [row["train_loss"] for row in metrics])
        # The commands that the page gives are those that work.
        commands = self.page.run("return [...document.querySelectorAll('.commands code')].map((code) => code.textContent)")
        self.assertEqual(len(commands), 2)
        for command in commands:
            words = shlex.split(command.replace("my-adapter", os.path.join(self.service.dir, "my-adapter")))
            self.assertEqual(words[0], "tundra")
            self.service.ok(*words[1:])
        self.assertTrue(os.path.exists(os.path.join(self.service.dir, "my-adapter/adapter_model.safetensors")))
        self.page.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.page.click(".commands button")
        self.page.wait_text("Copied", ".commands")
        self.assertEqual(self.page.command("POST", "/execute/async", {
            "script": "navigator.clipboard.readText().then(arguments[arguments.length - 1])", "args": []}), commands[0])
        self.assert_no_complaints()

    def test_data_sets_are_listed_and_deleted(self):
        path = os.path.join(self.service.dir, "spare.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"text": "A row that nobody trains on."}\n')
        self.service.ok("validate", path, "--base", "tiny-tales")
        self.live("#/data", "spare.jsonl")
        self.page.wait_text("train.jsonl")
        self.shot("data")
        self.page.click("[aria-label='Delete spare.jsonl']")
        self.page.wait_text("Delete spare.jsonl?", "dialog")
        self.assertEqual(self.broken_rules(), [])
        self.page.click("dialog .yes")
        self.page.wait("return !document.querySelector('main').innerText.includes('spare.jsonl')", "it is gone")
        self.assertEqual(self.page.run("return document.activeElement.id"), "main", "the focus stays in the page")
        # One that is used is kept, and the service says why.
        job = self.submit("holds-data", devices=5)
        self.page.click("[aria-label='Delete train.jsonl']")
        self.page.wait_text("Delete train.jsonl?", "dialog")
        self.page.click("dialog .yes")
        self.page.wait_text(job, "dialog .error")
        self.page.press("Escape")
        self.service.ok("cancel", job)
        self.assert_no_complaints("status of 400", "status of 412")

    def test_downloads_an_adapter_whole(self):
        self.live(f"#/jobs/{self.done}", "Final adapter")
        self.page.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.page.dir)
        self.page.click("button[aria-label='Download adapter_model.safetensors of step 12']")
        path = os.path.join(self.page.dir, "adapter_model.safetensors")
        e2e.wait_until(lambda: os.path.exists(path), "the file is there")
        with open(path, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read()).hexdigest(), e2e.adapter_sha256(self.service.get(self.done)))
        self.assert_no_complaints()

    def test_compares_jobs_in_one_chart(self):
        self.live("", "second")
        for name in ("first", "second"):
            self.page.run("[...document.querySelectorAll('tbody input')].find((box) => box.getAttribute('aria-label').includes(arguments[0])).click()", name)
        self.page.wait_text("Compare 2 jobs", ".picked")
        self.page.click(".picked button")
        self.page.wait("return document.querySelectorAll('.chart').length === 5 && document.querySelectorAll('.chart path.line').length === 10",
                       "each chart has a line for each job")
        for job in (self.done, self.other):
            last = self.service.metrics(job)[-1]
            self.assertIn(f"{last['train_loss']:.4g} at step 12", self.lines_of("Training loss"))
        self.page.wait_text("training.learning_rate")
        self.shot("compare")
        self.page.click(".legend button")
        self.page.wait("return document.querySelectorAll('.chart path.line').length === 5", "one job is hidden")
        self.go("#/compare")
        self.page.wait_text("Nothing to compare")
        self.assert_no_complaints()

    def test_shows_the_fleet(self):
        self.live("#/fleet", "worker")
        self.page.wait_text("tiny-tales")
        text = self.page.text("main")
        for wanted in ("1 of 1", "Connected", "LlamaForCausalLM", "ready", "epoch"):
            self.assertIn(wanted, text)
        group = self.call("FleetService/ListGroups", {})["groups"][0]
        self.assertGreater(int(group["ranks"][0]["residentBytes"]), 0)
        self.shot("fleet")
        self.assert_no_complaints()

    def test_no_rule_of_accessibility_is_broken(self):
        routes = ["#/jobs", "#/queue", "#/data", "#/fleet", f"#/jobs/{self.done}", "#/jobs/none",
                  f"#/compare?jobs={self.done},{self.other}", "#/compare"]
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")):
            self.page.resize(width)
            self.page.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            for route in routes:
                self.page.open("about:blank")
                self.go(route)
                self.page.wait("return document.querySelector('#link')?.dataset.link === 'live'", f"{route} is live")
                self.page.wait("return !document.querySelector('.skeleton')", f"{route} has loaded")
                self.assertEqual(self.broken_rules(), [], f"{route} at {width}, {scheme}")
                self.shot(f"{route.strip('#/').split('?')[0].replace('/', '-')}-{width}-{scheme}")
        self.assert_no_complaints("status of 404")

    def test_the_rules_see_what_breaks_them(self):
        self.live("", "first")
        self.page.run("""const main = document.querySelector('main');
            const add = (tag, attributes = {}, text = '') => {
              const node = document.createElement(tag);
              for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
              node.append(text);
              main.append(node);
              return node;
            };
            add('input'); add('h5', {}, 'deep'); add('p', {id: 'main'}, 'twice'); add('button');
            const pale = add('p', {}, 'pale'); pale.style.color = '#999'; pale.style.background = '#fff';
            add('div', {tabindex: '5'}, 'x'); add('p', {}, 'wide').style.width = '3000px';""")
        faults = "\n".join(self.broken_rules())
        for wanted in ("no name: <input", "skips a level", "main is there twice", "contrast 2.8", "tabindex above 0", "wider than"):
            self.assertIn(wanted, faults)

    def test_everything_can_be_done_by_keys(self):
        self.live("", "second")
        self.page.press("Tab")
        self.assertEqual(self.page.run("return document.activeElement.id"), "skip")
        self.page.press("Enter")
        self.assertEqual(self.page.run("return document.activeElement.id"), "main")
        # Through the whole page and out of it: nothing holds the focus, and it is always seen.
        seen = set()
        for _ in range(60):
            self.page.press("Tab")
            where = self.page.run("""const at = document.activeElement;
                if (at === document.body) return 'out';
                const style = getComputedStyle(at);
                return [at.tagName, at.textContent.trim().slice(0, 20), at.getAttribute('aria-label') ?? '',
                        style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2].join('|')""")
            if where == "out":
                break
            self.assertTrue(where.endswith("true"), f"the focus is not seen on {where}")
            seen.add(where)
        self.assertEqual(where, "out", "the walk ends")
        self.assertGreater(len(seen), 10)
        # Two jobs are selected and compared.
        for name in ("first", "second"):
            self.page.run("[...document.querySelectorAll('tbody input')].find((box) => box.getAttribute('aria-label').includes(arguments[0])).focus()", name)
            if not self.page.run("return document.activeElement.checked"):
                self.page.press("Space")
        self.page.run("document.querySelector('.picked button').focus()")
        self.page.press("Enter")
        self.page.wait_text("Comparison")
        self.assertEqual(self.page.run("return document.activeElement.id"), "main", "the focus goes to the new view")
        self.page.wait("return document.title.startsWith('Comparison')", "the title says where one is")
        self.assert_no_complaints()

    def test_a_token_is_asked_for_and_kept_in_this_tab_alone(self):
        self.page.open(f"http://localhost:{self.service.web}/#/jobs")
        self.page.run("sessionStorage.clear(); location.reload()")
        self.page.wait_text("Sign in")
        self.assertEqual(self.broken_rules(), [])
        self.shot("sign-in")
        self.page.type("#token", "wrong")
        self.page.press("Enter")
        self.page.wait_text("does not know this token")
        self.assertEqual(self.broken_rules(), [])
        self.shot("sign-in-wrong")
        self.page.run("document.querySelector('#token').value = ''")
        self.page.type("#token", self.token)
        self.page.press("Enter")
        self.page.wait_text("second")
        self.assertEqual(self.page.run("return [document.cookie, localStorage.length, sessionStorage.length]"), ["", 0, 1])
        self.assertNotIn(self.token, self.page.run("return location.href + document.documentElement.outerHTML"))
        self.page.run("location.reload()")
        self.page.wait_text("second")
        # A token that is not good any more.
        self.page.run("sessionStorage.setItem('tundra.token', 'old'); location.reload()")
        self.page.wait_text("not valid, or not any more")
        self.assertEqual(self.page.run("return sessionStorage.length"), 0)
        self.assert_no_complaints("status of 401", "Failed to load resource")

    def test_each_role_sees_what_it_may(self):
        tenant = self.call("AccessService/GetCaller", {})["tenant"]
        self.call("AccessService/CreateTenant", {
            "tenantId": "acme", "tenant": {"quota": {"devices": 4, "datasetBytes": "1000000"}}})
        looks, other = (self.call("AccessService/CreateToken", {
            "token": {"displayName": role, "tenant": of, "role": role}})["secret"]
            for role, of in (("ROLE_VIEWER", tenant), ("ROLE_USER", "tenants/acme")))
        self.sign_in(looks, f"#/jobs/{self.done}")
        self.page.wait_text("first", "h1")
        self.page.wait_text(f"{tenant.split('/')[1]} · viewer", "#caller")
        self.page.wait("return document.querySelectorAll('.actions button').length === 0", "a viewer has no actions")
        # Another tenant sees nothing of it, and what itself may use.
        self.sign_in(other, f"#/jobs/{self.done}")
        self.page.wait_text("No such job")
        self.page.wait_text("acme · user", "#caller")
        self.page.click("#nav a[href='#/jobs']")
        self.page.wait_text("No jobs yet")
        self.page.click("#nav-tenants a")
        self.page.wait_text("0 of 4")
        text = self.page.text("tbody")
        for wanted in ("acme", "0, no quota", "0 B of 1 MB"):
            self.assertIn(wanted, text)
        self.assertEqual(self.page.run(RULES), [])
        self.shot("tenants")
        self.page.click("#sign-out")
        self.page.wait_text("Sign in", "h1")
        # What the service refuses is said where it was asked for.
        job = self.submit("gone", devices=5)
        self.service.ok("cancel", job)
        self.live(f"#/jobs/{job}", "Cancelled")
        self.page.click("[data-action=DeleteJob]")
        self.page.wait_text("Delete gone?", "dialog")
        self.call("JobService/DeleteJob", {"name": f"jobs/{job}"})
        self.page.click("dialog .yes")
        self.page.wait("return document.querySelector('dialog .error').textContent.includes(arguments[0])", "the error is shown", job)
        self.assertEqual(self.page.run(RULES), [])
        self.shot("dialog-refused")
        self.page.click("dialog .no")
        self.assert_no_complaints("status of 401", "status of 404")

    def test_the_service_goes_and_comes_back(self):
        self.live(f"#/jobs/{self.done}", "first")
        self.service.coordinator.kill()
        self.page.wait_text("The service does not answer", timeout=60)
        self.assertEqual(self.page.run("return document.querySelector('#link').dataset.link"), "lost")
        self.assertIn("first", self.page.text("main"), "what was seen stays")
        self.assertEqual(self.broken_rules(), [])
        self.shot("service-lost")
        self.service.start_coordinator("--heartbeat-seconds", "0.2", "--lease-seconds", "3")
        self.page.wait("return document.querySelector('#link').dataset.link === 'live' && document.querySelector('#trouble').hidden",
                       "it is live again by itself", timeout=60)
        e2e.wait_until(lambda: self.service.worker_count() >= 1, "the worker is back")
        self.assert_no_complaints("Failed to load resource")


class ManyJobs(InBrowser):
    JOBS = {"model": "2e-3"}

    def test_a_thousand_jobs_are_quick_and_texts_are_only_texts(self):
        spec = self.call("JobService/GetJob", {"name": "jobs/" + self.jobs["model"]})["spec"]
        spec["resources"] = {"deviceCount": 64}
        hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
        for i in range(1000):
            name = {999: hostile, 998: "x" * 128}.get(i, f"load {i:03}")
            job = {"displayName": name, "spec": spec, "labels": {"sweep": "<b>x</b>" if i != 998 else "y" * 256}}
            self.call("JobService/CreateJob", {"job": job})
        self.live("#/jobs", hostile)
        paints = []
        for _ in range(5):
            self.page.open("about:blank")
            self.go("#/jobs")
            self.page.wait("return document.querySelectorAll('tbody tr').length === 50", "a page of jobs")
            paints.append(self.page.run("""
                return [performance.getEntriesByName('first-contentful-paint')[0].startTime,
                        performance.getEntriesByType('mark').find((mark) => mark.name === 'first-rows').startTime]"""))
        paints.sort()
        print(f"with 1,000 jobs: first paint {paints[2][0]:.0f} ms, rows {paints[2][1]:.0f} ms (median of 5)")
        self.shot("jobs-1000")
        # Long words break instead of making the page wider.
        self.page.resize(360)
        for route in ("#/jobs", "#/queue"):
            self.live(route, "load 9" if route == "#/jobs" else "load 0")
            self.assertEqual(self.page.run(RULES), [], route)
        self.live("#/jobs", "x" * 128)
        self.page.run("[...document.querySelectorAll('tbody a')].find((link) => link.textContent.startsWith('xxx')).click()")
        self.page.wait_text("x" * 128, "h1")
        self.assertEqual(self.page.run(RULES), [])
        self.shot("long-name-360")
        self.page.resize(1280)
        self.live("#/jobs", hostile)
        self.assertEqual(self.page.run("return document.querySelectorAll('main img, main script, main b b').length"), 0)
        self.page.run("document.querySelector('.pager button:last-child').click()")
        self.page.wait_text("51–100")
        self.page.run("document.querySelector('.pager button').click()")
        self.page.wait_text("1–50", ".pager")
        self.the_queue_is_asked_for_by_the_page()
        self.assert_no_complaints()

    def the_queue_is_asked_for_by_the_page(self):
        self.live("#/queue", "The last of them is No. 1,000.")
        self.shot("queue-1000")
        positions = "return [...document.querySelectorAll('tbody tr')].map((row) => Number(row.firstChild.textContent))"
        self.assertEqual(self.page.run(positions), list(range(1, 51)), "the first in the queue come first")
        self.spy()
        self.page.click(".pager button:last-child")
        self.page.wait_text("51–100", ".pager")
        self.assertEqual(self.page.run(positions), list(range(51, 101)))
        self.page.wait("return window.calls.length >= 4 && window.calls.every((call) => call[2] !== null)", "it has asked again")
        # Two questions each time, one page and one job, and nothing for what has not changed.
        calls = self.page.run("return window.calls")
        self.assertEqual({request["pageSize"] for _, request, _ in calls}, {50, 1})
        self.assertLess(max(len(text) for _, _, text in calls), 200_000)
        self.page.click(".pager button")
        self.page.wait_text("1–50", ".pager")


if __name__ == "__main__":
    unittest.main(verbosity=2)
