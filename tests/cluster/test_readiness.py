"""Ready or why not, however often anybody asks."""

import threading

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.readiness import CHECK_AGAIN_SECONDS, CHECK_SECONDS, Readiness
from bridge.cluster.watching import Watching
from tests.cluster.scripted import answer, scripted

PATIENCE_SECONDS = 60


@pytest.fixture
def server():
    with scripted() as one:
        yield one


def test_the_api_server_is_asked_now_and_then(server):
    now = [0.0]
    ready = Readiness(server.api(), "ns", [], monotonic=lambda: now[0])
    server.will(answer(404))
    assert [ready() for _ in range(5)] == [""] * 5
    now[0] += CHECK_SECONDS - 0.1
    assert ready() == ""
    assert len(server.asked) == 1
    now[0] += 0.2
    server.will(answer(503))
    assert "busy or away" in ready()
    server.will(answer(403))
    assert "busy or away" in ready()
    assert len(server.asked) == 2
    now[0] += CHECK_AGAIN_SECONDS
    assert "not allowed" in ready()
    now[0] += CHECK_AGAIN_SECONDS
    server.will(answer(200))
    assert ready() == ""


def test_whoever_asks_while_somebody_waits_for_the_api_server_does_not_wait(server):
    waits, go_on = threading.Event(), threading.Event()

    def slow(client):
        waits.set()
        go_on.wait(PATIENCE_SECONDS)

    ready = Readiness(server.api(), "ns", [])
    server.will(slow)
    thread = threading.Thread(target=ready)
    thread.start()
    assert waits.wait(PATIENCE_SECONDS)
    assert ready() == "the API server was not asked yet"
    go_on.set()
    thread.join(PATIENCE_SECONDS)


def test_before_everything_was_listed_the_api_server_is_not_even_asked(server):
    watch = Watching(server.api(), SECRETS, "brigade", lambda *_: None)
    ready = Readiness(server.api(), "ns", [watch])
    assert ready() == "watching secrets in brigade has not listed anything yet"
    server.will(answer(404))
    watch.synced.set()
    assert ready() == ""
    assert len(server.asked) == 1
