"""What the controller knows of the records of a cluster: which are open, which are old, which are set aside."""

from dataclasses import replace

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.run_index import RunIndex
from bridge.cluster.runs import RUN_TYPE, SecretRuns
from bridge.core.runs import REPEAT_SECONDS, Act, Attempt, Kind, closed, with_act, with_attempt, with_end
from bridge.core.verdicts import Verdict
from tests.cluster.accounts import eventually
from tests.cluster.apis import api_of
from tests.fakes import some_run

PREFIX = "bridge.brigade.sh/"
DAY = 86400.0


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def runs(api, namespace):
    return SecretRuns(api, namespace)


@pytest.fixture
def woken():
    return []


@pytest.fixture
def index_of(api, runs, namespace, woken):
    """`index_of(keep_runs=…)`: an index that knows all that there is."""
    made = []

    def index(**settings):
        one = RunIndex(api, namespace, runs, woken.append, **settings)
        made.append(one)
        one.start()
        assert one.cache.watching.synced.wait(60)
        return one

    yield index
    for one in made:
        one.stop()


def stored(runs, name, *, at=None, pipeline="push", accepted=1.0):
    """A record; `at`: when it was closed."""
    run = some_run(name, pipeline=pipeline, accepted=accepted)
    runs.create(run, b"{}")
    if at is None:
        return
    runs.change(name, lambda now: with_attempt(now, Attempt(1, Kind.FIRST, 1, begun=1.0)))
    runs.change(name, lambda now: with_end(now, 1, verdict=Verdict.FAILED, reason="", at=at))
    runs.change(name, lambda now: closed(now, at=at))


def test_open_runs_come_the_oldest_first_and_closed_ones_do_not(runs, index_of, woken):
    stored(runs, "b", accepted=3.0)
    stored(runs, "a", accepted=5.0)
    stored(runs, "c", at=9.0, accepted=1.0)
    index = index_of()
    assert index.open() == ["b", "a"]
    assert sorted(woken) == ["a", "b"]
    assert [index.is_closed(name) for name in ("a", "b", "c", "unknown")] == [False, False, True, False]


def test_it_knows_for_how_long_a_final_status_is_missing_and_that_a_closed_run_has_one(runs, index_of):
    stored(runs, "c", at=9.0)
    index = index_of()
    assert index.waits(now=5000.0) == {"bridge_oldest_pending_seconds": 0.0, "bridge_overdue_seconds": 0.0}
    stored(runs, "a", accepted=1000.0)
    eventually(lambda: index.open() == ["a"], "a is open")
    assert index.waits(now=5000.0) == {"bridge_oldest_pending_seconds": 4000.0, "bridge_overdue_seconds": 3970.0}
    begun = Attempt(1, Kind.FIRST, 1, begun=4000.0, timeout_seconds=700.0)
    runs.change("a", lambda now: with_attempt(now, begun))
    eventually(lambda: index.waits(now=5000.0)["bridge_oldest_pending_seconds"] == 1000.0, "its attempt counts")
    assert index.waits(now=5000.0)["bridge_overdue_seconds"] == 5000.0 - (4000.0 + 700.0 + 180.0 + 30.0)


def test_what_happens_later_is_known_soon_and_wakes(runs, index_of, woken):
    index = index_of()
    stored(runs, "a")
    eventually(lambda: index.open() == ["a"], "a is open")
    assert set(woken) == {"a"}
    runs.change("a", lambda now: with_attempt(now, Attempt(1, Kind.FIRST, 1, begun=1.0)))
    eventually(lambda: len(woken) == 2, "a was woken again")
    runs.change("a", lambda now: with_end(now, 1, verdict=Verdict.FAILED, reason="", at=2.0))
    runs.change("a", lambda now: closed(now, at=2.0))
    eventually(lambda: index.is_closed("a"), "a is closed")
    before = len(woken)
    runs.change("a", lambda now: with_act(now, Act(Kind.RETRY, "q", follows=1)))
    eventually(lambda: index.open() == ["a"], "a is open again")
    assert len(woken) == before + 1
    runs.forget("a")
    eventually(lambda: index.open() == [], "a is gone")


def test_old_runs_by_age(runs, index_of):
    stored(runs, "young", at=50 * DAY)
    stored(runs, "old", at=10 * DAY)
    stored(runs, "open")
    index = index_of()
    assert index.old(now=60 * DAY, retention_seconds=30 * DAY) == ["old"]
    assert index.old(now=60 * DAY, retention_seconds=None) == []
    assert index.old(now=90 * DAY, retention_seconds=30 * DAY) == ["old", "young"]


def test_old_runs_by_count_of_each_pipeline_but_none_while_its_delivery_may_come_again(runs, index_of):
    for number in range(4):
        stored(runs, f"push-{number}", at=number * DAY)
    stored(runs, "other-0", at=0.0, pipeline="other")
    index = index_of(keep_runs=2)
    later = 100 * DAY
    assert index.old(now=later, retention_seconds=None) == ["push-0", "push-1"]
    assert index.old(now=later, retention_seconds=1000 * DAY) == ["push-0", "push-1"]
    assert index.old(now=REPEAT_SECONDS + 0.5 * DAY, retention_seconds=None) == ["push-0"]
    assert index.old(now=REPEAT_SECONDS - 1, retention_seconds=None) == []


def test_what_cannot_be_read_is_set_aside_with_the_reason_until_it_can_be_or_is_gone(
    api, runs, namespace, index_of
):
    stored(runs, "good")
    stored(runs, "bad")
    stored(runs, "newer")
    nonsense = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nonsense", "labels": {f"{PREFIX}run": "nonsense"}},
        "type": RUN_TYPE,
        "data": {},
    }
    api.create(SECRETS, namespace, nonsense)

    def annotate(name, **values):
        annotations = {f"{PREFIX}{key}": value for key, value in values.items()}
        api.patch(SECRETS, namespace, name, {"metadata": {"annotations": annotations}})

    well = api.get(SECRETS, namespace, "bad")["metadata"]["annotations"][f"{PREFIX}state"]
    annotate("bad", state="{no json")
    annotate("newer", schema="99")
    index = index_of()
    assert index.open() == ["good"]
    reasons = dict(index.broken())
    assert sorted(reasons) == ["bad", "newer", "nonsense"]
    assert "99" in reasons["newer"]
    annotate("bad", state=well)
    eventually(lambda: index.open() == ["bad", "good"], "bad is mended")
    api.delete(SECRETS, namespace, "nonsense")
    eventually(lambda: [name for name, _ in index.broken()] == ["newer"], "nonsense is gone")


def test_a_secret_that_is_no_record_is_none(api, runs, namespace, index_of, woken):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {f"{PREFIX}run": "s"}}}
    api.create(SECRETS, namespace, secret)
    index = index_of()
    assert (index.open(), index.broken(), woken) == ([], [], [])


def test_a_damaged_record_does_not_wake(runs, api, namespace, index_of, woken):
    stored(runs, "bad")
    api.patch(SECRETS, namespace, "bad", {"metadata": {"annotations": {f"{PREFIX}acts": "nonsense"}}})
    index_of()
    assert woken == []


def test_a_retry_of_a_success_opens_nothing(runs, index_of):
    stored(runs, "a", at=1.0)
    runs.change("a", lambda now: replace(now, acts=(Act(Kind.CANCEL, "q", follows=1),)))
    index = index_of()
    assert index.is_closed("a")
