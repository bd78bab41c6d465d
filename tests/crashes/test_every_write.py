"""SIGKILL before and after each writing call of each port, at each place that makes it, and a new start.

The points come from the Protocols in bridge.ports: a new writing method is tested here at once, and fails by its
name until some scenario reaches it.
"""

import fcntl
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from tests.crashes.dying import WHENS, calls, deaths, methods
from tests.crashes.scenarios import SCENARIOS, played

WORLDS = 3
"""Who dies early does not come to all places, and which of two processes comes first is chance: then once more."""

pytestmark = pytest.mark.timeout(600)


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
    world = played(folder, SCENARIOS)
    names = {one.name: number for number, one in enumerate(SCENARIOS)}
    of_run = {run: name for name in names for run in world.delivered[name]}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for call in sorted(calls(world.crashes), key=lambda call: names[of_run[call.run]]):
        found[call.method].setdefault(call.place, of_run[call.run])
    return found


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("method", methods())
def test_a_process_killed_at_a_write_costs_nothing(method, when, reached, tmp_path):
    """Somebody dies at this method, and at every place that calls it as far as the race allows.

    Which process comes first to a place that several share (settling a lost build: step or controller) is not
    decided by us, so a place where nobody died in `WORLDS` worlds is named, and is no failure.
    """
    places = reached.get(method, {})
    assert places, f"nothing in tests/crashes/scenarios.py comes to {method}: add what does"
    missing = dict(places)
    for number in range(WORLDS):
        scenarios = [one for one in SCENARIOS if one.name in missing.values()]
        spared = places.keys() - missing.keys()
        world = played(tmp_path / str(number), scenarios, crash_at=f"{method}:{when}", spared=spared)
        missing = {place: name for place, name in missing.items() if place not in deaths(world.crashes)}
        if not missing:
            return
    assert missing != places, f"nobody died at {method}"
    print(f"nobody came to {missing} this time")
