"""The client against a real gateway over fakes, and against answers that no gateway of ours gives."""

import json
import socket

import pytest

from bridge.client import Client
from bridge.core.runs import Attempt, Kind, with_attempt
from bridge.errors import BridgeError, Conflict, Forbidden, Misconfigured, NotFound, Unavailable
from tests.fakes import some_event, some_run
from tests.served import Recorded, served
from tests.web.worlds import a_world


@pytest.fixture
def world():
    return a_world()


@pytest.fixture
def gateway(world):
    with served(world.app) as url, Client(url) as client:
        yield client


@pytest.fixture
def recorded():
    return Recorded()


@pytest.fixture
def client(recorded):
    with served(recorded) as url, Client(url, "the-token") as client:
        yield client


def begun(run_id="push-r1", **changes):
    return with_attempt(some_run(run_id, **changes), Attempt(1, Kind.FIRST, 1, 1_700_000_000.0, steps=("build",)))


def test_runs_are_listed_and_each_filter_reaches_the_gateway(world, gateway):
    world.runs.add(some_run("push-r1"))
    world.runs.add(some_run("pull-r2", event=some_event(pull_request=7, project="acme/other"), pipeline="pull"))
    assert [run["id"] for run in gateway.list()] == ["pull-r2", "push-r1"]
    assert [run["id"] for run in gateway.list(pull_request=7)] == ["pull-r2"]
    assert [run["id"] for run in gateway.list(project="acme/widgets")] == ["push-r1"]
    assert [run["id"] for run in gateway.list(pipeline="pull", open_only=True)] == ["pull-r2"]
    assert [run["id"] for run in gateway.list(sha="c" * 40, limit=1)] == ["pull-r2"]


def test_a_run_is_got_with_its_details(world, gateway):
    world.runs.add(begun())
    assert [step["name"] for step in gateway.get("push-r1")["steps"]] == ["build"]


def test_an_unknown_run_is_not_found(gateway):
    with pytest.raises(NotFound, match="push-r9"):
        gateway.get("push-r9")


@pytest.mark.parametrize("name", ["..", "../healthz", "a/b", "", "a?b", "a\nb", "%2e%2e"])
def test_a_name_that_would_be_another_path_is_not_found_and_never_asked_for(recorded, client, name):
    with pytest.raises(NotFound):
        client.get(name)
    with pytest.raises(NotFound):
        client.log("push-r1", name, build=1, epoch=1)
    assert recorded.asked == []


def test_a_retry_is_kept_once_however_often_it_is_sent(world, gateway):
    world.runs.add(begun())
    for _ in range(3):
        assert gateway.act("push-r1", Kind.RETRY, request="r-1", who="ada", only=("build",)).accepted
    [act] = world.runs.records["push-r1"].acts
    assert (act.kind, act.request, act.who, act.source, act.only, act.follows) == (
        Kind.RETRY, "r-1", "ada", "cli", ("build",), 1,
    )  # fmt: skip


def test_an_act_that_changes_nothing_says_why(world, gateway):
    world.runs.add(begun())
    gateway.act("push-r1", Kind.RETRY, request="r-1")
    acted = gateway.act("push-r1", Kind.RERUN, request="r-2")
    assert not acted.accepted
    assert "a retry waits already" in acted.message


def test_a_step_that_the_run_does_not_have_is_a_conflict_that_names_those_it_has(world, gateway):
    world.runs.add(begun())
    with pytest.raises(Conflict, match="it has build"):
        gateway.act("push-r1", Kind.RETRY, request="r-1", only=("nope",))


def test_an_act_carries_its_request_id_as_a_header_too(recorded, client):
    recorded.answer("/api/v1/runs/push-r1/cancel", {"accepted": True, "message": "yes"}, status="202 Accepted")
    client.act("push-r1", Kind.CANCEL, request="r-1")
    [asked] = recorded.asked
    assert asked.headers["idempotency-key"] == json.loads(asked.body)["request"] == "r-1"
    assert asked.headers["authorization"] == "Bearer the-token"


