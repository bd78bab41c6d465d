import threading

import pytest

from bridge.core.events import Ignored
from bridge.core.names import project_id
from bridge.core.pipelines import OPTED_IN, Pipeline, Step, Trigger
from bridge.core.projects import Project
from bridge.core.records import digest
from bridge.core.runs import Phase
from bridge.errors import KeyReused, Unavailable
from bridge.flows.accepting import Accepted, accept, is_for_somebody
from tests.fakes import FakePipelines, FakeRuns, some_event

NOW = 1_700_000_000.0
LOST = Unavailable("the answer was lost")


def a_project(**changes) -> Project:
    return Project(**{"name": "acme/widgets", "id": project_id("acme/widgets"), **changes})


def a_pipeline(name="push", *, on=("push",), projects=("acme/*",), **changes) -> Pipeline:
    triggers = tuple(one if isinstance(one, Trigger) else Trigger(one) for one in on)
    return Pipeline(name=name, projects=projects, on=triggers, steps=(Step("build"),), **changes)


def simple_event(**changes):
    return some_event(**{"provider": "GenericWebhook", "type": "simpleevent", "delivery": "key-1", **changes})


def accepting(event, runs, *pipelines, project=None, now=NOW):
    return accept(event, project or a_project(), runs=runs, pipelines=FakePipelines(pipelines), now=now)


def the_ids(accepted):
    assert isinstance(accepted, Accepted)
    return [one.run.id for one in accepted.created]


def test_each_pipeline_that_wants_the_event_gets_a_run_with_the_payload():
    runs = FakeRuns()
    event = some_event()
    accepted = accepting(event, runs, a_pipeline("b"), a_pipeline("a"), a_pipeline("c", on=("release",)))
    assert [one.run.pipeline for one in accepted.created] == ["a", "b"]
    assert [one.duplicate for one in accepted.created] == [False, False]
    assert set(runs.records) == set(the_ids(accepted))
    assert set(runs.payloads.values()) == {event.payload}
    for run in runs.records.values():
        assert (run.phase, run.accepted, run.digest) == (Phase.ACCEPTED, NOW, digest(event))
        assert run.event == event.without_payload()


def test_the_context_is_made_of_pipeline_and_event_unless_the_pipeline_says_it():
    runs = FakeRuns()
    event = some_event(type="pull_request:opened")
    accepting(
        event,
        runs,
        a_pipeline("pr", on=("pull_request",)),
        a_pipeline("x", on=("pull_request",), report_context="ci"),
    )
    assert {run.pipeline: run.context for run in runs.records.values()} == {
        "pr": "bridge/pr/pull_request",
        "x": "ci",
    }


def test_an_event_that_answers_to_both_its_names_makes_one_run():
    runs = FakeRuns()
    event = some_event(type="pull_request:opened")
    accepting(event, runs, a_pipeline("pr", on=("pull_request", "pull_request:opened")))
    assert len(runs.records) == 1


def test_a_repeat_is_answered_with_the_same_runs_as_duplicates():
    runs = FakeRuns()
    first = accepting(some_event(), runs, a_pipeline("a"), a_pipeline("b"))
    again = accepting(some_event(), runs, a_pipeline("a"), a_pipeline("b"), now=NOW + 60)
    assert the_ids(again) == the_ids(first)
    assert all(one.duplicate for one in again.created)
    assert {run.accepted for run in runs.records.values()} == {NOW}


@pytest.mark.parametrize("when", ["before", "after"])
def test_when_a_record_cannot_be_stored_all_of_it_fails_and_a_repeat_completes_it(when):
    runs = FakeRuns()
    runs.meanwhile("create", "after", lambda: runs.fail("create", when, LOST))
    with pytest.raises(Unavailable):
        accepting(some_event(), runs, a_pipeline("a"), a_pipeline("b"))
    stored = len(runs.records)
    assert stored == (1 if when == "before" else 2)
    again = accepting(some_event(), runs, a_pipeline("a"), a_pipeline("b"))
    assert len(runs.records) == 2
    assert [one.duplicate for one in again.created] == [True, when == "after"]


