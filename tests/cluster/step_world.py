"""Real step processes in a cluster, as the chart's ServiceAccount, and a Brigade that does what each event's name says."""

import base64
import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.projects import SecretProjects
from bridge.cluster.runs import SecretRuns
from bridge.core.events import Revision
from bridge.core.names import build_id, project_id
from bridge.core.runs import Attempt, Kind, with_attempt
from tests.cluster.accounts import grant
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.brigades import EndingPods, HandBrigade, HastyClock
from tests.cluster.client import ApiError, path
from tests.fakes import some_event, some_run
from tests.local.building import until

ROOT = Path(__file__).parents[2]
PROJECT = "acme/widgets"
STEP_IN_RUNS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
STEP_IN_BRIGADE = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list"]},
]
"""What the chart lets a step do (charts/bridge/templates/rbac.yaml)."""


class Brigade(HandBrigade):
    """A Brigade that looks after the builds of a namespace by itself; a context manager.

    By their event: `good` succeeds, `bad` fails, `nobody` has no handler, `lost` loses its pod, `later` succeeds once
    two others of its step are there and is lost before, `held` and all others go on until somebody ends them.
    """

    def __init__(self, admin, kubelet, namespace):
        super().__init__(admin.access.client(), kubelet, namespace)
        self.away = threading.Event()
        """Set: its controller looks at nothing."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(60)
        self.admin.close()

    def builds(self):
        """The builds' Secrets."""
        return self.admin.get(path("secrets", self.namespace), labelSelector="component=build")["items"]

    def data(self, build):
        """What a build's Secret holds."""
        found = self.secret(build)["data"]
        return {key: base64.b64decode(value) for key, value in found.items()}

    def wait_for(self, build):
        """Until it runs."""

        def runs():
            try:
                return self.pod(build)["status"].get("phase") == "Running"
            except ApiError:
                return False

        until(runs, what=f"build {build} to run")
        return build

    def _run(self):
        while not self._stopping.wait(0.05):
            with contextlib.suppress(ApiError):
                for secret in [] if self.away.is_set() else self.builds():
                    if secret["metadata"]["labels"].get("status") != "accepted":
                        self._play(secret)

    def _play(self, secret):
        build = secret["metadata"]["labels"]["build"]
        event = base64.b64decode(secret["data"]["event_type"]).decode()
        if event == "later":
            labels = secret["metadata"]["labels"]
            step = labels["bridge.brigade.sh/step"]
            event = "good" if build == one(step, 3) else "lost"
        self.start(build)
        if event == "good":
            self.end(build, 0, f"all is well with {build}")
        elif event == "bad":
            self.end(build, 1, f"it broke in {build}")
        elif event == "nobody":
            self.end(build, 0, "[brigade:app] no-after: fired")
        elif event == "lost":
            self.collect(build)


def one(step, number, *, run="r1", epoch=1):
    """The id of a build."""
    return build_id(run=run, epoch=epoch, step=step, number=number)


