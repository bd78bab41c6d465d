"""Puts htmx beside the pages' other static files, wherever the package is built or installed from its sources.

Nothing fetched is committed: the file comes from the locked package of requirements-web.lock, whose Python part is
not used and whose dependencies are not installed.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "django-htmx"
FILE = "django_htmx/static/django_htmx/htmx-2.min.js"
SHA256 = "71ea67185bfa8c98c39d31717c6fce5d852370fcdfd129db4543774d3145c0de"
"""Of htmx 2.0.10, byte by byte what htmx's own package on npm has."""
PLACE = "bridge/web/static/htmx.min.js"


class WithHtmx(BuildHookInterface):
    """hatch's custom build hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatch's signature
        """Write the file into the tree, from which the wheel takes it."""
        place = Path(self.root, PLACE)
        if place.is_file() and _is_locked(place.read_bytes()):
            return
        content = _found()
        if not _is_locked(content):
            raise ValueError(f"{FILE} of {PACKAGE} is not the file that hatch_build.py names; see pyproject.toml")
        place.write_bytes(content)


def _is_locked(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == SHA256


def _found() -> bytes:
    try:
        return Path(str(distribution(PACKAGE).locate_file(FILE))).read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"htmx is missing: pip install --no-deps --require-hashes -r requirements-web.lock ({error})"
        ) from error
