"""What every implementation of the port Runs keeps to."""

import functools
import threading
from dataclasses import replace

import pytest

from bridge.core.events import Revision
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    Phase,
    State,
    StepState,
    closed,
    with_act,
    with_attempt,
    with_end,
    with_report_put_off,
    with_step,
)
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound
from bridge.local.runs import SqliteRuns
from bridge.ports import RunFilter
from tests.fakes import FakeRuns, some_event, some_run


@pytest.fixture(params=["sqlite", "fake", pytest.param("secrets", marks=pytest.mark.timeout(3600))])
def runs(request, tmp_path):
    if request.param == "fake":
        yield FakeRuns()
        return
    if request.param == "secrets":
        yield request.getfixturevalue("secret_runs")
        return
    store = SqliteRuns(tmp_path / "bridge.db")
    yield store
    store.close()


def test_what_is_created_can_be_read_with_its_payload(runs):
    event = some_event(
        pull_request=7,
        revision=Revision("c0ffee", "refs/pull/7/head"),
        long_title="PR #7: \ud800 é \x00",
        payload=b"",
    )
    run = some_run("pr-1", event=event, pipeline="pr", context="bridge/pr/pull_request")
    created = runs.create(run, b'{"a": "\xff"}')
    assert not created.duplicate
    assert created.run == replace(run, version=created.run.version)
    assert runs.read("pr-1") == created.run
    assert runs.payload("pr-1") == b'{"a": "\xff"}'
    assert runs.list(RunFilter()) == [created.run]


def test_a_record_never_holds_the_payload(runs):
    created = runs.create(some_run("r1", event=some_event(payload=b"secret")), b"secret")
    assert created.run.event.payload == b""
    assert runs.read("r1").event.payload == b""
    assert runs.list(RunFilter())[0].event.payload == b""


def test_a_repeat_changes_nothing_and_answers_what_is_stored(runs):
    runs.create(some_run("r1"), b"first")
    begun = runs.change("r1", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=5.0)))
    again = runs.create(some_run("r1", digest="1" * 64, accepted=9.0), b"second")
    assert again.duplicate
    assert again.run == begun
    assert runs.payload("r1") == b"first"


def test_an_empty_payload_is_a_payload(runs):
    runs.create(some_run("r1"), b"")
    assert runs.payload("r1") == b""


def test_what_is_not_there_is_not_found(runs):
    with pytest.raises(NotFound):
        runs.read("r1")
    with pytest.raises(NotFound):
        runs.payload("r1")
    with pytest.raises(NotFound):
        runs.change("r1", lambda run: run)
    assert runs.list(RunFilter()) == []


def test_a_whole_life_comes_back_as_it_was_written(runs):
    runs.create(some_run("r1"), b"{}")
    act = Act(Kind.CANCEL, "request-1", 1, who="mona", source="cli", at=3.0, only=("lint",))
    changes = [
        lambda run: with_act(run, act),
        lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=5.0, steps=("build", "lint"))),
        lambda run: with_step(run, 1, "build", StepState(succeeded=2, highest=2)),
        lambda run: with_report_put_off(run, error="503", until=9.5),
        lambda run: with_end(run, 1, verdict=Verdict.TIMED_OUT, reason="too slow", at=7.0),
        lambda run: closed(run, at=8.0),
    ]
    expected = runs.read("r1")
    for change in changes:
        stored = runs.change("r1", change)
        expected = change(expected)
        assert stored == replace(expected, version=stored.version)
        assert runs.read("r1") == stored
    assert stored.phase is Phase.CLOSED
    assert stored.closed == 8.0


def test_a_change_that_changes_nothing_writes_nothing(runs):
    before = runs.create(some_run("r1"), b"{}").run
    assert runs.change("r1", lambda run: run) == before
    assert runs.read("r1") == before


def test_a_change_is_told_apart_by_its_version(runs):
    first = runs.create(some_run("r1"), b"{}").run
    second = runs.change("r1", lambda run: replace(run, reason="why"))
    assert second.version != first.version


def test_a_change_that_fails_leaves_the_record_as_it_was(runs):
    before = runs.create(some_run("r1"), b"{}").run

    def change(run):
        raise LookupError(run.id)

    with pytest.raises(LookupError):
        runs.change("r1", change)
    assert runs.read("r1") == before
    assert runs.change("r1", lambda run: replace(run, reason="why")).reason == "why"


def test_changes_of_many_threads_are_all_kept(runs):
    runs.create(some_run("r1"), b"{}")
    barrier = threading.Barrier(8)

    def add(worker):
        barrier.wait(60)
        for n in range(5):
            act = Act(Kind.RETRY, f"{worker}-{n}", 1)
            runs.change("r1", functools.partial(with_act, act=act))

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {act.request for act in runs.read("r1").acts} == {f"{w}-{n}" for w in range(8) for n in range(5)}


