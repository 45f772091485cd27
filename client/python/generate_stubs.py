#!/usr/bin/env python3
"""Generates the stubs of the API, tundra/v1/*_pb2.py and *_pb2_grpc.py.

  generate_stubs.py DIR    into DIR/tundra/v1

Uses grpcio-tools where it is installed, else protoc with grpc_python_plugin (Debian: protobuf-compiler-grpc).
"""

import os
import shutil
import subprocess
import sys

PROTO = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../proto"))


def _compiler():
    try:
        import grpc_tools.protoc  # noqa: F401

        return [sys.executable, "-m", "grpc_tools.protoc"]
    except ImportError:
        pass
    protoc, plugin = shutil.which("protoc"), shutil.which("grpc_python_plugin")
    if protoc and plugin:
        return [protoc, f"--plugin=protoc-gen-grpc_python={plugin}"]
    raise SystemExit("generate_stubs: neither grpcio-tools nor protoc with grpc_python_plugin is here; "
                     "pip install grpcio-tools, or apt-get install protobuf-compiler-grpc")


def generate(out):
    """Writes the stubs beneath `out`; returns their folder."""
    if not os.path.isdir(PROTO):
        raise SystemExit(f"generate_stubs: {PROTO} is not there: install from a whole checkout")
    folder = os.path.join(out, "tundra", "v1")
    os.makedirs(folder, exist_ok=True)
    files = sorted(f for f in os.listdir(os.path.join(PROTO, "tundra", "v1")) if f.endswith(".proto"))
    subprocess.run([*_compiler(), f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}",
                    *(f"tundra/v1/{name}" for name in files)], check=True)
    with open(os.path.join(folder, "__init__.py"), "w", encoding="utf-8") as file:
        file.write('"""Generated: messages and stubs of the API."""\n')
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    print(generate(sys.argv[1]))
