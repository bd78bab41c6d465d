"""What a real Argo did to Workflows, under the real controller: verdict, exit event and final status (facts/argo.md)."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from bridge.core import obligations
from bridge.core.names import is_exit_step
from bridge.core.runs import Phase
from tests import recorded
from tests.cluster.auditing import audited
from tests.cluster.player import Player, recording

TOGETHER = 6
"""So many are played at once: their step processes share two cores with everything else."""
SEED = 10
SHUFFLED, CUT = 10, 14
FINAL = {"success", "failure", "error"}

# recording: how its run ends, whether build_failed is fired, and what the commit shows
ENDS = {
    "succeeded": ("succeeded", False, "success"),
    "restricted-succeeded": ("succeeded", False, "success"),
    "skeleton-succeeded": ("succeeded", False, "success"),
    "skeleton-strict-succeeded": ("succeeded", False, "success"),
    "step-failed": ("failed", True, "failure"),
    "skeleton-step-failed": ("failed", True, "failure"),
    # People.
    "stopped": ("cancelled", True, "error"),
    "stopped-in-backoff": ("cancelled", True, "error"),
    "stopped-step-exits-75": ("cancelled", True, "error"),
    "terminated": ("cancelled", True, "error"),
    "suspended-terminate-unsuspend": ("cancelled", True, "error"),
    "mutex-queued-then-stop-terminate": ("cancelled", True, "error"),
    "deleted": ("cancelled", True, "error"),
    "finalizer-deleted": ("cancelled", True, "error"),
    "owner-gone": ("cancelled", True, "error"),
    # Attempt 1 failed, and `argo retry` made attempt 2.
    "argo-retry": ("succeeded", True, "success"),
    # Argo's own deadline.
    "deadline": ("timed_out", True, "failure"),
    "deadline-step-exits-75": ("timed_out", True, "failure"),
    "wfdeadline-backoff": ("timed_out", True, "failure"),
    "imagepullbackoff": ("timed_out", True, "failure"),
    "node-lost": ("timed_out", True, "failure"),
    # Ours, where Argo misses it.
    "suspended-before-start": ("timed_out", True, "failure"),
    "suspended-then-stop": ("timed_out", True, "failure"),
    "quota-zero-pods": ("timed_out", True, "failure"),
    "secret-missing": ("timed_out", True, "failure"),
    "unschedulable": ("timed_out", True, "failure"),
    "unschedulable-pendingtimeout": ("timed_out", True, "failure"),
    # It could not be run, or nobody can say how a step ended.
    "template-missing": ("error", True, "error"),
    "argument-missing": ("error", True, "error"),
    "entrypoint-missing": ("error", True, "error"),
    "executor-forbidden": ("error", True, "error"),
    "exit75": ("error", True, "error"),
    "tmpldeadline": ("error", True, "error"),
    # Tried again until it was fine.
    "kill9": ("succeeded", False, "success"),
    "oom": ("succeeded", False, "success"),
    "pod-deleted": ("succeeded", False, "success"),
    "evicted-exit75": ("succeeded", False, "success"),
    "wait-container-killed-retried": ("succeeded", False, "success"),
    "controller-down-pod-finished-and-deleted": ("succeeded", False, "success"),
    "created-while-controller-down": ("succeeded", False, "success"),
    "mutex-queued": ("succeeded", False, "success"),
    "ttl-deleted-while-controller-down": ("succeeded", False, "success"),
    # Argo says Error, or never says anything, and all that was to be built was built.
    "wait-container-killed": ("succeeded", False, "success"),
    "suspended-midway": ("succeeded", False, "success"),
    "suspended-then-terminate": ("succeeded", False, "success"),
    # The exit handler's trouble is none of the run's.
    "exit-pod-deleted": ("succeeded", False, "success"),
    "skeleton-exit-unschedulable": ("succeeded", False, "success"),
    "exit-unschedulable": ("succeeded", False, "success"),
    "exit-unschedulable-then-stop": ("succeeded", False, "success"),
    "exit-unschedulable-then-terminate": ("succeeded", False, "success"),
}
OUR_DEADLINE = {
    "quota-zero-pods",
    "secret-missing",
    "suspended-before-start",
    "suspended-midway",
    "suspended-then-stop",
    "suspended-then-terminate",
    "unschedulable",
    "unschedulable-pendingtimeout",
}
"""Nothing but bridge's own deadline ends these."""
WITH_EXIT_HANDLERS = {"succeeded", "skeleton-step-failed", "stopped", "argo-retry"}
"""In these a real exit handler runs beside the controller."""


@pytest.fixture
def realm(realm, monkeypatch):
    monkeypatch.setattr(obligations, "RUNG_SECONDS", 0.5)
    monkeypatch.setattr(obligations, "LINGER_SECONDS", 1.0)
    return realm


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


