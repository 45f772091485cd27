#!/usr/bin/env python3
"""What an admin does in the web page, and what nobody else can: tenants, tokens, workers, the audit log. And the page over
TLS, as it is reached from other machines.
"""

import base64
import hashlib
import os
import ssl
import subprocess
import unittest
import urllib.error
import urllib.request

import browser
import service as e2e
from web_page import InBrowser


class Administration(InBrowser):
    """Of one service, as the admin whose token came with it."""

    def ask(self, name):
        """Presses a button that opens a dialog."""
        self.page.wait("return document.querySelector(`[data-act='${arguments[0]}'], [aria-label='${arguments[0]}']`)", f"{name} is offered", name)
        self.page.run("document.querySelector(`[data-act='${arguments[0]}'], [aria-label='${arguments[0]}']`).focus()", name)
        self.page.press("Enter")
        self.page.wait("return document.querySelector('dialog[open]')", f"{name} opens a dialog")

    def fill(self, **values):
        for name, value in values.items():
            if self.page.run("return document.querySelector(`dialog [name=${arguments[0]}]`).tagName", name) == "SELECT":
                self.page.run("const list = document.querySelector(`dialog [name=${arguments[0]}]`);"
                              "list.value = arguments[1]; list.dispatchEvent(new Event('change'))", name, value)
            else:
                self.page.retype(f"dialog [name={name}]", value)

    def answer(self):
        """Says yes; the dialog is gone."""
        self.page.click("dialog .yes")
        self.page.wait("return !document.querySelector('dialog')", "the dialog is closed")

    def refused(self, text):
        """Says yes, and the service (or the page) refuses with these words."""
        self.page.click("dialog .yes")
        self.page.wait_text(text, "dialog .error")
        self.assertEqual(self.broken_rules(), [])

    def row(self, text):
        return self.page.wait("return [...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes(arguments[0]))?.innerText",
                              f"a row has {text!r}", text)

    def gone(self, text):
        self.page.wait("return ![...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes(arguments[0]))",
                       f"no row has {text!r}", text)

    def focused(self):
        return self.page.run("const at = document.activeElement; return at.dataset.act ?? at.name ?? at.id")

    def test_tenants_are_made_changed_and_deleted(self):
        self.live("#/tenants", "default")
        self.ask("New tenant")
        self.assertEqual(self.focused(), "id")
        self.assertEqual(self.broken_rules(), [])
        self.shot("dialog-tenant")
        # What the service refuses is said in its words, beside the field.
        self.fill(id="Acme!", devices="2", datasetBytes="1.5 GB")
        self.refused("must be 1 to 40 of a-z, 0-9 and -")
        self.assertEqual(self.page.run("return [...document.querySelectorAll('dialog [aria-invalid]')].map((field) => field.name)"), ["id"])
        self.assertEqual(self.focused(), "id")
        self.shot("dialog-tenant-refused")
        self.fill(id="acme", devices="two")
        self.refused("Devices must be a whole number")
        self.assertEqual(self.focused(), "devices")
        self.fill(devices="2", datasetBytes="plenty")
        self.refused("such as 500 MB")
        self.fill(datasetBytes="1.5 GB")
        # By keys alone from here.
        self.page.press("Enter")
        self.page.wait("return !document.querySelector('dialog')", "the form is sent")
        self.assertEqual(self.focused(), "New tenant", "the focus is back")
        row = self.row("acme")
        for wanted in ("0 of 2", "0, no quota", "0 B of 1.5 GB"):
            self.assertIn(wanted, row)
        self.assertEqual(self.call("AccessService/GetTenant", {"name": "tenants/acme"})["quota"], {"devices": 2, "datasetBytes": "1500000000"})
        # The quota as it is, then another one; an empty field takes a bound away.
        self.ask("Change the quota of acme")
        self.assertEqual(self.page.run("return [...document.querySelectorAll('dialog input')].map((field) => field.value)"), ["2", "", "1500 MB"])
        self.fill(devices="", activeJobs="0")
        self.answer()
        self.page.wait("return [...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('0 of 0'))", "it is shown")
        self.assertEqual(self.call("AccessService/GetTenant", {"name": "tenants/acme"})["quota"], {"activeJobs": 0, "datasetBytes": "1500000000"})
        # One that has something is not deleted, and the question says so before.
        token = self.call("AccessService/CreateToken", {"token": {"displayName": "of acme", "tenant": "tenants/acme", "role": "ROLE_USER"}})
        self.ask("Delete the tenant acme")
        text = self.page.text("dialog")
        for wanted in ("Its name and its quota are lost", "It has 1 token: the service refuses"):
            self.assertIn(wanted, text)
        self.refused("has 0 jobs, 0 data sets and 1 tokens; delete them first")
        self.shot("dialog-tenant-kept")
        self.page.press("Escape")
        self.page.wait("return !document.querySelector('dialog')", "the question is gone")
        self.assertEqual(self.page.run("return document.activeElement.getAttribute('aria-label')"), "Delete the tenant acme")
        self.call("AccessService/DeleteToken", {"name": token["name"]})
        self.ask("Delete the tenant acme")
        self.assertIn("This one has none", self.page.text("dialog"))
        self.answer()
        self.gone("acme")
        self.assertEqual(self.focused(), "main", "the focus stays in the page")
        self.assertEqual(self.refusal("AccessService/GetTenant", {"name": "tenants/acme"})[0], 404)
        self.assertEqual(self.page.run("return document.querySelector(\"[aria-label='Delete the tenant default']\")"), None)
        self.assert_no_complaints("status of 400")

    def test_a_token_is_shown_once_works_and_is_revoked(self):
        self.call("AccessService/CreateTenant", {"tenantId": "search"})
        self.live("#/tenants", "search")
        self.page.run("[...document.querySelectorAll('a.button')].find((link) => link.textContent === 'Jobs of search').click()")
        self.page.wait_text("No job fits the filter")
        self.live("#/tenants", "search")
        self.page.click("a[href='#/tokens?tenant=search']")
        self.page.wait_text("Nobody is let in for search")
        self.ask("New token")
        self.assertEqual(self.page.run("return document.querySelector('dialog [name=tenant]').value"), "search")
        self.assertIn("search", self.page.run("return [...document.querySelectorAll('dialog datalist option')].map((one) => one.value)"))
        self.refused("must have 1 to 128 characters")
        self.fill(displayName="nightly", tenant="nowhere")
        self.refused("nowhere")
        self.fill(tenant="search", role="ROLE_VIEWER", lifetime="604800s")
        self.shot("dialog-token")
        self.page.click("dialog .yes")
        self.page.wait_text("not shown again", "dialog")
        secret = self.page.run("return document.querySelector('dialog .secret').value")
        self.assertRegex(secret, r"^tundra_[\w-]{43}$")
        self.assertEqual(self.broken_rules(), [])
        self.shot("dialog-secret")
        self.page.press("Escape")
        self.assertTrue(self.page.run("return Boolean(document.querySelector('dialog .secret'))"), "a stray key does not lose it")
        self.page.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.page.click("dialog .copy")
        self.page.wait_text("Copied", "dialog")
        self.assertEqual(self.page.command("POST", "/execute/async", {
            "script": "navigator.clipboard.readText().then(arguments[arguments.length - 1])", "args": []}), secret)
        self.page.click("dialog .done")
        self.page.wait("return !document.querySelector('dialog')", "it is closed")
        self.assertNotIn(secret, self.page.run("return document.documentElement.outerHTML + [...document.querySelectorAll('input')].map((one) => one.value)"))
        row = self.row("nightly")
        self.assertRegex(row, r"search\s+viewer\s+in (7 d|6 d 23 h)\s")
        self.shot("tokens")
        # It is what it says.
        caller = self.call("AccessService/GetCaller", {}, secret)
        self.assertEqual((caller["tenant"], caller["role"], caller["displayName"]), ("tenants/search", "ROLE_VIEWER", "nightly"))
        self.ask("Revoke nightly")
        self.assertIn("refused from now on", self.page.text("dialog"))
        self.answer()
        self.gone("nightly")
        self.assertEqual(self.refusal("AccessService/GetCaller", {}, secret)[0], 401)
        self.assert_no_complaints("status of 400", "status of 404")

    def test_copies_a_secret_where_there_is_no_clipboard(self):
        """As on a plain address beyond loopback: the page falls back to what browsers had before."""
        self.live("#/tokens", "first admin")
        self.page.run("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
        self.ask("New token")
        self.fill(displayName="old browser")
        self.page.click("dialog .yes")
        self.page.wait_text("not shown again", "dialog")
        self.page.click("dialog .copy")
        self.page.wait_text("Copied", "dialog .copy")
        # Where not even that is allowed it says what to do.
        self.page.run("document.execCommand = () => false")
        self.page.click("dialog .copy")
        self.page.wait_text("press Ctrl+C", "dialog .error")
        self.page.click("dialog .done")
        self.ask("Revoke old browser")
        self.answer()
        self.assert_no_complaints()

    def test_the_last_admin_stays_and_ones_own_token_signs_out(self):
        self.live("#/tokens", "first admin")
        self.ask("Revoke first admin")
        self.assertIn("you will be signed out", self.page.text("dialog"))
        self.refused("make another one first")
        self.page.press("Escape")
        mine = self.make_token("mine", "default", "ROLE_ADMIN")
        self.sign_in(mine, "#/tokens")
        self.row("mine")
        self.ask("Revoke mine")
        self.page.click("dialog .yes")
        self.page.wait_text("not valid, or not any more")
        self.assertFalse(self.page.run("return Boolean(document.querySelector('dialog'))"))
        self.assert_no_complaints("status of 400", "status of 401")

    def test_a_worker_is_drained_and_works_again(self):
        self.live("#/fleet", "worker")
        self.ask("Drain")
        self.assertIn("its jobs are saved and go on elsewhere", self.page.text("dialog"))
        self.assertEqual(self.broken_rules(), [])
        self.answer()
        self.page.wait_text("drained by an admin")
        self.page.wait_text("Draining")
        self.shot("fleet-drained")
        self.assertTrue(self.call("FleetService/ListWorkers", {})["workers"][0]["drained"])
        self.ask("Undrain")
        self.answer()
        self.page.wait_text("Connected", "tbody")
        self.page.wait("return !document.querySelector('tbody').innerText.includes('drained')", "it works again")
        self.assertNotIn("drained", self.call("FleetService/ListWorkers", {})["workers"][0])
        self.assert_no_complaints()

    def test_the_audit_log_is_read_page_by_page(self):
        viewer = self.make_token("curious", "default", "ROLE_VIEWER")
        self.assertEqual(self.refusal("AccessService/CreateTenant", {"tenantId": "mine"}, viewer)[0], 403)
        for _ in range(60):
            self.call("AccessService/UpdateTenant", {"tenant": {"name": "tenants/default", "quota": {}}})
        self.live("#/audit", "UpdateTenant")
        self.page.wait_text("1–50", ".pager")
        self.shot("audit")
        self.page.click(".pager button:last-child")
        self.page.wait_text("51–", ".pager")
        row = self.row("PERMISSION_DENIED")
        for wanted in ("curious", "default · viewer", "CreateTenant", "ipv4:127.0.0.1"):
            self.assertIn(wanted, row)
        self.page.click(".pager button")
        self.page.wait_text("1–50", ".pager")
        # What is new comes by itself.
        self.call("AccessService/CreateTenant", {"tenantId": "fresh"})
        self.row("tenants/fresh")
        self.assert_no_complaints()

    def test_nobody_else_sees_the_controls_and_the_service_refuses_anyhow(self):
        self.call("AccessService/CreateTenant", {"tenantId": "guests"})
        user = self.make_token("guest", "guests", "ROLE_USER")
        viewer = self.make_token("looker", "default", "ROLE_VIEWER")
        seen = """return [...document.querySelectorAll('#nav a, main button, main a.button')].filter((one) => one.getClientRects().length)
            .map((one) => one.getAttribute('href') ?? one.dataset.act ?? one.textContent)"""
        for token, role, route, text in ((user, "user", "#/tenants", "guests"), (viewer, "viewer", "#/fleet", "Workers")):
            self.sign_in(token, route)
            self.page.wait_text(role, "#caller")
            self.page.wait_text(text, "main")
            self.page.wait("return !document.querySelector('.skeleton')", "it has loaded")
            self.assertEqual(self.page.run(seen), ["#/jobs", "#/queue", "#/data", "#/fleet", "#/tenants"], role)
            for address, words in (("#/tokens", "Tokens are shown to admins"), ("#/audit", "The audit log is shown to admins")):
                self.page.run("location.hash = arguments[0]", address)
                self.page.wait_text(words)
                self.assertEqual(self.broken_rules(), [], address)
                self.assertFalse(self.page.run("return [...document.querySelectorAll('main [data-needs=admin]')].some((one) => one.getClientRects().length)"))
            for method in ("CreateTenant", "UpdateTenant", "DeleteTenant", "CreateToken", "DeleteToken", "ListTokens", "ListAuditEntries"):
                self.assertEqual(self.refusal(f"AccessService/{method}", {}, token)[0], 403, method)
            self.assertEqual(self.refusal("FleetService/DrainWorker", {}, token)[0], 403)
        self.assert_no_complaints("status of 401", "status of 403")

    def test_no_rule_of_accessibility_is_broken(self):
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")):
            self.page.resize(width)
            self.page.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            for route, opens in (("#/tenants", "New tenant"), ("#/tokens", "New token"), ("#/audit", None), ("#/fleet", "Drain")):
                self.page.open("about:blank")
                self.go(route)
                self.page.wait("return document.querySelector('#link')?.dataset.link === 'live'", f"{route} is live")
                self.page.wait("return !document.querySelector('.skeleton')", f"{route} has loaded")
                self.assertEqual(self.broken_rules(), [], f"{route} at {width}, {scheme}")
                self.shot(f"{route[2:]}-{width}-{scheme}")
                if not opens:
                    continue
                self.ask(opens)
                self.assertEqual(self.broken_rules(), [], f"{opens} at {width}, {scheme}")
                self.shot(f"{route[2:]}-dialog-{width}-{scheme}")
        self.assert_no_complaints()


class SecureService(e2e.Service):
    """With a certificate of an authority that only this test knows."""

    def __init__(self):
        super().__init__()
        made = subprocess.run([os.path.join(e2e.SOURCE, "tools/make-certificates"), os.path.join(self.dir, "certs"),
                               "coordinator", "localhost", "127.0.0.1"], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.folder = os.path.join(self.dir, "certs/coordinator")
        self.ca = os.path.join(self.folder, "ca.crt")

    def run(self, *arguments, timeout=300):
        return super().run(*arguments, "--tls-ca", self.ca, timeout=timeout)

    def key_hash(self):
        """Base64 of the SHA-256 of the certificate's public key, as Chromium names it."""
        pem = subprocess.run(["openssl", "x509", "-in", os.path.join(self.folder, "tls.crt"), "-noout", "-pubkey"],
                             capture_output=True, text=True, check=True).stdout
        der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
        return base64.b64encode(hashlib.sha256(der).digest()).decode()


class OverTls(InBrowser):
    """As it is reached from other machines."""

    JOBS = {"secure": "2e-3"}
    ORIGIN = "https://localhost"

    @classmethod
    def start(cls):
        cls.service = SecureService()
        cls.CONTEXT = ssl.create_default_context(cafile=cls.service.ca)
        cls.service.start_coordinator("--tls-cert", os.path.join(cls.service.folder, "tls.crt"),
                                      "--tls-key", os.path.join(cls.service.folder, "tls.key"))
        cls.service.start_worker(devices=2, threads=1, flags=("--tls-ca", cls.service.ca))
        # The one key is trusted for what its authority would be: nothing else that is wrong is let pass.
        cls.browser = browser.Browser(flags=(f"--ignore-certificate-errors-spki-list={cls.service.key_hash()}",))

    def test_a_job_is_seen_after_signing_in(self):
        self.sign_in(self.token, "#/jobs")
        self.page.wait_text("secure")
        self.assertEqual(self.page.run("return [location.protocol, isSecureContext]"), ["https:", True])
        self.page.run("[...document.querySelectorAll('tbody a')].find((link) => link.textContent === 'secure').click()")
        self.page.wait_text("Succeeded after 12 steps")
        self.page.wait("return document.querySelectorAll('.chart path.line').length >= 5", "curves are drawn")
        # Files and the clipboard work here too.
        self.page.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.page.dir)
        self.page.click("button[aria-label='Download adapter_model.safetensors of step 12']")
        path = os.path.join(self.page.dir, "adapter_model.safetensors")
        e2e.wait_until(lambda: os.path.exists(path), "the file is there")
        with open(path, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read()).hexdigest(), e2e.adapter_sha256(self.service.get(self.jobs["secure"])))
        self.shot("over-tls")
        self.assert_no_complaints("status of 401")

    def test_a_browser_that_does_not_know_the_authority_is_warned(self):
        stranger = browser.Browser()
        try:
            stranger.open(f"{self.ORIGIN}:{self.service.web}/")
            stranger.wait_text("ERR_CERT_AUTHORITY_INVALID")
            self.assertNotIn("Sign in", stranger.text())
        finally:
            stranger.close()

    def test_the_port_speaks_nothing_but_tls_and_binds_no_other_port(self):
        with self.get("/") as answer:
            # It would hold for all ports of the host, and --http, Prometheus and others speak plain HTTP there.
            self.assertIsNone(answer.headers["Strict-Transport-Security"])
            self.assertIn("default-src 'none'", answer.headers["Content-Security-Policy"])
        with self.assertRaises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://localhost:{self.service.web}/", timeout=30)


if __name__ == "__main__":
    unittest.main(verbosity=2)
