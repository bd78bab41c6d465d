"""`owed`, case by case, and what holds for all of it. The long stories are in tests/flows/test_any_order.py."""

from dataclasses import replace

import pytest

from bridge.core import names
from bridge.core import obligations as ob
from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.reports import held_report
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    Phase,
    Report,
    Run,
    State,
    StepState,
    closed,
    with_act,
    with_attempt,
    with_report,
)
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

NOW = 1_700_000_100.0
PIPELINE = Pipeline(
    name="push",
    projects=("acme/widgets",),
    on=(Trigger("push"),),
    steps=(Step("build", ("build",)), Step("test", ("test",), needs=("build",))),
    timeout_seconds=600,
)
FIRST = Attempt(
    1, Kind.FIRST, 1, NOW - 50, steps=("build", "test"), timeout_seconds=600, on_failure="build_failed", uid="u1",
    submitted=NOW - 50,
)  # fmt: skip
PENDING = Report("bridge/push/push", "pending", "accepted: its steps are being run", 1)


def run_with(*attempts: Attempt, **state) -> Run:
    state.setdefault("reported", PENDING)
    return some_run(phase=Phase.RUNNING, state=State(attempts=attempts or (FIRST,), **state))


def seen(**changes) -> ob.Seen:
    facts = {"now": NOW, "pipeline": PIPELINE, "execution": going(), "builds": ()}
    return ob.Seen(**{**facts, **changes})


def going(**changes) -> Execution:
    return Execution(**{"uid": "u1", "root": NodePhase.RUNNING, **changes})


def failed_node(step: str = "test", code: int | None = 2, phase: NodePhase = NodePhase.FAILED) -> Node:
    return Node(step, phase, code, f"exit code {code}")


def build(step: str, number: int = 1, ending: Ending | None = None, **changes) -> Build:
    known = {
        "id": f"{step}{number}",
        "run": "push-r1",
        "epoch": 1,
        "step": step,
        "number": number,
        "attempt": 1,
        "event": step,
        "phase": BuildPhase.RUNNING if ending is None else BuildPhase.FAILED,
        "created": NOW - 20,
        "started": NOW - 20,
        "outcome": None if ending is None else Outcome(ending, f"it {ending}", NOW),
    }
    return Build(**{**known, **changes})


def ended(verdict: Verdict, **changes) -> Attempt:
    return replace(FIRST, verdict=verdict, reason="because", ended=NOW - 5, **changes)


def kinds(actions) -> list[str]:
    return [type(action).__name__ for action in actions]


def remembering(*builds: Build) -> dict:
    return {(one.epoch, one.step): StepState(highest=one.number) for one in builds}


def test_a_new_run_is_owed_its_first_attempt_written_down_before_anything_is_made():
    (action,) = ob.owed(some_run(), seen(execution=None))
    assert action.attempt.steps == ("build", "test")
    assert action.attempt.on_failure == "build_failed"
    assert (action.attempt.n, action.attempt.epoch, action.attempt.uid) == (1, 1, "")


def test_an_attempt_without_workflow_is_submitted_and_its_pending_posted():
    run = run_with(replace(FIRST, uid="", submitted=None), reported=None)
    assert kinds(ob.owed(run, seen(execution=None))) == ["Post", "Submit"]


def test_a_workflow_whose_uid_was_not_written_down_is_submitted_again_to_learn_it():
    run = run_with(replace(FIRST, uid="", submitted=None))
    assert ob.owed(run, seen()) == (ob.Submit(1),)


def test_a_pipeline_that_is_gone_before_submission_ends_the_attempt():
    run = run_with(replace(FIRST, uid="", submitted=None))
    (end,) = ob.owed(run, seen(execution=None, pipeline=None))
    assert end.verdict is Verdict.ERROR
    assert "push" in end.reason


def test_a_pipeline_that_is_gone_afterwards_changes_nothing():
    assert ob.owed(run_with(), seen(pipeline=None)) == ()


