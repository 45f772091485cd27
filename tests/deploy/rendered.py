"""Rendered Kubernetes manifests as the checks of this folder see them: a list of objects, the
pods that they make, and the exceptions that their annotations ask for."""

import os
import shutil
import subprocess

import yaml

SOURCE = os.environ.get("TUNDRA_SOURCE_DIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "../.."))
KUBERNETES = os.path.join(SOURCE, "deploy/kubernetes")
OVERLAYS = ("single-node-cpu", "gpu")


def renderer():
    """The command that renders a kustomization, or None and why there is none. Components
    came with kubectl 1.21; Debian 12's own is older."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"], ""
    if not shutil.which("kubectl"):
        return None, "neither kubectl nor kustomize is here"
    told = subprocess.run(["kubectl", "version", "--client", "-o", "yaml"],
                          capture_output=True, text=True, check=False).stdout
    client = (yaml.safe_load(told) or {}).get("clientVersion", {})
    version = int(client.get("major", 0)), int(client.get("minor", "0").rstrip("+") or 0)
    if version < (1, 21):
        return None, f"kubectl {version[0]}.{version[1]} is older than 1.21 and knows no components"
    return ["kubectl", "kustomize"], ""


def render(folder):
    """The objects of a kustomization, as dicts."""
    command, why = renderer()
    assert command, why
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class Pods:
    """What a workload makes: its name for messages, its template and its containers."""

    def __init__(self, owner):
        self.owner = owner
        spec = owner["spec"]
        if owner["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        self.template = spec["template"]
        self.spec = self.template["spec"]
        self.labels = self.template.get("metadata", {}).get("labels", {})
        self.replicas = owner["spec"].get("replicas", 1)
        self.containers = [*self.spec.get("containers", []), *self.spec.get("initContainers", [])]

    def security(self, container, key):
        """A container's setting, else its pod's."""
        own = container.get("securityContext", {}).get(key)
        return own if own is not None else self.spec.get("securityContext", {}).get(key)


class Manifests:
    """Objects by kind. `findings` of a check are (object, message)."""

    WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")

    def __init__(self, objects):
        self.objects = objects

    def of(self, *kinds):
        return [item for item in self.objects if item["kind"] in kinds]

    def pods(self, *kinds):
        return [Pods(item) for item in self.of(*(kinds or self.WORKLOADS))]

    def namespaced_pods(self, namespace):
        return [pods for pods in self.pods() if pods.owner["metadata"].get("namespace") == namespace]


def name_of(item):
    return f"{item['kind']}/{item['metadata']['name']}"


def selects(selector, labels):
    """Whether a plain selector, or one of matchLabels, takes these labels."""
    wanted = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    return all(labels.get(key) == value for key, value in wanted.items())


def annotations(item):
    return item["metadata"].get("annotations") or {}
