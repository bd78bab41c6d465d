"""The run record and its life: accepted, running, closed. Every change is a function from a record to a record.

All changes are idempotent: applied to a record that has them already they return it unchanged, so a writer
that lost its answer, or met a conflict, applies them again to what it reads (design.md, The record).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bridge.core.events import Event
from bridge.core.verdicts import Verdict

REPEAT_SECONDS = 7 * 86400.0
"""So long a repeated delivery is recognised by its record: however many runs there are, none is forgotten earlier
(design.md, The record)."""


class Phase(StrEnum):
    """Where a run is in its life."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    CLOSED = "closed"


class Kind(StrEnum):
    """Why an attempt exists, and what an act asks for. `FIRST` is no act; `CANCEL` makes no attempt, and by
    `APPROVE` the first one of a held run begins."""

    FIRST = "first"
    RETRY = "retry"
    RERUN = "rerun"
    CANCEL = "cancel"
    APPROVE = "approve"


@dataclass(frozen=True)
class Act:
    """What a person asked for: the one way in which a run can be moved from outside."""

    kind: Kind
    request: str
    """Makes a repeated request recognisable."""
    follows: int
    """The attempt that whoever asked was looking at."""
    who: str = ""
    source: str = ""
    """From where: `cli`, `api`, …"""
    at: float = 0.0
    only: tuple[str, ...] = ()
    """Retry these steps alone; empty is all that did not succeed."""


@dataclass(frozen=True)
class StepEnd:
    """How a step ended in an attempt; kept where somebody has to be told."""

    step: str
    verdict: Verdict
    at: float
    reason: str = ""
    build: str = ""
    """The id of the build that decided it; empty if none did."""


@dataclass(frozen=True)
class Told:
    """What an endpoint was told of a run."""

    upto: int = 0
    """So many of the run's notifications it has, or will never get (core/notifications.py)."""
    given_up: int = 0
    """How many of them it will never get."""
    error: str = ""
    """Why, for people: of the last one."""
    waits: bool = False
    """The run is closed, and there is more to tell."""


@dataclass(frozen=True)
class Attempt:
    """One Workflow of a run. It is written into the record before its Workflow is created."""

    n: int
    kind: Kind
    epoch: int
    """The attempt that began the epoch (design.md: `from`); builds of an older epoch do not count."""
    begun: float
    only: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    """The step names of the template at submission."""
    native: tuple[str, ...] = ()
    """Those of them that are no `brig run`: no build tells how they went."""
    timeout_seconds: float = 7200.0
    """The pipeline's run timeout when it began; counted from `submitted`."""
    on_failure: str = ""
    """The event to fire when it did not succeed; empty is none."""
    on_success: str = ""
    """The event to fire when it succeeded; empty is none."""
    exit_timeout_seconds: float = 600.0
    """How long that event's build may run."""
    exit_error: str = ""
    """Why that event could not be fired, and never will be."""
    uid: str = ""
    """The Workflow's; empty until it is known to be created."""
    submitted: float | None = None
    """When the controller began to count the deadline."""
    rung: int = 0
    """How many rungs of the escalation have been taken."""
    waits: str = ""
    """What keeps its Workflow from going on, or did when it was made to end; empty: nothing that Argo tells of."""
    ended: float | None = None
    verdict: Verdict | None = None
    reason: str = ""
    """Why, for people; at most a line."""
    finished: tuple[StepEnd, ...] = ()
    """The ends of its steps, in the order in which they were seen; empty where nobody has to be told."""


class NodePart(StrEnum):
    """How far a native step's node has come."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ERROR = "error"


@dataclass(frozen=True)
class NodeState:
    """What the record remembers of a native step's node in its Workflow, which is swept away."""

    attempt: int
    """Each attempt runs native steps anew."""
    part: NodePart
    started: float | None = None
    ended: float | None = None
    reason: str = ""
    """Why it did not succeed; at most a line."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is in the way of what needs it."""
        return self.part in {NodePart.SUCCEEDED, NodePart.SKIPPED}


@dataclass(frozen=True)
class StepState:
    """What the record remembers of a step's builds in an epoch, because builds are swept away."""

    succeeded: int | None = None
    """The number of a build that succeeded."""
    highest: int = 0
    """The highest number ever used."""
    unhandled: bool = False
    """It succeeded only because nobody handles its events and the pipeline allows that."""
    node: NodeState | None = None
    """Of a native step, or of one that was skipped: how its node stood when it was last seen."""