def test_while_it_goes_on_nothing_is_owed():
    assert ob.owed(run_with(), seen()) == ()


def test_the_verdict_is_the_root_nodes():
    (end,) = ob.owed(run_with(), seen(execution=going(root=NodePhase.SUCCEEDED)))
    assert end == ob.End(1, Verdict.SUCCEEDED, "")


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (2, Verdict.FAILED),
        (3, Verdict.FAILED),
        (124, Verdict.TIMED_OUT),
        (69, Verdict.ERROR),
        (None, Verdict.ERROR),
    ],
)
def test_a_failed_root_is_what_its_steps_answered(code, verdict):
    execution = going(root=NodePhase.FAILED, nodes=(failed_node(code=code),))
    (end,) = ob.owed(run_with(), seen(execution=execution))
    assert end.verdict is verdict
    assert "test" in end.reason


def test_of_several_steps_a_failure_weighs_more_than_an_error():
    nodes = (failed_node("build", 69), failed_node("test", 2))
    (end,) = ob.owed(run_with(), seen(execution=going(root=NodePhase.FAILED, nodes=nodes)))
    assert (end.verdict, "test" in end.reason) == (Verdict.FAILED, True)


def test_a_root_that_failed_over_steps_that_all_succeeded_is_a_success():
    steps = {(1, "build"): StepState(1, 1), (1, "test"): StepState(2, 2)}
    (end,) = ob.owed(run_with(steps=steps), seen(execution=going(root=NodePhase.ERROR)))
    assert end.verdict is Verdict.SUCCEEDED


def test_once_the_failure_event_exists_it_cannot_become_a_success():
    fired = build(names.exit_step(1), event="build_failed")
    run = run_with(steps=remembering(fired))
    (end,) = ob.owed(run, seen(execution=going(root=NodePhase.SUCCEEDED), builds=(fired,)))
    assert end.verdict is Verdict.FAILED


@pytest.mark.parametrize("execution", [None, going(deleting=True), going(invalid="no such template")])
def test_a_workflow_that_is_gone_ends_the_attempt_without_success(execution):
    (end,) = ob.owed(run_with(), seen(execution=execution))
    assert end.verdict in {Verdict.CANCELLED, Verdict.ERROR}
    assert end.reason


def test_a_workflow_that_is_gone_after_all_its_steps_succeeded_is_a_success():
    steps = {(1, "build"): StepState(1, 1), (1, "test"): StepState(2, 2)}
    (end,) = ob.owed(run_with(steps=steps), seen(execution=None))
    assert end.verdict is Verdict.SUCCEEDED


def test_a_workflow_that_is_gone_and_had_no_steps_is_no_success():
    (end,) = ob.owed(run_with(replace(FIRST, steps=())), seen(execution=None))
    assert end.verdict is Verdict.CANCELLED


@pytest.mark.parametrize(
    ("late", "taken", "rung"), [(0, 0, 1), (60, 1, 2), (120, 2, 3), (180, 3, 4), (179, 3, None), (900, 4, None)]
)
def test_past_the_deadline_one_rung_a_minute(late, taken, rung):
    attempt = replace(FIRST, submitted=NOW - 600 - late, rung=taken)
    actions = ob.owed(run_with(attempt), seen())
    assert actions == (() if rung is None else (ob.Escalate(1, rung),))


def test_what_ended_by_the_escalation_timed_out():
    attempt = replace(FIRST, submitted=NOW - 700, rung=2)
    (end,) = ob.owed(run_with(attempt), seen(execution=going(root=NodePhase.FAILED)))
    assert end.verdict is Verdict.TIMED_OUT
    (end,) = ob.owed(run_with(attempt), seen(execution=None))
    assert end.verdict is Verdict.TIMED_OUT


def test_a_cancel_is_written_down_before_anything_is_ended():
    run = with_act(run_with(), Act(Kind.CANCEL, "q", 1, "ann"))
    (end,) = ob.owed(run, seen())
    assert end == ob.End(1, Verdict.CANCELLED, "cancelled by ann")


