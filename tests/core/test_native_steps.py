"""Steps that are ordinary containers: the record remembers their nodes, since no build tells of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bridge.core import obligations as ob
from bridge.core.checks import check_of
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.exits import Failure, failures_of
from bridge.core.reports import final_report
from bridge.core.representations import run_details
from bridge.core.runs import Attempt, Kind, NodePart, NodeState, with_attempt, with_end, with_step
from bridge.core.timelines import failing_steps, timeline
from bridge.core.verdicts import Verdict
from bridge.core.workflow_templates import pipeline_of
from tests.fakes import some_run

NOW = 1_700_000_100.0
EXAMPLE = Path(__file__).parents[2] / "argo-templates" / "native.yaml"
PIPELINE = pipeline_of(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))


def a_run(n=1, run=None):
    (begin,) = ob.owed(some_run(), ob.Seen(NOW, PIPELINE, None, ()))
    attempt = replace(begin.attempt, n=n, kind=Kind.FIRST if n == 1 else Kind.RETRY, uid="u", submitted=NOW)
    return with_attempt(run or some_run(), attempt)


def node(step, phase=NodePhase.SUCCEEDED, code=0, message="", **changes):
    return Node(step, phase, code, message, started=NOW, ended=NOW + 5 if phase.ended else None, **changes)


def looked(run, *nodes, root=NodePhase.RUNNING, **more):
    """`run` after a look at such a Workflow: all that it remembers and how it ended are applied."""
    execution = Execution("u", root, nodes=nodes, **more)
    while True:
        actions = ob.owed(run, ob.Seen(NOW, PIPELINE, execution, ()))
        changes = [one for one in actions if isinstance(one, ob.Mirror | ob.End)]
        if not changes:
            return run
        for one in changes:
            if isinstance(one, ob.Mirror):
                run = with_step(run, one.epoch, one.step, one.seen)
            else:
                run = with_end(run, one.n, verdict=one.verdict, reason=one.reason, at=NOW + 9)


def gone(run):
    (end, *_) = ob.owed(run, ob.Seen(NOW, PIPELINE, None, ()))
    return end.verdict


def parts(run):
    return {step: seen.node.part for (_, step), seen in run.state.steps.items() if seen.node}


def test_the_example_is_a_pipeline_of_native_steps():
    assert [(step.name, step.needs, step.native) for step in PIPELINE.steps] == [
        ("download", (), True),
        ("smoke-test", ("download",), True),
    ]
    assert (PIPELINE.exit.on_failure, PIPELINE.report_context) == ("", "ci/smoke-test")
    assert a_run().attempt.native == ("download", "smoke-test")


def test_what_a_step_comes_to_is_remembered():
    run = looked(a_run(), node("download"), node("smoke-test", NodePhase.RUNNING, None))
    assert parts(run) == {"download": NodePart.SUCCEEDED, "smoke-test": NodePart.RUNNING}
    assert run.step(1, "download").node == NodeState(1, NodePart.SUCCEEDED, NOW, NOW + 5)
    assert looked(run, node("download"), node("smoke-test", NodePhase.RUNNING, None)) == run
    assert parts(looked(run, node("download"), node("smoke-test")))["smoke-test"] is NodePart.SUCCEEDED


def test_a_run_of_native_steps_succeeds():
    run = looked(a_run(), node("download"), node("smoke-test"), root=NodePhase.SUCCEEDED)
    assert run.attempt.verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize(
    ("failed", "verdict", "reason"),
    [
        (node("smoke-test", NodePhase.FAILED, 1, "Error (exit code 1)"), Verdict.FAILED, "failed: exit code 1"),
        (node("smoke-test", NodePhase.FAILED, 75, "Error (exit code 75)"), Verdict.FAILED, "failed: exit code 75"),
        (
            node("smoke-test", NodePhase.FAILED, 3, "main: Error (exit code 3): 2 of 9 failed"),
            Verdict.FAILED,
            "failed: 2 of 9 failed",
        ),
        (
            node(
                "smoke-test",
                NodePhase.FAILED,
                None,
                "Pod was active on the node longer than the specified deadline",
            ),
            Verdict.TIMED_OUT,
            "timed out: Pod was active",
        ),
        (node("smoke-test", NodePhase.ERROR, None, "pod deleted"), Verdict.ERROR, "could not be run: pod deleted"),
        (node("smoke-test", NodePhase.FAILED, None, "OOMKilled"), Verdict.ERROR, "could not be run: OOMKilled"),
    ],
    ids=["1", "75", "said", "deadline", "error", "killed"],
)
def test_any_exit_code_is_a_failure_and_what_has_none_is_told_apart(failed, verdict, reason):
    run = looked(a_run(), node("download"), failed, root=NodePhase.FAILED)
    assert run.attempt.verdict is verdict
    assert f"step smoke-test {reason}" in run.attempt.reason
    assert parts(run)["smoke-test"] == verdict.value


def test_a_workflow_that_is_gone_succeeded_if_all_its_steps_were_seen_to():
    run = looked(a_run(), node("download"))
    assert gone(run) is Verdict.CANCELLED
    assert gone(looked(run, node("download"), node("smoke-test"))) is Verdict.SUCCEEDED
    assert gone(looked(run, node("smoke-test", NodePhase.SKIPPED, None))) is Verdict.SUCCEEDED


def test_what_argo_omitted_since_something_before_it_went_wrong_is_not_done():
    omitted = node("smoke-test", NodePhase.OMITTED, None, "omitted: depends condition not met")
    run = looked(a_run(), node("download"), omitted)
    assert parts(run) == {"download": NodePart.SUCCEEDED}
    assert gone(run) is Verdict.CANCELLED
    assert {one["state"] for one in run_details(run, ())["steps"]} == {"succeeded", "pending"}


def test_a_retry_runs_native_steps_anew_and_an_earlier_success_is_not_the_retrys():
    run = looked(a_run(), node("download"), node("smoke-test", NodePhase.FAILED, 1), root=NodePhase.FAILED)
    again = a_run(2, run)
    told = run_details(again, ())
    assert [(step["name"], step["state"]) for step in told["steps"]] == [
        ("download", "pending"),
        ("smoke-test", "pending"),
    ]
    again = looked(again, node("smoke-test"))
    assert gone(again) is Verdict.CANCELLED, "download was not seen in this attempt"
    again = looked(again, node("download"), node("smoke-test"), root=NodePhase.SUCCEEDED)
    assert again.attempt.verdict is Verdict.SUCCEEDED
    assert again.step(1, "smoke-test").node.attempt == 2


def test_an_end_is_not_taken_back_by_a_late_look():
    run = looked(a_run(), node("download"))
    assert looked(run, node("download", NodePhase.RUNNING, None)) == run


def test_pages_and_checks_show_them():
    run = looked(a_run(), node("download"), node("smoke-test", NodePhase.FAILED, 1), root=NodePhase.FAILED)
    told = {step["name"]: (step["state"], step["reason"]) for step in run_details(run, ())["steps"]}
    assert told == {"download": ("succeeded", ""), "smoke-test": ("failed", "exit code 1")}
    summary = check_of(run, final_report(run, run.attempt, run.attempt.verdict)).summary
    assert "| <code>download</code> | succeeded | its own container | 5s |" in summary
    assert "| <code>smoke-test</code> | failed | its own container | 5s |" in summary


def test_what_happened_to_them_is_told_in_order():
    run = looked(a_run(), node("download"), node("smoke-test", NodePhase.FAILED, 1), root=NodePhase.FAILED)
    told = [moment.what for moment in timeline(run, ())]
    assert told.index("step download of attempt 1 ended: succeeded") < told.index(
        "step smoke-test of attempt 1 ended: failed: exit code 1"
    )
    assert failing_steps(run, ()) == ("smoke-test",)


def test_the_failure_event_names_them():
    run = looked(a_run(), node("download"), node("smoke-test", NodePhase.FAILED, 1), root=NodePhase.FAILED)
    assert failures_of(run, run.attempt, ()) == (Failure("smoke-test", "exit code 1", ""),)


def test_a_step_that_argo_left_out_is_remembered_though_it_would_have_made_a_build():
    pipeline = replace(PIPELINE, steps=tuple(replace(step, native=False) for step in PIPELINE.steps))
    attempt = Attempt(1, Kind.FIRST, 1, NOW, steps=("download", "smoke-test"), uid="u", submitted=NOW)
    run = with_attempt(some_run(), attempt)
    execution = Execution(
        "u", NodePhase.RUNNING, nodes=(node("download", NodePhase.SKIPPED, None), node("smoke-test"))
    )
    mirrored = [one for one in ob.owed(run, ob.Seen(NOW, pipeline, execution, ())) if isinstance(one, ob.Mirror)]
    assert [(one.step, one.seen.node.part) for one in mirrored] == [("download", NodePart.SKIPPED)]
