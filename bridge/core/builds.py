"""Builds: what is known of one Brigade build of a step, and what it came to."""

from dataclasses import dataclass, field
from enum import StrEnum

from bridge.core.events import Event
from bridge.core.verdicts import Verdict

NO_HANDLER_LINE = "[brigade:app] no-after: fired"
"""A worker that found no handler says so on a line of its own and exits 0 (facts/brigade.md, 3)."""

LOG_LEVEL = "log"
"""Above it the worker does not say that line (facts/brigade.md, Measured)."""

TAIL_BYTES = 4096
"""How much of the end of a log an outcome keeps."""


class BuildPhase(StrEnum):
    """What can be seen of a build from outside."""

    WAITING = "waiting"
    """Created; nobody has started its worker yet."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """The worker ended with 0. Its log decides whether that is a success."""
    FAILED = "failed"
    """The worker ended otherwise."""
    GONE = "gone"
    """Started once, and its worker is not there any more: lost."""


class Ending(StrEnum):
    """What a build came to. Only FAILED and TIMED_OUT count as tries; LOST has a bound of its own."""

    SUCCEEDED = "succeeded"
    UNHANDLED = "unhandled"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CANCELLED = "cancelled"

    @property
    def verdict(self) -> Verdict:
        """How this counts where only the five verdicts are known."""
        return _VERDICTS[self]


_VERDICTS = {
    Ending.SUCCEEDED: Verdict.SUCCEEDED,
    Ending.UNHANDLED: Verdict.FAILED,
    Ending.FAILED: Verdict.FAILED,
    Ending.TIMED_OUT: Verdict.TIMED_OUT,
    Ending.LOST: Verdict.ERROR,
    Ending.CANCELLED: Verdict.CANCELLED,
}


@dataclass(frozen=True)
class Outcome:
    """Written once on a build, by whoever sees its end first; the first writing stands."""

    ending: Ending
    reason: str = ""
    """For people: `exit code 1`, `no handler for push`, `lost: its process is gone`."""
    ended: float = 0.0
    """Seconds since the epoch."""
    tail: str = field(default="", repr=False)
    """The end of its log, at most `TAIL_BYTES`."""


@dataclass(frozen=True)
class Build:
    """One build as read just now."""

    id: str
    run: str
    epoch: int
    step: str
    number: int
    """1, 2, … within (run, epoch, step); never used twice."""
    attempt: int
    """The attempt that made it."""
    event: str
    """The event name it was fired with (`-e`)."""
    phase: BuildPhase
    created: float
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    without_source: bool = False
    """It failed before its worker began, in what fetches its source; the exit code is of that."""
    given_up: str = ""
    """Why it was given up (its tombstone), or empty. A tombstone's reason wins over what became of the worker."""
    given_up_as: Ending | None = None
    outcome: Outcome | None = None

    @property
    def open(self) -> bool:
        """Whether what it came to is not written down yet."""
        return self.outcome is None


@dataclass(frozen=True)
class BuildSpec:
    """All that a new build needs. The payload is inside the event."""

    id: str
    run: str
    pipeline: str
    epoch: int
    step: str
    number: int
    attempt: int
    event: Event
    """With `type` set to the event name to fire."""
    script: str = field(default="", repr=False)
    """The text of a script for that of the source; empty: the project says which."""
    config: str = field(default="", repr=False)
    """The same of brigade.json."""
    log_level: str = LOG_LEVEL


def judged(build: Build, *, log: str | None, at: float) -> Outcome | None:
    """What `build` came to, or None while it goes on.

    `log` is its worker's whole log, or at least its end; None says that it could not be read any more. Nobody
    may call a Succeeded worker succeeded before its log is read: without a handler it also exits 0.
    """
    ended = build.ended if build.ended is not None else at
    tail = tail_of(log or "")
    if build.given_up_as is not None:
        return Outcome(build.given_up_as, build.given_up, at, tail)
    if build.phase is BuildPhase.FAILED:
        code = "an unknown code" if build.exit_code is None else f"code {build.exit_code}"
        who = "its source could not be fetched: the sidecar" if build.without_source else "the worker"
        return Outcome(Ending.FAILED, f"{who} exited with {code}", ended, tail)
    if build.phase is BuildPhase.GONE:
        return Outcome(Ending.LOST, "lost: its worker is gone and left no result", at, tail)
    if build.phase is not BuildPhase.SUCCEEDED:
        return None
    if log is None:
        return Outcome(Ending.LOST, "lost: its log is gone, so its success cannot be told", ended)
    if says_no_handler(log):
        return Outcome(Ending.UNHANDLED, f"no handler for {build.event}", ended, tail)
    return Outcome(Ending.SUCCEEDED, "", ended, tail)


def says_no_handler(log: str) -> bool:
    """Whether a worker's log has the line that means that no handler was registered for the event."""
    return any(line.strip() == NO_HANDLER_LINE for line in log.splitlines())


def tail_of(log: str) -> str:
    """The last `TAIL_BYTES` bytes of a log, beginning at a whole line where it was cut."""
    encoded = log.encode("utf-8", "replace")
    if len(encoded) <= TAIL_BYTES:
        return encoded.decode("utf-8", "replace")
    cut = encoded[-TAIL_BYTES:].decode("utf-8", "ignore")
    return cut.partition("\n")[2] or cut
