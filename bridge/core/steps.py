"""A step is a question, not a command: from what is known of its key to the next move (design.md, A step)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.core.builds import Build, BuildPhase, Ending
from bridge.core.runs import StepState


class ExitCode:
    """The exit codes of `brig run`, which Argo's retry expression and people read."""

    SUCCEEDED = 0
    USAGE = 1
    FAILED = 2
    NO_HANDLER = 3
    LOST = 69
    ASK_AGAIN = 75
    TIMED_OUT = 124


@dataclass(frozen=True)
class Options:
    """The flags of one `brig run`. Times are in seconds."""

    events: tuple[str, ...]
    """The event names to try, in order; never empty."""
    tries: int | None = None
    """How many builds of this attempt may fail; None: the caller retries, and a call makes one build at most."""
    backoff_seconds: float = 5.0
    """The pause after the first failure; it doubles each time, up to `BACKOFF_CAP_SECONDS`."""
    timeout_seconds: float | None = None
    """How long a build may run, from its worker's start."""
    start_timeout_seconds: float = 300.0
    """How long a build may wait for its worker."""
    lost: int = 5
    """How many builds of this attempt may be lost."""
    unhandled_ok: bool = False
    """No handler for any of the events is a success."""


BACKOFF_CAP_SECONDS = 300.0


@dataclass(frozen=True)
class Known:
    """What is known of a key (run, epoch, step) at one moment, every build's end written down."""

    step: str
    attempt: int
    recorded: bool
    """The record knows this attempt."""
    newest_attempt: int = 0
    """The highest attempt of the record."""
    attempt_ended: bool = False
    """The record has a verdict of this attempt."""
    closed: bool = False
    """The run is closed: nobody else will look at a build that is open now."""
    cancel_waits: bool = False
    only: tuple[str, ...] = ()
    """The steps that this attempt retries; empty is all."""
    remembered: StepState = field(default_factory=StepState)
    builds: tuple[Build, ...] = ()
    """Of this key, by number. One without an outcome waits or runs."""
    highest: int = 0
    """The highest number of which anything is left."""
    waited_seconds: Mapping[str, float] = field(default_factory=dict)
    """By build id: how long this observer has seen it wait."""
    ran_seconds: Mapping[str, float] = field(default_factory=dict)
    """By build id: how long it has run."""
    followed: frozenset[int] = frozenset()
    """The numbers that this call made or attached to."""
    now: float = 0.0


@dataclass(frozen=True)
class Answer:
    """Exit with this code and say why."""

    code: int
    message: str


@dataclass(frozen=True)
class Follow:
    """Attach to a build: show its log, look again soon."""

    build: Build


@dataclass(frozen=True)
class Create:
    """Ask for build `number` of `event`."""

    number: int
    event: str


@dataclass(frozen=True)
class Pause:
    """Wait the rest of a backoff."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """End a build for good."""

    build: Build
    ending: Ending
    reason: str


Move = Answer | Follow | Create | Pause | GiveUp


def next_move(known: Known, options: Options) -> Move:
    """The rows of design.md's table "A step", read from the top."""
    success = _success(known, options)
    if success is not None:
        return success
    newest = known.builds[-1] if known.builds else None
    refusal = _attach_only(known)
    if refusal is None and known.only and known.step not in known.only:
        refusal = Answer(ExitCode.FAILED, _not_retried(known, newest))
    if refusal is not None:
        return _without_creating(known, newest, refusal)
    if newest is None:
        return Create(_next_number(known), options.events[0])
    if newest.outcome is None:
        return _attached(newest, known, options)
    return _after_end(newest, newest.outcome.ending, known, options)


def _success(known: Known, options: Options) -> Answer | None:
    remembered = known.remembered.succeeded
    if remembered is not None:
        when = "" if remembered in known.followed else " before"
        return Answer(ExitCode.SUCCEEDED, f"build {remembered} succeeded{when}")
    for build in known.builds:
        if build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED:
            return Answer(ExitCode.SUCCEEDED, f"build {build.number} ({build.id}) succeeded")
    if known.remembered.unhandled and options.unhandled_ok:
        return Answer(ExitCode.SUCCEEDED, "nothing to do: no handler, as found before")
    return None


