"""A world for the real controller: the chart's three namespaces and accounts, a project, pipelines, a Brigade that plays along."""

import contextlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any, Self

from bridge.clocks import SystemClock
from bridge.cluster.runs import SecretRuns
from bridge.core.events import Revision
from bridge.core.names import RUN_LABEL, STEP_LABEL, is_exit_step, project_id
from bridge.core.permissions import CONTROLLER, Account, Place, Right, rights_of
from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.runs import Phase, Run
from bridge.core.workflows import workflow_template
from bridge.ports import Reports
from bridge.settings import Settings, load
from bridge.wiring.controlling import Controller, controller_of
from tests.cluster.accounts import create_account, grant, token_of
from tests.cluster.apis import api_of
from tests.cluster.brigades import EndingPods, HandBrigade
from tests.cluster.client import Access, ApiError, Client, path
from tests.cluster.control_plane import ControlPlane, _die_with_parent
from tests.cluster.kubelet import FakeKubelet
from tests.fakes import FakeReports, some_event, some_run

PATIENCE_SECONDS = 180.0
PROJECT = "acme/widgets"
ROOT = Path(__file__).parents[2]


class LaterClock(SystemClock):
    """The machine's time, and as much later as a test says."""

    def __init__(self) -> None:
        self.later = 0.0

    def now(self) -> float:
        return super().now() + self.later

    def monotonic(self) -> float:
        return super().monotonic() + self.later


class Realm:
    """Where a controller works. Use it as a context manager.

    Args:
        control_plane: the API server.
        admin: who may do everything.
        make_namespace: makes a fresh one.
        folder: for logs and kubeconfigs.

    """

    def __init__(
        self, control_plane: ControlPlane, admin: Client, make_namespace: Callable[..., str], folder: Path
    ) -> None:
        self.control_plane = control_plane
        self.admin = admin
        self.folder = folder
        self.namespace = make_namespace()
        """Of records and Workflows."""
        self.places = {
            Place.RELEASE: make_namespace(),
            Place.RUNS: self.namespace,
            Place.BRIGADE: make_namespace(),
        }
        self.brigade_namespace = self.places[Place.BRIGADE]
        self.api = api_of(control_plane.admin)
        self.runs = SecretRuns(self.api, self.namespace)
        """As the admin: what a gateway and people do."""
        self.reports = FakeReports()
        self._accounts: set[str] = set()
        self._accounts_lock = threading.Lock()
        admin.create(path("secrets", self.brigade_namespace), _project())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def pipeline(
        self, name: str = "push", *steps: str, timeout_seconds: float = 600.0, exits: Exit | None = None
    ) -> str:
        """A pipeline with these steps, one after the other."""
        names = steps or ("test",)
        made = tuple(
            Step(step, events=(step,), needs=names[number - 1 : number] if number else ())
            for number, step in enumerate(names)
        )
        pipeline = Pipeline(
            name, (PROJECT,), (Trigger("push"),), made, exit=exits or Exit(), timeout_seconds=timeout_seconds
        )
        self.admin.create(path("workflowtemplates", self.namespace), workflow_template(pipeline))
        return name

    def accept(self, name: str = "", *, pipeline: str = "push", payload: bytes = b"{}", **changes: Any) -> str:
        """Store a record, as a gateway does; its id."""
        run_id = name or f"{pipeline}-{uuid.uuid4().hex[:12]}"
        known = {
            "pipeline": pipeline,
            "context": f"bridge/{pipeline}/push",
            "accepted": time.time(),
            # A commit each: of several runs with one commit only the newest posts.
            "event": some_event(
                delivery=run_id,
                payload=b"",
                revision=Revision(sha1(run_id.encode(), usedforsecurity=False).hexdigest(), "refs/heads/main"),
            ),
        }
        self.runs.create(some_run(run_id, **{**known, **changes}), payload)
        return run_id

    def access(self, account: Account = CONTROLLER) -> Access:
        """Whoever holds a fresh token of this account, which may do what the chart lets it."""
        home = self.places[account.home]
        with self._accounts_lock:
            if account.name not in self._accounts:
                create_account(self.admin, home, account.name)
                for right in rights_of(account):
                    if right.place is not Place.CLUSTER:
                        grant(self.admin, self.places[right.place], home, account.name, [_rule(right)])
                self._accounts.add(account.name)
        return self.control_plane.access(token_of(self.admin, home, account.name), home)

    def settings(self, **more: Any) -> Settings:
        """A controller's."""
        known = {
            "namespace": self.namespace,
            "brigade_namespace": self.brigade_namespace,
            "lease_namespace": self.places[Place.RELEASE],
            "resync_seconds": 2.0,
        }
        return load(**{**known, **more})

    def environment(self, access: Access, **more: str) -> dict[str, str]:
        """Of a process that is who this access says, in this world."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BRIDGE_", "BRIGADE_", "KUBE")) or name == "BRIDGE_NO_SKIPS"
        }
        kubeconfig = access.write_kubeconfig(self.folder / f"kubeconfig-{uuid.uuid4().hex[:8]}")
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "BRIDGE_KUBECONFIG": str(kubeconfig),
            "BRIDGE_NAMESPACE": self.namespace,
            "BRIDGE_BRIGADE_NAMESPACE": self.brigade_namespace,
            "BRIDGE_LEASE_NAMESPACE": self.places[Place.RELEASE],
            "BRIDGE_RESYNC_SECONDS": "2",
            "BRIDGE_CONTROLLER_HOST": "127.0.0.1",
            "BRIDGE_CONTROLLER_PORT": "0",
            **more,
        }

    @contextlib.contextmanager
    def controlled(
        self,
        *,
        access: Access | None = None,
        identity: str = "",
        clock: SystemClock | None = None,
        reports: Reports | None = None,
        **settings: Any,
    ) -> Iterator[Controller]:
        """A controller in this process, in a thread; its statuses go to the realm's `reports`, or to these."""
        api = api_of(access or self.access(), timeout_seconds=10.0)
        controller = controller_of(
            self.settings(**settings),
            api,
            identity=identity,
            clock=clock,
            reports_of=lambda *_: reports or self.reports,
        )
        stop = threading.Event()
        thread = threading.Thread(target=controller.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield controller
        finally:
            stop.set()
            controller.loop.wake("")
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
            api.close()

    def process(self, *argv: str, log: str = "controller.log", **variables: str) -> subprocess.Popen[bytes]:
        """`bridgectl controller`, or the module that `argv` begins with; its output goes to a file of this name."""
        command = argv or ("bridge.cli", "controller")
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", *command],
                env=self.environment(self.access(), **variables),
                stdout=file,
                stderr=file,
                cwd=ROOT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )

    def said(self, log: str = "controller.log") -> str:
        """The output so far."""
        return (self.folder / log).read_text(errors="replace")

    def workflows(self) -> dict[str, dict[str, Any]]:
        """All Workflows by name."""
        found = self.admin.get(path("workflows", self.namespace))["items"]
        return {one["metadata"]["name"]: one for one in found}

    def workflow(self, name: str) -> dict[str, Any]:
        """A Workflow, waited for."""

        def there() -> dict[str, Any] | None:
            with contextlib.suppress(ApiError):
                return self.admin.get(path("workflows", self.namespace, name))
            return None

        return self.until(there, f"Workflow {name} to be there")

    def end_workflow(self, name: str, phase: str = "Succeeded", **node: Any) -> None:
        """Argo ends a Workflow of one step, as the step's pod did."""
        self.workflow(name)
        root = {
            "id": name,
            "name": name,
            "displayName": name,
            "type": "DAG",
            "phase": phase,
            "templateName": "main",
        }
        step = {"id": f"{name}-1", "name": f"{name}.test", "displayName": "test", "type": "Pod", "phase": phase}
        said = {"boundaryID": name, "outputs": {"exitCode": "0" if phase == "Succeeded" else "2"}, **node}
        nodes = {name: root, f"{name}-1": {**step, "templateName": "test", **said}}
        for one in nodes.values():
            one.update({"templateScope": "", "startedAt": None, "finishedAt": None})
        status = {"phase": phase, "nodes": nodes, "startedAt": None, "finishedAt": None}
        labels = {"workflows.argoproj.io/completed": "true", "workflows.argoproj.io/phase": phase}
        body = {"metadata": {"labels": labels}, "status": status}
        self.admin.patch(path("workflows", self.namespace, name), body)

    def until(self, holds: Callable[[], Any], what: str, *, seconds: float = PATIENCE_SECONDS) -> Any:
        """Look until it holds; answers what it answered."""
        deadline = time.monotonic() + seconds
        while not (answer := holds()):
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
            time.sleep(0.02)
        return answer

    def until_run(self, run_id: str, holds: Callable[[Run], Any], what: str) -> Run:
        """The run, as soon as something holds of it."""

        def held() -> Run | None:
            run = self.runs.read(run_id)
            return run if holds(run) else None

        try:
            return self.until(held, f"{run_id}: {what}")
        except AssertionError as failed:
            raise AssertionError(f"{failed}; it is {self.runs.read(run_id)}") from None

    def until_closed(self, run_id: str) -> Run:
        return self.until_run(run_id, lambda run: run.phase is Phase.CLOSED, "to be closed")


