"""CloudEvents 1.0 over HTTP: one bridge feeds another."""

import json

import pytest
from structlog.testing import capture_logs

from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.errors import Unavailable
from tests.web.worlds import COMMIT, PROJECT, a_pipeline, a_project, a_world

TOKEN = "of-the-other-bridge"
PATH = "/events/cloudevents"
TYPE = "com.example.built"
EVENT = {
    "specversion": "1.0",
    "type": TYPE,
    "source": "/other/bridge",
    "id": "1",
    "project": PROJECT,
    "commit": COMMIT,
    "data": {"run": "r-1"},
}


def feeding(*pipelines, **settings):
    return a_world(*(pipelines or [a_pipeline("built", TYPE)]), event_tokens=(TOKEN,), **settings)


def post(world, event=EVENT, *, token=TOKEN, kind="application/cloudevents+json", body=None, **headers):
    sent = {"Content-Type": kind, **({"Authorization": f"Bearer {token}"} if token else {})}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return world.client.post(PATH, data=json.dumps(event) if body is None else body, headers=sent)


def binary(world, data=b'{"run": "r-1"}', **changes):
    attributes = {name: value for name, value in EVENT.items() if name != "data"} | changes
    headers = {f"Ce_{name}": str(value) for name, value in attributes.items()}
    return post(world, kind="application/json", body=data, **headers)


def test_a_structured_event_is_stored_for_the_pipeline_that_waits_for_its_type():
    world = feeding(a_pipeline("built", TYPE), a_pipeline("push"))
    answer = post(world)
    assert answer.status_code == 202
    (run,) = world.runs.records.values()
    assert answer.json == {"runs": [{"id": run.id, "url": f"/runs/{run.id}", "duplicate": False}]}
    assert (run.pipeline, run.event.type, run.event.revision.commit) == ("built", TYPE, COMMIT)
    assert json.loads(world.runs.payloads[run.id]) == EVENT


def test_a_binary_event_is_stored_as_the_structured_one_that_it_stands_for():
    world = feeding()
    assert binary(world).status_code == 202
    (payload,) = world.runs.payloads.values()
    assert json.loads(payload) == EVENT | {"datacontenttype": "application/json"}


def test_source_and_id_are_the_delivery_and_the_same_with_another_body_is_refused():
    world = feeding(a_pipeline("built", TYPE), a_pipeline("other", "com.example.other"))
    assert post(world).json["runs"][0]["duplicate"] is False
    assert post(world).json["runs"][0]["duplicate"] is True
    for changes in ({"data": {}}, {"type": "com.example.other"}):
        assert post(world, EVENT | changes).status_code == 409
    for number, changes in enumerate(({"id": "2"}, {"source": "/another"}), start=2):
        assert post(world, EVENT | changes).json["runs"][0]["duplicate"] is False
        assert len(world.runs.records) == number


def test_a_binary_event_may_be_sent_again():
    world = feeding()
    binary(world)
    assert binary(world).json["runs"][0]["duplicate"] is True
    assert binary(world, b"{}").status_code == 409


@pytest.mark.parametrize("settings", [{}, {"loopback_only": False}], ids=["one machine", "cluster"])
def test_only_a_token_that_may_send_events_lets_any_in(settings):
    world = feeding(read_tokens=("reads",), act_tokens=("acts",), **settings)
    for token in ("", "wrong", "reads", "acts"):
        answer = post(world, token=token)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert a_world(**settings).client.post(PATH, json=EVENT).status_code == 401
    assert world.runs.records == {}


def test_without_a_token_an_unknown_project_and_a_bad_event_are_answered_as_a_good_one():
    world = feeding()
    good, unknown, bad = (post(world, EVENT | one, token="x") for one in ({}, {"project": "a/b"}, {"id": ""}))
    assert good.status_code == 401
    assert good.data == unknown.data == bad.data


def test_an_unknown_project_is_refused_and_the_log_names_it():
    world = feeding()
    with capture_logs() as told:
        assert post(world, EVENT | {"project": "acme/unknown"}).status_code == 401
    assert "acme/unknown" in json.dumps(told)
    assert TOKEN not in json.dumps(told)
    assert world.runs.records == {}


def test_an_event_that_nobody_waits_for_is_ignored_with_the_reason():
    answer = post(feeding(a_pipeline("push", "push")))
    assert answer.status_code == 200
    assert TYPE in answer.json["ignored"]


def test_no_cloudevent_is_passed_on_to_another_gateway():
    world = feeding(a_pipeline(projects=("others/*",)), fallback_url="http://127.0.0.1:1")
    assert post(world).status_code == 200
    assert post(world, EVENT | {"project": "acme/unknown"}).status_code == 401


def test_a_project_without_a_generic_secret_may_be_fed():
    assert post(feeding(projects=[a_project(generic_secret="")])).status_code == 202


def test_what_cannot_be_stored_is_sent_again():
    world = feeding()
    world.runs.fail("create", "after", Unavailable("the answer was lost"))
    answer = post(world)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert post(world).status_code == 202
    assert len(world.runs.records) == 1


REFUSALS = {
    "a batch": ("application/cloudevents-batch+json", json.dumps([EVENT]).encode(), {}, 400),
    "avro": ("application/cloudevents+avro", b"x", {}, 400),
    "plain JSON": ("application/json", json.dumps(EVENT).encode(), {}, 400),
    "another version": (
        "application/cloudevents+json",
        json.dumps(EVENT | {"specversion": "0.3"}).encode(),
        {},
        400,
    ),
    "no project": ("application/cloudevents+json", json.dumps(EVENT | {"project": None}).encode(), {}, 400),
    "compressed": ("application/cloudevents+json", b"x", {"Content_Encoding": "gzip"}, 400),
    "too large": ("application/cloudevents+json", b" " * (LONGEST_BODY_BYTES + 1), {}, 413),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_cloudevents_are_refused_with_the_reason_and_nothing_is_stored(name):
    kind, body, headers, status = REFUSALS[name]
    world = feeding()
    answer = post(world, kind=kind, body=body, **headers)
    assert answer.status_code == status, answer.text
    assert answer.json["detail"]
    assert world.runs.records == {}


def test_they_are_counted_on_their_own():
    world = feeding()
    post(world)
    text = world.client.get("/metrics").text
    assert 'bridge_events_total{answer="accepted",route="cloudevents_v1"} 1.0' in text
