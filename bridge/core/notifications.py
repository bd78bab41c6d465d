"""Lifecycle notifications: what a record implies that others are to be told, and what an endpoint lacks of it.

The record is the queue. What it implies is a list that only ever grows at its end: the run was accepted, then for
each attempt that it started, each of its steps that finished, and that the run was closed with it. So it is enough
to remember of each endpoint up to where in the list it was told (`runs.Told`). Everything here is a pure function.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from bridge.core import names
from bridge.core.builds import Build, Ending
from bridge.core.endings import node_end
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.pipelines import Pipeline
from bridge.core.reports import cut
from bridge.core.runs import Attempt, NodePart, NodeState, Phase, Run, StepEnd, Told
from bridge.core.verdicts import Verdict

_NODE_VERDICTS = {
    NodePart.SUCCEEDED: Verdict.SUCCEEDED,
    NodePart.FAILED: Verdict.FAILED,
    NodePart.TIMED_OUT: Verdict.TIMED_OUT,
    NodePart.ERROR: Verdict.ERROR,
}

TYPE_PREFIX = "sh.brigade.bridge."
REASON_CHARACTERS = 400


class Lifecycle(StrEnum):
    """What can be told of a run; with `TYPE_PREFIX` the type of a CloudEvent."""

    RUN_ACCEPTED = "run.accepted"
    ATTEMPT_STARTED = "attempt.started"
    STEP_FINISHED = "step.finished"
    RUN_CLOSED = "run.closed"


@dataclass(frozen=True)
class Subscriber:
    """An endpoint as far as it matters what it is told."""

    name: str
    wants: frozenset[Lifecycle] = frozenset(Lifecycle)
    of_all: bool = True
    """It is told of all runs; else of those whose pipeline names it."""
    project: str = ""
    """The project that its CloudEvents name, where it is another bridge; empty: the run's."""


@dataclass(frozen=True)
class Notification:
    """One thing that a record implies."""

    kind: Lifecycle
    attempt: int
    """0: no attempt was begun."""
    at: float
    end: StepEnd | None = None
    """Of a step that finished."""

    def id_of(self, run: str) -> str:
        """Always the same for the same thing, and of no other one of any run."""
        what = self.kind.value.partition(".")[2]
        if self.kind is Lifecycle.RUN_ACCEPTED:
            return f"{run}:{what}"
        return ":".join([run, str(self.attempt), *([self.end.step] if self.end else []), what])


def implied(run: Run) -> tuple[Notification, ...]:
    """All that the record implies, in the order in which it is told; later ones of the same run begin with it."""
    return tuple(_implied(run))


def pending(run: Run, subscriber: Subscriber) -> tuple[tuple[int, Notification], ...]:
    """What this endpoint has to be told yet of what it wants, each with its place in the list (1 is the first)."""
    upto = run.state.notified.get(subscriber.name, Told()).upto
    return tuple(
        (place, one)
        for place, one in enumerate(implied(run), start=1)
        if place > upto and one.kind in subscriber.wants
    )


def subscribers_of(
    run: Run, pipeline: Pipeline | None, subscribers: Iterable[Subscriber]
) -> tuple[Subscriber, ...]:
    """Those that are told of `run`: of all runs, of this pipeline's, or of this one already."""
    named = pipeline.notify if pipeline is not None else ()
    return tuple(one for one in subscribers if one.of_all or one.name in named or one.name in run.state.notified)


def waiting(run: Run, subscribers: Iterable[Subscriber]) -> tuple[str, ...]:
    """The names of the endpoints that have to be told something now, of those that `run` is told to. Of a closed
    run those were fixed when it was closed: also one that is not configured any more, which is given up."""
    if run.phase is Phase.CLOSED:
        return tuple(sorted(name for name, told in run.state.notified.items() if told.waits))
    return tuple(one.name for one in subscribers if pending(run, one))


def _implied(run: Run) -> Iterator[Notification]:
    closings = run.state.closings
    yield Notification(Lifecycle.RUN_ACCEPTED, 0, run.accepted)
    if 0 in closings:
        yield Notification(Lifecycle.RUN_CLOSED, 0, closings[0])
    for attempt in run.state.attempts:
        yield Notification(Lifecycle.ATTEMPT_STARTED, attempt.n, attempt.begun)
        for end in attempt.finished:
            yield Notification(Lifecycle.STEP_FINISHED, attempt.n, end.at, end)
        if attempt.n in closings:
            yield Notification(Lifecycle.RUN_CLOSED, attempt.n, closings[attempt.n])


def step_ends(
    run: Run, attempt: Attempt, execution: Execution | None, builds: Sequence[Build], *, now: float
) -> tuple[StepEnd, ...]:
    """The steps of the newest attempt that have come to an end and are not among its `finished` yet.

    A success counts once for its epoch: a retry builds no such step again. A step that never ran has no end.
    """
    known = {end.step for end in attempt.finished} | {
        end.step
        for earlier in run.state.attempts
        if earlier.epoch == attempt.epoch
        for end in earlier.finished
        if end.verdict is Verdict.SUCCEEDED
    }
    nodes = {node.step: node for node in execution.nodes} if execution is not None else {}
    built = [build.step for build in builds if build.epoch == attempt.epoch and not names.is_exit_step(build.step)]
    steps = dict.fromkeys([*attempt.steps, *nodes, *built])
    ends = [_step_end(run, attempt, step, nodes.get(step), builds, now=now) for step in steps if step not in known]
    return tuple(sorted((end for end in ends if end is not None), key=lambda end: end.at))


