"""One run under the controller's own flow, with the clock injected and Workflows that do what a real Argo was seen to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bridge.core import argo, names
from bridge.core.builds import BuildSpec
from bridge.core.executions import Execution
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.runs import Phase, Run
from bridge.flows.reconciling import Reconciling
from tests import recorded
from tests.cluster import player
from tests.fakes import FakeBuilds, FakeClock, FakeEngine, FakePipelines, FakeReports, FakeRuns, some_run

RUN = "push-0123456789abcdefghjk"
TIMEOUT_SECONDS = 600.0
LOOK_SECONDS = 5.0
"""Between two looks at a run of which nothing changes; the controller's own is `resync_seconds`."""
PATIENCE_SECONDS = 4 * 3600.0


class RealArgo(FakeEngine):
    """Workflows as the API has them, which obey as the recorded ones did (facts/argo.md)."""

    def __init__(self) -> None:
        super().__init__()
        self.workflow: dict[str, Any] | None = None
        self.over = False
        """The recording is over: what goes on does what it is told."""
        self.needs = player.TERMINATE
        self.spoken: dict[str, Execution] = {}

    def observe(self, run: Run, attempt: int) -> Execution | None:
        if attempt > 1:
            return super().observe(run, attempt)
        if self.workflow is None:
            return None
        if self.over and player._told(self.workflow) >= player._ORDER.index(self.needs):
            player._end(self.workflow)
        return argo.execution_of(self.workflow)

    def submit(self, run: Run, attempt: int) -> str:
        super().submit(run, attempt)
        if attempt == 1 and self.workflow is None:
            self.workflow = argo.workflow(run, attempt, record_uid="r")
            self.workflow["metadata"]["uid"] = "u1"
        return "u1" if attempt == 1 else f"u{attempt}"

    def touch(self, run: Run, attempt: int) -> None:
        super().touch(run, attempt)
        self._patch(attempt, lambda one: one["metadata"].setdefault("annotations", {}).update(
            {"bridge.brigade.sh/touched": "1"}
        ))  # fmt: skip

    def stop(self, run: Run, attempt: int) -> None:
        super().stop(run, attempt)
        self._patch(attempt, lambda one: one["spec"].update(shutdown="Stop", suspend=None))

    def terminate(self, run: Run, attempt: int) -> None:
        super().terminate(run, attempt)
        self._patch(attempt, lambda one: one["spec"].update(shutdown="Terminate", suspend=None))

    def delete(self, run: Run, attempt: int) -> None:
        super().delete(run, attempt)
        if attempt == 1:
            self.workflow = None

    def _patch(self, attempt: int, change: Callable[[dict[str, Any]], object]) -> None:
        if attempt == 1 and self.workflow is not None:
            change(self.workflow)


@dataclass
class Ended:
    """What became of a run."""

    verdict: str
    status: str
    """What the commit shows, without the advice at its end."""
    state: str
    after: float
    """Seconds between the moment from which its end could be seen, and its final status."""
    of_deadline: bool
    """That moment was its deadline."""
    fired: bool


