"""Debian packages that a few tests need, installed when they are missing."""

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.cluster.building import say

PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iproute2": "ip",
    "iptables": "iptables",
    "util-linux": "unshare",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "chromium": "chromium",
    "fonts-liberation": "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
}
"""Each with the file, or the program on the PATH, that says that it is there."""
TRIES = 4
LOCK = Path("/run/lock/brigade-argo-bridge-packages")
APT = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=5"]
APT_SECONDS = 900


class CannotInstall(Exception):
    """A package is missing and cannot be had; the message says what to do."""


def need(*packages: str) -> None:
    """See to it that these Debian packages are there. Raises CannotInstall."""
    if not _missing(packages):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotInstall(
            f"not installed: {', '.join(_missing(packages))}; install it as root and run this again"
        )
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing := _missing(packages):
            _install(missing)


def program(name: str) -> str:
    """Path of a program that a package brought; its bare name if there is none."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]  # a person's PATH may lack the last two
    return shutil.which(name, path=os.pathsep.join(places)) or name


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if not _is_there(program(PACKAGES[package]))]


def _is_there(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).exists()


def _install(packages: list[str]) -> None:
    say(f"installing Debian packages: {', '.join(packages)}")
    for left in reversed(range(TRIES)):
        # A mirror that moved on since the last update, and a dpkg that was interrupted, are the usual reasons to fail.
        _run(["dpkg", "--configure", "-a"])
        _run([*APT, "update"])
        done = _run([*APT, "install", "--no-install-recommends", *packages])
        if done.returncode == 0 and not (still := _missing(tuple(packages))):
            return
        if left:
            time.sleep(5)
    said = f"still missing: {', '.join(still)}" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]
    raise CannotInstall(
        f"apt-get install {' '.join(packages)} ended with {done.returncode}; install them by hand: {said}"
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=APT_SECONDS
    )
