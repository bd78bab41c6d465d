"""What each account does with each of its verbs: small pieces of its process's work, done by the product's own code.

A scenario takes a `Stage` and raises when the work was not done. With all that the chart gives it passes; with one verb
less it does not, and the only thing that was refused is that verb (test_verbs.py). docs/rbac.md says the same in words.
"""

import contextlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from bridge.cluster.api import LEASES
from bridge.cluster.diagnosis.argo import TASK_RESULTS
from bridge.cluster.tokens import TOKEN_AUDIENCE, ClusterCallers
from bridge.cluster.watched_runs import WatchedRuns
from bridge.core.builds import Ending
from bridge.core.names import RUN_LABEL, project_id
from bridge.core.runs import Act, Kind, Phase, Run, with_act
from bridge.core.steps import ExitCode, Options
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound
from bridge.exiting import _cluster_flow
from bridge.flows.reconciling import Reconciling
from bridge.flows.settling import settled
from bridge.flows.stepping import Key, Stepping
from bridge.ports import Caller, RunFilter
from bridge.web.app import create_app
from bridge.wiring.cluster_steps import ClusterFlags, Which, cluster_place
from bridge.wiring.controlling import LEASE_NAME, Controller, controller_of
from bridge.wiring.reporting import Unposted
from bridge.wsgi import cluster_gateway
from tests.chart.stages import PATIENCE_SECONDS, PIPELINE, SHARED_SECRET, Stage, until
from tests.cluster.brigades import HastyClock
from tests.cluster.client import path
from tests.local.building import seen

Scenario = Callable[[Stage], None]

PUSH = {
    "ref": "refs/heads/main",
    "after": "c" * 40,
    "before": "b" * 40,
    "created": False,
    "deleted": False,
    "head_commit": {"id": "c" * 40},
    "repository": {
        "full_name": "acme/widgets",
        "clone_url": "https://git.example.com/acme/widgets.git",
        "default_branch": "main",
    },
}


# ---- the gateway


def _gateway(stage: Stage):
    """The gateway of a cluster, once its caches are full."""
    for port in (stage.ports.projects, stage.ports.pipelines):
        port.start()
        until(port.cache.watching.synced.is_set, "a cache is full", port.cache.watching)
    return create_app(cluster_gateway(stage.settings, stage.ports)).test_client()


def _answered(answer, *statuses: int):
    assert answer.status_code in (statuses or (200,)), answer.data
    return answer


def delivery(stage: Stage) -> None:
    """A signed webhook is stored as a run."""
    body = json.dumps(PUSH).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": stage.account,
        "X-Hub-Signature-256": f"sha256={hmac.new(SHARED_SECRET.encode(), body, 'sha256').hexdigest()}",
    }
    client = _gateway(stage)
    (run,) = _answered(client.post("/events/github", data=body, headers=headers), 202).json["runs"]
    assert stage.as_admin.runs.read(run["id"]).pipeline == PIPELINE


def list_of_runs(stage: Stage) -> None:
    run = stage.run()
    found = _answered(_gateway(stage).get("/api/v1/runs?limit=1000")).json["runs"]
    assert run.id in {one["id"] for one in found}


def page_of_a_run(stage: Stage) -> None:
    """With a build whose worker's pod is not among those that its labels find."""
    run = stage.run(attempted=True)
    build = stage.build(run, started=False)
    stage.brigade.accept(build.id)
    assert _answered(_gateway(stage).get(f"/api/v1/runs/{run.id}")).json["id"] == run.id


def log_of_a_step(stage: Stage) -> None:
    run = stage.run(attempted=True)
    build = stage.build(run)
    stage.brigade.log(build.id).write("said by the worker")
    answer = _answered(_gateway(stage).get(f"/api/v1/runs/{run.id}/steps/event/log"))
    assert answer.data == b"said by the worker\n"


def log_of_a_build_that_was_given_up(stage: Stage) -> None:
    """Its pod is gone; the end of its log is on its Secret."""
    run = stage.run(attempted=True)
    build = stage.build(run)
    stage.brigade.log(build.id).write("said before the end")
    stage.as_admin.builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    answer = _answered(_gateway(stage).get(f"/api/v1/runs/{run.id}/steps/event/log"))
    assert b"said before the end" in answer.data


