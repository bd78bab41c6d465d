"""Raw calls: what they answer on a real API server, and what they make of every bad answer."""

import base64
import threading
import time

import pytest

from bridge.cluster.api import (
    CLAIMS,
    MAX_ANSWER_BYTES,
    PODS,
    SECRETS,
    WORKFLOWS,
    AlreadyExists,
    Api,
    AskLater,
    Gone,
    Refused,
    Resource,
    TooMuch,
    Unauthorized,
)
from bridge.cluster.connections import Connection, TokenFile
from bridge.cluster.patience import patience, within_patience
from bridge.errors import BridgeError, Conflict, EngineError, Forbidden, Misconfigured, NotFound, Unavailable
from tests.cluster.apis import api_of, connection_of
from tests.cluster.scripted import answer, chunked, scripted, trickle

LIST_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def server():
    with scripted() as one:
        yield one


def secret(name, **data):
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def hang(client):
    """Answer nothing, until the other side leaves."""
    client.recv(1)


def status(reason="", message="", **details):
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


def test_an_object_lives_and_dies(api, namespace):
    made = api.create(SECRETS, namespace, secret("one", key="value"))
    assert api.get(SECRETS, namespace, "one") == made
    changed = api.patch(SECRETS, namespace, "one", {"metadata": {"labels": {"a": "b"}}})
    assert changed["metadata"]["labels"] == {"a": "b"}
    added = [{"op": "add", "path": "/metadata/labels/c", "value": "d"}]
    assert api.patch(SECRETS, namespace, "one", added)["metadata"]["labels"] == {"a": "b", "c": "d"}
    api.delete(SECRETS, namespace, "one", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound, match=f"get secrets one in {namespace}: it is not there"):
        api.get(SECRETS, namespace, "one")


def test_metadata_only_is_metadata_only(api, namespace):
    for made in (
        api.create(SECRETS, namespace, secret("one", key="value"), metadata_only=True),
        api.get(SECRETS, namespace, "one", metadata_only=True),
        api.patch(SECRETS, namespace, "one", {"metadata": {"labels": {"a": "b"}}}, metadata_only=True),
        next(api.pages(SECRETS, namespace, metadata_only=True)).items[0],
    ):
        assert made["kind"] == "PartialObjectMetadata"
        assert made["metadata"]["name"] == "one"
        assert "data" not in made


def test_a_name_that_is_taken_is_told_from_an_object_that_changed(api, namespace):
    first = api.create(SECRETS, namespace, secret("one"))
    with pytest.raises(AlreadyExists):
        api.create(SECRETS, namespace, secret("one"))
    api.patch(SECRETS, namespace, "one", {"metadata": {"labels": {"a": "b"}}})
    stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"], "labels": {"a": "c"}}}
    with pytest.raises(Conflict) as caught:
        api.patch(SECRETS, namespace, "one", stale)
    assert not isinstance(caught.value, AlreadyExists)


def test_another_object_of_the_same_name_is_not_deleted(api, namespace):
    api.create(SECRETS, namespace, secret("one"))
    with pytest.raises(Conflict):
        api.delete(SECRETS, namespace, "one", uid="0c5f1a52-0000-4000-8000-000000000000")
    assert api.get(SECRETS, namespace, "one")


def test_a_list_comes_in_pages_of_one_moment(api, namespace):
    for n in range(5):
        api.create(SECRETS, namespace, secret(f"s{n}"))
    pages = api.pages(SECRETS, namespace, limit=2)
    first = next(pages)
    api.create(SECRETS, namespace, secret("s9"))
    rest = list(pages)
    found = [item["metadata"]["name"] for page in (first, *rest) for item in page.items]
    assert found == ["s0", "s1", "s2", "s3", "s4"]
    assert {page.resource_version for page in rest} == {first.resource_version}


def test_selectors_choose(api, namespace):
    for name, kind in (("one", "a"), ("two", "b")):
        body = secret(name)
        body["metadata"]["labels"] = {"kind": kind}
        body["type"] = f"example.com/{kind}"
        api.create(SECRETS, namespace, body)
    by_label = [
        item["metadata"]["name"] for page in api.pages(SECRETS, namespace, labels="kind=b") for item in page.items
    ]
    by_field = [
        item["metadata"]["name"]
        for page in api.pages(SECRETS, namespace, fields="type=example.com/a", metadata_only=True)
        for item in page.items
    ]
    assert (by_label, by_field) == (["two"], ["one"])


def test_who_may_not_is_told_which_verb_is_missing(as_service_account, namespace):
    api = api_of(as_service_account("reader", [LIST_SECRETS]))
    assert [page.items for page in api.pages(SECRETS, namespace)] == [[]]
    with pytest.raises(Forbidden, match=rf"delete pods p in {namespace}: not allowed.*the verb delete on pods"):
        api.delete(PODS, namespace, "p")
    with pytest.raises(Forbidden, match=r"the verb create on workflows\.argoproj\.io"):
        api.create(WORKFLOWS, namespace, {"metadata": {"name": "w"}})


