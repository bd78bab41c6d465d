"""The real controller over a real API server, as the ServiceAccount that the chart gives it."""

import contextlib
import json
import logging
import re
import signal
import threading
import time
from dataclasses import replace

import pytest
import urllib3

from bridge.cluster.api import SECRETS
from bridge.cluster.runs import RUN_TYPE
from bridge.core import obligations
from bridge.core.permissions import Place
from bridge.core.runs import Attempt, Kind, Phase, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import NotFound
from bridge.flows.acting import act
from tests.cluster.auditing import audited
from tests.cluster.client import ApiError, path
from tests.cluster.controlled import PROJECT, LaterClock
from tests.cluster.faults import Faults, silent

PREFIX = "bridge.brigade.sh/"
ARGO = "workflows.argoproj.io/"
DAY = 86400.0


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def hasty(monkeypatch):
    """A minute between rungs is a moment."""
    monkeypatch.setattr(obligations, "RUNG_SECONDS", 0.3)
    monkeypatch.setattr(obligations, "LINGER_SECONDS", 0.5)


def states(realm, run):
    return realm.reports.states(run)


def test_an_accepted_run_is_submitted_mirrored_and_closed(realm, brigade):
    realm.pipeline()
    with realm.controlled() as controller:
        run = realm.accept()
        realm.until(controller.lease.held, "the controller to lead")
        workflow = realm.workflow(run)
        assert workflow["spec"]["workflowTemplateRef"] == {"name": "push"}
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to know its Workflow")
        realm.end_workflow(run)
        ended = realm.until_closed(run)
    assert (ended.verdict, ended.attempt.uid) == (Verdict.SUCCEEDED, workflow["metadata"]["uid"])
    assert states(realm, run) == ["pending", "success"]
    assert brigade.builds() == []


def test_a_failure_fires_its_event_and_a_retry_is_the_next_workflow(realm, brigade):
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.end_workflow(run, "Failed")
        assert realm.until_closed(run).verdict is Verdict.FAILED
        (fired,) = brigade.builds(run)
        assert fired["labels"][f"{PREFIX}step"] == "exit.1"
        asked = act(realm.runs, run, Kind.RETRY, request="q", who="ada", source="test", now=time.time())
        assert asked.accepted
        realm.end_workflow(f"{run}-2")
        again = realm.until_run(
            run, lambda now: now.phase is Phase.CLOSED and len(now.state.attempts) == 2, "to close"
        )
    assert again.verdict is Verdict.SUCCEEDED
    assert states(realm, run) == ["pending", "failure", "pending", "success"]


def test_a_workflow_that_does_not_end_is_escalated_and_the_run_closes(realm, brigade, hasty):
    """Nobody obeys: touch, Stop, Terminate and at last delete."""
    realm.pipeline(timeout_seconds=1)
    with realm.controlled():
        run = realm.accept()
        realm.workflow(run)
        ended = realm.until_closed(run)
    assert ended.verdict is Verdict.TIMED_OUT
    assert realm.workflows() == {}
    account = f"system:serviceaccount:{realm.places[Place.RELEASE]}:bridge-controller"
    verbs = [
        one.verb
        for one in audited(realm.control_plane, realm.namespace, user=account, resource="workflows")
        if one.verb in {"create", "patch", "delete"}
    ]
    assert verbs == ["create", "patch", "patch", "patch", "delete"]


def test_a_deleted_workflow_closes_its_run(realm, brigade):
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        realm.admin.delete(path("workflows", realm.namespace, run))
        ended = realm.until_closed(run)
    assert (ended.verdict, ended.reason) == (Verdict.CANCELLED, "the workflow was deleted")
    assert states(realm, run) == ["pending", "error"]


def test_a_cancel_ends_the_workflow(realm, brigade, hasty):
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        act(realm.runs, run, Kind.CANCEL, request="q", who="ada", source="test", now=time.time())
        realm.until_run(run, lambda now: now.attempt.verdict, "to have a verdict")
        realm.until(lambda: realm.workflow(run)["spec"].get("shutdown") == "Terminate", "the Workflow to be told")
        realm.end_workflow(run, "Failed")
        assert realm.until_closed(run).verdict is Verdict.CANCELLED