def cancel_by_a_person(stage: Stage) -> None:
    run = stage.run(attempted=True)
    headers = {"Authorization": "Bearer token-of-somebody"}
    _answered(_gateway(stage).post(f"/api/v1/runs/{run.id}/cancel", headers=headers), 202)
    assert [act.kind for act in stage.as_admin.runs.read(run.id).acts] == [Kind.CANCEL]


def new_runs_are_seen(stage: Stage) -> None:
    """Lists of a gateway come from its watch."""
    ports = stage.ports
    runs = WatchedRuns(ports.api, ports.namespace, ports.runs)
    runs.start()
    stage.later(runs.stop)
    until(runs.watching.synced.is_set, "the runs are listed", runs.watching)
    run = stage.run()
    until(
        # Without the watch it would be listed by itself.
        lambda: runs.watching.healthy and [one.id for one in runs.list(RunFilter(search=run.id))] == [run.id],
        "a new run is seen",
        runs.watching,
    )


def new_pipelines_are_seen(stage: Stage) -> None:
    pipelines = stage.ports.pipelines
    pipelines.start()
    until(pipelines.cache.watching.synced.is_set, "the pipelines are listed", pipelines.cache.watching)
    template = _another_pipeline(stage)
    name = template["metadata"]["name"]
    until(lambda: pipelines.cache.get(name) is not None, "a new pipeline is seen", pipelines.cache.watching)


def new_projects_are_seen(stage: Stage) -> None:
    projects = stage.ports.projects
    projects.start()
    until(projects.cache.watching.synced.is_set, "the projects are listed", projects.cache.watching)
    name = _another_project(stage)
    until(
        lambda: projects.cache.get(project_id(name)) is not None, "a new project is seen", projects.cache.watching
    )


def token_of_a_step_is_checked(stage: Stage) -> None:
    """A step's pod asks for its run's GitHub token, and shows whose it is by its projected token."""
    labels = {RUN_LABEL: f"run-of-{stage.account}"}
    spec = {"serviceAccountName": "bridge-step", "containers": [{"name": "main", "image": "none"}]}
    pods, name = path("pods", stage.place.runs), f"step-{stage.account}"
    pod = stage.admin.create(pods, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    stage.later(lambda: stage.admin.delete(f"{pods}/{name}", gracePeriodSeconds=0))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod["metadata"]["uid"]}
    asked = {"spec": {"audiences": [TOKEN_AUDIENCE], "boundObjectRef": bound, "expirationSeconds": 600}}
    token = stage.admin.create(path("serviceaccounts", stage.place.runs, "bridge-step", "token"), asked)["status"][
        "token"
    ]
    caller = ClusterCallers(stage.ports.api, stage.place.runs).caller(token)
    assert caller == Caller(f"{stage.place.runs}:bridge-step", labels[RUN_LABEL])


# ---- the controller


def _controller(stage: Stage) -> Controller:
    """The controller's process, not yet begun."""
    return controller_of(stage.settings, stage.ports.api, reports_of=lambda *_: Unposted())


def _flow(stage: Stage, **changes) -> Reconciling:
    """The controller's flow, without its Lease; the projects are known."""
    ports = stage.ports
    ports.projects.start()
    until(ports.projects.cache.watching.synced.is_set, "the projects are listed", ports.projects.cache.watching)
    known = Reconciling(ports.runs, ports.pipelines, ports.engine, ports.builds, Unposted(), ports.clock)
    return replace(known, **changes)


def _submitted(stage: Stage) -> Run:
    """A run whose Workflow somebody else has submitted."""
    run = stage.run()
    ports = stage.as_admin
    flow = Reconciling(ports.runs, ports.pipelines, ports.engine, ports.builds, Unposted(), ports.clock)
    run = flow.reconcile(run.id)
    assert run.attempt.uid
    return run


def _set_root(stage: Stage, run: Run, phase: str) -> None:
    """What Argo says of the entrypoint; of a failed one the exit handler is still to come."""
    root = {
        "id": run.id,
        "name": run.id,
        "displayName": run.id,
        "type": "DAG",
        "templateName": "main",
        "templateScope": "",
        "phase": phase,
        "startedAt": None,
        "finishedAt": None,
    }
    status = {"phase": "Running", "nodes": {run.id: root}, "startedAt": None, "finishedAt": None}
    stage.admin.patch(path("workflows", stage.place.runs, run.id), {"status": status})


