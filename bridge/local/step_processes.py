"""The processes of steps and exit handlers: children of the engine that never outlive it.

Each is put on a leash (`leash.py`): the kernel kills it when the engine's thread ends, however that happens. A
step is idempotent and its build is a process of its own, so that this costs nothing (design.md, A step).
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import Unavailable
from bridge.local import leash, processes

Key = tuple[str, str]
"""The Workflow's name and the node's."""

_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
_LOOK_AGAIN_SECONDS = 0.02
_KILLED_SECONDS = 5.0


@dataclass
class Child:
    """A process that was started here."""

    key: Key
    pid: int
    log: Path
    identity: processes.Identity | None
    """None: it had ended before anybody could look."""
    go: int = -1
    """The pipe that it waits at for a byte; -1 once it got one."""
    exited: bool = False
    code: int | None = None
    """Its exit code, 128 + n after signal n; None also if somebody else collected it."""
    timed_out: bool = False
    """It was told to end because of its own timeout."""
    kill_at: float | None = None
    """When patience with its end is over; None: it was not told to end."""


class StepProcesses:
    """Starts, watches and ends children. Used by one thread, which has to live as long as they.

    Args:
        grace_seconds: between SIGTERM and SIGKILL.

    """

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._children: dict[Key, Child] = {}
        self._discarded: list[Child] = []

    def of(self, workflow: str) -> dict[str, Child]:
        """The children of a Workflow by node, also those that ended and are not forgotten yet."""
        return {node: child for (owner, node), child in self._children.items() if owner == workflow}

    def count(self, *, node: str) -> tuple[int, int]:
        """How many children there are for other nodes than `node`, and how many for it."""
        those = sum(name == node for _, name in self._children)
        return len(self._children) - those, those

    def start(self, key: Key, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> Child:
        """Make a process for a command in `folder`, its output appended to `log`. It waits for `release`.

        Raises Unavailable.
        """
        argv = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(folder), *command]
        with contextlib.ExitStack() as files:
            try:
                handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                files.callback(os.close, handle)
                ready, go = os.pipe()
                files.callback(os.close, ready)
            except OSError as exc:
                raise Unavailable(f"the log {log} cannot be written ({exc.strerror}); see to its disk") from exc
            try:
                pid = os.posix_spawn(
                    sys.executable,
                    argv,
                    dict(env),
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, ready, 0),
                        (os.POSIX_SPAWN_DUP2, handle, 1),
                        (os.POSIX_SPAWN_DUP2, handle, 2),
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_DEFAULT_SIGNALS,
                )
            except (OSError, ValueError) as exc:
                os.close(go)
                raise Unavailable(
                    f"{command[0]} cannot be started ({exc}); see whether this machine has room for a process"
                ) from exc
        child = self._children[key] = Child(key, pid, log, processes.identity_of(pid), go)
        return child

    def release(self, child: Child) -> None:
        """Who it is has been written down: let it run."""
        # It may have been killed meanwhile; then its end tells that.
        with contextlib.suppress(BrokenPipeError):
            os.write(child.go, b"!")
        os.close(child.go)
        child.go = -1

    def discard(self, child: Child) -> None:
        """It could not be written down: it ends without having run."""
        os.close(child.go)
        child.go = -1
        self._children.pop(child.key, None)
        self._discarded.append(child)

    def look(self) -> bool:
        """Collect those that ended, kill those that were told to end and did not; whether any ended."""
        for child in self._discarded:
            _collect(child)
        self._discarded = [child for child in self._discarded if not child.exited]
        found = False
        for child in self._children.values():
            if child.exited:
                continue
            _collect(child)
            found = found or child.exited
            if not child.exited and child.kill_at is not None and time.monotonic() >= child.kill_at:
                _signal(child, signal.SIGKILL)
        return found

    def end(self, child: Child, *, timed_out: bool = False) -> None:
        """Tell a child to end; again is harmless."""
        if child.exited or child.kill_at is not None:
            return
        child.timed_out = timed_out
        child.kill_at = time.monotonic() + self._grace_seconds
        _signal(child, signal.SIGTERM)

    def forget(self, child: Child) -> None:
        """Its end is written down. What it left behind in its process group ends with it, as in a pod."""
        if child.identity is not None:
            processes.kill(processes.group_of(child.identity))
        self._children.pop(child.key, None)

    def end_all(self) -> list[Child]:
        """End all, wait for it, and answer them."""
        for child in self._children.values():
            self.end(child)
        over = time.monotonic() + self._grace_seconds + _KILLED_SECONDS
        while time.monotonic() < over and not all(child.exited for child in self._all()):
            self.look()
            time.sleep(_LOOK_AGAIN_SECONDS)
        return list(self._children.values())

    def _all(self) -> list[Child]:
        return [*self._children.values(), *self._discarded]


def end_left_over(left: Sequence[processes.Identity]) -> None:
    """Kill what an engine before this one left behind: its leash holds the step, not what the step started."""
    members = [member for leader in left for member in processes.group_of(leader)]
    processes.kill(members)
    processes.wait_until_gone(members, seconds=_KILLED_SECONDS)


def _collect(child: Child) -> None:
    try:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
    except ChildProcessError:
        # Somebody else in this process collected it, or SIGCHLD is ignored: nobody knows how it ended.
        child.exited = True
        return
    if pid:
        code = os.waitstatus_to_exitcode(status)
        child.exited, child.code = True, code if code >= 0 else 128 - code


def _signal(child: Child, number: signal.Signals) -> None:
    """To its whole group. It is not collected yet, so the number is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
