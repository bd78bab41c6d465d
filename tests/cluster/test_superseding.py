"""A newer commit of a pull request, and what ends with the run that it supersedes: on a real API server."""

import time
from dataclasses import replace

import pytest

from bridge.clocks import SystemClock
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.run_index import RunIndex
from bridge.cluster.runs import SecretRuns
from bridge.core import obligations
from bridge.core.builds import Ending
from bridge.core.concurrency import Concurrency
from bridge.core.events import Revision
from bridge.core.names import build_id, project_id
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.projects import Project
from bridge.core.runs import Attempt, Kind, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.core.workflows import workflow_template
from bridge.flows.acting import act
from tests.cluster.accounts import eventually
from tests.cluster.apis import api_of
from tests.cluster.client import path
from tests.cluster.controlled import PROJECT
from tests.fakes import FakeProjects, some_event, some_run
from tests.local.building import a_spec

PIPELINE = Pipeline(
    "pr", (PROJECT,), (Trigger("pull_request"),), (Step("test", ("test",)),), concurrency=Concurrency.PULL_REQUEST
)
A, B = "a" * 40, "b" * 40


def pull(commit, *, number=7, **more):
    revision = Revision(commit, f"refs/pull/{number}/head")
    return some_event(type="pull_request:synchronize", pull_request=number, revision=revision, payload=b"", **more)


@pytest.fixture
def hasty(monkeypatch):
    """A minute between rungs is a moment."""
    monkeypatch.setattr(obligations, "RUNG_SECONDS", 0.3)
    monkeypatch.setattr(obligations, "LINGER_SECONDS", 0.5)


def left(admin, namespace, build):
    """What is left of a build but its Secret, which says what it came to. A volume's claim that is being deleted goes
    with its pods, by a controller that there is none of here."""
    kinds = ("pods", "persistentvolumeclaims")
    found = [
        (kind, one["metadata"])
        for kind in kinds
        for one in admin.get(path(kind, namespace), labelSelector=f"build={build}")["items"]
    ]
    return [
        f"{kind} {metadata['name']}"
        for kind, metadata in found
        if kind == "pods" or not metadata.get("deletionTimestamp")
    ]


def builds_of(realm):
    """As a step makes them."""
    projects = FakeProjects([Project(PROJECT, project_id(PROJECT))])
    return BrigadeBuilds(realm.api, realm.brigade_namespace, projects, clock=SystemClock())


def going(realm, brigade, run):
    """A build of the run's step as it goes on: worker, job and volume."""
    one = build_id(run=run, epoch=1, step="test", number=1)
    builds_of(realm).create(a_spec(one, run=run, pipeline="pr", event=pull(A)))

    def labels():
        return brigade.hand.secret(one)["metadata"]["labels"]

    realm.until(lambda: labels().get("status") == "accepted", "the build to be accepted")
    brigade.hand.make_job(one)
    brigade.hand.make_volume(one)
    return one


@pytest.mark.parametrize("how", ["superseded", "cancelled"])
def test_workflow_worker_jobs_and_volume_end_with_the_run(realm, admin, playing_brigade, hasty, how):
    realm.admin.create(path("workflowtemplates", realm.namespace), workflow_template(PIPELINE))
    # Only what the watch tells wakes it in time.
    with realm.controlled(resync_seconds=300):
        run = realm.accept(pipeline="pr", event=pull(A, delivery="d1"))
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        one = going(realm, playing_brigade, run)
        assert len(left(admin, realm.brigade_namespace, one)) == 3
        newer = ""
        if how == "superseded":
            newer = realm.accept(pipeline="pr", event=pull(B, delivery="d2"))
            said = "superseded by bbbbbbb"
        else:
            act(realm.runs, run, Kind.CANCEL, request="q", who="ada", source="test", now=time.time())
            said = "cancelled by ada"
        ended = realm.until_run(run, lambda now: now.attempt.verdict, "to have a verdict")
        assert (ended.attempt.verdict, ended.attempt.reason) == (Verdict.CANCELLED, said)
        realm.until(lambda: realm.workflow(run)["spec"].get("shutdown") == "Terminate", "the Workflow to be told")
        realm.end_workflow(run, "Failed")
        closed_run = realm.until_closed(run)
        assert closed_run.verdict is Verdict.CANCELLED
        realm.until(lambda: not left(admin, realm.brigade_namespace, one), "worker, job and volume to go")
        if newer:
            assert realm.runs.read(newer).attempt.verdict is None
    (step,) = builds_of(realm).find(run, step="test")
    assert step.outcome.ending is Ending.CANCELLED
    final = realm.reports.statuses(A)["bridge/pr/push"]
    assert (final.state, final.description) == ("error", f"{said}; bridgectl retry {run}")


@pytest.fixture
def index_of(control_plane, namespace):
    """`index_of(woken)` → records, and an index that knows all of them."""
    api = api_of(control_plane.admin)
    runs = SecretRuns(api, namespace)
    made = []

    def index(woken):
        one = RunIndex(api, namespace, runs, woken.append)
        made.append(one)
        one.start()
        assert one.cache.watching.synced.wait(60)
        return one

    yield runs, index
    for one in made:
        one.stop()
    api.close()


def test_the_index_knows_the_newest_of_a_group_and_wakes_the_older_ones(index_of):
    runs, index = index_of
    woken: list[str] = []

    def store(name, commit, *, accepted, **more):
        run = some_run(name, event=pull(commit, **more), accepted=accepted)
        runs.create(run, b"{}")
        return run

    old = store("old", A, accepted=1.0)
    known = index(woken)
    assert known.newest(old).run == "old"
    store("elsewhere", B, accepted=3.0, number=8)
    store("late", B, accepted=4.0, happened=0.5)
    eventually(lambda: "late" in woken, "the late one is known")
    assert known.newest(old).run == "old"
    del woken[:]
    new = store("new", B, accepted=2.0)
    eventually(lambda: {"old", "late", "new"} <= set(woken), "those that are older are woken")
    assert "elsewhere" not in woken
    assert known.newest(old).commit == B
    runs.change("new", lambda now: with_attempt(now, Attempt(1, Kind.FIRST, 1, begun=1.0)))
    runs.change("new", lambda now: with_end(now, 1, verdict=Verdict.FAILED, reason="", at=2.0))
    runs.change("new", lambda now: closed(now, at=2.0))
    eventually(lambda: known.is_closed("new"), "the newest is closed")
    assert known.newest(old).run == "new"
    # Another index, as after a restart, knows the same.
    assert index([]).newest(old).run == "new"
    for name in ("old", "late", "new"):
        runs.forget(name)
    eventually(lambda: set(known.cache.all()) == {"elsewhere"}, "they are gone")
    for _ in range(3):
        known.old(now=10.0, retention_seconds=None)
    assert known.newest(replace(old, id="another")) is None
    assert known.newest(replace(new, event=pull(B, number=8))).run == "elsewhere"