def test_of_two_controllers_one_acts_and_the_other_one_when_it_has_ended(realm, brigade):
    realm.pipeline()
    with realm.controlled(identity="first") as first:
        realm.until(first.lease.held, "the first to lead")
        with realm.controlled(identity="second") as second:
            run = realm.accept()
            realm.workflow(run)
            realm.until(lambda: second.ready() == "", "the second to know everything")
            assert (first.lease.held(), second.lease.held(), second.loop.looks) == (True, False, 0)
            with realm.controlled(identity="third") as third:
                realm.until(lambda: third.ready() == "", "the third to know everything")
            assert second.loop.looks == 0
            realm.end_workflow(run)
            realm.until_closed(run)
        assert first.loop.looks > 0
    # It let go of the Lease when it ended.
    began = time.monotonic()
    with realm.controlled(identity="fourth"):
        run = realm.accept()
        realm.workflow(run)
    assert time.monotonic() - began < 60


def test_a_leader_that_lost_its_lease_writes_nothing_more(realm, brigade, monkeypatch):
    """Its API server hangs in the middle of a change, another one takes over, and it comes back."""
    quick = {"duration_seconds": 3.0, "renew_seconds": 0.5, "margin_seconds": 1.0}
    from bridge.cluster.leases import Lease
    from bridge.wiring import controlling

    monkeypatch.setattr(controlling, "Lease", lambda *args, **more: Lease(*args, **{**more, **quick}))
    realm.pipeline()
    with Faults(realm.control_plane) as faults:
        held = threading.Event()

        def holding(exchange):
            held.wait(60)
            exchange.send(exchange.fetch())

        with realm.controlled(access=faults.of(realm.access()), identity="old") as old:
            realm.until(old.lease.held, "the old one to lead")
            stuck = faults.when("get", "secrets", then=holding, times=None, namespace=realm.namespace)
            away = faults.when("", "leases", then=holding, times=None)
            run = realm.accept()
            stuck.await_use()
            with realm.controlled(identity="new") as new:
                realm.until(new.lease.held, "the new one to lead")
                assert not old.lease.held()
                realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted by the new one")
                before = _written(faults)
                held.set()
                stuck.end()
                away.end()
                realm.until(
                    lambda: all(one.done() for one in old.loop._in_flight.values()), "the old one's looks to end"
                )
                realm.end_workflow(run)
                realm.until_closed(run)
                realm.until(lambda: old.ready() == "", "the old one to know everything")
                assert _written(faults) == before
                assert new.lease.held()
    creates = audited(realm.control_plane, realm.namespace, verb="create", resource="workflows")
    assert [one.code for one in creates] == [201]


def _written(faults):
    """Writes that were asked for by way of the proxy, but those of the election."""
    return [
        (one.verb, one.resource, one.name)
        for one in faults.asked
        if one.verb in {"create", "patch", "delete"} and one.resource != "leases"
    ]


