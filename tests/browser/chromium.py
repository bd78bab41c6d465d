"""The browser of these tests: Debian's Chromium, never one that playwright downloads."""

import shutil
from pathlib import Path

from tests import npm
from tests.cluster.packages import CannotInstall, need, program

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What it is called elsewhere than on Debian."""

ARGUMENTS = ("--disable-dev-shm-usage", "--disable-gpu", "--font-render-hinting=none")
"""What it is started with: /dev/shm of a container is too small. playwright adds --no-sandbox, which root needs."""


class NoBrowser(Exception):
    """There is none; the message says what to do."""


def chromium() -> str:
    """Its path; root gets it from Debian. Raises NoBrowser."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        try:
            need("chromium", "fonts-liberation")
        except CannotInstall as failure:
            raise NoBrowser(f"no Chromium: {failure}") from failure
        found = program("chromium")
    return found


def axe() -> str:
    """The source of axe-core, which looks for what people with disabilities meet. Raises NoBrowser."""
    try:
        return (npm.installed(HERE) / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    except npm.CannotInstall as failure:
        raise NoBrowser(f"no axe-core: {failure}") from failure
