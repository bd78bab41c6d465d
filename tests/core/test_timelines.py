"""What happened to a run and what it waits for, told from records as the controller leaves them."""

from dataclasses import replace

import pytest

from bridge.core import names
from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.representations import run_details, run_summary
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    Phase,
    Report,
    State,
    Told,
    closed,
    with_act,
    with_attempt,
    with_end,
    with_exit_given_up,
    with_report,
    with_report_given_up,
    with_report_put_off,
    with_submission,
)
from bridge.core.timelines import failing_steps, timeline, what_now
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

T = 1_700_000_000.0


def build(
    step="test", number=1, *, ending=None, reason="", attempt=1, epoch=1, phase=BuildPhase.RUNNING, at=10.0, **more
):
    outcome = None if ending is None else Outcome(ending, reason, T + at + 5)
    return Build(
        id=names.build_id(run="push-r1", epoch=epoch, step=step, number=number), run="push-r1", epoch=epoch, step=step,
        number=number, attempt=attempt, event=more.pop("event", step), phase=phase, created=T + at,
        started=None if phase is BuildPhase.WAITING else T + at + 1, outcome=outcome, **more,
    )  # fmt: skip


def going_run():
    first = Attempt(1, Kind.FIRST, 1, T + 1, steps=("build", "test"), on_failure="build_failed")
    return with_submission(with_attempt(some_run(), first), 1, uid="u1", at=T + 2)


def failed_run():
    run = with_end(going_run(), 1, verdict=Verdict.FAILED, reason="step test failed (build 2): exit 1", at=T + 40)
    return closed(with_report(run, Report(run.context, "failure", "step test failed", 1), to="github"), at=T + 60)


FAILED_BUILDS = [
    build("build", ending=Ending.SUCCEEDED, at=5),
    build("test", 1, ending=Ending.FAILED, reason="the worker exited with code 1", at=15),
    build("test", 2, ending=Ending.FAILED, reason="the worker exited with code 1", at=25),
    build(names.exit_step(1), ending=Ending.SUCCEEDED, at=45, event="build_failed"),
]


def told(run, builds=()):
    return [moment.what for moment in timeline(run, builds)]


def test_a_failed_run_is_told_from_its_acceptance_to_its_end_in_order():
    lines = told(failed_run(), FAILED_BUILDS)
    beginnings = [
        "accepted push of acme/widgets",
        "attempt 1 begun: the first",
        "attempt 1 submitted as push-r1",
        "step build build 1 created: build",
        "step build build 1 started",
        "step build build 1 ended: succeeded",
        "step test build 1 created: test",
        "step test build 1 started",
        "step test build 1 ended: failed: the worker exited with code 1",
        "step test build 2 created: test",
        "step test build 2 started",
        "step test build 2 ended: failed: the worker exited with code 1",
        "attempt 1 ended: failed: step test failed (build 2): exit 1",
        "status failure of bridge/push/push taken by github: step test failed",
        "exit event build_failed fired",
        "exit event build_failed started",
        "exit event build_failed ended: succeeded",
        "closed: failed",
    ]
    assert len(lines) == len(beginnings)
    assert [line[: len(beginning)] for line, beginning in zip(lines, beginnings, strict=True)] == beginnings


def test_every_time_that_is_told_is_in_order():
    times = [moment.at for moment in timeline(failed_run(), FAILED_BUILDS) if moment.at is not None]
    assert times == sorted(times)


def test_a_retry_says_who_asked_from_where_and_for_which_steps():
    act = Act(Kind.RETRY, "r-1", 1, who="ada", source="cli", at=T + 70, only=("test",))
    run = with_act(failed_run(), act)
    run = with_attempt(run, Attempt(2, Kind.RETRY, 1, T + 71, only=("test",), steps=("build", "test")))
    lines = told(run, FAILED_BUILDS)
    assert "retry of attempt 1 asked for by ada through cli, only test" in lines
    assert "attempt 2 begun: retry of test" in lines