@dataclass(frozen=True)
class Report:
    """A commit status."""

    context: str
    state: str
    """`pending`, `success`, `failure` or `error`."""
    description: str
    attempt: int

    @property
    def is_final(self) -> bool:
        """Whether it tells of an end."""
        return self.state != "pending"

    def is_older_than(self, other: "Report") -> bool:
        """Whether `other` tells of what came later: another attempt, or this one's end."""
        if self.attempt != other.attempt:
            return self.attempt < other.attempt
        return other.is_final and not self.is_final


@dataclass(frozen=True)
class State:
    """What the controller remembers of a run."""

    attempts: tuple[Attempt, ...] = ()
    steps: Mapping[tuple[int, str], StepState] = field(default_factory=dict)
    """By (epoch, step)."""
    reported: Report | None = None
    """The last status that the git host or the board acknowledged."""
    reported_to: str = ""
    """Who acknowledged it: `github`, `board`."""
    report_given_up: Report | None = None
    """A status that cannot be delivered, whatever is done."""
    report_error: str = ""
    """Why the last post did not work, for people."""
    report_after: float = 0.0
    """Do not post before this time."""
    report_failures: int = 0
    """Posts in a row that did not work."""
    report_pending_after: float = 0.0
    """Do not post a pending one before this time; a final one need not wait."""
    report_overwritten: int = 0
    """How often in a row a final status was taken and another one was on top of it."""
    report_unsure_until: float = 0.0
    """A post got no answer and may be taken until then, on top of what comes meanwhile: a final status that is
    acknowledged earlier is looked at once more."""
    closings: Mapping[int, float] = field(default_factory=dict)
    """When the run was closed, by its newest attempt then (0: none); empty where nobody has to be told."""
    notified: Mapping[str, Told] = field(default_factory=dict)
    """By the endpoint's name."""
    held: str = ""
    """Why the run may not begin before somebody with rights approves it, for people; empty: it may. It is written
    with the record and stays when it was approved."""


@dataclass(frozen=True)
class Run:
    """One event × one pipeline. `event` here never holds the payload: ask `Runs.payload` for it."""

    id: str
    pipeline: str
    event: Event
    context: str
    """The context of its commit status."""
    digest: str
    """A hash of the event with its payload: the same delivery with another body is told apart."""
    accepted: float
    phase: Phase = Phase.ACCEPTED
    verdict: Verdict | None = None
    reason: str = ""
    closed: float | None = None
    acts: tuple[Act, ...] = ()
    state: State = State()
    version: str = ""
    """What a change must find unchanged; the store's business."""

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.state.attempts[-1] if self.state.attempts else None

    @property
    def held(self) -> str:
        """Why it may not begin before somebody approves it; empty if it may. It stays when it was approved."""
        return self.state.held

    @property
    def awaits_approval(self) -> bool:
        """Whether it is held and nobody has approved it yet: nothing of it may run."""
        return bool(self.held) and not any(act.kind is Kind.APPROVE for act in self.acts)

    @property
    def owes_notifications(self) -> bool:
        """Whether it is closed and an endpoint has to be told of it yet."""
        return self.phase is Phase.CLOSED and any(told.waits for told in self.state.notified.values())

    def attempt_numbered(self, n: int) -> Attempt | None:
        """Attempt `n`, if the record has it."""
        return next((attempt for attempt in self.state.attempts if attempt.n == n), None)

    @property
    def waiting_act(self) -> Act | None:
        """The retry, rerun or approval that follows the newest attempt, the earliest asked for. One that follows
        an older attempt has its successor already and waits no more."""
        begins = {Kind.RETRY, Kind.RERUN}
        return self._waiting(begins if self.attempt is not None else begins | {Kind.APPROVE})

    @property
    def applicable_act(self) -> Act | None:
        """The waiting act, unless there is nothing to do for it: of a success there is nothing to retry, and what
        is held has to be approved first."""
        act = self.waiting_act
        if self.awaits_approval:
            return None
        if act is None or self.attempt is None:
            return act
        nothing = act.kind is Kind.RETRY and self.attempt.verdict is Verdict.SUCCEEDED
        return None if nothing else act

    @property
    def waiting_cancel(self) -> Act | None:
        """The cancel of the newest attempt; of the first also one that was asked for before it began."""
        first = self.attempt is not None and self.attempt.n == 1
        return self._waiting({Kind.CANCEL}, also=(0,) if first else ())

    def _waiting(self, kinds: set[Kind], *, also: tuple[int, ...] = ()) -> Act | None:
        follows = {self.attempt.n if self.attempt else 0, *also}
        return next((act for act in self.acts if act.kind in kinds and act.follows in follows), None)

    def step(self, epoch: int, step: str) -> StepState:
        """What is remembered of `step` in `epoch`."""
        return self.state.steps.get((epoch, step), StepState())


