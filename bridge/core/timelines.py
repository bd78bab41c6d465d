"""What happened to a run, in order, and what it waits for now: for `bridgectl explain` and the run's page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bridge.core import names
from bridge.core.builds import Build, BuildPhase, Ending
from bridge.core.reports import cut, how_to_approve
from bridge.core.runs import Act, Attempt, Kind, NodePart, NodeState, Phase, Run
from bridge.core.verdicts import Verdict

LINE_CHARACTERS = 300
"""Reasons are cut to this: a moment is one line."""


@dataclass(frozen=True)
class Moment:
    """One thing that happened."""

    at: float | None
    """Seconds since the epoch; None where the record does not say when (a status), but its place is right."""
    what: str
    """One line, for people. Part of it may be foreign text."""


@dataclass(frozen=True)
class Now:
    """How it goes on."""

    waits_for: str
    """What the run waits for; empty when it is closed and nobody asked for more."""
    next: tuple[str, ...]
    """Commands that a person may want to type next, the most useful first."""


def timeline(run: Run, builds: Sequence[Build]) -> tuple[Moment, ...]:
    """All that is known to have happened to `run`, the oldest first. `builds` are all of the run's."""
    placed = [(run.accepted, Moment(run.accepted, _accepted(run)))]
    if run.held:
        placed.append((run.accepted, Moment(run.accepted, cut(f"held: {run.held}", LINE_CHARACTERS))))
    placed += [(act.at, Moment(act.at, _asked(act))) for act in run.acts]
    for attempt in run.state.attempts:
        placed += _of_attempt(run, attempt)
    for build in builds:
        placed += _of_build(build)
    for (_, step), known in run.state.steps.items():
        placed += _of_node(step, known.node) if known.node is not None else []
    placed += _of_statuses(run)
    if run.closed is not None:
        placed.append((run.closed, Moment(run.closed, f"closed: {run.verdict or 'no verdict'}")))
    # The sort keeps what is simultaneous in the order above, which is the order of cause and effect.
    return tuple(moment for _, moment in sorted(placed, key=lambda one: one[0]))


def what_now(run: Run, builds: Sequence[Build]) -> Now:
    """What `run` waits for, and what a person can do about it. `builds` are all of the run's."""
    attempt, act = run.attempt, _act_that_begins(run)
    if attempt is None and run.awaits_approval:
        return Now(f"its approval: it {how_to_approve(run)}", (f"bridgectl approve {run.id}",))
    if run.phase is Phase.CLOSED and act is None:
        return Now("", _after_close(run, builds))
    if attempt is None:
        return Now("the controller, to begin its first attempt; is it running?", (f"bridgectl cancel {run.id}",))
    if attempt.verdict is None:
        return _while_going(run, attempt, builds)
    if act is not None:
        return Now(f"the controller, to begin attempt {attempt.n + 1} ({act.kind}); is it running?", ())
    return Now(_after_end(run, attempt, builds), _after_close(run, builds))


def failing_steps(run: Run, builds: Iterable[Build]) -> tuple[str, ...]:
    """The steps of the newest attempt's epoch of which builds ended and none succeeded, and native ones that did
    not succeed in it, by name."""
    attempt = run.attempt
    if attempt is None:
        return ()
    ended = [build for build in builds if build.epoch == attempt.epoch and build.outcome is not None]
    succeeded = {build.step for build in ended if build.outcome and build.outcome.ending is Ending.SUCCEEDED}
    succeeded |= {
        step
        for (epoch, step), known in run.state.steps.items()
        if epoch == attempt.epoch and (known.succeeded is not None or known.unhandled)
    }
    failed = {build.step for build in ended if not names.is_exit_step(build.step)}
    return tuple(sorted((failed - succeeded) | set(_failing_native(run, attempt))))


