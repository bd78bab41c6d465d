"""The detached process behind one build: `python -m bridge.local.supervisor BUILD_DIR`.

It claims the build, makes the sources, runs the worker and writes its exit code. Whoever wants to know how it
goes reads the build's folder; nobody waits for this process, and it survives whoever started it.

At most one worker: only the first claim counts, and a claim is on the disk before anything starts. The worker
dies with this process, at once and however that ends, since the kernel kills it then: a build whose supervisor is
gone has no worker left. Told to stop (SIGTERM), or with a worker that somebody told to stop, it leaves no
result: the build is lost, which is no failure of the build.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bridge.errors import BridgeError, Misconfigured, NotFound
from bridge.local import containers, processes
from bridge.local.folders import MARK, BuildFolder, Claim, Result
from bridge.local.sources import Wanted, make_source

EXIT_NO_SOURCE = 66
"""The source or the revision is not there (sysexits' EX_NOINPUT)."""
EXIT_SOURCE_UNAVAILABLE = 69
"""The source could not be fetched (EX_UNAVAILABLE)."""
EXIT_MISCONFIGURED = 78
"""This machine or the project has to be changed (EX_CONFIG)."""
EXIT_NOT_STARTED = 127
"""The worker could not be started, as a shell would say it."""

GRACE_SECONDS = 5.0
"""How long a worker that was told to stop has to stop its jobs."""

_TOLD_TO_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_DISK_FULL_PAUSE_SECONDS = 1.0
_DEFAULT_SCRIPT = "brigade.js"


class Stopped(BaseException):
    """A signal told this process to end. Not an Exception: nothing on the way may take it for a failure."""


@dataclass(frozen=True)
class Orders:
    """What `orders.json` says; `ProcessBuilds` writes it."""

    worker: tuple[str, ...]
    """The command, without the build's folder."""
    engine: tuple[str, ...]
    """The container engine's command; empty if jobs run on the host."""
    mirrors: str
    pin: str
    source: str
    script: str
    """Relative to the source, or to the project's folder where the source has none."""
    project_folder: str
    commit: str
    ref: str
    withheld: tuple[str, ...]
    """What no job gets of a plain source folder."""
    build: Mapping[str, object] = field(repr=False)
    """`build.json`, but for what is known only after the checkout."""
    token: str = field(repr=False)
    grace_seconds: float

    def as_dict(self) -> dict[str, object]:
        """As a JSON file holds it."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return {**vars(self), **lists, "build": dict(self.build)}

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> "Orders":
        """Read `as_dict` again. Raises TypeError or ValueError."""
        build = value["build"]
        if not isinstance(build, dict):
            raise ValueError("orders without a build")  # noqa: TRY004 - a file is wrong
        texts = {name: str(value[name]) for name in _TEXTS}
        lists = {name: _words(value[name]) for name in _LISTS}
        grace = float(str(value["grace_seconds"]))
        return cls(build=build, grace_seconds=grace, **texts, **lists)  # type: ignore[arg-type]


_LISTS = ("worker", "engine", "withheld")
_TEXTS = ("mirrors", "pin", "source", "script", "project_folder", "commit", "ref", "token")


def main(argv: list[str]) -> int:
    """Supervise the build in the folder that `argv[1]` names, unless somebody did or it was given up."""
    folder = BuildFolder(Path(argv[1]))
    with suppress(PermissionError):
        os.setsid()
    os.umask(0o077)
    _take_signals()
    # The shell that started this ignores it, and the worker would inherit that.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    try:
        if not claimed(folder):
            return os.EX_OK
        return supervise(folder)
    except Stopped:
        return os.EX_TEMPFAIL
    except FileNotFoundError:
        # Its run was forgotten.
        return os.EX_NOINPUT


def claimed(folder: BuildFolder) -> bool:
    """Whether this process is the one that may start the build's worker."""
    myself = processes.identity_of(os.getpid())
    if myself is None or not folder.make_claim(Claim(time.time(), myself)):
        return False
    # A tombstone that is written after this look finds the claim, and ends us.
    return folder.tombstone() is None


def supervise(folder: BuildFolder) -> int:
    """Run the claimed build to its end and write that down. Raises Stopped, and then leaves no result."""
    found = folder.orders()
    if found is None:
        return os.EX_NOINPUT
    orders = Orders.from_dict(found)
    with folder.log.open("ab", buffering=0) as log:
        try:
            exit_code = _built(folder, orders, log.fileno())
        except Exception as error:
            # Nobody sees this process's own output.
            _say(log.fileno(), f"the supervisor broke: {type(error).__name__}: {str(error)[:200]}")
            raise
        finally:
            _clear(folder, orders)
        if exit_code is None:
            _say(log.fileno(), "the worker was told to stop: this build is lost")
            return os.EX_TEMPFAIL
        _write_result(folder, Result(exit_code, time.time()), log.fileno())
    with suppress(OSError):
        folder.sweep()
    return os.EX_OK


def _built(folder: BuildFolder, orders: Orders, log: int) -> int | None:
    """The worker's exit code, or that of what kept it from starting; None if somebody told it to stop."""

    def say(text: str) -> None:
        _say(log, text)

    withheld = tuple(map(Path, orders.withheld))
    wanted = Wanted(orders.source, orders.commit, orders.ref, orders.token, withheld)
    try:
        source = make_source(
            wanted, target=folder.checkout, mirrors=Path(orders.mirrors), pin=Path(orders.pin), say=say
        )
    except BridgeError as error:
        say(str(error))
        return _exit_code_for(error)
    script = _script(orders, source.folder, fallback=folder.path)
    if not script.is_file():
        say(f"there is no {orders.script} in the source or the project's folder: nothing can handle the event")
    folder.write_build({**orders.build, "script": str(script), "source": source.folder})
    try:
        return _worked(folder, orders, log)
    except OSError as error:
        say(f"cannot start the worker with {orders.worker[0]}: {error.strerror}")
        return EXIT_NOT_STARTED


def _script(orders: Orders, source: str, *, fallback: Path) -> Path:
    """The script: of the source, else of the project's folder (facts/brigade.md, 3)."""
    candidates = []
    if source:
        candidates.append(Path(source, orders.script))
    if orders.project_folder:
        candidates += [Path(orders.project_folder, orders.script), Path(orders.project_folder, _DEFAULT_SCRIPT)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    # The worker takes one that is not there for an empty one, as Brigade does.
    return fallback / _DEFAULT_SCRIPT


def _worked(folder: BuildFolder, orders: Orders, log: int) -> int | None:
    # A worker that runs while nobody holds it yet could not be told to stop, only be killed.
    told = _hold_signals()
    try:
        worker = subprocess.Popen(
            [*orders.worker, str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder.path,
            env=_worker_environment(folder),
            process_group=0,
            preexec_fn=processes.dies_with_parent(),  # noqa: PLW1509 - this process has one thread
        )
    except OSError:
        _take_signals()
        raise
    try:
        _take_signals()
        if told:
            raise Stopped  # noqa: TRY301 - as if it had come now
        code = _ended(worker, folder)
    except BaseException:
        _ignore_signals()
        worker.terminate()
        with suppress(subprocess.TimeoutExpired):
            worker.wait(orders.grace_seconds)
        worker.kill()
        worker.wait()
        raise
    if -code in _TOLD_TO_STOP or code - 128 in _TOLD_TO_STOP:
        return None
    return code if code >= 0 else 128 - code


def _ended(worker: "subprocess.Popen[bytes]", folder: BuildFolder) -> int:
    identity = processes.identity_of(worker.pid)
    if identity is not None:
        # Only a give-up reads it, and the worker ends with this process anyway.
        with suppress(OSError):
            folder.write_worker(identity)
    return worker.wait()


def _clear(folder: BuildFolder, orders: Orders) -> None:
    """End what the worker left behind, as the end of its pod would."""
    has_jobs = bool(orders.engine and folder.job_files())
    if has_jobs:
        # First: what watches over a container removes it, and is ended below.
        with suppress(BridgeError):
            containers.remove_containers(orders.engine, folder.path.name)
    left = processes.marked(folder.marks)
    processes.kill(left)
    if has_jobs and left:
        # A client that was just killed may have started its container meanwhile.
        processes.wait_until_gone(left, seconds=1.0)
        with suppress(BridgeError):
            containers.remove_containers(orders.engine, folder.path.name)


def _write_result(folder: BuildFolder, result: Result, log: int) -> None:
    """Write the result down, however long the disk is full: a build without one is made again."""
    while True:
        try:
            # A success is judged by the log.
            os.fsync(log)
            folder.write_result(result)
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(_DISK_FULL_PAUSE_SECONDS)
        else:
            return


def _exit_code_for(error: BridgeError) -> int:
    if isinstance(error, NotFound):
        return EXIT_NO_SOURCE
    if isinstance(error, Misconfigured):
        return EXIT_MISCONFIGURED
    return EXIT_SOURCE_UNAVAILABLE


def _worker_environment(folder: BuildFolder) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**env, MARK: f"{folder.path}/"}


def _say(log: int, text: str) -> None:
    # A full disk costs a line, not the build.
    with suppress(OSError):
        os.write(log, f"[bridge] {text}\n".encode("utf-8", "replace"))


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("orders without a list")
    return tuple(str(word) for word in value)


def _take_signals() -> None:
    for number in _TOLD_TO_STOP:
        signal.signal(number, _stop)


def _hold_signals() -> list[int]:
    """Let signals wait: those that came are in the list."""
    told: list[int] = []
    for number in _TOLD_TO_STOP:
        signal.signal(number, lambda came, _frame: told.append(came))
    return told


def _stop(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Stopped


def _ignore_signals() -> None:
    for number in _TOLD_TO_STOP:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
