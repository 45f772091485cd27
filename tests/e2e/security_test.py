"""A service as it runs beyond one machine: TLS, workers with certificates, users with tokens. A job trains, nobody
gets in without credentials, and nothing listens that should not."""

import json
import os
import re
import socket
import ssl
import subprocess
import unittest
import urllib.error
import urllib.request

from service import BASES, BIN, Process, Service, write_job, wait_until

SOURCE = os.environ["TUNDRA_SOURCE_DIR"]


def local_address():
    """An address of this machine that is not loopback; None where there is none."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return probe.getsockname()[0]
    except OSError:
        return None
    finally:
        probe.close()


def listening(pid):
    """(address, port) of the sockets on which a process listens, IPv4 and IPv6."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
        if found:
            inodes.add(found.group(1))
    sockets = set()
    for family in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{family}", encoding="utf-8") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] != "0A" or fields[9] not in inodes:
                    continue
                host, port = fields[1].split(":")
                raw = bytes.fromhex(host)
                words = b"".join(raw[i:i + 4][::-1] for i in range(0, len(raw), 4))
                kind = socket.AF_INET if family == "tcp" else socket.AF_INET6
                sockets.add((socket.inet_ntop(kind, words), int(port, 16)))
    return sockets


def is_loopback(address):
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


class SecureService(Service):
    """As an operator starts it on a network, on all addresses of this machine."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        for arguments in (["coordinator", "localhost", "127.0.0.1", address], ["worker", "worker-1"],
                          ["worker", "worker-2"]):
            made = subprocess.run([os.path.join(SOURCE, "tools/make-certificates"), self.certs(), *arguments],
                                  capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stderr

    def certs(self, *parts):
        return os.path.join(self.dir, "certs", *parts)

    def start(self, *flags):
        ports = os.path.join(self.dir, "ports.json")
        self.coordinator = Process(
            "tundra-coordinator",
            ["--listen", "0.0.0.0:0", "--http", "0.0.0.0:0", *self.web_flags(), "--data-dir",
             os.path.join(self.dir, "coordinator"), "--ports-file", ports, "--tls-cert",
             self.certs("coordinator", "tls.crt"), "--tls-key", self.certs("coordinator", "tls.key"),
             "--tls-client-ca", self.certs("ca.crt"), "--bootstrap-token-file", self.tokens["admin"], *flags],
            os.path.join(self.dir, "coordinator.log"))
        wait_until(lambda: os.path.exists(ports), "the coordinator serves")
        with open(ports, encoding="utf-8") as file:
            self.ports = json.load(file)
        self.port = self.ports["grpc"]

    def web_flags(self):
        told = subprocess.run([os.path.join(BIN, "tundra-coordinator"), "--help"], capture_output=True, text=True,
                              check=True).stdout
        return ["--web", "0.0.0.0:0"] if "--web" in told else []

    def start_secure_worker(self, name, certificate):
        self.workers[name] = Process(
            "tundra-worker",
            ["--coordinator", f"{self.address}:{self.port}", "--name", name, "--data-dir",
             os.path.join(self.dir, name), "--base-dir", BASES, "--devices", "cpu:1", "--threads", "1", "--http",
             "0.0.0.0:0", "--collective-host", self.address, "--tls-ca", self.certs("ca.crt"), "--tls-cert",
             self.certs(certificate, "tls.crt"), "--tls-key", self.certs(certificate, "tls.key")],
            os.path.join(self.dir, f"{name}.log"))

    def run(self, *arguments, timeout=300, token="admin", tls=True):
        environment = dict(os.environ, XDG_CONFIG_HOME=os.path.join(self.dir, "none"),
                           TUNDRA_HOME=os.path.join(self.dir, "home"))
        for name in ("TUNDRA_CONFIG", "TUNDRA_TOKEN"):
            environment.pop(name, None)
        return subprocess.run(
            [os.path.join(BIN, "tundra"), *arguments, "--address", f"{self.address}:{self.port}",
             *(["--tls-ca", self.certs("ca.crt")] if tls else []),
             *(["--token-file", self.tokens[token]] if token else [])],
            env=environment, capture_output=True, text=True, timeout=timeout, check=False)


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        address = local_address()
        if address is None:
            raise unittest.SkipTest("this machine has no address but loopback")
        cls.service = SecureService(address)
        try:
            cls.service.start()
            for number in (1, 2):
                cls.service.start_secure_worker(f"worker-{number}", f"worker-{number}")
            wait_until(lambda: cls.service.worker_count() == 2, "both workers are connected")
        except BaseException:
            cls.service.__exit__(True, None, None)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.service.__exit__(None, None, None)

    def test_a_tenants_job_trains_on_two_workers_over_tls(self):
        service = self.service
        service.ok("admin", "tenants", "create", "search", "--devices", "2")
        service.tokens["search"] = os.path.join(service.dir, "search.token")
        service.ok("admin", "tokens", "create", "nightly", "--tenant", "search", "--role", "user", "--expires-in",
                   "1d", "--to", service.tokens["search"])
        self.assertEqual(os.stat(service.tokens["search"]).st_mode & 0o777, 0o600)
        me = json.loads(service.run("whoami", "-o", "json", token="search").stdout)
        self.assertEqual((me["tenant"], me["role"]), ("tenants/search", "ROLE_USER"))
        job_file = write_job(service.dir, devices=2, max_steps=4)
        made = service.run("submit", job_file, "-o", "json", token="search")
        self.assertEqual(made.returncode, 0, made.stderr)
        job = json.loads(made.stdout)["name"].split("/")[1]
        done = service.succeed(job)
        self.assertEqual(done["tenant"], "tenants/search")
        # Its ranks were on both workers, and met beyond loopback.
        for name in ("worker-1", "worker-2"):
            self.assertIn("rank", service.workers[name].text())
        listed = json.loads(service.run("jobs", "-o", "json", token="search").stdout)
        self.assertEqual([entry["name"] for entry in listed["jobs"]], [f"jobs/{job}"])
        audit = service.json("admin", "audit", "--limit", "1000")["entries"]
        self.assertIn(("CreateJob", f"jobs/{job}", "tenants/search"),
                      [(entry["method"], entry.get("resource"), entry.get("tenant")) for entry in audit])
        with open(service.tokens["search"], encoding="utf-8") as file:
            secret = file.read().strip()
        for process in (service.coordinator, *service.workers.values()):
            self.assertNotIn(secret, process.text())
        # A drained worker gets no work, and says so.
        workers = service.json("admin", "workers")["workers"]
        self.assertEqual(sorted(worker["display_name"] for worker in workers), ["worker-1", "worker-2"])
        service.ok("admin", "workers", "drain", workers[0]["display_name"])
        self.assertIn("draining (drained)", service.ok("admin", "workers"))
        service.ok("admin", "workers", "undrain", workers[0]["name"])
        self.assertNotIn("drained", service.ok("admin", "workers"))

    def test_an_admins_name_for_a_job_never_means_another_tenants(self):
        service = self.service
        service.ok("admin", "tenants", "create", "other", "--active-jobs", "3")
        service.tokens["other"] = os.path.join(service.dir, "other.token")
        service.ok("admin", "tokens", "create", "other", "--tenant", "other", "--to", service.tokens["other"])
        # More devices than there are: it waits.
        made = service.run("submit", write_job(service.dir, name="victim", devices=64), "-o", "json", token="other")
        self.assertEqual(made.returncode, 0, made.stderr)
        job = json.loads(made.stdout)["name"]
        refused = service.run("cancel", "victim")
        self.assertEqual(refused.returncode, 2)
        self.assertIn(f"{job} of tenants/other", refused.stderr)
        self.assertEqual(json.loads(service.run("get", "victim", "-o", "json", token="other").stdout)["state"], "QUEUED")
        self.assertIn("TENANT", service.ok("jobs"))
        self.assertNotIn("TENANT", service.run("jobs", token="other").stdout)
        # The quota that is not named stays.
        service.ok("admin", "tenants", "set", "other", "--devices", "1")
        tenants = service.json("admin", "tenants")["tenants"]
        quota = next(tenant["quota"] for tenant in tenants if tenant["name"] == "tenants/other")
        self.assertEqual(quota, {"devices": 1, "active_jobs": 3})
        service.ok("cancel", job)

    def test_a_tokens_lifetime_is_positive_for_the_service_too(self):
        service = self.service
        with open(service.tokens["admin"], encoding="utf-8") as file:
            headers = {"Authorization": f"Bearer {file.read().strip()}", "Content-Type": "application/json"}
        before = service.json("admin", "tokens")["tokens"]
        for lifetime in ("0s", "-432000s"):
            body = {"token": {"display_name": "t", "tenant": "tenants/default", "role": "ROLE_USER"},
                    "lifetime": lifetime}
            status, text = self.fetch(service.ports["web"], "/tundra.v1.AccessService/CreateToken", tls=True, headers=headers,
                                      data=json.dumps(body).encode())
            self.assertEqual(status, 400, text)
            self.assertIn("lifetime", text)
        self.assertEqual(service.json("admin", "tokens")["tokens"], before)

    def test_nobody_gets_in_without_credentials(self):
        service = self.service
        for arguments, wanted in (
                ({"token": None}, "no token"),
                ({"tls": False}, "--tls-ca"),
                ({"token": "worker"}, "unknown")):
            result = service.run("jobs", **arguments)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(wanted, result.stderr)
        plain = service.run("jobs", "--insecure", tls=False)
        self.assertEqual(plain.returncode, 3, plain.stderr)

    def test_a_worker_without_a_certificate_gets_no_session(self):
        service = self.service
        log = os.path.join(service.dir, "stranger.log")
        stranger = Process(
            "tundra-worker",
            ["--coordinator", f"{service.address}:{service.port}", "--data-dir", os.path.join(service.dir, "stranger"),
             "--base-dir", BASES, "--tls-ca", service.certs("ca.crt"), "--token-file", service.tokens["admin"]], log)
        try:
            wait_until(lambda: "certificate" in stranger.text() or "workers" in stranger.text(),
                       "the stranger is told why it gets no session")
            self.assertEqual(service.worker_count(), 2)
        finally:
            stranger.stop()

    def fetch(self, port, path, tls=False, headers=None, data=None):
        """Status and body of a request to a port beyond loopback."""
        context = ssl.create_default_context(cafile=self.service.certs("ca.crt")) if tls else None
        request = urllib.request.Request(f"http{'s' if tls else ''}://{self.service.address}:{port}{path}",
                                         data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_what_listens_beyond_loopback_asks_who_calls(self):
        """Exceptions, by docs/security.md: probes and metrics, and the ports on which ranks meet."""
        service = self.service
        workers = {process.process.pid: name for name, process in service.workers.items()}
        seen = {"grpc": 0, "web": 0, "http": 0}
        for pid in (service.coordinator.process.pid, *workers):
            for address, port in listening(pid):
                if is_loopback(address):
                    continue
                kind = next((kind for kind, number in service.ports.items() if number == port), "")
                if pid in workers:
                    kind = "http"
                with self.subTest(pid=workers.get(pid, "coordinator"), address=address, port=port):
                    self.assertIn(kind, seen, "an unknown port")
                    seen[kind] += 1
                    if kind == "http":
                        self.check_probes_only(port)
                    else:
                        self.check_tls(port)
        self.assertEqual(seen["grpc"], 1, "the scan finds what is there")
        self.assertEqual(seen["http"], 3)
        if "web" in service.ports:
            self.assertEqual(seen["web"], 1)
            status, body = self.fetch(service.ports["web"], "/tundra.v1.JobService/ListJobs", tls=True,
                                      headers={"Content-Type": "application/json"}, data=b"{}")
            self.assertEqual((status, json.loads(body)["code"]), (401, "unauthenticated"))
            self.check_who_called_through_the_page()

    def check_who_called_through_the_page(self):
        """The audit log has the address of the browser, which nobody else can claim."""
        service = self.service
        with open(service.tokens["admin"], encoding="utf-8") as file:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {file.read().strip()}"}
        status, _ = self.fetch(service.ports["web"], "/tundra.v1.JobService/DeleteJob", tls=True, data=b'{"name": "jobs/none"}',
                               headers={**headers, "tundra-peer": "ipv4:192.0.2.1:1", "tundra-peer-key": "x"})
        self.assertEqual(status, 404)
        wait_until(lambda: [entry for entry in service.json("admin", "audit")["entries"] if entry.get("resource") == "jobs/none"],
                   "the refused call is in the audit log")
        entry = next(entry for entry in service.json("admin", "audit")["entries"] if entry.get("resource") == "jobs/none")
        self.assertTrue(entry["peer"].startswith(f"ipv4:{service.address}:"), entry["peer"])

    def check_probes_only(self, port):
        self.assertEqual(self.fetch(port, "/healthz")[0], 200)
        self.assertIn("tundra_", self.fetch(port, "/metrics")[1])
        for path in ("/", "/index.html", "/tundra.v1.JobService/ListJobs", "/../etc/passwd", "/debug"):
            self.assertEqual(self.fetch(port, path)[0], 404, path)
        self.assertNotIn(self.fetch(port, "/healthz", data=b"x")[0], (200,), "nothing to post to")

    def check_tls(self, port):
        with self.assertRaises(OSError):  # plain HTTP is not answered
            self.fetch(port, "/")
        context = ssl.create_default_context(cafile=self.service.certs("ca.crt"))
        with socket.create_connection((self.service.address, port), timeout=20) as raw, \
                context.wrap_socket(raw, server_hostname=self.service.address) as wrapped:
            self.assertIn(wrapped.version(), ("TLSv1.2", "TLSv1.3"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((self.service.address, port), timeout=20) as raw, \
                self.assertRaises(OSError):
            old.wrap_socket(raw)


if __name__ == "__main__":
    unittest.main()
