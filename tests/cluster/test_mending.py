"""Records that somebody damaged, under the real controller: their runs end all the same."""

import contextlib

import pytest

from bridge.cluster.api import SECRETS
from bridge.core.mending import REASON
from bridge.core.names import build_id
from bridge.core.runs import Act, Kind, with_act
from bridge.core.verdicts import Verdict
from bridge.errors import Misconfigured
from bridge.wiring import controlling
from tests.cluster.client import path

PREFIX = "bridge.brigade.sh/"


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def realm(realm, monkeypatch):
    monkeypatch.setattr(controlling, "MEND_SECONDS", 0.2)
    realm.pipeline()
    return realm


def damaged(realm, run, **values):
    annotations = {f"{PREFIX}{key}": value for key, value in values.items()}
    realm.api.patch(SECRETS, realm.namespace, run, {"metadata": {"annotations": annotations}})


def is_mended(realm, run):
    with contextlib.suppress(Misconfigured):
        return realm.runs.read(run)
    return None


def annotations(realm, run):
    return realm.admin.get(path("secrets", realm.namespace, run))["metadata"]["annotations"]


def test_a_run_whose_state_was_damaged_ends_with_an_error_and_can_be_retried(realm, brigade):
    run = realm.accept()
    with realm.controlled():
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        damaged(realm, run, state="{no json")
        realm.until(lambda: is_mended(realm, run), "it to be mended", seconds=60)
        realm.until(lambda: realm.workflow(run)["spec"].get("shutdown") == "Terminate", "what is left to be ended")
        realm.end_workflow(run, "Failed")
        ended = realm.until_closed(run)
        assert (ended.verdict, ended.attempt.n, ended.attempt.reason) == (Verdict.ERROR, 2, REASON)
        assert realm.reports.states(run)[-1] == "error"
        assert annotations(realm, run)[f"{PREFIX}damaged"].startswith("{no json")
        realm.runs.change(run, lambda now: with_act(now, Act(Kind.RETRY, "q1", 2, "ada", "cli", 1.0)))
        realm.end_workflow(f"{run}-3")
        retried = realm.until_run(run, lambda now: now.closed and now.attempt.n == 3, "to be closed again")
    assert retried.verdict is Verdict.SUCCEEDED
    first = build_id(run=run, epoch=1, step="exit.1", number=1)
    assert first not in {one["labels"]["build"] for one in brigade.builds(run)}


@pytest.mark.parametrize("part", ["acts", "state", "closed", "accepted"])
def test_whatever_part_was_damaged_the_run_ends(realm, brigade, part):
    run = realm.accept()
    damaged(realm, run, **{part: "nonsense"})
    with realm.controlled():
        realm.until(lambda: is_mended(realm, run), "it to be mended")
        assert realm.until_closed(run).verdict is Verdict.ERROR
    assert realm.reports.states(run) == ["error"]


def test_one_of_a_newer_bridge_is_left_alone(realm, brigade):
    newer, run = realm.accept(), realm.accept()
    damaged(realm, newer, state='{"schema": 99}')
    before = annotations(realm, newer)
    with realm.controlled():
        realm.end_workflow(run)
        realm.until_closed(run)
    assert annotations(realm, newer) == before