def test_a_cancel_that_comes_too_late_changes_nothing():
    run = with_act(run_with(), Act(Kind.CANCEL, "q", 1, "ann"))
    (end,) = ob.owed(run, seen(execution=going(root=NodePhase.SUCCEEDED)))
    assert end.verdict is Verdict.SUCCEEDED


def test_a_cancelled_workflow_is_terminated_at_once_and_deleted_a_minute_later():
    run = run_with(ended(Verdict.CANCELLED, on_failure=""), reported=None)
    assert kinds(ob.owed(run, seen())) == ["Escalate", "Post"]
    run = run_with(ended(Verdict.CANCELLED, on_failure="", rung=3))
    assert kinds(ob.owed(run, seen(now=NOW + 100))) == ["Escalate", "Post"]


def test_a_workflow_that_outlives_its_root_is_terminated_after_three_minutes():
    run = run_with(ended(Verdict.SUCCEEDED))
    behind_its_exit_pod = going(root=NodePhase.SUCCEEDED)
    assert kinds(ob.owed(run, seen(execution=behind_its_exit_pod))) == ["Post"]
    late = ob.owed(run, seen(execution=behind_its_exit_pod, now=NOW + 200))
    assert late[0] == ob.Escalate(1, ob.TERMINATE)


@pytest.mark.parametrize("verdict", [Verdict.CANCELLED, Verdict.TIMED_OUT], ids=["argo stop", "deadline"])
def test_a_workflow_that_was_stopped_gets_time_for_its_exit_handler(verdict):
    run = run_with(ended(verdict, on_failure="", rung=2))
    behind_its_exit_pod = going(root=NodePhase.FAILED)
    assert kinds(ob.owed(run, seen(execution=behind_its_exit_pod))) == ["Post"]
    assert kinds(ob.owed(run, seen(execution=behind_its_exit_pod, now=NOW + 200))) == ["Escalate", "Post"]


def test_a_build_that_ended_unwatched_is_settled_first():
    lonely = build("test", phase=BuildPhase.SUCCEEDED)
    assert ob.owed(run_with(), seen(builds=(lonely,))) == (ob.Settle(lonely),)


def test_what_builds_came_to_is_remembered():
    done = (build("test", 1, Ending.FAILED), build("test", 2, Ending.SUCCEEDED))
    assert ob.owed(run_with(), seen(builds=done)) == (ob.Mirror(1, "test", StepState(2, 2)),)


def test_an_accepted_lack_of_a_handler_is_remembered_and_said():
    attempt = replace(FIRST, steps=("test",))
    none = build("test", 1, Ending.UNHANDLED)
    execution = going(root=NodePhase.SUCCEEDED, nodes=(Node("test", NodePhase.SUCCEEDED, 0),))
    run = run_with(attempt, steps=remembering(none))
    assert ob.owed(run, seen(builds=(none,), execution=execution)) == (
        ob.Mirror(1, "test", StepState(None, 1, unhandled=True)),
    )
    run = run_with(attempt, steps={(1, "test"): StepState(None, 1, unhandled=True)})
    (end,) = ob.owed(run, seen(builds=(none,), execution=execution))
    assert (end.verdict, end.reason) == (Verdict.SUCCEEDED, "nothing to do: brigade.js has no handler for push")


def test_open_builds_are_given_up_before_anything_else_but_the_exit_events():
    open_build = build("test")
    fired = build(names.exit_step(1))
    run = run_with(ended(Verdict.FAILED), steps=remembering(open_build, fired))
    (action,) = ob.owed(run, seen(builds=(fired, open_build)))
    assert action == ob.GiveUp(open_build, Ending.CANCELLED, "the run ended: failed")


def test_a_failure_is_owed_its_event_and_its_status():
    actions = ob.owed(run_with(ended(Verdict.FAILED)), seen(execution=going(finished=True)))
    assert kinds(actions) == ["Post", "Fire"]
    assert actions[0].report.state == "failure"
    assert actions[1] == ob.Fire(1, "build_failed", 1)


