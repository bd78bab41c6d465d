"""A whole world over fakes, in which anything may happen, and what must hold of it whatever happened.

A history is a list of operations, each a name and its arguments, that can be written down and played again::

    play([("deliver", 0), ("control", 0), ("delete", 0)])

After each operation what must hold at every moment is looked at; at the end the world is left in peace, and
everything must come to rest: `Violated` says what did not hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hypothesis import strategies as st

from bridge import ports
from bridge.core import names
from bridge.core import obligations as ob
from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending
from bridge.core.concurrency import Concurrency, group_of
from bridge.core.events import Revision
from bridge.core.executions import Node, NodePhase
from bridge.core.names import project_id
from bridge.core.notifications import Subscriber, implied
from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.projects import Project
from bridge.core.runs import Act, Attempt, Kind, Phase, Report, Run, with_act
from bridge.core.steps import Options
from bridge.core.strays import Stray
from bridge.core.verdicts import Verdict
from bridge.errors import BridgeError, NotDelivered, StatusNotPosted, Unavailable
from bridge.flows.accepting import Accepted, accept
from bridge.flows.fencing import fenced
from bridge.flows.notifying import NoNotices, Notifying
from bridge.flows.reconciling import Reconciling, Strays
from bridge.flows.stepping import Interrupted, Key, Stepping
from bridge.flows.superseding import ListedGroups
from bridge.ports import Message
from tests.fakes import (
    Fake,
    FakeBuilds,
    FakeClock,
    FakeEngine,
    FakePipelines,
    FakeReports,
    FakeRuns,
    Posted,
    _can_fail,
    some_event,
)

TIMEOUT_SECONDS = 600.0
EXIT_SECONDS = 300.0
RETENTION_SECONDS = 8 * 86400.0
PIPELINE = Pipeline(
    "push",
    ("acme/widgets",),
    (Trigger("push"), Trigger("pull_request")),
    (Step("build", ("build",)), Step("test", ("test",), needs=("build",))),
    exit=Exit(timeout_seconds=EXIT_SECONDS),
    timeout_seconds=TIMEOUT_SECONDS,
    concurrency=Concurrency.BRANCH,
)
PROJECT = Project(name="acme/widgets", id=project_id("acme/widgets"))
OPTIONS = {"build": Options(("build",), tries=1), "test": Options(("test",), tries=2, timeout_seconds=120)}
DELIVERIES = {0: ("d0", "a" * 40), 1: ("d1", "a" * 40), 2: ("d2", "b" * 40), 3: ("d3", "c" * 40)}
"""By number: the delivery and its commit. The first two have one commit and context, and the third is a newer one of
their branch; the last is a stranger's pull request, which waits for an approval."""
STRANGERS = 3
MOST_ATTEMPTS = 3
PATIENCE = 40
"""So often a step's process sleeps before it is asked to end."""
ROUND_SECONDS = 20.0
ROUNDS = 150
DULL_SECONDS = TIMEOUT_SECONDS + ROUND_SECONDS
"""So long before the first deadline of open runs what has to happen of itself has happened, or may yet."""
BOUND_SECONDS = 180.0 + 30.0
"""After the deadline, or after peace began (docs/endings.md)."""
LIMIT_SECONDS = 120.0
SOON_SECONDS = 30.0
"""After an end can be seen, or after peace began."""
ENDPOINT = "chat"
FINAL = frozenset({"success", "failure", "error"})
GOING = frozenset({BuildPhase.WAITING, BuildPhase.RUNNING})

Operation = tuple[Any, ...]


class Violated(AssertionError):
    """Something that must hold did not."""


class Killed(BaseException):
    """The process died here."""


def hold(condition: object, what: str) -> None:
    """Raise Violated unless it holds."""
    if not condition:
        raise Violated(what)


class Argo(FakeEngine):
    """Workflows of which some are deaf: `needs` says by name which rung ends one, `held` which outlive a delete."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: dict[str, int] = {}
        self.held: set[str] = set()

    def touch(self, run: Run, attempt: int) -> None:
        super().touch(run, attempt)
        name = names.workflow_name(run.id, attempt)
        if self.needs.get(name) == ob.TOUCH:
            self._told_to_end([], name)

    def delete(self, run: Run, attempt: int) -> None:
        name = names.workflow_name(run.id, attempt)
        known = self.executions.get(name)
        super().delete(run, attempt)
        if name in self.held and known is not None:
            self.executions[name] = replace(known, deleting=True)

    def _told_to_end(self, asked: list[str], name: str) -> None:
        rung = ob.STOP if asked is self.stopped else ob.TERMINATE if asked is self.terminated else ob.TOUCH
        if rung < self.needs.get(name, ob.STOP):
            asked.append(name)
            return
        super()._told_to_end(asked, name)


class GitHub(FakeReports):
    """Commit statuses, with a look at whoever asks too early."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(taken_by="github")
        self._clock = clock
        self.gone = False
        self.until: dict[tuple[str, int], float] = {}

    def post(self, run: Run, report: Report, *, url: str) -> str:
        key = (run.id, report.attempt)
        early = self.until.get(key, 0.0) - self._clock.now()
        hold(early <= 0, f"{run.id}: a status was posted {early:g} s before GitHub's limit allows it")
        if self.gone:
            raise StatusNotPosted("404: no such repository", permanent=True)
        try:
            return super().post(run, report, url=url)
        except StatusNotPosted as error:
            if error.retry_after_seconds is not None:
                self.until[key] = self._clock.now() + error.retry_after_seconds
            raise


