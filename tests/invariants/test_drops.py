"""Nothing in bridge's core is there without need: leave out any kind of action, or any precondition, and it is noticed."""

import pytest

from tests.invariants import drops
from tests.invariants.world import Violated, play

HISTORIES = drops.histories()


def test_every_kind_of_action_and_every_precondition_has_a_history_that_needs_it():
    missing = [name for name in drops.names() if name not in HISTORIES]
    assert not missing, (
        f"{missing}: nothing shows that they are needed. Teach tests/invariants/world.py what they are for "
        "(an operation after which they are owed, and what must hold), then: python -m tests.invariants.seek"
    )


@pytest.mark.parametrize("name", drops.names())
def test_left_out_it_is_noticed(name):
    history = HISTORIES[name]
    with drops.without(name), pytest.raises(Violated):
        play(history)


@pytest.mark.parametrize("name", drops.names())
def test_with_it_the_same_history_ends_well(name):
    play(HISTORIES[name])
