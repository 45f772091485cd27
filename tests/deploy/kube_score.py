"""kube-score's checks that are on by default, by their names, on rendered manifests. Written from
their descriptions; the program itself is in no package index that Debian or Python has.

An exception is the annotation `kube-score/ignore: NAME,NAME` of the object, with the reason in the
comment above it."""

import re

from kube_linter import latest_tag, mismatching_selector, per_container
from rendered import annotations, name_of, selects

IGNORE = "kube-score/ignore"
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
# Groups and versions that newer clusters no longer serve.
GONE = ("extensions/v1beta1", "apps/v1beta1", "apps/v1beta2", "batch/v1beta1", "policy/v1beta1",
        "autoscaling/v2beta1", "autoscaling/v2beta2", "networking.k8s.io/v1beta1")


def resources(_, container):
    given = container.get("resources", {})
    missing = [f"{resource} {key}" for key in ("requests", "limits") for resource in ("cpu", "memory")
               if resource not in given.get(key, {})]
    return f"no {', '.join(missing)}" if missing else None


def ephemeral_storage(_, container):
    given = container.get("resources", {})
    if all("ephemeral-storage" in given.get(key, {}) for key in ("requests", "limits")):
        return None
    return "no request and limit of ephemeral storage"


def probes(manifests):
    """Of pods behind a service readiness is wanted, and liveness must not be the same."""
    for pods in manifests.pods("Deployment", "StatefulSet", "DaemonSet"):
        for container in pods.spec["containers"]:
            ready, live = container.get("readinessProbe"), container.get("livenessProbe")
            if not ready or not live:
                yield pods.owner, f"container {container['name']}: not both of readiness and liveness"
            elif ready.get("httpGet") == live.get("httpGet") and ready.get("httpGet"):
                yield pods.owner, f"container {container['name']}: readiness and liveness ask the same"


def user_and_group(pods, container):
    for key in ("runAsUser", "runAsGroup"):
        if (container.get("securityContext", {}).get(key) or 0) <= 10000:
            return f"{key} is not above 10000"
    return None


def targeted_by_budget(kind):
    def check(manifests):
        for pods in manifests.pods(kind):
            if not any(selects(item["spec"]["selector"], pods.labels)
                       for item in manifests.of("PodDisruptionBudget")):
                yield pods.owner, "no PodDisruptionBudget targets it"
    return check


def network_policy(manifests):
    policies = manifests.of("NetworkPolicy")
    for pods in manifests.pods():
        kinds = {kind for item in policies if selects(item["spec"]["podSelector"], pods.labels)
                 for kind in item["spec"].get("policyTypes", ["Ingress"])}
        if kinds != {"Ingress", "Egress"}:
            yield pods.owner, "network policies do not hold both its ingress and egress"


def policy_targets(manifests):
    for item in manifests.of("NetworkPolicy"):
        if not any(selects(item["spec"]["podSelector"], pods.labels)
                   for pods in manifests.namespaced_pods(item["metadata"].get("namespace"))):
            yield item, "targets no pod"


def service_targets(manifests):
    for item in manifests.of("Service"):
        selector = item["spec"].get("selector", {})
        if not any(selector and selects(selector, pods.labels)
                   for pods in manifests.namespaced_pods(item["metadata"].get("namespace"))):
            yield item, "targets no pod"


def host_anti_affinity(kind):
    def check(manifests):
        for pods in manifests.pods(kind):
            if pods.replicas > 1 and not pods.spec.get("affinity", {}).get("podAntiAffinity"):
                yield pods.owner, "nothing keeps its pods on different nodes"
    return check


def scaled(manifests):
    """(autoscaler, its target or None)."""
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        reference = scaler["spec"]["scaleTargetRef"]
        found = [item for item in manifests.of(reference["kind"])
                 if item["metadata"]["name"] == reference["name"]]
        yield scaler, found[0] if found else None


def spread(pods):
    for constraint in pods.spec.get("topologySpreadConstraints", []):
        if not selects(constraint.get("labelSelector", {}), pods.labels):
            return "a spread constraint counts other pods"
    return None


def labels(manifests):
    for item in manifests.objects:
        for value in (item["metadata"].get("labels") or {}).values():
            if len(value) > 63 or not LABEL.fullmatch(value):
                yield item, f"label value {value!r} is malformed"


def headless(manifests):
    services = {item["metadata"]["name"]: item for item in manifests.of("Service")}
    for item in manifests.of("StatefulSet"):
        service = services.get(item["spec"].get("serviceName"))
        if not service or service["spec"].get("clusterIP") != "None":
            yield item, "serviceName is no headless service"


def ingress_target(manifests):
    names = {item["metadata"]["name"] for item in manifests.of("Service")}
    for item in manifests.of("Ingress"):
        for rule in item["spec"].get("rules", []):
            for path in rule.get("http", {}).get("paths", []):
                if path["backend"]["service"]["name"] not in names:
                    yield item, "targets no service"


