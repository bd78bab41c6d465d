"""Workflows of attempts on a real API server: what is created, what is touched, and what is not."""

import threading

import pytest

from bridge.cluster.engine import TOUCHED_ANNOTATION, ArgoEngine
from bridge.cluster.runs import SecretRuns
from bridge.core.executions import NodePhase
from bridge.core.runs import Attempt, Kind, with_attempt, with_submission
from bridge.errors import BadPipeline, Forbidden, NotFound, Unavailable
from tests import recorded
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.client import path
from tests.cluster.scripted import answer, scripted
from tests.fakes import some_run

RUN = some_run("push-r1")
TEMPLATE = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "WorkflowTemplate",
    "metadata": {"name": "push"},
    "spec": {
        "entrypoint": "main",
        "templates": [{"name": "main", "container": {"image": "none", "command": ["true"]}}],
    },
}


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def runs(api, namespace):
    return SecretRuns(api, namespace)


@pytest.fixture
def run(runs, admin, namespace):
    """A record and its pipeline's template."""
    admin.create(path("workflowtemplates", namespace), TEMPLATE)
    return runs.create(RUN, b"{}").run


@pytest.fixture
def engine(api, namespace):
    return ArgoEngine(api, namespace, "ours")


def submitted(run, engine):
    """The run as its record is once the Workflow's uid is known."""
    begun = with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=1.0))
    return with_submission(begun, 1, uid=engine.submit(run, 1), at=2.0)


def workflow_of(admin, namespace, name="push-r1"):
    return admin.get(path("workflows", namespace, name))


def test_a_workflow_holds_only_names_and_belongs_to_its_record(engine, run, admin, namespace):
    uid = engine.submit(run, 2)
    found = workflow_of(admin, namespace, "push-r1-2")
    record = admin.get(path("secrets", namespace, "push-r1"))
    assert found["metadata"]["uid"] == uid
    assert found["metadata"]["labels"] == {
        "bridge.brigade.sh/run": "push-r1",
        "bridge.brigade.sh/pipeline": "push",
        "bridge.brigade.sh/attempt": "2",
        "workflows.argoproj.io/controller-instanceid": "ours",
    }
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Secret", "push-r1", record["metadata"]["uid"])
    assert found["spec"] == {
        "workflowTemplateRef": {"name": "push"},
        "arguments": {"parameters": [{"name": "run", "value": "push-r1"}, {"name": "attempt", "value": "2"}]},
    }


def test_a_workflow_that_was_created_before_its_answer_was_lost_is_met_again(engine, run, admin, namespace):
    uid = engine.submit(run, 1)
    admin.delete(path("workflowtemplates", namespace, "push"))
    assert engine.submit(run, 1) == uid


def test_without_its_record_nothing_is_created(engine, run, runs, admin, namespace):
    runs.forget("push-r1")
    with pytest.raises(NotFound):
        engine.submit(run, 1)
    assert admin.get(path("workflows", namespace))["items"] == []


def test_the_name_of_a_strangers_workflow_is_refused_and_it_is_left_alone(engine, run, admin, namespace):
    stranger = {"metadata": {"name": "push-r1"}, "spec": {"workflowTemplateRef": {"name": "push"}}}
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", **stranger}
    made = admin.create(path("workflows", namespace), body)
    with pytest.raises(BadPipeline, match="not of this run"):
        engine.submit(run, 1)
    assert engine.observe(run, 1) is None
    for act in (engine.touch, engine.stop, engine.terminate, engine.delete):
        act(run, 1)
    assert workflow_of(admin, namespace)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_the_workflow_of_an_earlier_record_has_to_go_first(engine, run, runs, admin, namespace):
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "push-r1", "labels": {}, "finalizers": ["tests.example.com/held"]},
        "spec": {"workflowTemplateRef": {"name": "push"}},
    }
    body["metadata"]["labels"] = {"bridge.brigade.sh/run": "push-r1", "bridge.brigade.sh/attempt": "1"}
    admin.create(path("workflows", namespace), body)
    with pytest.raises(Unavailable, match="earlier record"):
        engine.submit(run, 1)
    admin.patch(path("workflows", namespace, "push-r1"), {"metadata": {"finalizers": None}})
    admin.delete(path("workflows", namespace, "push-r1"))
    assert engine.submit(run, 1)


def test_one_that_was_made_anew_by_hand_under_the_name_is_not_the_attempts(engine, run, admin, namespace):
    known = submitted(run, engine)
    engine.delete(known, 1)
    engine.submit(run, 1)
    before = workflow_of(admin, namespace)["metadata"]["resourceVersion"]
    assert engine.observe(known, 1) is None
    for act in (engine.touch, engine.stop, engine.terminate, engine.delete):
        act(known, 1)
    assert workflow_of(admin, namespace)["metadata"]["resourceVersion"] == before


def test_ending_takes_the_suspension_away_and_is_never_taken_back(engine, run, admin, namespace):
    known = submitted(run, engine)
    admin.patch(path("workflows", namespace, "push-r1"), {"spec": {"suspend": True}})
    engine.stop(known, 1)
    spec = workflow_of(admin, namespace)["spec"]
    assert (spec.get("shutdown"), spec.get("suspend")) == ("Stop", None)
    engine.terminate(known, 1)
    engine.stop(known, 1)
    assert workflow_of(admin, namespace)["spec"]["shutdown"] == "Terminate"