def _failing_native(run: Run, attempt: Attempt) -> Iterator[str]:
    for step in attempt.native:
        node = run.step(attempt.epoch, step).node
        if node is not None and node.attempt == attempt.n and node.ended is not None and not node.is_done:
            yield step


def _act_that_begins(run: Run) -> Act | None:
    """The act that another attempt comes of: there is nothing to retry of a success."""
    act, attempt = run.waiting_act, run.attempt
    succeeded = attempt is not None and attempt.verdict is Verdict.SUCCEEDED
    return None if act is None or (act.kind is Kind.RETRY and succeeded) else act


def _accepted(run: Run) -> str:
    event = run.event
    by = f" by {event.sender}" if event.sender else ""
    commit = f", commit {event.revision.commit[:12]}" if event.revision.commit else ""
    return cut(f"accepted {event.type} of {event.project}{by}{commit}, delivery {event.delivery}", LINE_CHARACTERS)


def _asked(act: Act) -> str:
    who = f" by {act.who}" if act.who else ""
    source = f" through {act.source}" if act.source else ""
    only = f", only {', '.join(act.only)}" if act.only else ""
    if act.kind is Kind.APPROVE:
        return cut(f"approved{who}{source}", LINE_CHARACTERS)
    return cut(f"{act.kind} of attempt {act.follows} asked for{who}{source}{only}", LINE_CHARACTERS)


def _of_attempt(run: Run, attempt: Attempt) -> list[tuple[float, Moment]]:
    n = attempt.n
    found = [(attempt.begun, Moment(attempt.begun, f"attempt {n} begun: {_why(attempt)}"))]
    if attempt.submitted is not None:
        workflow = names.workflow_name(run.id, n)
        found.append((attempt.submitted, Moment(attempt.submitted, f"attempt {n} submitted as {workflow}")))
    if attempt.ended is not None:
        what = cut(f"attempt {n} ended: {_how(str(attempt.verdict), attempt.reason)}", LINE_CHARACTERS)
        found.append((attempt.ended, Moment(attempt.ended, what)))
    if attempt.exit_error:
        what = f"exit event of attempt {n} could not be fired: {attempt.exit_error}"
        found.append((attempt.ended or attempt.begun, Moment(None, cut(what, LINE_CHARACTERS))))
    return found


def _why(attempt: Attempt) -> str:
    if attempt.kind is Kind.FIRST:
        return "the first"
    only = f" of {', '.join(attempt.only)}" if attempt.only else ""
    return cut(f"{attempt.kind}{only}", LINE_CHARACTERS)


def _of_node(step: str, node: NodeState) -> list[tuple[float, Moment]]:
    """What is remembered of a native step: its newest attempt's."""
    name = f"step {step} of attempt {node.attempt}"
    found = []
    if node.started is not None and node.part is not NodePart.SKIPPED:
        found.append((node.started, Moment(node.started, f"{name} started")))
    if node.ended is not None:
        what = cut(f"{name} ended: {_how(node.part.value.replace('_', ' '), node.reason)}", LINE_CHARACTERS)
        found.append((node.ended, Moment(node.ended, what)))
    return found


def _of_build(build: Build) -> list[tuple[float, Moment]]:
    if names.is_exit_step(build.step):
        again = f" again (build {build.number})" if build.number > 1 else ""
        found = [(build.created, Moment(build.created, f"exit event {build.event} fired{again}"))]
        name = f"exit event {build.event}"
    else:
        name = f"step {build.step} build {build.number}"
        found = [(build.created, Moment(build.created, f"{name} created: {build.event} ({build.id})"))]
    if build.started is not None:
        found.append((build.started, Moment(build.started, f"{name} started")))
    if build.outcome is not None:
        what = cut(f"{name} ended: {_how(_words(build.outcome.ending), build.outcome.reason)}", LINE_CHARACTERS)
        found.append((build.outcome.ended, Moment(build.outcome.ended, what)))
    elif build.given_up:
        # A tombstone has no time of its own; what it is of is known, so it stands at the end of that.
        at = build.ended or build.started or build.created
        found.append((at, Moment(None, cut(f"{name} given up: {build.given_up}", LINE_CHARACTERS))))
    return found


