"""What the world still owes a run: `owed(run, seen) → actions`, and nothing more once nothing is owed.

Level-triggered: it remembers no event, only compares what is with what should be, so asking twice, or after a
restart, is harmless. The actions come in the order in which they are to be applied; each is idempotent.
"""

from dataclasses import dataclass, replace

from bridge.core import names
from bridge.core.builds import Build, BuildPhase, Ending
from bridge.core.endings import gone_end, node_state, root_end
from bridge.core.executions import Execution
from bridge.core.exits import exit_event_of
from bridge.core.notifications import Subscriber, step_ends, subscribers_of, waiting
from bridge.core.pipelines import Pipeline
from bridge.core.reports import final_report, held_report, pending_report
from bridge.core.runs import Act, Attempt, Kind, Phase, Report, Run, StepEnd, StepState, newer_node
from bridge.core.strays import Stray, retry_of
from bridge.core.verdicts import Verdict
from bridge.core.waiting import waits_for

RUNG_SECONDS = 60.0
"""Between two rungs of the escalation past a deadline."""
TOUCH, STOP, TERMINATE, DELETE = 1, 2, 3, 4
"""The rungs, in order (facts/argo.md: what ends a Workflow that does not end by itself)."""
PROMPT_SECONDS = 30.0
"""What can be done is done within this time."""
LINGER_SECONDS = 180.0
"""How long a Workflow may outlive its root node, behind its exit pod."""
START_SECONDS = 300.0
"""How long an exit event's build may wait for its worker."""
LOST_EXIT_BUILDS = 5
"""How often an exit event's lost build is made again."""


@dataclass(frozen=True)
class Seen:
    """What was observed of a run's surroundings, just now."""

    now: float
    pipeline: Pipeline | None
    """None: there is none of this name, or it cannot be read."""
    execution: Execution | None
    """Of the newest attempt; None: nothing is there."""
    builds: tuple[Build, ...]
    """All of the run's."""
    speaks: bool = True
    """No run with the same sha and context was accepted later: this one may post its status."""
    retention_seconds: float | None = None
    """Closed for so long, a run is forgotten; None: never."""
    pipeline_error: str = ""
    subscribers: tuple[Subscriber, ...] = ()
    """The endpoints that are told of some run's life."""
    superseded_by: str = ""
    """The commit in whose favour the newest attempt has to end; empty: there is none."""
    strays: tuple[Stray, ...] = ()
    """Workflows under the run's labels that have to end."""


@dataclass(frozen=True)
class Begin:
    """Write a new attempt into the record."""

    attempt: Attempt


@dataclass(frozen=True)
class Submit:
    """Create the attempt's Workflow and write down its uid."""

    n: int


@dataclass(frozen=True)
class Escalate:
    """Take a rung: make the Workflow end."""

    n: int
    rung: int


@dataclass(frozen=True)
class Note:
    """Remember what keeps the attempt's Workflow from going on; empty: nothing any more."""

    n: int
    waits: str


@dataclass(frozen=True)
class Settle:
    """A build ended and nobody wrote down what it came to: read its log and do it."""

    build: Build


@dataclass(frozen=True)
class Mirror:
    """Remember in the record what is known of a step's builds."""

    epoch: int
    step: str
    seen: StepState


@dataclass(frozen=True)
class End:
    """Write the attempt's verdict into the record."""

    n: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """End a build for good."""

    build: Build
    ending: Ending
    reason: str


@dataclass(frozen=True)
class Fire:
    """Create the exit event's build."""

    n: int
    event: str
    number: int


@dataclass(frozen=True)
class Post:
    """Deliver a commit status."""

    report: Report


@dataclass(frozen=True)
class Finish:
    """Remember how steps ended, for those that are told."""

    n: int
    ends: tuple[StepEnd, ...]


@dataclass(frozen=True)
class Notify:
    """Tell an endpoint what it has not been told yet. It may take days, and nothing waits for it."""

    endpoint: str


@dataclass(frozen=True)
class Close:
    """Close the run."""

    tell: tuple[str, ...] = ()
    """The endpoints that are told of the run; they are written down with its end."""


@dataclass(frozen=True)
class Forget:
    """Remove the run, its builds and its Workflows."""