def test_every_recording_is_in_the_table():
    assert set(ENDS) == set(recorded.names("argo"))


@pytest.mark.timeout(600)
def test_what_a_real_argo_did_ends_as_the_facts_say(realm, brigade):
    with realm.controlled(), ThreadPoolExecutor(TOGETHER) as pool:
        played = {name: pool.submit(_played, realm, brigade, name) for name in ENDS}
        found = {name: _result(one) for name, one in played.items()}
    wrong = {name: ending for name, ending in found.items() if ending != ENDS[name]}
    assert not wrong, wrong
    creates = [
        one.name for one in audited(realm.control_plane, realm.namespace, verb="create", resource="workflows")
    ]
    assert len(creates) == len(set(creates)) == len(ENDS) + 1, "one for each, and one more after argo retry"


def _result(future):
    try:
        return future.result()
    except AssertionError as failed:
        return f"{failed}"[:1500]


def _played(realm, brigade, name):
    run = f"r-{name}"[:48].rstrip("-")
    one = recording(name, called=run)
    pipeline = realm.pipeline(f"p-{name}", *one.steps, timeout_seconds=3 if name in OUR_DEADLINE else 600)
    realm.accept(run, pipeline=pipeline)
    before = {}
    if name == "argo-retry":
        before = {1: lambda: realm.until_closed(run)}
    Player(realm, brigade, one, run, exits=name in WITH_EXIT_HANDLERS, before=before).play()
    if name == "argo-retry":
        realm.end_workflow(f"{run}-2")
    ended = realm.until_run(run, lambda now: now.phase is Phase.CLOSED and _is_last(name, now), "to be closed")
    states = realm.reports.states(run)
    steps = [found["labels"]["bridge.brigade.sh/step"] for found in brigade.builds(run)]
    fired = [step for step in steps if is_exit_step(step)]
    built = [step for step in steps if not is_exit_step(step)]
    assert len(built) == len(set(built)), f"one build a step: {built}"
    if name == "argo-retry":
        assert [one.verdict.value for one in ended.state.attempts] == ["failed", "succeeded"]
        assert (states, built) == (["pending", "failure", "pending", "success"], [])
    else:
        assert [state for state in states if state in FINAL] == states[-1:], states
    return ended.verdict.value, bool(fired), states[-1]


def _is_last(name, run):
    return len(run.state.attempts) == (2 if name == "argo-retry" else 1)


@dataclass(frozen=True)
class History:
    """A recording's events in an order that never was."""

    recording: str
    order: tuple[int, ...]
    obeys: bool

    @property
    def run(self):
        return f"{'shuffled' if self.obeys else 'cut'}-{self.recording}"[:48].rstrip("-")


def histories():
    chance = random.Random(SEED)
    lengths = {
        name: len(recorded.recorded("argo", name)) for name in recorded.names("argo") if name != "argo-retry"
    }
    made = []
    for name in chance.sample(sorted(lengths), SHUFFLED):
        # What was deleted does not come back.
        order = [
            number
            for number in range(lengths[name])
            if recorded.recorded("argo", name)[number]["type"] != "DELETED"
        ]
        order += chance.choices(order, k=3)
        chance.shuffle(order)
        made.append(History(name, tuple(order), obeys=True))
    for name in chance.sample([name for name, length in sorted(lengths.items()) if length > 2], CUT):
        made.append(History(name, tuple(range(chance.randrange(1, lengths[name]))), obeys=False))
    return made


@pytest.mark.timeout(600)
def test_shuffled_duplicates_and_histories_that_are_cut_anywhere_close_as_well(realm, brigade):
    """Whatever is seen and in whatever order: a verdict, one final status, one Workflow."""
    chosen = histories()
    with realm.controlled(), ThreadPoolExecutor(TOGETHER) as pool:
        for one in [pool.submit(_closed_somehow, realm, brigade, history) for history in chosen]:
            one.result()
    creates = [
        one.name for one in audited(realm.control_plane, realm.namespace, verb="create", resource="workflows")
    ]
    assert sorted(creates) == sorted(history.run for history in chosen)


def _closed_somehow(realm, brigade, history):
    run = history.run
    one = recording(history.recording, called=run)
    pipeline = realm.pipeline(f"p-{run}", *one.steps, timeout_seconds=3)
    realm.accept(run, pipeline=pipeline)
    Player(realm, brigade, one, run, order=history.order, steps=False, obeys=history.obeys).play()
    ended = realm.until_closed(run)
    states = realm.reports.states(run)
    assert len(ended.state.attempts) == 1
    assert [state for state in states if state in FINAL] == states[-1:], (history, states)
    assert states[-1] == ended.verdict.commit_state
    fired = [found for found in brigade.builds(run) if is_exit_step(found["labels"]["bridge.brigade.sh/step"])]
    assert bool(fired) == (ended.verdict.value != "succeeded"), history
