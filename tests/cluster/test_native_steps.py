"""A template written by hand, of ordinary containers, on a real API server: status, retry and page as of any other run."""

from pathlib import Path

import pytest
import yaml

from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.representations import run_details
from bridge.core.runs import Kind, NodePart, Phase
from bridge.core.verdicts import Verdict
from bridge.core.workflows import workflow_template
from bridge.flows.acting import act
from tests.cluster.client import path
from tests.cluster.controlled import PROJECT, ROOT
from tests.cluster.player import Player, recording

EXAMPLE = Path(ROOT) / "argo-templates" / "native.yaml"
MOMENT = "2026-11-24T12:00:00Z"
LATER = "2026-11-24T12:00:07Z"


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def example(realm):
    """The example as it is committed; the API server takes it."""
    template = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    realm.admin.create(path("workflowtemplates", realm.namespace), template)
    return template["metadata"]["name"]


def argo_says(realm, name, phase, **steps):
    """Argo has come so far: the root node's phase, and each step's with the exit code of its container."""
    realm.workflow(name)
    root = {"id": name, "name": name, "displayName": name, "type": "DAG", "templateName": "main"}
    nodes = {name: {**root, "phase": phase}}
    for step, (part, code) in steps.items():
        shown = step.replace("_", "-")
        said = {"outputs": {"exitCode": str(code)}, "message": f"Error (exit code {code})"} if code else {}
        nodes[f"{name}-{shown}"] = {
            "id": f"{name}-{shown}",
            "name": f"{name}.{shown}",
            "displayName": shown,
            "type": "Pod",
            "boundaryID": name,
            "templateName": shown,
            "phase": part,
            **said,
        }
    for one in nodes.values():
        ended = LATER if one["phase"] not in {"Running", "Pending"} else None
        one.update({"templateScope": "", "startedAt": MOMENT, "finishedAt": ended})
    status = {"phase": phase, "nodes": nodes, "startedAt": MOMENT, "finishedAt": None}
    realm.admin.patch(path("workflows", realm.namespace, name), {"status": status})


def states(realm, run):
    return {step["name"]: step["state"] for step in run_details(realm.runs.read(run), ())["steps"]}


def test_the_example_fails_and_is_retried_as_a_new_workflow_of_all_its_steps(realm, brigade, example):
    with realm.controlled():
        run = realm.accept(pipeline=example)
        argo_says(realm, run, "Running", download=("Running", 0))
        realm.until(lambda: states(realm, run)["download"] == "running", "the page to show it")
        argo_says(realm, run, "Failed", download=("Succeeded", 0), smoke_test=("Failed", 3))
        failed = realm.until_closed(run)
        assert (failed.verdict, failed.reason) == (Verdict.FAILED, "step smoke-test failed: exit code 3")
        assert states(realm, run) == {"download": "succeeded", "smoke-test": "failed"}
        asked = act(realm.runs, run, Kind.RETRY, request="q", who="ada", source="test", now=0.0)
        assert asked.accepted
        second = realm.workflow(f"{run}-2")
        assert second["spec"]["workflowTemplateRef"] == {"name": example}
        argo_says(realm, f"{run}-2", "Running", download=("Running", 0))
        realm.until(lambda: states(realm, run)["download"] == "running", "it to run anew")
        assert states(realm, run)["smoke-test"] == "pending"
        argo_says(realm, f"{run}-2", "Succeeded", download=("Succeeded", 0), smoke_test=("Succeeded", 0))
        again = realm.until_run(
            run, lambda now: now.phase is Phase.CLOSED and len(now.state.attempts) == 2, "to close"
        )
    assert again.verdict is Verdict.SUCCEEDED
    assert states(realm, run) == {"download": "succeeded", "smoke-test": "succeeded"}
    assert realm.reports.states(run) == ["pending", "failure", "pending", "success"]
    assert brigade.builds() == [], "nothing of it is Brigade's, and the example wants no failure event"


@pytest.mark.parametrize(("seen", "verdict"), [(True, Verdict.SUCCEEDED), (False, Verdict.CANCELLED)])
def test_a_workflow_that_is_deleted_succeeded_only_if_each_step_was_seen_to(
    realm, brigade, example, seen, verdict
):
    with realm.controlled():
        run = realm.accept(pipeline=example)
        last = ("Succeeded", 0) if seen else ("Running", 0)
        argo_says(realm, run, "Running", download=("Succeeded", 0), smoke_test=last)
        part = NodePart.SUCCEEDED if seen else NodePart.RUNNING
        realm.until_run(
            run,
            lambda now: (state := now.step(1, "smoke-test")) and state.node and state.node.part is part,
            "to know it",
        )
        realm.admin.delete(path("workflows", realm.namespace, run))
        ended = realm.until_closed(run)
    assert ended.verdict is verdict
    assert brigade.builds() == []


@pytest.mark.parametrize(("name", "verdict"), [("succeeded", Verdict.SUCCEEDED), ("step-failed", Verdict.FAILED)])
def test_what_a_real_argo_did_with_native_steps_beside_others_is_remembered(realm, brigade, name, verdict):
    run = f"mixed-{name}"
    one = recording(name, called=run)
    steps = tuple(Step(step, events=(step,)) for step in one.steps)
    template = workflow_template(Pipeline(run, (PROJECT,), (Trigger("push"),), steps, timeout_seconds=600))
    native = {"lint", "deploy"}
    for part in template["spec"]["templates"]:
        if part["name"] in native:
            part["container"] = {"image": "busybox:1.37", "command": ["true"]}
    realm.admin.create(path("workflowtemplates", realm.namespace), template)
    with realm.controlled():
        realm.accept(run, pipeline=run)
        Player(realm, brigade, one, run).play()
        ended = realm.until_closed(run)
    assert ended.verdict is verdict
    assert set(ended.attempt.native) == native & set(one.steps)
    assert ended.step(1, "lint").node.part is NodePart.SUCCEEDED
    built = {found["labels"]["bridge.brigade.sh/step"] for found in brigade.builds(run)}
    assert not built & native
