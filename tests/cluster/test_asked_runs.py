"""A gateway watches its records while somebody asks for lists, and not a minute longer."""

import pytest

from bridge.cluster.asked_runs import AskedRuns
from bridge.cluster.runs import SecretRuns
from bridge.ports import RunFilter
from tests.cluster.accounts import eventually
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.fakes import some_run

ALL = RunFilter()


@pytest.fixture
def runs(control_plane, namespace):
    api = api_of(control_plane.admin)
    yield AskedRuns(api, namespace, SecretRuns(api, namespace), idle_seconds=0.5)
    api.close()


def listed(runs):
    return [run.id for run in runs.list(ALL)]


def test_who_only_accepts_watches_nothing(control_plane, namespace, runs):
    runs.create(some_run("r1"), b"{}")
    assert runs.read("r1").id == "r1"
    assert not runs.watches
    assert not audited(control_plane, namespace, verb="list", resource="secrets")


def test_the_first_list_begins_a_watch_that_ends_when_nobody_asks_any_more(runs):
    runs.create(some_run("r1"), b"{}")
    for _ in range(2):
        assert listed(runs) == ["r1"]
        eventually(lambda: not runs.watches, "the watch ended")
    runs.create(some_run("r2", accepted=1.7e9 + 1), b"{}")
    assert listed(runs) == ["r2", "r1"]
