"""A controller whose API server fails in every way: it catches up, and does nothing twice."""

import os

import pytest

from bridge.core.runs import Phase
from bridge.flows import controlling
from tests.cluster.auditing import audited
from tests.cluster.faults import DONE, NOT_DONE, Faults, cut_after, error_event

RARE = {"nonsense", "409 AlreadyExists", "429 for long", "late", "half an answer", "hangs half", "504 done"}
"""Like one of the others to a controller; BRIDGE_FULL=1 tries them all."""
VERBS = ("get", "list", "create", "patch", "delete")
WATCHES = {"cut": cut_after(0), "cut after one": cut_after(1), "410": error_event(410), "500": error_event(500)}
PATIENCE_SECONDS = 2.0
"""For an answer, where a fault gives none."""


@pytest.fixture
def realm(realm, monkeypatch):
    # Trouble rests for a moment, so that a hundred of them fit into a test.
    monkeypatch.setattr(controlling, "TROUBLE_SECONDS", 0.2)
    monkeypatch.setattr(controlling, "TROUBLE_CAP_SECONDS", 1.0)
    return realm


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def faulty(realm, brigade):
    """A proxy, and a controller behind it that leads."""
    realm.pipeline()
    with (
        Faults(realm.control_plane) as faults,
        realm.controlled(
            access=faults.of(realm.access()), timeout_seconds=PATIENCE_SECONDS, resync_seconds=0.5
        ) as controller,
    ):
        realm.until(controller.lease.held, "it to lead")
        yield faults


@pytest.mark.timeout(600)
@pytest.mark.parametrize("done", [False, True])
def test_a_run_ends_well_whatever_happens_once_to_each_verb(realm, brigade, faulty, done):
    """One fault after the other, each for a request of each verb, while a run fails and fires its event."""
    rare = set() if os.environ.get("BRIDGE_FULL") else RARE
    faults = {name: fault for name, fault in (DONE if done else NOT_DONE).items() if name not in rare}
    for number, (name, fault) in enumerate(faults.items()):
        for verb in VERBS:
            faulty.when(verb, then=fault, where=lambda asked: asked.resource != "leases")
        run = realm.accept(f"push-{number}")
        realm.end_workflow(run, "Failed")
        ended = realm.until_closed(run)
        assert ended.verdict.value == "failed", name
        states = realm.reports.states(run)
        assert (states[0], states[-1], set(states)) == ("pending", "failure", {"pending", "failure"}), name
        assert len(brigade.builds(run)) == 1, name
        faulty.heal()
    met = {asked.fault for asked in faulty.asked} - {""}
    assert met == {getattr(fault, "__name__", "") for fault in faults.values()}, "each was met"
    created = [one.name for one in _created(realm)]
    assert sorted(created) == sorted(f"push-{number}" for number in range(len(faults)))


def _created(realm):
    asked = audited(realm.control_plane, realm.namespace, verb="create", resource="workflows")
    return [one for one in asked if one.code == 201]


@pytest.mark.timeout(600)
def test_watches_that_break_in_any_way_hide_nothing_for_long(realm, brigade, faulty):
    for number, (name, fault) in enumerate(WATCHES.items()):
        with faulty.when("watch", then=fault, times=12):
            faulty.cut("watch")
            run = realm.accept(f"push-{number}")
            realm.end_workflow(run)
            assert realm.until_closed(run).phase is Phase.CLOSED, name
        faulty.heal()
        faulty.cut("watch")
    assert len(_created(realm)) == len(WATCHES)