def _attach_only(known: Known) -> Answer | None:
    """The answer of a step that may not make a build, or None if it may."""
    if not known.recorded:
        return Answer(ExitCode.ASK_AGAIN, f"attempt {known.attempt} is not in the record")
    if known.newest_attempt > known.attempt:
        return Answer(ExitCode.ASK_AGAIN, f"attempt {known.newest_attempt} has taken over")
    if known.attempt_ended:
        return Answer(ExitCode.ASK_AGAIN, f"attempt {known.attempt} has ended already")
    if known.cancel_waits:
        return Answer(ExitCode.ASK_AGAIN, "a cancel of this attempt waits")
    return None


def _without_creating(known: Known, newest: Build | None, refusal: Answer) -> Move:
    if newest is None or not newest.open:
        return refusal
    if known.closed:
        # Made in the moment in which the run was closed: the controller has looked for the last time.
        return GiveUp(newest, Ending.CANCELLED, "the run is closed")
    return Follow(newest)


def _not_retried(known: Known, newest: Build | None) -> str:
    others = ", ".join(known.only)
    if newest is None or newest.outcome is None:
        return f"this attempt retries only {others}, and this step has not succeeded"
    return f"this attempt retries only {others}; build {newest.number}: {newest.outcome.reason}"


def _attached(build: Build, known: Known, options: Options) -> Move:
    if build.phase is BuildPhase.WAITING:
        if known.waited_seconds.get(build.id, 0.0) >= options.start_timeout_seconds:
            reason = f"lost: not started within {options.start_timeout_seconds:g} s; is Brigade's controller away?"
            return GiveUp(build, Ending.LOST, reason)
        return Follow(build)
    timeout = options.timeout_seconds
    if timeout is not None and known.ran_seconds.get(build.id, 0.0) >= timeout:
        return GiveUp(build, Ending.TIMED_OUT, f"timed out after {timeout:g} s")
    return Follow(build)


def _after_end(newest: Build, ending: Ending, known: Known, options: Options) -> Move:
    if newest.attempt != known.attempt or ending is Ending.CANCELLED:
        return Create(_next_number(known), options.events[0])
    if ending is Ending.UNHANDLED:
        return _after_unhandled(newest, known, options)
    if ending is Ending.LOST:
        return _after_lost(newest, known, options)
    return _after_failure(newest, ending, known, options)


def _after_unhandled(newest: Build, known: Known, options: Options) -> Move:
    position = _position(newest, options)
    if position + 1 < len(options.events):
        return Create(_next_number(known), options.events[position + 1])
    tried = ", ".join(options.events)
    if options.unhandled_ok:
        return Answer(ExitCode.SUCCEEDED, f"nothing to do: no handler for {tried}")
    return Answer(ExitCode.NO_HANDLER, f"no handler for {tried}: add one to brigade.js or change the step's event")


def _after_lost(newest: Build, known: Known, options: Options) -> Move:
    lost = _count(known, {Ending.LOST})
    if lost > options.lost:
        reason = newest.outcome.reason if newest.outcome else ""
        return Answer(ExitCode.LOST, f"{lost} builds were lost, the last is build {newest.number}: {reason}")
    return Create(_next_number(known), newest.event)


def _after_failure(newest: Build, ending: Ending, known: Known, options: Options) -> Move:
    failures = _count(known, {Ending.FAILED, Ending.TIMED_OUT})
    final = newest.number in known.followed if options.tries is None else failures >= options.tries
    outcome = newest.outcome
    if final or outcome is None:
        code = ExitCode.TIMED_OUT if ending is Ending.TIMED_OUT else ExitCode.FAILED
        reason = outcome.reason if outcome else "failed"
        return Answer(code, f"build {newest.number} ({newest.id}) of {newest.event}: {reason}")
    pause = min(options.backoff_seconds * 2.0 ** (failures - 1), BACKOFF_CAP_SECONDS)
    left = min(pause, outcome.ended + pause - known.now)
    if options.tries is not None and left > 0:
        return Pause(left, f"build {newest.number} failed ({outcome.reason}); the next in {left:.0f} s")
    return Create(_next_number(known), newest.event)


def _position(build: Build, options: Options) -> int:
    return options.events.index(build.event) if build.event in options.events else len(options.events) - 1


def _count(known: Known, endings: set[Ending]) -> int:
    return sum(
        1
        for build in known.builds
        if build.attempt == known.attempt and build.outcome is not None and build.outcome.ending in endings
    )


def _next_number(known: Known) -> int:
    numbers = [build.number for build in known.builds]
    return 1 + max([known.remembered.highest, known.highest, *numbers])
