"""Processes of this machine: who one is for good, whether it lives, how it ends. Linux only (/proc, prctl)."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import Misconfigured

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_STATE, _GROUP, _STARTED = 0, 2, 19
"""Where /proc/PID/stat has them, counted after the command's name."""
_DEAD_STATES = frozenset("ZX")
_LOOK_AGAIN_SECONDS = 0.02
_OUTPUT_TAIL = 8192
_LAST_WORDS_SECONDS = 1.0


@dataclass(frozen=True)
class Identity:
    """One process for good: a number is given to another process some day, number and start are not."""

    pid: int
    start: int
    """In clock ticks since the machine started (proc(5), field 22)."""
    boot: str
    """Which start of the machine that was."""

    def as_dict(self) -> dict[str, object]:
        """As a JSON file holds it."""
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> "Identity":
        """Read `as_dict` again. Raises ValueError."""
        pid, start, boot = value.get("pid"), value.get("start"), value.get("boot")
        if not (isinstance(pid, int) and isinstance(start, int) and isinstance(boot, str)):
            raise ValueError("not a process's identity")  # noqa: TRY004 - a file is wrong, not its reader
        return cls(pid, start, boot)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Its exit code, negative for a signal; None if it took too long and was killed."""
    output: str
    """The end of what it wrote to stdout and stderr together."""


def require_linux() -> None:
    """Raise Misconfigured where processes cannot be told apart for good."""
    if not (_PROC / "self/stat").exists():
        raise Misconfigured("running builds on one machine needs Linux with /proc mounted: use a Linux machine")


def identity_of(pid: int) -> Identity | None:
    """Who has this number now; None if nobody, or one that has ended and only waits to be collected."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in _DEAD_STATES:
        return None
    return Identity(pid, int(fields[_STARTED]), _boot())


def is_alive(one: Identity) -> bool:
    """Whether that very process still runs."""
    return identity_of(one.pid) == one


def send(one: Identity, number: signal.Signals) -> None:
    """Send a signal to that very process; it being gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(one.pid)
        try:
            # Behind the handle the number cannot pass to a stranger between the look and the signal.
            if is_alive(one):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def wait_until_gone(processes: Sequence[Identity], *, seconds: float) -> bool:
    """Wait until none of them is left; False if that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while any(is_alive(one) for one in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AGAIN_SECONDS)
    return True


def end(processes: Sequence[Identity], *, grace_seconds: float) -> bool:
    """SIGTERM, and SIGKILL for those that are there after `grace_seconds`; whether all are gone then."""
    for one in processes:
        send(one, signal.SIGTERM)
    if wait_until_gone(processes, seconds=grace_seconds):
        return True
    for one in processes:
        send(one, signal.SIGKILL)
    return wait_until_gone(processes, seconds=grace_seconds)


def kill(processes: Sequence[Identity]) -> None:
    """SIGKILL, without waiting for what comes of it."""
    for one in processes:
        send(one, signal.SIGKILL)


def marked(marks: Sequence[str]) -> list[Identity]:
    """All processes of ours that were started with one of these beginnings of an environment entry.

    This finds also those that left their session and process group; not those that emptied their environment.
    """
    beginnings = tuple(mark.encode() for mark in marks)
    found = []
    for pid in _pids():
        identity = identity_of(pid)
        if identity is None or pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
            if any(entry.startswith(beginnings) for entry in entries) and is_alive(identity):
                found.append(identity)
    return found


def group_of(leader: Identity) -> list[Identity]:
    """The living members of the process group that `leader` began.

    Where its number has passed to another process, they are nobody's we know: none.
    """
    if leader.boot != _boot():
        return []
    now = identity_of(leader.pid)
    if now is not None and now != leader:
        return []
    members = []
    for pid in _pids():
        fields = _stat(pid)
        identity = identity_of(pid)
        if fields is not None and identity is not None and int(fields[_GROUP]) == leader.pid:
            members.append(identity)
    return members


def dies_with_parent() -> Callable[[], None]:
    """A `preexec_fn`: the kernel kills the child when this process ends, however that happens.

    Only for processes of one thread: the child would die with the thread that made it.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(os.EX_OSERR)

    return before_exec


def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    with_parent: bool = False,
) -> Ended:
    """Run a command to its end, or kill it and what it started in its group.

    Raises OSError if it cannot be started.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=cwd,
        process_group=0,
        preexec_fn=dies_with_parent() if with_parent else None,  # noqa: PLW1509 - its callers have one thread
    )
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            return Ended(None, _tail(_last_words(process)))
        except BaseException:
            _kill_group(process)
            raise
    return Ended(process.returncode, _tail(output))


def spawn_detached(argv: Sequence[str], *, env: Mapping[str, str]) -> None:
    """Start a command that nobody waits for, in a session of its own, and come back at once.

    Raises OSError if it cannot be started.
    """
    # The shell ends at once, so that the command is nobody's child here and leaves no zombie behind.
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" &', "sh", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(env),
        cwd="/",
        start_new_session=True,
    )
    if shell.wait() != 0:
        raise OSError(f"/bin/sh could not start {argv[0]}")


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    # Not collected yet, so the number is still its own.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _last_words(process: "subprocess.Popen[bytes]") -> bytes:
    try:
        return process.communicate(timeout=_LAST_WORDS_SECONDS)[0]
    except subprocess.TimeoutExpired as error:
        # Something that left the group holds the pipe open.
        return error.output or b""


def _tail(output: bytes) -> str:
    return output[-_OUTPUT_TAIL:].decode("utf-8", "replace").strip()


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The command's name is in parentheses and may contain anything, these too.
    return text.rpartition(")")[2].split()


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