def test_who_is_not_known_is_told_so(control_plane, namespace, tmp_path):
    file = tmp_path / "token"
    file.write_text("wrong")
    api = Api(connection_of(control_plane.admin, tokens=TokenFile(file)), timeout_seconds=60)
    with pytest.raises(Unauthorized) as caught:
        api.get(SECRETS, namespace, "one")
    assert "wrong" not in str(caught.value)
    file.write_text(control_plane.admin_token + "\n")
    with pytest.raises(NotFound):
        api.get(SECRETS, namespace, "one")


class RotatedTokens:
    """A token that was replaced while nobody looked."""

    def __init__(self, *tokens):
        self._tokens = list(tokens)

    def current(self):
        return self._tokens[0]

    def renew(self, refused):
        assert self._tokens.pop(0) == refused
        return True


def test_a_token_that_was_replaced_is_noticed_at_the_first_refusal(control_plane, namespace):
    tokens = RotatedTokens("expired", control_plane.admin_token)
    api = Api(connection_of(control_plane.admin, tokens=tokens), timeout_seconds=60)
    assert api.create(SECRETS, namespace, secret("one"))
    assert tokens.current() == control_plane.admin_token


def test_a_server_that_somebody_else_vouches_for_is_not_spoken_to(control_plane, namespace):
    api = Api(connection_of(control_plane.admin, authority=None), timeout_seconds=60)
    with pytest.raises(Unavailable, match="certificate"):
        api.get(SECRETS, namespace, "one")
    named = Api(connection_of(control_plane.admin, server_name="example.com"), timeout_seconds=60)
    with pytest.raises(Unavailable, match="certificate"):
        named.get(SECRETS, namespace, "one")


def test_an_invalid_object_is_refused_without_repeating_what_is_in_it(api, namespace):
    body = secret("one")
    body["data"] = {"key": "not base64: hunter2"}
    with pytest.raises(Refused) as caught:
        api.create(SECRETS, namespace, body)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Refused, match=r"metadata.name"):
        api.create(SECRETS, namespace, secret("Not A Name"))


def test_below_an_object_and_beside_all_namespaces_things_are_made_too(api, namespace):
    accounts = Resource("serviceaccounts", "ServiceAccount")
    reviews = Resource("tokenreviews", "TokenReview", "authentication.k8s.io")
    made = api.create(accounts, namespace, {"spec": {}}, subresource_of=("default", "token"))
    answered = api.create(reviews, "", {"spec": {"token": made["status"]["token"]}})
    assert answered["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_a_dry_run_makes_nothing(api, namespace):
    api.create(SECRETS, namespace, secret("one"), query={"dryRun": "All"})
    with pytest.raises(NotFound):
        api.get(SECRETS, namespace, "one")


def test_another_patience_shares_the_connections(server):
    server.will(lambda client: client.recv(1))
    patient = server.api()
    with pytest.raises(AskLater, match="did not answer in time"):
        patient.within(0.2).get(SECRETS, "ns", "one")
    server.will(answer(200, secret("one")))
    assert patient.get(SECRETS, "ns", "one") == secret("one")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "A", "x" * 254, "%2e%2e"])
def test_what_cannot_be_a_name_is_not_there_and_nobody_is_asked(server, name):
    server.will(answer(200))
    for act in (server.api().get, server.api().delete, lambda *what: server.api().patch(*what, {})):
        with pytest.raises(NotFound):
            act(SECRETS, "ns", name)
    assert server.asked == []


def test_a_watch_tells_what_happens_after_a_list(api, namespace):
    api.create(SECRETS, namespace, secret("before"))
    version = list(api.pages(SECRETS, namespace))[-1].resource_version
    api.create(SECRETS, namespace, secret("one", key="value"))
    api.delete(SECRETS, namespace, "one")
    with api.watch(SECRETS, namespace, resource_version=version, metadata_only=True) as events:
        told = iter(events)
        seen = [next(told) for _ in range(2)]
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in seen] == [
        ("ADDED", "one"),
        ("DELETED", "one"),
    ]
    assert all("data" not in one["object"] for one in seen)


def test_a_watch_from_too_long_ago_is_gone(api, namespace):
    # The API server remembers from when the kind was installed.
    with (
        pytest.raises(Gone),
        api.watch(WORKFLOWS, namespace, resource_version="1", timeout_seconds=5) as events,
    ):
        list(events)


