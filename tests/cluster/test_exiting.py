"""`bridgectl exit` as a process in a cluster: the fast path to what the controller owes."""

from pathlib import Path

import pytest
import yaml

from bridge.clocks import SystemClock
from bridge.cluster.engine import ArgoEngine
from bridge.cluster.pipelines import ClusterPipelines
from bridge.core.names import exit_step
from bridge.core.verdicts import Verdict
from bridge.exiting import Nobody
from bridge.flows.reconciling import Reconciling
from tests.cluster.brigades import name_of
from tests.cluster.client import path
from tests.cluster.step_world import one, opened
from tests.fakes import some_run

TEMPLATE = Path(__file__).parents[2] / "argo-templates" / "push.yaml"
EXIT_IN_RUNS = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get"]},
]
"""What the chart lets an exit handler do beyond a step."""


@pytest.fixture
def world(request, tmp_path):
    with opened(request, tmp_path) as world:
        request.getfixturevalue("as_service_account")("bridge-step", EXIT_IN_RUNS, home=world.namespace)
        yield world


@pytest.fixture
def run(world):
    """A run whose Workflow's entrypoint has failed."""
    world.admin.create(path("workflowtemplates", world.namespace), yaml.safe_load(TEMPLATE.read_text()))
    pipelines, engine = ClusterPipelines(world.api, world.namespace), ArgoEngine(world.api, world.namespace, "")
    world.runs.create(some_run("push-r9"), b'{"a": 1}')
    run = Reconciling(world.runs, pipelines, engine, world.builds, Nobody(), SystemClock()).reconcile("push-r9")
    root = {"id": run.id, "name": run.id, "displayName": run.id, "type": "DAG", "templateName": "main",
            "templateScope": "", "phase": "Failed", "startedAt": None, "finishedAt": None}  # fmt: skip
    status = {"phase": "Running", "nodes": {run.id: root}, "startedAt": None, "finishedAt": None}
    world.admin.patch(path("workflows", world.namespace, run.id), {"status": status})
    return run.id


def test_it_ends_the_attempt_and_fires_the_event_once_however_often_it_runs(world, run):
    handlers = [world.start(module="bridge.exiting", BRIDGE_RUN=run) for _ in range(2)]
    assert [handler.code() for handler in handlers] == [0, 0], [handler.err for handler in handlers]
    assert world.start(module="bridge.exiting", BRIDGE_RUN=run).code() == 0
    found = world.runs.read(run)
    assert found.attempt.verdict is Verdict.ERROR
    # The controller alone posts and closes.
    assert (found.closed, found.state.reported) == (None, None)
    build = one(exit_step(1), 1, run=run)
    assert world.made() == [name_of(build)]
    assert world.brigade.data(build)["event_type"] == b"build_failed"


def test_without_a_record_there_is_nothing_to_do(world):
    assert world.start(module="bridge.exiting", BRIDGE_RUN="none").code() == 0