def test_a_status_that_nobody_takes_says_why():
    report = Report("bridge/push/push", "pending", "accepted", 1)
    assert "status pending of bridge/push/push given up: GitHub answered 404" in told(
        with_report_given_up(going_run(), report, error="GitHub answered 404")
    )
    assert "status not taken yet (1 tries): GitHub answered 502" in told(
        with_report_put_off(going_run(), error="GitHub answered 502", until=T + 9)
    )


def test_a_build_that_was_given_up_says_so_before_its_end_is_written_down():
    lost = build(given_up="lost: not started", given_up_as=Ending.LOST)
    assert "step test build 1 given up: lost: not started" in told(going_run(), [lost])


@pytest.mark.parametrize(
    ("ending", "reason"), [(Ending.LOST, "lost: its worker is gone"), (Ending.TIMED_OUT, "timed out after 8 s")]
)
def test_how_a_build_ended_is_said_once_where_its_reason_says_it_too(ending, reason):
    assert f"step test build 1 ended: {reason}" in told(going_run(), [build(ending=ending, reason=reason)])


def test_a_reason_of_many_lines_becomes_one_of_bounded_length():
    noisy = build(ending=Ending.FAILED, reason="a\nb\n" * 1000)
    lines = told(going_run(), [noisy])
    assert all("\n" not in line and len(line) <= 300 for line in lines)


RERUN = Act(Kind.RERUN, "r-2", 1, at=T + 70)
CANCEL = Act(Kind.CANCEL, "r-3", 1, at=T + 70)
ENDED = replace(failed_run(), phase=Phase.RUNNING, closed=None, verdict=None)


@pytest.mark.parametrize(
    ("run", "builds", "waits_for", "first_command"),
    [
        (some_run(), [], "its first attempt", "bridgectl cancel push-r1"),
        (with_attempt(some_run(), Attempt(1, Kind.FIRST, 1, T)), [], "to submit attempt 1", "bridgectl cancel push-r1"),
        (going_run(), [], "its next step", "bridgectl cancel push-r1"),
        (going_run(), [build()], "build 1 of step test to end", "bridgectl logs push-r1 test -f"),
        (going_run(), [build(phase=BuildPhase.WAITING)], "build 1 of step test to be started", "bridgectl logs push-r1 test -f"),
        (with_act(going_run(), CANCEL), [build()], "to cancel it", ""),
        (ENDED, FAILED_BUILDS, "to report and close it", "bridgectl logs push-r1 test"),
        (ENDED, [build(names.exit_step(1), event="build_failed")], "its exit event build_failed to end", "bridgectl retry push-r1"),
        (with_act(failed_run(), RERUN), [], "to begin attempt 2 (rerun)", ""),
        (failed_run(), FAILED_BUILDS, "", "bridgectl logs push-r1 test"),
    ],
    ids=["new", "begun", "between", "running", "waiting", "cancel", "ended", "exiting", "asked", "closed"],
)  # fmt: skip
def test_it_is_told_what_a_run_waits_for_and_what_to_type_next(run, builds, waits_for, first_command):
    now = what_now(run, builds)
    assert waits_for in now.waits_for
    assert bool(waits_for) == bool(now.waits_for)
    assert (now.next[0] if now.next else "") == first_command


def test_a_run_that_ended_waits_for_its_status_and_says_what_keeps_it():
    run = replace(ENDED, state=replace(ENDED.state, reported=None))
    run = with_report_put_off(run, error="GitHub answered 502", until=T + 50)
    assert "its status to be taken, after GitHub answered 502" in what_now(run, FAILED_BUILDS).waits_for


def test_a_run_that_succeeded_can_only_be_run_again():
    run = with_end(going_run(), 1, verdict=Verdict.SUCCEEDED, reason="", at=T + 40)
    assert what_now(closed(run, at=T + 41), []).next == ("bridgectl rerun push-r1",)