def test_an_exit_event_that_was_given_up_is_not_owed_any_more():
    run = run_with(ended(Verdict.FAILED, exit_error="there is no project"), reported=final())
    assert ob.owed(run, seen(execution=going(finished=True))) == (ob.Close(),)


def test_a_success_fires_nothing_unless_asked():
    done = seen(execution=going(finished=True))
    assert kinds(ob.owed(run_with(ended(Verdict.SUCCEEDED)), done)) == ["Post"]
    asked = ended(Verdict.SUCCEEDED, on_success="build_succeeded")
    assert ob.owed(run_with(asked), done)[-1] == ob.Fire(1, "build_succeeded", 1)


def final(verdict: Verdict = Verdict.FAILED) -> Report:
    from bridge.core.reports import final_report

    run = run_with(ended(verdict))
    return final_report(run, run.attempt, verdict)


@pytest.mark.parametrize("ending", [e for e in Ending if e is not Ending.LOST])
def test_the_exit_event_is_fired_once_whatever_became_of_it(ending):
    fired = build(names.exit_step(1), 1, ending)
    run = run_with(ended(Verdict.FAILED), reported=final(), steps=remembering(fired))
    run = ob_mirrored(run, fired)
    assert ob.owed(run, seen(execution=None, builds=(fired,))) == (ob.Close(),)


def ob_mirrored(run: Run, *builds: Build) -> Run:
    from bridge.core.runs import with_step

    for action in ob.owed(run, seen(builds=builds)):
        if isinstance(action, ob.Mirror):
            run = with_step(run, action.epoch, action.step, action.seen)
    return run


def test_a_lost_exit_build_is_made_again_a_few_times():
    fired = [build(names.exit_step(1), n, Ending.LOST) for n in range(1, 7)]
    run = run_with(ended(Verdict.FAILED), reported=final(), steps=remembering(*fired[:1]))
    assert ob.owed(run, seen(execution=None, builds=tuple(fired[:1]))) == (ob.Fire(1, "build_failed", 2),)
    run = run_with(ended(Verdict.FAILED), reported=final(), steps=remembering(*fired))
    assert ob.owed(run, seen(execution=None, builds=tuple(fired))) == (ob.Close(),)


def test_the_exit_build_of_an_older_attempt_has_its_timeout_too():
    fired = build(names.exit_step(1), phase=BuildPhase.RUNNING, started=NOW - 700)
    second = replace(FIRST, n=2, kind=Kind.RETRY)
    run = run_with(ended(Verdict.FAILED), second, reported=replace(PENDING, attempt=2), steps=remembering(fired))
    first, *_ = ob.owed(run, seen(builds=(fired,)))
    assert first == ob.GiveUp(fired, Ending.TIMED_OUT, "timed out after 600 s")


def test_what_a_workflow_waits_for_is_remembered_until_it_goes_on_or_is_stopped():
    run, suspended = run_with(FIRST, reported=PENDING), going(message="it is suspended")
    waits = "the workflow is suspended: argo resume it"
    assert ob.owed(run, seen(execution=suspended)) == (ob.Note(1, waits),)
    noted = run_with(replace(FIRST, waits=waits), reported=PENDING)
    assert ob.owed(noted, seen(execution=suspended)) == ()
    assert ob.owed(noted, seen()) == (ob.Note(1, ""),)
    stopped = run_with(replace(FIRST, waits=waits, rung=ob.STOP), reported=PENDING)
    assert ob.owed(stopped, seen()) == ()


def test_an_exit_event_whose_build_vacuum_took_is_not_fired_again():
    run = run_with(ended(Verdict.FAILED), reported=final(), steps=remembering(build(names.exit_step(1))))
    assert ob.owed(run, seen(execution=None)) == (ob.Close(),)


