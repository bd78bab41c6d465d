"""The ports in memory, for the tests of flows and of everything above them.

All are thread-safe. Each can be told to fail before a method has its effect or after it, which is what a
process that dies, or an answer that is lost, looks like::

    runs.fail("change", "after", Unavailable("the answer was lost"))
    runs.meanwhile("change", "before", lambda: runs.forget("r1"))
"""

import functools
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from bridge.core import names
from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending, Outcome
from bridge.core.events import Event, Revision
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.pipelines import Pipeline
from bridge.core.projects import Project
from bridge.core.runs import Report, Run
from bridge.errors import BadPipeline, Conflict, NotFound, UnknownProject
from bridge.ports import Created, RunFilter

When = Literal["before", "after"]


def some_event(**changes) -> Event:
    """A push, or what `changes` makes of it."""
    known = {
        "provider": "github",
        "type": "push",
        "project": "acme/widgets",
        "delivery": "d1",
        "revision": Revision(commit="c" * 40, ref="refs/heads/main"),
        "payload": b'{"ref": "refs/heads/main"}',
        "branch": "main",
    }
    return Event(**{**known, **changes})


def some_run(run_id: str = "push-r1", **changes) -> Run:
    """A run that was just accepted, or what `changes` makes of it."""
    known = {
        "id": run_id,
        "pipeline": "push",
        "event": some_event(payload=b""),
        "context": "bridge/push/push",
        "digest": "0" * 64,
        "accepted": 1_700_000_000.0,
    }
    return Run(**{**known, **changes})


@dataclass
class _Trouble:
    method: str
    when: When
    act: Callable[[], object]
    left: int


class Fake:
    """What all fakes can: fail, or let something happen, before or after a method's effect."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._troubles: list[_Trouble] = []

    def fail(self, method: str, when: When, error: Exception, *, times: int = 1) -> None:
        """The next `times` calls of `method` raise `error`, before or after their effect."""

        def act() -> None:
            raise error

        self.meanwhile(method, when, act, times=times)

    def meanwhile(self, method: str, when: When, act: Callable[[], object], *, times: int = 1) -> None:
        """Call `act` at the next `times` calls of `method`, before or after their effect."""
        assert hasattr(type(self), method), f"{type(self).__name__} has no method {method}"
        assert when in {"before", "after"}
        with self._lock:
            self._troubles.append(_Trouble(method, when, act, times))

    def heal(self) -> None:
        """Forget all failures that were asked for."""
        with self._lock:
            self._troubles.clear()

    def _trouble(self, method: str, when: When) -> None:
        with self._lock:
            due = [one for one in self._troubles if (one.method, one.when) == (method, when) and one.left > 0]
            for one in due[:1]:
                one.left -= 1
        for one in due[:1]:
            one.act()


def _can_fail(method):
    @functools.wraps(method)
    def call(self, *args, **kwargs):
        self._trouble(method.__name__, "before")
        answer = method(self, *args, **kwargs)
        self._trouble(method.__name__, "after")
        return answer

    return call


class FakeClock:
    """Time that passes only when somebody sleeps or says so."""

    def __init__(self, start: float = 1_700_000_000.0, *, patience_seconds: float = 90 * 86400) -> None:
        self._lock = threading.RLock()
        self._start = start
        self._passed = 0.0
        self._patience_seconds = patience_seconds
        self.sleeps: list[float] = []
        self.on_sleep: list[Callable[[], object]] = []
        """Each is called after each sleep: this is how the world changes while a flow waits."""

    def now(self) -> float:
        with self._lock:
            return self._start + self._passed

    def monotonic(self) -> float:
        with self._lock:
            return self._passed

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0, "nobody sleeps backwards"
        with self._lock:
            self.sleeps.append(seconds)
            self._passed += seconds
            assert self._passed < self._patience_seconds, "slept for longer than any test means to"
        for act in tuple(self.on_sleep):
            act()

    def advance(self, seconds: float) -> None:
        """Let time pass without a sleep."""
        with self._lock:
            self._passed += seconds


class FakeRuns(Fake):
    """`Runs` in memory. `records` and `payloads` are what it ended up holding."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Run] = {}
        self.payloads: dict[str, bytes] = {}
        self._order: dict[str, int] = {}
        self._created = 0

    @_can_fail
    def create(self, run: Run, payload: bytes) -> Created:
        with self._lock:
            if run.id in self.records:
                return Created(self.records[run.id], duplicate=True)
            self._created += 1
            stored = replace(run, event=run.event.without_payload(), version="1")
            self.records[run.id] = stored
            self.payloads[run.id] = payload
            self._order[run.id] = self._created
            return Created(stored, duplicate=False)

    @_can_fail
    def read(self, run_id: str) -> Run:
        with self._lock:
            return self._known(run_id)

    @_can_fail
    def payload(self, run_id: str) -> bytes:
        with self._lock:
            self._known(run_id)
            return self.payloads[run_id]

    @_can_fail
    def list(self, wanted: RunFilter) -> list[Run]:
        with self._lock:
            place = {run.id: (run.accepted, self._order[run.id]) for run in self.records.values()}
            last = place[self._known(wanted.after).id] if wanted.after else (math.inf, 0)
            found = [run for run in self.records.values() if wanted.matches(run) and place[run.id] < last]
            found.sort(key=lambda run: place[run.id], reverse=True)
        return found[: wanted.limit] if wanted.limit else found

    @_can_fail
    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        while True:
            with self._lock:
                known = self._known(run_id)
            changed = change(known)
            with self._lock:
                if self._known(run_id).version != known.version:
                    continue
                if changed == known:
                    return known
                stored = replace(changed, version=str(int(known.version) + 1))
                self.records[run_id] = stored
                return stored

    @_can_fail
    def forget(self, run_id: str) -> None:
        with self._lock:
            self.records.pop(run_id, None)
            self.payloads.pop(run_id, None)

    def owing(self):
        with self._lock:
            return [run.id for run in self.records.values() if run.owes_notifications]

    def add(self, run: Run, payload: bytes = b"{}") -> Run:
        """Store `run` without any failure that was asked for; answers it as stored."""
        return type(self).create.__wrapped__(self, run, payload).run

    def _known(self, run_id: str) -> Run:
        if run_id not in self.records:
            raise NotFound(f"run {run_id} is not there")
        return self.records[run_id]


