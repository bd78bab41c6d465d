"""Explaining over real HTTP: deliveries that left no record are read in a fake GitHub's log and matched again."""

import json
from dataclasses import replace

import pytest

from bridge.core.events import Revision
from bridge.core.runs import Attempt, Kind, with_attempt
from bridge.web.app import create_app
from tests.fakes import some_event, some_run
from tests.github import test_deliveries
from tests.github.test_deliveries import REPOSITORY, TOKEN, away
from tests.web.worlds import COMMIT, PUSH, a_pipeline, a_project

world, with_the_app = test_deliveries.world, test_deliveries.with_the_app

UNWANTED = json.dumps({**json.loads(PUSH), "ref": "refs/heads/next"}).encode()


def explained(world, about, *, status=200, logs=True, query=""):
    """What the gateway's API says; its GitHub is the fake one."""
    gateway = world.gateway.world.gateway
    if logs:
        found = world.sweeping()._logs
        gateway = replace(gateway, logs=lambda: found)
    answer = create_app(gateway).test_client().get(f"/api/v1/explain?about={about}{query}")
    assert answer.status_code == status, answer.text
    return answer.json


def only_main(world):
    pipeline = a_pipeline("main-only")
    (trigger,) = [one for one in pipeline.on if one.event == "push"]
    known = world.gateway.world.pipelines.pipelines
    known.clear()
    known["main-only"] = replace(pipeline, on=(replace(trigger, branches=("main",)),))


def test_a_delivery_that_nobody_wanted_is_read_in_the_log_and_matched_again(world):
    only_main(world)
    guid = world.github.hooks.deliver("push", UNWANTED, world.hook())
    (event,) = explained(world, guid)["events"]
    (received,) = event["received"]
    assert (received["status"], received["what"]) == (200, "taken")
    assert received["log"].startswith("webhook ")
    assert (event["event"], event["project"], event["sha"]) == ("push", REPOSITORY, COMMIT)
    why = "pipeline main-only wants push of branch main, not of branch next"
    assert event["matched"] == [{"pipeline": "main-only", "wants": False, "why": why}]
    assert (event["ignored"], event["runs"]) == (why, [])


def test_a_delivery_that_was_lost_says_so_and_who_would_run_for_it(world):
    with away(world.gateway):
        guid = world.github.hooks.deliver("push", PUSH, world.hook())
    (event,) = explained(world, guid)["events"]
    assert [(one["status"], one["what"]) for one in event["received"]] == [
        (503, "lost: it can be delivered again")
    ]
    assert event["matched"][0]["wants"]
    assert "would run for it now" in event["ignored"]


def test_an_event_of_no_kind_that_starts_anything_says_why(world):
    body = json.dumps({"action": "created", "repository": {"full_name": REPOSITORY}}).encode()
    guid = world.github.hooks.deliver("star", body, world.hook())
    (event,) = explained(world, guid)["events"]
    assert (event["ignored"], event["matched"]) == ("events of the kind star start nothing", [])


def test_the_log_of_the_app_is_looked_through_too(world, with_the_app):
    only_main(world)
    guid = world.github.hooks.deliver("push", UNWANTED, with_the_app)
    (event,) = explained(world, guid, query=f"&project={REPOSITORY}")["events"]
    assert event["received"][0]["log"] == "the App's webhook"
    assert event["ignored"].startswith("pipeline main-only wants push of branch main")


def test_an_older_delivery_is_found_on_a_later_page_of_the_log(world):
    only_main(world)
    hook = world.hook()
    guid = world.github.hooks.put(hook, 200, age_seconds=3600, event="push", body=UNWANTED)
    for _ in range(120):
        world.github.hooks.put(hook, 200)
    (event,) = explained(world, guid)["events"]
    assert event["ignored"].startswith("pipeline main-only wants push of branch main")


def test_a_delivery_with_runs_is_explained_by_them_without_asking_github(world):
    guid = world.github.hooks.deliver("push", PUSH, world.hook())
    before = len(world.asked("GET"))
    (event,) = explained(world, guid)["events"]
    (run,) = event["runs"]
    assert run["delivery"] == guid
    assert run["timeline"][0]["what"].startswith("accepted push of acme/widgets")
    assert event["matched"] == [{"pipeline": "push", "wants": True, "why": ""}]
    assert len(world.asked("GET")) == before


def test_of_what_nobody_knows_it_is_said_where_was_not_looked(world):
    unknown = "00000000-0000-0000-0000-000000000000"
    assert "nothing is known of" in explained(world, unknown, status=404)["detail"]
    assert "BRIDGE_WEBHOOK_URL" in explained(world, unknown, status=404, logs=False)["detail"]
    world.projects = []
    assert "no project with a token" in explained(world, unknown, status=404)["detail"]
    world.projects = [a_project(token=TOKEN)]
    assert f"{REPOSITORY}: none of its webhooks points to us" in explained(world, unknown, status=404)["detail"]
    world.github.hooks.blind(TOKEN)
    world.hook()
    told = explained(world, unknown, status=404)["detail"]
    assert REPOSITORY in told
    assert TOKEN not in told


def test_a_log_that_does_not_answer_is_no_answer_that_there_was_nothing(world):
    world.hook()
    world.github.hooks.fail_next(20, 500)
    told = explained(world, "00000000-0000-0000-0000-000000000000", status=404)["detail"]
    assert f"{REPOSITORY}: " in told
    assert "500" in told


@pytest.mark.parametrize("about", ["c0ffee0", "c0ffee0" + "0" * 33], ids=["beginning", "whole"])
def test_a_commit_is_explained_by_all_its_deliveries(world, about):
    runs = world.gateway.world.runs
    for number, delivery in enumerate(["d1", "d1", "d2"]):
        event = some_event(delivery=delivery, revision=Revision("c0ffee0" + "0" * 33, "refs/heads/main"))
        runs.add(some_run(f"push-r{number}", event=replace(event, payload=b""), accepted=float(number)))
    runs.change("push-r2", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=5.0, steps=("build",))))
    found = explained(world, about)["events"]
    assert [(one["delivery"], [run["id"] for run in one["runs"]]) for one in found] == [
        ("d2", ["push-r2"]),
        ("d1", ["push-r1", "push-r0"]),
    ]
    assert [step["state"] for step in found[0]["runs"][0]["steps"]] == ["pending"]


def test_a_run_is_explained_by_its_id(world):
    world.gateway.world.runs.add(some_run("push-r1"))
    (event,) = explained(world, "push-r1")["events"]
    assert [run["id"] for run in event["runs"]] == ["push-r1"]


def test_a_project_that_is_not_ours_any_more(world, with_the_app):
    world.gateway.world.projects.projects.clear()
    body = PUSH.replace(REPOSITORY.encode(), b"acme/gone")
    guid = world.github.hooks.put(with_the_app, 401, event="push", body=body)
    (event,) = explained(world, guid)["events"]
    assert event["ignored"] == "there is no project acme/gone, or it cannot be read"
    assert event["received"][0]["what"] == "refused"
