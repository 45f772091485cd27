"""Chromium without a window, driven over WebDriver's plain HTTP. Needs Debian's chromium and chromium-driver.

https://www.w3.org/TR/webdriver2/
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from service import wait_until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Space": " ", "Left": "\ue012", "Right": "\ue014", "Backspace": "\ue003",
        "Shift": "\ue008"}


def is_installed():
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class WebDriverError(Exception):
    pass


class Browser:
    """One window. `flags` are more of Chromium's."""

    def __init__(self, width=1280, height=900, flags=()):
        self.dir = tempfile.mkdtemp(prefix="tundra-chromium-")
        self.url, self.session = None, None
        # The port that it finds free may be taken by the time it binds it.
        for _ in range(5):
            self.url = self.url or self.start_driver()
        assert self.url, "chromedriver does not start"
        options = {"binary": shutil.which("chromium"),
                   "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                            "--no-first-run", "--disable-extensions", "--disable-background-networking",
                            f"--user-data-dir={self.dir}/profile", f"--window-size={width},{height}", *flags],
                   "prefs": {"download.default_directory": self.dir, "download.prompt_for_download": False}}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            made = self.command("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}}, timeout=120)
        except BaseException:
            self.close()
            raise
        self.session = made["sessionId"]

    def start_driver(self):
        """The address of a started chromedriver; None when it ended."""
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       text=True)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                return f"http://127.0.0.1:{line.strip().rstrip('.').split()[-1]}"
        self.driver.stdout.close()
        self.driver.wait()
        return None

    def close(self):
        try:
            if self.session:
                self.command("DELETE", "")
        except (WebDriverError, OSError):
            pass
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def command(self, method, path, body=None, timeout=60):
        base = self.url if self.session is None else f"{self.url}/session/{self.session}"
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(base + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise WebDriverError(json.load(error)["value"]["message"]) from None

    def open(self, url):
        self.command("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value that the JavaScript returns."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        return self.command("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def wait(self, script, what, *arguments, timeout=30):
        """Waits until the script returns something true; that."""
        def ask():
            try:
                return self.run(script, *arguments)
            except WebDriverError as error:
                # The page may have been replaced beneath the script.
                if "stale" in str(error) or "context" in str(error):
                    return None
                raise
        return wait_until(ask, what, timeout)

    def text(self, selector="body"):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait_text(self, text, selector="body", timeout=30):
        self.wait("return (document.querySelector(arguments[0])?.innerText ?? '').includes(arguments[1])",
                  f"{selector} shows {text!r}", selector, text, timeout=timeout)

    def element(self, selector):
        return self.command("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.command("POST", f"/element/{self.element(selector)}/click")

    def type(self, selector, text):
        self.command("POST", f"/element/{self.element(selector)}/value", {"text": text})

    def retype(self, selector, text):
        """The text instead of what is there."""
        self.run("const field = document.querySelector(arguments[0]); field.value = ''; field.focus()", selector)
        if text:
            self.type(selector, text)

    def press(self, *names):
        """Keys to where the focus is; Shift holds for those behind it."""
        keys = [KEYS.get(name, name) for name in names]
        actions = [{"type": "keyDown", "value": key} for key in keys] + [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def drag(self, selector, start, end):
        """Drags with the mouse between two (x, y) in the element, each 0 to 1."""
        box = self.run("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                       "return [b.left, b.top, b.width, b.height]", selector)
        at = [{"type": "pointerMove", "duration": 80, "x": int(box[0] + box[2] * x), "y": int(box[1] + box[3] * y)}
              for x, y in (start, end)]
        self.command("POST", "/actions", {"actions": [{
            "type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"},
            "actions": [at[0], {"type": "pointerDown", "button": 0}, at[1], {"type": "pointerUp", "button": 0}]}]})

    def resize(self, width, height=900):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features):
        """Media features: prefer(prefers_color_scheme="dark")."""
        self.devtools("Emulation.setEmulatedMedia", features=[
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def screenshot(self, path, full=False):
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def complaints(self):
        """Console messages of level warning and above since the last call: faults of scripts, violations of the CSP."""
        entries = self.command("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]