class FakePipelines(Fake):
    """`Pipelines` from a list. `broken` maps a name to the reason why it cannot be read."""

    def __init__(self, pipelines: Iterable[Pipeline] = (), *, broken: dict[str, str] | None = None) -> None:
        super().__init__()
        self.pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self.broken = dict(broken or {})
        self.unseen: list[Pipeline] = []
        """Those that `refresh` will find."""

    @_can_fail
    def refresh(self) -> bool:
        with self._lock:
            found, self.unseen = self.unseen, []
            self.pipelines |= {pipeline.name: pipeline for pipeline in found}
        return bool(found)

    @_can_fail
    def all(self) -> list[Pipeline]:
        with self._lock:
            return [self.pipelines[name] for name in sorted(self.pipelines) if name not in self.broken]

    @_can_fail
    def read(self, name: str) -> Pipeline:
        with self._lock:
            if name in self.broken:
                raise BadPipeline(self.broken[name])
            if name not in self.pipelines:
                raise NotFound(f"pipeline {name} is not there")
            return self.pipelines[name]


class FakeProjects(Fake):
    """`Projects` from a list."""

    def __init__(self, projects: Iterable[Project] = ()) -> None:
        super().__init__()
        self.projects = {project.name: project for project in projects}
        self.unseen: list[Project | str] = []
        """What `fresh` will find: a project that changed, or the name of one that went."""

    @_can_fail
    def fresh(self, known: Project) -> Project:
        with self._lock:
            found, self.unseen = self.unseen, []
            for one in found:
                if isinstance(one, str):
                    self.projects.pop(one)
                else:
                    self.projects[one.name] = one
        return self.read(known.name)

    @_can_fail
    def read(self, name: str) -> Project:
        with self._lock:
            if name not in self.projects:
                raise UnknownProject(f"there is no project {name}")
            return self.projects[name]

    @_can_fail
    def read_by_id(self, project_id: str) -> Project:
        with self._lock:
            for project in self.projects.values():
                if project.id == project_id:
                    return project
        raise UnknownProject(f"there is no project with the id {project_id}")

    @_can_fail
    def all(self) -> list[Project]:
        with self._lock:
            return [self.projects[name] for name in sorted(self.projects)]