def test_touching_makes_an_event_each_time_and_nothing_else(engine, run, admin, namespace):
    known = submitted(run, engine)
    before = workflow_of(admin, namespace)
    engine.touch(known, 1)
    first = workflow_of(admin, namespace)
    engine.touch(known, 1)
    second = workflow_of(admin, namespace)
    versions = {found["metadata"]["resourceVersion"] for found in (before, first, second)}
    assert len(versions) == 3
    assert TOUCHED_ANNOTATION in second["metadata"]["annotations"]
    assert second["spec"] == before["spec"]


def test_what_has_finished_is_not_told_to_end(engine, run, admin, namespace):
    known = submitted(run, engine)
    said = {"phase": "Failed", "message": "invalid spec", "startedAt": None, "finishedAt": None}
    admin.patch(path("workflows", namespace, "push-r1"), {"status": said})
    engine.stop(known, 1)
    engine.terminate(known, 1)
    assert "shutdown" not in workflow_of(admin, namespace)["spec"]
    assert engine.observe(known, 1).invalid == "invalid spec"


def test_a_deletion_that_is_held_up_is_seen(engine, run, admin, namespace):
    known = submitted(run, engine)
    admin.patch(path("workflows", namespace, "push-r1"), {"metadata": {"finalizers": ["tests.example.com/held"]}})
    engine.delete(known, 1)
    assert engine.observe(known, 1).deleting
    assert engine.submit(run, 1) == known.attempt.uid
    admin.patch(path("workflows", namespace, "push-r1"), {"metadata": {"finalizers": None}})
    assert engine.observe(known, 1) is None


def test_a_recorded_status_comes_through_the_api_server_as_it_was(engine, run, admin, namespace):
    known = submitted(run, engine)
    found = recorded.objects("argo", "step-failed")[-1]
    text = str(found["metadata"]["name"])
    nodes = {
        key.replace(text, "push-r1"): {
            **node,
            "name": node["name"].replace(text, "push-r1"),
            "id": node["id"].replace(text, "push-r1"),
            "boundaryID": node.get("boundaryID", "").replace(text, "push-r1"),
            "children": [child.replace(text, "push-r1") for child in node.get("children", [])],
        }
        for key, node in found["status"]["nodes"].items()
    }
    admin.patch(path("workflows", namespace, "push-r1"), {"status": {**found["status"], "nodes": nodes}})
    execution = engine.observe(known, 1)
    assert execution.root is NodePhase.FAILED
    assert {node.step: node.exit_code for node in execution.nodes} == {
        "build": 0,
        "lint": 0,
        "unit-test": 2,
        "deploy": None,
    }


def test_of_many_controllers_that_submit_at_once_one_creates(control_plane, engine, run, namespace):
    answers = []
    barrier = threading.Barrier(8)

    def submit():
        barrier.wait(60)
        answers.append(engine.submit(run, 1))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(answers)) == 1
    assert len(answers) == 8
    asked = audited(control_plane, namespace, verb="create", resource="workflows")
    assert sorted(request.code for request in asked) == [201, *[409] * 7]


def test_a_workflow_that_the_api_server_calls_wrong_is_a_bad_pipeline():
    with scripted() as server:
        uid = {"metadata": {"uid": "u"}}
        refusal = {"reason": "Invalid", "message": "spec.workflowTemplateRef: denied by policy"}
        server.will(answer(200, uid), answer(200, uid), answer(422, refusal))
        with pytest.raises(BadPipeline, match="denied by policy"):
            ArgoEngine(server.api(), "default").submit(RUN, 1)
    assert "fieldValidation=Strict" in server.asked[-1]


def test_a_lost_answer_is_not_told_as_success_or_failure():
    with scripted() as server:
        uid = {"metadata": {"uid": "u"}}
        server.will(answer(200, uid), answer(200, uid), b"")
        with pytest.raises(Unavailable):
            ArgoEngine(server.api(), "default").submit(RUN, 1)


def test_without_argos_kinds_nothing_is_called_gone(api, make_namespace, run, engine):
    """An API server without the CRD answers 404 to everything: that is no missing Workflow."""
    known = submitted(run, engine)
    with scripted() as server:
        server.will(answer(404, b"404 page not found"))
        without = ArgoEngine(server.api(), "default")
        with pytest.raises(Unavailable, match="install Argo"):
            without.observe(known, 1)
        assert without.observe(RUN, 1) is None
        server.will(answer(200, {"metadata": {"uid": "u"}}), answer(404, b"404 page not found"))
        with pytest.raises(Unavailable, match="install Argo"):
            without.submit(RUN, 1)


def test_who_may_not_create_workflows_is_told(as_service_account, run, namespace):
    rules = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get"]},
    ]
    api = api_of(as_service_account("reader", rules))
    try:
        with pytest.raises(Forbidden, match="create on workflows"):
            ArgoEngine(api, namespace).submit(run, 1)
    finally:
        api.close()


def test_a_patch_that_the_api_server_gives_up_is_told_and_one_that_lost_its_object_is_not():
    ours = {"metadata": {"name": "push-r1", "uid": "u"}, "spec": {}}
    other = {"metadata": {"name": "push-r1", "uid": "v"}, "spec": {}}
    run = with_attempt(RUN, Attempt(1, Kind.FIRST, 1, begun=1.0, uid="u"))
    conflict = answer(409, {"reason": "Conflict"})
    with scripted() as server:
        engine = ArgoEngine(server.api(), "default")
        server.will(answer(200, ours), conflict, answer(200, other))
        engine.stop(run, 1)
        server.will(answer(200, ours), conflict, answer(200, ours))
        with pytest.raises(Exception, match="changed since"):
            engine.stop(run, 1)