def election(stage: Stage) -> None:
    """A controller makes the Lease, and renews it."""
    with contextlib.suppress(NotFound):
        stage.as_admin.api.delete(LEASES, stage.place.home, LEASE_NAME)
    lease = _controller(stage).lease
    # The tests' machine is loaded, and this is not about patience.
    lease._api = lease._api.within(PATIENCE_SECONDS)
    assert lease.attempt()
    assert lease.attempt()


def new_records_are_seen(stage: Stage) -> None:
    index = _controller(stage).index
    stage.later(index.stop)
    index.start()
    until(index.cache.watching.synced.is_set, "the records are listed", index.cache.watching)
    run = stage.run()
    until(lambda: run.id in index.open(), "a new record is seen", index.cache.watching)


def _changes_wake(resource: str) -> Scenario:
    def scenario(stage: Stage) -> None:
        controller = _controller(stage)
        (watching,) = [one for one in controller._watches if one._resource.plural == resource]
        stage.later(watching.stop)
        watching.start()
        until(watching.synced.is_set, f"{resource} are listed", watching)
        run = _submitted(stage) if resource == "workflows" else stage.run(attempted=True)
        if resource != "workflows":
            stage.build(run)
        until(lambda: run.id in controller.loop._woken, f"new {resource} wake their run", watching)

    scenario.__name__ = f"changes_of_{resource}_are_seen"
    return scenario


workflows_are_seen = _changes_wake("workflows")
builds_are_seen = _changes_wake("secrets")
pods_are_seen = _changes_wake("pods")


def submission(stage: Stage) -> None:
    """An accepted run gets its first attempt and that its Workflow."""
    run = stage.run()
    _flow(stage).reconcile(run.id)
    assert stage.as_admin.engine.observe(stage.as_admin.runs.read(run.id), 1) is not None


def ending(stage: Stage) -> None:
    """The Workflow of a cancelled run is told to end."""
    run = _submitted(stage)
    _set_root(stage, run, "Running")
    cancel = Act(Kind.CANCEL, "r1", 1, at=time.time())
    stage.as_admin.runs.change(run.id, lambda now: with_act(now, cancel))
    _flow(stage).reconcile(run.id)
    assert stage.admin.get(path("workflows", stage.place.runs, run.id))["spec"]["shutdown"] == "Terminate"


def build_failed(stage: Stage) -> None:
    """A failed attempt fires its exit event."""
    run = _submitted(stage)
    _set_root(stage, run, "Failed")
    _flow(stage).reconcile(run.id)
    assert [build.step for build in stage.as_admin.builds.find(run.id)] == ["exit.1"]


def giving_up(stage: Stage) -> None:
    """A build that still runs is ended: its tombstone, the end of its log, its worker, its jobs."""
    run = stage.run(attempted=True)
    build = stage.build(run)
    stage.brigade.make_job(build.id)
    stage.brigade.log(build.id).write("said before the end")
    stage.ports.builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    until(lambda: not [pod for pod in stage.brigade.pods() if build.id in pod], "the pods are gone")
    (ended,) = stage.as_admin.builds.find(run.id)
    assert stage.as_admin.builds.log(ended) == "said before the end\n"


def settlement(stage: Stage) -> None:
    """What a build that has ended came to is read from its log and written down."""
    run = stage.run(attempted=True)
    build = stage.build(run)
    stage.brigade.end(build.id, 0, "done")
    ended = seen(stage.as_admin.builds, build.id, run=run.id)
    assert settled(ended, stage.ports.builds, now=time.time()).ending is Ending.SUCCEEDED
    assert seen(stage.as_admin.builds, build.id, run=run.id).outcome is not None


