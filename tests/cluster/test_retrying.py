"""Retries through real gateways on a real API server: of many at once one becomes an attempt."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from bridge.core.permissions import GATEWAY
from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict
from tests.cluster.test_serve import serving

TOKEN = "a-token-that-may-act"


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


def retries(url, run, *, follows, how_many):
    """So many retries at once, each a request of its own; status and answer of each."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with urllib3.PoolManager(maxsize=20, retries=False, timeout=120) as http:

        def ask(_):
            body = {"follows": follows, "request": str(uuid.uuid4())}
            answer = http.request("POST", f"{url}/api/v1/runs/{run}/retry", json=body, headers=headers)
            return answer.status, answer.json()

        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(ask, range(how_many)))


def test_a_hundred_retries_at_once_are_one_attempt_and_ninety_nine_answers_that_name_it(realm, brigade):
    realm.pipeline()
    account = realm.access(GATEWAY)
    with serving(realm, account, BRIDGE_ACT_TOKENS=TOKEN) as url, realm.controlled():
        run = realm.accept()
        realm.end_workflow(run, "Failed")
        realm.until_closed(run)
        answers = retries(url, run, follows=1, how_many=100)
        realm.end_workflow(f"{run}-2")
        again = realm.until_run(
            run, lambda now: now.phase is Phase.CLOSED and now.attempt and now.attempt.n == 2, "to close"
        )
        late = retries(url, run, follows=1, how_many=3)
    assert sorted(status for status, _ in answers) == [200] * 99 + [202]
    assert {answer["attempt"] for _, answer in answers} == {2}
    assert all("attempt 2" in answer["message"] for _, answer in answers)
    assert (again.verdict, [attempt.kind for attempt in again.state.attempts]) == (
        Verdict.SUCCEEDED,
        [Kind.FIRST, Kind.RETRY],
    )
    assert len(again.acts) == 1
    assert {(status, answer["attempt"]) for status, answer in late} == {(200, 2)}
    assert sorted(realm.workflows()) == [run, f"{run}-2"]


def test_a_retry_of_what_runs_begins_once_when_it_has_ended(realm, brigade):
    realm.pipeline()
    account = realm.access(GATEWAY)
    with serving(realm, account, BRIDGE_ACT_TOKENS=TOKEN) as url, realm.controlled():
        run = realm.accept()
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        answers = retries(url, run, follows=1, how_many=5)
        assert sorted(realm.workflows()) == [run]
        realm.end_workflow(run, "Failed")
        realm.end_workflow(f"{run}-2")
        again = realm.until_closed(run)
    assert sorted(status for status, _ in answers) == [200] * 4 + [202]
    assert {answer["attempt"] for _, answer in answers} == {2}
    assert [attempt.verdict for attempt in again.state.attempts] == [Verdict.FAILED, Verdict.SUCCEEDED]
    # The failure in between is nobody's news: no final status, and no exit event either.
    assert set(realm.reports.states(run)) == {"pending", "success"}