class Endpoint(Fake):
    """`Outbound`: somebody who is told of everything that happens to runs."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribers = (Subscriber(ENDPOINT),)
        self.told: dict[str, list[str]] = {}
        """By run: what it was told, in order, without repeats."""
        self.failed = False

    @_can_fail
    def send(self, endpoint: str, message: Message) -> None:
        assert endpoint == ENDPOINT
        told = self.told.setdefault(message.id.partition(":")[0], [])
        if message.id not in told:
            told.append(message.id)


class Copies(Fake):
    """`Strays`: what people made with Argo's own commands."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self.live: dict[str, Stray] = {}
        """By the run and the name: those that go on."""
        self.ended: list[Stray] = []

    def of(self, run: Run) -> list[Stray]:
        return [one for key, one in self.live.items() if key.startswith(f"{run.id} ") and self._goes_on(run, one)]

    def _goes_on(self, run: Run, stray: Stray) -> bool:
        if not stray.retried:
            return True
        found = self._world.engine.executions.get(stray.name)
        return found is not None and not found.finished and not found.deleting

    @_can_fail
    def end(self, stray: Stray) -> None:
        key = next((key for key, one in self.live.items() if one == stray), "")
        if not key:
            return
        del self.live[key]
        self.ended.append(stray)
        if not stray.retried:
            return
        run = self._world.runs.records.get(key.split(" ")[0])
        if run is not None:
            self._world.engine.terminate.__wrapped__(self._world.engine, run, stray.retried)
            known = [act for act in run.acts if act.follows >= stray.retried and act.kind is not Kind.CANCEL]
            attempt = run.attempt_numbered(stray.retried)
            fine = attempt is not None and attempt.verdict is Verdict.SUCCEEDED
            hold(known or fine, f"{stray.name} was ended, and nobody knows of the retry that it stood for")


@dataclass
class Paused:
    """A controller, or an exit handler, that was stopped between deciding and doing."""

    run: str
    actions: tuple[ob.Action, ...]
    flow: Reconciling


