"""Files that are there whole or not at all, also after a power cut.

The operating system's errors (OSError) pass through: callers say which act failed.
"""

import contextlib
import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_REMOVALS = 20

_numbers = itertools.count()


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, for its owner only, down to the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(path: Path, data: bytes) -> bool:
    """Make `path` with this content, whole; False, and nothing changed, if it was there already.

    Of many who do this at once exactly one is answered True.
    """
    with _written_beside(path, data) as half:
        try:
            os.link(half, path)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


def replace(path: Path, data: bytes) -> None:
    """Make `path` have this content: a reader sees the old or the new one."""
    with _written_beside(path, data) as half:
        half.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries down to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each for its owner only and on the disk before the next."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=PRIVATE_FOLDER)
    sync_folder(folder.parent)


def move_new(folder: Path, target: Path) -> bool:
    """Rename a complete, filled folder to `target`; False, and nothing changed, if that was there already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    sync_folder(target.parent)
    return True


def read_json(path: Path) -> dict[str, object] | None:
    """The JSON object in a file; None if there is no such file. Raises ValueError if it holds anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} does not hold a JSON object")  # noqa: TRY004 - a file is wrong
    return value


def as_json(value: Mapping[str, object]) -> bytes:
    """A JSON object as a file holds it."""
    return json.dumps(dict(value), ensure_ascii=True, indent=1).encode() + b"\n"


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; it being gone, or going, is fine.

    Raises OSError if something stays, such as files that a container wrote as root.
    """
    try:
        _remove(path)
    except PermissionError:
        # A job may leave folders that nobody may write to; they are ours all the same.
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(PRIVATE_FOLDER)
        _remove(path)


def _remove(path: Path) -> None:
    """As shutil.rmtree, beginning again when somebody else removes or adds something meanwhile."""
    for _ in range(_REMOVALS):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    shutil.rmtree(path)


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    half = path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}.half")
    # Left by a process of this number that died here.
    half.unlink(missing_ok=True)
    try:
        write_new(half, data)
        yield half
    finally:
        half.unlink(missing_ok=True)
