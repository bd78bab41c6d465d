"""Pipelines: what to do for an event, and whether one is wanted at all.

Plain values, also for the step's process. They are read from pipeline files (`pipeline_files`) and from the
WorkflowTemplates rendered from those or written by hand (`workflow_templates`).
"""

from dataclasses import dataclass
from enum import StrEnum

from bridge.core.concurrency import Concurrency
from bridge.core.events import Event
from bridge.core.globs import matches_any

OPTED_IN = "opted-in"
"""In place of a project's name: every project whose own configuration asks for the default pipeline."""

MERGE_QUEUE = "gh-readonly-queue/"
"""Begins the branches of GitHub's merge queue."""
MERGE_GROUP, PULL_REQUEST = "merge_group", "pull_request"

DEFAULT_RUN_TIMEOUT_SECONDS = 7200.0
DEFAULT_EXIT_TIMEOUT_SECONDS = 600.0
DEFAULT_BACKOFF_SECONDS = 5.0
DEFAULT_LOST = 5
DEFAULT_EXIT_EVENT = "build_failed"


class Checkout(StrEnum):
    """What of the revision a build gets when Brigade's own sidecar cannot be trusted with both."""

    COMMIT = "commit"
    """The commit alone; the script sees an empty `e.revision.ref`."""
    REF = "ref"
    """The ref: its head is built, whatever the run's commit says."""


@dataclass(frozen=True)
class Trigger:
    """One event name that a pipeline answers to. Without globs every event of that name counts."""

    event: str
    branches: tuple[str, ...] = ()
    """Globs: the branch pushed to, or the base branch of a pull request."""
    tags: tuple[str, ...] = ()
    """Globs: the tag pushed."""


@dataclass(frozen=True)
class Step:
    """One named task of a pipeline: the flags of its `brig run`. Times are in seconds."""

    name: str
    """The task's name in the WorkflowTemplate, with `_`, `:` and `.` mapped to `-`."""
    events: tuple[str, ...] = ()
    """The event names to try, in order. Empty: those of the run's own event."""
    needs: tuple[str, ...] = ()
    """The steps that must succeed before."""
    tries: int | None = 1
    """How many of its builds may fail in an attempt. None: its template's own retryStrategy decides."""
    backoff_seconds: float = DEFAULT_BACKOFF_SECONDS
    timeout_seconds: float | None = None
    """How long one build may run."""
    lost: int = DEFAULT_LOST
    """How many of its builds may be lost in an attempt."""
    unhandled_ok: bool = False
    """That nobody handles its events is a success."""
    native: bool = False
    """No `brig run`, but a container, or whatever else Argo runs, of its own: no build tells how it went."""


@dataclass(frozen=True)
class Exit:
    """The event fired when an attempt has ended; empty is none."""

    on_failure: str = DEFAULT_EXIT_EVENT
    on_success: str = ""
    timeout_seconds: float = DEFAULT_EXIT_TIMEOUT_SECONDS
    """How long its build may run."""


@dataclass(frozen=True)
class Pipeline:
    """What to do for an event."""

    name: str
    """Also the WorkflowTemplate's."""
    projects: tuple[str, ...]
    """Names or globs of Brigade projects, or `OPTED_IN`."""
    on: tuple[Trigger, ...]
    steps: tuple[Step, ...]
    exit: Exit = Exit()
    timeout_seconds: float = DEFAULT_RUN_TIMEOUT_SECONDS
    """How long an attempt may take, whole seconds."""
    checkout: Checkout | None = None
    """None: both commit and ref, as long as that builds the commit (design.md, On the wire)."""
    report_context: str | None = None
    """The context of the commit status; None: `bridge/<pipeline>/<event>`."""
    concurrency: Concurrency | None = None
    """Of which runs a newer commit cancels the older ones; None: of none."""
    notify: tuple[str, ...] = ()
    """The endpoints, by their names in bridge's own configuration, that are told of its runs, too."""


def wants(pipeline: Pipeline, event: Event, *, opted_in: bool = False) -> bool:
    """Whether `pipeline` runs for `event`. `opted_in`: its project asks for the default pipeline."""
    return not why_not(pipeline, event, opted_in=opted_in)


def why_not(pipeline: Pipeline, event: Event, *, opted_in: bool = False) -> str:
    """Why `pipeline` does not run for `event`, in words that the event's sender may read; empty if it runs."""
    if not is_for(pipeline, event.project, opted_in=opted_in):
        return f"pipeline {pipeline.name} is not for this project"
    named = [trigger for trigger in pipeline.on if trigger.event in event.names]
    if not named:
        wanted = ", ".join(trigger.event for trigger in pipeline.on)
        return f"pipeline {pipeline.name} wants {wanted}, not {event.type}"
    queued = _queue_refused(pipeline, named) if event.branch.startswith(MERGE_QUEUE) else ""
    if queued:
        return queued
    reasons = [_filtered_out(trigger, event) for trigger in named]
    if not all(reasons):
        return ""
    return f"pipeline {pipeline.name} wants {'; '.join(reasons)}"


def reported_family(pipeline: Pipeline, event: Event) -> str:
    """The event's name that the context of a run's status is made of.

    A merge group's is that of the pull request, where a pipeline is for both: what is required of a pull request
    is required, under the same name, of the group that it is merged with.
    """
    named = {trigger.event.partition(":")[0] for trigger in pipeline.on}
    return PULL_REQUEST if event.family == MERGE_GROUP and PULL_REQUEST in named else event.family


def _queue_refused(pipeline: Pipeline, named: list[Trigger]) -> str:
    """Why a push to a branch of the merge queue is not for a pipeline; empty if it asks for such pushes.

    GitHub sends it together with the merge_group of the same commit: two runs would be one too many.
    """
    if any(trigger.event.partition(":")[0] == MERGE_GROUP for trigger in pipeline.on):
        return f"pipeline {pipeline.name} runs for the merge_group of this push"
    if any(glob.startswith(MERGE_QUEUE) for trigger in named for glob in trigger.branches):
        return ""
    return f"pipeline {pipeline.name} does not ask for pushes of the merge queue: name merge_group"


def is_for(pipeline: Pipeline, project: str, *, opted_in: bool) -> bool:
    """Whether `pipeline` names `project`. `opted_in`: the project asks for the default pipeline."""
    if opted_in and OPTED_IN in pipeline.projects:
        return True
    return project != OPTED_IN and matches_any(pipeline.projects, project)


def _filtered_out(trigger: Trigger, event: Event) -> str:
    """What this trigger wants instead of `event`; empty if its globs let it pass."""
    if not trigger.branches and not trigger.tags:
        return ""
    if event.tag:
        if matches_any(trigger.tags, event.tag):
            return ""
    elif event.branch and matches_any(trigger.branches, event.branch):
        return ""
    wanted = [
        f"{kind} {', '.join(globs)}"
        for kind, globs in (("branch", trigger.branches), ("tag", trigger.tags))
        if globs
    ]
    return f"{trigger.event} of {' or '.join(wanted)}, not {_place(event)}"


def _place(event: Event) -> str:
    if event.tag:
        return f"of tag {event.tag[:100]}"
    return f"of branch {event.branch[:100]}" if event.branch else "one that has neither"
