"""A controller that is killed: at every write, and in the middle of a thousand events. Nothing is lost, nothing twice."""

import itertools
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.clocks import SystemClock
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.projects import SecretProjects
from bridge.core.builds import BuildSpec
from bridge.core.names import build_id
from bridge.core.permissions import Place
from bridge.core.pipelines import Exit
from bridge.core.runs import Attempt, Kind, Phase, closed, with_attempt, with_end, with_submission
from bridge.core.verdicts import Verdict
from bridge.flows.reconciling import Strays
from bridge.ports import writing_methods
from tests.cluster.auditing import audited
from tests.cluster.client import ApiError, path
from tests.cluster.mortal import AGAIN, IDENTITY
from tests.cluster.test_controller import _resubmitted, _retried
from tests.crashes import dying

FULL = bool(os.environ.get("BRIDGE_FULL"))
EVENTS, LEFT = (1000, 100) if FULL else (150, 20)
"""So many events, and of them not yet submitted when the leader is killed."""
LONG_SECONDS = 600.0 if FULL else 90.0
PREFIX = "bridge.brigade.sh/"
LONG_AGO_SECONDS = 40 * 86400.0


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


def _end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(60)


@pytest.mark.timeout(600)
def test_a_controller_killed_before_and_after_each_write_loses_nothing_and_does_nothing_twice(
    realm, brigade, tmp_path
):
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    realm.pipeline("push", exits=Exit(timeout_seconds=60))
    realm.pipeline("stuck", timeout_seconds=8)
    for name, pipeline in (("fails", "push"), ("copied", "push"), ("stuck", "stuck")):
        realm.accept(name, pipeline=pipeline)
    left_of_old = _old_run(realm)
    process = realm.process(
        "tests.cluster.mortal",
        **{AGAIN: "1", IDENTITY: "mortal", dying.AT: dying.EVERYWHERE, dying.FOLDER: str(crashes)},
    )
    try:
        with ThreadPoolExecutor(3) as pool:
            for play in [pool.submit(one, realm) for one in (_fails_and_is_retried, _is_copied, _is_stuck)]:
                play.result()
        realm.until(lambda: left_of_old() == [], "the old run to be forgotten")
    finally:
        _end(process)
    died = {place.split(" ")[0] for place in dying.deaths(crashes)}
    ours = [method for method in dying.methods() if method.startswith(("Runs.", "Engine.", "Builds.", "Reports."))]
    ours = [method for method in ours if method != "Runs.create"]
    ours += [f"Strays.{name}" for name in writing_methods(Strays)]
    missing = {f"{method}:{when}" for method, when in itertools.product(ours, dying.WHENS)} - died
    assert not missing, f"nobody died at {missing}"
    _nothing_twice(realm, ["copied", "copied-x1", "fails", "fails-2", "stuck"])
    for run, fired in (("fails", ["exit.1"]), ("copied", []), ("stuck", ["exit.1", "test"])):
        assert sorted(one["labels"][f"{PREFIX}step"] for one in brigade.builds(run)) == fired


def _nothing_twice(realm, names):
    """Each Workflow was created once, and each build."""
    stored = [one for one in _creates(realm, realm.namespace, "workflows") if one.code == 201]
    assert sorted(one.name for one in stored if not one.name.startswith("old")) == names
    builds = Counter(one.name for one in _creates(realm, realm.brigade_namespace, "secrets") if one.code == 201)
    assert set(builds.values()) <= {1}, builds


def _creates(realm, namespace, resource):
    return audited(realm.control_plane, namespace, verb="create", resource=resource)


def _fails_and_is_retried(realm):
    realm.end_workflow("fails", "Failed")
    assert realm.until_closed("fails").verdict is Verdict.FAILED
    _retried(realm, "fails", action="Retry", actor="ada")
    realm.until(lambda: realm.workflow("fails")["spec"].get("shutdown") == "Terminate", "the old one to be ended")
    realm.end_workflow("fails", "Failed")
    realm.end_workflow("fails-2")
    ended = realm.until_run(
        "fails", lambda now: now.phase is Phase.CLOSED and len(now.state.attempts) == 2, "to close"
    )
    assert [one.verdict for one in ended.state.attempts] == [Verdict.FAILED, Verdict.SUCCEEDED]
    assert [one.who for one in ended.acts] == ["ada"]


def _is_copied(realm):
    realm.until_run("copied", lambda now: now.attempt and now.attempt.uid, "to be submitted")
    copy = "copied-x1"
    _resubmitted(realm, "copied", name=copy)
    realm.until(lambda: realm.workflow(copy)["spec"].get("shutdown") == "Terminate", "the copy to be ended")
    realm.end_workflow(copy, "Failed")
    realm.end_workflow("copied")
    assert realm.until_closed("copied").verdict is Verdict.SUCCEEDED


def _is_stuck(realm):
    """Nobody obeys, and a build of it runs on."""
    realm.until_run("stuck", lambda now: now.attempt, "to be begun")
    run = realm.runs.read("stuck")
    one = build_id(run="stuck", epoch=1, step="test", number=1)
    projects = SecretProjects(realm.api, realm.brigade_namespace)
    builds = BrigadeBuilds(realm.api, realm.brigade_namespace, projects, clock=SystemClock())
    builds.create(BuildSpec(one, "stuck", "stuck", 1, "test", 1, 1, run.event))
    ended = realm.until_closed("stuck")
    assert ended.verdict is Verdict.TIMED_OUT
    assert all(not build.open for build in builds.find("stuck"))