def _how(ending: str, reason: str) -> str:
    """`failed: exit code 1`, but not `lost: lost: …`, since many a reason begins with the ending."""
    if reason.startswith(ending):
        return reason
    return f"{ending}: {reason}" if reason else ending


def _words(ending: Ending) -> str:
    return ending.value.replace("_", " ")


def _of_statuses(run: Run) -> list[tuple[float, Moment]]:
    """The record keeps the last status, not when it was taken: it stands after what it tells of."""
    state, found = run.state, []
    if state.reported is not None:
        told = f"status {state.reported.state} of {state.reported.context} taken by {state.reported_to}"
        place = _place(run, state.reported.attempt, final=state.reported.state != "pending")
        found.append((place, Moment(None, cut(f"{told}: {state.reported.description}", LINE_CHARACTERS))))
    if state.report_given_up is not None:
        given_up = state.report_given_up
        what = f"status {given_up.state} of {given_up.context} given up: {state.report_error}"
        place = _place(run, given_up.attempt, final=given_up.state != "pending")
        found.append((place, Moment(None, cut(what, LINE_CHARACTERS))))
    elif state.report_error:
        place = _place(run, run.attempt.n if run.attempt else 0, final=True)
        what = f"status not taken yet ({state.report_failures} tries): {state.report_error}"
        found.append((place, Moment(None, cut(what, LINE_CHARACTERS))))
    return found


def _place(run: Run, n: int, *, final: bool) -> float:
    attempt = run.attempt_numbered(n)
    if attempt is None:
        return run.accepted
    return attempt.ended if final and attempt.ended is not None else attempt.begun


def _while_going(run: Run, attempt: Attempt, builds: Sequence[Build]) -> Now:
    cancel = f"bridgectl cancel {run.id}"
    if run.waiting_cancel is not None:
        return Now("the controller, to cancel it; is it running?", ())
    if not attempt.uid:
        return Now(f"the controller, to submit attempt {attempt.n}; is it running?", (cancel,))
    going = [build for build in builds if build.open and not names.is_exit_step(build.step)]
    if not going and attempt.waits:
        return Now(cut(attempt.waits, LINE_CHARACTERS), (cancel,))
    if not going:
        return Now("its next step, to make a build", (cancel,))
    follow = tuple(f"bridgectl logs {run.id} {step} -f" for step in sorted({build.step for build in going}))
    return Now("; ".join(_going(build) for build in going), (*follow, cancel))


def _going(build: Build) -> str:
    word = "to be started" if build.phase is BuildPhase.WAITING else "to end"
    return f"build {build.number} of step {build.step} {word}"


def _after_end(run: Run, attempt: Attempt, builds: Sequence[Build]) -> str:
    for build in builds:
        if build.open:
            exiting = names.is_exit_step(build.step)
            return f"its exit event {build.event} to end" if exiting else f"{_going(build)}: it is being stopped"
    state = run.state
    told = state.reported
    delivered = told is not None and told.attempt == attempt.n and told.state != "pending"
    if state.report_error and state.report_given_up is None and not delivered:
        return cut(f"its status to be taken, after {state.report_error}", LINE_CHARACTERS)
    return "the controller, to report and close it; is it running?"


def _after_close(run: Run, builds: Sequence[Build]) -> tuple[str, ...]:
    attempt = run.attempt
    if attempt is not None and attempt.verdict is Verdict.SUCCEEDED:
        return (f"bridgectl rerun {run.id}",)
    logs = tuple(f"bridgectl logs {run.id} {step}" for step in failing_steps(run, builds)[:3])
    return (*logs, f"bridgectl retry {run.id}", f"bridgectl rerun {run.id}")