def with_act(run: Run, act: Act) -> Run:
    """`run` with one more act; the same request is kept once. A closed run that has to go on is open again,
    so that whoever looks at open runs finds it."""
    if any(known.request == act.request for known in run.acts):
        return run
    changed = replace(run, acts=(*run.acts, act))
    if changed.phase is not Phase.CLOSED or changed.applicable_act is None:
        return changed
    return replace(changed, phase=Phase.RUNNING, verdict=None, reason="", closed=None)


def with_attempt(run: Run, attempt: Attempt) -> Run:
    """`run` with a new attempt begun, open again if it was closed."""
    if run.attempt is not None and run.attempt.n >= attempt.n:
        return run
    state = replace(
        run.state,
        attempts=(*run.state.attempts, attempt),
        report_given_up=None,
        report_error="",
        report_after=0.0,
        report_failures=0,
        report_pending_after=0.0,
        report_overwritten=0,
    )
    return replace(run, phase=Phase.RUNNING, verdict=None, reason="", closed=None, state=state)


def with_submission(run: Run, n: int, *, uid: str, at: float) -> Run:
    """`run` knowing the Workflow of attempt `n`; the first knowledge stands."""
    attempt = run.attempt_numbered(n)
    if attempt is None or attempt.uid:
        return run
    return _with_changed(run, replace(attempt, uid=uid, submitted=at))


def with_rung(run: Run, n: int, rung: int) -> Run:
    """`run` with `rung` rungs of the escalation of attempt `n` taken."""
    attempt = run.attempt_numbered(n)
    if attempt is None or attempt.rung >= rung:
        return run
    return _with_changed(run, replace(attempt, rung=rung))


def with_waits(run: Run, n: int, waits: str) -> Run:
    """`run` knowing what attempt `n` waits for; once it has ended, or is made to, that stands."""
    attempt = run.attempt_numbered(n)
    if attempt is None or attempt.verdict is not None or attempt.rung > 1:
        return run
    return _with_changed(run, replace(attempt, waits=waits))


def with_end(run: Run, n: int, *, verdict: Verdict, reason: str, at: float) -> Run:
    """`run` with attempt `n` ended; the first verdict stands."""
    attempt = run.attempt_numbered(n)
    if attempt is None or attempt.verdict is not None:
        return run
    return _with_changed(run, replace(attempt, verdict=verdict, reason=reason, ended=at))


def with_exit_given_up(run: Run, n: int, *, error: str) -> Run:
    """`run` with the exit event of attempt `n` not tried any more."""
    attempt = run.attempt_numbered(n)
    if attempt is None or attempt.exit_error:
        return run
    return _with_changed(run, replace(attempt, exit_error=error))


def with_step(run: Run, epoch: int, step: str, seen: StepState) -> Run:
    """`run` remembering what was seen of a step's builds; numbers only grow and a success stays."""
    known = run.step(epoch, step)
    merged = StepState(
        succeeded=known.succeeded if known.succeeded is not None else seen.succeeded,
        highest=max(known.highest, seen.highest),
        unhandled=known.unhandled or seen.unhandled,
        node=newer_node(known.node, seen.node),
    )
    if merged == known:
        return run
    steps = {**run.state.steps, (epoch, step): merged}
    return replace(run, state=replace(run.state, steps=steps))


def newer_node(known: NodeState | None, seen: NodeState | None) -> NodeState | None:
    """Of two states of a node that of the higher attempt; within one, an end stands."""
    if known is None or seen is None:
        return known or seen
    if known.attempt != seen.attempt:
        return max(known, seen, key=lambda one: one.attempt)
    return seen if known.part is NodePart.RUNNING else known


