import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.deliveries import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MOST_SETTLED,
    REDELIVERABLE_SECONDS,
    Answer,
    Attempt,
    Deliveries,
)

NOW = 1_700_000_000.0
HOOK = "the App's webhook"
OTHER = "webhook 1 of acme/widgets"


def attempt(number, code, *, guid="g", ago=1000.0, **told) -> Attempt:
    return Attempt(id=number, guid=guid, delivered=NOW - ago, status_code=code, **told)


def knowing(*attempts, log=HOOK) -> Deliveries:
    found = Deliveries()
    for one in attempts:
        found.see(log, one)
    return found


def due(found, *, now=NOW, logs=(HOOK, OTHER)):
    return [one.newest.id for one in found.due(logs, now=now)]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (200, Answer.TAKEN),
        (202, Answer.TAKEN),
        (301, Answer.REFUSED),
        (400, Answer.REFUSED),
        (401, Answer.REFUSED),
        (404, Answer.REFUSED),
        (409, Answer.REFUSED),
        (413, Answer.REFUSED),
        (429, Answer.LOST),
        (500, Answer.LOST),
        (502, Answer.LOST),
        (503, Answer.LOST),
        (504, Answer.LOST),
        (0, Answer.LOST),
    ],
)
def test_what_was_answered_decides(code, answer):
    assert attempt(1, code).answer is answer
    assert due(knowing(attempt(1, code))) == ([1] if answer is Answer.LOST else [])


def test_what_is_under_way_is_not_lost_yet():
    assert due(knowing(attempt(1, 0, under_way=True))) == []
    assert due(knowing(attempt(1, 503), attempt(2, 0, ago=10, under_way=True))) == []
    assert due(knowing(attempt(1, 0, under_way=True), attempt(1, 503))) == [1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=repr)
def test_one_success_settles_a_delivery_whatever_came_before_or_after(order):
    seen = [attempt(1, 503, ago=3000), attempt(2, 202, ago=2000), attempt(3, 503, ago=1000)]
    assert due(knowing(*(seen[one] for one in order))) == []


def test_a_success_at_another_hook_settles_it_too():
    found = knowing(attempt(1, 503))
    found.see(OTHER, attempt(2, 202))
    assert found.lost == 0
    found.see(HOOK, attempt(3, 503, ago=10))
    assert found.lost == 0


def test_a_refusal_settles_it_for_its_own_hook_alone():
    for refused_first in (False, True):
        seen = [(HOOK, attempt(1, 503)), (OTHER, attempt(2, 401))]
        found = Deliveries()
        for log, one in reversed(seen) if refused_first else seen:
            found.see(log, one)
        assert due(found) == [1]


def test_the_newest_attempt_decides_between_a_refusal_and_a_loss():
    assert due(knowing(attempt(2, 503, ago=1000), attempt(1, 401, ago=2000))) == [2]
    assert due(knowing(attempt(2, 401, ago=1000), attempt(1, 503, ago=2000))) == []
    assert due(knowing(attempt(1, 503, ago=2000), attempt(2, 401, ago=1000))) == []


def test_the_same_attempt_again_changes_nothing():
    found = knowing(*[attempt(1, 503, ago=FIRST_WAIT_SECONDS + 1)] * 5)
    assert due(found) == [1]


def test_an_attempt_is_left_alone_for_longer_each_time():
    waits = []
    found = knowing()
    for number in range(1, 9):
        found.see(HOOK, attempt(number, 503, ago=-number))
        (lost,) = found.due([HOOK], now=NOW + 1e6)
        waits.append(lost.due() - lost.last)
    assert waits[0] == FIRST_WAIT_SECONDS
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_SECONDS


def test_what_was_asked_for_is_left_alone_though_its_log_does_not_show_it():
    found = knowing(attempt(1, 503))
    found.ask("g", now=NOW)
    assert due(found, now=NOW + 2 * FIRST_WAIT_SECONDS - 1) == []
    assert due(found, now=NOW + 2 * FIRST_WAIT_SECONDS) == [1]


def test_the_hook_that_it_was_found_at_first_is_asked_and_only_if_it_may_be():
    found = knowing(attempt(1, 503))
    found.see(OTHER, attempt(2, 503, ago=900))
    assert due(found, logs=[OTHER]) == []
    assert due(found) == [1]


def test_what_was_asked_for_least_comes_first_and_then_the_oldest():
    found = knowing(*(attempt(number, 503, guid=f"g{number}", ago=5000 - number) for number in range(1, 5)))
    found.ask("g1", now=NOW - 4000)
    assert due(found) == [2, 3, 4, 1]


def test_what_is_over_three_days_old_is_given_up_once():
    found = knowing(attempt(1, 503, ago=REDELIVERABLE_SECONDS + 1), attempt(2, 503, guid="h", ago=500))
    assert [one.guid for one in found.expire(now=NOW)] == ["g"]
    found.see(HOOK, attempt(1, 503, ago=REDELIVERABLE_SECONDS + 1))
    assert found.expire(now=NOW) == []
    assert due(found) == [2]


def test_the_first_attempt_counts_for_that_not_the_last():
    found = knowing(attempt(2, 503), attempt(1, 503, ago=REDELIVERABLE_SECONDS + 1))
    assert len(found.expire(now=NOW)) == 1


def test_memory_is_bounded():
    found = knowing(*(attempt(number, 202, guid=str(number)) for number in range(MOST_SETTLED + 10)))
    assert len(found._settled) == MOST_SETTLED


SEEN = st.tuples(
    st.sampled_from([HOOK, OTHER]),
    st.integers(1, 6),
    st.sampled_from([0, 202, 401, 429, 503]),
    st.sampled_from(["g", "h"]),
    st.integers(0, 5000),
)


@given(st.lists(SEEN))
def test_whatever_the_logs_say_what_was_taken_is_never_asked_for_again(seen):
    found, taken = Deliveries(), set()
    for number, (log, _, code, guid, ago) in enumerate(seen):
        found.see(log, attempt(number, code, guid=guid, ago=float(ago)))
        taken |= {guid} if code == 202 else set()
    assert not taken & {one.guid for one in found.due([HOOK, OTHER], now=NOW + 1e6)}


@given(st.lists(SEEN), st.randoms(use_true_random=False))
def test_the_order_of_what_one_hook_says_does_not_matter(seen, shuffle):
    attempts = {
        (guid, ago): attempt(number, code, guid=guid, ago=float(ago))
        for number, (_, _, code, guid, ago) in enumerate(seen)
    }
    shuffled = list(attempts.values())
    shuffle.shuffle(shuffled)

    def lost(order):
        return {
            (one.guid, one.newest.id, one.first, one.last) for one in knowing(*order).due([HOOK], now=NOW + 1e6)
        }

    by_guid = {one[0] for one in lost(shuffled)}
    assert by_guid == {one[0] for one in lost(attempts.values())}
    for guid in by_guid:
        newest = max((one for one in shuffled if one.guid == guid), key=lambda one: one.delivered)
        assert newest.answer is Answer.LOST