def test_a_watch_that_waits_can_be_ended_by_another_thread(api, namespace):
    version = next(api.pages(SECRETS, namespace)).resource_version
    events = api.watch(SECRETS, namespace, resource_version=version)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    events.interrupt()
    reader.join(60)
    assert not reader.is_alive()
    assert seen == []


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (401, status("Unauthorized"), Unauthorized),
        (403, status("Forbidden"), Forbidden),
        (404, status("NotFound"), NotFound),
        (409, status("AlreadyExists"), AlreadyExists),
        (409, status("Conflict"), Conflict),
        (410, status("Expired"), Gone),
        (413, b"too long", Refused),
        (422, status("Invalid"), Refused),
        (408, b"", AskLater),
        (500, status("InternalError"), AskLater),
        (502, b"<html>", AskLater),
        (503, status("ServiceUnavailable"), AskLater),
        (504, status("Timeout"), AskLater),
        (301, b"", Unavailable),
        (200, b"<html>", Unavailable),
        (200, b"[]", Unavailable),
        (200, b"\xff", Unavailable),
        (200, b"[" * 100_000, Unavailable),
    ],
)
@pytest.mark.parametrize("method", ["get", "create"])
def test_every_bad_answer_is_an_error_of_ours(server, code, body, expected, method):
    server.will(answer(code, body, Location="http://example.com/"))
    with pytest.raises(EngineError) as caught:
        server.api().get(SECRETS, "ns", "one") if method == "get" else server.api().create(
            SECRETS, "ns", secret("one")
        )
    assert type(caught.value) is expected
    assert len(server.asked) == 1


def test_what_a_server_says_is_cut_and_made_printable(server):
    server.will(answer(403, status("Forbidden", "no\x1b[31m\r\n" + "x" * 5000)))
    with pytest.raises(Forbidden) as caught:
        server.api().get(PODS, "ns", "one")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_of_secrets_nothing_that_a_server_says_is_repeated_but_field_names(server):
    causes = [{"field": "data[key]", "message": "hunter2"}]
    server.will(answer(422, status("Invalid", "hunter2", causes=causes)))
    with pytest.raises(Refused, match=r"data\[key\]") as caught:
        server.api().patch(SECRETS, "ns", "one", {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("asked", [{"Retry_After": "7"}, {}])
def test_a_busy_server_says_how_long(server, asked):
    body = status("Unavailable", "", **({} if asked else {"retryAfterSeconds": 7}))
    server.will(answer(503, body, **asked))
    with pytest.raises(AskLater) as caught:
        server.api().get(SECRETS, "ns", "one")
    assert caught.value.retry_after_seconds == 7


def test_a_write_that_was_turned_away_unread_is_sent_again(server):
    server.will(answer(429, b"", Retry_After="0"), answer(201, secret("one")))
    assert server.api().create(SECRETS, "ns", secret("one")) == secret("one")
    assert len(server.asked) == 2


def test_a_server_that_is_busy_for_longer_than_anybody_waits_is_not_waited_for(server):
    server.will(answer(429, b"", Retry_After="60"))
    with pytest.raises(AskLater) as caught:
        server.api().create(SECRETS, "ns", secret("one"))
    assert caught.value.retry_after_seconds == 60
    assert len(server.asked) == 1


def test_a_write_whose_answer_was_lost_is_not_sent_again_and_a_read_is(server):
    server.will(b"")
    for write in (
        lambda api: api.create(SECRETS, "ns", secret("one")),
        lambda api: api.patch(SECRETS, "ns", "one", {}),
        lambda api: api.delete(SECRETS, "ns", "one"),
    ):
        server.asked.clear()
        with pytest.raises(AskLater, match="the connection broke"):
            write(server.api())
        assert len(server.asked) == 1
    server.asked.clear()
    server.will(b"", answer(200, secret("one")))
    assert server.api().get(SECRETS, "ns", "one") == secret("one")
    assert len(server.asked) == 2


def test_a_server_that_is_not_there_is_unavailable(server):
    api = server.api()
    server.close()
    with pytest.raises(AskLater, match=r"cannot be reached .*refused"):
        api.create(SECRETS, "ns", secret("one"))


def test_a_server_that_says_nothing_is_given_up(server):
    server.will(lambda client: client.recv(1))
    with pytest.raises(AskLater, match="did not answer in time"):
        server.api(timeout_seconds=0.5).get(SECRETS, "ns", "one")


def test_an_answer_that_trickles_is_given_up_in_time(server):
    def slow(client):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        trickle(b" ")(client)

    server.will(slow)
    began = time.monotonic()
    with pytest.raises(AskLater, match="in time"):
        server.api(timeout_seconds=0.5).get(SECRETS, "ns", "one")
    assert time.monotonic() - began < 60


def test_an_answer_that_is_too_long_is_not_held_and_a_list_asks_for_less(server):
    too_long = answer(200, b" " * (MAX_ANSWER_BYTES + 1))
    server.will(too_long)
    with pytest.raises(TooMuch):
        server.api().get(SECRETS, "ns", "one")
    server.will(too_long, answer(200, {"metadata": {"resourceVersion": "5"}, "items": [secret("one")]}))
    server.asked.clear()
    pages = list(server.api().pages(SECRETS, "ns"))
    assert [page.items for page in pages] == [[secret("one")]]
    assert ["limit=500" in server.asked[0], "limit=125" in server.asked[1]] == [True, True]


def test_what_is_no_list_is_no_list(server):
    server.will(answer(200, secret("one") | {"items": "none"}))
    with pytest.raises(Unavailable):
        list(server.api().pages(SECRETS, "ns"))
    server.will(answer(200, {"metadata": {"resourceVersion": "5"}, "items": None}))
    assert [page.items for page in server.api().pages(SECRETS, "ns")] == [[]]


def test_a_stream_that_ends_well_is_told_from_one_that_breaks_off(server):
    server.will(chunked(b"one\n", b"two\n"))
    with server.api().stream(PODS, "ns", "p", subresource="log", query={"follow": "1"}) as stream:
        assert b"".join(stream) == b"one\ntwo\n"
    assert server.asked == ["GET /api/v1/namespaces/ns/pods/p/log?follow=1"]
    server.will(chunked(b"one\n", complete=False))
    with server.api().stream(PODS, "ns", "p", subresource="log") as stream:
        chunks = iter(stream)
        assert next(chunks) == b"one\n"
        with pytest.raises(AskLater):
            next(chunks)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b'{"type": "ERROR", "object": {"code": 410}}\n', Gone),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n', AskLater),
        (b"nonsense\n", AskLater),
        (b'{"type": "ADDED"}\n', AskLater),
        (b"[]\n", AskLater),
    ],
)
def test_a_watch_that_ends_with_an_error_raises_it(server, lines, expected):
    server.will(chunked(lines))
    with pytest.raises(expected), server.api().watch(CLAIMS, "ns", resource_version="5") as events:
        list(events)