@dataclass(frozen=True)
class Ask:
    """Write an act into the record that somebody took by Argo's own means."""

    act: Act


@dataclass(frozen=True)
class EndStray:
    """End a Workflow that is not for bridge to follow."""

    stray: Stray


Action = (
    Begin
    | Submit
    | Escalate
    | Note
    | Settle
    | Mirror
    | End
    | GiveUp
    | Fire
    | Post
    | Finish
    | Notify
    | Close
    | Forget
    | Ask
    | EndStray
)


def owed(run: Run, seen: Seen) -> tuple[Action, ...]:
    """The actions that `run` still lacks, in order. Empty: wait until something changes or time passes."""
    # An act is on record before the Workflow ends that stood for it.
    ending = tuple(EndStray(stray) for stray in seen.strays)
    told = subscribers_of(run, seen.pipeline, seen.subscribers)
    owing = _with_finishing(run, _owed(run, seen), seen) if told else _owed(run, seen)
    names_told = tuple(one.name for one in told)
    owing = tuple(Close(names_told) if isinstance(action, Close) else action for action in owing)
    return (*owing, *_asked(run, seen), *ending, *(Notify(name) for name in waiting(run, told)))


def _with_finishing(run: Run, actions: tuple[Action, ...], seen: Seen) -> tuple[Action, ...]:
    """What is owed, and the ends of steps: before they cannot be added any more, else after all that is urgent."""
    attempt = run.attempt
    if attempt is None or run.phase is Phase.CLOSED:
        return actions
    ends = step_ends(run, attempt, seen.execution, seen.builds, now=seen.now)
    if not ends:
        return actions
    finish = Finish(attempt.n, ends)
    last_chance = any(isinstance(action, Begin | Close) for action in actions)
    return (finish, *actions) if last_chance else (*actions, finish)


def _owed(run: Run, seen: Seen) -> tuple[Action, ...]:
    attempt = run.attempt
    if attempt is None and run.awaits_approval:
        return _of_held(run, seen)
    if attempt is None:
        return (Begin(_first_attempt(seen)),)
    if run.phase is Phase.CLOSED and run.applicable_act is None:
        return () if seen.strays else _kept(run, seen)
    settling = tuple(Settle(build) for build in seen.builds if _ended_unsettled(build))
    if settling:
        return settling
    mirroring = _mirroring(run, seen)
    if mirroring:
        return mirroring
    overdue = _overdue_exits(run, seen)
    if attempt.verdict is None:
        return (*overdue, *_of_running(run, attempt, seen))
    return (*overdue, *_of_ended(run, attempt, attempt.verdict, seen))


def _of_held(run: Run, seen: Seen) -> tuple[Action, ...]:
    """What is owed to a run that may not begin: a status that says what a maintainer has to do, and its end."""
    if run.phase is Phase.CLOSED:
        return () if seen.strays else _kept(run, seen)
    report = held_report(run)
    return _posting(run, report, seen) or ((Close(),) if _settled(run, report, seen) else ())


def _asked(run: Run, seen: Seen) -> tuple[Ask, ...]:
    found = (retry_of(run, stray, now=seen.now) for stray in seen.strays)
    return tuple(Ask(act) for act in found if act is not None)


def _first_attempt(seen: Seen) -> Attempt:
    return _attempt(1, Kind.FIRST, 1, seen, only=())


def _attempt(n: int, kind: Kind, epoch: int, seen: Seen, *, only: tuple[str, ...]) -> Attempt:
    pipeline = seen.pipeline
    if pipeline is None:
        return Attempt(n=n, kind=kind, epoch=epoch, begun=seen.now, only=only)
    return Attempt(
        n=n,
        kind=kind,
        epoch=epoch,
        begun=seen.now,
        only=only,
        steps=tuple(step.name for step in pipeline.steps),
        native=tuple(step.name for step in pipeline.steps if step.native),
        timeout_seconds=pipeline.timeout_seconds,
        on_failure=pipeline.exit.on_failure,
        on_success=pipeline.exit.on_success,
        exit_timeout_seconds=pipeline.exit.timeout_seconds,
    )


