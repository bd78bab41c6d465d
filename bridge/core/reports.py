"""What a run's commit status says: its context, its state, and a description that a person can act on."""

from bridge.core.runs import Attempt, Report, Run
from bridge.core.verdicts import Verdict

DESCRIPTION_CHARACTERS = 140
"""GitHub's limit (facts/github.md)."""
SHORT_SHA_CHARACTERS = 7


def context_of(*, pipeline: str, event_family: str, wanted: str | None) -> str:
    """The context of a run's status: what the pipeline says, or `bridge/<pipeline>/<event without action>`."""
    return wanted or f"bridge/{pipeline}/{event_family}"


BY_CHECK = "github check"
"""Who acknowledges a report that is a check run on GitHub."""


def is_by_check(run: Run) -> bool:
    """Whether what was reported of a run last is a check run."""
    return run.state.reported is not None and run.state.reported_to == BY_CHECK


def pending_report(run: Run) -> Report:
    """The status of a run that goes on."""
    attempt = run.attempt
    n = attempt.n if attempt else 1
    text = "accepted: its steps are being run" if n == 1 else f"attempt {n}: its steps are being run"
    return Report(run.context, "pending", text, n)


def held_report(run: Run) -> Report:
    """The status of a run that may not begin before a maintainer approves it: final, until one does."""
    return Report(run.context, Verdict.CANCELLED.commit_state, cut(how_to_approve(run)), 0)


def how_to_approve(run: Run) -> str:
    """What has to happen before a held run may begin, for a person."""
    sha = run.event.revision.commit[:SHORT_SHA_CHARACTERS]
    return f"waits for a maintainer: comment /ok-to-test {sha}, or bridgectl approve {run.id}"


def final_report(run: Run, attempt: Attempt, verdict: Verdict) -> Report:
    """The status of an attempt that ended."""
    return Report(run.context, verdict.commit_state, _description(run, attempt, verdict), attempt.n)


def cut(text: str, characters: int = DESCRIPTION_CHARACTERS) -> str:
    """`text` on one line and no longer than `characters`, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _description(run: Run, attempt: Attempt, verdict: Verdict) -> str:
    if verdict is Verdict.SUCCEEDED:
        return cut(attempt.reason) or _succeeded(attempt)
    advice = f"; bridgectl retry {run.id}"
    return (cut(attempt.reason, DESCRIPTION_CHARACTERS - len(advice)) or verdict.value) + advice


def _succeeded(attempt: Attempt) -> str:
    count = len(attempt.steps)
    return "succeeded" if count == 0 else f"{count} step{'s' if count != 1 else ''} succeeded"