def test_pipelines_that_cannot_be_listed_store_nothing():
    runs, pipelines = FakeRuns(), FakePipelines([a_pipeline()])
    pipelines.fail("all", "before", LOST)
    with pytest.raises(Unavailable):
        accept(some_event(), a_project(), runs=runs, pipelines=pipelines, now=NOW)
    assert runs.records == {}


def test_the_same_guid_of_github_with_another_body_is_a_duplicate():
    runs = FakeRuns()
    accepting(some_event(), runs, a_pipeline())
    again = accepting(some_event(payload=b'{"installation": {"id": 1}}'), runs, a_pipeline())
    assert again.created[0].duplicate
    assert list(runs.payloads.values()) == [some_event().payload]


def test_the_same_key_with_another_body_is_refused_and_nothing_more_is_stored():
    runs = FakeRuns()
    accepting(simple_event(), runs, a_pipeline("z", on=("simpleevent",)))
    with pytest.raises(KeyReused):
        accepting(
            simple_event(payload=b"{}"),
            runs,
            a_pipeline("a", on=("simpleevent",)),
            a_pipeline("z", on=("simpleevent",)),
        )
    assert [run.pipeline for run in runs.records.values()] == ["z"]


def test_a_reused_key_is_seen_also_when_its_body_names_another_branch():
    runs = FakeRuns()
    pipelines = (
        a_pipeline("a", on=(Trigger("simpleevent", branches=("main",)),)),
        a_pipeline("b", on=(Trigger("simpleevent", branches=("next",)),)),
    )
    accepting(simple_event(branch="main"), runs, *pipelines)
    with pytest.raises(KeyReused):
        accepting(simple_event(branch="next", payload=b'{"ref": "next"}'), runs, *pipelines)
    assert [run.pipeline for run in runs.records.values()] == ["a"]


def test_of_two_bodies_with_one_key_at_the_same_time_one_is_refused():
    runs = FakeRuns()
    other = simple_event(payload=b'{"other": true}')
    pipelines = (a_pipeline("a", on=("simpleevent",)), a_pipeline("b", on=("simpleevent",)))
    runs.meanwhile("create", "before", lambda: accepting(other, runs, *pipelines))
    with pytest.raises(KeyReused):
        accepting(simple_event(), runs, *pipelines)
    assert {run.digest for run in runs.records.values()} == {digest(other)}


def test_the_same_key_with_the_same_body_is_a_duplicate():
    runs = FakeRuns()
    accepting(simple_event(), runs, a_pipeline(on=("simpleevent",)))
    assert accepting(simple_event(), runs, a_pipeline(on=("simpleevent",))).created[0].duplicate


def test_a_key_costs_a_look_only_where_a_create_would_not_tell():
    runs, looked = FakeRuns(), []
    runs.meanwhile("read", "before", lambda: looked.append(1), times=9)
    one, two = a_pipeline("a", on=("simpleevent",)), a_pipeline("b", on=("simpleevent",))
    others = [a_pipeline("o", on=("simpleevent",), projects=("other/*",)), a_pipeline("p", on=("push",))]
    accepting(simple_event(), runs, one, *others)
    assert looked == []
    accepting(simple_event(delivery="key-2"), runs, one, two, *others)
    assert len(looked) == 2
    pipelines = FakePipelines([one, two])
    accept(simple_event(delivery="new"), a_project(), runs=runs, pipelines=pipelines, now=NOW, keyed=False)
    assert len(looked) == 2
    with pytest.raises(KeyReused):
        accepting(simple_event(payload=b"{}"), runs, one, *others)


