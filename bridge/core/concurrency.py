"""Concurrency groups: which run tells of a newer commit of the same pull request or branch.

What is newer is told by when the event happened, as its sender says it, and by when it was accepted if nobody
says: a delivery that GitHub sends again late is still an old one. Of the runs of a group the newest decides, also
once it has closed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from bridge.core.events import Event
from bridge.core.runs import Kind, Run

_BRANCHES = "refs/heads/"
SHOWN_DIGITS = 7


class Concurrency(StrEnum):
    """Of which runs of a pipeline and project only those of the newest commit go on."""

    PULL_REQUEST = "pull-request"
    """Those of the same pull request; all others are let alone."""
    BRANCH = "branch"
    """Those too, and those of the branch that was pushed to."""


@dataclass(frozen=True, slots=True)
class Member:
    """A run as its group knows it."""

    run: str
    commit: str
    accepted: float
    happened: float
    """0: nobody says."""

    @property
    def place(self) -> tuple[float, float, str]:
        """Members that are newer have higher places; no two have the same."""
        return (self.happened or self.accepted, self.accepted, self.run)


def group_of(event: Event) -> str:
    """The group of an event among those of its project; empty without one: a tag's, or one that has no commit."""
    if not event.revision.commit:
        return ""
    if event.pull_request is not None:
        return f"{Concurrency.PULL_REQUEST}/{event.pull_request}"
    ref = event.revision.ref
    return f"{Concurrency.BRANCH}/{ref.removeprefix(_BRANCHES)}" if ref.startswith(_BRANCHES) else ""


def member_of(run: Run) -> Member:
    """What its group knows of `run`."""
    return Member(run.id, run.event.revision.commit, run.accepted, run.event.happened)


def newest_of(members: Iterable[Member]) -> Member | None:
    """The newest; None if there are none."""
    return max(members, key=lambda member: member.place, default=None)


def is_asked_for(event: Event, concurrency: Concurrency | None) -> bool:
    """Whether a run of `event` may be superseded at all."""
    group = group_of(event)
    if not group or concurrency is None:
        return False
    return concurrency is Concurrency.BRANCH or event.pull_request is not None


def superseded_by(run: Run, newest: Member | None) -> str:
    """The first digits of the commit that takes the place of `run`'s, or empty.

    `newest` is the newest member of its group. An attempt that a person asked for is superseded only by what came
    after they asked: they knew of all the rest.
    """
    if newest is None or newest.commit == run.event.revision.commit:
        return ""
    if newest.place <= member_of(run).place or newest.accepted <= _asked_at(run):
        return ""
    return newest.commit[:SHOWN_DIGITS]


def _asked_at(run: Run) -> float:
    """When a person asked for the newest attempt; before everything if nobody did."""
    follows = run.attempt.n - 1 if run.attempt is not None else 0
    asked = [act.at for act in run.acts if act.follows == follows and act.kind is not Kind.CANCEL]
    # The earliest is the one that began it (Run.waiting_act); without a time it was before everything.
    return asked[0] if asked else float("-inf")
