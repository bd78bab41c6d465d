"""Each verb of the chart is needed: without it, the work that it is for meets Forbidden on that verb and nothing else.

What is removed is removed from the Roles as the chart renders them. What was refused is read in the audit log.
"""

import re
import uuid

import pytest

from bridge.core import permissions
from bridge.errors import BridgeError
from tests.chart.granted import NOWHERE, Grant, granted
from tests.chart.helming import CHART
from tests.chart.placing import Place, remove
from tests.chart.scenarios import SCENARIOS
from tests.chart.stages import Refusal, World
from tests.cluster.accounts import eventually
from tests.cluster.brigades import EndingPods, HandBrigade
from tests.cluster.client import path
from tests.cluster.kubelet import FakeKubelet

SHOWN = {
    Grant(account, where, resource, verb): scenario
    for (account, where, resource), by_verb in SCENARIOS.items()
    for verb, scenario in by_verb.items()
}


@pytest.fixture(scope="module")
def world(admin, control_plane, tmp_path_factory):
    """Three namespaces with the chart's accounts and Roles; shared, as each test has its own account and run."""
    part = uuid.uuid4().hex[:8]
    place = Place(*(f"t-{part}-{name}" for name in ("home", "runs", "brigade")))
    for namespace in (place.home, place.runs, place.brigade):
        admin.create(path("namespaces"), {"metadata": {"name": namespace}})
        accounts = path("serviceaccounts", namespace)
        # A Pod needs the default one.
        eventually(lambda accounts=accounts: admin.get(accounts)["items"], f"{namespace} has an account")
    with FakeKubelet(control_plane) as kubelet:
        brigade = HandBrigade(admin, kubelet, place.brigade)
        with EndingPods(brigade):
            made = World(control_plane, admin, brigade, place, tmp_path_factory.mktemp("world"))
            yield made
    for one in made.clusters():
        remove(admin, one)
    for namespace in (place.home, place.runs, place.brigade):
        admin.delete(path("namespaces", name=namespace))


@pytest.fixture
def whole(world):
    """`whole(account, scenario)` → what the account did; the scenario is played once for each of them."""

    def act(account, scenario):
        known = (account, scenario.__name__)
        if known not in world.used:
            with world.whole(account) as stage:
                scenario(stage)
                assert stage.refused() == set()
                world.used[known] = stage.did()
        return world.used[known]

    return act


def test_every_verb_of_the_chart_has_a_scenario_and_no_scenario_is_left_over():
    found = granted(NOWHERE.rendered(), NOWHERE)
    assert sorted(map(str, found - set(SHOWN))) == [], "these verbs have no scenario in tests/chart/scenarios.py"
    assert sorted(map(str, set(SHOWN) - found)) == [], "the chart does not grant these"


@pytest.mark.parametrize("grant", sorted(SHOWN), ids=lambda grant: re.sub(r"[ /]", "-", str(grant)))
def test_a_verb_is_needed(grant, world, whole):
    scenario = SHOWN[grant]
    wanted = (grant.where, grant.resource, grant.verb)
    assert wanted in whole(grant.account, scenario), f"{scenario.__name__} does without it"
    with world.less(grant.account, *wanted) as stage:
        with pytest.raises((BridgeError, Refusal, AssertionError)):
            scenario(stage)
        assert stage.refused() == {wanted}


def test_bridgectl_doctor_looks_for_what_the_chart_grants():
    places = {
        permissions.Place.RELEASE: "release",
        permissions.Place.RUNS: "Workflows",
        permissions.Place.BRIGADE: "Brigade",
        permissions.Place.CLUSTER: "cluster",
    }
    asked = {
        Grant(right.account.name, places[right.place], str(right), verb)
        for right in permissions.RIGHTS
        for verb in right.verbs
    }
    assert asked == granted(NOWHERE.rendered(), NOWHERE)


def test_the_documentation_names_every_verb_with_its_reason():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (CHART.parents[1] / "docs/rbac.md").read_text().splitlines()
        if line.startswith("| bridge-")
    ]
    assert all(reason for *_, reason in rows)
    documented = [Grant(account, where, resource, verb) for account, where, resource, verb, _ in rows]
    assert len(documented) == len(set(documented))
    assert set(documented) == granted(NOWHERE.rendered(), NOWHERE)