def test_events_come_whole_however_they_are_cut(server):
    text = b'{"type": "ADDED", "object": {"a": 1}}\n\n{"type": "BOOKMARK", "object": {"b": 2}}\n{"half'
    server.will(chunked(*(text[i : i + 3] for i in range(0, len(text), 3))))
    with server.api().watch(CLAIMS, "ns", resource_version="5") as events:
        assert [one["object"] for one in events] == [{"a": 1}, {"b": 2}]


def test_a_path_before_the_api_is_kept(server):
    server.will(answer(200, {"gitVersion": "v1"}))
    api = Api(Connection(server=f"{server.url}/k8s/clusters/c-1/"))
    assert api.at("/version") == {"gitVersion": "v1"}
    assert server.asked == ["GET /k8s/clusters/c-1/version"]


@pytest.mark.parametrize("url", ["ftp://host", "https://", "https://host:port", "nonsense"])
def test_what_is_no_server_is_misconfigured(url):
    with pytest.raises(Misconfigured):
        Api(Connection(server=url))


def test_a_token_does_not_travel_in_clear(tmp_path):
    (tmp_path / "token").write_text("t")
    with pytest.raises(Misconfigured, match="https"):
        Api(Connection(server="http://host", tokens=TokenFile(tmp_path / "token")))


def test_all_errors_are_of_the_family():
    assert all(
        issubclass(one, BridgeError) for one in (AlreadyExists, AskLater, Gone, Refused, TooMuch, Unauthorized)
    )


def test_all_calls_of_one_patience_take_no_longer_together(server):
    server.will(hang)
    api = server.api()
    began = time.monotonic()
    with patience(1.0), patience(300.0):
        for _ in range(5):
            with pytest.raises(AskLater, match=r"in time|no time left"):
                api.get(SECRETS, "ns", "one")
        assert len(server.asked) == 1
    assert time.monotonic() - began < 30
    assert within_patience(7.0) == 7.0


def test_a_busy_api_server_says_so_and_for_how_long(server):
    server.will(answer(429, status("TooManyRequests"), Retry_After="40"))
    with pytest.raises(AskLater) as caught:
        server.api().get(SECRETS, "ns", "one")
    assert (caught.value.busy, caught.value.retry_after_seconds) == (True, 40)
    server.will(answer(503, status("ServiceUnavailable")))
    with pytest.raises(AskLater) as caught:
        server.api().get(SECRETS, "ns", "one")
    assert (caught.value.busy, caught.value.retry_after_seconds) == (False, None)


def test_a_watch_that_does_not_begin_is_given_up_in_time(server):
    server.will(hang)
    with pytest.raises(AskLater, match="in time"):
        server.api(timeout_seconds=0.5).watch(SECRETS, "ns", resource_version="1", silence_seconds=10_000)
