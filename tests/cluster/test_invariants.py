"""What tests/invariants shows over fakes, on the real API server: GitHub away, a controller paused, bridge down for an hour."""

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from bridge.core.permissions import Place
from bridge.core.runs import Act, Kind, Phase, with_act
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import RESET
from bridge.demonstrating.fake_replies import Reply
from bridge.github.limits import Limits
from bridge.github.statuses import GitHubStatuses
from tests.cluster.auditing import audited
from tests.cluster.chaos import FINAL, ChaosGitHub, times
from tests.cluster.client import ApiError, path
from tests.cluster.controlled import LaterClock, Realm
from tests.cluster.obedient import ObedientArgo

SOON_SECONDS, LATE_SECONDS = 30.0, 210.0
"""The bounds of docs/endings.md."""
AWAY_SECONDS = 600.0
STEP_SECONDS = 30.0
RUNS = 12
MOST_POSTS = 60
"""In ten minutes: no hot loop."""


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def clock():
    return LaterClock()


@pytest.fixture
def github(clock):
    with ChaosGitHub(["t"]) as fake:
        fake.now = clock.now
        yield fake


@pytest.fixture
def statuses(github, clock):
    limits = Limits(monotonic=clock.monotonic, now=clock.now)
    return GitHubStatuses(
        lambda _: "t", base_url=github.url, now=clock.now, monotonic=clock.monotonic, limits=limits
    )


@dataclass
class Watched:
    """A realm whose statuses go to a GitHub that can be away, by a clock that can be put forward."""

    realm: Realm
    github: ChaosGitHub
    statuses: GitHubStatuses
    clock: LaterClock


@pytest.fixture
def watched(realm, brigade, github, statuses, clock):
    realm.pipeline()
    return Watched(realm, github, statuses, clock)


def shown(github, realm, run):
    """The states of a run's commit, the oldest first."""
    sha = realm.runs.read(run).event.revision.commit
    return [one.state for one in github.history if one.sha == sha]


def later(realm, clock, run, holds, *, most=3600.0):
    """Let time pass until something holds of the run."""
    until = clock.later + most
    while not holds(realm.runs.read(run)):
        assert clock.later < until, realm.runs.read(run)
        clock.later += STEP_SECONDS
        deadline = time.monotonic() + 1.2
        while not holds(realm.runs.read(run)) and time.monotonic() < deadline:
            time.sleep(0.05)
    return realm.runs.read(run)


def is_closed(run):
    return run.phase is Phase.CLOSED


def test_github_away_for_ten_minutes_shows_the_end_when_it_is_back(watched):
    realm, github, clock = watched.realm, watched.github, watched.clock
    run = realm.accept()
    until = clock.now() + AWAY_SECONDS
    away = Reply(500, {"message": "Server Error"})
    sha = realm.runs.read(run).event.revision.commit
    github.trouble(sha, lambda: away if clock.now() < until else None)
    with realm.controlled(clock=clock, reports=watched.statuses):
        realm.end_workflow(run, "Failed")
        ended = later(realm, clock, run, is_closed)
    assert ended.attempt.ended < until, "the verdict waited for nobody"
    assert github.met[sha] < MOST_POSTS
    states = shown(github, realm, run)
    assert states == [ended.verdict.commit_state]
    assert github.history[-1].received < until + 330, "GitHub is asked again every five minutes at least"


TROUBLES = {
    "403": Reply(403, {"message": "You have exceeded a secondary rate limit."}, {"Retry-After": "60"}),
    "422": Reply(422, {"message": "Validation Failed", "errors": [{"message": "No commit found for SHA: x"}]}),
    "reset": RESET,
}


@pytest.mark.parametrize("name", sorted(TROUBLES))
@pytest.mark.parametrize("most", [1, 3])
def test_what_github_refuses_or_forgets_to_answer_is_shown_in_the_end(watched, name, most):
    realm, github, clock = watched.realm, watched.github, watched.clock
    run = realm.accept()
    sha = realm.runs.read(run).event.revision.commit
    github.trouble(sha, times(TROUBLES[name], most))
    with realm.controlled(clock=clock, reports=watched.statuses):
        realm.end_workflow(run, "Failed")
        ended = later(realm, clock, run, is_closed)
    assert ended.verdict is Verdict.FAILED
    states = shown(github, realm, run)
    assert states[-1] == "failure"
    first = next(number for number, state in enumerate(states) if state in FINAL)
    assert set(states[first:]) == {"failure"}, "its end stands"


