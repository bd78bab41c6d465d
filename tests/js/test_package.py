"""The package's own tests are JavaScript; this runs them, each file on the oldest and the newest Node it supports."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.js.nodes import PACKAGE, TESTS, VERSIONS, node, runner

# Generous: the longest takes some 15 seconds on an idle machine, and CI is two loaded cores.
DEADLINE_SECONDS = 280
FILES = sorted(file.name for file in TESTS.glob("*.test.js"))
TOO_NEW = re.compile(r"\?\.(?!\d)|\?\?|\|\|=|&&=|rmSync|fs\.promises\.rm\b|replaceAll|\.at\(|node:")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES)
def test_the_packages_own_tests_pass(tmp_path: Path, version: str, file: str) -> None:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "DURABLE_NODE": node(version),
    }
    ran = subprocess.run(
        [runner(), "--test", str(TESTS / file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout[-20_000:]}\n{ran.stderr[-5_000:]}"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_module_is_read_by_the_oldest_and_the_newest_node(version: str) -> None:
    for module in sorted(PACKAGE.glob("*.js")) + sorted(PACKAGE.glob("lib/*.js")):
        subprocess.run([node(version), "--check", str(module)], check=True, timeout=DEADLINE_SECONDS)


def test_no_module_uses_what_the_oldest_node_does_not_have() -> None:
    for module in sorted(PACKAGE.glob("*.js")) + sorted(PACKAGE.glob("lib/*.js")):
        assert not TOO_NEW.search(module.read_text(encoding="utf-8")), module.name
