"""The manifests of deploy/kubernetes say what the programs understand, agree with each other, and
keep to kube-linter's and kube-score's default checks. Rendering needs kubectl or kustomize; what
reads the sources alone runs everywhere. tests/deploy/check.py does more, with packaged tools."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../deploy"))

import custom_resources  # noqa: E402
import flags  # noqa: E402
import kube_linter  # noqa: E402
import kube_score  # noqa: E402
from rendered import KUBERNETES, Manifests, OVERLAYS, SOURCE, name_of, render, renderer, selects  # noqa: E402


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def base(name):
    return Manifests(documents(os.path.join(KUBERNETES, "base", name)))


def files(folder, *endings):
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(endings):
                yield os.path.join(parent, name)


class SourcesTest(unittest.TestCase):
    """What holds of the files as they are, without a tool."""

    def test_every_file_is_part_of_a_kustomization(self):
        for path in files(KUBERNETES, ".yaml"):
            documents(path)
            # volume-shell.yaml is applied by hand.
            if os.path.basename(path) == "kustomization.yaml" or os.path.dirname(path) == KUBERNETES:
                continue
            with open(os.path.join(os.path.dirname(path), "kustomization.yaml"), encoding="utf-8") as file:
                self.assertIn(os.path.basename(path), file.read(), f"{path} is used by nobody")

    def test_no_secret_is_in_git_or_in_the_environment(self):
        for path in files(KUBERNETES, ".yaml"):
            for item in documents(path):
                self.assertNotEqual(item.get("kind"), "Secret", path)
        for name in ("coordinator.yaml", "worker.yaml"):
            for pods in base(name).pods():
                for container in pods.containers:
                    for variable in container.get("env", []):
                        self.assertNotIn("secretKeyRef", variable.get("valueFrom", {}))

    def test_rules_and_dashboards_are_those_of_monitoring(self):
        done = subprocess.run([os.path.join(KUBERNETES, "update-monitoring"), "--check"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, f"{done.stdout}: run deploy/kubernetes/update-monitoring")
        rules = documents(os.path.join(SOURCE, "deploy/monitoring/rules.yml"))[0]
        made = documents(os.path.join(KUBERNETES, "components/monitoring/prometheus-rule.yaml"))[0]
        self.assertEqual(rules, made["spec"])

    def test_a_drain_fits_into_the_grace_period(self):
        pods = base("worker.yaml").pods("Deployment")[0]
        arguments = dict(a.split("=", 1) for a in pods.containers[0]["args"] if "=" in a)
        self.assertLess(int(arguments["--drain-timeout"]) + 10, pods.spec["terminationGracePeriodSeconds"])

    def test_collectives_have_the_ports_that_the_policy_opens(self):
        pods = base("worker.yaml").pods("Deployment")[0]
        [setting] = pods.spec["securityContext"]["sysctls"]
        self.assertEqual(setting["name"], "net.ipv4.ip_local_port_range")
        first, last = map(int, setting["value"].split())
        [policy] = [item for item in base("network-policies.yaml").of("NetworkPolicy")
                    if item["metadata"]["name"] == "tundra-worker"]
        for rule in policy["spec"]["ingress"][:1] + policy["spec"]["egress"][1:2]:
            self.assertEqual([(port["port"], port["endPort"]) for port in rule["ports"]], [(first, last)])

    def test_policies_open_the_ports_that_programs_listen_on_and_no_other(self):
        with open(os.path.join(KUBERNETES, "base/coordinator-settings.yaml"), encoding="utf-8") as file:
            settings = yaml.safe_load(file)
        listens = {int(settings[key].rsplit(":", 1)[1]) for key in ("listen", "web", "http")}
        pods = base("coordinator.yaml").pods("StatefulSet")[0]
        declared = {port["containerPort"] for port in pods.containers[0]["ports"]}
        policies = {item["metadata"]["name"]: item["spec"] for item in base("network-policies.yaml").objects}
        opened = {port["port"] for rule in policies["tundra-coordinator"]["ingress"] for port in rule["ports"]}
        self.assertEqual(listens, declared)
        self.assertEqual(listens, opened)
        self.assertEqual(policies["default-deny"]["podSelector"], {})
        self.assertEqual(set(policies["default-deny"]["policyTypes"]), {"Ingress", "Egress"})
        self.assertNotIn("egress", policies["tundra-coordinator"])


class FlagsTest(unittest.TestCase):
    """Every flag and setting in the manifests is one that the program knows."""

    def test_the_workers_flags(self):
        used = flags.used(base("worker.yaml").pods("Deployment")[0].containers[0]["args"])
        for overlay in OVERLAYS:
            with open(os.path.join(KUBERNETES, "overlays", overlay, "kustomization.yaml"), encoding="utf-8") as file:
                used |= set(re.findall(r'value: "(--[a-z-]+)=', file.read()))
        self.assertIn("--devices", used)
        self.assertEqual(used - flags.flags_of("tundra-worker"), set())

    def test_the_coordinators_flags(self):
        used = flags.used(base("coordinator.yaml").pods("StatefulSet")[0].containers[0]["args"])
        self.assertEqual(used - flags.flags_of("tundra-coordinator"), set())

    def test_the_coordinators_settings(self):
        with open(os.path.join(KUBERNETES, "base/coordinator-settings.yaml"), encoding="utf-8") as file:
            used = set(yaml.safe_load(file))
        self.assertEqual(used - flags.settings(), set())

    def test_commands_in_the_readme_are_the_clients(self):
        self.assertEqual(flags.unknown("tundra", ["jobs", "--no-such-flag"]), {"--no-such-flag"})
        with open(os.path.join(SOURCE, "deploy/README.md"), encoding="utf-8") as file:
            lines = flags.commands(file.read(), "tundra")
        self.assertGreater(len(lines), 5)
        missing = set().union(*(flags.unknown("tundra", words) for words in lines))
        self.assertEqual(missing, set())


class PoliciesTest(unittest.TestCase):
    def test_each_check_finds_its_fault(self):
        faulty = Manifests(documents(os.path.join(SOURCE, "tests/deploy/faulty.yaml")))
        for module in (kube_linter, kube_score):
            for name, check in module.CHECKS.items():
                with self.subTest(f"{module.__name__} {name}"):
                    self.assertTrue(list(check(faulty)))

    def test_an_exception_that_excuses_nothing_is_told(self):
        item = {"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None"}, "metadata": {
            "name": "s", "annotations": {kube_linter.PREFIX + "latest-tag": "why", kube_score.IGNORE: "service-type"}}}
        for module in (kube_linter, kube_score):
            self.assertEqual(len(list(module.unused_exceptions(Manifests([item])))), 1)

    def test_an_unknown_field_of_a_custom_resource_is_told(self):
        item = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "spec": {"ca": {"secretname": "x"}}}
        self.assertEqual(custom_resources.faults(item), ["unknown field spec.ca.secretname"])


class RenderedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        command, why = renderer()
        if not command:
            raise unittest.SkipTest(f"nothing is rendered: {why}")
        cls.rendered = {name: Manifests(render(os.path.join(KUBERNETES, "overlays", name))) for name in OVERLAYS}

    def each(self):
        return self.rendered.values()

    def test_the_default_checks_find_nothing(self):
        for manifests in self.each():
            for module in (kube_linter, kube_score):
                self.assertEqual(list(module.findings(manifests)), [])
                self.assertEqual(list(module.unused_exceptions(manifests)), [])

    def test_custom_resources_have_known_fields(self):
        for manifests in self.each():
            for item in filter(custom_resources.is_custom, manifests.objects):
                self.assertEqual(custom_resources.faults(item), [], name_of(item))

    def test_pods_keep_the_restricted_profile(self):
        for manifests in self.each():
            [namespace] = manifests.of("Namespace")
            self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
            allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
            for pods in manifests.pods():
                self.assertFalse(pods.spec["automountServiceAccountToken"])
                for volume in pods.spec["volumes"]:
                    self.assertLessEqual(set(volume) - {"name"}, allowed)
                for container in pods.containers:
                    context = container["securityContext"]
                    self.assertTrue(context["runAsNonRoot"])
                    self.assertFalse(context["allowPrivilegeEscalation"])
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})

    def test_images_have_a_version(self):
        with open(os.path.join(SOURCE, "CMakeLists.txt"), encoding="utf-8") as file:
            version = re.search(r"project\(tundra VERSION (\S+)", file.read()).group(1)
        for manifests in self.each():
            for pods in manifests.pods():
                for container in pods.containers:
                    self.assertTrue(container["image"].endswith(f":{version}"), container["image"])

    def test_what_is_mounted_is_there_or_made_by_the_readme(self):
        with open(os.path.join(SOURCE, "deploy/README.md"), encoding="utf-8") as file:
            readme = file.read()
        for manifests in self.each():
            maps = {item["metadata"]["name"] for item in manifests.of("ConfigMap")}
            claims = {item["metadata"]["name"] for item in manifests.of("PersistentVolumeClaim")}
            made = {item["spec"]["secretName"] for item in manifests.of("Certificate")}
            for pods in manifests.pods():
                for volume in pods.spec["volumes"]:
                    if "configMap" in volume:
                        self.assertIn(volume["configMap"]["name"], maps)
                    if "persistentVolumeClaim" in volume:
                        self.assertIn(volume["persistentVolumeClaim"]["claimName"], claims)
                    secret = volume.get("secret", {}).get("secretName")
                    self.assertTrue(secret is None or secret in made or f"secret generic {secret}" in readme, secret)

    def test_monitors_select_what_is_there(self):
        manifests = self.rendered["gpu"]
        for monitor in manifests.of("ServiceMonitor"):
            found = [item for item in manifests.of("Service")
                     if selects(monitor["spec"]["selector"], item["metadata"]["labels"])]
            self.assertEqual(len(found), 1)
            self.assertIn("http", [port["name"] for port in found[0]["spec"]["ports"]])
        for monitor in manifests.of("PodMonitor"):
            self.assertTrue(any(selects(monitor["spec"]["selector"], pods.labels) for pods in manifests.pods()))

    def test_one_worker_owns_a_gpu_node(self):
        [pods] = self.rendered["gpu"].pods("Deployment")
        limits = pods.containers[0]["resources"]["limits"]
        self.assertGreaterEqual(int(limits["nvidia.com/gpu"]), 1)
        [term] = pods.spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
        self.assertTrue(selects(term["labelSelector"], pods.labels))


class ScalingTest(unittest.TestCase):
    def test_workers_are_asked_for_as_the_queue_needs_them_and_kept_while_jobs_run(self):
        if not shutil.which("promtool"):
            self.skipTest("promtool is not here")
        [scaled] = documents(os.path.join(KUBERNETES, "components/keda/scaled-object.yaml"))
        query = scaled["spec"]["triggers"][0]["metadata"]["query"]
        labels = 'job="tundra-coordinator"'
        def case(queued, connected, running):
            return {"interval": "1m", "input_series": [
                {"series": f"tundra_queue_devices{{{labels}}}", "values": f"{queued}x5"},
                {"series": f'tundra_workers{{{labels}, state="connected"}}', "values": f"{connected}x5"},
                {"series": f'tundra_jobs{{{labels}, state="RUNNING"}}', "values": f"{running}x5"},
                {"series": f'tundra_jobs{{{labels}, state="SUCCEEDED"}}', "values": "7x5"}]}
        tests = []
        for (queued, connected, running), devices in {
                (0, 3, 0): 0, (8, 0, 0): 8, (4, 2, 1): 20, (0, 2, 1): 16}.items():
            tests.append({**case(queued, connected, running), "promql_expr_test": [
                {"expr": query, "eval_time": "3m", "exp_samples": [{"labels": "{}", "value": devices}]}]})
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}, file)
            file.flush()
            done = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
