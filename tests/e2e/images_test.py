"""Images and compose agree with the programs and keep to their own rules, and the scripts beside
them do what they say: the package lists, and the certificates. No container engine is needed;
tests/deploy/images builds and runs the images where there is one."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../deploy"))

import flags  # noqa: E402
from rendered import SOURCE  # noqa: E402

DOCKER = os.path.join(SOURCE, "docker")
PROGRAMS = {"coordinator": "tundra-coordinator", "worker-cpu": "tundra-worker", "client": "tundra"}


def text(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def version():
    return re.search(r"project\(tundra VERSION (\S+)", text("CMakeLists.txt")).group(1)


class DockerfileTest(unittest.TestCase):
    def setUp(self):
        lines = text("docker/Dockerfile").replace("\\\n", " ").splitlines()
        self.stages = {}
        for line in lines:
            found = re.match(r"FROM (\S+) AS (\S+)$", line)
            if found:
                stage = self.stages[found.group(2)] = {"from": found.group(1), "lines": []}
            elif self.stages:
                stage["lines"].append(line)

    def last(self, stage, instruction):
        while stage in self.stages:
            found = [line for line in self.stages[stage]["lines"] if line.startswith(instruction + " ")]
            if found:
                return found[-1].split(None, 1)[1]
            stage = self.stages[stage]["from"]
        return None

    def test_every_stage_stands_on_the_pinned_base(self):
        self.assertRegex(text("docker/Dockerfile"), r"ARG BASE_DIGEST=@sha256:[0-9a-f]{64}\n")
        self.assertRegex(text("docker/Dockerfile"), r"ARG BASE_IMAGE=\S+:bookworm-\d{8}-slim\n")
        for name, stage in self.stages.items():
            self.assertIn(stage["from"], {"${BASE_IMAGE}${BASE_DIGEST}", *self.stages}, name)

    def test_images_run_as_a_number_that_is_not_root(self):
        for target in (*PROGRAMS, "worker-cuda", "setup"):
            self.assertEqual(self.last(target, "USER"), "10001:10001", target)
            self.assertEqual(self.last(target, "STOPSIGNAL"), "SIGTERM", target)
            self.assertTrue(self.last(target, "ENTRYPOINT").startswith('["/usr/bin/tundra'), target)

    def test_nothing_is_fetched_but_packages(self):
        fetching = re.compile(r"https?://|\b(curl|wget|git clone)\b")
        self.assertEqual([line for stage in self.stages.values() for line in stage["lines"]
                          if fetching.search(line) and not line.startswith("#")], [])
        lines = [line for line in text("docker/requirements-cuda.txt").splitlines() if not line.startswith("#")]
        versions = {}
        for line in lines:
            found = re.fullmatch(r"(nvidia-[a-z0-9-]+)==([0-9.]+) --hash=sha256:[0-9a-f]{64}", line)
            self.assertTrue(found, line)
            versions[found.group(1)] = found.group(2)
        # One CUDA: the compiler is one version, and the other parts are of the same release.
        compiler = versions["nvidia-cuda-nvcc"]
        for name in ("nvidia-nvvm", "nvidia-cuda-crt"):
            self.assertEqual(versions[name], compiler, name)
        for name in ("nvidia-cuda-runtime", "nvidia-cuda-cccl", "nvidia-cuda-nvrtc"):
            self.assertEqual(versions[name].split(".")[:2], compiler.split(".")[:2], name)

    def test_the_version_is_the_projects(self):
        self.assertIn(f"ARG VERSION={version()}\n", text("docker/Dockerfile"))

    def test_what_is_copied_is_there_and_not_ignored(self):
        allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
        for name, stage in self.stages.items():
            for line in stage["lines"]:
                words = line.split()
                if not words or words[0] != "COPY" or words[1].startswith("--from"):
                    continue
                for source in words[1:-1]:
                    self.assertTrue(os.path.exists(os.path.join(SOURCE, source)), f"{name}: {source}")
                    self.assertTrue(any(source == entry or source.startswith(entry + "/") for entry in allowed),
                                    f"{name}: .dockerignore leaves {source} out")


class ComposeTest(unittest.TestCase):
    def setUp(self):
        self.compose = yaml.safe_load(text("docker/compose.yaml"))
        self.services = self.compose["services"]

    def test_every_service_is_confined(self):
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertIn("no-new-privileges:true", service["security_opt"])
                self.assertNotIn("privileged", service)
                image_version = service["image"].rsplit(":", 1)[1]
                self.assertNotEqual(image_version, "latest")
                if "build" in service:
                    self.assertEqual(image_version, version())

    def test_what_runs_on_has_limits_and_a_health_check(self):
        for name, service in self.services.items():
            if name != "setup":
                self.assertIn("memory", service["deploy"]["resources"]["limits"], name)
            if name not in ("setup", "client"):
                self.assertIn("healthcheck", service, name)

    def test_ports_are_published_on_loopback_alone(self):
        for name, service in self.services.items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")

    def test_nothing_secret_is_in_the_environment_and_nothing_goes_in_the_clear(self):
        for name, service in self.services.items():
            for key in service.get("environment", {}):
                self.assertFalse(re.search("SECRET|TOKEN|PASSWORD", key) and not key.endswith("__FILE"), name)
            self.assertNotIn("--insecure", service.get("command", []), name)

    def test_mounted_files_are_there(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = re.sub(r"^\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
                if source.startswith("."):
                    self.assertTrue(os.path.exists(os.path.join(DOCKER, source)), f"{name}: {source}")
                    self.assertTrue(volume.endswith(":ro"), f"{name}: {volume} can be written")
                else:
                    self.assertIn(source, self.compose["volumes"], name)

    def test_prometheus_scrapes_the_coordinator_and_each_worker(self):
        config = yaml.safe_load(text("docker/prometheus.yml"))
        plain = yaml.safe_load(text("deploy/monitoring/prometheus.yml"))
        # No container here has a GPU, for whose figures another exporter would be scraped.
        self.assertEqual([job["job_name"] for job in config["scrape_configs"]],
                         [job["job_name"] for job in plain["scrape_configs"] if job["job_name"] != "dcgm"])
        targets = {target.split(":")[0] for job in config["scrape_configs"]
                   for static in job["static_configs"] for target in static["targets"]}
        self.assertEqual(targets, {name for name in self.services if name == "coordinator" or "worker" in name})

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not here (apt-get install prometheus)")
    def test_promtool_finds_no_fault(self):
        with tempfile.TemporaryDirectory() as folder:
            # Side by side, as the container has them.
            for name in ("docker/prometheus.yml", "deploy/monitoring/rules.yml"):
                shutil.copy(os.path.join(SOURCE, name), folder)
            done = subprocess.run(["promtool", "check", "config", os.path.join(folder, "prometheus.yml")],
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("1 rule files found", done.stdout)

    def test_flags_are_those_of_the_programs(self):
        missing = set()
        for service in self.services.values():
            program = PROGRAMS.get(service.get("build", {}).get("target"))
            if program:
                used = flags.used(service.get("command", []) + service.get("entrypoint", []))
                missing |= {f"{program} {flag}" for flag in used - flags.flags_of(program)}
        self.assertEqual(missing, set())


class ScriptsTest(unittest.TestCase):
    SCRIPTS = ("docker/check-packages", "docker/install-cuda", "docker/install-listed", "docker/setup",
               "tests/deploy/images", "tests/deploy/setup", "tools/make-certificates")

    def test_shellcheck_finds_nothing(self):
        if not shutil.which("shellcheck"):
            self.skipTest("shellcheck is not here")
        done = subprocess.run(["shellcheck", *(os.path.join(SOURCE, name) for name in self.SCRIPTS)],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_images_have_the_packages_of_their_programs(self):
        done = subprocess.run([os.path.join(DOCKER, "check-packages"), flags.BIN],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_list_that_lacks_a_package_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(DOCKER, "check-packages"), folder)
            shutil.copytree(os.path.join(DOCKER, "packages"), os.path.join(folder, "packages"))
            path = os.path.join(folder, "packages/client.txt")
            lines = text("docker/packages/client.txt").replace("libssl3\n", "libunneeded\n")
            with open(path, "w", encoding="utf-8") as file:
                file.write(lines)
            done = subprocess.run([os.path.join(folder, "check-packages"), flags.BIN],
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("- libunneeded", done.stderr)
        self.assertIn("+ libssl3", done.stderr)


@unittest.skipUnless(shutil.which("openssl"), "openssl is not here")
class CertificatesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = os.path.join(self.folder.name, "secrets")

    def make(self, *arguments, days=None, code=0):
        environment = {**os.environ, **({"TUNDRA_CERTIFICATE_DAYS": str(days)} if days else {})}
        done = subprocess.run([os.path.join(SOURCE, "tools/make-certificates"), self.dir, *arguments],
                              capture_output=True, text=True, env=environment, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout

    def read(self, name):
        with open(os.path.join(self.dir, name), "rb") as file:
            return file.read()

    def verify(self, name, *options):
        return subprocess.run(["openssl", "verify", "-CAfile", os.path.join(self.dir, "ca.crt"), *options,
                               os.path.join(self.dir, name, "tls.crt")], capture_output=True, check=False).returncode == 0

    def test_each_certificate_is_good_for_its_own_use_and_names(self):
        self.make("coordinator", "tundra.example", "127.0.0.1", "::1")
        self.make("worker", "worker-1")
        self.assertTrue(self.verify("coordinator", "-purpose", "sslserver", "-verify_hostname", "tundra.example"))
        self.assertTrue(self.verify("coordinator", "-purpose", "sslserver", "-verify_ip", "127.0.0.1"))
        self.assertFalse(self.verify("coordinator", "-verify_hostname", "other.example"))
        self.assertFalse(self.verify("coordinator", "-purpose", "sslclient"))
        self.assertTrue(self.verify("worker-1", "-purpose", "sslclient"))
        self.assertFalse(self.verify("worker-1", "-purpose", "sslserver"))
        self.assertEqual(self.read("coordinator/ca.crt"), self.read("ca.crt"))

    def test_keys_and_tokens_are_for_their_owner_alone(self):
        self.make("coordinator", "localhost")
        self.make("token", "admin")
        for name in ("ca.key", "coordinator/tls.key", "admin"):
            self.assertEqual(os.stat(os.path.join(self.dir, name)).st_mode & 0o077, 0, name)
        self.assertRegex(self.read("admin"), rb"^[0-9a-f]{64}\n$")

    def test_a_token_never_takes_the_place_of_the_authority_or_of_a_certificate(self):
        for name in ("ca.key", "ca.crt"):
            self.make("token", name, code=2)
            self.assertFalse(os.path.exists(os.path.join(self.dir, name)), "where the authority would be")
        self.make("coordinator", "localhost")
        before = self.read("ca.key"), self.read("ca.crt"), self.read("coordinator/tls.key")
        for name in ("ca.key", "ca.crt", "coordinator"):
            self.make("token", name, code=2)
            self.make("worker", name, code=2)
        self.assertEqual((self.read("ca.key"), self.read("ca.crt"), self.read("coordinator/tls.key")), before)
        self.make("token", "worker-1")
        token = self.read("worker-1")
        self.make("worker", "worker-1", code=2)
        self.assertEqual(self.read("worker-1"), token)

    def test_what_is_good_stays_and_the_rest_is_made_anew(self):
        self.make("coordinator", "localhost", days=20)
        first = self.read("coordinator/tls.crt")
        self.make("coordinator", "localhost")  # 20 days are less than 30
        second = self.read("coordinator/tls.crt")
        self.assertNotEqual(first, second)
        self.assertIn("still good", self.make("coordinator", "localhost"))
        self.assertEqual(self.read("coordinator/tls.crt"), second)
        self.make("coordinator", "localhost", "other.example")
        self.assertTrue(self.verify("coordinator", "-verify_hostname", "other.example"))
        self.make("token", "admin")
        token = self.read("admin")
        self.make("token", "admin")
        self.assertEqual(self.read("admin"), token)

    def test_names_cannot_leave_the_folder_or_add_extensions(self):
        for name in ("../x", "a/b", "a,CA:TRUE", "a\nb", "", "-x"):
            self.make("worker", name, code=2)
        self.make("worker", "coordinator", code=2)
        self.assertEqual(glob.glob(os.path.join(self.folder.name, "*")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
