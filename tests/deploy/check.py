#!/usr/bin/env python3
"""Checks deploy/kubernetes as far as that goes without a cluster: renders every overlay, and each
with the components that it leaves out; then Kubernetes' schemas (kubernetes-validate), checkov's
policies for Kubernetes, and kube-linter's and kube-score's default checks.

    tests/deploy/setup && build/deploy-venv/bin/python tests/deploy/check.py

Exit code 0 when nothing is found. Needs kubectl 1.21 or newer, or kustomize."""

import json
import os
import subprocess
import sys
import tempfile

import yaml

import custom_resources
import kube_linter
import kube_score
from rendered import KUBERNETES, Manifests, OVERLAYS, name_of, render, renderer

# The oldest that the manifests are for, and the newest whose schemas are at hand.
SCHEMAS = ("1.29", "1.37")
COMPONENTS = ("cert-manager", "monitoring", "keda")


def variants(folder):
    """(name, objects): each overlay as it is, and with every component it doesn't have."""
    for overlay in OVERLAYS:
        path = os.path.join(KUBERNETES, "overlays", overlay)
        yield overlay, render(path)
        with open(os.path.join(path, "kustomization.yaml"), encoding="utf-8") as file:
            has = yaml.safe_load(file).get("components", [])
        more = [name for name in COMPONENTS if f"../../components/{name}" not in has]
        full = os.path.join(folder, overlay)
        os.mkdir(full)
        with open(os.path.join(full, "kustomization.yaml"), "w", encoding="utf-8") as file:
            yaml.safe_dump({
                "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
                "resources": [os.path.relpath(path, full)],
                "components": [os.path.relpath(os.path.join(KUBERNETES, "components", name), full)
                               for name in more]}, file)
        yield f"{overlay} with {', '.join(more)}", render(full)


def schema_faults(objects):
    import kubernetes_validate
    for item in objects:
        if custom_resources.is_custom(item):
            yield from (f"{name_of(item)}: {fault}" for fault in custom_resources.faults(item))
            continue
        for version in SCHEMAS:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name_of(item)}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def checkov(objects, folder):
    """(passed, skipped with their reasons, faults)."""
    path = os.path.join(folder, "rendered.yaml")
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump_all(objects, file)
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "checkov"), "-f", path, "--framework",
         "kubernetes", "--skip-download", "-o", "json"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    results = report["results"]
    faults = [f"{found['check_id']} {found['check_name']}: {found['resource']}"
              for found in results["failed_checks"]] + results.get("parsing_errors", [])
    skipped = [f"{found['check_id']} {found['resource']}: {found['check_result'].get('suppress_comment')}"
               for found in results["skipped_checks"]]
    return len(results["passed_checks"]), skipped, faults


def main():
    command, why = renderer()
    if not command:
        print(f"check.py: nothing was checked: {why}", file=sys.stderr)
        return 2
    found = 0
    # Beneath the manifests, since kustomize takes no absolute paths.
    with tempfile.TemporaryDirectory(dir=KUBERNETES, prefix=".check-") as folder:
        for name, objects in variants(folder):
            manifests = Manifests(objects)
            faults = list(schema_faults(objects))
            passed, skipped, policies = checkov(objects, folder)
            faults += policies
            for module in (kube_linter, kube_score):
                faults += [": ".join(finding) for finding in module.findings(manifests)]
                faults += module.unused_exceptions(manifests)
            faults += [f"without a reason: {line}" for line in skipped if line.endswith((": None", ": "))]
            print(f"{name}: {len(objects)} objects; checkov: {passed} passed, {len(skipped)} excepted; "
                  f"{len(kube_linter.CHECKS)} checks of kube-linter, {len(kube_score.CHECKS)} of kube-score; "
                  f"{len(faults)} faults")
            for line in skipped:
                print(f"  excepted: {line}")
            for fault in faults:
                print(f"  FAULT: {fault}")
            found += len(faults)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
