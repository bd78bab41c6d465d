"""GitHub's Re-run buttons and the merge queue over HTTP: what bridge is sent is what GitHub recorded of others."""

import json

import pytest

from bridge.core.names import run_id
from bridge.core.reports import BY_CHECK
from bridge.core.runs import Attempt, Kind, Phase, Report, State
from bridge.core.verdicts import Verdict
from bridge.demonstrating.payloads import example
from bridge.errors import Unavailable
from tests.fakes import some_event, some_run
from tests.web.worlds import PROJECT, a_pipeline, a_world

APP_ID = 4711
APP_SECRET = "the-secret-of-the-app"
SHA = "c" * 40
RUN = run_id(project=PROJECT, provider="github", pipeline="push", delivery="d1")


@pytest.fixture
def world():
    checks = a_pipeline("checks", "check_run", "check_suite")
    return a_world(
        checks, a_pipeline("queue", "merge_group", "pull_request"), app_id=APP_ID, app_secret=APP_SECRET
    )


def a_failed_run(world, **changes):
    attempt = Attempt(1, Kind.FIRST, 1, 0.0, ended=60.0, verdict=Verdict.FAILED)
    state = State(attempts=(attempt,), reported=Report("c", "failure", "", 1), reported_to=BY_CHECK)
    known = {"state": state, "phase": Phase.CLOSED, "verdict": Verdict.FAILED, **changes}
    return world.runs.add(some_run(RUN, **known))


def recorded(event, action, **changes):
    """The recorded payload about our project and App, with fields of its check or group changed."""
    payload = json.loads(json.dumps(example(event, action).payload))
    payload["repository"]["full_name"] = PROJECT
    payload[event] |= changes
    for told in (payload[event], payload[event].get("check_suite", {})):
        if "app" in told:
            told["app"]["id"] = APP_ID
    return payload


def deliver(world, event, payload, *, delivery="guid-1", secret=APP_SECRET):
    return world.deliver(json.dumps(payload).encode(), event=event, secret=secret, delivery=delivery)


def a_rerun(**changes):
    return recorded("check_run", "rerequested", external_id=f"{RUN}/1", **changes)


def test_the_button_of_a_check_retries_its_run_once(world):
    a_failed_run(world)
    for _ in range(2):
        answer = deliver(world, "check_run", a_rerun())
        assert answer.status_code == 202
        assert [one["id"] for one in answer.json["runs"]] == [RUN]
    [act] = world.runs.read(RUN).acts
    assert (act.kind, act.follows, act.who, act.source) == (Kind.RETRY, 1, "octocat", "check")
    assert act.request == f"check/guid-1/{RUN}"
    assert list(world.runs.records) == [RUN]


def test_the_button_of_all_checks_retries_what_is_reported_by_them(world):
    a_failed_run(world)
    answer = deliver(world, "check_suite", recorded("check_suite", "rerequested", head_sha=SHA))
    assert answer.status_code == 202
    assert len(world.runs.read(RUN).acts) == 1
    assert list(world.runs.records) == [RUN]


def test_a_commit_without_our_checks_is_an_event_for_who_names_it(world):
    answer = deliver(world, "check_suite", recorded("check_suite", "rerequested", head_sha=SHA))
    assert answer.status_code == 202
    assert [run.pipeline for run in world.runs.records.values()] == ["checks"]


@pytest.mark.parametrize("action", ["created", "completed", "rerequested"])
def test_nothing_that_is_told_of_our_own_checks_starts_a_pipeline(world, action):
    told = recorded("check_run", action, external_id=f"{RUN}/1")
    answer = deliver(world, "check_run", told)
    assert answer.status_code == 200
    assert world.runs.records == {}


def test_the_button_of_another_apps_check_is_an_event(world):
    a_failed_run(world)
    told = a_rerun()
    told["check_run"]["app"]["id"] = told["check_run"]["check_suite"]["app"]["id"] = 1
    told["check_run"]["external_id"] = "42"
    assert deliver(world, "check_run", told).status_code == 202
    assert world.runs.read(RUN).acts == ()


def test_what_is_not_signed_by_us_asks_for_nothing(world):
    a_failed_run(world)
    assert deliver(world, "check_run", a_rerun(), secret="guessed").status_code == 401
    assert world.runs.read(RUN).acts == ()


def test_a_button_of_one_repository_moves_no_run_of_another(world):
    a_failed_run(world, event=some_event(project="acme/gadgets", payload=b""))
    answer = deliver(world, "check_run", a_rerun())
    assert (answer.status_code, "not of this repository" in answer.json["ignored"]) == (200, True)
    assert world.runs.read(RUN).acts == ()


def test_records_that_are_away_are_told_so_that_github_is_asked_for_it_again(world):
    a_failed_run(world)
    world.runs.fail("change", "before", Unavailable("away"))
    assert deliver(world, "check_run", a_rerun()).status_code == 503
    assert deliver(world, "check_run", a_rerun()).status_code == 202
    assert len(world.runs.read(RUN).acts) == 1


def test_a_merge_group_is_one_run_reported_on_its_own_commit_under_the_pull_requests_name(world):
    group = recorded("merge_group", "checks_requested", head_sha=SHA)
    answer = deliver(world, "merge_group", group)
    assert answer.status_code == 202
    pushed = {
        "ref": group["merge_group"]["head_ref"],
        "after": SHA,
        "head_commit": {"id": SHA},
        "repository": {"full_name": PROJECT},
    }
    assert deliver(world, "push", pushed, delivery="guid-2").status_code == 200
    [run] = world.runs.records.values()
    assert (run.event.revision.commit, run.context) == (SHA, "bridge/queue/pull_request")
    assert run.event.revision.ref == group["merge_group"]["head_ref"]


def test_a_merge_group_that_is_given_up_cancels_its_run(world):
    deliver(world, "merge_group", recorded("merge_group", "checks_requested", head_sha=SHA))
    ended = recorded("merge_group", "checks_requested", head_sha=SHA) | {"action": "destroyed"}
    merged = deliver(world, "merge_group", ended | {"reason": "merged"}, delivery="guid-3")
    assert (merged.status_code, "merged" in merged.json["ignored"]) == (200, True)
    for _ in range(2):
        assert deliver(world, "merge_group", ended | {"reason": "dequeued"}, delivery="guid-4").status_code == 202
    [run] = world.runs.records.values()
    assert [act.kind for act in run.acts] == [Kind.CANCEL]
