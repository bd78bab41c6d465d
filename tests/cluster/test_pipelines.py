"""WorkflowTemplates of a cluster as pipelines."""

import time

import pytest

from bridge.cluster.api import WORKFLOW_TEMPLATES
from bridge.cluster.pipelines import ClusterPipelines, _found
from bridge.core.pipeline_files import parse
from bridge.core.workflows import workflow_template
from bridge.errors import BadPipeline, NotFound
from tests.cluster.apis import api_of

PATIENCE_SECONDS = 60


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def pipelines(api, namespace):
    one = ClusterPipelines(api, namespace)
    one.start()
    assert one.cache.watching.synced.wait(PATIENCE_SECONDS)
    yield one
    one.stop()


def pipeline(name="pr"):
    text = "projects: acme/*\non: [push, 'pull_request:opened']\nsteps: [{name: build}, {name: test, needs: [build]}]\n"
    return parse(text, source="test", default_name=name)


def template(name="pr", **annotations):
    spec = {"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "busybox"}}]}
    metadata = {
        "name": name,
        "annotations": {f"bridge.brigade.sh/{key}": text for key, text in annotations.items()},
    }
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", "metadata": metadata, "spec": spec}


def eventually(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def test_a_rendered_pipeline_comes_back_from_the_cluster(api, namespace, pipelines):
    api.create(WORKFLOW_TEMPLATES, namespace, workflow_template(pipeline()))
    eventually(lambda: pipelines.all() == [pipeline()])
    assert pipelines.read("pr") == pipeline()


def test_a_template_without_annotations_is_none(api, namespace, pipelines):
    api.create(WORKFLOW_TEMPLATES, namespace, template("plain"))
    with pytest.raises(NotFound, match="annotate it"):
        pipelines.read("plain")
    assert pipelines.all() == []
    assert pipelines.broken() == []


def test_a_template_that_cannot_be_used_is_set_aside_with_its_reason(api, namespace, pipelines):
    api.create(WORKFLOW_TEMPLATES, namespace, workflow_template(pipeline("good")))
    api.create(WORKFLOW_TEMPLATES, namespace, template("bad", projects="acme/*", on="push", checkout="maybe"))
    eventually(lambda: pipelines.broken() != [] and pipelines.all() != [])
    assert [one.name for one in pipelines.all()] == ["good"]
    assert pipelines.broken()[0][0] == "bad"
    with pytest.raises(BadPipeline, match="checkout"):
        pipelines.read("bad")


@pytest.mark.parametrize("spec", [{"templates": "none"}, {"entrypoint": 7}, {"templates": [None]}], ids=str)
def test_nonsense_is_set_aside(spec):
    # The full CRD of Argo would not take these; ours, and an old one, do.
    found = template("odd", projects="acme/*", on="push")
    assert _found(found | {"spec": spec}).reason.startswith("WorkflowTemplate odd")


def test_a_pipeline_that_was_just_made_is_found(api, namespace, pipelines):
    api.create(WORKFLOW_TEMPLATES, namespace, workflow_template(pipeline()))
    assert pipelines.read("pr") == pipeline()
    with pytest.raises(NotFound):
        pipelines.read("other")
    with pytest.raises(NotFound):
        pipelines.read("..")


def test_before_an_event_is_called_unwanted_the_cluster_is_asked_once_more(api, namespace, pipelines):
    pipelines.stop()
    api.create(WORKFLOW_TEMPLATES, namespace, workflow_template(pipeline()))
    fresh = ClusterPipelines(api, namespace)
    fresh.start()
    assert fresh.refresh() is True
    assert fresh.all() == [pipeline()]
    assert fresh.refresh() is False
    fresh.stop()


def test_a_pipeline_that_was_changed_or_removed_is(api, namespace, pipelines):
    api.create(WORKFLOW_TEMPLATES, namespace, workflow_template(pipeline()))
    eventually(lambda: pipelines.all() != [])
    changed = {"metadata": {"annotations": {"bridge.brigade.sh/report": "ci"}}}
    api.patch(WORKFLOW_TEMPLATES, namespace, "pr", changed)
    eventually(lambda: pipelines.all()[0].report_context == "ci")
    api.delete(WORKFLOW_TEMPLATES, namespace, "pr")
    eventually(lambda: pipelines.all() == [])