def _old_run(realm):
    """A run that was closed long ago, with a Workflow and a build; what finds what is left of it."""
    at = time.time() - LONG_AGO_SECONDS
    realm.accept("old", accepted=at)
    record = realm.admin.get(path("secrets", realm.namespace, "old"))["metadata"]
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "old", "uid": record["uid"]}
    labels = {f"{PREFIX}run": "old", f"{PREFIX}attempt": "1", "workflows.argoproj.io/completed": "true"}
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "old", "labels": labels, "ownerReferences": [owner]},
        "spec": {"workflowTemplateRef": {"name": "push"}},
        "status": {"phase": "Failed", "startedAt": None, "finishedAt": None},
    }
    uid = realm.admin.create(path("workflows", realm.namespace), body)["metadata"]["uid"]
    realm.runs.change("old", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=at)))
    realm.runs.change("old", lambda run: with_submission(run, 1, uid=uid, at=at))
    realm.runs.change("old", lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=at))
    realm.runs.change("old", lambda run: closed(run, at=at))
    labels = {
        "component": "build",
        "heritage": "brigade",
        f"{PREFIX}run": "old",
        "build": "0" * 26,
        "status": "accepted",
    }
    name = f"brigade-worker-{'0' * 26}"
    body = {"metadata": {"name": name, "labels": labels}, "type": "brigade.sh/build"}
    realm.admin.create(path("secrets", realm.brigade_namespace), body)

    def left():
        found = []
        for kind, where, called in (
            ("secrets", realm.namespace, "old"),
            ("workflows", realm.namespace, "old"),
            ("secrets", realm.brigade_namespace, name),
        ):
            try:
                realm.admin.get(path(kind, where, called))
            except ApiError:
                continue
            found.append(called)
        return found

    return left


@pytest.mark.timeout(1800 if FULL else 600)
def test_many_events_while_the_leader_is_killed_three_times_are_all_submitted_and_none_twice(realm, tmp_path):
    """Twice anywhere, and once between the create of a Workflow and the record of its uid."""
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    realm.pipeline()
    runs = [f"push-{number}" for number in range(EVENTS)]
    half = EVENTS // 2
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(realm.accept, runs[:half]))
        later = [pool.submit(realm.accept, run) for run in runs[half:]]
        processes = {}

        def start(identity, **more):
            log = f"{identity}.log"
            processes[identity] = realm.process("tests.cluster.mortal", log=log, **{IDENTITY: identity, **more})

        def leads(identity):
            with_lease = path("leases", realm.places[Place.RELEASE], "bridge-controller")
            try:
                return realm.admin.get(with_lease)["spec"].get("holderIdentity") == identity
            except ApiError:
                return False

        try:
            began = time.monotonic()
            start("a")
            realm.until(lambda: leads("a"), "the first to lead")
            start("b")
            _kill_when(realm, processes["a"], submitted=EVENTS // 10)
            start("c", **{dying.AT: "Engine.submit:after", dying.FOLDER: str(crashes)})
            realm.until(lambda: leads("b") or leads("c"), "another one to lead")
            if leads("b"):
                _kill_when(realm, processes["b"], submitted=_submitted(realm) + EVENTS // 10)
            assert processes["c"].wait(90) == -signal.SIGKILL, realm.said("c.log")
            if processes["b"].poll() is None:
                start("d")
                _kill_when(realm, processes["b"], submitted=_submitted(realm) + EVENTS // 10)
            assert EVENTS - _submitted(realm) >= LEFT
            start("e")
            for one in later:
                one.result()
            realm.until(lambda: _submitted(realm) >= EVENTS, "all to be submitted", seconds=LONG_SECONDS)
            realm.until(lambda: all(_is_on_record(realm, run) for run in runs), "all to be on record")
            print(f"{EVENTS} events in {time.monotonic() - began:.0f} s")
        finally:
            for process in processes.values():
                _end(process)
    created = [one for one in _creates(realm, realm.namespace, "workflows") if one.code == 201]
    assert sorted(one.name for one in created) == sorted(runs), "every one, and none twice"
    found = {name: one["metadata"]["uid"] for name, one in realm.workflows().items()}
    assert {run: realm.runs.read(run).attempt.uid for run in runs} == found


def _is_on_record(realm, run):
    attempt = realm.runs.read(run).attempt
    return attempt is not None and attempt.uid


def _kill_when(realm, process, *, submitted):
    """SIGKILL as soon as so many Workflows are there; enough are not."""
    realm.until(lambda: _submitted(realm) >= submitted, f"{submitted} to be submitted")
    process.kill()
    process.wait()
    left = EVENTS - _submitted(realm)
    assert left >= LEFT, f"only {left} were left"


def _submitted(realm):
    found = realm.admin.get(path("workflows", realm.namespace), limit=1)
    return len(found["items"]) + found["metadata"].get("remainingItemCount", 0)