class World:
    """All of it. Operations are the methods that OPERATIONS names."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.pipelines = FakePipelines([PIPELINE])
        self.engine = Argo()
        self.builds = FakeBuilds(self.clock)
        self.reports = GitHub(self.clock)
        self.strays = Copies(self)
        self.endpoint = Endpoint()
        self.notices = self.notifying()
        self.builds.on_create.append(self._begin_build)
        self.lease = 0
        self.answered: set[int] = set()
        self.sent: set[int] = set()
        self.paused: list[Paused] = []
        self.suspended: set[tuple[str, int]] = set()
        self.damaged: set[tuple[str, int]] = set()
        """Attempts of which somebody took the verdict away."""
        self.looked: dict[str, float] = {}
        """When a controller last looked at a run and nothing went wrong."""
        self._fates: list[str] = []
        self._requests = 0
        self._judged = 0
        self._last: dict[tuple[str, str], Posted] = {}
        self._verdicts: dict[tuple[str, int], Verdict] = {}
        self._refused = False
        self._hanging: set[str] = set()
        """Builds that never end by themselves."""
        self._observable: dict[tuple[str, int], float] = {}
        """Since when it can be seen that an attempt has come to its end."""
        self._roots: set[tuple[str, int]] = set()
        """Attempts whose root node succeeded."""
        self._waited: set[tuple[str, int]] = set()
        """Attempts that somebody asked to follow before they had ended."""
        self._succeeded_once: dict[tuple[str, int, str], int] = {}
        """Steps that succeeded, and how many builds had been asked for by then."""
        self._patience = 0
        self._lost: set[str] = set()
        """Builds that were lost; vacuum may have taken them."""
        self._accepted: dict[str, float] = {}
        self.peace: float | None = None

    def notifying(self) -> Notifying:
        """Who tells the endpoint, with nothing in memory yet."""
        return Notifying(
            self.runs,
            self.endpoint,
            self.clock,
            owing=self,
            source="https://bridge.example.com",
            url_of=lambda _: "",
            give_up_seconds=RETENTION_SECONDS,
        )

    def owing(self) -> list[str]:
        """The closed runs that owe somebody a notification."""
        found = [run for run in self.runs.records.values() if run.phase is Phase.CLOSED]
        return [run.id for run in found if any(told.waits for told in run.state.notified.values())]

    def handler(self) -> Reconciling:
        """An exit handler, which no lease holds back, and which tells nobody of anything."""
        return replace(
            self.controller(),
            runs=self.runs,
            engine=self.engine,
            builds=self.builds,
            reports=self.reports,
            notices=NoNotices(),
        )

    def controller(self) -> Reconciling:
        """One that leads now."""
        token = self.lease

        def leads() -> bool:
            return token == self.lease

        return Reconciling(
            fenced(ports.Runs, self.runs, leads),
            self.pipelines,
            fenced(ports.Engine, self.engine, leads),
            fenced(ports.Builds, self.builds, leads),
            fenced(ports.Reports, self.reports, leads),
            self.clock,
            strays=fenced(Strays, self.strays, leads),
            notices=self.notices,
            groups=ListedGroups(self.runs),
            retention_seconds=RETENTION_SECONDS,
        )

    # What may happen

    def deliver(self, number: int) -> None:
        """GitHub sends an event, or sends it again."""
        delivery, commit = DELIVERIES[number]
        event = some_event(delivery=delivery, revision=Revision(commit, "refs/heads/main"))
        if number == STRANGERS:
            changes = {"type": "pull_request:opened", "pull_request": 7, "fork_author": "NONE"}
            event = replace(event, **changes, revision=Revision(commit, "refs/pull/7/head"))
        self.sent.add(number)

        def send() -> None:
            said = accept(event, PROJECT, runs=self.runs, pipelines=self.pipelines, now=self.clock.now())
            if isinstance(said, Accepted):
                self.answered.add(number)

        self._survive(send)
        self.clock.advance(1.0)

    def control(self, number: int) -> None:
        """The controller that leads looks at a run."""
        self.lease += 1
        for run in self._chosen(number):
            if self._survive(self.controller().reconcile, run.id):
                self.looked[run.id] = self.clock.now()

    def exit_handler(self, number: int) -> None:
        """The exit handler of a Workflow runs, beside or without a controller."""
        for run in self._chosen(number):
            self._survive(self.handler().exit, run.id)

    def pause(self, number: int, who: str, done: int) -> None:
        """Whoever looks decides what to do, does the first of it, and is stopped there."""
        for run in self._chosen(number):
            flow = self.controller() if who == "controller" else self.handler()
            allowed = (lambda _: True) if who == "controller" else _of_handlers
            try:
                actions = flow._owed(run, allowed)
            except (Killed, BridgeError):
                return
            self._carry_on(Paused(run.id, actions[:done], flow))
            self.paused.append(Paused(run.id, actions[done:], flow))

    def resume(self) -> None:
        """One that was stopped goes on, unless it is a controller and another one leads meanwhile."""
        for paused in self.paused[:1]:
            self.paused.remove(paused)
            self._carry_on(paused)

    def _carry_on(self, paused: Paused) -> None:
        known = self.runs.records.get(paused.run)
        for action in paused.actions if known is not None else ():
            if not self._survive(paused.flow._apply, known, action):
                return

    def step(self, number: int, step: str, back: int) -> None:
        """A step's process runs, also of an attempt that is over, as a pod that outlives its Workflow does."""
        for run in self._chosen(number):
            attempt = len(run.state.attempts) - back
            if attempt >= 1 and (step == "build" or self._succeeded(run, "build")):
                self._step(run.id, step, attempt)

    def fate(self, end: str) -> None:
        """How the next build will be: succeed, fail, lose, run or wait."""
        self._fates.append(end)

    def end_build(self, end: str) -> None:
        """A build that goes on ends."""
        for build in [one for one in self.builds.builds if one.phase in GOING and not one.given_up][:1]:
            self._end_build(build.id, end)

    def vacuum(self, *, volume: bool) -> None:
        """Brigade's vacuum takes what ended some time ago, so that a controller has seen it."""
        for build in self.builds.builds:
            if build.outcome is not None and self.looked.get(build.run, 0.0) > build.outcome.ended:
                self.builds.sweep(build.id, leaves_volume=volume)

    def delete(self, number: int, *, held: bool) -> None:
        """Somebody deletes a Workflow; a finalizer may hold it."""
        for run in self._chosen(number):
            name = self._newest(run)
            known = self.engine.executions.get(name)
            if known is None:
                return
            if run.attempt is not None and run.attempt.uid:
                self._observe(run)
            if held:
                self.engine.held.add(name)
                self.engine.executions[name] = replace(known, deleting=True)
            else:
                del self.engine.executions[name]

    def refuse(self, number: int) -> None:
        """Argo finds that it cannot run a Workflow."""
        self._change(number, root=None, finished=True, invalid="invalid spec: no such template")

    def end_workflow(self, number: int, strategy: str) -> None:
        """Somebody stops or terminates it."""
        message = f"Stopped with strategy '{strategy}'"
        self._change(number, root=NodePhase.FAILED, finished=True, message=message)

    def linger(self, number: int, root: str) -> None:
        """Its root node ends, and its exit pod is stuck; also a success that no build stands for."""
        for run in self._chosen(number):
            self.engine.needs[self._newest(run)] = ob.TERMINATE
        self._change(number, root=NodePhase(root), finished=False)

    def deaf(self, number: int, rung: int) -> None:
        """A Workflow that does nothing until a rung of the escalation: suspended, queued, over quota, unschedulable."""
        for run in self._chosen(number):
            self.engine.needs[self._newest(run)] = rung
            if rung == ob.DELETE:
                self.engine.held.add(self._newest(run))

    def suspend(self, number: int) -> None:
        """Somebody suspends a Workflow, which goes on when bridge makes it."""
        for run in self._chosen(number):
            known, attempt = self.engine.executions.get(self._newest(run)), run.attempt
            if known is None or known.root_ended or attempt is None or not attempt.uid or attempt.rung:
                return
            self.engine.needs[self._newest(run)] = ob.STOP
            self.engine.executions[self._newest(run)] = replace(known, message="it is suspended")
            self.suspended.add((run.id, attempt.n))

    def copy(self, number: int) -> None:
        """`argo resubmit`."""
        for run in self._chosen(number):
            if run.attempt is not None:
                name = f"{self._newest(run)}-x{len(self.strays.live)}"
                self.strays.live[f"{run.id} {name}"] = Stray(name, f"uid-{name}")

    def argo_retry(self, number: int) -> None:
        """`argo retry` of a Workflow that has ended."""
        for run in self._chosen(number):
            name, attempt = self._newest(run), run.attempt
            known = self.engine.executions.get(name)
            if attempt is None or attempt.verdict is None or known is None or not known.finished:
                return
            if known.deleting or len(run.state.attempts) >= MOST_ATTEMPTS or run.waiting_act is not None:
                return
            if attempt.verdict not in {Verdict.FAILED, Verdict.ERROR} and run.closed is None:
                return
            self.engine.set(run.id, attempt.n, root=NodePhase.RUNNING, finished=False, nodes=(), message="")
            self.strays.live[f"{run.id} {name}"] = Stray(name, known.uid, attempt.n, "ada")

    def ask(self, number: int, kind: str, back: int) -> None:
        """A person asks for something."""
        for run in self._chosen(number):
            newest = 0 if kind == Kind.APPROVE else len(run.state.attempts)
            if (newest >= MOST_ATTEMPTS and kind != Kind.CANCEL) or (kind == Kind.APPROVE and not run.held):
                return
            self._requests += 1
            act = Act(Kind(kind), f"q{self._requests}", max(0, newest - back), "ann", "cli", self.clock.now())
            self._survive(self.runs.change, run.id, partial(_with, act))

    def damage(self, number: int) -> None:
        """Somebody edits a record, and the newest attempt's verdict is lost."""
        for run in self._chosen(number):
            attempt = run.attempt
            if attempt is not None and attempt.verdict is not None and run.state.reported is not None:
                self.damaged.add((run.id, attempt.n))
                self._verdicts.pop((run.id, attempt.n), None)
                self.runs.change.__wrapped__(self.runs, run.id, _without_verdict)

    def unpublish(self, *, back: bool) -> None:
        """The pipeline goes, or comes again."""
        self.pipelines.pipelines = {"push": PIPELINE} if back else {}

    def github(self, says: str, times: int) -> None:
        """GitHub takes no statuses for a while: 500, 403 (a limit), 422, or a connection that breaks after it did."""
        errors = {
            "500": StatusNotPosted("500"),
            "403": StatusNotPosted("403: secondary limit", retry_after_seconds=LIMIT_SECONDS),
            "422": StatusNotPosted("422: no such commit", permanent=True),
            "reset": StatusNotPosted("reset after the write"),
        }
        self._refused |= says == "422"

        def act() -> None:
            raise errors[says]

        self.reports.meanwhile("post", "after" if says == "reset" else "before", act, times=times)

    def tell(self) -> None:
        """The endpoint is told what it has not been told yet."""
        if not self._survive(self._tell):
            self.notices = self.notifying()  # the process died, and with it what was in memory

    def _tell(self) -> None:
        self.notices.sweep()
        while self.notices.tell_due(ENDPOINT):
            pass

    def lose_repository(self) -> None:
        """GitHub refuses every status from now on."""
        self._refused = True
        self.reports.gone = True

    def fail(self, call: str, when: str, how: str) -> None:
        """The next call of a port's method dies, or its answer is lost, before or after its effect."""
        port, method = call.split(".")
        lost = {"reports": StatusNotPosted("lost"), "endpoint": NotDelivered("lost")}
        error = Killed() if how == "dies" else lost.get(port, Unavailable("lost"))
        self.endpoint.failed |= port == "endpoint"
        getattr(self, port).fail(method, when, error)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    # What holds at every moment

    def check(self) -> None:
        """Raise Violated if something does not hold."""
        hold(not self.builds.used_twice, f"a build's id was used twice: {self.builds.used_twice}")
        self._check_statuses()
        for build in self.builds.builds:
            if build.outcome is not None and build.outcome.ending is Ending.LOST:
                self._lost.add(build.id)
        for run in self.runs.records.values():
            self._check_run(run)
        for build in self.builds.builds:
            self._check_build(build)
        self._check_successes()

    def _check_run(self, run: Run) -> None:
        approved = any(act.kind is Kind.APPROVE for act in run.acts)
        hold(approved or not run.held or not run.state.attempts, f"{run.id} began, and nobody approved it")
        going = [one.n for one in run.state.attempts[:-1] if one.verdict is None]
        lost = {n for damaged, n in self.damaged if damaged == run.id}
        hold(set(going) <= lost, f"{run.id}: an older attempt has no verdict")
        for attempt in run.state.attempts:
            if attempt.verdict is None:
                continue
            known = self._verdicts.setdefault((run.id, attempt.n), attempt.verdict)
            hold(known is attempt.verdict, f"{run.id}: attempt {attempt.n} was {known}, now {attempt.verdict}")
            asked = [act for act in run.acts if act.follows < attempt.n and act.kind is not Kind.CANCEL]
            hold(attempt.kind is Kind.FIRST or asked, f"{run.id}: nobody asked for attempt {attempt.n}")
        if run.phase is Phase.CLOSED:
            hold(run.verdict is not None, f"{run.id} is closed without a verdict")
            left = [one.id for one in self.builds.builds if one.run == run.id and one.phase in GOING]
            hold(not left, f"{run.id} is closed, and its builds {left} go on")
        self._check_epochs(run)
        for attempt in run.state.attempts:
            self._check_attempt(run, attempt)
            fired = self._fired(run, attempt.n)
            kept = [one for one in fired if not self._was_lost(one)]
            hold(len(kept) <= 1, f"{run.id}: {len(kept)} exit events of attempt {attempt.n}")
            failed = [one for one in fired if one.event.type == attempt.on_failure]
            wrong = failed and attempt.verdict is Verdict.SUCCEEDED
            hold(not wrong, f"{run.id}: attempt {attempt.n} succeeded after its {attempt.on_failure}")
            hold(len(fired) <= ob.LOST_EXIT_BUILDS + 1, f"{run.id}: {len(fired)} builds of one exit event")

    def _check_epochs(self, run: Run) -> None:
        newest = run.attempt
        if newest is None:
            return
        of_run = [one for one in self.builds.builds if one.run == run.id and not names.is_exit_step(one.step)]
        old = [one.id for one in of_run if one.epoch < newest.epoch and one.phase in GOING]
        hold(not old, f"{run.id}: builds {old} of before its rerun go on")

    def _check_attempt(self, run: Run, attempt: Attempt) -> None:
        key = (run.id, attempt.n)
        if attempt.verdict is None:
            if run.waiting_act is not None and run.waiting_act.follows == attempt.n:
                self._waited.add(key)
            return
        if key in self.damaged:
            return
        ended = attempt.ended or 0.0
        begun = attempt.submitted if attempt.submitted is not None else attempt.begun
        early = attempt.verdict is Verdict.TIMED_OUT and ended < begun + attempt.timeout_seconds
        hold(
            not early or self._has_late_build(run, attempt),
            f"{run.id}: attempt {attempt.n} timed out before its time",
        )
        of_epoch = {
            one.step: one.ended or 0.0
            for one in self.builds.builds
            if (one.run, one.epoch) == (run.id, attempt.epoch) and one.phase is BuildPhase.SUCCEEDED
        }
        all_succeeded = all(
            (run.id, attempt.epoch, step) in self._succeeded_once or of_epoch.get(step, ended + 1) <= ended
            for step in OPTIONS
        )
        if attempt.verdict is Verdict.SUCCEEDED:
            hold(
                key in self._roots or all_succeeded,
                f"{run.id}: attempt {attempt.n} succeeded, and nothing of it did",
            )
        if "deleted" in attempt.reason and attempt.kind is Kind.FIRST:
            earlier = all(of_epoch.get(step, ended + 1) < ended for step in OPTIONS)
            hold(
                not earlier, f"{run.id}: attempt {attempt.n} is {attempt.verdict}, and all its steps had succeeded"
            )
        if key in self._waited and attempt.verdict is not Verdict.SUCCEEDED:
            said = [
                one
                for one in self.reports.posts
                if (one.run, one.report.attempt) == key and one.report.state in FINAL
            ]
            hold(not said, f"{run.id}: attempt {attempt.n} was to be followed, and its end was posted")
            hold(
                not self._fired(run, attempt.n),
                f"{run.id}: attempt {attempt.n} was to be followed, and its event fired",
            )

    def _has_late_build(self, run: Run, attempt: Attempt) -> bool:
        return any(
            one.outcome is not None and one.outcome.ending is Ending.TIMED_OUT
            for one in self.builds.builds
            if (one.run, one.epoch) == (run.id, attempt.epoch)
        )

    def _check_build(self, build: Build) -> None:
        alike = [
            one
            for one in self.builds.builds
            if (one.run, one.epoch, one.step) == (build.run, build.epoch, build.step)
        ]
        going = [one for one in alike if one.phase in GOING]
        hold(len(going) <= 1, f"two builds of {build.step} of {build.run} go on")
        self._check_given_up(build)
        if build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED:
            self._succeeded_once.setdefault((build.run, build.epoch, build.step), build.number)

    def _check_given_up(self, build: Build) -> None:
        """Builds are ended with their run, and not before; those that a retry adopts go on."""
        run = self.runs.records.get(build.run)
        if run is None or not build.given_up.startswith("the run ended"):
            return
        attempt, following = run.attempt_numbered(build.attempt), run.attempt_numbered(build.attempt + 1)
        key = (build.run, build.attempt)
        ended = attempt is not None and attempt.verdict is not None
        hold(ended or key in self.damaged, f"{build.step} of {build.run} was ended, and its attempt goes on")
        adopts = following is not None and following.kind is Kind.RETRY and following.verdict is None
        adopted = adopts and key in self._waited - self.damaged
        hold(not adopted, f"{build.step} of {build.run} was ended, and a retry that waited adopts it")

    def _check_successes(self) -> None:
        for spec in self.builds.specs:
            known = self._succeeded_once.get((spec.run, spec.epoch, spec.step), spec.number)
            hold(spec.number <= known, f"{spec.step} of {spec.run} succeeded and was built again")

    def _check_statuses(self) -> None:
        for posted in self.reports.posts[self._judged :]:
            key = (posted.sha, posted.report.context)
            self._check_status(self._last.get(key), posted)
            self._last[key] = posted
        self._judged = len(self.reports.posts)

    def _check_status(self, before: Posted | None, after: Posted) -> None:
        if before is None:
            return
        old, new = before.report, after.report
        said = f"{before.run} {old.state} ({old.attempt}), then {after.run} {new.state} ({new.attempt})"
        if before.run != after.run:
            newer = self._order(after.run) > self._order(before.run)
            hold(newer, f"an older run spoke after a newer one: {said}")
            return
        hold(new.attempt >= old.attempt, f"an older attempt spoke after a newer one: {said}")
        if old.attempt == new.attempt and old.state in FINAL:
            stands = new.state == old.state or (new.state in FINAL and (after.run, new.attempt) in self.damaged)
            hold(stands, f"a final status did not stand: {said}")

    def _order(self, run_id: str) -> tuple[float, int]:
        run = self.runs.records.get(run_id)
        accepted = run.accepted if run is not None else self._accepted.get(run_id, 0.0)
        self._accepted[run_id] = accepted
        return accepted, self.runs._order.get(run_id, 0)

    # The end

    def settle(self) -> None:
        """Leave the world in peace, and look whether everything comes to rest in time."""
        for port in (
            self.runs,
            self.pipelines,
            self.engine,
            self.builds,
            self.reports,
            self.strays,
            self.endpoint,
        ):
            port.heal()
        self._fates.clear()
        while self.paused:
            self.resume()
            self.check()
        self.peace = self.clock.now()
        for number in self.sent - self.answered:
            self.deliver(number)
        for _ in range(ROUNDS):
            self._round()
            self.check()
            if all(self._rests(run) for run in self.runs.records.values()):
                break
            self._skip_what_is_dull()
        self._check_peace()
        self.clock.advance(RETENTION_SECONDS + 1)
        for number in range(len(self.runs.records)):
            self.control(number)
        self._tidy()
        hold(not self.runs.records, "a run is kept for longer than its retention")

    def _tidy(self) -> None:
        # The index offers the old runs; each look forgets one, and the numbers shift.
        for run_id in list(self.runs.records):
            self.controller().reconcile(run_id)

    def _skip_what_is_dull(self) -> None:
        """A run that was begun while its pipeline was away has hours."""
        deadlines = [
            (one.submitted if one.submitted is not None else one.begun) + one.timeout_seconds
            for one in (run.attempt for run in self.runs.records.values() if run.phase is not Phase.CLOSED)
            if one is not None and one.verdict is None
        ]
        dull = min(deadlines, default=0.0) - self.clock.now() - DULL_SECONDS
        if dull > 0:
            self.clock.advance(dull)

    def _rests(self, run: Run) -> bool:
        waits = any(told.waits for told in run.state.notified.values())
        return run.phase is Phase.CLOSED and run.applicable_act is None and not self.strays.of(run) and not waits

    def _round(self) -> None:
        self.lease += 1
        for run_id in list(self.runs.records):
            self.controller().reconcile(run_id)
            self.looked[run_id] = self.clock.now()
            self._play_argo(run_id)
        self.tell()
        self._check_told_in_time()
        for build in self.builds.builds:
            if build.phase in GOING and names.is_exit_step(build.step) and build.id not in self._hanging:
                self.builds.succeed(build.id)
        self.clock.advance(ROUND_SECONDS)

    def _play_argo(self, run_id: str) -> None:
        run = self.runs.records.get(run_id)
        attempt = run.attempt if run is not None else None
        if run is None or attempt is None or attempt.verdict is not None:
            return
        name = names.workflow_name(run_id, attempt.n)
        known = self.engine.executions.get(name)
        if known is None or known.root_ended or known.invalid or known.deleting or name in self.engine.needs:
            return
        for step in ("build", "test"):
            if step == "build" or self._succeeded(run, "build"):
                self._step(run_id, step, attempt.n)

    def _check_told_in_time(self) -> None:
        """What happened is told soon, also of a run that goes on, unless the endpoint was in trouble before."""
        if self.endpoint.failed:
            return
        for run in self.runs.records.values():
            told = self.endpoint.told.get(run.id, [])
            for one in implied(run):
                late = self.clock.now() - max(one.at, self.peace or 0.0) > SOON_SECONDS
                hold(not late or one.id_of(run.id) in told, f"{one.id_of(run.id)} is not told")

    def _check_told(self, run: Run) -> None:
        wanted = [one.id_of(run.id) for one in implied(run)]
        told = self.endpoint.told.get(run.id, [])
        if any(run.id == damaged for damaged, _ in self.damaged):
            return
        hold(told == wanted, f"{run.id}: the endpoint was told {told}, and what happened is {wanted}")
        for (epoch, step), known in run.state.steps.items():
            attempts = [one for one in run.state.attempts if one.epoch == epoch]
            ended = any(end.step == step for one in attempts for end in one.finished)
            needed = known.succeeded is not None and not names.is_exit_step(step)
            hold(ended or not needed, f"{run.id}: nobody is told that {step} finished")

    def _check_peace(self) -> None:
        for number in self.answered:
            run_id = names.run_id(
                project="acme/widgets", provider="github", pipeline="push", delivery=DELIVERIES[number][0]
            )
            hold(run_id in self.runs.records, f"{run_id} was accepted, and there is no run")
        newest: dict[tuple[str, str], Run] = {}
        for run in sorted(self.runs.records.values(), key=lambda run: self._order(run.id)):
            newest[run.event.revision.commit, run.context] = run
            self._check_rest(run)
            self._check_told(run)
        for key, run in newest.items():
            self._check_last_status(key, run)

    def _check_rest(self, run: Run) -> None:
        attempt = run.attempt
        if run.awaits_approval:
            hold(
                run.phase is Phase.CLOSED and run.verdict is Verdict.CANCELLED, f"{run.id} is held and not closed"
            )
            return
        hold(run.phase is Phase.CLOSED and attempt is not None, f"{run.id} is not closed")
        assert attempt is not None
        hold(run.verdict is attempt.verdict, f"{run.id} says {run.verdict}, its attempt {attempt.verdict}")
        begun = attempt.submitted if attempt.submitted is not None else attempt.begun
        due = max(self.peace or 0.0, begun + attempt.timeout_seconds) + BOUND_SECONDS
        newest = max(self._group_of(run), key=lambda one: self._order(one.id))
        if newest.event.revision.commit != run.event.revision.commit and not run.acts:
            due = min(due, max(self.peace or 0.0, newest.accepted) + SOON_SECONDS)
        seen = self._observable.get((run.id, attempt.n))
        if seen is not None and (run.id, attempt.n) not in self.damaged:
            due = min(due, max(self.peace or 0.0, seen) + SOON_SECONDS)
        hold((attempt.ended or 0.0) <= due, f"{run.id} ended {(attempt.ended or 0.0) - due:g} s too late")
        if (run.id, attempt.n) in self.suspended - self.damaged and attempt.reason.startswith("timed out after"):
            hold("suspended" in attempt.reason, f"{run.id} was suspended until its deadline: {attempt.reason}")
        left = [one.id for one in self.builds.builds if one.run == run.id and one.open]
        hold(not left, f"{run.id} is at rest, and its builds {left} are open")
        hold(not self.strays.of(run), f"{run.id} is at rest, and Workflows under its labels go on")
        for one in run.state.attempts:
            found = self.engine.executions.get(names.workflow_name(run.id, one.n))
            told = names.workflow_name(run.id, one.n) in self.engine.terminated and one is not attempt
            ended = found is None or found.finished or found.deleting or told
            hold(ended, f"{run.id} is at rest, and the Workflow of attempt {one.n} goes on")
        owes = attempt.verdict is not Verdict.SUCCEEDED and attempt.on_failure and not attempt.exit_error
        fired = self._fired(run, attempt.n)
        hold(bool(owes) == bool(fired), f"{run.id}: {len(fired)} exit events of a run that is {attempt.verdict}")
        lost = sum(self._was_lost(one) for one in fired)
        hold(lost < len(fired) or not owes or lost > ob.LOST_EXIT_BUILDS, f"{run.id}: its exit event was lost")

    def _check_last_status(self, key: tuple[str, str], run: Run) -> None:
        last = self._last.get(key)
        if self._refused and run.state.report_given_up is not None:
            return
        hold(last is not None, f"nobody ever posted a status of {run.id}")
        assert last is not None
        assert run.verdict is not None
        wanted = (run.id, run.verdict.commit_state)
        hold(
            (last.run, last.report.state) == wanted,
            f"the commit says {last.report}, and {run.id} is {run.verdict}",
        )

    # Its parts

    def _chosen(self, number: int) -> list[Run]:
        known = sorted(self.runs.records.values(), key=lambda run: self.runs._order[run.id])
        return [known[number % len(known)]] if known else []

    def _group_of(self, run: Run) -> list[Run]:
        return [one for one in self.runs.records.values() if group_of(one.event) == group_of(run.event)]

    def _newest(self, run: Run) -> str:
        return names.workflow_name(run.id, max(1, len(run.state.attempts)))

    def _change(self, number: int, **changes: Any) -> None:
        for run in self._chosen(number):
            known = self.engine.executions.get(self._newest(run))
            if known is not None and not known.root_ended and not known.finished:
                self.engine.executions[self._newest(run)] = replace(known, **changes)
                self._observe(run)
                if changes.get("root") is NodePhase.SUCCEEDED:
                    self._roots.add((run.id, max(1, len(run.state.attempts))))

    def _observe(self, run: Run) -> None:
        """From now on everybody can see that its newest attempt has come to its end."""
        self._observable.setdefault((run.id, max(1, len(run.state.attempts))), self.clock.now())

    def _survive(self, act: Callable[..., object], *args: object) -> bool:
        try:
            act(*args)
        except (Killed, BridgeError):
            return False
        return True

    def _begin_build(self, spec: BuildSpec) -> None:
        end = self._fates.pop(0) if self._fates else "succeed"
        self._end_build(spec.id, end)

    def _end_build(self, build_id: str, end: str) -> None:
        acts = {
            "succeed": self.builds.succeed,
            "fail": self.builds.break_down,
            "lose": self.builds.lose,
            "run": self.builds.start,
        }
        if end in acts:
            acts[end](build_id)
        if end in {"run", "wait"}:
            self._hanging.add(build_id)

    def _fired(self, run: Run, attempt: int) -> list[BuildSpec]:
        return [spec for spec in self.builds.specs if (spec.run, spec.step) == (run.id, names.exit_step(attempt))]

    def _was_lost(self, spec: BuildSpec) -> bool:
        return spec.id in self._lost

    def _succeeded(self, run: Run, step: str) -> bool:
        epoch = run.attempt.epoch if run.attempt else 1
        ended = [
            one
            for one in self.builds.builds
            if (one.run, one.epoch, one.step) == (run.id, epoch, step)
            and one.outcome is not None
            and one.outcome.ending is Ending.SUCCEEDED
        ]
        return bool(ended) or run.step(epoch, step).succeeded is not None

    def _step(self, run_id: str, step: str, attempt: int) -> None:
        stepping = Stepping(self.runs, self.builds, self.clock, lambda _: None, lambda _: None)
        self._patience = PATIENCE

        def impatient() -> None:
            self._patience -= 1
            if self._patience < 0:
                raise Interrupted

        code = None
        self.clock.on_sleep.append(impatient)
        try:
            code = stepping.answer(Key(run_id, attempt, step), OPTIONS[step]).code
        except (Killed, BridgeError):
            pass
        finally:
            self.clock.on_sleep.remove(impatient)
        if code in {0, 2, 3, 69, 124}:
            self._node(run_id, step, attempt, code)

    def _node(self, run_id: str, step: str, attempt: int, code: int) -> None:
        """Argo sees a step's process end, and ends the root node when there is nothing left to do."""
        known = self.engine.executions.get(names.workflow_name(run_id, attempt))
        if known is None or known.root_ended or known.invalid or known.deleting:
            return
        phase = NodePhase.SUCCEEDED if code == 0 else NodePhase.FAILED
        nodes = {node.step: node for node in known.nodes} | {step: Node(step, phase, code)}
        self.engine.set(run_id, attempt, nodes=tuple(nodes.values()))
        if code != 0:
            self.engine.set(run_id, attempt, root=NodePhase.FAILED, finished=True)
        elif all(name in nodes and nodes[name].exit_code == 0 for name in OPTIONS):
            self.engine.set(run_id, attempt, root=NodePhase.SUCCEEDED, finished=True)
            self._roots.add((run_id, attempt))


