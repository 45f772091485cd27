"""kube-linter's checks that are on by default, by their names, on rendered manifests. Written from
their descriptions; the program itself is in no package index that Debian or Python has.

An exception is the annotation `ignore-check.kube-linter.io/NAME: reason` of the object."""

import re

from rendered import annotations, name_of, selects

PREFIX = "ignore-check.kube-linter.io/"
SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")
UNSAFE_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "net.")


def per_container(test):
    """Findings of `test(pods, container)`, which returns a message or None."""
    def check(manifests):
        for pods in manifests.pods():
            for container in pods.containers:
                message = test(pods, container)
                if message:
                    yield pods.owner, f"container {container['name']}: {message}"
    return check


def per_pod(test):
    def check(manifests):
        for pods in manifests.pods():
            message = test(pods)
            if message:
                yield pods.owner, message
    return check


def dangling_service(manifests):
    for service in manifests.of("Service"):
        selector = service["spec"].get("selector")
        there = manifests.namespaced_pods(service["metadata"].get("namespace"))
        if selector and not any(selects(selector, pods.labels) for pods in there):
            yield service, "selects no pod"


def service_account_missing(manifests):
    accounts = {item["metadata"]["name"] for item in manifests.of("ServiceAccount")} | {"default"}
    for pods in manifests.pods():
        account = pods.spec.get("serviceAccountName", "default")
        if account not in accounts:
            yield pods.owner, f"service account {account} is not among the manifests"


