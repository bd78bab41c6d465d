"""`make chaos`: many runs on the real API server, each with a fault, and none is lost or doubled."""

import logging
import os
import random

import pytest

from tests.cluster.chaos import KINDS, Chaos, counted

RUNS = int(os.environ.get("BRIDGE_CHAOS_RUNS") or 20)
SEED = int(os.environ.get("BRIDGE_CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
LEAST = 10
"""So many runs of each kind where there are ten times as many runs as kinds."""


@pytest.mark.timeout(900 + 15 * RUNS)
def test_whatever_happens_to_each_of_many_runs_they_are_all_closed_and_nothing_is_doubled(
    realm, playing_brigade, caplog
):
    # One client of the API server plays for all runs.
    caplog.set_level(logging.ERROR, "urllib3.connectionpool")
    print(f"\nseed: {SEED} (BRIDGE_CHAOS_SEED={SEED} BRIDGE_CHAOS_RUNS={RUNS} make chaos)")
    with Chaos(realm, playing_brigade, SEED) as chaos:
        trials = chaos.run_all(RUNS)
        count = counted(chaos, trials)
    print("\n".join(count.lines()))
    troubles = [f"{one.run} ({one.kind}): {one.trouble}" for one in trials if one.trouble]
    assert not troubles, "\n".join(troubles)
    assert (count.closed, count.lost, count.doubled) == (RUNS, [], [])
    never = [f"{one.number} ({one.kind})" for one in trials if not one.fired]
    assert not never, f"faults that never fired: {never}"
    if len(KINDS) * LEAST <= RUNS:
        assert all(sum(one.kind == kind for one in trials) >= LEAST for kind in KINDS)
