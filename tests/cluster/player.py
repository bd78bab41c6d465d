"""Plays what a real Argo did (tests/recordings) onto Workflows of the real API server, under the real controller.

A recording's names become the run's. Where a step's pod ran in it, a real step process of the run does, which ends as that pod
did; what people did in it (stop, suspend, delete) is done. When the recording is over and the Workflow has not ended, it does
what the facts say that a real one does when it is told to end (facts/argo.md).
"""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.core.names import workflow_name
from bridge.core.permissions import STEP
from tests import recorded
from tests.cluster.client import ApiError, path
from tests.cluster.controlled import PATIENCE_SECONDS, ROOT, PlayingBrigade, Realm

ARGO = "workflows.argoproj.io/"
FINALIZER = "tests.example.com/held"
ENDED = frozenset({"Succeeded", "Failed", "Error"})
LIVE = frozenset({"Pending", "Running"})
_TRY = re.compile(r"(?P<step>.+)\(\d+\)")

TOUCH, STOP, TERMINATE, NOTHING = "touch", "stop", "terminate", "nothing"
ENDS_BY = {
    # The deadline is noticed as soon as the controller looks.
    "unschedulable": TOUCH,
    "unschedulable-pendingtimeout": TOUCH,
    "secret-missing": TOUCH,
    "suspended-before-start": STOP,
    "suspended-midway": STOP,
    "suspended-then-stop": STOP,
}
"""What it takes to end a Workflow that the recording leaves running; else Terminate."""
FATES = {
    # It had ended well when its pod was deleted, while nobody looked.
    ("controller-down-pod-finished-and-deleted", "build(0)"): ("0", 0),
    # A step of an attempt that has its verdict makes no build, and says so.
    ("argo-retry", "build(0)"): ("itself", 75),
}
"""How a step's process ends where the recording does not say it, and the code that it ends with."""


@dataclass(frozen=True)
class Event:
    """One watch event of a recording."""

    type: str
    labels: Mapping[str, str]
    shutdown: str | None
    suspend: bool | None
    deleting: bool
    status: Mapping[str, Any]

    @property
    def pods(self) -> dict[str, Mapping[str, Any]]:
        """The pods of steps by their display names: those that Argo may try again, so not native ones."""
        nodes = (self.status.get("nodes") or {}).values()
        return {
            one["displayName"]: one for one in nodes if one["type"] == "Pod" and _TRY.fullmatch(one["displayName"])
        }

    @property
    def exit_phase(self) -> str:
        """Of the exit handler's pod; empty if there is none."""
        nodes = (self.status.get("nodes") or {}).values()
        return next((one["phase"] for one in nodes if one["displayName"].endswith(".onExit")), "")


@dataclass
class Recording:
    """What happened to one Workflow."""

    name: str
    events: list[Event]
    steps: tuple[str, ...]

    def fate(self, pod: str) -> tuple[str, int]:
        """How a step's process comes to its end, and the code that it ends with."""
        if (self.name, pod) in FATES:
            return FATES[self.name, pod]
        last = next(event.pods[pod] for event in reversed(self.events) if pod in event.pods)
        code = str((last.get("outputs") or {}).get("exitCode", ""))
        if "deadline" in last.get("message", ""):
            return "SIGTERM", 75
        return {"0": ("0", 0), "2": ("2", 2), "137": ("SIGKILL", -signal.SIGKILL)}.get(code, ("SIGTERM", 75))

    def ran(self, pod: str) -> bool:
        """Whether a step's process ran in this pod."""
        seen = [event.pods[pod] for event in self.events if pod in event.pods]
        return any(one["phase"] == "Running" or "exitCode" in (one.get("outputs") or {}) for one in seen)


def recording(name: str, *, called: str) -> Recording:
    """A recording, in which the Workflow has this name."""
    found = recorded.recorded("argo", name)
    before = found[0]["object"]["metadata"]["name"]
    text = json.dumps(found).replace(before, called)
    events = [_event(one) for one in json.loads(text)]
    return Recording(name, events, _steps(events, called))


