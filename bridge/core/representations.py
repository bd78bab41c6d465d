"""A run as the API, `bridgectl` and the page show it: plain dictionaries, ready for JSON. Never the payload.

Times are texts of UTC (`2026-11-24T15:04:05.678Z`). What is not known is null or empty; no key is ever missing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bridge.core import names
from bridge.core.answers import (
    AttemptAnswer,
    BuildAnswer,
    GivenUp,
    RunDetails,
    RunSummary,
    Status,
    StepAnswer,
)
from bridge.core.builds import Build, BuildPhase, Ending
from bridge.core.runs import Attempt, NodePart, NodeState, Report, Run
from bridge.core.timelines import timeline, what_now

Json = dict[str, Any]


def run_summary(run: Run, *, url: str = "") -> Json:
    """What a list shows of a run. `url` is its page, where there is one."""
    return {**_summary(run, url)}


def run_details(run: Run, builds: Sequence[Build], *, url: str = "") -> Json:
    """All there is to know of a run. `builds` are all of the run's."""
    return {**details(run, builds, url=url)}


def details(run: Run, builds: Sequence[Build], *, url: str = "") -> RunDetails:
    """The same, in its shape."""
    now = what_now(run, builds)
    return {
        **_summary(run, url),
        "title": run.event.long_title or run.event.short_title,
        "attempts": [_attempt(run, attempt) for attempt in run.state.attempts],
        "steps": [_step(run, step, builds) for step in step_names(run, builds)],
        "exit_builds": [_build(build) for build in builds if names.is_exit_step(build.step)],
        "acts": [
            {
                "kind": act.kind,
                "follows": act.follows,
                "who": act.who,
                "source": act.source,
                "at": moment_text(act.at),
                "only": list(act.only),
            }
            for act in run.acts
        ],
        "timeline": [{"at": moment_text(one.at), "what": one.what} for one in timeline(run, builds)],
        "notified": [
            {"endpoint": name, "told": told.upto - told.given_up, "given_up": told.given_up, "error": told.error}
            for name, told in sorted(run.state.notified.items())
        ],
        "waits_for": now.waits_for,
        "next": list(now.next),
    }


def _summary(run: Run, url: str) -> RunSummary:
    event = run.event
    return {
        "id": run.id,
        "url": url,
        "project": event.project,
        "pipeline": run.pipeline,
        "phase": run.phase,
        "verdict": run.verdict,
        "reason": run.reason or (run.attempt.reason if run.attempt else ""),
        "attempt": run.attempt.n if run.attempt else 0,
        "held": run.held if run.awaits_approval else "",
        "event": event.type,
        "provider": event.provider,
        "delivery": event.delivery,
        "sha": event.revision.commit,
        "ref": event.revision.ref,
        "branch": event.branch,
        "tag": event.tag,
        "pull_request": event.pull_request,
        "title": event.short_title,
        "sender": event.sender,
        "accepted": moment_text(run.accepted),
        "closed": moment_text(run.closed),
        "status": _status(run),
    }


def step_names(run: Run, builds: Sequence[Build]) -> tuple[str, ...]:
    """The run's steps: those of the newest attempt's template in its order, then others that builds are of."""
    named = run.attempt.steps if run.attempt else ()
    others = sorted({build.step for build in builds if not names.is_exit_step(build.step)} - set(named))
    return (*named, *others)


def step_state(run: Run, step: str, builds: Sequence[Build]) -> str:
    """One word: an ending (`succeeded`, `failed`, `lost`, …), `nothing_to_do`, `running`, `waiting` (for its
    worker), `pending` (nothing yet), or `not_run` (and nothing will come)."""
    attempt = run.attempt
    if attempt is None:
        return "pending"
    ours = [build for build in builds if build.step == step and build.epoch == attempt.epoch]
    known = run.step(attempt.epoch, step)
    if known.succeeded is not None or any(_succeeded(build) for build in ours):
        return Ending.SUCCEEDED.value
    if known.unhandled:
        return "nothing_to_do"
    newest = max(ours, key=lambda build: build.number, default=None)
    if newest is not None:
        return build_state(newest)
    node = node_of(run, step)
    if node is not None and node.part is not NodePart.SKIPPED:
        return node.part.value
    return "pending" if attempt.verdict is None else "not_run"


def node_of(run: Run, step: str) -> NodeState | None:
    """How the node of a native step stands in the newest attempt; None if it has none yet, or builds tell."""
    node = run.step(run.attempt.epoch, step).node if run.attempt is not None else None
    return node if node is not None and run.attempt is not None and node.attempt == run.attempt.n else None


def build_state(build: Build) -> str:
    """One word: its ending, `waiting` for its worker, or `running` (also while its end is being written down)."""
    if build.outcome is not None:
        return build.outcome.ending.value
    return "waiting" if build.phase is BuildPhase.WAITING else "running"


def moment_text(at: float | None) -> str | None:
    """Seconds since the epoch as a text of UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _succeeded(build: Build) -> bool:
    return build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED


def _status(run: Run) -> Status:
    """The commit status: what was taken last and by whom, and what is in the way of the next."""
    state = run.state
    return {
        "context": run.context,
        "state": state.reported.state if state.reported else None,
        "description": state.reported.description if state.reported else "",
        "attempt": state.reported.attempt if state.reported else 0,
        "taken_by": state.reported_to,
        "given_up": _report(state.report_given_up),
        "error": state.report_error,
    }


def _report(report: Report | None) -> GivenUp | None:
    return None if report is None else {"state": report.state, "description": report.description}


def _attempt(run: Run, attempt: Attempt) -> AttemptAnswer:
    return {
        "n": attempt.n,
        "kind": attempt.kind,
        "epoch": attempt.epoch,
        "only": list(attempt.only),
        "workflow": names.workflow_name(run.id, attempt.n),
        "begun": moment_text(attempt.begun),
        "submitted": moment_text(attempt.submitted),
        "ended": moment_text(attempt.ended),
        "verdict": attempt.verdict,
        "reason": attempt.reason,
    }


def _step(run: Run, step: str, builds: Sequence[Build]) -> StepAnswer:
    ours = [build for build in builds if build.step == step]
    newest = max(ours, key=lambda build: (build.epoch, build.number), default=None)
    node = node_of(run, step)
    reason = node.reason if node is not None else ""
    if newest is not None and newest.outcome is not None:
        reason = newest.outcome.reason
    return {
        "name": step,
        "state": step_state(run, step, builds),
        "reason": reason,
        "builds": [_build(build) for build in sorted(ours, key=lambda build: (build.epoch, build.number))],
    }


def _build(build: Build) -> BuildAnswer:
    outcome = build.outcome
    return {
        "id": build.id,
        "step": build.step,
        "number": build.number,
        "epoch": build.epoch,
        "attempt": build.attempt,
        "event": build.event,
        "state": build_state(build),
        "reason": outcome.reason if outcome else build.given_up,
        "exit_code": build.exit_code,
        "created": moment_text(build.created),
        "started": moment_text(build.started),
        "ended": moment_text(outcome.ended if outcome else build.ended),
    }