def test_an_exit_build_has_its_own_timeouts():
    name = names.exit_step(1)
    run = run_with(
        ended(Verdict.FAILED, exit_timeout_seconds=10), reported=final(), steps=remembering(build(name))
    )
    (action,) = ob.owed(run, seen(execution=None, builds=(build(name),)))
    assert action.ending is Ending.TIMED_OUT
    waiting = build(name, phase=BuildPhase.WAITING, started=None, created=NOW - 400)
    (action,) = ob.owed(run, seen(execution=None, builds=(waiting,)))
    assert action.ending is Ending.LOST


def test_the_run_closes_only_when_the_exit_build_has_ended():
    fired = build(names.exit_step(1))
    run = run_with(ended(Verdict.FAILED), reported=final(), steps=remembering(fired))
    assert ob.owed(run, seen(execution=None, builds=(fired,))) == ()


def test_the_run_closes_only_when_its_status_is_delivered():
    run = run_with(ended(Verdict.SUCCEEDED), report_after=NOW + 60)
    assert ob.owed(run, seen(execution=None)) == ()
    assert kinds(ob.owed(run, seen(execution=None, now=NOW + 60))) == ["Post"]


def test_a_status_that_cannot_be_delivered_does_not_hold_the_run():
    run = run_with(ended(Verdict.SUCCEEDED), report_given_up=final(Verdict.SUCCEEDED))
    assert ob.owed(run, seen(execution=None)) == (ob.Close(),)


def test_a_run_that_may_not_speak_posts_nothing_and_closes():
    run = run_with(ended(Verdict.SUCCEEDED), reported=None)
    assert ob.owed(run, seen(execution=None, speaks=False)) == (ob.Close(),)


def test_a_final_status_never_goes_back_to_pending_within_an_attempt():
    run = run_with(reported=final(Verdict.SUCCEEDED))
    assert ob.owed(run, seen()) == ()


def test_a_retry_posts_pending_again():
    second = replace(FIRST, n=2, kind=Kind.RETRY, uid="u2")
    run = run_with(ended(Verdict.FAILED), second, reported=final())
    (post,) = ob.owed(run, seen(execution=going(uid="u2")))
    assert (post.report.state, post.report.attempt) == ("pending", 2)


def test_an_act_that_waits_begins_the_next_attempt_without_a_status_between():
    run = with_act(run_with(ended(Verdict.FAILED)), Act(Kind.RETRY, "q", 1, only=("test",)))
    (begin,) = ob.owed(run, seen(execution=going(finished=True)))
    assert (begin.attempt.n, begin.attempt.epoch, begin.attempt.only) == (2, 1, ("test",))


def test_a_retry_adopts_what_runs_and_a_rerun_does_not():
    open_build = build("test")
    run = run_with(ended(Verdict.FAILED), steps=remembering(open_build))
    done = seen(execution=going(finished=True), builds=(open_build,))
    assert kinds(ob.owed(with_act(run, Act(Kind.RETRY, "q", 1)), done)) == ["Begin"]
    actions = ob.owed(with_act(run, Act(Kind.RERUN, "q", 1)), done)
    assert kinds(actions) == ["GiveUp", "Begin"]
    assert actions[-1].attempt.epoch == 2


def test_the_next_attempt_first_ends_the_workflow_that_lingers():
    run = with_act(run_with(ended(Verdict.FAILED)), Act(Kind.RETRY, "q", 1))
    assert kinds(ob.owed(run, seen())) == ["Escalate", "Begin"]


def test_there_is_nothing_to_retry_of_a_success():
    run = with_act(run_with(ended(Verdict.SUCCEEDED), reported=final(Verdict.SUCCEEDED)), Act(Kind.RETRY, "q", 1))
    assert ob.owed(run, seen(execution=None)) == (ob.Close(),)


def test_a_closed_run_is_opened_by_a_person_and_by_nothing_else():
    run = closed(run_with(ended(Verdict.FAILED), reported=final()), at=NOW)
    assert run.phase is Phase.CLOSED
    assert ob.owed(run, seen(execution=None)) == ()
    asked = with_act(run, Act(Kind.RETRY, "q", 1))
    (begin,) = ob.owed(asked, seen(execution=None))
    opened = with_attempt(asked, begin.attempt)
    assert (opened.phase, opened.verdict) == (Phase.RUNNING, None)


