"""Pipeline files: `pipelines/*.yaml`, checked strictly, to `Pipeline`.

All that is wrong with a file is said at once, a line each: the file, the field's path, what is wrong and what to
do. The same checks hold for the annotations of a hand-written WorkflowTemplate (`workflow_templates`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bridge.core import durations, strict_yaml
from bridge.core.complaints import complaints, cut, instead
from bridge.core.concurrency import Concurrency
from bridge.core.names import RESERVED_EVENTS, mapped
from bridge.core.pipelines import OPTED_IN, Checkout, Exit, Pipeline, Step, Trigger
from bridge.errors import BadPipeline

RUN_EVENT = "same-as-run"
"""In place of a step's event: the names that the run's own event answers to, the most precise first."""

NO_EVENT = "none"
"""In place of an exit event: nothing is fired."""

RESERVED_STEPS = frozenset({"main", "exit"})
"""Templates of every rendered WorkflowTemplate."""

MAX_NAME = 63
"""Names become label values (facts/argo.md)."""
MAX_EVENT = 128
MAX_GLOB = 256
MAX_STEPS = 100
MAX_LOST = 100
MAX_TRIES = 100
MAX_SECONDS = 30 * 24 * 3600.0
MAX_CONTEXT = 100

_PIPELINE_NAME = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_STEP_NAME = re.compile(r"[A-Za-z](?:[-A-Za-z0-9_.:]*[A-Za-z0-9])?")
_EVENT = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:/]*[A-Za-z0-9_])?")
_PROJECT = re.compile(r"[-A-Za-z0-9_.*?]+(?:/[-A-Za-z0-9_.*?]+)*")
_GIT_NAME = re.compile(r"[^\s~^:\\\[\]{}]+")


def parse(text: str, *, source: str, default_name: str = "") -> Pipeline:
    """The pipeline in a file's text. `source` names the file in messages.

    A file without a `name` has `default_name`. Raises BadPipeline with a line for everything that is wrong.
    """
    try:
        content = strict_yaml.loaded(text)
    except strict_yaml.NotStrictYaml as exc:
        raise BadPipeline(f"{source}: {exc}") from exc
    if not isinstance(content, dict):
        raise BadPipeline(
            f"{source}: a pipeline is a mapping with `projects`, `on` and `steps`; write these fields"
        )
    if default_name:
        content.setdefault("name", default_name)
    try:
        return PipelineFile.model_validate(content).pipeline()
    except ValidationError as exc:
        raise BadPipeline("\n".join(f"{source}: {line}" for line in lines_of(exc))) from exc
    except _Contradictions as exc:
        raise BadPipeline("\n".join(f"{source}: {line}" for line in exc.lines)) from exc


def lines_of(error: ValidationError) -> list[str]:
    """What is wrong with a pipeline's fields, a line each."""
    return complaints(error, model=PipelineFile, sections=_SECTIONS, examples=_EXAMPLES)


class _Contradictions(Exception):
    """What is wrong between fields that are right by themselves."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _listed(value: object) -> object:
    """One text stands for a list of it."""
    return [value] if isinstance(value, str) else value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"`{cut(twice[0])}` is there twice; keep one")
    return values


def _triggers(value: object) -> object:
    """`on: push`, `on: [push]` and `on: {push: }` to the mapping that all of them mean."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise ValueError(
                "a list here holds event names; to filter, write a mapping: `push: {branches: [main]}`"
            )
        return {event: {} for event in _distinct(tuple(value))}
    if isinstance(value, dict):
        return {event: {} if filters is None else filters for event, filters in value.items()}
    return value


def _seconds(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError("is no duration; write for example 90s, 15m or 1h30m")  # noqa: TRY004 - pydantic's way
    seconds = durations.seconds_of(value)
    if seconds > MAX_SECONDS:
        raise ValueError(f"is longer than {durations.written(MAX_SECONDS)}; write less")
    return seconds


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than nothing; leave the field out for the default")
    return seconds


def _whole(seconds: float) -> float:
    if seconds != int(seconds):
        raise ValueError("Argo counts it in whole seconds; write it without ms")
    return seconds


def _pipeline_name(name: str) -> str:
    if not _PIPELINE_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            f"must be at most {MAX_NAME} of a-z, 0-9 and `-`, beginning with a letter and not ending with `-`"
        )
    return name


def _step_name(name: str) -> str:
    if name[:1].isdigit():
        raise ValueError("may not begin with a digit, which Argo's `depends` cannot read; put a letter before it")
    if not _STEP_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            f"must be at most {MAX_NAME} of A-Z, a-z, 0-9, `-`, `_`, `:` and `.`, beginning with a letter and "
            "ending with a letter or digit"
        )
    if mapped(name) in RESERVED_STEPS:
        raise ValueError(
            f"`{name}` is a template of every workflow; choose another name and put `event` beside it"
        )
    return name


