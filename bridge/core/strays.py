"""Workflows under a run's labels that bridge did not submit, or that run again after their attempt had ended.

`argo resubmit` copies labels, owner and arguments to a Workflow of another name; `argo retry` lets one of ours run
again under its own (facts/argo.md). Neither may say how a run ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.core.argo import execution_of
from bridge.core.kubernetes import Json, mapping, text
from bridge.core.names import ATTEMPT_LABEL, RUN_LABEL, workflow_name
from bridge.core.runs import Act, Attempt, Kind, Run
from bridge.core.verdicts import Verdict

_ARGO = "workflows.argoproj.io/"
_SOURCE = "argo"
_MAX_ATTEMPT_DIGITS = 9
_AFTER_ITS_ROOT = frozenset({Verdict.SUCCEEDED, Verdict.FAILED, Verdict.ERROR})
"""Verdicts that are written when the root node has ended; the others make it end."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the metadata of a Workflow that is not completed says."""

    name: str
    uid: str
    run: str
    attempt: int
    """0: it does not say."""
    retried: bool
    """`argo retry` was the last that was done to it by Argo's own means."""


@dataclass(frozen=True)
class Stray:
    """A Workflow that has to end."""

    name: str
    uid: str
    retried: int = 0
    """The attempt that somebody made run again; 0: it is a copy, or of an attempt that has a successor."""
    actor: str = ""
    """Who did, as far as Argo says."""


def labelled(workflow: Json) -> Labelled | None:
    """What is to be known of a Workflow by its metadata; None if it is completed, or of no run."""
    labels = mapping(workflow, "metadata", "labels")
    run = text(labels, RUN_LABEL)
    if not run or labels.get(f"{_ARGO}completed") == "true":
        return None
    number = text(labels, ATTEMPT_LABEL)
    is_number = number.isascii() and number.isdigit() and len(number) <= _MAX_ATTEMPT_DIGITS
    return Labelled(
        name=text(mapping(workflow, "metadata"), "name"),
        uid=text(mapping(workflow, "metadata"), "uid"),
        run=run,
        attempt=int(number) if is_number else 0,
        retried=labels.get(f"{_ARGO}action") == "Retry",
    )


def suspects(run: Run, found: Iterable[Labelled]) -> list[Labelled]:
    """Those of a run's Workflows that have to be read before anybody knows whether they may go on."""
    return [one for one in found if _is_suspect(run, one)]


def judged(run: Run, suspect: Labelled, workflow: Json) -> Stray | None:
    """What a suspect is, now that it was read; None: it may go on, or comes to its end."""
    seen = execution_of(workflow)
    spec = mapping(workflow, "spec")
    ending = spec.get("shutdown") == "Terminate" and not spec.get("suspend")
    if seen.uid != suspect.uid or seen.finished or seen.deleting or ending:
        return None
    attempt = _own(run, suspect)
    if attempt is None or attempt is not run.attempt:
        return Stray(suspect.name, suspect.uid)
    again = suspect.retried and attempt.verdict in _AFTER_ITS_ROOT and not seen.root_ended
    if run.closed is None and not again:
        return None
    actor = text(mapping(workflow, "metadata", "labels"), f"{_ARGO}actor")
    return Stray(suspect.name, suspect.uid, attempt.n, actor)


def retry_of(run: Run, stray: Stray, *, now: float) -> Act | None:
    """The act that an `argo retry` stands for; None if it is known, or there is nothing to retry."""
    attempt = run.attempt
    if attempt is None or attempt.n != stray.retried or attempt.verdict is Verdict.SUCCEEDED:
        return None
    if run.waiting_act is not None:
        return None
    return Act(Kind.RETRY, f"argo retry of {stray.uid}", attempt.n, who=stray.actor, source=_SOURCE, at=now)


def _is_suspect(run: Run, one: Labelled) -> bool:
    attempt = _own(run, one)
    if attempt is None:
        return True
    if attempt.verdict is None:
        return False
    return one.retried or run.closed is not None or attempt is not run.attempt


def _own(run: Run, one: Labelled) -> Attempt | None:
    """The attempt whose Workflow bridge submitted as this one."""
    attempt = run.attempt_numbered(one.attempt)
    if attempt is None or one.name != workflow_name(run.id, attempt.n):
        return None
    return attempt if attempt.uid in {"", one.uid} else None