def test_whether_anybody_is_for_a_project_is_looked_at_anew_before_nobody_is():
    pipelines = FakePipelines([a_pipeline(projects=("other/*",))])
    pipelines.unseen.append(a_pipeline("new"))
    assert is_for_somebody("acme/widgets", None, pipelines)
    assert not is_for_somebody("else/where", None, pipelines)
    pipelines.fail("refresh", "before", LOST)
    with pytest.raises(Unavailable):
        is_for_somebody("else/where", None, pipelines)
    assert is_for_somebody("acme/widgets", None, pipelines)


@pytest.mark.parametrize("author", ["OWNER", "MEMBER", "COLLABORATOR"])
def test_pull_requests_of_forks_are_built_for_those_whom_the_project_allows(author):
    runs = FakeRuns()
    event = some_event(type="pull_request:opened", fork_author=author)
    assert isinstance(accepting(event, runs, a_pipeline(on=("pull_request",))), Accepted)


def test_a_pull_request_of_a_fork_by_anyone_else_is_recorded_and_held_with_the_reason():
    runs = FakeRuns()
    event = some_event(type="pull_request:opened", fork_author="FIRST_TIME_CONTRIBUTOR")
    answer = accepting(event, runs, a_pipeline(on=("pull_request",)))
    (created,) = answer.created
    held = runs.read(created.run.id)
    assert held.awaits_approval
    assert "FIRST_TIME_CONTRIBUTOR" in held.held
    assert "OWNER, MEMBER, COLLABORATOR" in held.held


def test_a_project_may_allow_other_authors_or_nobody():
    runs = FakeRuns()
    event = some_event(type="pull_request:opened", fork_author="CONTRIBUTOR")
    pipeline = a_pipeline(on=("pull_request",))
    nobody = accepting(event, runs, pipeline, project=a_project(allowed_authors=()))
    assert "builds those of nobody" in nobody.created[0].run.held
    allowed = accepting(event, FakeRuns(), pipeline, project=a_project(allowed_authors=("CONTRIBUTOR",)))
    assert allowed.created[0].run.held == ""


def test_the_default_pipeline_is_only_for_projects_that_opted_in():
    default = a_pipeline("default", projects=(OPTED_IN,))
    refused = accepting(some_event(), FakeRuns(), default)
    assert "opt in to the default pipeline" in refused.reason
    opted_in = accepting(some_event(), FakeRuns(), default, project=a_project(default_pipeline=True))
    assert isinstance(opted_in, Accepted)
    unwanted = accepting(some_event(type="create"), FakeRuns(), default, project=a_project(default_pipeline=True))
    assert unwanted.reason == "pipeline default wants push, not create"


def test_an_event_that_no_pipeline_wants_is_ignored_with_each_ones_reason():
    runs = FakeRuns()
    answer = accepting(
        some_event(branch="topic"),
        runs,
        a_pipeline("a", on=(Trigger("push", branches=("main",)),)),
        a_pipeline("b", on=("release",)),
    )
    assert "pipeline a wants push of branch main, not of branch topic" in answer.reason
    assert "pipeline b wants release, not push" in answer.reason
    assert runs.records == {}


def test_a_sender_learns_nothing_of_other_projects_pipelines():
    answer = accepting(some_event(), FakeRuns(), a_pipeline("secret-plan", projects=("other/*",)))
    assert isinstance(answer, Ignored)
    assert "secret-plan" not in answer.reason


def test_many_reasons_are_cut_short():
    answer = accepting(some_event(), FakeRuns(), *(a_pipeline(f"p{n}", on=("release",)) for n in range(30)))
    assert "and 25 more do not either" in answer.reason


def test_a_delivery_that_arrives_often_at_once_makes_one_run():
    runs = FakeRuns()
    barrier = threading.Barrier(8)
    answers = []

    def deliver():
        barrier.wait(timeout=30)
        answers.append(accepting(some_event(), runs, a_pipeline()))

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(runs.records) == 1
    assert sorted(one.created[0].duplicate for one in answers) == [False, *[True] * 7]