def _event(name: str) -> str:
    if name in RESERVED_EVENTS:
        raise ValueError(f"`{name}` is an event of Brigade's own worker or gateway; choose another")
    if name == RUN_EVENT:
        raise ValueError(f"`{RUN_EVENT}` can only stand alone, as `event: {RUN_EVENT}` of a step")
    if not _EVENT.fullmatch(name) or len(name) > MAX_EVENT:
        raise ValueError(
            f"an event's name is at most {MAX_EVENT} of A-Z, a-z, 0-9, `_`, `:`, `.`, `/` and `-`, beginning and "
            "ending with a letter or digit"
        )
    return name


def _exit_event(name: str) -> str:
    return name if name == NO_EVENT else _event(name)


def _step_events(value: object) -> object:
    """`same-as-run` to no names at all, which is how a step is told to take the run's."""
    if value == RUN_EVENT:
        return ()
    if value in ([], ""):
        raise ValueError(f"name at least one event, or `{RUN_EVENT}`")
    return _listed(value)


def _project(glob: str) -> str:
    if not _PROJECT.fullmatch(glob) or len(glob) > MAX_GLOB:
        raise ValueError(
            f"a project is written as its git host does, `acme/widgets`, or as a glob of `*`, `?` and `**`, or "
            f"`{OPTED_IN}`"
        )
    return glob


def _git_glob(glob: str) -> str:
    if glob.startswith("refs/"):
        raise ValueError("is held against the bare name; write it without refs/heads/ or refs/tags/")
    if glob.startswith("!"):
        raise ValueError("negation is not known; name what is wanted")
    if not _GIT_NAME.fullmatch(glob) or not glob.isprintable() or len(glob) > MAX_GLOB:
        raise ValueError("is no glob of git names; use the name's own characters, `*`, `?` and `**`")
    return glob


def _endpoint_name(name: str) -> str:
    if not _PIPELINE_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            "is the name of an endpoint in bridge's own configuration: a-z, 0-9 and `-`, beginning with a letter; "
            "no URL is written here"
        )
    return name


def _context(text: str) -> str:
    if (
        not text
        or not text.isprintable()
        or {"{", "}"} & set(text)
        or text != text.strip()
        or len(text) > MAX_CONTEXT
    ):
        raise ValueError(f"must be one line of at most {MAX_CONTEXT} characters, without braces")
    return text


