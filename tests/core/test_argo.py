"""What Workflows say, against everything that a real controller was seen to write (facts/argo.md)."""

import base64
import copy
import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.argo import execution_of, is_of, owner_uid, workflow
from bridge.core.endings import gone_end, root_end
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.runs import Attempt, Kind
from bridge.core.verdicts import Verdict
from tests import recorded
from tests.fakes import some_run

OK = NodePhase.SUCCEEDED
FAILED = NodePhase.FAILED
ERROR = NodePhase.ERROR
RUNNING = NodePhase.RUNNING
PENDING = NodePhase.PENDING
OMITTED = NodePhase.OMITTED

BUILD_OK = {"build": (OK, 0)}
SKELETON_OK = {"build": (OK, 0), "lint": (OK, 0), "unit-test": (OK, 0), "package": (OK, 0)}

# name → root, steps, finished, and words of the message
LAST = {
    "succeeded": (OK, {"build": (OK, 0), "lint": (OK, 0), "unit-test": (OK, 0), "deploy": (OK, 0)}, True, ""),
    "restricted-succeeded": (OK, SKELETON_OK, True, ""),
    "skeleton-succeeded": (OK, SKELETON_OK, True, ""),
    "skeleton-strict-succeeded": (OK, SKELETON_OK, True, ""),
    "step-failed": (
        FAILED,
        {"build": (OK, 0), "lint": (OK, 0), "unit-test": (FAILED, 2), "deploy": (OMITTED, None)},
        True,
        "",
    ),
    "skeleton-step-failed": (
        FAILED,
        {"build": (OK, 0), "lint": (OK, 0), "unit-test": (FAILED, 2), "package": (OMITTED, None)},
        True,
        "",
    ),
    "stopped": (
        FAILED,
        {"build": (OK, 0), "lint": (OK, 0), "unit-test": (FAILED, 143)},
        True,
        "Stopped with strategy 'Stop'",
    ),
    "terminated": (
        FAILED,
        {"build": (OK, 0), "lint": (OK, 0), "unit-test": (FAILED, 143)},
        True,
        "Stopped with strategy 'Terminate'",
    ),
    "stopped-in-backoff": (FAILED, {"build": (FAILED, 75)}, True, "Stopped with strategy 'Stop'"),
    "stopped-step-exits-75": (FAILED, {"build": (FAILED, 75)}, True, "Stopped with strategy 'Stop'"),
    "deadline": (
        FAILED,
        {
            "build": (FAILED, None),
            "deploy": (OMITTED, None),
            "lint": (OMITTED, None),
            "unit-test": (OMITTED, None),
        },
        True,
        "deadline has passed",
    ),
    "deadline-step-exits-75": (FAILED, {"build": (FAILED, 75)}, True, "deadline has passed"),
    "wfdeadline-backoff": (FAILED, {"build": (FAILED, 75)}, True, "deadline has passed"),
    "imagepullbackoff": (FAILED, {"build": (FAILED, 137)}, True, "deadline has passed"),
    "node-lost": (FAILED, {"build": (FAILED, 143)}, True, "deadline has passed"),
    # A template's own deadline is not the Workflow's.
    "tmpldeadline": (FAILED, {"build": (FAILED, 143)}, True, ""),
    "exit75": (FAILED, {"build": (FAILED, 75)}, True, ""),
    "evicted-exit75": (OK, BUILD_OK, True, ""),
    "kill9": (OK, BUILD_OK, True, ""),
    "oom": (OK, BUILD_OK, True, ""),
    "pod-deleted": (OK, BUILD_OK, True, ""),
    "wait-container-killed": (ERROR, {"build": (ERROR, None)}, True, ""),
    "wait-container-killed-retried": (OK, BUILD_OK, True, ""),
    "executor-forbidden": (
        ERROR,
        {
            "build": (ERROR, None),
            "deploy": (OMITTED, None),
            "lint": (OMITTED, None),
            "unit-test": (OMITTED, None),
        },
        True,
        "",
    ),
    "template-missing": (None, {}, True, "not found"),
    "argument-missing": (None, {}, True, "invalid spec"),
    "entrypoint-missing": (None, {}, True, "invalid spec"),
    # Its exit handler failed, and the Workflow with it.
    "exit-pod-deleted": (OK, BUILD_OK, True, ""),
    "skeleton-exit-unschedulable": (OK, SKELETON_OK, True, ""),
    "exit-unschedulable": (OK, BUILD_OK, False, ""),
    "exit-unschedulable-then-stop": (OK, BUILD_OK, False, ""),
    "exit-unschedulable-then-terminate": (OK, BUILD_OK, True, ""),
    "suspended-before-start": (None, {}, False, "suspended"),
    "suspended-then-stop": (None, {}, False, "suspended"),
    "suspended-midway": (RUNNING, {"build": (RUNNING, None)}, False, "suspended"),
    "suspended-then-terminate": (RUNNING, {"build": (FAILED, None)}, False, "suspended"),
    "suspended-terminate-unsuspend": (
        FAILED,
        {
            "build": (FAILED, None),
            "lint": (OMITTED, None),
            "package": (OMITTED, None),
            "unit-test": (OMITTED, None),
        },
        True,
        "Stopped with strategy 'Terminate'",
    ),
    "mutex-queued": (OK, BUILD_OK, True, ""),
    # It never began, but it was told to end: no refusal.
    "mutex-queued-then-stop-terminate": (FAILED, {}, True, "Stopped with strategy 'Terminate'"),
    "quota-zero-pods": (RUNNING, {"build": (RUNNING, None)}, False, ""),
    "unschedulable": (RUNNING, {"build": (RUNNING, None)}, False, ""),
    "unschedulable-pendingtimeout": (RUNNING, {"build": (RUNNING, None)}, False, ""),
    "secret-missing": (RUNNING, {"build": (RUNNING, None)}, False, ""),
    "created-while-controller-down": (OK, BUILD_OK, True, ""),
    "controller-down-pod-finished-and-deleted": (OK, BUILD_OK, True, ""),
    "ttl-deleted-while-controller-down": (OK, BUILD_OK, True, ""),
    "argo-retry": (FAILED, {"build": (FAILED, 2)}, True, ""),
    "deleted": (RUNNING, {"build": (OK, 0), "lint": (PENDING, None), "unit-test": (RUNNING, None)}, False, ""),
    "finalizer-deleted": (RUNNING, {"build": (RUNNING, None)}, False, ""),
    "owner-gone": (None, {}, False, ""),
}
REFUSED = {"template-missing", "argument-missing", "entrypoint-missing"}


