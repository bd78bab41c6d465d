"""The folder in which gunicorn's workers share their counters: in memory, and gone with the server.

prometheus_client maps its files into memory, and writing to such a file on a full disk kills the process. So
the folder is in shared memory where there is some. A killed server leaves its folder behind; the next start
takes it away.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""What prometheus_client reads, once, when it is imported."""

_PREFIX = "bridge-counters-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
_SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class CounterFiles:
    """A folder of our own, marked as in use by a lock that ends with the last process that has it open."""

    folder: Path
    lock: int

    def remove(self) -> None:
        """Remove the folder; gone already is fine."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def open_counter_files(inside: Path | None = None) -> CounterFiles:
    """Make a new folder, in `inside` or else in memory or in the temporary folder, and remove abandoned ones."""
    parent = inside or _usable(_SHARED_MEMORY) or Path(tempfile.gettempdir())
    for other in parent.glob(f"{_PREFIX}*"):
        _remove_if_abandoned(other)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    return CounterFiles(folder, _locked(folder))


def _usable(folder: Path) -> Path | None:
    return folder if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else None


def _locked(folder: Path) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _remove_if_abandoned(folder: Path) -> None:
    # Whoever cannot be looked at or is locked is somebody else's; a young one may not have its lock yet.
    with contextlib.suppress(OSError):
        if time.time() - folder.lstat().st_mtime < _SETTLED_SECONDS:
            return
        CounterFiles(folder, _locked(folder)).remove()
