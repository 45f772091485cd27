"""What the tests of the web page share: a service, a browser, and a look at what the page shows.

Needs Debian's chromium and chromium-driver: a test that imports this where they are not installed is skipped.
TUNDRA_SCREENSHOTS=DIR keeps pictures of all states.
"""

import json
import os
import re
import sys
import unittest
import urllib.error
import urllib.request

import browser
import service as e2e

if not browser.is_installed():
    print("skipped: chromium and chromedriver are not installed; apt-get install chromium chromium-driver")
    sys.exit(77)

with open(os.path.join(e2e.SOURCE, "tests/e2e/page_rules.js"), encoding="utf-8") as rules_file:
    RULES = rules_file.read()
SHOTS = os.environ.get("TUNDRA_SCREENSHOTS")
SAMPLES = "eval: {every_steps: 3, samples: [\"Where is my parcel?\"]}\nlabels: {team: search}\n"


class InBrowser(unittest.TestCase):
    """A service and a browser of its own for each class."""

    JOBS = {}
    ORIGIN = "http://localhost"
    # Of the requests that the test makes itself, for https.
    CONTEXT = None

    @classmethod
    def start(cls):
        """Starts cls.service and cls.browser."""
        cls.service = e2e.Service()
        cls.service.start_coordinator("--heartbeat-seconds", "0.2", "--lease-seconds", "3")
        cls.service.start_worker(devices=2, threads=1)
        cls.browser = browser.Browser()

    @classmethod
    def setUpClass(cls):
        cls.service, cls.browser = None, None
        try:
            cls.start()
            cls.jobs = {name: cls.submit(name, rate=rate, wait=True) for name, rate in cls.JOBS.items()}
            with open(cls.service.tokens["admin"], encoding="utf-8") as file:
                cls.token = file.read().strip()
            with cls.get("/") as answer:
                cls.asset = re.search(r'href="(/assets/[^"]*\.css)"', answer.read().decode()).group(1)
        except BaseException:
            if cls.browser:
                cls.browser.close()
            if cls.service:
                cls.service.__exit__(*sys.exc_info())
            raise

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.service.__exit__(None)

    def setUp(self):
        self.page = self.browser
        self.page.resize(1280)
        self.page.prefer(prefers_color_scheme="light")
        self.page.open("about:blank")
        self.page.complaints()

    # ---- Helpers ----

    @classmethod
    def submit(cls, name, rate="2e-3", steps=12, devices=2, wait=False, every=4):
        path = e2e.write_job(cls.service.dir, devices=devices, max_steps=steps, every_steps=every, name=name, extra=SAMPLES)
        with open(path, encoding="utf-8") as file:
            text = file.read().replace("learning_rate: 2e-3", f"learning_rate: {rate}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        job = cls.service.submit(path)
        if wait:
            cls.service.succeed(job)
        return job

    @classmethod
    def get(cls, path, data=None, headers=None):
        """The response, past all that the browser does."""
        made = urllib.request.Request(f"{cls.ORIGIN}:{cls.service.web}{path}", data=data, headers=headers or {})
        return urllib.request.urlopen(made, timeout=60, context=cls.CONTEXT)

    def call(self, method, request, token=None):
        with self.get(f"/tundra.v1.{method}", json.dumps(request).encode(),
                      {"Content-Type": "application/json", "Authorization": f"Bearer {token or self.token}"}) as answer:
            return json.load(answer)

    def refusal(self, method, request, token=None):
        """(HTTP status, error) of a call that must be refused."""
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.call(method, request, token)
        with caught.exception as answer:
            return answer.code, json.load(answer)

    def make_token(self, name, tenant, role):
        return self.call("AccessService/CreateToken", {
            "token": {"displayName": name, "tenant": f"tenants/{tenant}", "role": role}})["secret"]

    def spy(self):
        """From here on the page keeps its calls in `calls`: [method, request, answer's text or null]."""
        self.page.run("""
            const real = window.fetch;
            window.calls = [];
            window.fetch = async (url, options) => {
              const call = [url.replace('/tundra.v1.', ''), JSON.parse(options.body ?? 'null'), null];
              window.calls.push(call);
              const answer = await real(url, options);
              answer.clone().text().then((text) => { call[2] = text; });
              return answer;
            };""")

    def broken_rules(self):
        """Rules of accessibility that the page breaks, once nothing moves: colours on their way are neither."""
        self.page.wait("return document.getAnimations().every((one) => one.playState !== 'running')", "nothing moves")
        return self.page.run(RULES)

    def go(self, route):
        """Opens the page, signed in: the token is put where the page keeps it, from a file of the same origin."""
        self.page.open(f"{self.ORIGIN}:{self.service.web}{self.asset}")
        self.page.run("sessionStorage.setItem('tundra.token', arguments[0])", self.token)
        self.page.open(f"{self.ORIGIN}:{self.service.web}/{route}")

    def live(self, route, text):
        self.go(route)
        self.page.wait_text(text)
        self.page.wait("return document.querySelector('#link')?.dataset.link === 'live'", "the page is live")

    def shot(self, name):
        if SHOTS:
            self.page.screenshot(os.path.join(SHOTS, name + ".png"))

    def assert_no_complaints(self, *expected):
        """No fault of a script and no breach of the policy; a refused request is logged by the browser itself."""
        rest = [line for line in self.page.complaints() if not any(word in line for word in expected)]
        self.assertEqual(rest, [])

    def lines_of(self, chart):
        """Of the chart's lines: what a screen reader is told."""
        return self.page.run("const all = [...document.querySelectorAll('.chart')];"
                             "return all.find((one) => one.querySelector('h3').textContent === arguments[0])"
                             ".querySelector('svg').getAttribute('aria-label')", chart)

    def sign_in(self, token, route):
        self.page.open(f"{self.ORIGIN}:{self.service.web}{self.asset}")
        self.page.run("sessionStorage.clear()")
        self.page.open(f"{self.ORIGIN}:{self.service.web}/{route}")
        self.page.wait_text("Sign in", "h1")
        self.page.type("#token", token)
        self.page.press("Enter")
        self.page.wait("return !document.querySelector('#token')", "one is signed in")

    def act(self, action, question):
        self.page.wait("return document.querySelector(`[data-action=${arguments[0]}]`)", f"{action} is offered", action)
        self.page.click(f"[data-action={action}]")
        self.page.wait_text(question, "dialog")
        self.page.click("dialog .yes")
        self.page.wait("return !document.querySelector('dialog')", "the question is answered")

    def module(self, name, expression):
        """The value of a JavaScript expression over `m`, a module of the page."""
        source = self.page.run("return [...document.querySelectorAll('link[rel=modulepreload]')].map((link) => link.href)"
                               ".find((url) => url.endsWith('/' + arguments[0]))", name)
        return self.page.command("POST", "/execute/async", {
            "script": f"const done = arguments[arguments.length - 1]; import(arguments[0]).then((m) => done({expression}))",
            "args": [source]})