def test_what_github_never_takes_is_given_up_with_the_reason(watched):
    realm, github, clock = watched.realm, watched.github, watched.clock
    run = realm.accept()
    sha = realm.runs.read(run).event.revision.commit
    refusal = Reply(422, {"message": "Validation Failed", "errors": [{"message": "context is not allowed"}]})
    github.trouble(sha, lambda: refusal)
    with realm.controlled(clock=clock, reports=watched.statuses):
        realm.end_workflow(run, "Failed")
        ended = later(realm, clock, run, is_closed)
    assert ended.verdict is Verdict.FAILED
    assert ended.state.report_given_up is not None
    assert "422" in ended.state.report_error
    assert github.met[sha] < 10


def test_a_controller_paused_past_its_lease_does_nothing_twice(realm, brigade):
    realm.pipeline()
    processes = {one: realm.process("tests.cluster.chaos_controller", log=f"{one}.log") for one in "ab"}
    where = path("leases", realm.places[Place.RELEASE], "bridge-controller")

    def holder():
        with contextlib.suppress(ApiError):
            return realm.admin.get(where)["spec"].get("holderIdentity") or ""
        return ""

    def leader():
        return next((one for one in processes.values() if holder().startswith(f"controller-{one.pid}-")), None)

    try:
        paused = realm.until(leader, "one to lead")
        runs = [realm.accept(f"push-{number}") for number in range(RUNS)]
        realm.until(realm.workflows, "it to be in the middle of it")
        paused.send_signal(signal.SIGSTOP)
        for run in runs[: RUNS // 2]:
            realm.end_workflow(run, "Failed")
        realm.until(lambda: leader() not in {None, paused}, "the other one to lead")
        paused.send_signal(signal.SIGCONT)
        for run in runs[RUNS // 2 :]:
            realm.end_workflow(run, "Failed")
        for run in runs:
            assert realm.until_closed(run).verdict is Verdict.FAILED
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.terminate()
            process.wait(60)
    for namespace, resource, wanted in (
        (realm.namespace, "workflows", RUNS),
        (realm.brigade_namespace, "secrets", RUNS + 1),
    ):
        made = audited(realm.control_plane, namespace, verb="create", resource=resource)
        stored = Counter(one.name for one in made if one.code == 201)
        assert set(stored.values()) == {1}
        assert len(stored) == wanted, "of builds: one exit event each, and the project"


def test_after_an_hour_of_absence_everything_closes_within_its_bound(realm, brigade, clock):
    realm.pipeline()
    realm.pipeline("late", timeout_seconds=900)
    with realm.controlled(clock=clock):
        for run in ("failed", "deleted", "cancelled"):
            realm.accept(run)
        realm.accept("suspended", pipeline="late")
        for run in ("failed", "deleted", "cancelled", "suspended"):
            realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
    realm.end_workflow("failed", "Failed")
    realm.admin.delete(path("workflows", realm.namespace, "deleted"))
    realm.admin.patch(path("workflows", realm.namespace, "suspended"), {"spec": {"suspend": True}})
    cancel = Act(Kind.CANCEL, "q1", 1, "ada", "cli", clock.now())
    realm.runs.change("cancelled", lambda run: with_act(run, cancel))
    realm.accept("accepted", pipeline="gone")
    clock.later += 3600.0
    back = clock.now()
    with ObedientArgo(realm.api, realm.namespace), realm.controlled(clock=clock):
        expected = {
            "failed": Verdict.FAILED,
            "deleted": Verdict.CANCELLED,
            "cancelled": Verdict.CANCELLED,
            "accepted": Verdict.ERROR,
        }
        for run, verdict in expected.items():
            ended = realm.until_closed(run)
            assert ended.verdict is verdict
            assert ended.attempt.ended - back < SOON_SECONDS + 30, "30 s, and as long as this machine may be busy"
        late = later(realm, clock, "suspended", is_closed)
    assert late.verdict is Verdict.TIMED_OUT
    assert late.attempt.ended - back < LATE_SECONDS + STEP_SECONDS
    for run in (*expected, "suspended"):
        states = realm.reports.states(run)
        assert [one for one in states if one in FINAL] == states[-1:], (run, states)
