"""Leader election: never two at once, soon another one, and nobody trusts a clock but its own."""

import threading
import time

import pytest

from bridge.clocks import SystemClock
from bridge.cluster.api import LEASES
from bridge.cluster.leases import Lease
from bridge.errors import Forbidden, Unavailable
from tests.cluster.apis import api_of
from tests.cluster.scripted import answer, scripted
from tests.fakes import FakeClock

PATIENCE_SECONDS = 60
RULES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def candidate(api, namespace, clock):
    def make(identity, *, of=api, by=clock, **options):
        one = Lease(of, namespace, "controller", identity, clock=by, **options)
        # The tests' machine is loaded, and these tests are not about patience.
        one._api = one._api.within(PATIENCE_SECONDS)
        return one

    return make


def test_the_first_one_leads_and_the_others_wait(candidate):
    first, second = candidate("first"), candidate("second")
    assert first.attempt() is True
    assert second.attempt() is False
    assert (first.held(), second.held()) == (True, False)
    assert first.attempt() is True


def test_who_does_not_renew_stops_before_anybody_may_take_over(candidate, clock):
    first, second = candidate("first"), candidate("second")
    first.attempt()
    second.attempt()
    clock.advance(11.5)
    assert not first.held()
    assert second.attempt() is False
    clock.advance(4)
    assert second.attempt() is True
    assert first.attempt() is False


def test_who_renews_keeps_it(candidate, clock):
    first, second = candidate("first"), candidate("second")
    for _ in range(10):
        assert first.attempt() is True
        assert second.attempt() is False
        clock.advance(6)
        assert first.held()


def test_a_clock_that_is_wrong_by_an_hour_changes_nothing(candidate):
    early, late = FakeClock(1_700_000_000.0), FakeClock(1_700_003_600.0)
    first, second = candidate("first", by=early), candidate("second", by=late)
    first.attempt()
    assert second.attempt() is False
    late.advance(14)
    assert second.attempt() is False
    late.advance(2)
    assert second.attempt() is True
    third = candidate("third", by=early)
    assert third.attempt() is False


def test_who_lets_it_go_makes_way_at_once(candidate):
    first, second = candidate("first"), candidate("second")
    first.attempt()
    second.attempt()
    first.release()
    assert not first.held()
    assert second.attempt() is True
    first.release()
    assert second.attempt() is True


def test_of_many_at_once_one_leads(candidate):
    candidates = [candidate(f"c{n}") for n in range(8)]
    barrier = threading.Barrier(8)
    answers = []

    def attempt(one):
        barrier.wait(PATIENCE_SECONDS)
        answers.append(one.attempt())

    for _ in range(2):
        threads = [threading.Thread(target=attempt, args=(one,)) for one in candidates]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert answers.count(True) == 1
        assert [one.held() for one in candidates].count(True) == 1
        next(one for one in candidates if one.held()).release()
        answers.clear()


def test_a_lease_that_somebody_labels_is_still_ours(candidate):
    lease = answer(200, {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "first"}})
    with scripted() as server:
        server.will(lease, answer(409, {"reason": "Conflict"}), lease, answer(200, {}))
        assert candidate("first", of=server.api()).attempt() is True
        assert len(server.asked) == 4


def test_a_lease_that_was_deleted_is_made_again(candidate, api, namespace):
    first = candidate("first")
    first.attempt()
    api.delete(LEASES, namespace, "controller")
    assert first.attempt() is True
    assert api.get(LEASES, namespace, "controller")["spec"]["holderIdentity"] == "first"


def test_a_lease_says_what_kubectl_shows(candidate, api, namespace):
    candidate("first").attempt()
    second = candidate("second")
    second.attempt()
    spec = api.get(LEASES, namespace, "controller")["spec"]
    assert spec["leaseDurationSeconds"] == 15
    assert spec["leaseTransitions"] == 0
    assert spec["renewTime"] == spec["acquireTime"] == "2023-11-14T22:13:20.000000Z"


def test_while_the_api_server_is_away_what_was_promised_stands_and_no_longer(candidate, clock):
    with scripted() as server:
        server.will(answer(404), answer(201, {}), answer(503))
        first = candidate("first", of=server.api())
        assert first.attempt() is True
        with pytest.raises(Unavailable):
            first.attempt()
        assert first.held()
        clock.advance(11)
        assert not first.held()


def test_a_renewal_counts_from_before_it_was_sent(candidate, clock):
    with scripted() as server:

        def slow(client):
            clock.advance(10)
            client.sendall(answer(201, {}))

        server.will(answer(404), slow)
        first = candidate("first", of=server.api())
        first.attempt()
        clock.advance(0.9)
        assert first.held()
        clock.advance(0.2)
        assert not first.held()


def test_it_is_renewed_in_the_background_and_another_one_takes_over(api, namespace):
    told = []
    options = {"clock": SystemClock(), "duration_seconds": 30.0, "renew_seconds": 0.1}
    first = Lease(api, namespace, "controller", "first", on_change=told.append, **options)
    second = Lease(api, namespace, "controller", "second", **options)
    first.start()
    assert first.wait_held(timeout_seconds=PATIENCE_SECONDS)
    second.start()
    assert not second.wait_held(timeout_seconds=0.3)
    renewed = api.get(LEASES, namespace, "controller")["spec"]["renewTime"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while api.get(LEASES, namespace, "controller")["spec"]["renewTime"] == renewed:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.stop()
    assert second.wait_held(timeout_seconds=PATIENCE_SECONDS)
    assert told == [True, False]
    second.stop()
    assert not second.held()


@pytest.mark.parametrize("missing", ["get", "create", "patch"])
def test_the_verbs_that_it_needs(as_service_account, candidate, missing):
    verbs = ["get", "create", "patch"]
    one = candidate("first", of=api_of(as_service_account("leader", [{**RULES, "verbs": verbs}])))
    assert one.attempt()
    assert one.attempt()
    one.release()
    left = [verb for verb in verbs if verb != missing]
    other = candidate("second", of=api_of(as_service_account("less", [{**RULES, "verbs": left}])))
    if missing == "create":
        other._name = "another"
    with pytest.raises(Forbidden, match=rf"the verb {missing} on leases\.coordination\.k8s\.io"):
        other.attempt()