def retention(stage: Stage) -> None:
    """A closed run is forgotten with its Workflow, builds, pods and volumes."""
    run = _submitted(stage)
    build = stage.build(run)
    stage.brigade.make_volume(build.id)
    closed = stage.as_admin.runs.change(
        run.id, lambda now: replace(now, phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED, closed=time.time() - 10)
    )
    _flow(stage, retention_seconds=0.0).forget_old(closed.id)
    for kind, namespace, name in (
        ("secrets", stage.place.runs, run.id),
        ("workflows", stage.place.runs, run.id),
        ("secrets", stage.place.brigade, f"brigade-worker-{build.id}"),
        ("persistentvolumeclaims", stage.place.brigade, f"brigade-worker-{build.id}"),
    ):
        left = stage.admin.get(path(kind, namespace))["items"]
        assert name not in {
            one["metadata"]["name"] for one in left if "deletionTimestamp" not in one["metadata"]
        }, f"{kind} {name}"


# ---- steps and exit handlers


def _place(stage: Stage, run: Run):
    which = Which(run.id, 1, "event")
    environment = {
        "BRIDGE_KUBECONFIG": str(stage.settings.kubeconfig),
        "BRIDGE_NAMESPACE": stage.place.runs,
        "BRIDGE_BRIGADE_NAMESPACE": stage.place.brigade,
    }
    place = cluster_place(which, ClusterFlags(), environment)
    stage.later(place.api.close)
    _be_patient(place.api)
    return place


def _be_patient(api) -> None:
    api._timeout_seconds, api._connect_timeout_seconds = PATIENCE_SECONDS, 30.0


@contextlib.contextmanager
def _working(stage: Stage, run: Run) -> Iterator[None]:
    """Brigade starts each build of a run, and its worker succeeds."""
    stopping = threading.Event()

    def work() -> None:
        done = set()
        while not stopping.wait(0.05):
            for build in stage.as_admin.builds.find(run.id):
                if build.id not in done:
                    done.add(build.id)
                    stage.brigade.start(build.id)
                    stage.brigade.end(build.id, 0, "done")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(PATIENCE_SECONDS)


def step(stage: Stage) -> None:
    """`brig run`: a build is made, followed to its end and written down."""
    run = stage.run(attempted=True)
    place = _place(stage, run)
    shown: list[bytes] = []
    with _working(stage, run):
        stepping = Stepping(place.runs(), place.builds(), HastyClock, shown.append, lambda _line: None)
        answer = stepping.answer(Key(run.id, 1, "event"), Options(events=(), tries=1))
    assert answer.code is ExitCode.SUCCEEDED, answer
    assert b"".join(shown) == b"done\n"


def timed_out_step(stage: Stage) -> None:
    """A step gives up a build that took too long."""
    run = stage.run(attempted=True)
    build = stage.build(run)
    _place(stage, run).builds().give_up(build, reason="timed out", ending=Ending.TIMED_OUT)
    until(lambda: not [pod for pod in stage.brigade.pods() if build.id in pod], "the pod is gone")


def exit_handler(stage: Stage) -> None:
    """`bridgectl exit`: the attempt's end goes into the record, and `build_failed` is fired."""
    run = _submitted(stage)
    _set_root(stage, run, "Failed")
    flow = _cluster_flow(stage.settings)
    _be_patient(flow.runs._api)
    flow.exit(run.id)
    assert stage.as_admin.runs.read(run.id).attempt.verdict is Verdict.ERROR
    assert [build.step for build in stage.as_admin.builds.find(run.id)] == ["exit.1"]


def executor(stage: Stage) -> None:
    """Argo's executor in the pod tells what came of it."""
    name = stage.account
    body = {
        "apiVersion": TASK_RESULTS.api_version,
        "kind": TASK_RESULTS.kind,
        "metadata": {"name": name},
    }
    stage.api.create(TASK_RESULTS, stage.place.runs, body)
    stage.api.patch(TASK_RESULTS, stage.place.runs, name, {"metadata": {"labels": {"example.com/a": "b"}}})


def _another_pipeline(stage: Stage):
    template = stage.admin.get(path("workflowtemplates", stage.place.runs, PIPELINE))
    metadata = {"name": f"other-{stage.account}", "annotations": template["metadata"]["annotations"]}
    other = {"metadata": metadata, "spec": template["spec"]}
    # Of no project, so that it changes nothing for others.
    metadata["annotations"] = {**metadata["annotations"], "bridge.brigade.sh/projects": "nobody/nothing"}
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", **other}
    created = stage.admin.create(path("workflowtemplates", stage.place.runs), body)
    stage.later(lambda: stage.admin.delete(path("workflowtemplates", stage.place.runs, metadata["name"])))
    return created