def last_of(name):
    return execution_of(recorded.objects("argo", name)[-1])


def node_of(execution, step):
    (found,) = [node for node in execution.nodes if node.step == step]
    return found


def test_every_recording_is_judged():
    assert sorted(LAST) == recorded.names("argo")


@pytest.mark.parametrize("name", sorted(LAST))
def test_the_last_event_says_how_it_is(name):
    root, steps, finished, words = LAST[name]
    execution = last_of(name)
    assert execution.root is root
    assert {node.step: (node.phase, node.exit_code) for node in execution.nodes} == steps
    assert execution.finished is finished
    assert words in execution.message
    assert bool(execution.message) is bool(words)
    assert bool(execution.invalid) is (name in REFUSED)
    assert execution.uid


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_argo_refuses_is_invalid_in_its_own_words(name):
    execution = last_of(name)
    assert execution.invalid == execution.message
    assert not execution.root_ended


@pytest.mark.parametrize("name", sorted(LAST))
def test_at_every_event_the_exit_handler_is_no_step_and_no_end_is_told_too_early(name):
    history = [execution_of(found) for found in recorded.objects("argo", name)]
    for execution in history:
        assert {node.step for node in execution.nodes} <= {"build", "lint", "unit-test", "package", "deploy"}
        assert len({node.step for node in execution.nodes}) == len(execution.nodes)
    if name == "argo-retry":
        return
    ended = [execution.root for execution in history if execution.root_ended]
    assert len(set(ended)) <= 1, "the root's end never changes"


def test_the_root_ends_before_the_exit_handler_does():
    history = [execution_of(found) for found in recorded.objects("argo", "skeleton-succeeded")]
    between = [execution for execution in history if execution.root_ended and not execution.finished]
    assert between
    assert all(execution.root is OK for execution in between)


def test_argo_retry_of_an_ended_workflow_is_seen_as_running_again():
    history = [execution_of(found) for found in recorded.objects("argo", "argo-retry")]
    finished = [execution.finished for execution in history]
    assert finished.index(True) < len(finished) - 1
    assert False in finished[finished.index(True) :]


def test_a_deletion_that_a_finalizer_holds_up_is_seen():
    history = [execution_of(found) for found in recorded.objects("argo", "finalizer-deleted")]
    assert not history[0].deleting
    assert history[-1].deleting