@dataclass
class Stage:
    """The ports, and one run of these steps."""

    steps: tuple[str, ...] = ("build",)
    clock: FakeClock = field(default_factory=FakeClock)
    runs: FakeRuns = field(default_factory=FakeRuns)
    engine: RealArgo = field(default_factory=RealArgo)
    reports: FakeReports = field(default_factory=FakeReports)

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(
            "push",
            ("acme/widgets",),
            (Trigger("push"),),
            tuple(Step(step, (step,)) for step in self.steps),
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self.pipelines = FakePipelines([self.pipeline])
        self.builds = FakeBuilds(self.clock)
        self.builds.on_create.append(self._made)
        self.controller = Reconciling(
            self.runs, self.pipelines, self.engine, self.builds, self.reports, self.clock
        )
        self.runs.add(some_run(RUN, accepted=self.clock.now()))
        self.observable: float | None = None
        self._numbers: dict[str, int] = {}

    @property
    def run(self) -> Run:
        return self.runs.records[RUN]

    def look(self) -> Run:
        """The controller looks."""
        self.controller.reconcile(RUN)
        return self.run

    def now_it_shows(self) -> None:
        """From now on anybody could see that it has ended."""
        self.observable = self.clock.now()

    def build(self, step: str, *, code: int | None, event: str = "") -> str:
        """A step's process makes a build, which ends with this code or goes on; its id."""
        number = self._numbers[step] = self._numbers.get(step, 0) + 1
        one = names.build_id(run=RUN, epoch=1, step=step, number=number)
        event_of = self.run.event
        self.builds.create(BuildSpec(one, RUN, "push", 1, step, number, 1, event_of))
        self.builds.start(one)
        if code == 0:
            self.builds.succeed(one)
        elif code is not None:
            self.builds.break_down(one, exit_code=code)
        return one

    def set(
        self, *, phase: str = "Running", nodes: Mapping[str, tuple[str, str, str]] | None = None, **status: Any
    ) -> None:
        """What Argo writes: the phase, and by step the phase, the exit code and the message of its node."""
        workflow = self.engine.workflow
        assert workflow is not None
        name = workflow["metadata"]["name"]
        found = {}
        if nodes is not None:
            found[name] = {"id": name, "name": name, "displayName": name, "type": "DAG", "phase": phase}
        for step, (of_step, code, message) in (nodes or {}).items():
            node = {"id": step, "name": f"{name}.{step}", "displayName": step, "type": "Pod", "phase": of_step}
            node |= {"boundaryID": name, "message": message, "outputs": {"exitCode": code} if code else {}}
            found[step] = node
        ended = phase in player.ENDED
        workflow["status"] = {"phase": phase, "nodes": found, **status}
        if ended:
            self.now_it_shows()

    def close(self) -> Ended:
        """Let time pass until it is closed."""
        began = self.clock.now()
        while self.run.phase is not Phase.CLOSED:
            self.look()
            assert self.clock.now() - began < PATIENCE_SECONDS, f"never closed: {self.run}"
            if self.run.phase is not Phase.CLOSED:
                self.clock.advance(LOOK_SECONDS)
        return self.ended()

    def ended(self) -> Ended:
        run, report = self.run, self.reports.posts[-1].report
        attempt = run.attempt
        deadline = (attempt.submitted or attempt.begun) + TIMEOUT_SECONDS if attempt is not None else 0.0
        since = self.observable
        of_deadline = since is None
        at = attempt.ended if attempt is not None else run.closed
        fired = any(names.is_exit_step(one.step) for one in self.builds.builds)
        return Ended(
            verdict=str(run.verdict),
            status=report.description.partition("; bridgectl ")[0],
            state=report.state,
            after=(at or 0.0) - (deadline if since is None else since),
            of_deadline=of_deadline,
            fired=fired,
        )

    def _made(self, spec: BuildSpec) -> None:
        if names.is_exit_step(spec.step):
            self.builds.succeed(spec.id)


def played(name: str) -> Ended:
    """How a run ends whose Workflow does what this recording shows."""
    one = player.recording(name, called=RUN)
    created = recorded.objects("argo", name)[0]["metadata"]["creationTimestamp"]
    stage = Stage(one.steps, clock=FakeClock(datetime.fromisoformat(created).timestamp()))
    stage.engine.needs = player.ENDS_BY.get(name, player.TERMINATE)
    stage.look()
    going: dict[str, str] = {}
    ended: set[str] = set()
    for event in one.events:
        stage.clock.advance(1.0)
        _move_builds(stage, one, event, going, ended)
        _apply(stage, event)
        seen = stage.engine.observe(stage.run, 1)
        shows = seen is None or seen.root_ended or seen.deleting or seen.invalid
        if shows and stage.observable is None:
            stage.now_it_shows()
        stage.look()
    stage.engine.over = True
    return stage.close()


def _move_builds(
    stage: Stage, one: player.Recording, event: player.Event, going: dict[str, str], ended: set[str]
) -> None:
    for pod, node in event.pods.items():
        if not one.ran(pod) or pod in ended:
            continue
        step = player._step_of(pod)
        if step not in going and one.fate(pod)[0] != "itself":
            going[step] = stage.build(step, code=None)
        if node["phase"] in player.LIVE and "exitCode" not in (node.get("outputs") or {}):
            continue
        ended.add(pod)
        how = one.fate(pod)[0]
        if how == "0" and step in going:
            stage.builds.succeed(going[step])
        elif how == "2" and step in going:
            stage.builds.break_down(going[step])


def _apply(stage: Stage, event: player.Event) -> None:
    workflow = stage.engine.workflow
    if event.type == "DELETED" or workflow is None:
        stage.engine.workflow = None
        return
    labels = workflow["metadata"]["labels"]
    for key in [key for key in labels if key.startswith(player.ARGO)]:
        del labels[key]
    labels.update(event.labels)
    workflow["spec"].update(shutdown=event.shutdown, suspend=event.suspend)
    if event.deleting:
        workflow["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
    workflow["status"] = dict(event.status)
