"""The demo as a person runs it, and that it notices when a promise is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.without import VIRTUES

ROOT = Path(__file__).parents[2]
PROMISES = {
    "dedupe": "a repeat is answered with the run that is there",
    "retry": "the run succeeds, not failed",
    "recovery": "comes to that within",
}


def demo(tmp_path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    told = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200", **environment}
    argv = [sys.executable, "-m", "bridge.cli", "demo", *options]
    return subprocess.run(argv, cwd=ROOT, env=told, text=True, capture_output=True, timeout=280, check=False)


def test_the_demo_shows_what_the_readme_says(tmp_path):
    ended = demo(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for shown in ("Run 1:", "Run 2:", "Run 2 again:", "SIGKILL", "Run 3:", "All of that was as promised"):
        assert shown in ended.stdout
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


@pytest.mark.parametrize("virtue", VIRTUES)
def test_without_a_virtue_the_demo_fails(virtue, tmp_path):
    server = f"{sys.executable} -m tests.demo.without {virtue}"
    ended = demo(tmp_path, "--patience", "60", BRIDGE_DEMO_SERVER=server, PYTHONPATH=str(ROOT))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert PROMISES[virtue] in " ".join(ended.stdout.split())