def anti_affinity(pods):
    if pods.replicas < 2 or pods.owner["kind"] not in ("Deployment", "StatefulSet"):
        return None
    rules = pods.spec.get("affinity", {}).get("podAntiAffinity", {})
    terms = rules.get("requiredDuringSchedulingIgnoredDuringExecution", []) + [
        term["podAffinityTerm"]
        for term in rules.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    for term in terms:
        if term["topologyKey"] == "kubernetes.io/hostname" and selects(
                term.get("labelSelector", {}), pods.labels):
            return None
    return "several replicas and no anti-affinity by host"


def host_mounts(wanted):
    def test(pods):
        for volume in pods.spec.get("volumes", []):
            path = volume.get("hostPath", {}).get("path")
            if path and wanted(path):
                return f"mounts the host's {path}"
        return None
    return test


def mismatching_selector(pods):
    selector = pods.owner["spec"].get("selector")
    if selector and not selects(selector, pods.labels):
        return "its selector does not take its own pods"
    return None


def invalid_target_ports(manifests):
    def valid(port):
        if isinstance(port, int):
            return 0 < port < 65536
        return re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", port) is not None

    for service in manifests.of("Service"):
        for port in service["spec"].get("ports", []):
            if not valid(port.get("targetPort", port["port"])):
                yield service, f"target port {port.get('targetPort')} is no port"
    for pods in manifests.pods():
        for container in pods.containers:
            for port in container.get("ports", []):
                if not valid(port.get("name", "a")):
                    yield pods.owner, f"port name {port['name']} is too long or malformed"


def probe_port(kind):
    """The port of an HTTP or TCP probe is one that the container declares."""
    def test(_, container):
        probe = container.get(kind, {})
        action = probe.get("httpGet") or probe.get("tcpSocket")
        if not action:
            return None
        ports = container.get("ports", [])
        known = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
        return None if action["port"] in known else f"{kind}: port {action['port']} is not declared"
    return per_container(test)


def requirements(resource):
    def test(_, container):
        resources = container.get("resources", {})
        missing = [key for key in ("requests", "limits") if resource not in resources.get(key, {})]
        return f"no {resource} in {' and '.join(missing)}" if missing else None
    return per_container(test)


def budget(test):
    def check(manifests):
        for item in manifests.of("PodDisruptionBudget"):
            message = test(item["spec"], manifests)
            if message:
                yield item, message
    return check


def min_available(spec, manifests):
    if "minAvailable" not in spec:
        return None
    for pods in manifests.pods():
        if selects(spec["selector"], pods.labels) and str(spec["minAvailable"]) in ("100%", str(pods.replicas)):
            return "no pod may ever be evicted"
    return None


def latest_tag(_, container):
    image = container["image"]
    if "@" in image:
        return None
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return f"image {image} has no fixed tag" if tag in ("", "latest") else None


def env_var_secret(_, container):
    for variable in container.get("env", []):
        if re.search("secret", variable["name"], re.IGNORECASE) and variable.get("value"):
            return f"{variable['name']} is a secret in the manifest"
    return None


def duplicate_env(_, container):
    names = [variable["name"] for variable in container.get("env", [])]
    return "a variable is set twice" if len(set(names)) < len(names) else None


def net_raw(_, container):
    dropped = container.get("securityContext", {}).get("capabilities", {}).get("drop", [])
    return None if {"ALL", "NET_RAW"} & set(dropped) else "does not drop NET_RAW"


def not_root(pods, container):
    user = pods.security(container, "runAsUser")
    if user == 0 or (not pods.security(container, "runAsNonRoot") and not user):
        return "may run as root"
    return None


def escalation(_, container):
    context = container.get("securityContext", {})
    added = context.get("capabilities", {}).get("add", [])
    if context.get("allowPrivilegeEscalation") is not False or "SYS_ADMIN" in added:
        return "may gain privileges"
    return None


def sysctls(pods):
    for setting in pods.spec.get("securityContext", {}).get("sysctls", []):
        if setting["name"].startswith(UNSAFE_SYSCTLS):
            return f"sets {setting['name']}"
    return None


def job_ttl(manifests):
    for job in manifests.of("Job"):
        if "ttlSecondsAfterFinished" not in job["spec"]:
            yield job, "is never removed after its end"


def old_api(manifests):
    for item in manifests.objects:
        if re.match("extensions/v1beta", item["apiVersion"]):
            yield item, f"{item['apiVersion']} is gone"


def context_is(key, good, message):
    return per_container(lambda pods, container: None if good(pods.security(container, key)) else message)


CHECKS = {
    "dangling-service": dangling_service,
    "deprecated-service-account-field": per_pod(
        lambda pods: "serviceAccount is deprecated" if "serviceAccount" in pods.spec
        and pods.spec["serviceAccount"] != pods.spec.get("serviceAccountName") else None),
    "docker-sock": per_pod(host_mounts(lambda path: path.endswith("docker.sock"))),
    "drop-net-raw-capability": per_container(net_raw),
    "duplicate-env-var": per_container(duplicate_env),
    "env-var-secret": per_container(env_var_secret),
    "host-ipc": per_pod(lambda pods: "shares the host's IPC" if pods.spec.get("hostIPC") else None),
    "host-network": per_pod(
        lambda pods: "shares the host's network" if pods.spec.get("hostNetwork") else None),
    "host-pid": per_pod(lambda pods: "shares the host's processes" if pods.spec.get("hostPID") else None),
    "invalid-target-ports": invalid_target_ports,
    "job-ttl-seconds-after-finished": job_ttl,
    "latest-tag": per_container(latest_tag),
    "liveness-port": probe_port("livenessProbe"),
    "mismatching-selector": per_pod(mismatching_selector),
    "no-anti-affinity": per_pod(anti_affinity),
    "no-extensions-v1beta": old_api,
    "no-read-only-root-fs": context_is(
        "readOnlyRootFilesystem", lambda value: value is True, "its root can be written"),
    "non-existent-service-account": service_account_missing,
    "pdb-max-unavailable": budget(
        lambda spec, _: "no pod may ever be evicted"
        if str(spec.get("maxUnavailable", 1)) in ("0", "0%") else None),
    "pdb-min-available": budget(min_available),
    "pdb-unhealthy-pod-eviction-policy": budget(
        lambda spec, _: None if "unhealthyPodEvictionPolicy" in spec
        else "sick pods may hold up the drain of a node"),
    "privilege-escalation-container": per_container(escalation),
    "privileged-container": per_container(
        lambda _, container: "is privileged"
        if container.get("securityContext", {}).get("privileged") else None),
    "readiness-port": probe_port("readinessProbe"),
    "run-as-non-root": per_container(not_root),
    "sensitive-host-mounts": per_pod(host_mounts(lambda path: path in SENSITIVE)),
    "ssh-port": per_container(
        lambda _, container: "opens port 22"
        if any(port["containerPort"] == 22 for port in container.get("ports", [])) else None),
    "startup-port": probe_port("startupProbe"),
    "unsafe-sysctls": per_pod(sysctls),
    "unset-cpu-requirements": requirements("cpu"),
    "unset-memory-requirements": requirements("memory"),
}


def findings(manifests):
    """(check, object, message) of all checks, exceptions left out."""
    for name, check in CHECKS.items():
        for item, message in check(manifests):
            if not annotations(item).get(PREFIX + name):
                yield f"kube-linter {name}", name_of(item), message


def unused_exceptions(manifests):
    """Annotations that excuse nothing: a mistyped name, or a fault that is gone."""
    for item in manifests.objects:
        for key in annotations(item):
            name = key.removeprefix(PREFIX)
            if key.startswith(PREFIX) and not any(
                    found is item for found, _ in CHECKS.get(name, lambda _: [])(manifests)):
                yield f"{name_of(item)}: {key} excuses nothing"
