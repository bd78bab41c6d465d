"""What every implementation of the port Engine keeps to."""

import threading
import time

import pytest

from bridge.core.executions import NodePhase
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.workflows import workflow_template
from bridge.errors import BadPipeline, NotFound
from bridge.local.engine import LocalEngine
from bridge.ports import Engine
from tests.fakes import FakeEngine, some_run

PATIENCE_SECONDS = 60
RUN = some_run("push-r1")
PIPELINE = Pipeline(
    "push", ("*",), (Trigger("push"),), (Step("build", ("build",)), Step("ship", needs=("build",)))
)


def _template(name):
    if name != "push":
        raise NotFound(f"there is no {name}")
    return workflow_template(PIPELINE)


OTHER = some_run("push-r2")
NOWHERE = some_run("nowhere-r1", pipeline="nowhere")


@pytest.fixture(params=["local", "fake", pytest.param("argo", marks=pytest.mark.timeout(3600))])
def engine(request, tmp_path):
    """An engine whose steps run until they are told to end."""
    if request.param == "argo":
        engine_of = request.getfixturevalue("argo_engine")
        yield engine_of([RUN, OTHER, NOWHERE], [workflow_template(PIPELINE)])
        return
    if request.param == "fake":
        fake = FakeEngine()
        fake.refused["nowhere"] = "there is no nowhere"
        yield fake
        return
    sleeping = ("/bin/sh", "-c", "exec sleep 1000", "sleep")
    local = LocalEngine(tmp_path, _template, step_command=sleeping, exit_command=("/bin/true",))
    stop = threading.Event()
    thread = threading.Thread(target=local.run_forever, args=(stop,))
    thread.start()
    try:
        yield local
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def until(condition):
    over = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < over, "waited in vain"
        time.sleep(0.01)


def test_it_is_an_engine(engine):
    checked: Engine = engine
    assert checked


def test_nothing_is_seen_before_it_is_submitted(engine):
    assert engine.observe(RUN, 1) is None


def test_what_is_submitted_is_there_and_submitting_again_answers_the_same(engine):
    uid = engine.submit(RUN, 1)
    assert uid
    assert engine.observe(RUN, 1).uid == uid
    assert engine.submit(RUN, 1) == uid
    assert not engine.observe(RUN, 1).finished


def test_of_many_that_submit_at_once_all_get_one_answer(engine):
    barrier = threading.Barrier(6)
    answers = []

    def submit():
        barrier.wait(PATIENCE_SECONDS)
        answers.append(engine.submit(RUN, 1))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(answers) == 6
    assert set(answers) == {engine.observe(RUN, 1).uid}


def test_attempts_and_runs_are_told_apart(engine):
    first, second, other = engine.submit(RUN, 1), engine.submit(RUN, 2), engine.submit(OTHER, 1)
    assert len({first, second, other}) == 3
    engine.delete(RUN, 1)
    assert engine.observe(RUN, 1) is None
    assert engine.observe(RUN, 2).uid == second


def test_a_template_that_cannot_be_run_is_refused_and_nothing_is_there(engine):
    with pytest.raises(BadPipeline, match="nowhere"):
        engine.submit(NOWHERE, 1)
    assert engine.observe(NOWHERE, 1) is None


@pytest.mark.parametrize("act", ["stop", "terminate"])
def test_told_to_end_its_root_node_ends_and_then_nothing_of_it_runs(engine, act):
    engine.submit(RUN, 1)
    for _ in range(2):
        getattr(engine, act)(RUN, 1)
    until(lambda: engine.observe(RUN, 1).finished)
    execution = engine.observe(RUN, 1)
    assert execution.root is NodePhase.FAILED
    assert execution.root_ended
    getattr(engine, act)(RUN, 1)
    assert engine.observe(RUN, 1) == execution


def test_touching_changes_nothing(engine):
    uid = engine.submit(RUN, 1)
    engine.touch(RUN, 1)
    assert engine.observe(RUN, 1).uid == uid


def test_what_is_deleted_is_gone(engine):
    engine.submit(RUN, 1)
    for _ in range(2):
        engine.delete(RUN, 1)
        assert engine.observe(RUN, 1) is None


@pytest.mark.parametrize("act", ["touch", "stop", "terminate", "delete"])
def test_that_it_is_gone_is_fine(engine, act):
    getattr(engine, act)(RUN, 1)
    assert engine.observe(RUN, 1) is None