class PlayingBrigade:
    """A Brigade that starts every build, and ends those of exit events at once and those of steps as it is told.

    Use it as a context manager.
    """

    def __init__(self, admin: Client, kubelet: FakeKubelet, namespace: str) -> None:
        self.hand = HandBrigade(admin, kubelet, namespace)
        self._ending = EndingPods(self.hand)
        self._fates: dict[tuple[str, str], int] = {}
        self._done: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> Self:
        self._ending.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_SECONDS)
        self._ending.__exit__()

    def end(self, run: str, step: str, code: int) -> None:
        """The builds of this step that run, or will, end with this code."""
        self._fates[run, step] = code

    def builds(self, run: str = "") -> list[Mapping[str, Any]]:
        """The metadata of the build Secrets, those of exit events as well."""
        selector = "component=build,heritage=brigade" + (f",{RUN_LABEL}={run}" if run else "")
        found = self.hand.admin.get(path("secrets", self.hand.namespace), labelSelector=selector)["items"]
        return [one["metadata"] for one in found]

    def _play(self) -> None:
        while not self._stopping.wait(0.05):
            for metadata in self.builds():
                with contextlib.suppress(ApiError):  # somebody gave it up meanwhile
                    self._look(metadata)

    def _look(self, metadata: Mapping[str, Any]) -> None:
        labels = metadata["labels"]
        one, run, step = labels["build"], labels.get(RUN_LABEL, ""), labels.get(STEP_LABEL, "")
        if one in self._done:
            return
        if labels.get("status") != "accepted":
            self.hand.start(one)
            labels = {**labels, "status": "accepted"}
        code = 0 if is_exit_step(step) else self._fates.get((run, step))
        if code is not None:
            self.hand.end(one, code, "done" if code == 0 else "it failed")
            self._done.add(one)


def _rule(right: Right) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
    return {**rule, "resourceNames": [right.name]} if right.name else rule


def _project() -> dict[str, Any]:
    return {
        "metadata": {
            "name": project_id(PROJECT),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
            "annotations": {"projectName": PROJECT},
        },
        "type": "brigade.sh/project",
        "stringData": {"sharedSecret": "s", "cloneURL": "https://git.example.com/acme/widgets.git"},
    }
