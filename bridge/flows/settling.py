"""Writing down what a build came to: done by whoever sees its end first, step or controller."""

from bridge.core.builds import Build, BuildPhase, Ending, Outcome, judged
from bridge.ports import Builds


def settled(build: Build, builds: Builds, *, now: float) -> Outcome | None:
    """The outcome of `build`, written down now if it was not; None while it goes on.

    Of a lost one what is left is stopped first, so that a tombstone stands before anybody counts it as lost.
    """
    if build.outcome is not None:
        return build.outcome
    if build.phase is BuildPhase.GONE and build.given_up_as is None:
        builds.give_up(build, reason="lost: its worker is gone and left no result", ending=Ending.LOST)
    needs_log = build.phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED} or build.given_up_as is not None
    outcome = judged(build, log=builds.log(build) if needs_log else None, at=now)
    return None if outcome is None else builds.record(build, outcome)
