"""Lists of a gateway: answered from a watch, and by the API server itself while that is not well."""

from dataclasses import replace

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.runs import SecretRuns
from bridge.cluster.watched_runs import WatchedRuns
from bridge.core.events import Revision
from bridge.core.runs import Attempt, Kind, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound
from bridge.ports import RunFilter
from tests.cluster.accounts import eventually
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.fakes import some_event, some_run

PREFIX = "bridge.brigade.sh/"


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def stored(api, namespace):
    """What others write by."""
    return SecretRuns(api, namespace)


@pytest.fixture
def watched(api, namespace):
    """A gateway's records, once it knows what there is; it starts when it is called."""
    runs = WatchedRuns(api, namespace, SecretRuns(api, namespace))

    def start():
        runs.start()
        assert runs.watching.synced.wait(60)
        return runs

    yield start
    runs.stop()


def ids(runs, **wanted):
    return [run.id for run in runs.list(RunFilter(**wanted))]


def with_many(stored):
    for number in range(7):
        event = some_event(
            revision=Revision(f"{number % 2}" * 40, "refs/heads/main"),
            branch=f"b{number % 3}",
            delivery=f"d{number}",
            short_title=f"Titel Nummer {number}",
            pull_request=number if number > 4 else None,
            payload=b"",
        )
        stored.create(some_run(f"r{number}", event=event, accepted=float(number // 2), pipeline="push"), b"{}")
    for name in ("r1", "r4"):
        stored.change(name, lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=1.0)))
        stored.change(name, lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=2.0))
        stored.change(name, lambda run: closed(run, at=3.0))


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"limit": 3},
        {"after": "r4"},
        {"after": "r4", "limit": 2},
        {"after": "r0"},
        {"sha": "1" * 10},
        {"sha": "1" * 40},
        {"commit": "1" * 40, "after": "r6"},
        {"branch": "b0", "limit": 2},
        {"verdict": "failed"},
        {"open_only": True, "limit": 2},
        {"delivery": "d3"},
        {"search": "nummer 5"},
        {"pull_request": 6},
        {"project": "acme/other"},
    ],
    ids=str,
)
def test_a_list_is_what_the_api_server_would_have_listed(stored, watched, wanted):
    with_many(stored)
    runs = watched()
    assert runs.list(RunFilter(**wanted)) == stored.list(RunFilter(**wanted))


def test_what_happens_later_is_in_the_list_soon(stored, watched):
    runs = watched()
    assert ids(runs) == []
    stored.create(some_run("r1"), b"{}")
    eventually(lambda: ids(runs) == ["r1"], "r1 is listed")
    changed = stored.change("r1", lambda run: replace(run, reason="why"))
    eventually(lambda: runs.list(RunFilter()) == [changed], "its change is listed")
    stored.forget("r1")
    eventually(lambda: ids(runs) == [], "r1 is gone")


def test_pages_of_a_list_ask_nothing_of_the_api_server(control_plane, namespace, stored, watched):
    with_many(stored)
    runs = watched()
    asked = len(audited(control_plane, namespace, resource="secrets"))
    seen, after = [], ""
    while page := ids(runs, limit=2, after=after):
        seen += page
        after = page[-1]
    assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    # The watch's own request is there once it has ended.
    assert len(audited(control_plane, namespace, resource="secrets")) <= asked + 1


def test_a_list_after_a_run_that_the_watch_does_not_know(stored, watched):
    with_many(stored)
    runs = watched()
    with pytest.raises(NotFound):
        runs.list(RunFilter(after="nothing"))
    stored.create(some_run("new", accepted=0.5), b"{}")
    assert ids(runs, after="new") == ["r1", "r0"]


def test_while_the_watch_is_not_well_lists_are_asked_of_the_api_server(stored, watched):
    stored.create(some_run("r1"), b"{}")
    runs = watched()
    runs.stop()
    stored.create(some_run("r2", accepted=1.7e9 + 1), b"{}")
    assert ids(runs) == ["r2", "r1"]


def test_what_cannot_be_read_is_left_out_until_it_can_be(api, namespace, stored, watched):
    stored.create(some_run("good"), b"{}")
    stored.create(some_run("bad"), b"{}")
    state = api.get(SECRETS, namespace, "bad")["metadata"]["annotations"][f"{PREFIX}state"]

    def annotate(value):
        api.patch(SECRETS, namespace, "bad", {"metadata": {"annotations": {f"{PREFIX}state": value}}})

    annotate("{no json")
    runs = watched()
    assert ids(runs) == ["good"]
    assert [name for name, _ in runs.damaged()] == ["bad"]
    annotate(state)
    eventually(lambda: sorted(ids(runs)) == ["bad", "good"], "bad is mended")
    annotate("{no json")
    eventually(lambda: ids(runs) == ["good"], "bad is left out again")


def test_an_event_that_is_too_long_for_the_metadata_is_read_once(control_plane, api, namespace, stored, watched):
    event = some_event(short_title="é" * 20_000, branch="next", payload=b"")
    stored.create(some_run("long", event=event), b"{}")

    def reads():
        return len(audited(control_plane, namespace, verb="get", resource="secrets"))

    runs = watched()
    assert ids(runs, branch="next") == ["long"]
    before = reads()
    api.patch(SECRETS, namespace, "long", {"metadata": {"annotations": {f"{PREFIX}reason": "why"}}})
    eventually(lambda: [run.reason for run in runs.list(RunFilter())] == ["why"], "its change is listed")
    assert reads() == before
