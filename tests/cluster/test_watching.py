"""List and watch: everything is told, whatever happens to the server and to the connection."""

import json
import logging
import threading
import time

import pytest

from bridge.cluster.api import LEASES, PODS, SECRETS, WORKFLOWS
from bridge.cluster.watching import Cache, Change, Watching
from bridge.errors import Unavailable
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.control_plane import Processes
from tests.cluster.scripted import answer, chunked, scripted

PATIENCE_SECONDS = 60


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


class Told:
    """What a watch told, and what is there by that."""

    def __init__(self):
        self.changes = []
        self.there = {}

    def __call__(self, change, found):
        name = found["metadata"]["name"]
        self.changes.append((change.value, name))
        if change is Change.DELETED:
            self.there.pop(name, None)
        else:
            self.there[name] = found


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def watching():
    """Starts a watch and stops it after the test."""
    made = []

    def start(api, resource, namespace, on_change, **options):
        one = Watching(api, resource, namespace, on_change, **options)
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.stop()
        assert not one._thread.is_alive()


def eventually(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def secret(name, **labels):
    return {"metadata": {"name": name, "labels": labels}}


def label(api, namespace, name, **labels):
    api.patch(SECRETS, namespace, name, {"metadata": {"labels": labels}})


def item(name, version, uid="u"):
    return {"metadata": {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}}


def page(*items, version=5):
    return answer(200, {"metadata": {"resourceVersion": str(version)}, "items": list(items)})


def event(kind, found):
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def test_what_was_there_is_told_before_it_is_synced_and_what_happens_after(api, namespace, told, watching):
    api.create(SECRETS, namespace, secret("before"))
    one = watching(api, SECRETS, namespace, told, metadata_only=True)
    assert one.synced.wait(PATIENCE_SECONDS)
    assert told.changes == [("ADDED", "before")]
    api.create(SECRETS, namespace, secret("after"))
    label(api, namespace, "before", a="b")
    api.delete(SECRETS, namespace, "after")
    eventually(lambda: len(told.changes) == 4)
    assert told.changes[1:] == [("ADDED", "after"), ("MODIFIED", "before"), ("DELETED", "after")]
    assert told.there["before"]["metadata"]["labels"] == {"a": "b"}
    assert one.healthy


def test_what_is_not_selected_is_not_told(api, namespace, told, watching):
    api.create(SECRETS, namespace, secret("other"))
    api.create(SECRETS, namespace, secret("one", kind="a"))
    watching(api, SECRETS, namespace, told, labels="kind=a")
    eventually(lambda: list(told.there) == ["one"])
    label(api, namespace, "one", kind="b")
    label(api, namespace, "other", kind="a")
    eventually(lambda: list(told.there) == ["other"])


def test_a_list_on_demand_finds_nothing_new_and_tells_nothing_twice(api, namespace, told, watching):
    api.create(SECRETS, namespace, secret("one"))
    one = watching(api, SECRETS, namespace, told)
    assert one.synced.wait(PATIENCE_SECONDS)
    for _ in range(3):
        one.relist(timeout_seconds=PATIENCE_SECONDS)
    assert told.changes == [("ADDED", "one")]
    api.create(SECRETS, namespace, secret("two"))
    one.relist(timeout_seconds=PATIENCE_SECONDS)
    assert "two" in told.there


def test_an_exception_of_who_is_told_stops_nothing(api, namespace, told, watching, caplog):
    def poisoned(change, found):
        told(change, found)
        if found["metadata"]["name"] == "poison":
            raise LookupError

    watching(api, SECRETS, namespace, poisoned)
    api.create(SECRETS, namespace, secret("poison"))
    api.create(SECRETS, namespace, secret("good"))
    eventually(lambda: "good" in told.there)
    assert "ADDED of poison could not be taken in" in caplog.text


def test_a_kind_that_is_not_installed_yet_is_waited_for_quietly(told, watching, caplog):
    with scripted() as server:
        server.will(answer(404), answer(404), answer(404), page(item("one", 1)), chunked())
        one = watching(server.api(), WORKFLOWS, "ns", told)
        assert one.synced.wait(PATIENCE_SECONDS)
        one.stop()
    assert list(told.there) == ["one"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "its CRD is installed" in caplog.text


def test_after_gone_it_lists_again_and_tells_what_went_meanwhile(told, watching):
    gone = event("ERROR", {"code": 410, "reason": "Expired"})
    with scripted() as server:
        server.will(
            page(item("kept", 1), item("went", 2), item("changed", 3)),
            chunked(gone),
            page(item("kept", 1), item("changed", 8), item("new", 9), version=9),
            chunked(),
        )
        watching(server.api(), SECRETS, "ns", told)
        eventually(lambda: "new" in told.there)
        eventually(lambda: "went" not in told.there)
    assert told.changes[:3] == [("ADDED", "kept"), ("ADDED", "went"), ("ADDED", "changed")]
    assert told.changes[3:6] == [("MODIFIED", "changed"), ("ADDED", "new"), ("DELETED", "went")]


def test_an_object_made_anew_under_its_name_is_told_to_have_gone(told, watching):
    with scripted() as server:
        server.will(page(item("one", 1, "u1")), answer(410), page(item("one", 7, "u2"), version=9), chunked())
        watching(server.api(), SECRETS, "ns", told)
        eventually(lambda: len(told.changes) == 3)
    assert told.changes == [("ADDED", "one"), ("DELETED", "one"), ("ADDED", "one")]


def test_a_watch_that_breaks_off_goes_on_where_it_was(told, watching):
    with scripted() as server:
        server.will(
            page(version=5),
            chunked(
                event("ADDED", item("one", 6)), event("BOOKMARK", item("", 8)), b'{"type": "ADD', complete=False
            ),
            chunked(event("ADDED", item("two", 9))),
        )
        watching(server.api(), SECRETS, "ns", told)
        eventually(lambda: "two" in told.there)
        asked = [line for line in server.asked if "watch=1" in line]
    assert "resourceVersion=5" in asked[0]
    assert "resourceVersion=8" in asked[1]


def test_a_version_that_the_server_never_heard_of_is_not_insisted_on(told, watching):
    """As after a restore from a backup."""
    with scripted() as server:
        too_large = answer(504, {"reason": "Timeout", "message": "Too large resource version"})
        server.will(
            page(item("one", 90), version=100), *[too_large] * 3, page(item("two", 4), version=5), chunked()
        )
        watching(server.api(), SECRETS, "ns", told)
        eventually(lambda: list(told.there) == ["two"])


def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_circle(told, watching):
    with scripted() as server:
        server.will(page(), chunked())
        one = watching(server.api(), SECRETS, "ns", told)
        assert one.synced.wait(PATIENCE_SECONDS)
        began = time.monotonic()
        eventually(lambda: len(server.asked) >= 4)
        assert time.monotonic() - began > 0.3
        assert len(server.asked) < 20


def test_nonsense_from_the_server_does_not_end_it(told, watching):
    with scripted() as server:
        server.will(
            answer(200, {"metadata": {}, "items": [{"metadata": None}]}),
            answer(200, b"nonsense"),
            page(item("one", 6)),
            chunked(),
        )
        watching(server.api(), SECRETS, "ns", told)
        eventually(lambda: "one" in told.there)


def test_a_server_that_is_away_costs_a_few_lines_and_is_found_again(
    built_binaries, tmp_path, told, watching, caplog
):
    processes = Processes(tmp_path / "own")
    plane = processes.start()
    try:
        api = api_of(plane.admin)
        one = watching(api, SECRETS, "default", told)
        assert one.synced.wait(PATIENCE_SECONDS)
        api.create(SECRETS, "default", secret("before"))
        eventually(lambda: "before" in told.there)
        caplog.clear()
        processes.stop_api_server()
        eventually(lambda: not one.healthy)
        with pytest.raises(Unavailable, match="listing secrets in default anew"):
            one.relist(timeout_seconds=3)
        assert len(caplog.records) <= 2
        processes.start_api_server()
        api.create(SECRETS, "default", secret("after"))
        eventually(lambda: "after" in told.there)
        eventually(lambda: one.healthy)
        assert len(caplog.records) <= 4
        assert all(record.levelno <= logging.WARNING for record in caplog.records)
        one.stop()
    finally:
        processes.stop()


def test_it_stops_while_it_waits(api, namespace, told, watching):
    one = watching(api, PODS, namespace, told)
    assert one.synced.wait(PATIENCE_SECONDS)
    one.stop(timeout_seconds=PATIENCE_SECONDS)
    assert not one._thread.is_alive()
    assert not one.healthy
    with pytest.raises(Unavailable):
        one.relist(timeout_seconds=0.1)


@pytest.fixture
def cached():
    made = []

    def start(*arguments, **options):
        one = Cache(*arguments, **options)
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.stop()


def test_a_cache_holds_what_is_kept_of_each_object(api, namespace, cached):
    def kept(found):
        labels = found["metadata"].get("labels") or {}
        return labels.get("kind")

    api.create(SECRETS, namespace, secret("one", kind="a"))
    api.create(SECRETS, namespace, secret("none"))
    cache = cached(api, SECRETS, namespace, kept, metadata_only=True)
    assert cache.watching.synced.wait(PATIENCE_SECONDS)
    assert cache.all() == {"one": "a"}
    assert (cache.get("one"), cache.get("none")) == ("a", None)
    label(api, namespace, "one", kind=None)
    eventually(lambda: cache.all() == {})


def test_a_cache_lists_anew_once_however_many_ask_and_not_too_often(api, control_plane, namespace, cached):
    cache = cached(api, LEASES, namespace, lambda found: found["metadata"]["name"])
    assert cache.watching.synced.wait(PATIENCE_SECONDS)
    barrier = threading.Barrier(8)
    answers = []

    def ask():
        barrier.wait(PATIENCE_SECONDS)
        answers.append(cache.refresh(not_within_seconds=3600, timeout_seconds=PATIENCE_SECONDS))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert any(answers)
    assert cache.refresh(not_within_seconds=3600) is False
    assert len(audited(control_plane, namespace, verb="list", resource="leases")) == 2
    api.create(LEASES, namespace, {"metadata": {"name": "one"}})
    assert cache.refresh(not_within_seconds=0, timeout_seconds=PATIENCE_SECONDS) is True
    assert cache.get("one") == "one"


def test_who_waits_for_a_list_that_fails_does_not_wait_twice(cached):
    with scripted() as server:
        server.will(page(), chunked())
        cache = cached(server.api(), SECRETS, "ns", lambda found: found)
        assert cache.watching.synced.wait(PATIENCE_SECONDS)
        server.will(answer(500))
        for _ in range(2):
            with pytest.raises(Unavailable):
                cache.refresh(not_within_seconds=3600, timeout_seconds=1)


def test_who_asks_for_a_list_that_is_tried_in_vain_is_told_at_once(watching, told):
    with scripted() as server:
        server.will(page(), chunked())
        one = watching(server.api(), SECRETS, "ns", told)
        assert one.synced.wait(PATIENCE_SECONDS)
        server.will(answer(500))
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unavailable, match="500"):
                one.relist(timeout_seconds=3600)
        assert time.monotonic() - began < 600
        server.will(answer(429, Retry_After="40"))
        with pytest.raises(Unavailable) as caught:
            one.relist(timeout_seconds=3600)
        assert (caught.value.busy, caught.value.retry_after_seconds) == (True, 40)


def test_after_a_failed_list_another_one_is_made_soon(cached):
    with scripted() as server:
        server.will(page(), chunked())
        cache = cached(server.api(), SECRETS, "ns", lambda found: found)
        assert cache.watching.synced.wait(PATIENCE_SECONDS)
        server.will(answer(500))
        with pytest.raises(Unavailable):
            cache.refresh(not_within_seconds=3600, timeout_seconds=PATIENCE_SECONDS)
        server.will(page(item("one", 6)))

        def refreshed():
            try:
                return cache.refresh(not_within_seconds=3600, timeout_seconds=PATIENCE_SECONDS)
            except Unavailable:
                return False

        eventually(refreshed)
        assert cache.get("one")


def test_while_a_watch_is_interrupted_what_is_kept_is_not_said_to_be_all(cached):
    with scripted() as server:
        server.will(page(), chunked())
        cache = cached(server.api(), SECRETS, "ns", lambda found: found)
        assert cache.watching.synced.wait(PATIENCE_SECONDS)
        server.will(page())
        assert cache.refresh(not_within_seconds=0, timeout_seconds=PATIENCE_SECONDS)
        server.will(answer(500))
        eventually(lambda: not cache.watching.healthy)
        with pytest.raises(Unavailable, match="interrupted"):
            cache.refresh(not_within_seconds=3600)
