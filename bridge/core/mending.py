"""A record whose changing part somebody damaged: its run cannot go on, but it can end.

What it had come to is lost: which attempts there were, what succeeded, what was reported. So it gets an attempt
that has ended as an error, with a number that was never used: nothing of before counts for it, what is left of it
is ended as a stray, and a person who retries it builds everything anew under ids that nobody had.
"""

import json

from bridge.core.builds import Build
from bridge.core.events import Event
from bridge.core.records import HELD_SCHEMA_VERSION
from bridge.core.runs import Attempt, Kind, State
from bridge.core.verdicts import Verdict

REASON = "its record was damaged and what it had come to is lost"
HELD = "its record was damaged, and its author is a stranger"


def is_of_newer_bridge(text: str) -> bool:
    """Whether a part of a record says that a newer bridge wrote it: that is no damage."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    said = found.get("schema") if isinstance(found, dict) else None
    return isinstance(said, int) and said > HELD_SCHEMA_VERSION


def ended_state(event: Event, *, attempt: int, at: float) -> State:
    """The state of a run of which nothing is known but its event, ended at `at` by attempt number `attempt`."""
    ended = Attempt(
        n=attempt, kind=Kind.FIRST, epoch=attempt, begun=at, ended=at, verdict=Verdict.ERROR, reason=REASON
    )
    # Whether it was approved is lost as well.
    return State(attempts=(ended,), held=HELD if event.fork_author else "")


def next_attempt(workflows: list[int], builds: list[Build]) -> int:
    """The first attempt number that neither a Workflow nor a build of the run has."""
    return 1 + max([0, *workflows, *(build.attempt for build in builds), *(build.epoch for build in builds)])
