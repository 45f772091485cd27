"""Makes the gRPC stubs, which are a package of their own, before anything looks for it; the rest is in pyproject.toml."""

import os
import sys

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from generate_stubs import generate  # noqa: E402

generate(HERE)
setup()
