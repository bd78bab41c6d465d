"""The whole server is killed at moments that nobody chose, again and again."""

import random

import pytest

from tests.crashes.scenarios import SCENARIOS, played
from tests.crashes.worlds import World

KILLS = 5
SEED = 9


@pytest.mark.timeout(600)
def test_a_server_that_is_killed_five_times_still_ends_every_run_as_it_should(tmp_path):
    chosen = [one for one in SCENARIOS if one.name in {"flaky", "broken", "retried", "lost"}]
    world = played(tmp_path, chosen, meanwhile=_killing)
    assert world.kills > KILLS, "five times while it ran, and once at the end"


def _killing(world: World) -> None:
    """Kill the server each time when so and so much has changed in what it shows."""
    chance = random.Random(SEED)
    for _ in range(KILLS):
        changes = chance.randint(1, 3)
        seen = None
        while changes:
            shown = world.until(lambda seen=seen: _changed(world, seen), "something to change")
            changes -= seen is not None
            seen = shown
        world.kill()


def _changed(world: World, before):
    now = [world.details(run["id"]) for run in world.runs()]
    return now if now != before else None
