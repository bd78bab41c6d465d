"""Which status a run is owed, when, and for how long it has been missing: tables over records."""

from dataclasses import replace

import pytest

from bridge.core import obligations as ob
from bridge.core.metrics import METRICS, described, is_counter, waits
from bridge.core.reports import final_report, pending_report
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    Report,
    closed,
    with_attempt,
    with_end,
    with_report,
    with_report_given_up,
    with_report_overwritten,
    with_report_put_off,
    with_report_unsure,
)
from bridge.core.verdicts import Verdict
from bridge.flows.counting import KINDS, Counting, kind_of
from tests.fakes import some_run

NOW = 1_700_001_000.0
BEGUN = NOW - 500


def running(**attempt):
    first = Attempt(1, Kind.FIRST, 1, BEGUN, uid="u1", submitted=BEGUN + 1, timeout_seconds=600)
    return with_attempt(some_run(accepted=BEGUN - 5), replace(first, **attempt))


def ended(verdict=Verdict.FAILED, at=NOW - 10):
    return with_end(running(), 1, verdict=verdict, reason="a step failed", at=at)


def final_of(run):
    return final_report(run, run.attempt, run.attempt.verdict)


def posts(run, now=NOW, *, speaks=True):
    """The statuses that are owed to a run of which nothing else is."""
    seen = ob.Seen(now, None, None, (), speaks=speaks)
    report = pending_report(run) if run.attempt.verdict is None else final_of(run)
    return [action.report.state for action in ob._posting(run, report, seen)]


def settled(run, now=NOW, *, speaks=True):
    return ob._settled(run, final_of(run), ob.Seen(now, None, None, (), speaks=speaks))


def test_a_pending_one_waits_for_its_own_troubles_and_a_final_one_does_not():
    put_off = with_report_put_off(running(), error="500", until=NOW + 60, pending_only=True)
    assert posts(put_off) == []
    assert posts(put_off, NOW + 60) == ["pending"]
    assert posts(with_end(put_off, 1, verdict=Verdict.FAILED, reason="", at=NOW)) == ["failure"]


def test_what_the_host_asked_for_keeps_both_waiting():
    put_off = with_report_put_off(running(), error="429", until=NOW + 60)
    at_end = with_end(put_off, 1, verdict=Verdict.FAILED, reason="", at=NOW)
    assert (posts(put_off), posts(at_end)) == ([], [])
    assert (posts(put_off, NOW + 60), posts(at_end, NOW + 60)) == (["pending"], ["failure"])


def test_what_nobody_was_asked_for_is_no_failure():
    run = with_report_put_off(running(), error="later", until=NOW, failed=False)
    assert run.state.report_failures == 0
    assert with_report_put_off(run, error="500", until=NOW).state.report_failures == 1


@pytest.mark.parametrize("speaks", [True, False])
def test_a_final_status_that_may_be_covered_is_looked_at_again_before_the_run_closes(speaks):
    run = with_report_unsure(ended(), until=NOW + 30)
    taken = with_report(run, final_of(run), to="github", at=NOW)
    assert posts(taken) == []
    assert settled(taken, speaks=speaks) is not speaks
    assert posts(taken, NOW + 30, speaks=speaks) == (["failure"] if speaks else [])
    sure = with_report(taken, final_of(run), to="github", at=NOW + 30)
    assert (posts(sure, NOW + 30), settled(sure, NOW + 30)) == ([], True)


def test_a_doubt_that_is_over_when_the_final_one_is_taken_costs_nothing():
    run = with_report_unsure(ended(), until=NOW - 1)
    assert settled(with_report(run, final_of(run), to="github", at=NOW))


def test_of_doubts_the_longest_counts_and_a_retry_forgets_none():
    run = with_report_unsure(with_report_unsure(ended(), until=NOW + 30), until=NOW + 5)
    again = with_attempt(run, Attempt(2, Kind.RETRY, 1, NOW))
    assert again.state.report_unsure_until == NOW + 30


def test_what_was_overwritten_is_owed_again_and_a_retry_begins_to_count_anew():
    run = with_report_overwritten(ended(), error="another one is on top", until=NOW + 2)
    assert (posts(run), posts(run, NOW + 2)) == ([], ["failure"])
    assert with_attempt(run, Attempt(2, Kind.RETRY, 1, NOW)).state.report_overwritten == 0


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (Report("c", "failure", "x", 1), Report("c", "pending", "x", 1)),
        (Report("c", "pending", "x", 2), Report("c", "failure", "x", 1)),
        (Report("c", "success", "x", 2), Report("c", "pending", "x", 1)),
    ],
)
def test_a_closed_run_never_remembers_an_older_status_over_a_newer_one(known, told):
    run = with_report(ended(), known, to="github")
    assert with_report(closed(run, at=NOW), told, to="github").state.reported == known
    # While it is open the older one is what is shown, and the newer one is owed again.
    assert with_report(run, told, to="github").state.reported == told


