"""The chart installed with helm on the node, deliveries to its gateway, and Argo played by hand."""

import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import urllib3
import yaml

from bridge.cluster.runs import PHASE_LABEL, RUN_FIELDS, VERDICT_LABEL
from bridge.core.names import RUN_LABEL, project_id
from bridge.errors import Unavailable
from bridge.sending import send
from tests.chart.helming import CHART, RELEASE, helm
from tests.cluster.client import ApiError, Client, path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import socket_of
from tests.cluster.packages import program
from tests.node.images import Image
from tests.node.pods import make_pod

PROJECT = "acme/widgets"
SHARED_SECRET = "the-secret-of-the-hook"
COMMIT = "c" * 40
PIPELINE = "default"
READY_SECONDS = 240
ANSWER_SECONDS = 10
PAUSE_SECONDS = 0.3
"""Between two deliveries: an upgrade takes a minute or more, and what is tested does not need hundreds of runs."""


def chart_before(folder: Path) -> Path:
    """A chart of the version before this one. Until one is released that is this one under a lower number."""
    before = folder / "chart-before"
    shutil.copytree(CHART, before)
    about = yaml.safe_load((before / "Chart.yaml").read_text())
    (before / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    return before


@dataclass
class Release:
    """One release and its three namespaces."""

    control_plane: ControlPlane
    admin: Client
    image: Image
    home: str
    runs: str
    brigade: str

    def helm(self, act: str, *, chart: Path = CHART, image: Image | None = None) -> None:
        """`helm install` or `helm upgrade`."""
        repository, _, tag = (image or self.image).name.rpartition(":")
        values = {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "workflows": {"namespace": self.runs},
            "brigade": {"namespace": self.brigade},
        }
        options = ("--namespace", self.home)
        helm(act, RELEASE, str(chart), *options, values=values, kubeconfig=self.control_plane.kubeconfig)

    def uninstall(self) -> None:
        """Take it away again."""
        helm("uninstall", RELEASE, "--namespace", self.home, kubeconfig=self.control_plane.kubeconfig)

    def make_project(self) -> None:
        """A project that opts in to the default pipeline, as `brig project create` would leave it."""
        metadata = {
            "name": project_id(PROJECT),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
            "annotations": {"projectName": PROJECT, "bridge.brigade.sh/default-pipeline": "true"},
        }
        data = {"sharedSecret": SHARED_SECRET, "repository": f"github.com/{PROJECT}"}
        secret = {"metadata": metadata, "type": "brigade.sh/project", "stringData": data}
        self.admin.create(path("secrets", self.brigade), secret)

    def wait_until_ready(self) -> None:
        """Every pod of the newest rollout is Ready, and none of an older one is left."""

        def is_done() -> bool:
            return all(map(_is_rolled_out, self.admin.get(path("deployments", self.home))["items"]))

        self.eventually(is_done, "gateway and controller are Ready", READY_SECONDS)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods that run, oldest first."""
        wanted = f"app.kubernetes.io/component={component}"
        found = self.admin.get(path("pods", self.home), labelSelector=wanted)["items"]
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(alive, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def addresses(self) -> list[str]:
        """Of the gateway's pods that are Ready: what a Service would send requests to."""
        return [pod["status"]["podIP"] for pod in self.pods("gateway") if _is_ready(pod)]

    def leader(self) -> str:
        """Name of the controller's pod that leads; empty if none does yet."""
        try:
            lease = self.admin.get(path("leases", self.home, "bridge-controller"))
        except ApiError as refused:
            if refused.status != 404:
                raise
            return ""
        holder = lease["spec"].get("holderIdentity") or ""
        return next(
            (p["metadata"]["name"] for p in self.pods("controller") if holder.startswith(p["metadata"]["name"])),
            "",
        )

    def kill(self, name: str) -> None:
        """SIGKILL to the pod's process: nobody is told before, and the pod starts it again."""
        pod = self.admin.get(path("pods", self.home, name))
        (container,) = pod["status"]["containerStatuses"]
        identity = container["containerID"].removeprefix("containerd://")
        command = [program("ctr"), "--address", str(socket_of(self.control_plane.folder)), "--namespace", "k8s.io"]
        command += ["tasks", "kill", "--signal", "SIGKILL", "--all", identity]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def deliver(self, delivery: str = "") -> str:
        """A push, sent to whichever gateway is Ready until one has taken it: the run that it became."""
        delivery = delivery or str(uuid.uuid4())
        taken: list[str] = []

        def is_taken() -> bool:
            for address in self.addresses():
                url = f"http://{address}:8080/events/github"
                try:
                    status, answer = send(
                        url,
                        "push",
                        _push(),
                        secret=SHARED_SECRET,
                        delivery=delivery,
                        timeout_seconds=ANSWER_SECONDS,
                    )
                except Unavailable:
                    continue  # the pod has just gone: the next one, with the same delivery id
                if status == 202:
                    (run,) = answer["runs"]
                    taken.append(run["id"])
                    return True
                # A refusal for good (or "ignored") would be one of what is right.
                assert status in (429, 503), (status, answer)
            return False

        self.eventually(is_taken, f"delivery {delivery} is taken")
        return taken[0]

    def records(self) -> dict[str, dict[str, Any]]:
        """All records by name, their metadata."""
        found = self.admin.get(path("secrets", self.runs), fieldSelector=RUN_FIELDS)["items"]
        return {one["metadata"]["name"]: one["metadata"] for one in found}

    def workflows(self) -> dict[str, dict[str, Any]]:
        """All Workflows by name."""
        return {one["metadata"]["name"]: one for one in self.admin.get(path("workflows", self.runs))["items"]}

    def wait_for_workflow(self, run: str) -> dict[str, Any]:
        """The Workflow of this run's first attempt."""
        self.eventually(lambda: run in self.workflows(), f"{run} has a Workflow")
        found = self.workflows()[run]
        assert found["metadata"]["labels"][RUN_LABEL] == run
        assert found["spec"]["workflowTemplateRef"] == {"name": PIPELINE}
        return found

    def play_argo(self, workflow: str, phase: str) -> None:
        """What Argo's controller would write: the root node is in this phase."""
        times = {"startedAt": "2026-01-01T00:00:00Z"}
        if phase != "Running":
            times["finishedAt"] = "2026-01-01T00:01:00Z"
        step = f"{workflow}-1"
        root = {"id": workflow, "name": workflow, "displayName": workflow, "type": "DAG", "phase": phase}
        node = {
            "id": step,
            "name": f"{workflow}.event",
            "displayName": "event",
            "type": "Pod",
            "phase": phase,
            "templateName": "event",
            "boundaryID": workflow,
        }
        nodes = {workflow: {**root, "children": [step], **times}, step: {**node, **times}}
        status = {"phase": phase, "nodes": nodes, **times}
        self.admin.patch(path("workflows", self.runs, workflow), {"status": status})

    def wait_for_workflows(self, runs: Iterable[str]) -> None:
        """Each of these runs has its Workflow, and no other Workflow is there."""
        wanted = set(runs)
        self.eventually(
            lambda: set(self.workflows()) == wanted,
            lambda: f"each of {len(wanted)} runs has its Workflow; without {wanted ^ set(self.workflows())}",
            READY_SECONDS,
        )

    def play_brigade(self, script: str) -> None:
        """What Brigade's controller would do: a pod for the one build that there is, which runs this script."""
        builds: list[dict[str, Any]] = []

        def is_made() -> bool:
            found = self.admin.get(path("secrets", self.brigade), labelSelector="component=build")
            builds[:] = found["items"]
            return bool(builds)

        self.eventually(is_made, "the step has made a build")
        (build,) = builds
        name, labels = build["metadata"]["name"], build["metadata"]["labels"]
        command = ["sh", "-c", script]
        place = {"name": name, "labels": labels, "container_name": "brigade-runner"}
        make_pod(self.admin, self.brigade, self.image, command, **place)
        self.admin.patch(path("secrets", self.brigade, name), {"metadata": {"labels": {"status": "accepted"}}})

    def wait_until_closed(self, run: str, verdict: str) -> None:
        """The record says that the run has ended so."""

        def is_closed() -> bool:
            return self.records()[run]["labels"].get(PHASE_LABEL) == "closed"

        self.eventually(is_closed, f"{run} is closed")
        assert self.records()[run]["labels"].get(VERDICT_LABEL) == verdict

    def eventually(self, holds: Callable[[], bool], what: str | Callable[[], str], seconds: float = 120) -> None:
        """Wait until it holds; else say what the pods say."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                missing = what if isinstance(what, str) else what()
                raise AssertionError(f"not within {seconds} s: {missing}\n{self._said()}")
            time.sleep(0.2)

    def _said(self) -> str:
        """State and log of each pod."""
        said = []
        for pod in self.admin.get(path("pods", self.home))["items"]:
            name = pod["metadata"]["name"]
            try:
                answer = self.admin.stream(path("pods", self.home, name, "log"), tailLines=30)
                log = answer.read().decode(errors="replace")
                answer.close()
            except (ApiError, urllib3.exceptions.HTTPError) as failure:
                log = str(failure)
            said.append(f"--- {name}: {json.dumps(pod['status'].get('containerStatuses'))}\n{log[-3000:]}")
        events = self.admin.get(path("events", self.home))["items"]
        said += [f"{event['reason']}: {event['message']}" for event in events if event["type"] != "Normal"]
        return "\n".join(said)


@dataclass
class Deliveries:
    """Pushes sent one after the other by a thread of their own, until told to end. Use as a context manager."""

    release: Release
    runs: list[str] = field(default_factory=list)
    """Those that were taken, in order."""

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end.set()
        self._thread.join(READY_SECONDS)
        if self._failure and kind is None:
            raise self._failure

    def wait_for(self, more: int) -> None:
        """Until so many more have been taken than by now."""
        wanted = len(self.runs) + more
        self.release.eventually(
            lambda: bool(self._failure) or len(self.runs) >= wanted, f"{more} deliveries are taken"
        )

    def _send(self) -> None:
        # A client of its own: it is another thread.
        with self.release.control_plane.admin.client() as admin:
            release = Release(**{**self.release.__dict__, "admin": admin})
            try:
                while not self._end.wait(PAUSE_SECONDS):
                    self.runs.append(release.deliver())
            except BaseException as failure:
                self._failure = failure


def _push() -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "after": COMMIT,
        "deleted": False,
        "head_commit": {"id": COMMIT},
        "repository": {"full_name": PROJECT, "clone_url": f"https://example.com/{PROJECT}.git"},
        "sender": {"login": "ada"},
    }


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _is_rolled_out(deployment: dict[str, Any]) -> bool:
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    is_seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return is_seen and counts == [wanted] * 3