Seconds = Annotated[float, BeforeValidator(_seconds), AfterValidator(_positive)]
WholeSeconds = Annotated[Seconds, AfterValidator(_whole)]
_Event = Annotated[str, AfterValidator(_event)]
_ExitEvent = Annotated[str, AfterValidator(_exit_event)]
_StepName = Annotated[str, AfterValidator(_step_name)]
_Globs = Annotated[
    tuple[Annotated[str, AfterValidator(_git_glob)], ...], BeforeValidator(_listed), AfterValidator(_distinct)
]
EndpointName = Annotated[str, AfterValidator(_endpoint_name)]
EndpointNames = Annotated[tuple[EndpointName, ...], BeforeValidator(_listed), AfterValidator(_distinct)]
ProjectGlobs = Annotated[
    tuple[Annotated[str, AfterValidator(_project)], ...],
    BeforeValidator(_listed),
    Field(min_length=1),
    AfterValidator(_distinct),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TriggerFile(_Strict):
    """The filters of one event name under `on`."""

    branches: _Globs = ()
    tags: _Globs = ()


Triggers = Annotated[dict[_Event, TriggerFile], BeforeValidator(_triggers), Field(min_length=1)]


class StepFile(_Strict):
    """One item of `steps`."""

    name: _StepName
    event: Annotated[tuple[_Event, ...], BeforeValidator(_step_events), AfterValidator(_distinct)] | None = None
    needs: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    tries: Annotated[int, Field(ge=1, le=MAX_TRIES, strict=True)] = 1
    backoff: Seconds = Step.backoff_seconds
    timeout: Seconds | None = None
    lost: Annotated[int, Field(ge=0, le=MAX_LOST, strict=True)] = Step.lost

    def step(self, *, unhandled_ok: bool) -> Step:
        """The step, its names mapped to what Argo takes."""
        return Step(
            name=mapped(self.name),
            events=(self.name,) if self.event is None else self.event,
            needs=tuple(mapped(name) for name in self.needs),
            tries=self.tries,
            backoff_seconds=self.backoff,
            timeout_seconds=self.timeout,
            lost=self.lost,
            unhandled_ok=unhandled_ok,
        )


class ExitFile(_Strict):
    """`exit`: the events fired when an attempt has ended."""

    failed: _ExitEvent = Exit.on_failure
    succeeded: _ExitEvent = NO_EVENT
    timeout: Seconds = Exit.timeout_seconds

    def exit(self) -> Exit:
        """The exit events, `none` as empty."""
        return Exit(
            on_failure="" if self.failed == NO_EVENT else self.failed,
            on_success="" if self.succeeded == NO_EVENT else self.succeeded,
            timeout_seconds=self.timeout,
        )


class ReportFile(_Strict):
    """`report`: the commit status."""

    context: Annotated[str, AfterValidator(_context)] | None = None


def _cancelling(value: object) -> object:
    if value is not True:
        raise ValueError("must be true: cancelling older runs is all that a group is for; else leave it out")
    return value


class ConcurrencyFile(_Strict):
    """`concurrency`: of which runs a newer commit cancels the older ones."""

    group: Literal["pull-request", "branch"]
    cancel: Annotated[Literal[True], BeforeValidator(_cancelling)]


class Settings(_Strict):
    """What a pipeline file and a WorkflowTemplate's annotations have in common."""

    projects: ProjectGlobs
    on: Triggers
    exit: ExitFile = ExitFile()
    checkout: Literal["commit", "ref"] | None = None
    report: ReportFile = ReportFile()
    concurrency: ConcurrencyFile | None = None
    notify: EndpointNames = ()

    def triggers(self) -> tuple[Trigger, ...]:
        """`on`, in its order."""
        return tuple(Trigger(event, filters.branches, filters.tags) for event, filters in self.on.items())

    def pipeline_of(self, name: str, steps: tuple[Step, ...], *, timeout_seconds: float) -> Pipeline:
        """The whole pipeline."""
        return Pipeline(
            name=name,
            projects=self.projects,
            on=self.triggers(),
            steps=steps,
            exit=self.exit.exit(),
            timeout_seconds=timeout_seconds,
            checkout=Checkout(self.checkout) if self.checkout else None,
            report_context=self.report.context,
            concurrency=Concurrency(self.concurrency.group) if self.concurrency else None,
            notify=self.notify,
        )


class PipelineFile(Settings):
    """A whole pipeline file."""

    name: Annotated[str, AfterValidator(_pipeline_name)]
    steps: Annotated[tuple[StepFile, ...], Field(min_length=1, max_length=MAX_STEPS)]
    timeout: WholeSeconds = Pipeline.timeout_seconds
    unhandled: Literal["ok", "fail"] = "fail"

    def pipeline(self) -> Pipeline:
        """The pipeline. Raises _Contradictions if its steps do not fit together."""
        lines = list(_contradictions(self.steps))
        if lines:
            raise _Contradictions(lines)
        steps = tuple(step.step(unhandled_ok=self.unhandled == "ok") for step in self.steps)
        return self.pipeline_of(self.name, steps, timeout_seconds=self.timeout)


def _contradictions(steps: tuple[StepFile, ...]) -> Iterator[str]:
    first: dict[str, StepFile] = {}
    for index, step in enumerate(steps):
        earlier = first.setdefault(mapped(step.name), step)
        if earlier is not step:
            yield f"steps[{index}].name: {_both(step.name, earlier.name)}"
        if step.event is None and step.name in RESERVED_EVENTS:
            yield f"steps[{index}].name: `{step.name}` is Brigade's own event; put another `event` beside it"
    unknown = False
    for index, step in enumerate(steps):
        for need in step.needs:
            if mapped(need) not in first:
                unknown = True
                yield f"steps[{index}].needs: there is no step `{cut(need)}`{instead(need, first)}"
        for twice in _repeated(mapped(need) for need in step.needs):
            yield f"steps[{index}].needs: `{cut(twice)}` is there twice; keep one"
    if unknown:
        return
    circle = circle_in({name: tuple(map(mapped, step.needs)) for name, step in first.items()})
    if circle:
        yield f"steps: {' needs '.join(circle)}: none of them could ever begin; remove one of these needs"


def _both(name: str, earlier: str) -> str:
    if name == earlier:
        return f"`{name}` is there twice; rename one and put `event: {name}` beside it"
    return (
        f"`{name}` and `{earlier}` are both `{mapped(name)}` in Argo, where `_`, `:` and `.` become `-`; rename "
        "one and put its `event` beside it"
    )


def circle_in(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A circle among `needs` as `(a, b, a)`, or empty. Names that are no keys count as settled."""
    left = {name: set(others) & set(needs) for name, others in needs.items()}
    while True:
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            break
        for name in free:
            del left[name]
    if not left:
        return ()
    path = [next(iter(left))]
    while len(set(path)) == len(path):
        path.append(next(other for other in needs[path[-1]] if other in left))
    return tuple(path[path.index(path[-1]) :])


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


_SECTIONS: dict[str, type[BaseModel]] = {
    "steps": StepFile,
    "on": TriggerFile,
    "exit": ExitFile,
    "report": ReportFile,
    "concurrency": ConcurrencyFile,
}
_EXAMPLES = {
    "name": "name: pull-request",
    "projects": "projects: acme/widgets",
    "on": "on: [push]",
    "steps": "steps: [{name: build}]",
}
