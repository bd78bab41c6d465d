"""Who leads no more writes no more."""

import pytest

from bridge import ports
from bridge.errors import Unavailable
from bridge.flows.fencing import NotLeading, fenced
from tests.fakes import FakeEngine, FakeRuns, some_run


class Leading:
    def __init__(self):
        self.now = True

    def __call__(self):
        return self.now


@pytest.fixture
def leading():
    return Leading()


def test_who_leads_writes(leading):
    runs = FakeRuns()
    assert fenced(ports.Runs, runs, leading).create(some_run(), b"{}").duplicate is False
    assert list(runs.records) == ["push-r1"]


def test_who_does_not_lead_reads_and_writes_nothing(leading):
    runs = FakeRuns()
    runs.add(some_run())
    port = fenced(ports.Runs, runs, leading)
    leading.now = False
    assert port.read("push-r1").id == "push-r1"
    for write in (
        lambda: port.create(some_run("push-r2"), b"{}"),
        lambda: port.change("push-r1", lambda run: run),
        lambda: port.forget("push-r1"),
    ):
        with pytest.raises(NotLeading, match="left to the one that does"):
            write()
    assert list(runs.records) == ["push-r1"]


@pytest.mark.parametrize("name", ports.writing_methods(ports.Engine))
def test_every_method_that_is_marked_is_fenced(leading, name):
    leading.now = False
    engine = FakeEngine()
    with pytest.raises(NotLeading):
        getattr(fenced(ports.Engine, engine, leading), name)(some_run(), 1)
    assert engine.executions == {}


def test_it_is_asked_anew_each_time(leading):
    port = fenced(ports.Engine, FakeEngine(), leading)
    port.submit(some_run(), 1)
    leading.now = False
    with pytest.raises(Unavailable):
        port.stop(some_run(), 1)
    leading.now = True
    port.stop(some_run(), 1)