@pytest.mark.parametrize(
    ("older", "newer", "is_older"),
    [
        (Report("c", "pending", "x", 1), Report("c", "failure", "x", 1), True),
        (Report("c", "failure", "x", 1), Report("c", "pending", "x", 2), True),
        (Report("c", "failure", "x", 1), Report("c", "success", "x", 1), False),
        (Report("c", "pending", "x", 1), Report("c", "pending", "y", 1), False),
        (Report("c", "pending", "x", 2), Report("c", "failure", "x", 1), False),
    ],
)
def test_which_of_two_statuses_tells_of_what_came_later(older, newer, is_older):
    assert older.is_older_than(newer) is is_older


def _delivered(run):
    return with_report(run, final_of(run), to="github")


def _given_up(run):
    return with_report_given_up(run, final_of(run), error="410")


RETRY = Act(Kind.RETRY, "q", 1, at=NOW - 3)


@pytest.mark.parametrize(
    ("run", "since", "due"),
    [
        (some_run(accepted=BEGUN), BEGUN, BEGUN + 30),
        (running(), BEGUN, BEGUN + 1 + 600 + 180 + 30),
        (running(submitted=None, uid=""), BEGUN, BEGUN + 600 + 180 + 30),
        (ended(), BEGUN, NOW - 10 + 30),
        (_delivered(ended()), None, None),
        (_given_up(ended()), None, None),
        (closed(_delivered(ended()), at=NOW), None, None),
        (replace(_delivered(ended()), acts=(RETRY,)), NOW - 3, NOW - 3 + 30),
        (replace(_delivered(ended()), acts=(replace(RETRY, at=0.0),)), BEGUN - 5, BEGUN - 5 + 30),
    ],
    ids=[
        "accepted",
        "running",
        "not submitted",
        "ended",
        "delivered",
        "given up",
        "closed",
        "asked about again",
        "asked about without a time",
    ],
)
def test_since_when_a_final_status_is_missing_and_when_it_is_due(run, since, due):
    assert ob.pending_since(run) == since
    assert ob.final_due(run) == due


@pytest.mark.parametrize(
    ("run", "due"),
    [
        (some_run(), None),
        (running(), 0.0),
        (with_report_put_off(running(), error="e", until=NOW + 5, pending_only=True), NOW + 5),
        (with_report_put_off(ended(), error="e", until=NOW + 5), NOW + 5),
        (with_report_unsure(_delivered(ended()), until=NOW + 9), NOW + 9),
        (_delivered(ended()), None),
        (closed(_delivered(ended()), at=NOW), None),
    ],
    ids=["accepted", "running", "pending put off", "final put off", "unsure", "delivered", "closed"],
)
def test_when_a_status_may_be_posted_next(run, due):
    assert ob.report_due(run) == due


def test_the_oldest_counts_and_nothing_is_zero():
    now = 100.0
    assert waits([], now=now) == {"bridge_oldest_pending_seconds": 0.0, "bridge_overdue_seconds": 0.0}
    found = waits([(None, None), (40.0, 120.0), (70.0, 90.0)], now=now)
    assert found == {"bridge_oldest_pending_seconds": 60.0, "bridge_overdue_seconds": 10.0}


def test_what_is_done_is_counted_and_what_is_left_is_owed():
    counting = Counting()
    report = Report("c", "pending", "x", 1)
    actions = (ob.Post(report), ob.Submit(1), ob.Post(report))
    counting.owes("r1", actions)
    counting.owes("r2", (ob.Close(),))
    counting.did("r1", actions[0])
    counting.did("r1", actions[1])
    owed = {kind: count for kind, count in counting.owed().items() if count}
    assert owed == {"post": 1.0, "close": 1.0}
    counting.keep({"r1"})
    counting.owes("r1", ())
    assert not any(counting.owed().values())
    done = counting.values()["bridge_actions_total"]
    assert (done["post"], done["submit"], done["close"]) == (1, 1, 0)


def test_every_kind_of_action_has_a_name_of_its_own():
    assert len(set(KINDS)) == len(KINDS)
    assert {kind_of(ob.GiveUp), kind_of(ob.EndStray), kind_of(ob.Post)} == {"give_up", "end_stray", "post"}
    assert all(kind.replace("_", "").islower() for kind in KINDS)


def test_every_metric_is_described_in_a_sentence():
    assert all(metric.help.endswith(".") for metric in METRICS.values())
    assert described("bridge_something_new").help == "Something new."
    assert is_counter("bridge_actions_total")
    assert not is_counter("bridge_owed_actions")
