"""One run as its page shows it: what core/representations.py says, and what only a picture needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.core import graphs, names
from bridge.core.builds import Build, tail_of
from bridge.core.pipelines import Pipeline
from bridge.core.representations import node_of, run_details
from bridge.core.runs import NodePart, Phase, Run
from bridge.core.terminal_text import last_lines, plain
from bridge.core.timelines import failing_steps
from bridge.core.verdicts import Verdict
from bridge.errors import BridgeError
from bridge.ports import Builds, Pipelines
from bridge.web.listing import seconds_of, seen_of

LOOK_AGAIN_SECONDS = 3
LOOK_FOR_PEOPLE_SECONDS = 15
TAIL_LINES = 40
TAIL_CHARACTERS = 64 * 1024

Json = dict[str, Any]
_Needs = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StepView:
    """A step: as in the representation, and where and how it is shown."""

    told: Json
    anchor: str
    needs: tuple[str, ...]
    seconds: float | None
    """From the first build of the epoch to the end of the newest; None while it runs, or if it never did."""
    since: float | None
    """When its first build began, while it runs."""
    may_retry: bool


@dataclass(frozen=True)
class RunView:
    """A run."""

    told: Json
    steps: tuple[StepView, ...]
    picture: graphs.Picture | None
    needs_known: bool
    """Whether the picture shows which step needs which."""
    tails: Mapping[str, str]
    """The ends of the logs of each step's newest build, by build id."""
    following: frozenset[str]
    """The builds whose logs grow, of those."""
    acts: tuple[str, ...]
    """What can be asked of it now, the most useful first: `approve`, `retry`, `rerun`, `cancel`."""
    attempt: int
    seconds: float
    look_again_seconds: int
    """After so many seconds this may look different by itself; 0: it stays as it is."""
    seen: str
    """Is another one when there is something else to show."""

    def step(self, name: str) -> StepView:
        """The step of a box in the picture."""
        return next(one for one in self.steps if one.told["name"] == name)


def run_view(run: Run, builds: Sequence[Build], *, pipelines: Pipelines, logs: Builds, now: float) -> RunView:
    """What there is to see of `run`. `builds` are all of the run's, `logs` is where their logs are read."""
    told, needs = _told(run, builds, pipelines)
    newest = _newest(builds)
    return RunView(
        told=told,
        steps=tuple(_step(run, step, index, needs or {}, builds) for index, step in enumerate(told["steps"], 1)),
        picture=_picture(needs, [step["name"] for step in told["steps"]]),
        needs_known=needs is not None,
        tails={build.id: _tail(build, logs) for build in newest},
        following=frozenset(build.id for build in newest if build.outcome is None),
        acts=acts_of(run, builds),
        attempt=run.attempt.n if run.attempt else 0,
        seconds=seconds_of(run, now),
        look_again_seconds=_look_again(run, told),
        seen=seen_of(told, needs),
    )


def _look_again(run: Run, told: Json) -> int:
    if not told["waits_for"]:
        return 0
    # Nothing happens before a person does something.
    return LOOK_FOR_PEOPLE_SECONDS if run.awaits_approval else LOOK_AGAIN_SECONDS


def seen_of_run(run: Run, builds: Sequence[Build], *, pipelines: Pipelines) -> str:
    """`RunView.seen`, without the logs being read."""
    return seen_of(*_told(run, builds, pipelines))


def acts_of(run: Run, builds: Sequence[Build]) -> tuple[str, ...]:
    """What can be asked of `run` now, the most useful first."""
    if run.awaits_approval:
        return ("approve",)
    attempt = run.attempt
    if attempt is None or attempt.verdict is None:
        retry = ("retry",) if failing_steps(run, builds) and run.waiting_act is None else ()
        return (*retry, *(() if run.waiting_cancel else ("cancel",)))
    if run.waiting_act is not None and run.phase is not Phase.CLOSED:
        return ()
    return ("rerun",) if attempt.verdict is Verdict.SUCCEEDED else ("retry", "rerun")


def _told(run: Run, builds: Sequence[Build], pipelines: Pipelines) -> tuple[Json, _Needs | None]:
    """The run's representation, with the steps that will be if none is yet; and what they need, if it is known."""
    told = run_details(run, builds)
    pipeline = _pipeline(pipelines, run.pipeline)
    if not told["steps"] and pipeline is not None:
        told["steps"] = [_not_begun(step.name) for step in pipeline.steps]
    return told, _needs(pipeline, [step["name"] for step in told["steps"]])


def _pipeline(pipelines: Pipelines, name: str) -> Pipeline | None:
    """None if it is gone, or broken, or nobody can be asked: the run is shown as well as it can be."""
    try:
        return pipelines.read(name)
    except BridgeError:
        return None


def _needs(pipeline: Pipeline | None, shown: Sequence[str]) -> _Needs | None:
    """What the shown steps need, in the pipeline as it is now; None if they are not that one's."""
    known = {step.name: step.needs for step in pipeline.steps} if pipeline else {}
    return {name: known[name] for name in shown} if all(name in known for name in shown) else None


def _picture(needs: _Needs | None, shown: Sequence[str]) -> graphs.Picture | None:
    return graphs.row(shown) if needs is None else graphs.picture(needs)


def _not_begun(name: str) -> Json:
    return {"name": name, "state": "pending", "reason": "", "builds": []}


def _step(run: Run, told: Json, index: int, needs: _Needs, builds: Sequence[Build]) -> StepView:
    epoch = run.attempt.epoch if run.attempt else 0
    ours = [build for build in builds if build.step == told["name"] and build.epoch == epoch]
    newest = max(ours, key=lambda build: build.number, default=None)
    # Its tries in one attempt; between two attempts nothing ran.
    tries = [build for build in ours if newest is not None and build.attempt == newest.attempt]
    begun = min((build.started or build.created for build in tries), default=None)
    ended = None if newest is None else newest.outcome.ended if newest.outcome else newest.ended
    going = newest is not None and newest.outcome is None
    node = node_of(run, told["name"])
    if newest is None and node is not None:
        begun, ended, going = node.started, node.ended, node.part is NodePart.RUNNING
    return StepView(
        told=told,
        anchor=f"step-{index}",
        needs=needs.get(told["name"], ()),
        seconds=max(0.0, ended - begun) if ended and begun is not None and not going else None,
        since=begun if going else None,
        may_retry=_may_retry(run, told["state"]),
    )


def _may_retry(run: Run, state: str) -> bool:
    attempt = run.attempt
    if attempt is None or attempt.verdict in {None, Verdict.SUCCEEDED} or run.waiting_act is not None:
        return False
    # What never ran waits for another step, which is what has to be tried again.
    return state not in {"succeeded", "nothing_to_do", "not_run"}


def _newest(builds: Sequence[Build]) -> list[Build]:
    """Each step's newest build, also of the exit event's."""
    newest = {build.step: build for build in sorted(builds, key=lambda build: (build.epoch, build.number))}
    return list(newest.values())


def _tail(build: Build, logs: Builds) -> str:
    text = build.outcome.tail if build.outcome is not None else _log_of(build, logs)
    return last_lines(plain(text), lines=TAIL_LINES, characters=TAIL_CHARACTERS)


def _log_of(build: Build, logs: Builds) -> str:
    try:
        return tail_of(logs.log(build) or "")
    except BridgeError:
        # The rest of the page is there without it.
        return ""


def name_of_step(step: str) -> str:
    """A step's name for people: the exit event's builds have one that no pipeline can use."""
    return f"exit event of attempt {step.partition('.')[2]}" if names.is_exit_step(step) else step
