import json

import pytest
from flask import Flask
from structlog.testing import capture_logs
from werkzeug import exceptions as http

from bridge import errors
from bridge.web.errors import problem_of
from tests.web.worlds import a_world

EVERY_ERROR = [
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.BridgeError)
]

STATUSES = {
    "EventRejected": 400,
    "BadSignature": 401,
    "UnreadableEvent": 400,
    "TooLarge": 413,
    "KeyReused": 409,
    "UnknownProject": 401,
    "NotFound": 404,
    "Conflict": 409,
    "EngineError": 503,
    "Forbidden": 503,
    "Unavailable": 503,
}


def an_error(kind, message):
    needed = {"retry_after_seconds": 1.0} if kind is errors.StatusPutOff else {}
    return kind(message, **needed)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_of_bridge_has_its_answer(kind):
    problem = problem_of(an_error(kind, "some reason"))
    assert problem.status == STATUSES.get(kind.__name__, 500)
    assert problem.detail
    assert ("Retry-After" in problem.headers) == (problem.status == 503)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_what_a_stranger_must_not_learn_is_not_in_the_answer(kind):
    problem = problem_of(an_error(kind, "/var/lib/bridge/runs.db"))
    told = kind.__name__ in {"EventRejected", "UnreadableEvent", "TooLarge", "KeyReused", "NotFound", "Conflict"}
    assert ("/var/lib" in problem.detail) == told


def test_an_exception_that_nobody_expected_says_nothing_of_itself():
    problem = problem_of(ValueError("payload: secret"))
    assert problem.status == 500
    assert "secret" not in problem.detail


def test_errors_of_http_keep_the_headers_that_belong_to_them():
    assert problem_of(http.MethodNotAllowed(["POST"])).headers == {"Allow": "POST"}
    assert problem_of(http.NotFound()).headers == {}


def test_an_unexpected_exception_is_logged_by_its_places_and_never_by_its_message():
    world = a_world()
    world.runs.fail("list", "before", ValueError("quotes a payload"))
    with capture_logs() as told:
        answer = world.client.get("/api/v1/runs")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    (line,) = [line for line in told if line["event"] == "failed"]
    assert line["error"] == "ValueError"
    assert any("api.py" in frame for frame in line["frames"])
    assert "quotes" not in json.dumps(told)


def test_unknown_paths_are_problems_too():
    answer = a_world().client.get("/nowhere")
    assert (answer.status_code, answer.json["title"]) == (404, "Not Found")


def test_the_app_is_a_fresh_one_with_each_call():
    first, second = a_world(), a_world()
    assert isinstance(first.app, Flask)
    assert first.app is not second.app
    first.deliver()
    assert second.runs.records == {}
