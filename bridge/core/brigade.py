"""Brigade v1's objects as plain mappings: a build's Secret and its worker pod, as one build (facts/brigade.md).

What a build is of stands in an annotation of its Secret, what became of it in two others; so a list needs the
metadata alone. Labels select.
"""

import json
from dataclasses import dataclass

from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending, Outcome
from bridge.core.kubernetes import Json, is_being_deleted, mapping, mappings, seconds, text
from bridge.core.names import LABEL_PREFIX
from bridge.core.records import SCHEMA_VERSION, Fields

BUILD_TYPE = "brigade.sh/build"
WORKER_CONTAINER = "brigade-runner"
SIDECAR_CONTAINER = "vcs-sidecar"
"""Fetches the source before the worker starts."""
ACCEPTED = "accepted"
"""The label `status` of a build that Brigade's controller has dealt with, or shall never deal with."""

BUILD_ANNOTATION = f"{LABEL_PREFIX}build"
OUTCOME_ANNOTATION = f"{LABEL_PREFIX}outcome"
TOMBSTONE_ANNOTATION = f"{LABEL_PREFIX}given-up"
TAIL_ANNOTATION = f"{LABEL_PREFIX}log-tail"
"""The end of the log of a build that was given up, from before its pod was deleted."""

DELETION_PATIENCE_SECONDS = 60.0
"""Beyond its own grace, until a pod that is being deleted counts as gone: its node is dead."""

_DEFAULT_GRACE_SECONDS = 30.0
_DISRUPTED = frozenset(
    {"Evicted", "NodeLost", "NodeShutdown", "Preempted", "Preempting", "Shutdown", "Terminated"}
)
"""Reasons of a Failed pod that the script had no part in; newer clusters add the condition DisruptionTarget."""
_STATUS_UNKNOWN = "ContainerStatusUnknown"


def worker_name(build_id: str) -> str:
    """The name of a build's Secret, its worker pod and its volume."""
    return f"brigade-worker-{build_id}"


def described(spec: BuildSpec) -> str:
    """What a build is of, as `BUILD_ANNOTATION` says it."""
    return _dumped(
        {
            "schema": SCHEMA_VERSION,
            "run": spec.run,
            "epoch": spec.epoch,
            "step": spec.step,
            "number": spec.number,
            "attempt": spec.attempt,
            "event": spec.event.type,
        }
    )


def encode_outcome(outcome: Outcome) -> str:
    """What a build came to, as `OUTCOME_ANNOTATION` says it."""
    return _dumped(
        {
            "schema": SCHEMA_VERSION,
            "ending": outcome.ending,
            "reason": outcome.reason,
            "ended": outcome.ended,
            "tail": outcome.tail,
        }
    )


def encode_tombstone(reason: str, ending: Ending) -> str:
    """Why a build was given up, as `TOMBSTONE_ANNOTATION` says it."""
    return _dumped({"schema": SCHEMA_VERSION, "ending": ending, "reason": reason})


def outcome_of(secret: Json) -> Outcome | None:
    """What a build came to, if that is written down. Raises Misconfigured if it cannot be read."""
    text = annotation(secret, OUTCOME_ANNOTATION)
    if not text:
        return None
    fields = Fields.of_text(text, "outcome")
    return Outcome(
        fields.choice("ending", Ending), fields.text("reason"), fields.number("ended"), fields.text("tail")
    )


def tombstone_of(secret: Json) -> tuple[str, Ending] | None:
    """Why a build was given up, if it was. Raises Misconfigured if that cannot be read."""
    text = annotation(secret, TOMBSTONE_ANNOTATION)
    if not text:
        return None
    fields = Fields.of_text(text, "given-up")
    return fields.text("reason"), fields.choice("ending", Ending)


def is_accepted(secret: Json) -> bool:
    """Whether Brigade's controller will not look at a build's Secret any more."""
    return mapping(secret, "metadata", "labels").get("status") == ACCEPTED


