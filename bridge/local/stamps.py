"""Whether a file is still the one that was read."""

from pathlib import Path

Stamp = tuple[int, int, int, int] | None
"""What tells two states of a file apart; None is no file, or one that cannot be looked at."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of `path` now. Take it before reading: what changes meanwhile is then read again."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