def test_what_is_nonsense_or_newer_is_set_aside_with_a_reason_and_stops_nothing_else(realm, brigade, caplog):
    realm.pipeline()
    realm.accept("newer")
    _annotate(realm, "newer", schema="99")
    nonsense = {"metadata": {"name": "nonsense", "labels": {f"{PREFIX}run": "nonsense"}}, "type": RUN_TYPE}
    realm.api.create(SECRETS, realm.namespace, {"apiVersion": "v1", "kind": "Secret", **nonsense})
    unreadable = {
        "metadata": {
            "name": "unreadable",
            "annotations": {f"{PREFIX}projects": "acme/*", f"{PREFIX}on": "[oh: {"},
        },
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "none"}}]},
    }
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", **unreadable}
    realm.admin.create(path("workflowtemplates", realm.namespace), body)
    before = {name: _version(realm, name) for name in ("newer", "nonsense")}
    with realm.controlled() as controller:
        of_unreadable = realm.accept("of-unreadable", pipeline="unreadable")
        of_nothing = realm.accept("of-nothing", pipeline="not-there")
        for number in range(3):
            run = realm.accept(f"good-{number}")
            workflow = realm.workflow(run)
            if number == 1:
                _nonsense_workflow(realm, workflow["metadata"]["name"])
            else:
                realm.end_workflow(run)
        closed_runs = {name: realm.until_closed(name) for name in ("good-0", "good-2", of_unreadable, of_nothing)}
        assert sorted(name for name, _ in controller.index.broken()) == ["newer", "nonsense"]
        assert controller.values()["bridge_broken_pipelines"] == 1
        realm.until(lambda: "set aside: unreadable" in caplog.text, "the pipeline to be told of")
    assert closed_runs["good-0"].verdict is closed_runs["good-2"].verdict is Verdict.SUCCEEDED
    assert closed_runs[of_unreadable].verdict is closed_runs[of_nothing].verdict is Verdict.ERROR
    assert "cannot be read" in closed_runs[of_unreadable].reason
    assert "not there" in closed_runs[of_nothing].reason
    for name in ("newer", "nonsense"):
        assert caplog.text.count(f"set aside: {name}:") == 1
        assert _version(realm, name) == before[name], f"{name} was touched"
    # The one with the nonsense still runs; nobody can tell more.
    assert realm.runs.read("good-1").phase is Phase.RUNNING


def _annotate(realm, name, **values):
    annotations = {f"{PREFIX}{key}": value for key, value in values.items()}
    realm.api.patch(SECRETS, realm.namespace, name, {"metadata": {"annotations": annotations}})


def _version(realm, name):
    return realm.api.get(SECRETS, realm.namespace, name, metadata_only=True)["metadata"]["resourceVersion"]


def _nonsense_workflow(realm, name):
    """As much of it as the API server lets through."""
    where = path("workflows", realm.namespace, name)
    for status in ({"nodes": {"x": {"id": 7, "phase": []}}, "phase": 3}, {"phase": "Of no kind", "message": "?"}):
        with contextlib.suppress(ApiError):
            realm.admin.patch(where, {"status": status})
            return


def test_retention_by_age_and_by_count_and_never_within_seven_days(realm, brigade):
    realm.pipeline(timeout_seconds=400 * DAY)
    clock, now = LaterClock(), time.time()
    for number in range(4):
        _store_closed(realm, f"run-{number}", at=now - number * 60.0)
    _store_closed(realm, "of-another", pipeline="other", at=now - 3600.0)
    open_run = realm.accept("open", pipeline="push")
    build_of = _leftovers(realm, "run-3")

    def left():
        found = realm.admin.get(path("secrets", realm.namespace), fieldSelector=f"type={RUN_TYPE}")["items"]
        return sorted(one["metadata"]["name"] for one in found)

    with realm.controlled(clock=clock, retention_days=30, retention_runs=2) as controller:
        realm.workflow(open_run)
        everything = left()
        for later in (1.0, 6.9):
            clock.later = later * DAY
            swept = controller.loop._swept
            realm.until(lambda swept=swept: controller.loop._swept != swept, "a sweep")
        assert left() == everything, "a repeated delivery is recognised for seven days"
        clock.later = 8 * DAY
        realm.until(lambda: left() == ["of-another", "open", "run-0", "run-1"], "the surplus to be forgotten")
        clock.later = 31 * DAY
        realm.until(lambda: left() == ["open"], "the old ones to be forgotten")
    assert build_of() == []


def _store_closed(realm, name, *, at, pipeline="push"):
    realm.accept(name, pipeline=pipeline, accepted=at)
    realm.runs.change(name, lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=at)))
    realm.runs.change(name, lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=at))
    realm.runs.change(name, lambda run: closed(run, at=at))


def _leftovers(realm, run):
    """A build of a closed run; what finds what is left of it."""
    from bridge.core.brigade import worker_name
    from bridge.core.names import build_id

    one = build_id(run=run, epoch=1, step="test", number=1)
    labels = {"component": "build", "heritage": "brigade", "build": one, f"{PREFIX}run": run}
    body = {"metadata": {"name": worker_name(one), "labels": labels}, "type": "brigade.sh/build"}
    secrets = path("secrets", realm.brigade_namespace)
    realm.admin.create(secrets, body)
    return lambda: realm.admin.get(secrets, labelSelector=f"build={one}")["items"]