def build_of(secret: Json, pod: Json | None, *, overdue: bool = False) -> Build:
    """One build from its Secret, of which the metadata is enough, and its worker pod, None if there is none.

    The Secret has to be read before the pod: an accepted build without a pod is gone. `overdue` says that the
    observer has waited in vain for the pod's deletion. Raises Misconfigured if the Secret cannot be read.
    """
    fields = Fields.of_text(annotation(secret, BUILD_ANNOTATION), "build")
    metadata = mapping(secret, "metadata")
    tombstone = tombstone_of(secret)
    worker = worker_of(pod, overdue=overdue) if pod is not None else _without_pod(secret)
    if tombstone is not None and pod is not None and is_being_deleted(pod) and worker.phase is BuildPhase.RUNNING:
        worker = Worker(BuildPhase.GONE, worker.started)
    return Build(
        id=text(mapping(metadata, "labels"), "build"),
        run=fields.text("run", required=True),
        epoch=fields.whole("epoch", required=True),
        step=fields.text("step", required=True),
        number=fields.whole("number", required=True),
        attempt=fields.whole("attempt", required=True),
        event=fields.text("event", required=True),
        phase=worker.phase,
        created=seconds(metadata, "creationTimestamp") or 0.0,
        started=worker.started,
        ended=worker.ended,
        exit_code=worker.exit_code,
        without_source=worker.without_source,
        given_up=tombstone[0] if tombstone else "",
        given_up_as=tombstone[1] if tombstone else None,
        outcome=outcome_of(secret),
    )


@dataclass(frozen=True)
class Worker:
    """What a worker pod says. Times are in seconds since the epoch."""

    phase: BuildPhase
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    without_source: bool = False
    """What fetches the source failed, and the worker never began."""


def worker_of(pod: Json, *, overdue: bool = False) -> Worker:
    """What a worker pod says; see `build_of`."""
    status = mapping(pod, "status")
    started = seconds(status, "startTime")
    phase = text(status, "phase")
    if phase not in {"Succeeded", "Failed"}:
        if overdue:
            return Worker(BuildPhase.GONE, started)
        # Without a node it only waits. Unknown is what a node that does not answer makes of Running.
        waits = started is None and phase in {"", "Pending"}
        return Worker(BuildPhase.WAITING if waits else BuildPhase.RUNNING, started)
    ended = _terminated(status)
    if phase == "Succeeded":
        return Worker(BuildPhase.SUCCEEDED, started, ended.at, 0)
    if ended.code is None or _was_disrupted(status) or _was_ended_by_deletion(pod, ended):
        return Worker(BuildPhase.GONE, started)
    return Worker(BuildPhase.FAILED, started, ended.at, ended.code, without_source=ended.before_worker)


def deletion_seconds(pod: Json) -> float | None:
    """How long a pod that is being deleted may take for it, None if it is not: from now, for whoever sees it
    first, because clocks of others say nothing here."""
    return _grace(pod) + DELETION_PATIENCE_SECONDS if is_being_deleted(pod) else None


def annotation(found: Json, key: str) -> str:
    """An object's annotation; empty if it has none."""
    return text(mapping(found, "metadata", "annotations"), key)


@dataclass(frozen=True)
class _End:
    code: int | None = None
    at: float | None = None
    before_worker: bool = False


def _without_pod(secret: Json) -> Worker:
    return Worker(BuildPhase.GONE if is_accepted(secret) else BuildPhase.WAITING)


def _terminated(status: Json) -> _End:
    """How the worker's container ended, or the one before it that failed; nothing if no container ever ran."""
    before = [one for one in mappings(status, "initContainerStatuses") if _state(one).get("exitCode")]
    statuses = mappings(status, "containerStatuses")
    named = [one for one in statuses if one.get("name") == WORKER_CONTAINER] or statuses[:1]
    for one in [*named, *before]:
        state = _state(one)
        code = state.get("exitCode")
        if isinstance(code, int) and state.get("reason") != _STATUS_UNKNOWN:
            return _End(code, seconds(state, "finishedAt"), before_worker=one in before)
    return _End()


def _was_disrupted(status: Json) -> bool:
    return text(status, "reason") in _DISRUPTED or any(
        one.get("type") == "DisruptionTarget" and one.get("status") == "True"
        for one in mappings(status, "conditions")
    )


def _was_ended_by_deletion(pod: Json, ended: _End) -> bool:
    """Whether somebody deleted the pod while its worker ran. The grace is in the deletionTimestamp already."""
    deleted = seconds(mapping(pod, "metadata"), "deletionTimestamp")
    return deleted is not None and ended.at is not None and ended.at >= deleted - _grace(pod)


def _grace(pod: Json) -> float:
    said = mapping(pod, "metadata").get("deletionGracePeriodSeconds")
    return float(said) if isinstance(said, int) else _DEFAULT_GRACE_SECONDS


def _state(container: Json) -> Json:
    return mapping(container, "state", "terminated")


def _dumped(fields: Json) -> str:
    # ASCII: a log's end may hold what is no UTF-8.
    return json.dumps(fields, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
