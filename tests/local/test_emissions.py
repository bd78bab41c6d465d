"""Events that scripts emit on one machine: taken once, whoever dies when."""

import base64
import json

import pytest

from bridge.core.names import project_id
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.projects import Project
from bridge.errors import Unavailable
from bridge.flows.accepting import accept
from bridge.local.emissions import Emissions
from tests.fakes import FakePipelines, FakeProjects, FakeRuns

ID = "0123456789abcdefghjkmnpqrs"
PROJECT = Project("acme/widgets", project_id("acme/widgets"))
PIPELINE = Pipeline("release", ("acme/*",), (Trigger("deploy"),), (Step("ship"),))


@pytest.fixture
def runs():
    return FakeRuns()


@pytest.fixture
def emissions(tmp_path, runs):
    def accepted(event, project):
        return accept(event, project, runs=runs, pipelines=FakePipelines([PIPELINE]), now=1000.0)

    return Emissions(tmp_path, FakeProjects([PROJECT]), accepted)


def emit(tmp_path, **changes):
    told = {
        "event": "deploy",
        "provider": "github",
        "project": PROJECT.id,
        "commit": "c0ffee",
        "ref": "refs/heads/main",
        "payload": base64.b64encode(b'{"to": "production"}').decode(),
        **changes,
    }
    (tmp_path / "emitted").mkdir(exist_ok=True)
    (tmp_path / "emitted" / ID).write_text(json.dumps(told))


def left(tmp_path):
    return [path.name for path in (tmp_path / "emitted").iterdir()]


def test_an_emitted_event_starts_the_pipeline_that_names_it_with_the_revision_of_its_build(
    tmp_path, emissions, runs
):
    emit(tmp_path)
    emissions.take()
    (run,) = runs.list(_all())
    assert (run.pipeline, run.event.type, run.event.provider) == ("release", "deploy", "github")
    assert (run.event.revision.commit, run.event.revision.ref) == ("c0ffee", "refs/heads/main")
    assert runs.payload(run.id) == b'{"to": "production"}'
    assert left(tmp_path) == [f"{ID}.taken"]


def test_one_that_was_stored_before_its_file_was_marked_is_met_as_a_repeat(tmp_path, emissions, runs):
    emit(tmp_path)
    emissions.take()
    (tmp_path / "emitted" / f"{ID}.taken").unlink()
    emit(tmp_path)
    emissions.take()
    assert len(runs.list(_all())) == 1
    assert left(tmp_path) == [f"{ID}.taken"]


def test_while_nothing_can_be_stored_it_is_kept_for_the_next_time(tmp_path, emissions, runs):
    emit(tmp_path)
    runs.fail("create", "before", Unavailable("the disk is full"))
    emissions.take()
    assert left(tmp_path) == [ID]
    emissions.take()
    assert len(runs.list(_all())) == 1


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"event": "unknown"}, "ignored"),
        ({"project": "brigade-" + "0" * 54}, "refused"),
        ({"payload": "no base64!"}, "refused"),
        ({"payload": None}, "refused"),
    ],
    ids=["no pipeline", "no project", "bad payload", "no payload"],
)
def test_what_nobody_wants_or_nobody_can_read_is_marked_so_and_makes_no_run(
    tmp_path, emissions, runs, changes, mark
):
    emit(tmp_path, **changes)
    emissions.take()
    assert runs.list(_all()) == []
    assert left(tmp_path) == [f"{ID}.{mark}"]


def test_a_file_that_is_not_whole_or_nobodys_is_left_alone(tmp_path, emissions, runs):
    (tmp_path / "emitted").mkdir()
    (tmp_path / "emitted" / f"{ID}.1-abc.tmp").write_text("{")
    (tmp_path / "emitted" / "README").write_text("mine")
    emissions.take()
    assert len(left(tmp_path)) == 2
    assert runs.list(_all()) == []


def _all():
    from bridge.ports import RunFilter

    return RunFilter()
