import pytest
from structlog.testing import capture_logs

from bridge.errors import Unavailable
from tests.web.worlds import a_pipeline, a_world


def test_probes_need_neither_identity_nor_our_name():
    world = a_world(loopback_only=False)
    for path in ("/healthz", "/readyz"):
        assert world.client.get(path).status_code == 200
        assert a_world().client.get(path, headers={"Host": "10.0.0.7:8080"}).status_code == 200


@pytest.mark.parametrize(("port", "method"), [("runs", "list"), ("pipelines", "all"), ("projects", "all")])
def test_a_gateway_that_cannot_store_is_alive_but_not_ready(port, method):
    world = a_world()
    getattr(world, port).fail(method, "before", Unavailable("/var/lib/bridge/runs.db is locked"))
    answer = world.client.get("/readyz")
    assert answer.status_code == 503
    assert "runs.db" not in answer.text
    assert world.client.get("/healthz").status_code == 200
    assert world.client.get("/readyz").status_code == 200


def test_who_is_told_when_it_is_ready_asks_nobody_else():
    reasons = ["the watch of secrets in brigade has not listed anything yet", ""]
    world = a_world(ready=lambda: reasons.pop(0))
    world.runs.fail("list", "before", Unavailable("away"))
    with capture_logs() as told:
        answer = world.client.get("/readyz")
    assert (answer.status_code, answer.json) == (503, {"status": "not ready"})
    assert told[0]["reason"].startswith("the watch of secrets")
    assert world.client.get("/healthz").status_code == 200
    assert world.client.get("/readyz").json == {"status": "ready"}


def test_deliveries_are_counted_by_route_and_answer():
    world = a_world(a_pipeline("push", "push"))
    world.deliver()
    world.deliver()
    world.deliver(event="ping")
    world.deliver(secret="wrong")
    world.deliver(b"{")
    world.runs.fail("create", "before", Unavailable("full"))
    world.deliver(delivery="d-2")
    world.client.post("/simpleevents/v1/x/y", data=b"{}")
    counted = world.client.get("/metrics").text
    for answer in ("accepted", "duplicate", "ignored", "not_verified", "unreadable", "not_stored"):
        assert f'bridge_events_total{{answer="{answer}",route="github"}} 1.0' in counted
    assert 'bridge_events_total{answer="not_verified",route="simpleevents"} 1.0' in counted
    assert 'bridge_event_seconds_count{route="github"} 6.0' in counted


def test_two_apps_count_apart():
    world, other = a_world(), a_world()
    world.deliver()
    assert "accepted" not in other.client.get("/metrics").text
