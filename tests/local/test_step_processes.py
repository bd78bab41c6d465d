"""Children of the engine: nothing runs before it is let go, and nothing outlives its end."""

import os
import sys
import time
from pathlib import Path

import pytest

from bridge.errors import Unavailable
from bridge.local import processes
from bridge.local.step_processes import StepProcesses, end_left_over

PATIENCE_SECONDS = 60
KEY = ("wf", "a")


@pytest.fixture
def children():
    one = StepProcesses(grace_seconds=10)
    yield one
    for child in one.end_all():
        one.forget(child)


def started(children, folder, script, key=KEY):
    return children.start(
        key, ("/bin/sh", "-c", script), env={"PATH": os.environ["PATH"]}, folder=folder, log=folder / "log"
    )


def until(condition):
    over = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < over, "waited in vain"
        time.sleep(0.01)


def exited(children, child):
    children.look()
    return child.exited


def test_a_child_waits_until_it_is_released(children, tmp_path):
    child = started(children, tmp_path, "cat; pwd; exit 3")
    # It is there, on its leash, as the one that it will be.
    assert child.identity.pid == child.pid
    until(lambda: b"leash.py" in Path(f"/proc/{child.pid}/cmdline").read_bytes())
    assert not exited(children, child)
    children.release(child)
    until(lambda: exited(children, child))
    assert (child.code, (tmp_path / "log").read_text()) == (3, f"{tmp_path}\n")


def test_a_discarded_child_never_runs(children, tmp_path):
    child = started(children, tmp_path, "echo ran")
    children.discard(child)
    until(lambda: exited(children, child))
    assert not processes.is_alive(child.identity)
    assert (tmp_path / "log").read_text() == ""
    assert children.of("wf") == {}


def test_a_signal_is_told_as_a_shell_does(children, tmp_path):
    child = started(children, tmp_path, "kill -9 $$")
    children.release(child)
    until(lambda: exited(children, child))
    assert child.code == 137


def test_what_a_child_leaves_in_its_group_ends_with_it(children, tmp_path):
    child = started(children, tmp_path, "sleep 1000 & exit 0")
    children.release(child)
    until(lambda: exited(children, child))
    children.forget(child)
    until(lambda: not processes.group_of(child.identity))


def test_what_an_engine_before_left_behind_is_killed(children, tmp_path):
    child = started(children, tmp_path, "trap '' TERM; sleep 1000 & sleep 1000")
    children.release(child)
    until(lambda: len(processes.group_of(child.identity)) > 1)
    end_left_over([child.identity])
    until(lambda: exited(children, child))
    assert not processes.group_of(child.identity)


def test_children_are_counted_apart(children, tmp_path):
    for key in (("wf", "a"), ("wf", "b"), ("other", "exit")):
        started(children, tmp_path, "true", key)
    assert children.count(node="exit") == (2, 1)
    assert set(children.of("wf")) == {"a", "b"}
    for child in (*children.of("wf").values(), *children.of("other").values()):
        children.release(child)


def test_what_cannot_be_started_is_unavailable_and_leaves_nothing(children, tmp_path, monkeypatch):
    with pytest.raises(Unavailable, match="cannot be written"):
        started(children, tmp_path / "nowhere", "true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Unavailable, match="/bin/sh cannot be started"):
        started(children, tmp_path, "true")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert children.of("wf") == {}
