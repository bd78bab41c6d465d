"""design.md, "A step": the table, row by row, and what holds for all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.runs import StepState
from bridge.core.steps import Answer, Create, Follow, GiveUp, Known, Options, Pause, next_move

EVENTS = ("test",)
ENDED = 1_000.0


def options(**changes) -> Options:
    return Options(**{"events": EVENTS, "tries": 3, **changes})


def build(number: int, ending: Ending | None = None, **changes) -> Build:
    outcome = None if ending is None else Outcome(ending, f"it {ending}", ENDED)
    known = {
        "id": f"b{number}",
        "run": "r",
        "epoch": 1,
        "step": "test",
        "number": number,
        "attempt": 1,
        "event": "test",
        "phase": BuildPhase.RUNNING if ending is None else BuildPhase.FAILED,
        "created": 0.0,
        "outcome": outcome,
    }
    return Build(**{**known, **changes})


def known(*builds: Build, **changes) -> Known:
    facts = {
        "step": "test",
        "attempt": 1,
        "recorded": True,
        "newest_attempt": 1,
        "builds": builds,
        "now": ENDED + 500,
    }
    return Known(**{**facts, **changes})


def test_a_success_in_the_record_is_the_answer():
    move = next_move(known(remembered=StepState(succeeded=2, highest=4)), options())
    assert isinstance(move, Answer)
    assert move.code == 0


def test_a_success_that_this_call_followed_was_not_before_it():
    remembered = StepState(succeeded=2, highest=2)
    before = next_move(known(remembered=remembered), options())
    followed = next_move(known(remembered=remembered, followed=frozenset({2})), options())
    assert isinstance(before, Answer)
    assert isinstance(followed, Answer)
    assert (before.message, followed.message) == ("build 2 succeeded before", "build 2 succeeded")


def test_a_build_that_succeeded_is_the_answer_whatever_came_after():
    move = next_move(known(build(1, Ending.SUCCEEDED), build(2, Ending.FAILED)), options())
    assert move.code == 0


@pytest.mark.parametrize(
    "facts",
    [{"newest_attempt": 2}, {"attempt_ended": True}, {"cancel_waits": True}, {"recorded": False}],
    ids=["a higher attempt", "a verdict", "a cancel", "not in the record"],
)
def test_an_attempt_that_is_over_creates_nothing(facts):
    assert next_move(known(**facts), options()).code == 75
    assert next_move(known(build(1, Ending.FAILED), **facts), options()).code == 75
    running = build(1)
    assert next_move(known(running, **facts), options()) == Follow(running)


def test_a_build_made_while_the_run_was_closed_is_given_up_by_who_made_it():
    running = build(1)
    move = next_move(known(running, attempt_ended=True, closed=True), options())
    assert move == GiveUp(running, Ending.CANCELLED, "the run is closed")


def test_a_step_that_this_attempt_does_not_retry_makes_no_build():
    old = build(1, Ending.FAILED, attempt=1)
    move = next_move(known(old, attempt=2, newest_attempt=2, only=("lint",)), options())
    assert move.code == 2
    assert "it failed" in move.message
    assert next_move(known(attempt=2, newest_attempt=2, only=("lint",)), options()).code == 2


def test_the_step_that_is_retried_makes_one():
    old = build(1, Ending.FAILED, attempt=1)
    assert next_move(known(old, attempt=2, newest_attempt=2, only=("test",)), options()) == Create(2, "test")


@pytest.mark.parametrize("phase", [BuildPhase.WAITING, BuildPhase.RUNNING])
def test_a_build_that_waits_or_runs_is_followed(phase):
    going = build(1, phase=phase)
    assert next_move(known(going), options()) == Follow(going)


def test_nothing_known_makes_build_one():
    assert next_move(known(), options()) == Create(1, "test")


def test_a_number_that_left_anything_is_never_used_again():
    assert next_move(known(highest=3), options()) == Create(4, "test")
    assert next_move(known(remembered=StepState(highest=5)), options()) == Create(6, "test")
    assert next_move(known(build(1, Ending.CANCELLED), highest=1), options()) == Create(2, "test")


def test_a_failure_waits_its_backoff_and_is_tried_again():
    move = next_move(known(build(1, Ending.FAILED), now=ENDED + 2), options(backoff_seconds=10))
    assert isinstance(move, Pause)
    assert move.seconds == 8
    assert next_move(known(build(1, Ending.FAILED), now=ENDED + 10), options(backoff_seconds=10)) == Create(
        2, "test"
    )


def test_the_backoff_doubles_and_a_clock_that_was_turned_back_does_not_stretch_it():
    twice = (build(1, Ending.FAILED), build(2, Ending.FAILED))
    assert next_move(known(*twice, now=ENDED), options(backoff_seconds=10)).seconds == 20
    assert next_move(known(*twice, now=ENDED - 10_000), options(backoff_seconds=10)).seconds == 20


def test_after_the_last_try_the_answer_is_the_newest_builds():
    failures = [build(number, Ending.FAILED) for number in (1, 2, 3)]
    move = next_move(known(*failures), options())
    assert move.code == 2
    assert "build 3 (b3)" in move.message
    late = [build(1, Ending.FAILED), build(2, Ending.FAILED), build(3, Ending.TIMED_OUT)]
    assert next_move(known(*late), options()).code == 124


def test_failures_of_an_earlier_attempt_do_not_count():
    old = [build(number, Ending.FAILED) for number in (1, 2, 3)]
    assert next_move(known(*old, attempt=2, newest_attempt=2), options()) == Create(4, "test")


def test_an_adopted_build_counts_for_the_attempt_that_made_it():
    adopted = build(1, Ending.FAILED, attempt=1)
    own = build(2, Ending.FAILED, attempt=2)
    facts = known(adopted, own, attempt=2, newest_attempt=2)
    assert next_move(facts, options(tries=2)) == Create(3, "test")


def test_without_tries_a_call_makes_at_most_one_build():
    failed = build(1, Ending.FAILED)
    assert next_move(known(failed), options(tries=None)) == Create(2, "test")
    assert next_move(known(failed, followed=frozenset({1})), options(tries=None)).code == 2


def test_a_lost_build_is_no_failure():
    move = next_move(known(build(1, Ending.LOST)), options(tries=1))
    assert move == Create(2, "test")


def test_lost_too_often_is_its_own_answer():
    lost = [build(number, Ending.LOST) for number in (1, 2, 3)]
    assert next_move(known(*lost), options(lost=3)) == Create(4, "test")
    assert next_move(known(*lost), options(lost=2)).code == 69


def test_a_cancelled_build_is_followed_by_a_new_one_without_counting():
    assert next_move(known(build(1, Ending.CANCELLED)), options(tries=1)) == Create(2, "test")


def test_a_build_that_nobody_starts_is_given_up_as_lost():
    waiting = build(1, phase=BuildPhase.WAITING)
    facts = known(waiting, waited_seconds={"b1": 60.0})
    assert next_move(facts, options(start_timeout_seconds=61)) == Follow(waiting)
    move = next_move(facts, options(start_timeout_seconds=60))
    assert isinstance(move, GiveUp)
    assert move.ending is Ending.LOST


def test_a_build_that_runs_too_long_is_given_up_as_timed_out():
    running = build(1)
    facts = known(running, ran_seconds={"b1": 60.0})
    assert next_move(facts, options(timeout_seconds=61)) == Follow(running)
    assert next_move(facts, options(timeout_seconds=60)).ending is Ending.TIMED_OUT


def test_an_event_without_handler_makes_way_for_the_next():
    chosen = options(events=("pull_request:opened", "pull_request"), tries=1)
    first = build(1, Ending.UNHANDLED, event="pull_request:opened")
    assert next_move(known(first), chosen) == Create(2, "pull_request")
    second = build(2, Ending.UNHANDLED, event="pull_request")
    assert next_move(known(first, second), chosen).code == 3


def test_no_handler_is_a_success_where_the_pipeline_says_so():
    chosen = options(unhandled_ok=True)
    assert next_move(known(build(1, Ending.UNHANDLED)), chosen).code == 0
    assert next_move(known(remembered=StepState(unhandled=True)), chosen).code == 0
    assert next_move(known(remembered=StepState(unhandled=True)), options()) == Create(1, "test")


def test_unhandled_builds_are_no_tries():
    chosen = options(events=("a", "b"), tries=1)
    first = build(1, Ending.UNHANDLED, event="a")
    failed = build(2, Ending.FAILED, event="b")
    assert next_move(known(first, failed), chosen).code == 2


endings = st.sampled_from([*Ending, None])


@st.composite
def histories(draw):
    count = draw(st.integers(0, 6))
    made = []
    for number in range(1, count + 1):
        ending = draw(endings) if number == count else draw(st.sampled_from(list(Ending)))
        made.append(build(number, ending, attempt=draw(st.integers(1, 2))))
    return known(
        *made,
        attempt=2,
        newest_attempt=draw(st.integers(2, 3)),
        recorded=draw(st.booleans()),
        attempt_ended=draw(st.booleans()),
        cancel_waits=draw(st.booleans()),
        closed=draw(st.booleans()),
        highest=draw(st.integers(0, 9)),
        remembered=StepState(draw(st.none() | st.integers(1, 3)), draw(st.integers(0, 9)), draw(st.booleans())),
        only=draw(st.sampled_from([(), ("test",), ("lint",)])),
        waited_seconds={f"b{n}": draw(st.floats(0, 1000)) for n in range(1, count + 1)},
        ran_seconds={f"b{n}": draw(st.floats(0, 1000)) for n in range(1, count + 1)},
    )


all_options = st.builds(
    Options,
    events=st.sampled_from([("test",), ("test", "other")]),
    tries=st.none() | st.integers(1, 4),
    timeout_seconds=st.none() | st.floats(1, 500),
    lost=st.integers(0, 3),
    unhandled_ok=st.booleans(),
)


@given(histories(), all_options)
def test_whatever_is_known_the_rules_hold(facts, chosen):
    move = next_move(facts, chosen)
    open_builds = [one for one in facts.builds if one.open]
    succeeded = facts.remembered.succeeded is not None or any(
        one.outcome and one.outcome.ending is Ending.SUCCEEDED for one in facts.builds
    )
    if succeeded:
        assert isinstance(move, Answer)
        assert move.code == 0
    if isinstance(move, Create):
        assert not open_builds, "never two at once"
        assert not succeeded
        assert facts.recorded
        assert facts.newest_attempt == facts.attempt
        assert not facts.attempt_ended
        assert not facts.cancel_waits
        assert move.number > max([facts.highest, facts.remembered.highest, *(one.number for one in facts.builds)])
        assert move.event in chosen.events
    if isinstance(move, Follow | GiveUp):
        assert open_builds == [move.build]
    if isinstance(move, Answer) and move.code == 0 and not succeeded:
        assert chosen.unhandled_ok
    if isinstance(move, Pause):
        assert 0 < move.seconds <= 300
