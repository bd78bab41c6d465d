"""Concurrency groups over the records of one machine: the newest of a pull request or branch, and of nothing else."""

import pytest

from bridge.core.events import Revision
from bridge.flows.superseding import ListedGroups
from bridge.local.runs import SqliteRuns
from tests.fakes import some_event, some_run

A, B = "a" * 40, "b" * 40


@pytest.fixture
def runs(tmp_path):
    runs = SqliteRuns(tmp_path / "bridge.sqlite3")
    yield runs
    runs.close()


def stored(runs, run_id, *, accepted, commit=A, number=None, branch="main", pipeline="push", happened=0.0):
    ref = f"refs/heads/{branch}" if number is None else f"refs/pull/{number}/head"
    event = some_event(
        revision=Revision(commit, ref), pull_request=number, branch=branch, happened=happened, payload=b""
    )
    run = some_run(run_id, event=event, accepted=accepted, pipeline=pipeline)
    runs.create(run, b"{}")
    return runs.read(run_id)


def test_the_newest_of_a_pull_request(runs):
    old = stored(runs, "old", accepted=1.0, number=7)
    assert ListedGroups(runs).newest(old).run == "old"
    stored(runs, "other-pull", accepted=5.0, number=8)
    stored(runs, "other-pipeline", accepted=5.0, number=7, pipeline="deploy")
    stored(runs, "new", accepted=3.0, number=7, commit=B)
    stored(runs, "late", accepted=4.0, number=7, happened=0.5)
    newest = ListedGroups(runs).newest(old)
    assert (newest.run, newest.commit) == ("new", B)


def test_the_newest_of_a_branch_behind_many_pull_requests_for_it(runs):
    old = stored(runs, "old", accepted=1.0)
    stored(runs, "new", accepted=2.0, commit=B)
    stored(runs, "elsewhere", accepted=3.0, branch="next")
    for number in range(120):
        stored(runs, f"pull-{number}", accepted=10.0 + number, number=number + 1)
    assert ListedGroups(runs).newest(old).run == "new"


def test_what_has_no_group_has_no_newest(runs):
    assert ListedGroups(runs).newest(stored(runs, "a", accepted=1.0, commit="")) is None