def test_one_of_many_creators_at_once_is_first(runs):
    barrier = threading.Barrier(8)
    answers = []

    def create(worker):
        barrier.wait(60)
        answers.append(runs.create(some_run("r1", reason=str(worker)), str(worker).encode()))

    threads = [threading.Thread(target=create, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer.duplicate for answer in answers].count(False) == 1
    assert len({answer.run.reason for answer in answers}) == 1
    assert runs.payload("r1").decode() == answers[0].run.reason


def test_a_list_is_newest_first_and_of_two_at_once_the_later_created(runs):
    for name, accepted in [("b", 2.0), ("a", 1.0), ("d", 3.0), ("c", 3.0)]:
        runs.create(some_run(name, accepted=accepted), b"{}")
    assert [run.id for run in runs.list(RunFilter())] == ["c", "d", "b", "a"]
    assert [run.id for run in runs.list(RunFilter(limit=2))] == ["c", "d"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RunFilter(), ["pr", "push", "other"]),
        (RunFilter(project="acme/widgets"), ["pr", "push"]),
        (RunFilter(pipeline="push"), ["push", "other"]),
        (RunFilter(sha="a" * 40), ["pr"]),
        (RunFilter(context="bridge/pr"), ["pr"]),
        (RunFilter(pull_request=7), ["pr"]),
        (RunFilter(pull_request=70**20), []),
        (RunFilter(project="acme/widgets", pipeline="push"), ["push"]),
        (RunFilter(project="acme/nothing"), []),
        (RunFilter(open_only=True), ["pr", "other"]),
        (RunFilter(open_only=True, pipeline="push", limit=1), ["other"]),
        (RunFilter(project="' OR 1=1 --"), []),
        (RunFilter(sha="a" * 7), ["pr"]),
        (RunFilter(sha="a" * 6), []),
        (RunFilter(sha="c" * 39, pipeline="push"), ["push", "other"]),
        (RunFilter(commit="a" * 40), ["pr"]),
        (RunFilter(commit="a" * 39), []),
        (RunFilter(branch="next"), ["pr"]),
        (RunFilter(branch="ma"), []),
        (RunFilter(verdict="succeeded"), ["push"]),
        (RunFilter(verdict="failed"), []),
        (RunFilter(verdict="succeeded", open_only=True), []),
        (RunFilter(delivery="d-pr"), ["pr"]),
        (RunFilter(search="ACME widgets"), ["pr", "push"]),
        (RunFilter(search="größe #7"), ["pr"]),
        (RunFilter(search="GRÖSSE mona"), ["pr"]),
        (RunFilter(search="größe  push\tmissing"), []),
        (RunFilter(search="100%_done"), ["pr"]),
        (RunFilter(search="refs/heads"), []),
        (RunFilter(search="aaaaa"), ["pr"]),
    ],
    ids=range(30),
)
def test_a_list_shows_what_is_wanted(runs, wanted, expected):
    ended = Attempt(1, Kind.FIRST, 1, begun=1.0, verdict=Verdict.SUCCEEDED)
    runs.create(some_run("other", event=some_event(project="acme/other"), accepted=1.0), b"{}")
    runs.create(some_run("push", accepted=2.0), b"{}")
    event = some_event(
        revision=Revision("a" * 40),
        pull_request=7,
        branch="next",
        delivery="d-pr",
        short_title="Die Größe 100%_done \ud800",
        sender="Mona",
    )
    runs.create(some_run("pr", pipeline="pr", event=event, context="bridge/pr", accepted=3.0), b"{}")
    runs.change("push", lambda run: closed(with_attempt(run, ended), at=4.0))
    assert [run.id for run in runs.list(wanted)] == expected


def test_a_list_goes_on_after_a_run_until_there_are_no_more(runs):
    for number, accepted in enumerate([3.0, 1.0, 2.0, 2.0, 2.0, 5.0]):
        runs.create(some_run(f"r{number}", accepted=accepted), b"{}")
    seen, after = [], ""
    while page := runs.list(RunFilter(limit=2, after=after)):
        assert len(page) <= 2
        seen += [run.id for run in page]
        after = page[-1].id
    assert seen == ["r5", "r0", "r4", "r3", "r2", "r1"]
    assert [run.id for run in runs.list(RunFilter(after="r4"))] == ["r3", "r2", "r1"]


def test_a_list_goes_on_after_a_run_that_it_would_not_show(runs):
    for name, accepted in [("a", 3.0), ("b", 2.0), ("c", 1.0)]:
        runs.create(some_run(name, accepted=accepted, pipeline="odd" if name == "b" else "push"), b"{}")
    assert [run.id for run in runs.list(RunFilter(pipeline="push", after="b"))] == ["c"]
    assert runs.list(RunFilter(pipeline="push", after="c")) == []


def test_a_list_after_what_is_not_there_is_not_found(runs):
    runs.create(some_run("a"), b"{}")
    with pytest.raises(NotFound):
        runs.list(RunFilter(after="b"))


def test_a_forgotten_run_is_gone_and_its_id_is_free(runs):
    runs.create(some_run("r1"), b"first")
    runs.create(some_run("r2"), b"other")
    runs.forget("r1")
    runs.forget("r1")
    with pytest.raises(NotFound):
        runs.read("r1")
    with pytest.raises(NotFound):
        runs.payload("r1")
    assert [run.id for run in runs.list(RunFilter())] == ["r2"]
    assert not runs.create(some_run("r1"), b"second").duplicate
    assert runs.payload("r1") == b"second"


def test_a_held_run_stays_held_until_an_approval_opens_it(runs):
    run = some_run("held-1", state=State(held="a fork's, by NONE"))
    assert runs.create(run, b"{}").run.awaits_approval
    shut = runs.change("held-1", lambda now: closed(now, at=5.0))
    assert (shut.phase, shut.verdict, shut.reason) == (Phase.CLOSED, Verdict.CANCELLED, "a fork's, by NONE")
    assert runs.list(RunFilter(open_only=True)) == []
    opened = runs.change("held-1", lambda now: with_act(now, Act(Kind.APPROVE, "q1", 0)))
    assert (opened.phase, opened.held, opened.awaits_approval) == (Phase.RUNNING, "a fork's, by NONE", False)
    assert runs.read("held-1") == opened
    assert runs.list(RunFilter(open_only=True)) == [opened]