def _another_project(stage: Stage) -> str:
    name = f"acme/{stage.account}"
    metadata = {
        "name": project_id(name),
        "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
        "annotations": {"projectName": name},
    }
    stage.admin.create(path("secrets", stage.place.brigade), {"metadata": metadata, "type": "brigade.sh/project"})
    stage.later(lambda: stage.admin.delete(path("secrets", stage.place.brigade, project_id(name))))
    return name


RUNS, BRIGADE, RELEASE, CLUSTER = "Workflows", "Brigade", "release", "cluster"

SCENARIOS: dict[tuple[str, str, str], dict[str, Scenario]] = {
    ("bridge-gateway", RUNS, "secrets"): {
        "get": page_of_a_run,
        "list": list_of_runs,
        "watch": new_runs_are_seen,
        "create": delivery,
        "patch": cancel_by_a_person,
    },
    ("bridge-gateway", RUNS, "workflowtemplates.argoproj.io"): {
        "list": delivery,
        "watch": new_pipelines_are_seen,
    },
    ("bridge-gateway", RUNS, "pods"): {"get": token_of_a_step_is_checked},
    ("bridge-gateway", BRIGADE, "secrets"): {
        "get": log_of_a_build_that_was_given_up,
        "list": delivery,
        "watch": new_projects_are_seen,
    },
    ("bridge-gateway", BRIGADE, "pods"): {"get": page_of_a_run, "list": page_of_a_run},
    ("bridge-gateway", BRIGADE, "pods/log"): {"get": log_of_a_step},
    ("bridge-gateway", CLUSTER, "tokenreviews.authentication.k8s.io"): {"create": token_of_a_step_is_checked},
    ("bridge-controller", RELEASE, "leases.coordination.k8s.io"): {
        "get": election,
        "create": election,
        "patch": election,
    },
    ("bridge-controller", RUNS, "secrets"): {
        "get": submission,
        "list": new_records_are_seen,
        "watch": new_records_are_seen,
        "patch": submission,
        "delete": retention,
    },
    ("bridge-controller", RUNS, "workflowtemplates.argoproj.io"): {
        "get": submission,
        "list": new_pipelines_are_seen,
        "watch": new_pipelines_are_seen,
    },
    ("bridge-controller", RUNS, "workflows.argoproj.io"): {
        "get": submission,
        "list": workflows_are_seen,
        "watch": workflows_are_seen,
        "create": submission,
        "patch": ending,
        "delete": retention,
    },
    ("bridge-controller", BRIGADE, "secrets"): {
        "get": settlement,
        "list": new_projects_are_seen,
        "watch": builds_are_seen,
        "create": build_failed,
        "patch": settlement,
        "delete": retention,
    },
    ("bridge-controller", BRIGADE, "pods"): {
        "get": giving_up,
        "list": pods_are_seen,
        "watch": pods_are_seen,
        "delete": giving_up,
    },
    ("bridge-controller", BRIGADE, "pods/log"): {"get": settlement},
    ("bridge-controller", BRIGADE, "persistentvolumeclaims"): {"get": build_failed, "delete": retention},
    ("bridge-step", RUNS, "secrets"): {"get": step, "patch": exit_handler},
    ("bridge-step", RUNS, "workflowtemplates.argoproj.io"): {"get": exit_handler},
    ("bridge-step", RUNS, "workflows.argoproj.io"): {"get": exit_handler},
    ("bridge-step", RUNS, "workflowtaskresults.argoproj.io"): {"create": executor, "patch": executor},
    ("bridge-step", BRIGADE, "secrets"): {"get": step, "list": step, "create": step, "patch": step},
    ("bridge-step", BRIGADE, "pods"): {"get": timed_out_step, "list": step, "delete": timed_out_step},
    ("bridge-step", BRIGADE, "pods/log"): {"get": step},
    ("bridge-step", BRIGADE, "persistentvolumeclaims"): {"get": step, "list": step},
    ("bridge-native", RUNS, "workflowtaskresults.argoproj.io"): {"create": executor, "patch": executor},
}