def test_a_retry_of_a_success_is_waited_for_by_nobody():
    run = with_end(going_run(), 1, verdict=Verdict.SUCCEEDED, reason="", at=T + 40)
    run = with_act(run, Act(Kind.RETRY, "r-4", 1))
    assert "attempt 2" not in what_now(run, []).waits_for
    assert what_now(closed(run, at=T + 41), []).waits_for == ""


def test_a_step_that_failed_before_it_succeeded_is_no_failing_step():
    builds = [
        build("test", 1, ending=Ending.FAILED),
        build("test", 2, ending=Ending.SUCCEEDED),
        build("lint", ending=Ending.LOST),
    ]
    assert failing_steps(going_run(), builds) == ("lint",)


def test_the_details_of_a_run_hold_its_steps_builds_timeline_and_next_commands():
    run = failed_run()
    known = {"ops": Told(upto=5, given_up=2, error="it answered 410")}
    run = replace(run, state=replace(run.state, notified=known))
    details = run_details(run, FAILED_BUILDS, url="http://here/runs/push-r1")
    assert details["notified"] == [{"endpoint": "ops", "told": 3, "given_up": 2, "error": "it answered 410"}]
    assert [(step["name"], step["state"], len(step["builds"])) for step in details["steps"]] == [
        ("build", "succeeded", 1),
        ("test", "failed", 2),
    ]
    assert [one["event"] for one in details["exit_builds"]] == ["build_failed"]
    assert details["timeline"][-1]["what"] == "closed: failed"
    assert details["next"][0] == "bridgectl logs push-r1 test"
    assert details["status"]["taken_by"] == "github"
    assert details["accepted"] == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("builds", "state"),
    [
        ([], "pending"),
        ([build(phase=BuildPhase.WAITING)], "waiting"),
        ([build()], "running"),
        ([build(phase=BuildPhase.SUCCEEDED)], "running"),
        ([build(ending=Ending.TIMED_OUT)], "timed_out"),
        ([build(ending=Ending.SUCCEEDED), build(number=2, ending=Ending.FAILED)], "succeeded"),
        ([build(ending=Ending.SUCCEEDED, epoch=2)], "pending"),
    ],
    ids=["none", "waiting", "running", "unjudged", "ended", "succeeded-once", "other-epoch"],
)
def test_a_steps_state_is_that_of_its_newest_build_in_this_epoch(builds, state):
    [found] = [step for step in run_details(going_run(), builds)["steps"] if step["name"] == "test"]
    assert found["state"] == state


def test_a_step_that_was_never_reached_is_told_from_one_that_still_may_be():
    states = {step["name"]: step["state"] for step in run_details(failed_run(), [])["steps"]}
    assert states == {"build": "not_run", "test": "not_run"}


def test_a_summary_has_the_same_keys_whatever_is_known():
    assert run_summary(some_run()).keys() == run_summary(failed_run()).keys()
    assert run_summary(some_run(state=State()))["status"]["state"] is None


def test_an_exit_event_that_could_not_be_fired_is_told_with_the_reason():
    run = with_exit_given_up(failed_run(), 1, error="there is no project acme/widgets")
    assert "exit event of attempt 1 could not be fired: there is no project acme/widgets" in told(run)


def test_a_held_run_says_why_what_it_waits_for_and_who_approved_it():
    run = some_run(state=State(held="a pull request from a fork by NONE"))
    said = [moment.what for moment in timeline(run, ())]
    assert said[1] == "held: a pull request from a fork by NONE"
    now = what_now(closed(run, at=T), ())
    assert now.waits_for.startswith("its approval: it waits for a maintainer: comment /ok-to-test ")
    assert now.next == (f"bridgectl approve {run.id}",)
    approved = with_act(run, Act(Kind.APPROVE, "q", 0, who="mona", source="comment", at=T))
    assert "approved by mona through comment" in [moment.what for moment in timeline(approved, ())]
    assert what_now(approved, ()).waits_for.startswith("the controller, to begin its first attempt")