class FakeEngine(Fake):
    """`Engine` in memory. Workflows do only what a test sets, except that they obey when told to end.

    `executions` holds them by Workflow name; `touched`, `stopped`, `terminated` and `deleted` what was asked
    for, in order. With `obeys = False` nothing comes of stop, terminate and delete.
    """

    def __init__(self) -> None:
        super().__init__()
        self.executions: dict[str, Execution] = {}
        self.refused: dict[str, str] = {}
        """Pipelines that cannot be run, and why."""
        self.obeys = True
        self.submitted: list[str] = []
        """Workflows that were created, each once."""
        self.touched: list[str] = []
        self.stopped: list[str] = []
        self.terminated: list[str] = []
        self.deleted: list[str] = []

    @_can_fail
    def submit(self, run: Run, attempt: int) -> str:
        name = names.workflow_name(run.id, attempt)
        with self._lock:
            if run.pipeline in self.refused:
                raise BadPipeline(self.refused[run.pipeline])
            if name not in self.executions:
                self.submitted.append(name)
                uid = f"uid-{name}" if self.submitted.count(name) == 1 else f"uid-{name}-again"
                self.executions[name] = Execution(uid=uid, root=NodePhase.RUNNING)
            return self.executions[name].uid

    @_can_fail
    def observe(self, run: Run, attempt: int) -> Execution | None:
        with self._lock:
            return self.executions.get(names.workflow_name(run.id, attempt))

    @_can_fail
    def touch(self, run: Run, attempt: int) -> None:
        with self._lock:
            self.touched.append(names.workflow_name(run.id, attempt))

    @_can_fail
    def stop(self, run: Run, attempt: int) -> None:
        self._told_to_end(self.stopped, names.workflow_name(run.id, attempt))

    @_can_fail
    def terminate(self, run: Run, attempt: int) -> None:
        self._told_to_end(self.terminated, names.workflow_name(run.id, attempt))

    @_can_fail
    def delete(self, run: Run, attempt: int) -> None:
        name = names.workflow_name(run.id, attempt)
        with self._lock:
            self.deleted.append(name)
            if self.obeys:
                self.executions.pop(name, None)

    def set(self, run: Run | str, attempt: int = 1, **changes) -> Execution:
        """Change what is seen of an attempt's Workflow, which is made if it is not there."""
        name = names.workflow_name(run if isinstance(run, str) else run.id, attempt)
        with self._lock:
            known = self.executions.get(name, Execution(uid=f"uid-{name}", root=NodePhase.RUNNING))
            self.executions[name] = replace(known, **changes)
            return self.executions[name]

    def end(self, run: Run | str, attempt: int = 1, *, root: NodePhase, nodes: Iterable[Node] = ()) -> Execution:
        """The Workflow ended: its root node came to `root` and nothing of it runs any more."""
        return self.set(run, attempt, root=root, nodes=tuple(nodes), finished=True)

    def vanish(self, run: Run | str, attempt: int = 1) -> None:
        """Somebody else deleted the Workflow."""
        with self._lock:
            self.executions.pop(names.workflow_name(run if isinstance(run, str) else run.id, attempt), None)

    def _told_to_end(self, asked: list[str], name: str) -> None:
        with self._lock:
            asked.append(name)
            known = self.executions.get(name)
            if known is None or not self.obeys:
                return
            root = known.root if known.root_ended else NodePhase.FAILED
            self.executions[name] = replace(known, root=root, finished=True)


@dataclass
class _Kept:
    build: Build
    spec: BuildSpec
    log: bytes | None = b""


