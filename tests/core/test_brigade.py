"""What a build's Secret and pod say, also over what a real Brigade v1 was seen to write (facts/brigade.md)."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.brigade import (
    BUILD_ANNOTATION,
    OUTCOME_ANNOTATION,
    TOMBSTONE_ANNOTATION,
    build_of,
    deletion_seconds,
    described,
    encode_outcome,
    encode_tombstone,
    is_accepted,
    worker_of,
)
from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending, Outcome, judged
from bridge.errors import Misconfigured
from tests import recorded
from tests.fakes import some_event

SPEC = BuildSpec("b1", "r1", "push", 2, "unit-test", 3, 4, some_event(type="build"))
AT = "2026-11-24T03:51:20Z"


def a_secret(**annotations):
    """A build's Secret as a list of metadata has it."""
    return {
        "metadata": {
            "name": "brigade-worker-b1",
            "creationTimestamp": "2026-11-24T03:51:19Z",
            "labels": {"build": "b1", "component": "build", "heritage": "brigade"},
            "annotations": {BUILD_ANNOTATION: described(SPEC), **annotations},
        }
    }


def accepted(**annotations):
    secret = a_secret(**annotations)
    secret["metadata"]["labels"]["status"] = "accepted"
    return secret


def a_pod(phase, *, code=None, ended=AT, started=AT, container="brigade-runner", **changes):
    status = {"phase": phase, **({"startTime": started} if started else {})}
    if code is not None:
        state = {"terminated": {"exitCode": code, "finishedAt": ended}}
        status["containerStatuses"] = [{"name": container, "state": state}]
    metadata = {"name": "brigade-worker-b1", **changes.pop("metadata", {})}
    return {"metadata": metadata, "status": {**status, **changes}}


def history(name):
    """A recorded build as it was after each event."""
    secret, pod, seen = None, None, []
    for found in recorded.objects("brigade", name):
        if not found["metadata"]["name"].startswith("brigade-worker-"):
            continue
        if found["kind"] == "Secret":
            secret = copy.deepcopy(found)
            secret["metadata"]["annotations"] = {BUILD_ANNOTATION: described(SPEC)}
        else:
            pod = found
        seen.append(build_of(secret, pod))
    return seen


def log_of(name):
    return (Path(recorded.RECORDINGS) / "brigade" / f"{name}.log").read_text()


@pytest.mark.parametrize(
    ("name", "phase", "code", "ending"),
    [
        ("succeeded", BuildPhase.SUCCEEDED, 0, Ending.SUCCEEDED),
        ("no-handler", BuildPhase.SUCCEEDED, 0, Ending.UNHANDLED),
        ("job-failed", BuildPhase.FAILED, 1, Ending.FAILED),
        ("script-error", BuildPhase.FAILED, 1, Ending.FAILED),
        ("syntax-error", BuildPhase.FAILED, 1, Ending.FAILED),
    ],
)
def test_a_real_build_waits_runs_and_ends(name, phase, code, ending):
    seen = history(name)
    order = [BuildPhase.WAITING, BuildPhase.RUNNING, phase]
    phases = [build.phase for build in seen]
    assert [one for one, before in zip(phases, [None, *phases], strict=False) if one is not before] == order
    last = seen[-1]
    assert last.exit_code == code
    assert last.ended >= last.started >= last.created > 1.79e9
    outcome = judged(last, log=log_of(name), at=1.0)
    assert outcome.ending is ending
    assert outcome.ended == last.ended


def test_every_recording_of_brigade_is_used():
    assert recorded.names("brigade") == ["job-failed", "no-handler", "script-error", "succeeded", "syntax-error"]


def test_a_build_says_what_it_is_of():
    assert build_of(a_secret(), None) == Build(
        id="b1",
        run="r1",
        epoch=2,
        step="unit-test",
        number=3,
        attempt=4,
        event="build",
        phase=BuildPhase.WAITING,
        created=1795492279.0,
    )


@pytest.mark.parametrize(
    ("secret", "pod", "phase"),
    [
        (a_secret(), None, BuildPhase.WAITING),
        (accepted(), None, BuildPhase.GONE),
        (accepted(), a_pod("Pending", started=None), BuildPhase.WAITING),
        (a_secret(), a_pod("Pending", started=None), BuildPhase.WAITING),
        (accepted(), a_pod("Pending"), BuildPhase.RUNNING),
        (accepted(), a_pod("Running"), BuildPhase.RUNNING),
        (accepted(), a_pod("Unknown"), BuildPhase.RUNNING),
        (accepted(), a_pod("Unknown", started=None), BuildPhase.RUNNING),
        (accepted(), a_pod("Succeeded", code=0), BuildPhase.SUCCEEDED),
        (accepted(), a_pod("Failed", code=1), BuildPhase.FAILED),
        (a_secret(), a_pod("Failed", code=137), BuildPhase.FAILED),
        (accepted(), a_pod("Failed", code=1, container="other"), BuildPhase.FAILED),
    ],
    ids=range(12),
)
def test_secret_and_pod_say_how_it_goes(secret, pod, phase):
    assert build_of(secret, pod).phase is phase