def test_retries_are_taken_together_with_the_reason_of_the_last():
    node = node_of(last_of("exit75"), "build")
    assert node == Node("build", FAILED, 75, "main: Error (exit code 75)", node.started, node.ended)
    assert node.ended > node.started
    assert node_of(last_of("kill9"), "build").message == ""
    assert node_of(last_of("wait-container-killed"), "build").message == "wait: Error (exit code 137)"
    assert "specified deadline" in node_of(last_of("tmpldeadline"), "build").message
    assert "workflow deadline" in node_of(last_of("deadline"), "build").message
    assert "Unschedulable" in node_of(last_of("unschedulable"), "build").message


def test_steps_come_in_the_order_in_which_they_began():
    assert [node.step for node in last_of("succeeded").nodes] == ["build", "lint", "unit-test", "deploy"]


def compressed(workflow):
    changed = copy.deepcopy(workflow)
    packed = gzip.compress(json.dumps(changed["status"].pop("nodes")).encode())
    changed["status"]["compressedNodes"] = base64.b64encode(packed).decode()
    return changed


@pytest.mark.parametrize("name", ["skeleton-step-failed", "deadline", "exit-pod-deleted"])
def test_compressed_nodes_say_the_same(name):
    found = recorded.objects("argo", name)[-1]
    assert execution_of(compressed(found)) == execution_of(found)


@pytest.mark.parametrize(
    "damaged",
    ["", "!", "AAAA", base64.b64encode(gzip.compress(b"[", mtime=0)).decode()],
    ids=["empty", "no base64", "no gzip", "no JSON"],
)
def test_compressed_nodes_that_cannot_be_read_are_said_to_be(damaged):
    found = compressed(recorded.objects("argo", "skeleton-succeeded")[-1])
    found["status"]["compressedNodes"] = damaged
    execution = execution_of(found)
    assert execution.root is None
    assert execution.invalid
    assert execution.finished


def test_offloaded_nodes_are_said_to_be_out_of_sight_and_the_phase_is_no_verdict():
    found = copy.deepcopy(recorded.objects("argo", "skeleton-succeeded")[-1])
    found["status"].pop("nodes")
    found["status"]["offloadNodeStatusVersion"] = "fnv:123"
    execution = execution_of(found)
    assert execution.root is None
    assert "nodeStatusOffLoad" in execution.invalid
    found["status"]["phase"] = "Running"
    execution = execution_of(found)
    assert (execution.root, execution.finished, execution.invalid) == (None, False, "")
    assert "nodeStatusOffLoad" in execution.message


def test_a_controller_that_broke_down_over_a_workflow_ended_it():
    found = copy.deepcopy(recorded.objects("argo", "suspended-midway")[-1])
    found["status"] |= {"phase": "Error", "message": "workflow is longer than maximum allowed size"}
    execution = execution_of(found)
    assert (execution.root, execution.finished, execution.invalid) == (ERROR, True, "")
    assert "maximum allowed size" in execution.message


def test_an_exit_handlers_deadline_is_not_the_workflows():
    found = copy.deepcopy(recorded.objects("argo", "skeleton-step-failed")[-1])
    late = "Pod was active on the node longer than the specified deadline"
    (handler,) = [node for node in found["status"]["nodes"].values() if node["name"].endswith(".onExit")]
    handler |= {"phase": "Failed", "message": late}
    found["status"] |= {"phase": "Error", "message": late}
    assert execution_of(found).message == ""


def test_a_deadline_on_a_step_without_retries_counts_once_the_workflows_has_passed():
    late = "Pod was active on the node longer than the specified deadline"
    found = copy.deepcopy(recorded.objects("argo", "deadline")[-1])
    nodes = found["status"]["nodes"]
    (step,) = [node for node in nodes.values() if node["type"] == "Retry"]
    step |= {"type": "Pod", "message": late}
    assert "deadline has passed" in execution_of(found).message
    found["status"]["startedAt"] = "2026-11-24T23:00:00Z"
    assert execution_of(found).message == ""


def an_entrypoint(kind, **changes):
    root = {"id": "w", "name": "w", "displayName": "w", "type": kind, "templateName": "only", "phase": "Failed"}
    return {
        "metadata": {"name": "w", "uid": "u"},
        "status": {"phase": "Failed", "nodes": {"w": {**root, **changes}}},
    }


def test_an_entrypoint_that_is_a_container_is_the_one_step():
    found = an_entrypoint("Pod", outputs={"exitCode": "3"}, message="main: Error (exit code 3)")
    assert execution_of(found).nodes == (Node("only", FAILED, 3, "main: Error (exit code 3)"),)


