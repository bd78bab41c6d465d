"""GitHub's Re-run buttons as acts: of a run that did not succeed what failed, of one that did everything.

Each act is named after the delivery and the run: a delivery that comes again moves nothing that it moved before.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.core.events.rerequests import Rerequest
from bridge.core.reports import is_by_check
from bridge.core.runs import Kind, Run
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound
from bridge.flows.acting import Acted, act
from bridge.ports import Clock, RunFilter, Runs

SOURCE = "check"
"""Of the acts that the buttons ask for."""
CLOCKS_APART_SECONDS = 300.0
"""So much may our clock be ahead of GitHub's."""


@dataclass(frozen=True)
class Rerequested:
    """What became of a Re-run."""

    acted: tuple[Acted, ...]
    """One for each run it was about."""
    ignored: str = ""
    """Why there is none, for the delivery's answer."""


def rerequest(asked: Rerequest, *, runs: Runs, clock: Clock) -> Rerequested | None:
    """Ask for what a Re-run means; None if it is about no run that is reported by a check: an event as others.

    Of a commit's Re-run every context's newest run is meant, unless an attempt of it has begun since. A run of
    another repository than the delivery's is never touched. Raises Unavailable: then it has to come again.
    """
    if asked.run:
        return _one(asked, runs, clock)
    found = runs.list(RunFilter(project=asked.project, sha=asked.sha))
    meant = [run for run in _newest(found) if is_by_check(run)]
    if not meant:
        return None
    acted = [_acted(asked, run, runs, clock, follows=None) for run in meant if not _began_since(run, asked)]
    return Rerequested(tuple(acted), "" if acted else "what was asked for has begun already")


def _one(asked: Rerequest, runs: Runs, clock: Clock) -> Rerequested:
    try:
        run = runs.read(asked.run)
    except NotFound:
        return Rerequested((), f"run {asked.run} is not kept any more")
    if run.event.project != asked.project:
        return Rerequested((), f"run {asked.run} is not of this repository")
    try:
        return Rerequested((_acted(asked, run, runs, clock, follows=asked.attempt),))
    except NotFound:
        return Rerequested((), f"run {asked.run} has no attempt {asked.attempt}")


def _acted(asked: Rerequest, run: Run, runs: Runs, clock: Clock, *, follows: int | None) -> Acted:
    verdict = run.attempt.verdict if run.attempt is not None else None
    kind = Kind.RERUN if verdict is Verdict.SUCCEEDED else Kind.RETRY
    return act(
        runs,
        run.id,
        kind,
        request=f"{SOURCE}/{asked.delivery}/{run.id}",
        who=asked.sender,
        source=SOURCE,
        now=clock.now(),
        follows=follows,
    )


def _newest(found: Iterable[Run]) -> list[Run]:
    """The newest of each context, which is the one that speaks; `found` has the newest first."""
    newest: dict[str, Run] = {}
    for run in found:
        newest.setdefault(run.context, run)
    return list(newest.values())


def _began_since(run: Run, asked: Rerequest) -> bool:
    """Whether the newest attempt is none that the sender saw: the delivery came late, or again."""
    if asked.seen is None or run.attempt is None or _has_act(run, asked):
        return False
    return run.attempt.begun > asked.seen + CLOCKS_APART_SECONDS


def _has_act(run: Run, asked: Rerequest) -> bool:
    return any(one.request == f"{SOURCE}/{asked.delivery}/{run.id}" for one in run.acts)
