"""SIGKILL before and after each writing call of each port, at each place that makes it, and a new start.

The points come from the Protocols in bridge.ports: a new writing method is tested here at once, and fails by its
name until some scenario reaches it.
"""

import fcntl
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.demonstrating.fake_github import FakeGitHub
from tests.crashes import dying
from tests.crashes.scenarios import SCENARIOS, Scenario, judge_all, play
from tests.crashes.worlds import TOKEN, World

pytestmark = pytest.mark.timeout(600)


def played(folder: Path, scenarios: list[Scenario], *, crash_at: str = "") -> World:
    """A world in which all of these have happened, and ended as they should."""
    with FakeGitHub(tokens=[TOKEN]) as github:
        # One post that has to be put off.
        github.fail_next(1, 502)
        with World(folder, github, crash_at=crash_at) as world, ThreadPoolExecutor(len(scenarios)) as pool:
            for done in [pool.submit(play, world, one) for one in scenarios]:
                done.result()
            judge_all(world, scenarios)
    return world


@pytest.fixture(scope="session")
def reached(tmp_path_factory) -> dict[str, dict[str, str]]:
    """By writing method: its places, each with the first scenario that comes there. Played once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    answer = shared / "reached.json"
    with (shared / "reached.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            answer.write_text(json.dumps(_recorded(tmp_path_factory.mktemp("recorded") / "world")))
    return json.loads(answer.read_text())


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    folder.mkdir()
    world = played(folder, SCENARIOS)
    names = {one.name: number for number, one in enumerate(SCENARIOS)}
    of_run = {run: name for name in names for run in world.delivered[name]}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for call in sorted(dying.calls(world.crashes), key=lambda call: names[of_run[call.run]]):
        found[call.method].setdefault(call.place, of_run[call.run])
    return found


@pytest.mark.parametrize("when", dying.WHENS)
@pytest.mark.parametrize("method", dying.methods())
def test_a_process_killed_at_a_write_costs_nothing(method, when, reached, tmp_path):
    places = reached.get(method, {})
    assert places, f"nothing in tests/crashes/scenarios.py comes to {method}: add what does"
    scenarios = [one for one in SCENARIOS if one.name in places.values()]
    world = played(tmp_path, scenarios, crash_at=f"{method}:{when}")
    assert dying.deaths(world.crashes) == sorted(f"died {place}" for place in places)
