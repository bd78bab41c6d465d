"""The whole server is killed at moments that nobody chose, again and again."""

import random

import pytest

from tests.crashes.scenarios import SCENARIOS, played, runs_of
from tests.crashes.worlds import World

SEED = 9
FEWEST_CHANGES = 6
"""So often at least the record of each of these runs is written before it is closed."""


@pytest.mark.timeout(600)
def test_a_server_that_is_killed_five_times_still_ends_every_run_as_it_should(tmp_path):
    chosen = [one for one in SCENARIOS if one.name in {"broken", "flaky", "retried", "lost", "exit-lost"}]
    chance = random.Random(SEED)
    moments = [
        (chance.randint(1, FEWEST_CHANGES), run) for one in chosen for run in list(runs_of(one).values())[:1]
    ]

    def killing(world: World) -> None:
        for changes, run in sorted(moments):
            world.until(lambda run=run, changes=changes: world.changes(run) >= changes, f"{run} to change")
            world.until(world.kill, "a server to be killed")

    played(tmp_path, chosen, meanwhile=killing)
