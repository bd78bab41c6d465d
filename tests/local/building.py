"""What the tests of builds on one machine share: a place for builds, quick workers, patience."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from bridge.core.builds import Build, BuildPhase, BuildSpec
from bridge.core.projects import Project
from bridge.errors import BridgeError
from bridge.local import processes
from bridge.local.builds import ProcessBuilds
from bridge.local.folders import BuildFolder
from tests.fakes import FakeProjects, some_event

PATIENCE_SECONDS = 60.0
ROOT = Path(__file__).parents[2]
PROJECT = Project(
    name="acme/widgets",
    id="brigade-w",
    secrets={"password": "of-the-script"},
    token="token-of-the-project",
    clone_url="https://git.example.com/acme/widgets.git",
)


class WallClock:
    """The machine's time."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


def shell(script: str) -> tuple[str, ...]:
    """A worker that is a shell script; $1 is the build's folder."""
    return ("/bin/sh", "-c", script, "worker")


def builds_in(
    state: Path, *, worker: str = "echo done", project: Project = PROJECT, kind=ProcessBuilds, **settings
):
    """`ProcessBuilds` with a worker that is a shell script."""
    known = {"jobs": "host", "clock": WallClock, "worker_command": shell(worker), "poke_after_seconds": 0.2}
    return kind(state, FakeProjects([project]), **{**known, **settings})


class NobodyStarts(ProcessBuilds):
    """Its process dies before it has started a supervisor."""

    def _start_supervisor(self, folder):
        pass


def some_project(**changes) -> Project:
    return replace(PROJECT, **changes)


def a_spec(build_id: str = "b1", *, run: str = "r1", number: int = 1, step: str = "test", **changes) -> BuildSpec:
    known = {"pipeline": "push", "epoch": 1, "attempt": 1, "event": some_event()}
    return BuildSpec(id=build_id, run=run, number=number, step=step, **{**known, **changes})


def seen(builds, build_id: str = "b1", *, run: str = "r1") -> Build:
    (found,) = [build for build in builds.find(run) if build.id == build_id]
    return found


def until(condition, *, what: str = "the condition"):
    """Look until `condition()` is true; answers what it answered."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:g} s in vain for {what}"
        time.sleep(0.02)
    return answer


def until_phase(builds, *phases: BuildPhase, build_id: str = "b1", run: str = "r1") -> Build:
    def reached():
        build = seen(builds, build_id, run=run)
        return build if build.phase in phases else None

    return until(reached, what=f"{build_id} to be {phases}")


def until_ended(builds, build_id: str = "b1", *, run: str = "r1") -> Build:
    return until_phase(
        builds, BuildPhase.SUCCEEDED, BuildPhase.FAILED, BuildPhase.GONE, build_id=build_id, run=run
    )


def folder_of(state: Path, build_id: str = "b1", *, run: str = "r1") -> BuildFolder:
    return BuildFolder(state / "builds" / run / build_id)


def supervisor_of(state: Path, build_id: str = "b1", *, run: str = "r1") -> processes.Identity:
    claim = folder_of(state, build_id, run=run).claim()
    assert claim is not None
    assert claim.supervisor is not None
    return claim.supervisor


def in_its_log(builds, words: str, build_id: str = "b1", *, run: str = "r1") -> bool:
    return words in (builds.log(seen(builds, build_id, run=run)) or "")


def supervise(folder: BuildFolder) -> int:
    """Run a supervisor to its end, as `create` starts it."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-P", "-m", "bridge.local.supervisor", str(folder.path)]
    return subprocess.run(argv, env=env, timeout=PATIENCE_SECONDS).returncode


_WRITING = frozenset({"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "subprocess.Popen"})


def dying_at_each_point(act, *, most: int = 200):
    """Call `act(n)` in a process that is killed before its n-th effect, for n = 1, 2, … until one survives.

    Yields each n after its process has died. Effects are what the interpreter's audit sees: files that are made,
    linked, renamed or removed, and processes that are started. `act` can be pickled.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    # Forks are made by a process of one thread; a test's may have more.
    driver = spawning.Process(target=_drive, args=(theirs, act), daemon=True)
    driver.start()
    try:
        for n in range(1, most):
            ours.send(n)
            assert ours.poll(PATIENCE_SECONDS), f"point {n} takes too long"
            status = ours.recv()
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0, f"point {n}: exit code {os.WEXITSTATUS(status)}"
                return
            yield n
    finally:
        ours.send(0)
        driver.join(PATIENCE_SECONDS)
        ours.close()
    raise AssertionError(f"it has more than {most} effects")


def _drive(requests, act) -> None:
    while n := requests.recv():
        child = os.fork()
        if child == 0:
            _die_at(n, act)
        requests.send(os.waitpid(child, 0)[1])


def _die_at(n: int, act) -> None:
    left = n

    def audit(event, args):
        nonlocal left
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _WRITING or writes:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    code = 70
    try:
        act(n)
        code = 0
    finally:
        os._exit(code)


def end_all(state: Path) -> None:
    """End what a test left running, also what was about to start."""
    runs = state / "builds"
    for run in runs.iterdir() if runs.is_dir() else []:
        # A test may have damaged its files.
        with suppress(BridgeError):
            builds_in(state, grace_seconds=0.5).forget(unquote(run.name))


def some(build: Build, **changes) -> Build:
    return replace(build, **changes)