def _without_verdict(run: Run) -> Run:
    assert run.attempt is not None
    newest = replace(run.attempt, verdict=None, reason="", ended=None)
    state = replace(run.state, attempts=(*run.state.attempts[:-1], newest))
    return replace(run, phase=Phase.RUNNING, verdict=None, reason="", closed=None, state=state)


def _of_handlers(action: ob.Action) -> bool:
    return isinstance(action, ob.Settle | ob.Mirror | ob.End | ob.Fire)


def _with(act: Act, run: Run) -> Run:
    return with_act(run, act)


_numbers = st.integers(0, 3)
_PORTS = {
    "runs": (ports.Runs, ("read", "payload")),
    "engine": (ports.Engine, ("observe",)),
    "builds": (ports.Builds, ("find", "log")),
    "reports": (ports.Reports, ()),
    "strays": (Strays, ()),
    "endpoint": (ports.Outbound, ()),
}
CALLS = sorted(
    f"{port}.{method}"
    for port, (kind, reads) in _PORTS.items()
    for method in (*ports.writing_methods(kind), *reads)
)
"""Every writing call of the ports, by their marks, and some that read."""
OPERATIONS: dict[str, st.SearchStrategy[Operation]] = {
    "deliver": st.tuples(_numbers),
    "control": st.tuples(_numbers),
    "exit_handler": st.tuples(_numbers),
    "pause": st.tuples(_numbers, st.sampled_from(["controller", "handler"]), st.integers(0, 1)),
    "damage": st.tuples(_numbers),
    "resume": st.tuples(),
    "step": st.tuples(_numbers, st.sampled_from(["build", "test"]), st.integers(0, 1)),
    "fate": st.tuples(st.sampled_from(["succeed", "fail", "lose", "run", "wait"])),
    "end_build": st.tuples(st.sampled_from(["succeed", "fail", "lose"])),
    "vacuum": st.tuples(st.booleans()),
    "delete": st.tuples(_numbers, st.booleans()),
    "refuse": st.tuples(_numbers),
    "end_workflow": st.tuples(_numbers, st.sampled_from(["Stop", "Terminate"])),
    "linger": st.tuples(_numbers, st.sampled_from(["Succeeded", "Failed"])),
    "deaf": st.tuples(_numbers, st.integers(ob.TOUCH, ob.DELETE)),
    "suspend": st.tuples(_numbers),
    "copy": st.tuples(_numbers),
    "argo_retry": st.tuples(_numbers),
    "ask": st.tuples(_numbers, st.sampled_from(["retry", "rerun", "cancel", "approve"]), st.integers(0, 1)),
    "unpublish": st.tuples(st.booleans()),
    "github": st.tuples(st.sampled_from(["500", "403", "422", "reset"]), st.integers(1, 5)),
    "lose_repository": st.tuples(),
    "tell": st.tuples(),
    "fail": st.tuples(
        st.sampled_from(CALLS), st.sampled_from(["before", "after"]), st.sampled_from(["dies", "lost"])
    ),
    "wait": st.tuples(st.sampled_from([1, 30, 200, 700, 3600])),
}
_KEYWORDS = {"vacuum": "volume", "unpublish": "back", "delete": "held"}


def _named(name: str, args: tuple[Any, ...]) -> Operation:
    return (name, *args)


def operations() -> st.SearchStrategy[Operation]:
    """Any operation, with its arguments."""
    made = {name: args.map(partial(_named, name)) for name, args in OPERATIONS.items()}
    return st.one_of([*made.values(), *[made["control"]] * 6, *[made["step"]] * 2])


def apply(world: World, operation: Operation) -> None:
    """Do it, and look whether everything holds."""
    name, *args = operation
    keyword = _KEYWORDS.get(name)
    more = {keyword: args.pop()} if keyword else {}
    getattr(world, name)(*args, **more)
    world.check()


def play(history: Sequence[Operation]) -> World:
    """A whole history and its peaceful end. Raises Violated."""
    world = World()
    for operation in history:
        apply(world, operation)
    world.settle()
    return world
