"""Which Workflows under a run's labels bridge does not follow, and what stands behind them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.obligations import Ask, EndStray, Forget, Seen, owed
from bridge.core.runs import Act, Attempt, Kind, Phase, with_act, with_attempt, with_end
from bridge.core.strays import Labelled, Stray, judged, labelled, retry_of, suspects
from bridge.core.verdicts import Verdict
from tests import recorded
from tests.fakes import some_run

RUN = "push-r1"


def run_with(*attempts: Attempt, is_closed=False):
    run = some_run(RUN)
    for attempt in attempts:
        run = with_attempt(run, attempt)
    if is_closed:
        run = replace(run, phase=Phase.CLOSED, verdict=run.attempt.verdict, closed=9.0)
    return run


def attempt(n, verdict=None, uid=None):
    known = Attempt(n, Kind.FIRST if n == 1 else Kind.RETRY, 1, begun=1.0, uid=f"u{n}" if uid is None else uid)
    return known if verdict is None else replace(known, verdict=verdict, ended=2.0)


def workflow(name=RUN, uid="u1", n="1", *, root="Running", phase="Running", labels=None, spec=None, **metadata):
    nodes = {name: {"id": name, "name": name, "phase": root}} if root else {}
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "labels": {"bridge.brigade.sh/run": RUN, "bridge.brigade.sh/attempt": n, **(labels or {})},
            **metadata,
        },
        "spec": spec or {},
        "status": {"phase": phase, "nodes": nodes},
    }


RETRIED = {"workflows.argoproj.io/action": "Retry", "workflows.argoproj.io/actor": "ada"}


def stray_in(run, found):
    one = labelled(found)
    if one is None or not suspects(run, [one]):
        return None
    return judged(run, one, found)


@pytest.mark.parametrize("verdict", [None, *Verdict])
def test_the_workflow_of_the_newest_attempt_is_followed_as_long_as_the_run_is_open(verdict):
    assert stray_in(run_with(attempt(1, verdict)), workflow()) is None
    assert stray_in(run_with(attempt(1, verdict, uid="")), workflow()) is None


def test_what_is_completed_or_nobodys_is_not_looked_at():
    assert labelled(workflow(labels={"workflows.argoproj.io/completed": "true"})) is None
    assert labelled({"metadata": {"name": "x", "labels": {}}}) is None


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_copy_under_another_name_is_a_stray_whatever_the_run_does(is_closed):
    run = run_with(attempt(1, Verdict.FAILED if is_closed else None), is_closed=is_closed)
    assert stray_in(run, workflow(f"{RUN}-xk2p9", "u7")) == Stray(f"{RUN}-xk2p9", "u7")


@pytest.mark.parametrize("n", ["2", "", "nonsense", "-1", "9" * 12])
def test_one_of_an_attempt_that_the_record_does_not_know_is_a_stray(n):
    assert stray_in(run_with(attempt(1)), workflow(f"{RUN}-2", "u7", n)) == Stray(f"{RUN}-2", "u7")


def test_another_one_under_an_attempts_name_is_a_stray():
    assert stray_in(run_with(attempt(1)), workflow(uid="u7")) == Stray(RUN, "u7")


def test_an_older_attempts_that_goes_on_is_a_stray():
    run = run_with(attempt(1, Verdict.CANCELLED), attempt(2))
    assert stray_in(run, workflow()) == Stray(RUN, "u1")
    assert stray_in(run, workflow(f"{RUN}-2", "u2", "2")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": "Failed"},
        {"deletionTimestamp": "2026-11-24T10:00:00Z"},
        {"spec": {"shutdown": "Terminate"}},
    ],
)
def test_what_ends_anyway_is_left_alone(changes):
    assert stray_in(run_with(attempt(1)), workflow(f"{RUN}-xk2p9", "u7", **changes)) is None


@pytest.mark.parametrize(
    "spec", [{"shutdown": "Stop"}, {"shutdown": "Terminate", "suspend": True}, {"suspend": True}]
)
def test_what_does_not_end_surely_has_to_be_ended(spec):
    assert stray_in(run_with(attempt(1)), workflow(f"{RUN}-xk2p9", "u7", spec=spec)) is not None


def test_one_that_another_took_the_name_of_meanwhile_is_not_judged():
    one = labelled(workflow(f"{RUN}-xk2p9", "u7"))
    assert judged(run_with(attempt(1)), one, workflow(f"{RUN}-xk2p9", "u8")) is None


def test_argo_retry_as_it_was_recorded_is_seen_at_the_first_event_and_over_at_the_last():
    found = recorded.objects("argo", "argo-retry")
    name, uid = found[0]["metadata"]["name"], found[0]["metadata"]["uid"]
    run = replace(
        some_run(name),
        phase=Phase.CLOSED,
        closed=9.0,
        verdict=Verdict.FAILED,
        state=replace(some_run().state, attempts=(attempt(1, Verdict.FAILED, uid=uid),)),
    )
    seen = [stray_in(run, one) for one in found]
    assert (seen[0], seen[-1]) == (None, None)
    assert set(seen[1:-1]) == {Stray(name, uid, 1, "admin")}


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.ERROR])
def test_argo_retry_before_the_run_is_closed_is_one_too(verdict):
    assert stray_in(run_with(attempt(1, verdict)), workflow(labels=RETRIED)) == Stray(RUN, "u1", 1, "ada")


@pytest.mark.parametrize("verdict", [Verdict.CANCELLED, Verdict.TIMED_OUT])
def test_what_was_told_to_end_and_runs_on_is_not_a_second_retry(verdict):
    assert stray_in(run_with(attempt(1, verdict)), workflow(labels=RETRIED)) is None


def test_one_that_was_retried_before_its_end_was_known_just_goes_on():
    assert stray_in(run_with(attempt(1)), workflow(labels=RETRIED)) is None
    lingering = workflow(labels=RETRIED, root="Failed")
    assert stray_in(run_with(attempt(1, Verdict.FAILED)), lingering) is None


def test_a_retry_follows_the_attempt_that_was_retried():
    run = run_with(attempt(1, Verdict.FAILED), is_closed=True)
    act = retry_of(run, Stray(RUN, "u1", 1, "ada"), now=7.0)
    assert act == Act(Kind.RETRY, "argo retry of u1", 1, who="ada", source="argo", at=7.0)
    assert retry_of(with_act(run, act), Stray(RUN, "u1", 1, "ada"), now=8.0) is None


def test_there_is_nothing_to_retry_of_a_success_a_copy_or_an_attempt_with_a_successor():
    succeeded = run_with(attempt(1, Verdict.SUCCEEDED), is_closed=True)
    assert retry_of(succeeded, Stray(RUN, "u1", 1), now=7.0) is None
    failed = run_with(attempt(1, Verdict.FAILED), is_closed=True)
    assert retry_of(failed, Stray(f"{RUN}-x", "u7"), now=7.0) is None
    followed = run_with(attempt(1, Verdict.FAILED), attempt(2, Verdict.FAILED), is_closed=True)
    assert retry_of(followed, Stray(RUN, "u1", 1), now=7.0) is None


def seen(*strays, **more):
    return Seen(**{"now": 20.0, "pipeline": None, "execution": None, "builds": (), "strays": strays, **more})


def test_the_act_is_on_record_before_its_workflow_ends():
    run = run_with(attempt(1, Verdict.FAILED), is_closed=True)
    stray = Stray(RUN, "u1", 1, "ada")
    ask, end = owed(run, seen(stray))
    assert isinstance(ask, Ask)
    assert end == EndStray(stray)


def test_a_copy_changes_nothing_else_that_is_owed():
    run = with_end(run_with(attempt(1)), 1, verdict=Verdict.SUCCEEDED, reason="", at=2.0)
    stray = Stray(f"{RUN}-x", "u7")
    assert owed(run, seen(stray)) == (*owed(run, seen()), EndStray(stray))


def test_a_run_whose_copy_goes_on_is_not_forgotten_yet():
    run = run_with(attempt(1, Verdict.FAILED), is_closed=True)
    stray = Stray(f"{RUN}-x", "u7")
    assert owed(run, seen(retention_seconds=1.0)) == (Forget(),)
    assert owed(run, seen(stray, retention_seconds=1.0)) == (EndStray(stray),)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["metadata", "labels", "status", "spec", "name", "uid"]), inner, max_size=3
            )
        ),
        max_leaves=10,
    )
)
def test_nonsense_is_answered(value):
    found = value if isinstance(value, dict) else {"metadata": value}
    labelled(found)
    judged(run_with(attempt(1)), Labelled(RUN, "u1", RUN, 1, retried=False), found)