def test_steps_in_groups_and_loops_are_named_as_their_tasks():
    found = an_entrypoint("Steps")
    for name, kind in [
        ("[0]", "StepGroup"),
        ("build", "Pod"),
        ("each", "TaskGroup"),
        ("each(0:a)", "Pod"),
        ("each(1:b)", "Retry"),
    ]:
        node = {
            "id": name,
            "name": f"w.{name}",
            "displayName": name,
            "type": kind,
            "phase": "Failed",
            "boundaryID": "w",
        }
        found["status"]["nodes"][name] = node
    nodes = found["status"]["nodes"]
    nodes["hook"] = {**nodes["build"], "displayName": "build-onExit", "nodeFlag": {"hooked": True}}
    nodes["inner"] = {**nodes["build"], "displayName": "inner", "boundaryID": "build"}
    assert [node.step for node in execution_of(found).nodes] == ["build", "each"]


def test_a_workflow_is_only_names():
    run = some_run("pr-1", pipeline="pull-request")
    made = workflow(run, 2, record_uid="u-1", instance_id="ours")
    assert made == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": "pr-1-2",
            "labels": {
                "bridge.brigade.sh/run": "pr-1",
                "bridge.brigade.sh/pipeline": "pull-request",
                "bridge.brigade.sh/attempt": "2",
                "workflows.argoproj.io/controller-instanceid": "ours",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "pr-1", "uid": "u-1"}],
        },
        "spec": {
            "workflowTemplateRef": {"name": "pull-request"},
            "arguments": {"parameters": [{"name": "run", "value": "pr-1"}, {"name": "attempt", "value": "2"}]},
        },
    }
    assert is_of(made, "pr-1", 2)
    assert not is_of(made, "pr-1", 1)
    assert not is_of(made, "pr-2", 2)
    assert owner_uid(made) == "u-1"
    assert "instanceid" not in json.dumps(workflow(run, 1, record_uid="u-1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
def test_nonsense_anywhere_is_answered(data):
    found = copy.deepcopy(recorded.objects("argo", "step-failed")[-1])
    places = [found, found["metadata"], found["spec"], found["status"], *found["status"]["nodes"].values()]
    place = data.draw(st.sampled_from(range(len(places))))
    key = data.draw(st.sampled_from(sorted(places[place])))
    places[place][key] = data.draw(JSON)
    assert isinstance(execution_of(found), Execution)


def test_nothing_is_an_execution_too():
    assert execution_of({}) == Execution(uid="", root=None)
    assert replace(execution_of({"metadata": {"name": "x"}}), uid="") == Execution(uid="", root=None)


VERDICTS = {
    Verdict.FAILED: {"step-failed", "skeleton-step-failed", "argo-retry"},
    Verdict.TIMED_OUT: {
        "deadline",
        "deadline-step-exits-75",
        "imagepullbackoff",
        "node-lost",
        "wfdeadline-backoff",
    },
    Verdict.CANCELLED: {
        "mutex-queued-then-stop-terminate",
        "stopped",
        "stopped-in-backoff",
        "stopped-step-exits-75",
        "suspended-terminate-unsuspend",
        "terminated",
    },
    Verdict.ERROR: {
        "argument-missing",
        "entrypoint-missing",
        "executor-forbidden",
        "exit75",
        "template-missing",
        "tmpldeadline",
        "wait-container-killed",
    },
    None: {
        "deleted",
        "finalizer-deleted",
        "owner-gone",
        "quota-zero-pods",
        "secret-missing",
        "suspended-before-start",
        "suspended-midway",
        "suspended-then-stop",
        "suspended-then-terminate",
        "unschedulable",
        "unschedulable-pendingtimeout",
    },
}


@pytest.mark.parametrize("name", sorted(LAST))
def test_the_verdict_of_each_without_any_build(name):
    run, attempt = some_run(), Attempt(1, Kind.FIRST, 1, begun=0.0, steps=("build",))
    execution = last_of(name)
    verdict = None
    if execution.root_ended:
        verdict, _ = root_end(run, attempt, execution, ())
    elif execution.invalid:
        verdict, _ = gone_end(run, attempt, execution, ())
    expected = next((one for one, found in VERDICTS.items() if name in found), Verdict.SUCCEEDED)
    assert verdict is expected


@pytest.mark.parametrize("name", sorted(VERDICTS[Verdict.CANCELLED]))
def test_a_workflow_that_was_stopped_says_so_from_the_moment_its_root_has_ended(name):
    run, attempt = some_run(), Attempt(1, Kind.FIRST, 1, begun=0.0, steps=("build",))
    seen = [execution_of(found) for found in recorded.objects("argo", name)]
    ends = {root_end(run, attempt, execution, ()) for execution in seen if execution.root_ended}
    reason = "the workflow was stopped" if name.startswith("stopped") else "the workflow was terminated"
    assert ends == {(Verdict.CANCELLED, reason)}