def test_a_run_closes_within_its_bound_when_nothing_is_heard(realm, brigade, hasty):
    """All watches are silent from the first list on: the resync, and a list now and then, are all there is."""
    realm.pipeline(timeout_seconds=2)
    with Faults(realm.control_plane) as faults:
        run = realm.accept()
        with (
            faults.when("watch", then=silent, times=None),
            realm.controlled(access=faults.of(realm.access()), resync_seconds=1.0),
        ):
            ended = realm.until_closed(run)
    assert ended.verdict is Verdict.TIMED_OUT
    assert ended.closed - ended.accepted < 60


def test_an_end_that_nobody_heard_of_is_found_by_looking(realm, brigade):
    realm.pipeline()
    with Faults(realm.control_plane) as faults:
        run = realm.accept()
        with (
            faults.when("watch", then=silent, times=None),
            realm.controlled(access=faults.of(realm.access()), resync_seconds=1.0),
        ):
            realm.end_workflow(run)
            assert realm.until_closed(run).verdict is Verdict.SUCCEEDED


def test_argo_resubmit_is_ended_and_sets_no_verdict(realm, brigade):
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.until_run(run, lambda now: now.attempt and now.attempt.uid, "to be submitted")
        copy = _resubmitted(realm, run)
        realm.until(lambda: realm.workflow(copy)["spec"].get("shutdown") == "Terminate", "the copy to be ended")
        realm.end_workflow(copy, "Succeeded")
        realm.end_workflow(run, "Failed")
        first = realm.until_closed(run)
        assert first.verdict is Verdict.FAILED
        # Of a closed run as well, and suspended too.
        late = _resubmitted(realm, run, suspend=True)

        def ended():
            spec = realm.workflow(late)["spec"]
            return spec.get("shutdown") == "Terminate" and "suspend" not in spec

        realm.until(ended, "the late copy to be ended")
        realm.end_workflow(late, "Succeeded")
    assert replace(realm.runs.read(run), version="") == replace(first, version="")
    assert states(realm, run) == ["pending", "failure"]


def _resubmitted(realm, run, name="", **spec):
    """As `argo resubmit` does: labels, owner and arguments are copied, the name is another one."""
    found = realm.workflow(run)
    metadata = found["metadata"]
    name = name or f"{run}-x{len(realm.workflows())}"
    labels = {key: text for key, text in metadata["labels"].items() if not key.startswith(ARGO)}
    body = {
        "apiVersion": found["apiVersion"],
        "kind": "Workflow",
        "metadata": {
            "name": name,
            "ownerReferences": metadata["ownerReferences"],
            "labels": {**labels, f"{ARGO}resubmitted-from-workflow": run},
        },
        "spec": {**found["spec"], **spec},
    }
    realm.admin.create(path("workflows", realm.namespace), body)
    return name


@pytest.mark.parametrize("says", [True, False])
def test_argo_retry_becomes_a_retry_and_the_old_attempt_keeps_its_verdict(realm, brigade, says):
    """`says`: whether Argo wrote down who did it, as it does since 4.0."""
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.end_workflow(run, "Failed")
        realm.until_closed(run)
        _retried(realm, run, **({"action": "Retry", "actor": "ada"} if says else {}))
        realm.until(lambda: realm.workflow(run)["spec"].get("shutdown") == "Terminate", "the old one to be ended")
        realm.end_workflow(run, "Succeeded")
        realm.end_workflow(f"{run}-2")
        again = realm.until_run(
            run, lambda now: now.phase is Phase.CLOSED and len(now.state.attempts) == 2, "to close"
        )
    assert [one.verdict for one in again.state.attempts] == [Verdict.FAILED, Verdict.SUCCEEDED]
    (asked,) = again.acts
    assert (asked.kind, asked.who, asked.source, asked.follows) == (Kind.RETRY, "ada" if says else "", "argo", 1)