class FakeBuilds(Fake):
    """`Builds` in memory. A build waits until a test sets its phase.

    `specs` are all builds that were ever asked for, in order; `used_twice` would name an id that was created
    a second time.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__()
        self._clock = clock or FakeClock()
        self._kept: dict[str, _Kept] = {}
        self._leftovers: dict[tuple[str, int, str], int] = {}
        self.specs: list[BuildSpec] = []
        self.on_create: list[Callable[[BuildSpec], object]] = []
        """Each is called after a build was created: this is how builds come to run or end by themselves."""

    @property
    def builds(self) -> list[Build]:
        """All builds there are, in the order of their creation."""
        with self._lock:
            return [kept.build for kept in self._kept.values()]

    @property
    def used_twice(self) -> list[str]:
        """Ids that were created more than once; there must never be any."""
        with self._lock:
            ids = [spec.id for spec in self.specs]
        return sorted({one for one in ids if ids.count(one) > 1})

    @_can_fail
    def find(self, run_id: str, *, epoch: int | None = None, step: str | None = None) -> list[Build]:
        found = [
            build
            for build in self.builds
            if build.run == run_id
            and (epoch is None or build.epoch == epoch)
            and (step is None or build.step == step)
        ]
        return sorted(found, key=lambda build: (build.step, build.epoch, build.number))

    @_can_fail
    def highest(self, run_id: str, *, epoch: int, step: str) -> int:
        with self._lock:
            here = [
                build.number
                for build in self.builds
                if (build.run, build.epoch, build.step) == (run_id, epoch, step)
            ]
            return max([0, self._leftovers.get((run_id, epoch, step), 0), *here])

    @_can_fail
    def create(self, spec: BuildSpec) -> None:
        with self._lock:
            left = self._leftovers.get((spec.run, spec.epoch, spec.step), 0)
            if spec.id in self._kept or spec.number <= left:
                raise Conflict(f"build {spec.id} is there already")
            self.specs.append(spec)
            build = Build(
                id=spec.id,
                run=spec.run,
                epoch=spec.epoch,
                step=spec.step,
                number=spec.number,
                attempt=spec.attempt,
                event=spec.event.type,
                phase=BuildPhase.WAITING,
                created=self._clock.now(),
            )
            self._kept[spec.id] = _Kept(build, spec)
        for act in tuple(self.on_create):
            act(spec)

    @_can_fail
    def give_up(self, build: Build, *, reason: str, ending: Ending) -> None:
        with self._lock:
            kept = self._kept.get(build.id)
            if kept is None or kept.build.given_up_as is not None or kept.build.outcome is not None:
                return
            if kept.build.phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED}:
                return
            kept.build = replace(kept.build, phase=BuildPhase.GONE, given_up=reason, given_up_as=ending)

    @_can_fail
    def record(self, build: Build, outcome: Outcome) -> Outcome:
        with self._lock:
            kept = self._kept.get(build.id)
            if kept is None:
                raise NotFound(f"build {build.id} is not there")
            if kept.build.outcome is None:
                kept.build = replace(kept.build, outcome=outcome)
            assert kept.build.outcome is not None
            return kept.build.outcome

    @_can_fail
    def log(self, build: Build) -> str | None:
        with self._lock:
            kept = self._kept.get(build.id)
            return None if kept is None or kept.log is None else kept.log.decode("utf-8", "replace")

    @_can_fail
    def follow(self, build: Build, *, offset: int) -> tuple[bytes, int]:
        with self._lock:
            kept = self._kept.get(build.id)
            more = b"" if kept is None or kept.log is None else kept.log[offset:]
            return more, offset + len(more)

    @_can_fail
    def forget(self, run_id: str) -> None:
        with self._lock:
            self._kept = {one: kept for one, kept in self._kept.items() if kept.build.run != run_id}
            self._leftovers = {key: left for key, left in self._leftovers.items() if key[0] != run_id}

    def set(self, build_id: str, phase: BuildPhase, **changes) -> Build:
        """Change what is seen of a build; the times of a phase are filled in unless given."""
        now = self._clock.now()
        with self._lock:
            kept = self._kept[build_id]
            if phase is not BuildPhase.WAITING and kept.build.started is None:
                changes.setdefault("started", now)
            if phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED}:
                changes.setdefault("ended", now)
            if phase is BuildPhase.SUCCEEDED:
                changes.setdefault("exit_code", 0)
            kept.build = replace(kept.build, phase=phase, **changes)
            return kept.build

    def start(self, build_id: str) -> Build:
        """Its worker runs."""
        return self.set(build_id, BuildPhase.RUNNING)

    def succeed(self, build_id: str, *, log: str = "done\n") -> Build:
        """Its worker ended with 0, having written `log`."""
        self.write_log(build_id, log)
        return self.set(build_id, BuildPhase.SUCCEEDED)

    def break_down(self, build_id: str, *, exit_code: int = 1, log: str = "it failed\n") -> Build:
        """Its worker ended otherwise, having written `log`."""
        self.write_log(build_id, log)
        return self.set(build_id, BuildPhase.FAILED, exit_code=exit_code)

    def lose(self, build_id: str) -> Build:
        """Its worker is gone without a result."""
        return self.set(build_id, BuildPhase.GONE)

    def write_log(self, build_id: str, text: str) -> None:
        """More of the worker's log."""
        with self._lock:
            kept = self._kept[build_id]
            kept.log = (kept.log or b"") + text.encode()

    def lose_log(self, build_id: str) -> None:
        """The log cannot be read any more."""
        with self._lock:
            self._kept[build_id].log = None

    def sweep(self, build_id: str, *, leaves_volume: bool = False) -> None:
        """Vacuum took the build; perhaps its volume is left, so that its id cannot be used."""
        with self._lock:
            build = self._kept.pop(build_id).build
            if leaves_volume:
                key = (build.run, build.epoch, build.step)
                self._leftovers[key] = max(build.number, self._leftovers.get(key, 0))


@dataclass(frozen=True)
class Posted:
    """One status as it was delivered."""

    run: str
    sha: str
    report: Report
    url: str


class FakeReports(Fake):
    """`Reports` in memory: `posts` is the history, oldest first."""

    def __init__(self, *, taken_by: str = "board") -> None:
        super().__init__()
        self.taken_by = taken_by
        self.posts: list[Posted] = []

    @_can_fail
    def post(self, run: Run, report: Report, *, url: str) -> str:
        with self._lock:
            self.posts.append(Posted(run.id, run.event.revision.commit, report, url))
        return self.taken_by

    def statuses(self, sha: str) -> dict[str, Report]:
        """What a reader of the commit sees: the newest status of each context."""
        with self._lock:
            return {posted.report.context: posted.report for posted in self.posts if posted.sha == sha}

    def states(self, run_id: str) -> list[str]:
        """The states that were posted for a run, repeats of the same report in a row taken together."""
        with self._lock:
            reports = [posted.report for posted in self.posts if posted.run == run_id]
        return [one.state for n, one in enumerate(reports) if n == 0 or reports[n - 1] != one]
