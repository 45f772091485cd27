"""What every maker of golden files shares: fixed bytes out, and the versions that made them.

A golden file must come out byte for byte the same when its script runs again with the same
versions, so JSON is written with one fixed layout and gzip without a name or a time.
"""

import gzip
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path

GOLDEN_DIR = Path(__file__).resolve().parent / "golden"


def dumps(value):
    """One line of JSON, UTF-8, no spaces, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_bytes(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_gz(path, data):
    """gzip -9n: no file name and no time in the header, so equal input gives equal bytes."""
    write_bytes(path, gzip.compress(data, compresslevel=9, mtime=0))


def write_jsonl_gz(path, rows):
    write_gz(path, "".join(dumps(row) + "\n" for row in rows).encode("utf-8"))


def write_json(path, value):
    """Indented JSON for files that people read too."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))


def write_versions(folder, packages, **extra):
    """versions.json: what made the files of this folder."""
    record = {"python": platform.python_version()}
    record.update({name: importlib.metadata.version(name) for name in packages})
    record.update(extra)
    write_json(folder / "versions.json", record)


def print_digests(folder):
    """Prints size and SHA-256 of every file below folder, to compare two runs."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder)
        print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>8}  {name}")