def _step_end(
    run: Run, attempt: Attempt, step: str, node: Node | None, builds: Sequence[Build], *, now: float
) -> StepEnd | None:
    state = run.step(attempt.epoch, step)
    ours = [build for build in builds if build.step == step and build.epoch == attempt.epoch]
    if state.succeeded is not None:
        build = next((one for one in ours if one.number == state.succeeded), None)
        return StepEnd(step, Verdict.SUCCEEDED, _ended(build, now), build=build.id if build else "")
    if state.unhandled:
        return StepEnd(step, Verdict.SUCCEEDED, now, reason="nothing to do")
    newest = max((build for build in ours if build.attempt == attempt.n), key=lambda one: one.number, default=None)
    if attempt.verdict is not None and newest is not None:
        # Also of a step that was ended with its run, whose node tells less.
        if newest.outcome is None:
            return None
        verdict = Verdict.SUCCEEDED if newest.outcome.ending is Ending.SUCCEEDED else newest.outcome.ending.verdict
        return StepEnd(step, verdict, _ended(newest, now), _line(newest.outcome.reason), newest.id)
    if node is None and state.node is not None and state.node.attempt == attempt.n:
        return _remembered_end(step, state.node, now)
    return _node_step_end(attempt, node, newest, builds, now=now)


def _remembered_end(step: str, node: NodeState, now: float) -> StepEnd | None:
    """Of a native step whose Workflow is gone: what was mirrored."""
    verdict = _NODE_VERDICTS.get(node.part)
    return None if verdict is None else StepEnd(step, verdict, node.ended or now, _line(node.reason))


def _node_step_end(
    attempt: Attempt, node: Node | None, newest: Build | None, builds: Sequence[Build], *, now: float
) -> StepEnd | None:
    if node is None or node.phase not in {NodePhase.SUCCEEDED, NodePhase.FAILED, NodePhase.ERROR}:
        return None
    at, build = node.ended or now, newest.id if newest else ""
    if node.phase is NodePhase.SUCCEEDED:
        # What its builds came to is mirrored first; without any it is a container of somebody's own.
        return None if newest is not None else StepEnd(node.step, Verdict.SUCCEEDED, at)
    found = node_end(attempt, node, builds)
    if found is None:
        return None
    return StepEnd(node.step, found[0], at, _line(found[1]), build)


def _ended(build: Build | None, now: float) -> float:
    if build is None:
        return now
    told = build.outcome.ended if build.outcome is not None else 0.0
    return told or build.ended or now


def _line(reason: str) -> str:
    return cut(reason, REASON_CHARACTERS)


def cloud_event(run: Run, told: Notification, *, source: str, url: str = "", project: str = "") -> bytes:
    """The CloudEvent 1.0 of a notification, in the JSON format: the same bytes whenever it is made.

    The payload of the run's event is not in it, nor anything secret. Another bridge takes it as an event of
    `project` (by default the run's), with the run's commit and ref if that is the run's own.
    """
    event = run.event
    ours = not project or project == event.project
    about = f"{run.id}/{told.end.step}" if told.end else run.id
    envelope: dict[str, object] = {
        "specversion": "1.0",
        "id": told.id_of(run.id),
        "source": source,
        "type": f"{TYPE_PREFIX}{told.kind}",
        "subject": about,
        "time": _time(told.at),
        "datacontenttype": "application/json",
        "project": project or event.project,
        "commit": event.revision.commit if ours else "",
        "ref": event.revision.ref if ours else "",
        "data": _data(run, told, url=url),
    }
    return json.dumps({key: value for key, value in envelope.items() if value != ""}, sort_keys=True).encode()


def _data(run: Run, told: Notification, *, url: str) -> dict[str, object]:
    event = run.event
    return {
        "run": run.id,
        "url": url,
        "project": event.project,
        "pipeline": run.pipeline,
        "event": {"provider": event.provider, "type": event.type, "delivery": event.delivery},
        "commit": event.revision.commit,
        "ref": event.revision.ref,
        "branch": event.branch,
        "tag": event.tag,
        "pull_request": event.pull_request,
        "context": run.context,
        "accepted": _time(run.accepted),
        "attempt": _attempt_data(run, told),
        "step": _step_data(told.end),
    }


def _attempt_data(run: Run, told: Notification) -> dict[str, object] | None:
    attempt = run.attempt_numbered(told.attempt)
    if attempt is None:
        # A held run that nobody approved is closed without any.
        held = {"number": 0, "verdict": Verdict.CANCELLED.value, "reason": _line(run.held)}
        return held if told.kind is Lifecycle.RUN_CLOSED else None
    known: dict[str, object] = {"number": attempt.n, "kind": attempt.kind.value, "begun": _time(attempt.begun)}
    if told.kind is not Lifecycle.RUN_CLOSED or attempt.verdict is None:
        return known
    return {
        **known,
        "ended": None if attempt.ended is None else _time(attempt.ended),
        "verdict": attempt.verdict.value,
        "reason": _line(attempt.reason),
    }


def _step_data(end: StepEnd | None) -> dict[str, object] | None:
    if end is None:
        return None
    return {"name": end.step, "verdict": end.verdict.value, "reason": end.reason, "build": end.build}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
