"""The shapes of the custom resources in the manifests, whose schemas no package brings: each field
that occurs is one of the operators' documented ones. The tables hold what the manifests may use;
a new field is added here after a look at the operator's reference."""

# Value: the fields beneath, or None for a plain value; a list holds objects of its one element.
# "*" takes any key.
ISSUER_REF = {"name": None, "kind": None, "group": None}
RELABELINGS = [{"targetLabel": None, "replacement": None, "sourceLabels": None, "regex": None, "action": None}]
ENDPOINTS = [{"port": None, "interval": None, "relabelings": RELABELINGS}]
SELECTOR = {"matchLabels": {"*": None}}
RULES = [{"name": None, "rules": [{
    "record": None, "alert": None, "expr": None, "for": None,
    "labels": {"*": None}, "annotations": {"*": None}}]}]

SPECS = {
    ("cert-manager.io/v1", "Issuer"): {"selfSigned": {}, "ca": {"secretName": None}},
    ("cert-manager.io/v1", "Certificate"): {
        "isCA": None, "commonName": None, "secretName": None, "duration": None, "renewBefore": None,
        "dnsNames": None, "ipAddresses": None, "usages": None,
        "privateKey": {"algorithm": None, "size": None, "rotationPolicy": None},
        "issuerRef": ISSUER_REF},
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {"selector": SELECTOR, "endpoints": ENDPOINTS},
    ("monitoring.coreos.com/v1", "PodMonitor"): {"selector": SELECTOR, "podMetricsEndpoints": ENDPOINTS},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups": RULES},
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": {"kind": None, "name": None},
        "minReplicaCount": None, "maxReplicaCount": None, "pollingInterval": None, "cooldownPeriod": None,
        "fallback": {"failureThreshold": None, "replicas": None, "behavior": None},
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {
            "stabilizationWindowSeconds": None,
            "policies": [{"type": None, "value": None, "periodSeconds": None}]}}}},
        "triggers": [{"type": None, "metricType": None, "metadata": {
            "serverAddress": None, "threshold": None, "query": None}}]},
}


def is_custom(item):
    return "." in item["apiVersion"].split("/")[0] and not item["apiVersion"].split("/")[0].endswith("k8s.io")


def unknown_fields(value, shape, path):
    if shape is None:
        return
    if isinstance(shape, list):
        for index, element in enumerate(value):
            yield from unknown_fields(element, shape[0], f"{path}[{index}]")
        return
    for key, below in value.items():
        if key not in shape and "*" not in shape:
            yield f"{path}.{key}"
        else:
            yield from unknown_fields(below, shape.get(key, shape.get("*")), f"{path}.{key}")


def faults(item):
    """What is wrong with one object: an unknown kind, or unknown fields."""
    shape = SPECS.get((item["apiVersion"], item["kind"]))
    if shape is None:
        return [f"{item['apiVersion']} {item['kind']} is not among the known custom resources"]
    return [f"unknown field {path}" for path in unknown_fields(item["spec"], shape, "spec")]
