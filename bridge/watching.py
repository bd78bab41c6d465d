"""Following a run or its logs over the API until it comes to rest."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bridge.client import Asking
from bridge.errors import NotFound, Unavailable
from bridge.showing import LogLines, clean

Json = Mapping[str, Any]
_Answer = TypeVar("_Answer")

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""A server that is started again comes back within this time; then following ends with Unavailable."""


@dataclass(frozen=True)
class Polling:
    """How often a run is looked at, and for how long no answer is borne."""

    client: Asking
    poll_seconds: float = POLL_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    def states(self, run_id: str) -> Iterator[dict[str, Any]]:
        """The run's details, again and again, the last time when it is closed. Raises Unavailable after the
        patience, NotFound if it is forgotten."""
        while True:
            run = self.patiently(lambda: self.client.get(run_id))
            yield run
            if is_closed(run):
                return
            self.sleep(self.poll_seconds)

    def patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """What `ask` answers, asked again while it is Unavailable."""
        since = self.monotonic()
        while True:
            try:
                return ask()
            except Unavailable:
                if self.monotonic() - since >= self.patience_seconds:
                    raise
            self.sleep(self.poll_seconds)


@dataclass
class _Source:
    """A build's log, and how far it was shown."""

    step: str
    number: int
    epoch: int
    offset: int = 0
    lines: LogLines = field(default_factory=LogLines)
    done: bool = False

    @property
    def title(self) -> str:
        return f"==> {clean(self.step)}, build {self.number}"


@dataclass
class Logs:
    """The lines of a run's logs: of one step, or of all, each build under a line that says which it is."""

    polling: Polling
    run_id: str
    step: str = ""
    """Empty is all steps."""
    _sources: dict[tuple[int, str, int], _Source] = field(default_factory=dict)
    _last: "_Source | None" = None
    _looked: bool = False

    def so_far(self) -> Iterator[str]:
        """What there is now of the newest build of each step. Raises NotFound for a step that is not there."""
        self._find(self.polling.client.get(self.run_id))
        for source in self._sources.values():
            content = self._asked(self.polling.client.log, source)
            yield from self._shown(source, source.lines.fed(content or b"") + source.lines.rest())

    def following(self) -> Iterator[str]:
        """The same, and what comes, also of later builds, until the step succeeded or the attempt ended."""
        while True:
            run = self.polling.patiently(lambda: self.polling.client.get(self.run_id))
            self._find(run)
            for source in self._sources.values():
                if not source.done:
                    yield from self._new(source, ended=_has_ended(run, source))
            if self._is_over(run):
                return
            self.polling.sleep(self.polling.poll_seconds)

    def _find(self, run: Json) -> None:
        """Know the builds whose logs are wanted: at first the newest of each step, later all that are new."""
        steps = _builds_by_step(run)
        if self.step and self.step not in steps:
            raise NotFound(
                f"run {self.run_id} has no step {self.step[:80]!r}: it has {', '.join(steps) or 'none yet'}"
            )
        for step, builds in steps.items():
            if self.step and step != self.step:
                continue
            for epoch, number in builds if self._looked else builds[-1:]:
                if not self._is_older(step, epoch, number):
                    self._sources.setdefault((epoch, step, number), _Source(step, number, epoch))
        self._looked = True

    def _is_older(self, step: str, epoch: int, number: int) -> bool:
        ours = [(one.epoch, one.number) for one in self._sources.values() if one.step == step]
        return bool(ours) and (epoch, number) < min(ours)

    def _new(self, source: _Source, *, ended: bool) -> Iterator[str]:
        """What was written since the last time. `ended` was found out before: then nothing comes after it."""
        while True:
            part = self._asked(self.polling.client.log_from, source, offset=source.offset)
            if part is None or not part.content:
                break
            source.offset = part.next_offset
            yield from self._shown(source, source.lines.fed(part.content))
        if ended:
            source.done = True
            yield from self._shown(source, source.lines.rest())

    def _asked(self, ask: Callable[..., _Answer], source: _Source, **more: int) -> _Answer | None:
        """The answer, or None for a build that has no log, or not any more."""
        with contextlib.suppress(NotFound):
            return self.polling.patiently(
                lambda: ask(self.run_id, source.step, build=source.number, epoch=source.epoch, **more)
            )
        return None

    def _shown(self, source: _Source, lines: list[str]) -> Iterator[str]:
        if lines and self._last is not source:
            self._last = source
            yield source.title
        yield from lines

    def _is_over(self, run: Json) -> bool:
        if is_closed(run):
            return True
        if not self.step:
            return False
        states = [step.get("state") for step in run.get("steps", []) if step.get("name") == self.step]
        return bool(states) and states[0] in {"succeeded", "nothing_to_do", "not_run"}


def _has_ended(run: Json, source: _Source) -> bool:
    key = (source.step, source.number, source.epoch)
    states = [
        build.get("state")
        for build in _builds(run)
        if (build.get("step"), build.get("number"), build.get("epoch")) == key
    ]
    return not states or states[0] not in {"waiting", "running"}


def is_closed(run: Json) -> bool:
    """Whether the run is at rest."""
    return run.get("phase") == "closed"


def _builds(run: Json) -> list[Json]:
    of_steps = [build for step in run.get("steps", []) for build in step.get("builds", [])]
    return [*of_steps, *run.get("exit_builds", [])]


def _builds_by_step(run: Json) -> dict[str, list[tuple[int, int]]]:
    """(epoch, number) of the builds of each step, in order; also of steps that have none yet."""
    found: dict[str, list[tuple[int, int]]] = {str(step.get("name")): [] for step in run.get("steps", [])}
    for build in _builds(run):
        found.setdefault(str(build.get("step")), []).append((build.get("epoch", 1), build.get("number", 1)))
    return {step: sorted(builds) for step, builds in found.items()}