def _event(one: Mapping[str, Any]) -> Event:
    metadata, spec = one["object"]["metadata"], one["object"]["spec"]
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key.startswith(ARGO)}
    deleting = "deletionTimestamp" in metadata
    return Event(
        one["type"], labels, spec.get("shutdown"), spec.get("suspend"), deleting, one["object"].get("status") or {}
    )


def _steps(events: Sequence[Event], root: str) -> tuple[str, ...]:
    nodes = [node for event in events for node in (event.status.get("nodes") or {}).values()]
    names = {
        one["displayName"]: None
        for one in nodes
        if one.get("boundaryID") == root and not _TRY.fullmatch(one["displayName"]) and one["type"] != "StepGroup"
    }
    return tuple(names) or ("build",)


@dataclass
class Player:
    """Plays one recording for one attempt of a run.

    Args:
        realm: the controller's world.
        brigade: ends the builds of steps.
        recording: what to play.
        run: whose Workflow it is; bridge submits it.
        order: the events to play, by number; all of them in their order if empty.
        steps: start step processes.
        exits: start a real exit handler where Argo started one, beside the controller.
        obeys: when it is over, a Workflow that goes on ends as it is told.
        before: what to wait for before an event, by number.

    """

    realm: Realm
    brigade: PlayingBrigade
    recording: Recording
    run: str
    order: Sequence[int] = ()
    steps: bool = True
    exits: bool = False
    obeys: bool = True
    before: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def play(self) -> None:
        """From the submission to the end; AssertionError says what went otherwise."""
        self.realm.workflow(self.name)
        previous = Event("ADDED", {}, None, None, deleting=False, status={})
        try:
            for number in self.order or range(len(self.recording.events)):
                self.before.get(number, lambda: None)()
                event = self.recording.events[number]
                if self.steps:
                    self._move_steps(event)
                self._apply(event, previous)
                if self.exits and event.exit_phase in {"Running", "Succeeded"}:
                    self._exit()
                previous = event
            if self.obeys:
                self._obey()
        finally:
            for pod, process in self._processes.items():
                if pod not in self._ended:
                    process.send_signal(signal.SIGTERM)
                    process.wait(PATIENCE_SECONDS)

    @property
    def name(self) -> str:
        """The Workflow's."""
        return workflow_name(self.run, 1)

    def _move_steps(self, event: Event) -> None:
        for pod, node in event.pods.items():
            if not self.recording.ran(pod) or pod in self._ended:
                continue
            if pod not in self._processes:
                if self.recording.fate(pod)[0] == "itself" and node["phase"] not in LIVE:
                    continue  # that was before the recording
                self._processes[pod] = self._step(pod)
            if node["phase"] not in LIVE or "exitCode" in (node.get("outputs") or {}):
                self._end_step(pod)

    def _log(self, pod: str) -> Path:
        return self.realm.folder / f"{self.recording.name}-{pod}.log"

    def _step(self, pod: str) -> subprocess.Popen[bytes]:
        step = _step_of(pod)
        environment = self.realm.environment(
            self.realm.access(STEP), BRIDGE_RUN=self.run, BRIDGE_ATTEMPT="1", BRIDGE_STEP=step
        )
        # The attempt is on record by the time that Argo could have started a pod.
        self.realm.until_run(self.run, lambda now: now.attempt is not None, "to be begun")
        with self._log(pod).open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "bridge.step", "-e", step, "--tries", "1"],
                env=environment,
                stdout=file,
                stderr=file,
                cwd=ROOT,
            )

    def _end_step(self, pod: str) -> None:
        self._ended.add(pod)
        process, step = self._processes[pod], _step_of(pod)
        how, code = self.recording.fate(pod)
        if how in {"0", "2"}:
            self.brigade.end(self.run, step, 0 if how == "0" else 1)
        elif how != "itself":
            self._await_work(pod)
            process.send_signal(getattr(signal, how))
        self.realm.until(lambda: process.poll() is not None, f"{self.recording.name}: {pod} to end, {how}")
        said, log = process.returncode, self._log(pod).read_text()
        assert said == code, f"{self.recording.name}: {pod} ended with {said}, not {code}: {log[-2000:]}"

    def _exit(self) -> None:
        """`bridgectl exit`, once."""
        self.exits = False
        environment = self.realm.environment(self.realm.access(STEP), BRIDGE_RUN=self.run, BRIDGE_ATTEMPT="1")
        argv = [sys.executable, "-P", "-m", "bridge.exiting"]
        done = subprocess.run(
            argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert done.returncode == 0, f"{self.recording.name}: the exit handler ended with {done}"

    def _await_work(self, pod: str) -> None:
        """The step has come to follow its build, so that a signal finds it at work."""
        follows = re.compile(r"brig: (?:Build:|attached)")
        self.realm.until(
            lambda: self._processes[pod].poll() is not None or follows.search(self._log(pod).read_text()),
            f"{self.recording.name}: {pod} to follow a build",
        )

    def _apply(self, event: Event, previous: Event) -> None:
        if event.type == "DELETED":
            self._change(lambda found: found["metadata"].pop("finalizers", None))
            self._delete()
            return

        def change(found: dict[str, Any]) -> None:
            labels = found["metadata"].setdefault("labels", {})
            for key in [key for key in labels if key.startswith(ARGO)]:
                del labels[key]
            labels.update(event.labels)
            for key in ("shutdown", "suspend"):
                # What people did; what bridge did stands.
                if getattr(event, key) != getattr(previous, key):
                    found["spec"][key] = getattr(event, key)
            if event.deleting:
                found["metadata"]["finalizers"] = [FINALIZER]
            found["status"] = dict(event.status)

        self._change(change)
        if event.deleting and not previous.deleting:
            self._delete()

    def _obey(self) -> None:
        """Be what it is until it is told to end, or gone."""
        needed = ENDS_BY.get(self.recording.name, TERMINATE)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = self._found()
            if found is None or (found.get("status") or {}).get("phase") in ENDED:
                return
            if _told(found) >= _ORDER.index(needed):
                self._change(_end)
            time.sleep(0.1)
        raise AssertionError(f"{self.recording.name}: nobody ended {self.name}")

    def _found(self) -> dict[str, Any] | None:
        try:
            return self.realm.admin.get(path("workflows", self.realm.namespace, self.name))
        except ApiError as refused:
            if refused.status == 404:
                return None
            raise

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """As Argo's own update: again if somebody was faster; nothing if it is gone."""
        while (found := self._found()) is not None:
            change(found)
            try:
                self.realm.admin.replace(path("workflows", self.realm.namespace, self.name), found)
            except ApiError as refused:
                if refused.status not in {404, 409}:
                    raise
            else:
                return

    def _delete(self) -> None:
        with contextlib.suppress(ApiError):
            self.realm.admin.delete(path("workflows", self.realm.namespace, self.name))


_ORDER = (NOTHING, TOUCH, STOP, TERMINATE)


def _told(found: Mapping[str, Any]) -> int:
    """How far a Workflow was told to end."""
    spec = found["spec"]
    if spec.get("shutdown") and not spec.get("suspend"):
        return _ORDER.index(TERMINATE if spec["shutdown"] == "Terminate" else STOP)
    touched = "bridge.brigade.sh/touched" in (found["metadata"].get("annotations") or {})
    return _ORDER.index(TOUCH if touched else NOTHING)


def _end(found: dict[str, Any]) -> None:
    """As a real Workflow ends that is told to; one whose root node has ended keeps that."""
    status, name = found.setdefault("status", {}), found["metadata"]["name"]
    told = found["spec"].get("shutdown")
    message = f"Stopped with strategy '{told}'" if told else "retry exceeded workflow deadline"
    root = {
        "id": name,
        "name": name,
        "displayName": name,
        "type": "DAG",
        "templateName": "main",
        "templateScope": "",
    }
    nodes = status.setdefault("nodes", {}) or {
        name: {**root, "phase": "Running", "startedAt": None, "finishedAt": None}
    }
    for node in nodes.values():
        if node["phase"] in LIVE:
            node.update(phase="Failed", message=message)
    status.update(nodes=nodes, phase="Failed", message=message)
    status.setdefault("startedAt", None)
    status.setdefault("finishedAt", None)
    found["metadata"]["labels"].update({f"{ARGO}completed": "true", f"{ARGO}phase": "Failed"})


def _step_of(pod: str) -> str:
    found = _TRY.fullmatch(pod)
    assert found
    return found["step"]