def _kept(run: Run, seen: Seen) -> tuple[Action, ...]:
    if run.closed is None or seen.retention_seconds is None:
        return ()
    return (Forget(),) if seen.now >= run.closed + seen.retention_seconds else ()


def _ended_unsettled(build: Build) -> bool:
    ended = build.phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED, BuildPhase.GONE}
    return build.outcome is None and (ended or build.given_up_as is not None)


def _mirroring(run: Run, seen: Seen) -> tuple[Mirror, ...]:
    """What the record should remember of the builds there are, and does not yet."""
    known: dict[tuple[int, str], StepState] = {}
    for build in seen.builds:
        key = (build.epoch, build.step)
        known[key] = _with_build(known.get(key, run.step(*key)), build)
    known |= _unhandled_steps(run, seen, known)
    known |= _nodes(run, seen, known)
    return tuple(Mirror(*key, state) for key, state in known.items() if state != run.step(*key))


def _with_build(state: StepState, build: Build) -> StepState:
    succeeded = state.succeeded
    if succeeded is None and build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED:
        succeeded = build.number
    return replace(state, succeeded=succeeded, highest=max(state.highest, build.number))


def _unhandled_steps(
    run: Run, seen: Seen, known: dict[tuple[int, str], StepState]
) -> dict[tuple[int, str], StepState]:
    """Steps whose node succeeded though their newest build found no handler: the pipeline allows that."""
    attempt, execution = run.attempt, seen.execution
    if attempt is None or execution is None:
        return {}
    succeeded = {node.step for node in execution.nodes if node.exit_code == 0}
    newest = {build.step: build.outcome for build in seen.builds if build.epoch == attempt.epoch}
    unhandled = {step for step, outcome in newest.items() if outcome and outcome.ending is Ending.UNHANDLED}
    return {
        (attempt.epoch, step): replace(known[attempt.epoch, step], unhandled=True)
        for step in unhandled & succeeded
    }


def _nodes(run: Run, seen: Seen, known: dict[tuple[int, str], StepState]) -> dict[tuple[int, str], StepState]:
    """How the nodes stand that no build tells of: before the Workflow is gone, or is made to end."""
    attempt, execution = run.attempt, seen.execution
    if attempt is None or execution is None or attempt.verdict is not None:
        return {}
    found: dict[tuple[int, str], StepState] = {}
    for node in execution.nodes:
        state = node_state(attempt, node)
        key = (attempt.epoch, node.step)
        if state is not None and node.step in attempt.steps:
            before = known.get(key, run.step(*key))
            found[key] = replace(before, node=newer_node(before.node, state))
    return found


def _of_running(run: Run, attempt: Attempt, seen: Seen) -> tuple[Action, ...]:
    """What is owed to an attempt without a verdict."""
    posting = _posting(run, pending_report(run), seen)
    execution = seen.execution
    if execution is not None and execution.root_ended:
        return (End(attempt.n, *root_end(run, attempt, execution, seen.builds)),)
    cancel = run.waiting_cancel
    if cancel is not None:
        return (End(attempt.n, Verdict.CANCELLED, _cancelled_by(cancel)),)
    if seen.superseded_by:
        return (End(attempt.n, Verdict.CANCELLED, f"superseded by {seen.superseded_by}"),)
    if not attempt.uid:
        if seen.pipeline is None and execution is None:
            return (End(attempt.n, Verdict.ERROR, _no_pipeline(run, seen)),)
        return (*posting, Submit(attempt.n))
    if execution is None or execution.deleting or execution.invalid:
        return (End(attempt.n, *gone_end(run, attempt, execution, seen.builds)),)
    noting = _noting(attempt, execution, seen)
    rung = attempt.rung + 1
    if rung <= DELETE and seen.now >= _rung_due(attempt, rung):
        return (*posting, *noting, Escalate(attempt.n, rung))
    return (*posting, *noting)


def _noting(attempt: Attempt, execution: Execution, seen: Seen) -> tuple[Note, ...]:
    """What Argo tells only until the Workflow is made to end."""
    if attempt.rung > TOUCH:
        return ()
    waits = waits_for(execution, submitted=attempt.submitted, now=seen.now)
    return (Note(attempt.n, waits),) if waits != attempt.waits else ()


