"""Acts on runs that are held."""

import pytest

from bridge.core.runs import Kind, Phase, State, closed
from bridge.flows.acting import act
from tests.fakes import FakeRuns, some_run

NOW = 1_700_000_000.0


def asking(runs, kind, *, request="q1", who="mona"):
    return act(runs, "push-r1", kind, request=request, who=who, source="api", now=NOW)


def held_runs():
    runs = FakeRuns()
    runs.create(some_run("push-r1", state=State(held="a fork's, by NONE")), b"{}")
    runs.change("push-r1", lambda run: closed(run, at=NOW))
    return runs


@pytest.mark.parametrize("kind", [Kind.RETRY, Kind.RERUN, Kind.CANCEL])
def test_what_is_held_takes_no_other_act_and_the_answer_says_what_to_do(kind):
    runs = held_runs()
    acted = asking(runs, kind)
    assert not acted.accepted
    assert acted.message.startswith(f"nothing to {kind}: it waits for a maintainer: comment /ok-to-test ")
    assert "bridgectl approve push-r1" in acted.message
    assert runs.read("push-r1").acts == ()


def test_an_approval_is_kept_once_opens_the_run_and_is_answered_for_ever_alike():
    runs = held_runs()
    acted = asking(runs, Kind.APPROVE)
    assert (acted.accepted, acted.message) == (True, "approved: its first attempt begins now")
    assert runs.read("push-r1").phase is not Phase.CLOSED
    assert asking(runs, Kind.APPROVE).accepted
    other = asking(runs, Kind.APPROVE, request="q2", who="lisa")
    assert (other.accepted, other.message) == (False, "approved already by mona")
    assert len(runs.read("push-r1").acts) == 1


def test_what_was_not_held_needs_no_approval():
    runs = FakeRuns()
    runs.create(some_run("push-r1"), b"{}")
    acted = asking(runs, Kind.APPROVE)
    assert (acted.accepted, acted.message) == (False, "nothing to approve: it was not held")