def test_an_act_whose_first_answer_was_no_answer_is_sent_again_with_the_same_id(recorded, client):
    path = "/api/v1/runs/push-r1/retry"
    recorded.problem(path, "503 Service Unavailable", "not now", Retry_After="0")
    recorded.answer(path, {"accepted": True, "message": "yes"})
    assert client.act("push-r1", Kind.RETRY, request="r-1").accepted
    assert [json.loads(one.body)["request"] for one in recorded.asked] == ["r-1", "r-1"]


def test_a_log_is_read_whole_and_from_an_offset_on(recorded, client):
    path = "/api/v1/runs/push-r1/steps/build/log"
    recorded.answer(path, b"all of it\n").answer(path, b"more\n", Bridge_Next_Offset="15").answer(path, b"end")
    assert client.log("push-r1", "build", build=2, epoch=1) == b"all of it\n"
    assert client.log_from("push-r1", "build", build=2, epoch=1, offset=10).next_offset == 15
    assert client.log_from("push-r1", "build", build=2, epoch=1, offset=15).next_offset == 18
    assert [one.query for one in recorded.asked] == [
        "build=2&epoch=1",
        "build=2&epoch=1&offset=10",
        "build=2&epoch=1&offset=15",
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", Misconfigured),
        ("401 Unauthorized", Forbidden),
        ("403 Forbidden", Forbidden),
        ("404 Not Found", NotFound),
        ("409 Conflict", Conflict),
        ("421 Misdirected Request", Misconfigured),
        ("500 Internal Server Error", Unavailable),
        ("503 Service Unavailable", Unavailable),
    ],
)
def test_each_refusal_becomes_the_error_that_says_what_helps(recorded, client, status, error):
    recorded.problem("/api/v1/runs/push-r1", status, "because\n\x1b[2J of this", Retry_After="0")
    with pytest.raises(error) as caught:
        client.get("push-r1")
    assert type(caught.value) is error
    assert "push-r1" in str(caught.value)
    assert "of this" in str(caught.value)
    assert str(caught.value).isprintable()
    assert "the-token" not in str(caught.value)


def test_a_long_answer_of_an_error_is_cut(recorded, client):
    recorded.problem("/api/v1/runs/push-r1", "400 Bad Request", "x" * 10_000)
    with pytest.raises(Misconfigured) as caught:
        client.get("push-r1")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b"", b"[" * 100_000, b"\xff", b'{"runs": {}}', b'{"runs": [1]}'],
    ids=["html", "list", "nothing", "deep", "binary", "no-list", "no-objects"],
)
def test_an_answer_that_is_not_bridges_is_told_as_that(recorded, client, content):
    recorded.answer("/api/v1/runs", content)
    with pytest.raises(Misconfigured, match="is this bridge's address"):
        client.list()


def test_a_redirect_is_not_followed_so_the_token_stays_here(recorded, client):
    recorded.answer("/api/v1/runs/push-r1", b"", status="302 Found", Location="/api/v1/runs/push-r2")
    with pytest.raises(Misconfigured, match="302"):
        client.get("push-r1")
    assert [one.path for one in recorded.asked] == ["/api/v1/runs/push-r1"]


def test_nobody_listening_is_unavailable_and_says_where_to_look():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(address) as client, pytest.raises(Unavailable, match="is bridge running there"):
            client.list()


def test_an_answer_that_breaks_off_is_unavailable(recorded, client):
    recorded.answer("/api/v1/runs/push-r1", b'{"id":', Content_Length="5000")
    with pytest.raises(Unavailable):
        client.get("push-r1")


@pytest.mark.parametrize("token", ["a\nb", "ä€"])
def test_a_token_that_no_header_can_hold_is_never_shown(token):
    with Client("http://127.0.0.1:9", token) as client, pytest.raises(BridgeError) as caught:
        client.list()
    assert isinstance(caught.value, Misconfigured)
    assert token not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:99999"])
def test_an_address_that_cannot_be_used_is_told_as_that(url):
    with Client(url) as client, pytest.raises(BridgeError):
        client.list()


def test_what_is_secret_in_an_address_is_not_told():
    with Client("http://user:hunter2@127.0.0.1:9/hidden") as client, pytest.raises(Unavailable) as caught:
        client.list()
    assert "hunter2" not in str(caught.value)
    assert "hidden" not in str(caught.value)
