"""Which run gives way to which: by time of the event, never by a delivery that came late."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.concurrency import (
    Concurrency,
    Member,
    group_of,
    is_asked_for,
    member_of,
    newest_of,
    superseded_by,
)
from bridge.core.events import Event, Revision
from bridge.core.runs import Act, Attempt, Kind, Run, State
from tests.fakes import some_event, some_run

OLD, NEW = "a" * 40, "b" * 40


def pull_request(commit=OLD, number=7, happened=0.0, **more) -> Event:
    revision = Revision(commit, f"refs/pull/{number}/head")
    return some_event(
        type="pull_request:synchronize", pull_request=number, revision=revision, happened=happened, **more
    )


def run_of(run_id: str, event: Event, *, accepted: float, **more) -> Run:
    return some_run(run_id, event=event, accepted=accepted, **more)


def attempt(n: int, kind: Kind = Kind.RETRY) -> Attempt:
    return Attempt(n, kind, 1, begun=0.0)


@pytest.mark.parametrize(
    ("event", "group"),
    [
        (pull_request(), "pull-request/7"),
        (some_event(), "branch/main"),
        (some_event(revision=Revision(OLD, "refs/tags/v1"), branch="", tag="v1"), ""),
        (some_event(revision=Revision(OLD, "master")), ""),
        (some_event(revision=Revision("", "refs/heads/main")), ""),
        (pull_request(commit=""), ""),
    ],
    ids=["pull request", "branch", "tag", "bare ref", "no commit", "comment without commit"],
)  # fmt: skip
def test_the_group_of_an_event(event, group):
    assert group_of(event) == group


def test_pull_requests_are_asked_for_by_both_and_branches_by_one():
    push = some_event()
    assert [is_asked_for(pull_request(), one) for one in (None, *Concurrency)] == [False, True, True]
    assert [is_asked_for(push, Concurrency.PULL_REQUEST), is_asked_for(push, Concurrency.BRANCH)] == [False, True]
    assert not is_asked_for(some_event(revision=Revision(OLD, "refs/tags/v1")), Concurrency.BRANCH)


def test_a_newer_commit_takes_the_place_of_an_older_and_not_the_other_way_round():
    old = run_of("r1", pull_request(OLD), accepted=10.0)
    new = run_of("r2", pull_request(NEW), accepted=20.0)
    newest = newest_of(map(member_of, (old, new)))
    assert superseded_by(old, newest) == "bbbbbbb"
    assert superseded_by(new, newest) == ""


def test_an_old_delivery_that_comes_late_gives_way_itself():
    new = run_of("r1", pull_request(NEW, happened=200.0), accepted=1000.0)
    late = run_of("r2", pull_request(OLD, happened=100.0), accepted=2000.0)
    newest = newest_of(map(member_of, (late, new)))
    assert superseded_by(new, newest) == ""
    assert superseded_by(late, newest) == "bbbbbbb"


def test_without_a_time_of_the_event_what_was_accepted_last_is_the_newest():
    first = run_of("r1", pull_request(NEW), accepted=1000.0)
    last = run_of("r2", pull_request(OLD), accepted=2000.0)
    newest = newest_of(map(member_of, (last, first)))
    assert superseded_by(first, newest) == "aaaaaaa"
    assert superseded_by(last, newest) == ""


def test_another_event_of_the_same_commit_supersedes_nothing_of_it():
    opened = run_of("r1", pull_request(OLD), accepted=10.0)
    labeled = run_of("r2", replace(pull_request(OLD), type="pull_request:labeled"), accepted=20.0)
    assert superseded_by(opened, member_of(labeled)) == ""


def test_nobody_is_superseded_while_nothing_is_known():
    assert superseded_by(run_of("r1", pull_request(), accepted=1.0), None) == ""


@pytest.mark.parametrize("kind", [Kind.RETRY, Kind.RERUN, Kind.APPROVE])
def test_what_a_person_asked_for_afterwards_is_not_cancelled_again_by_the_same_run(kind):
    follows = 0 if kind is Kind.APPROVE else 1
    attempts = tuple(attempt(n) for n in range(1, follows + 2))
    run = run_of(
        "r1",
        pull_request(OLD),
        accepted=10.0,
        acts=(Act(Kind.CANCEL, "c", follows, at=99.0), Act(kind, "q", follows, at=30.0)),
        state=State(attempts=attempts),
    )
    assert superseded_by(run, Member("r2", NEW, accepted=20.0, happened=0.0)) == ""
    assert superseded_by(run, Member("r3", NEW, accepted=40.0, happened=0.0)) == "bbbbbbb"


def test_what_was_asked_for_before_the_newer_commit_came_gives_way():
    run = run_of(
        "r1",
        pull_request(OLD),
        accepted=10.0,
        acts=(Act(Kind.RETRY, "q", 1, at=15.0),),
        state=State(attempts=(attempt(1), attempt(2))),
    )
    assert superseded_by(run, Member("r2", NEW, accepted=20.0, happened=0.0)) == "bbbbbbb"


members = st.builds(
    Member,
    run=st.text("abcdefgh", min_size=1, max_size=3),
    commit=st.sampled_from([OLD, NEW, "c" * 40]),
    accepted=st.sampled_from([1.0, 2.0, 3.0, 4.0]),
    happened=st.sampled_from([0.0, 1.0, 2.5, 3.5]),
)


@given(st.lists(members, min_size=1, unique_by=lambda member: member.run))
def test_whatever_was_said_of_times_one_of_a_group_goes_on(group):
    """Times that only some of them have must not make a circle, in which each is cancelled for another."""
    runs = [
        run_of(one.run, pull_request(one.commit, happened=one.happened), accepted=one.accepted) for one in group
    ]
    newest = newest_of(map(member_of, runs))
    assert any(not superseded_by(run, newest) for run in runs)
    assert newest == newest_of(map(member_of, reversed(runs)))
