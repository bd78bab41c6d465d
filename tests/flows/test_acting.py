"""Acts: what is kept, and what whoever asks is told."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.core.runs import Attempt, Kind, Phase, State, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.errors import Conflict, NotFound, Unavailable
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


def failed_runs(*, ended=True):
    runs = FakeRuns()
    runs.create(some_run("push-r1"), b"{}")
    runs.change("push-r1", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, NOW, steps=("build", "test"))))
    if ended:
        runs.change("push-r1", lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=NOW))
        runs.change("push-r1", lambda run: closed(run, at=NOW))
    return runs


def asks(runs, kind=Kind.RETRY, *, request="q1", follows=1, only=()):
    return act(
        runs, "push-r1", kind, request=request, who="mona", source="api", now=NOW, follows=follows, only=only
    )


def test_of_many_who_retry_the_same_attempt_one_begins_the_next_and_all_others_are_told_which():
    runs = failed_runs()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: asks(runs, request=f"q{number}"), range(100)))
    assert [answer.accepted for answer in answers].count(True) == 1
    assert {answer.attempt for answer in answers} == {2}
    assert {answer.message for answer in answers if not answer.accepted} == {
        "a retry waits already: attempt 2 begins now"
    }
    assert len(runs.read("push-r1").acts) == 1
    runs.change("push-r1", lambda run: with_attempt(run, Attempt(2, Kind.RETRY, 1, NOW)))
    late = asks(runs, request="late")
    assert (late.accepted, late.attempt, late.message) == (False, 2, "attempt 1 has a successor: attempt 2")


def test_a_retry_of_what_runs_waits_for_its_end():
    acted = asks(failed_runs(ended=False))
    assert (acted.accepted, acted.attempt) == (True, 2)
    assert acted.message == "retry: attempt 2 begins when this one has ended"


def test_a_repeat_of_a_request_whose_answer_was_lost_is_the_same_act():
    runs = failed_runs()
    runs.fail("change", "after", Unavailable("the answer was lost"))
    with pytest.raises(Unavailable):
        asks(runs)
    again = asks(runs)
    assert (again.accepted, again.attempt, again.message) == (True, 2, "retry was asked for already")
    assert len(runs.read("push-r1").acts) == 1


def test_a_cancel_is_kept_once():
    runs = failed_runs(ended=False)
    assert asks(runs, Kind.CANCEL).accepted
    second = asks(runs, Kind.CANCEL, request="q2")
    assert (second.accepted, second.attempt, second.message) == (False, 1, "it is being cancelled already")


def test_what_cannot_be_meant_is_refused_and_changes_nothing():
    runs = failed_runs()
    with pytest.raises(NotFound, match="has no attempt 2: the newest is 1"):
        asks(runs, follows=2)
    with pytest.raises(Conflict, match="has no step deploy: it has build, test"):
        asks(runs, only=("build", "deploy"))
    assert runs.read("push-r1").acts == ()