def _rung_due(attempt: Attempt, rung: int) -> float:
    submitted = attempt.submitted if attempt.submitted is not None else attempt.begun
    return submitted + attempt.timeout_seconds + RUNG_SECONDS * (rung - 1)


def _cancelled_by(cancel: Act) -> str:
    return f"cancelled by {cancel.who}" if cancel.who else "cancelled"


def _no_pipeline(run: Run, seen: Seen) -> str:
    return seen.pipeline_error or f"pipeline {run.pipeline} is not there any more"


def _of_ended(run: Run, attempt: Attempt, verdict: Verdict, seen: Seen) -> tuple[Action, ...]:
    """What is owed to an attempt with a verdict."""
    act = run.applicable_act
    lingering = seen.execution is not None and not seen.execution.finished and not seen.execution.deleting
    if act is not None:
        ending = (Escalate(attempt.n, TERMINATE),) if lingering and attempt.rung < TERMINATE else ()
        stale = _left_over(seen, verdict) if act.kind is Kind.RERUN else ()
        return (*stale, *ending, Begin(_next_attempt(act, attempt, seen)))
    stale = _left_over(seen, verdict)
    if stale:
        return stale
    firing = _firing(run, attempt, verdict, seen)
    report = final_report(run, attempt, verdict)
    posting = _posting(run, report, seen)
    # The status waits for nothing: neither for the exit event nor for whatever keeps that from being fired.
    actions: tuple[Action, ...] = (*_ending(attempt, seen, lingering=lingering), *posting, *firing)
    if actions or lingering:
        return actions
    return (Close(),) if _settled(run, report, seen) else ()


def _next_attempt(act: Act, attempt: Attempt, seen: Seen) -> Attempt:
    n = attempt.n + 1
    epoch = n if act.kind is Kind.RERUN else attempt.epoch
    return _attempt(n, act.kind, epoch, seen, only=act.only)


def _left_over(seen: Seen, verdict: Verdict) -> tuple[GiveUp, ...]:
    """The open builds of steps; the exit event's is exempt."""
    ending = Ending.TIMED_OUT if verdict is Verdict.TIMED_OUT else Ending.CANCELLED
    return tuple(
        GiveUp(build, ending, f"the run ended: {verdict}")
        for build in seen.builds
        if build.open and not names.is_exit_step(build.step)
    )


def _ending(attempt: Attempt, seen: Seen, *, lingering: bool) -> tuple[Escalate, ...]:
    """Rungs for a Workflow that outlives its verdict: at once while its steps go on, as after a cancel; its exit
    handler, which may be somebody else's, gets time to end."""
    if not lingering or attempt.ended is None or seen.execution is None:
        return ()
    patience = LINGER_SECONDS if seen.execution.root_ended else 0.0
    if attempt.rung < TERMINATE:
        return (Escalate(attempt.n, TERMINATE),) if seen.now >= attempt.ended + patience else ()
    if attempt.rung == TERMINATE and seen.now >= attempt.ended + patience + RUNG_SECONDS:
        return (Escalate(attempt.n, DELETE),)
    return ()


def _firing(run: Run, attempt: Attempt, verdict: Verdict, seen: Seen) -> tuple[Fire, ...]:
    """The exit event: fired once, made again only if its build was lost."""
    event = exit_event_of(attempt, verdict)
    if not event or attempt.exit_error:
        return ()
    builds = [build for build in seen.builds if build.step == names.exit_step(attempt.n)]
    if not builds:
        if run.step(attempt.epoch, names.exit_step(attempt.n)).highest:
            return ()  # it was fired, and vacuum took what was left of it
        return (Fire(attempt.n, event, 1),)
    newest = builds[-1]
    if newest.outcome is None:
        return ()
    again = newest.outcome.ending is Ending.LOST and len(builds) <= LOST_EXIT_BUILDS
    return (Fire(attempt.n, event, newest.number + 1),) if again else ()


