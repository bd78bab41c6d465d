"""One control plane for several processes: a process of its own holds it for as long as somebody uses it, or until told.

Everything hangs on file locks, which the kernel lets go of when a process dies, however it dies:
`users.lock` is shared by those who use the control plane; the holder ends when it can take it for itself alone.
`holder.lock` is the holder's for life: whoever finds it free knows that control-plane.json is stale.
`starting.lock` makes one of several first users start the holder.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tests.cluster.control_plane import CannotStart, ControlPlane, Processes
from tests.cluster.node import Node

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60
POLL_SECONDS = 0.2


@contextlib.contextmanager
def using(folder: Path, *, own_crds: bool = False, node: bool = False) -> Iterator[ControlPlane]:
    """The control plane of this folder, started by the first of its users and stopped after the last has left or died.

    `own_crds`: the first starts it with our small CRDs, also where Argo's are at hand. `node`: and with a node.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / "users.lock", fcntl.LOCK_SH):
            yield _running_or_started(folder, "--while-used", *_chosen(own_crds=own_crds, node=node))
    finally:
        _await_end_if_last(folder)


def up(folder: Path, *, own_crds: bool = False, node: bool = False) -> ControlPlane:
    """The control plane of this folder, started if it does not run (with what: see `using`); it runs on until `down`."""
    folder.mkdir(parents=True, exist_ok=True)
    return _running_or_started(folder, *_chosen(own_crds=own_crds, node=node))


def down(folder: Path) -> bool:
    """Stop the control plane of this folder and wait for its end; False if none runs."""
    if not running(folder):
        return False
    os.kill(_state(folder)["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_held(folder / "holder.lock"):
        if time.monotonic() > deadline:
            raise CannotStart(
                f"the control plane of {folder} did not end in {STOP_SECONDS} s: see holder.log there"
            )
        time.sleep(POLL_SECONDS)
    return True


def running(folder: Path) -> ControlPlane | None:
    """The control plane of this folder, if one runs."""
    if not _is_held(folder / "holder.lock"):
        return None
    try:
        state = _state(folder)
    except FileNotFoundError:
        return None
    paths = {key: Path(state[key]) for key in ("folder", "kubeconfig")}
    return ControlPlane(url=state["url"], admin_token=state["admin_token"], strict=state["strict"], **paths)


def hold(folder: Path, *, while_used: bool, own_crds: bool, node: bool = False) -> None:
    """Start a control plane, or a node with one, and return once it is ready; a process that goes on without us holds it.

    Only for a process that does nothing else, as it forks and never comes back (`python -m tests.cluster hold`).
    Its exit code is 0 when the control plane is ready.
    """
    ready, tell_ready = os.pipe()
    if os.fork():
        os.close(tell_ready)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    with _locked(folder / "holder.lock", fcntl.LOCK_EX):
        processes = (
            Node(folder, own_crds=own_crds) if node else Processes(folder, strict=False if own_crds else None)
        )
        with processes as control_plane:
            _write_state(folder, control_plane)
            os.write(tell_ready, b"1")
            with (folder / "users.lock").open("a") as users:
                _wait(processes, users if while_used else None)
                (folder / "control-plane.json").unlink(missing_ok=True)
                processes.stop()  # while nobody can begin to use it
        os._exit(0)  # the lock goes with the process, not before it


def _chosen(*, own_crds: bool, node: bool) -> list[str]:
    return [*(["--own-crds"] if own_crds else []), *(["--node"] if node else [])]


def _running_or_started(folder: Path, *options: str) -> ControlPlane:
    with _locked(folder / "starting.lock", fcntl.LOCK_EX):
        if control_plane := running(folder):
            return control_plane
        with (folder / "holder.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "tests.cluster", "hold", str(folder), *options],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        control_plane = running(folder)
        if done.returncode != 0 or control_plane is None:
            said = (folder / "holder.log").read_text(errors="replace")
            raise CannotStart(f"no control plane in {folder}; the end of holder.log: {said[-4000:]}")
        return control_plane


def _wait(processes: Processes | Node, users: IO[str] | None) -> None:
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    while signal.sigtimedwait(ends, POLL_SECONDS) is None:
        if name := processes.ended():
            print(f"{name} ended by itself: stopping the others", file=sys.stderr, flush=True)
            return
        if users and _take(users, fcntl.LOCK_EX):
            return


def _await_end_if_last(folder: Path) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while _is_held(folder / "holder.lock") and time.monotonic() < deadline:
        with (folder / "users.lock").open("a") as users:
            # Nobody else: the holder has not looked yet. Not even shared: it is stopping.
            nobody_else = _take(users, fcntl.LOCK_EX)
            if not nobody_else and _take(users, fcntl.LOCK_SH):
                return
        time.sleep(POLL_SECONDS)


def _state(folder: Path) -> dict:
    return json.loads((folder / "control-plane.json").read_text())


def _write_state(folder: Path, control_plane: ControlPlane) -> None:
    written = folder / "control-plane.json.new"
    written.touch(mode=0o600)
    written.write_text(json.dumps({**asdict(control_plane), "pid": os.getpid()}, default=str))
    written.replace(folder / "control-plane.json")


@contextlib.contextmanager
def _locked(file: Path, how: int) -> Iterator[None]:
    with file.open("a") as lock:
        fcntl.flock(lock, how)
        yield


def _take(lock: IO[str], how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(file: Path) -> bool:
    if not file.exists():
        return False
    with file.open("a") as lock:
        return not _take(lock, fcntl.LOCK_SH)