def test_an_act_that_follows_an_older_attempt_is_no_act_any_more():
    second = replace(ended(Verdict.FAILED), n=2)
    run = with_act(
        run_with(ended(Verdict.FAILED), second, reported=replace(final(), attempt=2)), Act(Kind.RETRY, "q", 1)
    )
    assert "Begin" not in kinds(ob.owed(run, seen(execution=None)))


def test_a_closed_run_is_forgotten_after_its_retention():
    run = closed(run_with(ended(Verdict.FAILED), reported=final()), at=NOW)
    assert ob.owed(run, seen(now=NOW + 99, retention_seconds=100)) == ()
    assert ob.owed(run, seen(now=NOW + 100, retention_seconds=100)) == (ob.Forget(),)


HELD = State(held="a pull request from a fork by NONE")


def held_run(**changes) -> Run:
    return some_run(state=HELD, **changes)


def test_a_held_run_begins_nothing_says_what_a_maintainer_has_to_do_and_is_closed():
    run = held_run()
    (post,) = ob.owed(run, seen(execution=None))
    assert post == ob.Post(held_report(run))
    assert post.report.state == "error"
    assert post.report.description.startswith("waits for a maintainer: comment /ok-to-test ")
    assert f"bridgectl approve {run.id}" in post.report.description
    told = with_report(run, post.report, to="github")
    assert ob.owed(told, seen(execution=None)) == (ob.Close(),)
    done = closed(told, at=NOW)
    assert (done.phase, done.verdict, done.reason) == (Phase.CLOSED, Verdict.CANCELLED, run.held)
    assert ob.owed(done, seen(execution=None)) == ()
    assert ob.owed(done, seen(execution=None, now=NOW + 100, retention_seconds=50)) == (ob.Forget(),)


def test_an_approval_lets_a_held_run_begin_whether_it_is_closed_or_not():
    approval = Act(Kind.APPROVE, "q1", 0, who="mona")
    for run in (held_run(), closed(held_run(), at=NOW)):
        approved = with_act(run, approval)
        assert approved.phase is not Phase.CLOSED
        (begin,) = ob.owed(approved, seen(execution=None))
        assert (begin.attempt.n, begin.attempt.kind) == (1, Kind.FIRST)
        begun = with_attempt(approved, begin.attempt)
        assert begun.waiting_act is None
        reported = with_report(begun, held_report(run), to="github")
        posted, submit = ob.owed(reported, seen(execution=None))
        assert (posted.report.state, posted.report.attempt) == ("pending", 1)
        assert submit == ob.Submit(1)


@pytest.mark.parametrize("kind", [Kind.RETRY, Kind.RERUN, Kind.CANCEL])
def test_no_other_act_lets_a_held_run_begin_or_opens_it_again(kind):
    run = closed(held_run(), at=NOW)
    asked = with_act(run, Act(kind, "q1", 0))
    assert asked.phase is Phase.CLOSED
    assert ob.owed(asked, seen(execution=None)) == ()
    assert ob.owed(with_act(held_run(), Act(kind, "q1", 0)), seen(execution=None))[0] == ob.Post(held_report(run))


def test_a_held_run_whose_status_a_newer_one_took_over_is_closed_without_a_word():
    assert ob.owed(held_run(), seen(execution=None, speaks=False)) == (ob.Close(),)


def test_a_cancel_of_a_run_that_has_not_begun_ends_its_first_attempt():
    run = with_act(some_run(), Act(Kind.CANCEL, "q1", 0, who="mona"))
    (begin,) = ob.owed(run, seen(execution=None))
    begun = with_attempt(run, begin.attempt)
    assert ob.owed(begun, seen(execution=None)) == (ob.End(1, Verdict.CANCELLED, "cancelled by mona"),)