def _overdue_exits(run: Run, seen: Seen) -> tuple[GiveUp, ...]:
    """The builds of exit events that have had their time, those of older attempts too: a run closes only when all
    have ended."""
    found = (
        _overdue(build, attempt.exit_timeout_seconds, seen)
        for attempt in run.state.attempts
        for build in seen.builds
        if build.open and build.step == names.exit_step(attempt.n)
    )
    return tuple(given_up for given_up in found if given_up is not None)


def _overdue(build: Build, timeout_seconds: float, seen: Seen) -> GiveUp | None:
    if build.phase is BuildPhase.WAITING and seen.now >= build.created + START_SECONDS:
        return GiveUp(build, Ending.LOST, f"lost: not started within {START_SECONDS:g} s")
    if build.started is not None and seen.now >= build.started + timeout_seconds:
        return GiveUp(build, Ending.TIMED_OUT, f"timed out after {timeout_seconds:g} s")
    return None


def _posting(run: Run, report: Report, seen: Seen) -> tuple[Post, ...]:
    """The status that is not delivered yet, or has to be looked at once more, if it is time."""
    state = run.state
    if not seen.speaks or not (_lacks(run, report) or _is_unsure(run, report)):
        return ()
    due = state.report_after if report.is_final else max(state.report_after, state.report_pending_after)
    if report == state.reported:
        due = max(due, state.report_unsure_until)
    return (Post(report),) if seen.now >= due else ()


def _is_unsure(run: Run, report: Report) -> bool:
    """Whether something older may come to lie on top of a final status that is acknowledged."""
    return report.is_final and report == run.state.reported and run.state.report_unsure_until > 0


def _lacks(run: Run, report: Report) -> bool:
    """Whether `report` has to be delivered. Within an attempt a final one never goes back to pending, and an older
    attempt never speaks after a newer one."""
    reported = run.state.reported
    if report in {reported, run.state.report_given_up}:
        return False
    return reported is None or not report.is_older_than(reported)


def report_due(run: Run) -> float | None:
    """When the status that `run` still has to deliver, or to look at once more, may be posted: seconds since the
    epoch, may be over; None if there is none."""
    attempt, state = run.attempt, run.state
    if undelivered(run) is None:
        unsure = attempt is not None and attempt.verdict is not None and state.report_unsure_until > 0
        return max(state.report_after, state.report_unsure_until) if unsure else None
    final = attempt is not None and attempt.verdict is not None
    return state.report_after if final else max(state.report_after, state.report_pending_after)


def pending_since(run: Run) -> float | None:
    """Since when `run` has been without a final status that says how it stands; None if it has one."""
    act, attempt = run.applicable_act, run.attempt
    if act is not None:
        return act.at or run.accepted
    if run.phase is Phase.CLOSED:
        return None
    if attempt is None:
        return run.accepted
    ended = attempt.verdict is not None
    return None if ended and undelivered(run) is None else attempt.begun


def final_due(run: Run) -> float | None:
    """When `run` should have a final status at the latest, if nothing of bridge stands still; None if it has one.

    An attempt that began has its deadline, and what makes a Workflow end that does not by itself takes its time.
    """
    since, attempt = pending_since(run), run.attempt
    if since is None or attempt is None or run.applicable_act is not None:
        return None if since is None else since + PROMPT_SECONDS
    if attempt.ended is not None:
        return attempt.ended + PROMPT_SECONDS
    submitted = attempt.submitted if attempt.submitted is not None else attempt.begun
    return submitted + attempt.timeout_seconds + RUNG_SECONDS * (DELETE - 1) + PROMPT_SECONDS


def undelivered(run: Run) -> Report | None:
    """The status that the run still has to deliver, whatever it waits for; None if its newest one is where it can
    get, or it is closed. That a newer run may speak in its place is not looked at."""
    attempt = run.attempt
    if attempt is None or run.phase is Phase.CLOSED:
        return None
    report = pending_report(run)
    if attempt.verdict is not None:
        report = final_report(run, attempt, attempt.verdict)
    return report if _lacks(run, report) else None


def _settled(run: Run, report: Report, seen: Seen) -> bool:
    """Whether nothing is under way any more, and the status is where it can get."""
    if any(build.open for build in seen.builds):
        return False
    delivered = report in {run.state.reported, run.state.report_given_up}
    return not seen.speaks or (delivered and not _is_unsure(run, report))