def cron_jobs(manifests, key, spec_of, good):
    for item in manifests.of("CronJob"):
        if not good(spec_of(item).get(key)):
            yield item, f"{key} is not set well"


def object_check(kind, test, message):
    def check(manifests):
        for item in manifests.of(kind):
            if not test(item["spec"]):
                yield item, message
    return check


CHECKS = {
    "deployment-strategy": object_check(
        "Deployment", lambda spec: spec.get("strategy", {}).get("type", "RollingUpdate") == "RollingUpdate",
        "does not use RollingUpdate"),
    # One that KEDA scales has no number.
    "deployment-replicas": object_check(
        "Deployment", lambda spec: spec.get("replicas", 2) >= 2, "fewer than two replicas"),
    "ingress-targets-service": ingress_target,
    "cronjob-has-deadline": lambda manifests: cron_jobs(
        manifests, "startingDeadlineSeconds", lambda item: item["spec"], lambda value: (value or 0) > 0),
    "cronjob-restartpolicy": lambda manifests: cron_jobs(
        manifests, "restartPolicy",
        lambda item: item["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        lambda value: value in ("Never", "OnFailure")),
    "container-resources": per_container(resources),
    "container-ephemeral-storage-request-and-limit": per_container(ephemeral_storage),
    "container-image-tag": per_container(latest_tag),
    "container-image-pull-policy": per_container(
        lambda _, container: None if container.get("imagePullPolicy") == "Always"
        else "imagePullPolicy is not Always"),
    "environment-variable-key-duplication": per_container(
        lambda _, container: "a variable is set twice"
        if len({item["name"] for item in container.get("env", [])}) < len(container.get("env", [])) else None),
    "statefulset-has-poddisruptionbudget": targeted_by_budget("StatefulSet"),
    "deployment-has-poddisruptionbudget": targeted_by_budget("Deployment"),
    "poddisruptionbudget-has-policy": object_check(
        "PodDisruptionBudget", lambda spec: "minAvailable" in spec or "maxUnavailable" in spec,
        "neither minAvailable nor maxUnavailable"),
    "pod-networkpolicy": network_policy,
    "networkpolicy-targets-pod": policy_targets,
    "pod-probes": probes,
    "container-security-context-user-group-id": per_container(user_and_group),
    "container-security-context-privileged": per_container(
        lambda _, container: "is privileged"
        if container.get("securityContext", {}).get("privileged") else None),
    "container-security-context-readonlyrootfilesystem": per_container(
        lambda _, container: None if container.get("securityContext", {}).get("readOnlyRootFilesystem")
        else "its root can be written"),
    "service-targets-pod": service_targets,
    "service-type": object_check(
        "Service", lambda spec: spec.get("type") != "NodePort", "is a NodePort"),
    "stable-version": lambda manifests: (
        (item, f"{item['apiVersion']} is gone") for item in manifests.objects
        if item["apiVersion"] in GONE),
    "deployment-has-host-podantiaffinity": host_anti_affinity("Deployment"),
    "statefulset-has-host-podantiaffinity": host_anti_affinity("StatefulSet"),
    "deployment-targeted-by-hpa-does-not-have-replicas-configured": lambda manifests: (
        (item, "replicas are set though an autoscaler sets them") for _, item in scaled(manifests)
        if item and "replicas" in item["spec"]),
    "statefulset-has-servicename": headless,
    "deployment-pod-selector-labels-match-template-metadata-labels": lambda manifests: (
        (pods.owner, "its selector does not take its own pods") for pods in manifests.pods("Deployment")
        if mismatching_selector(pods)),
    "statefulset-pod-selector-labels-match-template-metadata-labels": lambda manifests: (
        (pods.owner, "its selector does not take its own pods") for pods in manifests.pods("StatefulSet")
        if mismatching_selector(pods)),
    "label-values": labels,
    "horizontalpodautoscaler-has-target": lambda manifests: (
        (scaler, "its target is not there") for scaler, item in scaled(manifests) if item is None),
    "horizontalpodautoscaler-replicas": object_check(
        "HorizontalPodAutoscaler", lambda spec: spec.get("minReplicas", 1) >= 2, "fewer than two replicas"),
    "pod-topology-spread-constraints": lambda manifests: (
        (pods.owner, spread(pods)) for pods in manifests.pods() if spread(pods)),
}


def ignored(item):
    return [name.strip() for name in annotations(item).get(IGNORE, "").split(",") if name.strip()]


def findings(manifests):
    """(check, object, message) of all checks, exceptions left out."""
    for name, check in CHECKS.items():
        for item, message in check(manifests):
            if name not in ignored(item):
                yield f"kube-score {name}", name_of(item), message


def unused_exceptions(manifests):
    """Annotations that excuse nothing: a mistyped name, or a fault that is gone."""
    for item in manifests.objects:
        for name in ignored(item):
            if not any(found is item for found, _ in CHECKS.get(name, lambda _: [])(manifests)):
                yield f"{name_of(item)}: {IGNORE} {name} excuses nothing"