def with_report(run: Run, report: Report, *, to: str, at: float = 0.0) -> Run:
    """`run` with `report` acknowledged at `at`. A closed run, which is owed none any more, keeps a newer one."""
    known = run.state.reported
    if run.phase is Phase.CLOSED and known is not None and report.is_older_than(known):
        return run
    state = replace(
        run.state,
        reported=report,
        reported_to=to,
        report_error="",
        report_after=0.0,
        report_failures=0,
        report_pending_after=0.0,
        report_overwritten=0,
        report_unsure_until=run.state.report_unsure_until if at < run.state.report_unsure_until else 0.0,
    )
    return replace(run, state=state)


def with_report_put_off(
    run: Run, *, error: str, until: float, pending_only: bool = False, failed: bool = True
) -> Run:
    """`run` with its next post not before `until`.

    Args:
        run: the record.
        error: why, for people.
        until: seconds since the epoch.
        pending_only: a final status need not wait.
        failed: somebody was asked and did not take it.

    """
    failures = run.state.report_failures + int(failed)
    state = replace(run.state, report_error=error, report_failures=failures)
    if pending_only:
        return replace(run, state=replace(state, report_pending_after=until))
    return replace(run, state=replace(state, report_after=until))


def with_report_unsure(run: Run, *, until: float) -> Run:
    """`run` with a post that may be taken until then though nobody answered."""
    until = max(until, run.state.report_unsure_until)
    return replace(run, state=replace(run.state, report_unsure_until=until))


def with_report_overwritten(run: Run, *, error: str, until: float) -> Run:
    """`run` with a final status owed again, not before `until`, since another one was on top of it."""
    overwritten = run.state.report_overwritten + 1
    state = replace(run.state, report_error=error, report_after=until, report_overwritten=overwritten)
    return replace(run, state=state)


def with_report_given_up(run: Run, report: Report, *, error: str) -> Run:
    """`run` with a status that is not tried again."""
    return replace(run, state=replace(run.state, report_given_up=report, report_error=error))


def with_step_ends(run: Run, n: int, ends: tuple[StepEnd, ...]) -> Run:
    """`run` with these ends of steps of attempt `n`; the first end of a step stands. Nothing is added any more
    once there is a newer attempt or the run was closed with this one."""
    attempt = run.attempt
    if attempt is None or attempt.n != n or n in run.state.closings:
        return run
    known = {end.step for end in attempt.finished}
    new = tuple(end for end in ends if end.step not in known)
    return _with_changed(run, replace(attempt, finished=(*attempt.finished, *new))) if new else run


def with_told(run: Run, endpoint: str, told: Told) -> Run:
    """`run` knowing what `endpoint` was told; what was told already is not told less."""
    known = run.state.notified.get(endpoint, Told())
    if told.upto < known.upto or told == known:
        return run
    return replace(run, state=replace(run.state, notified={**run.state.notified, endpoint: told}))


def closed(run: Run, *, at: float, tell: tuple[str, ...] = ()) -> Run:
    """`run` closed with its newest attempt's verdict. An attempt that has not ended cannot be closed; a held run
    that nobody approved is closed as cancelled, until somebody does. `tell`: the endpoints that are told."""
    attempt = run.attempt
    if run.phase is not Phase.CLOSED and attempt is None and run.awaits_approval:
        ended = replace(run, phase=Phase.CLOSED, verdict=Verdict.CANCELLED, reason=run.held, closed=at)
        return _with_closing(ended, 0, at, tell)
    if run.phase is Phase.CLOSED or attempt is None or attempt.verdict is None:
        return run
    ended = replace(run, phase=Phase.CLOSED, verdict=attempt.verdict, reason=attempt.reason, closed=at)
    return _with_closing(ended, attempt.n, at, tell)


def _with_closing(run: Run, n: int, at: float, tell: tuple[str, ...]) -> Run:
    if not tell:
        return run
    state = run.state
    notified = {name: replace(state.notified.get(name, Told()), waits=True) for name in tell}
    return replace(
        run,
        state=replace(state, closings={**state.closings, n: at}, notified={**state.notified, **notified}),
    )


def _with_changed(run: Run, changed: Attempt) -> Run:
    attempts = tuple(changed if attempt.n == changed.n else attempt for attempt in run.state.attempts)
    return replace(run, state=replace(run.state, attempts=attempts))