@pytest.mark.parametrize(
    "pod",
    [
        a_pod("Failed", reason="Evicted"),
        a_pod("Failed", code=137, reason="Evicted"),
        a_pod("Failed", code=143, reason="Terminated", message="imminent node shutdown"),
        a_pod("Failed", code=137, conditions=[{"type": "DisruptionTarget", "status": "True"}]),
        a_pod("Failed", reason="OutOfcpu"),
        a_pod("Failed", reason="UnexpectedAdmissionError", started=None),
        a_pod(
            "Failed",
            containerStatuses=[
                {
                    "name": "brigade-runner",
                    "state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}},
                }
            ],
        ),
    ],
    ids=range(7),
)
def test_a_worker_that_failed_for_no_fault_of_the_script_is_lost(pod):
    build = build_of(accepted(), pod)
    assert build.phase is BuildPhase.GONE
    assert judged(build, log=None, at=5.0).ending is Ending.LOST


def test_a_condition_that_is_not_true_is_no_disruption():
    pod = a_pod("Failed", code=1, conditions=[{"type": "DisruptionTarget", "status": "False"}])
    assert build_of(accepted(), pod).phase is BuildPhase.FAILED


def deleted(at="2026-11-24T03:51:50Z", grace=30):
    return {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace}


def test_a_worker_whose_pod_was_deleted_while_it_ran_is_lost_and_one_that_failed_before_is_not():
    killed = a_pod("Failed", code=143, ended="2026-11-24T03:51:21Z", metadata=deleted())
    assert build_of(accepted(), killed).phase is BuildPhase.GONE
    before = a_pod("Failed", code=1, ended="2026-11-24T03:51:19Z", metadata=deleted())
    assert build_of(accepted(), before).phase is BuildPhase.FAILED


def test_a_worker_that_succeeded_while_its_pod_was_being_deleted_succeeded():
    pod = a_pod("Succeeded", code=0, ended="2026-11-24T03:51:21Z", metadata=deleted())
    assert build_of(accepted(), pod, overdue=True).phase is BuildPhase.SUCCEEDED


def test_a_pod_that_is_being_deleted_runs_until_its_observer_has_waited_long_enough():
    pod = a_pod("Running", metadata=deleted(grace=5))
    assert deletion_seconds(pod) == 65
    assert deletion_seconds(a_pod("Running")) is None
    assert build_of(accepted(), pod).phase is BuildPhase.RUNNING
    assert build_of(accepted(), pod, overdue=True).phase is BuildPhase.GONE
    pending = a_pod("Pending", started=None, metadata=deleted())
    assert build_of(accepted(), pending, overdue=True).phase is BuildPhase.GONE


def test_what_failed_before_the_worker_started_has_its_exit_code():
    fetching = {"name": "vcs-sidecar", "state": {"terminated": {"exitCode": 128, "finishedAt": AT}}}
    waiting = {"name": "brigade-runner", "state": {"waiting": {"reason": "PodInitializing"}}}
    pod = a_pod("Failed", initContainerStatuses=[fetching], containerStatuses=[waiting])
    worker = worker_of(pod)
    assert (worker.phase, worker.exit_code, worker.without_source) == (BuildPhase.FAILED, 128, True)
    outcome = judged(build_of(accepted(), pod), log="fatal: unable to access", at=0.0)
    assert outcome is not None
    assert outcome.reason == "its source could not be fetched: the sidecar exited with code 128"


def test_a_tombstone_wins_over_what_became_of_the_worker():
    secret = accepted(**{TOMBSTONE_ANNOTATION: encode_tombstone("timed out after 5 s", Ending.TIMED_OUT)})
    for pod, phase in [
        (None, BuildPhase.GONE),
        (a_pod("Running"), BuildPhase.RUNNING),
        (a_pod("Running", metadata=deleted()), BuildPhase.GONE),
        (a_pod("Failed", code=143, metadata=deleted()), BuildPhase.GONE),
    ]:
        build = build_of(secret, pod)
        assert build.phase is phase
        assert (build.given_up, build.given_up_as) == ("timed out after 5 s", Ending.TIMED_OUT)
        assert judged(build, log=None, at=1.0).ending is Ending.TIMED_OUT


def test_an_outcome_is_read_back():
    outcome = Outcome(Ending.FAILED, "exit code 1", 5.25, "\x1b[31m\ufffd\ud800")
    text = encode_outcome(outcome)
    assert text.isascii()
    assert build_of(accepted(**{OUTCOME_ANNOTATION: text}), None).outcome == outcome


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (BUILD_ANNOTATION, ""),
        (BUILD_ANNOTATION, "{}"),
        (BUILD_ANNOTATION, "no json"),
        (BUILD_ANNOTATION, json.dumps({"schema": 99})),
        (OUTCOME_ANNOTATION, '{"schema": 1, "ending": "odd"}'),
        (TOMBSTONE_ANNOTATION, "[]"),
    ],
)
def test_what_cannot_be_read_says_so(key, text):
    with pytest.raises(Misconfigured):
        build_of(a_secret(**{key: text}), None)


def test_only_the_controllers_word_is_acceptance():
    assert is_accepted(accepted())
    assert not is_accepted(a_secret())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
def test_nonsense_in_a_pod_is_answered(data):
    pod = a_pod("Failed", code=1, conditions=[{"type": "Ready"}], metadata=deleted())
    status = pod["status"]["containerStatuses"][0]
    places = [pod, pod["metadata"], pod["status"], status, status["state"], status["state"]["terminated"]]
    place = data.draw(st.sampled_from(range(len(places))))
    key = data.draw(st.sampled_from(sorted(places[place])))
    places[place][key] = data.draw(JSON)
    assert isinstance(build_of(accepted(), pod), Build)
