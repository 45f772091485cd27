#!/usr/bin/env python3
"""Reads the dashboards of deploy/monitoring with the types of Grafana's own SDK and writes them
again: a key that is lost or changed on the way is one that Grafana doesn't have.

    tests/deploy/setup && build/deploy-venv/bin/python tests/deploy/dashboards.py

Exit code 0 when nothing is found."""

import glob
import json
import os
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# Of the data source rather than of the dashboard: the SDK has no type for those of Prometheus.
EXCEPT = {"/annotations/list/*/titleFormat"}


def differences(written, read, path=""):
    """(path, what) of every value of `written` that `read` lacks or has otherwise."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                yield from differences(value, read[key], f"{path}/{key}")
            elif f"{path}/{key}" not in EXCEPT:
                yield f"{path}/{key}", "is no key of Grafana's"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for value, other in zip(written, read):
            yield from differences(value, other, f"{path}/*")
    elif written != read:
        yield path, f"{json.dumps(written)[:60]} is read as {json.dumps(read)[:60]}"


def faults(board):
    return sorted(set(differences(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board))))))


def main():
    register_default_plugins()
    found = 0
    for path in sorted(glob.glob(os.path.join(ROOT, "deploy/monitoring/dashboards/*.json"))):
        with open(path, encoding="utf-8") as file:
            board = json.load(file)
        here = faults(board)
        # That the comparison sees what it is for.
        board["panels"][0]["noSuchKey"] = 1
        assert len(faults(board)) == len(here) + 1, "an unknown key is not found"
        print(f"{os.path.basename(path)}: {len(board['panels'])} panels, {len(here)} faults")
        for where, what in here:
            print(f"  FAULT: {where} {what}")
        found += len(here)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