class StepProcess:
    """A process of a step that was started; its output is in files."""

    def __init__(self, argv, environment, folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = len([*folder.iterdir()])
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(argv, env=environment, stdout=out, stderr=err, cwd=ROOT)

    @property
    def out(self):
        return self._out.read_text()

    @property
    def err(self):
        return self._err.read_text()

    @property
    def log(self):
        """The worker's log that it has shown."""
        return "".join(line for line in self.out.splitlines(keepends=True) if not line.startswith("brig: "))

    def code(self):
        """Its exit code, at its end."""
        return self.process.wait(120)

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def wait_for(self, text):
        def has_said():
            assert self.process.poll() is None or text in self.out, f"it ended: {self.out}{self.err}"
            return text in self.out

        until(has_said, what=f"the step to say {text!r}")


class StepWorld:
    """A run `r1` in one namespace, its builds in another, and steps of it; a context manager."""

    def __init__(self, control_plane, admin, kubelet, namespaces, folder):
        self.control_plane = control_plane
        self.admin = admin
        self.namespace, self.brigade_namespace = namespaces
        self.folder = folder
        self.brigade = Brigade(admin, kubelet, self.brigade_namespace)
        self.api = api_of(control_plane.admin)
        self.runs = SecretRuns(self.api, self.namespace)
        projects = SecretProjects(self.api, self.brigade_namespace)
        self.builds = BrigadeBuilds(self.api, self.brigade_namespace, projects, clock=HastyClock)
        self._processes = []
        self._ending = EndingPods(self.brigade)

    def __enter__(self):
        self.make_project()
        self.record("r1")
        self.brigade.__enter__()
        self._ending.__enter__()
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        self._ending.__exit__()
        self.brigade.__exit__()
        self.api.close()

    def let(self, as_service_account):
        """Steps act as the chart's ServiceAccount from here on."""
        access = as_service_account("bridge-step", STEP_IN_RUNS, home=self.namespace)
        grant(self.admin, self.brigade_namespace, self.namespace, "bridge-step", STEP_IN_BRIGADE)
        self.kubeconfig = access.write_kubeconfig(self.folder / "kubeconfig")

    def make_project(self, name=PROJECT, **data):
        """A project's Secret, or what is said of it anew."""
        body = {
            "metadata": {
                "name": project_id(name),
                "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
                "annotations": {"projectName": name},
            },
            "type": "brigade.sh/project",
            "stringData": {"repository": f"github.com/{name}", **data},
        }
        with contextlib.suppress(ApiError):
            self.admin.delete(path("secrets", self.brigade_namespace, project_id(name)))
        self.admin.create(path("secrets", self.brigade_namespace), body)

    def record(self, run, *, commit="c" * 40):
        """A run of this commit of main, in its first attempt."""
        event = some_event(type="push", revision=Revision(commit, "refs/heads/main"))
        self.runs.create(some_run(run, event=event), b'{"a": 1}')
        self.begin(1, run=run)

    def begin(self, n, *, run="r1", kind=Kind.RETRY, epoch=1, steps=("test",)):
        """The record has one more attempt."""
        begun = Attempt(n, Kind.FIRST if n == 1 else kind, epoch, time.time(), steps=steps)
        self.runs.change(run, lambda found: with_attempt(found, begun))

    def environment(self, **told):
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(self.kubeconfig),
            "BRIDGE_BRIGADE_NAMESPACE": self.brigade_namespace,
            "BRIDGE_RUN": "r1",
            "BRIDGE_ATTEMPT": "1",
            "BRIDGE_STEP": "test",
            **told,
        }

    def start(self, *flags, module="bridge.step", **told):
        """`brig run`, as a process."""
        argv = [sys.executable, "-m", module, "run", *flags]
        process = StepProcess(argv, self.environment(**told), self.folder / "steps")
        self._processes.append(process)
        return process

    def made(self):
        """The names of all builds that were ever created, from the audit log."""
        created = audited(self.control_plane, self.brigade_namespace, verb="create", resource="secrets")
        return sorted(one.name for one in created if one.name.startswith("brigade-worker-") and one.code == 201)

    def endings(self, step="test"):
        """How the step's builds have ended, in order."""
        found = self.builds.find("r1", step=step)
        return [build.outcome.ending.value if build.outcome else build.phase.value for build in found]


@contextlib.contextmanager
def opened(request, folder):
    """A world made of a test's fixtures, whose steps act as the chart's ServiceAccount."""
    names = ("control_plane", "admin", "kubelet", "namespace", "make_namespace", "as_service_account")
    control_plane, admin, kubelet, namespace, make_namespace, as_service_account = map(
        request.getfixturevalue, names
    )
    with StepWorld(control_plane, admin, kubelet, (namespace, make_namespace()), folder) as world:
        world.let(as_service_account)
        yield world