def _retried(realm, run, **labels):
    node = realm.workflow(run)["status"]["nodes"][run]
    body = {
        "metadata": {
            "labels": {f"{ARGO}completed": None, **{f"{ARGO}{key}": text for key, text in labels.items()}}
        },
        "status": {"phase": "", "nodes": {run: {**node, "phase": "Running"}}},
    }
    realm.admin.patch(path("workflows", realm.namespace, run), body)


def test_an_exit_event_that_can_never_be_fired_does_not_keep_the_run_open(realm, brigade, admin):
    """Its project is gone, and with it everything that could be built."""
    realm.pipeline()
    clock = LaterClock()
    with realm.controlled(clock=clock):
        run = realm.accept()
        realm.workflow(run)
        (project,) = [
            one["metadata"]["name"]
            for one in admin.get(path("secrets", realm.brigade_namespace), labelSelector="component=project")[
                "items"
            ]
        ]
        admin.delete(path("secrets", realm.brigade_namespace, project))
        realm.end_workflow(run, "Failed")
        realm.until(lambda: states(realm, run) == ["pending", "failure"], "its status")
        clock.later = 700.0
        ended = realm.until_closed(run)
    assert ended.verdict is Verdict.FAILED
    assert f"no project {PROJECT}" in ended.attempt.exit_error


def test_five_seconds_of_a_dead_api_server_cost_a_few_lines_and_nothing_else(realm, brigade, caplog):
    caplog.set_level(logging.INFO)
    realm.pipeline()
    with (
        Faults(realm.control_plane) as faults,
        realm.controlled(access=faults.of(realm.access())) as controller,
    ):
        runs = [realm.accept() for _ in range(20)]
        for run in runs:
            realm.workflow(run)
        realm.until(lambda: all(realm.runs.read(run).attempt.uid for run in runs), "all to be submitted")
        caplog.clear()
        with faults.down():
            for run in runs[:5]:
                realm.end_workflow(run)
            time.sleep(5)
        for run in runs[5:]:
            realm.end_workflow(run)
        for run in runs:
            assert realm.until_closed(run).verdict is Verdict.SUCCEEDED
        realm.until(controller.lease.held, "it to lead")
    lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.INFO]
    # A line when it begins and one when it is over, for each of six watches and the Lease, and of the runs one.
    assert len(lines) <= 16, "\n".join(lines)
    for run in runs:
        assert states(realm, run) == ["pending", "success"]


def test_the_process_leads_acts_and_lets_go_at_sigterm(realm, brigade):
    """`bridgectl controller`: statuses go to GitHub by the project's token; probes and metrics on its own port."""
    realm.pipeline()
    with FakeGitHub(tokens=["of-the-project"]) as github:
        secrets = path("secrets", realm.brigade_namespace)
        (project,) = realm.admin.get(secrets, labelSelector="component=project")["items"]
        where = f"{secrets}/{project['metadata']['name']}"
        realm.admin.patch(where, {"stringData": {"github.token": "of-the-project"}})
        process = realm.process(
            BRIDGE_GITHUB_API_URL=github.url, BRIDGE_PUBLIC_URL="https://ci.example.com", BRIDGE_LOG_LEVEL="info"
        )
        try:
            port = realm.until(lambda: re.search(r"probes and metrics on port (\d+)", realm.said()), "its port")[1]
            with urllib3.PoolManager(retries=False) as pool:

                def ask(what):
                    return pool.request("GET", f"http://127.0.0.1:{port}/{what}", timeout=60)

                realm.until(lambda: ask("readyz").status == 200, "it to be ready")
                assert ask("healthz").status == 200
                run = realm.accept()
                realm.end_workflow(run, "Failed")
                realm.until_closed(run)
                realm.until(lambda: "bridge_leading 1.0" in ask("metrics").data.decode(), "it to lead")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert [one.state for one in github.history] == ["pending", "failure"]
        assert github.history[-1].target_url == f"https://ci.example.com/runs/{run}"
    lines = realm.said().splitlines()
    assert all(json.loads(line)["event"] for line in lines)
    lease = realm.admin.get(path("leases", realm.places[Place.RELEASE], "bridge-controller"))
    assert not lease["spec"].get("holderIdentity"), "it let go"
    with pytest.raises(NotFound):
        realm.runs.read("another")
