"""WorkflowTemplates, rendered or written by hand, as pipelines: what their annotations and their DAG say.

`bridge.brigade.sh/projects` and `/on` make a WorkflowTemplate a pipeline; both, and `/notify`, are lists of words,
and `/on` may be a mapping in YAML as in a pipeline file. `/exit`, `/checkout`, `/report` and `/concurrency` are as
the fields of that name.
The steps are the tasks of the entrypoint's DAG, also those of ordinary containers.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bridge.core import durations, strict_yaml
from bridge.core.complaints import complaints, cut, instead
from bridge.core.names import LABEL_PREFIX
from bridge.core.pipeline_files import Settings, lines_of
from bridge.core.pipelines import Pipeline, Step
from bridge.errors import BadPipeline

_ANNOTATIONS = ("projects", "on", "exit", "checkout", "report", "concurrency", "notify")
_STEP_VARIABLE = "BRIDGE_STEP"
_BRIG_RUN = frozenset({"run", "exec"})
_MAX_NAME = 63
"""Names become label values."""
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
_TASK_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?")
_PLAIN_EVENT = re.compile(r"\w(?:[-\w.:/]*\w)?", re.ASCII)
"""A word that cannot be taken for the beginning of a mapping or list."""
_TASK_IN_DEPENDS = re.compile(r"(?<![-.\w])[A-Za-z0-9][-\w]*")


def is_pipeline(template: Mapping[str, Any]) -> bool:
    """Whether a WorkflowTemplate means to be a pipeline: it has one of the two annotations that make it one."""
    metadata = template.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return isinstance(annotations, Mapping) and any(
        f"{LABEL_PREFIX}{name}" in annotations for name in ("projects", "on")
    )


def pipeline_of(template: Mapping[str, Any]) -> Pipeline:
    """The pipeline in a WorkflowTemplate as the API or a file has it.

    For each pipeline that a pipeline file can say, `pipeline_of(workflow_template(pipeline)) == pipeline`.
    Raises BadPipeline that names the template, the field and what to do.
    """
    try:
        manifest = _Manifest.model_validate(template)
    except ValidationError as exc:
        lines = complaints(exc, model=_Manifest, sections={}, examples={})
        raise BadPipeline("\n".join(f"WorkflowTemplate{_name(template)}: {line}" for line in lines)) from exc
    try:
        _check(_NAME, manifest.metadata.name, "metadata.name")
        settings = _settings(manifest.metadata.annotations)
        steps = tuple(_steps(manifest.spec))
    except _Unusable as exc:
        name = cut(manifest.metadata.name)
        raise BadPipeline("\n".join(f"WorkflowTemplate {name}: {line}" for line in exc.lines)) from exc
    deadline = manifest.spec.active_deadline_seconds
    timeout = Pipeline.timeout_seconds if deadline is None else float(deadline)
    return settings.pipeline_of(manifest.metadata.name, steps, timeout_seconds=timeout)


class _Unusable(Exception):
    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class _Lenient(BaseModel):
    """The parts of a manifest that are read here; the engine judges the rest."""

    model_config = ConfigDict(alias_generator=to_camel, hide_input_in_errors=True)


class _Variable(_Lenient):
    name: str
    value: str | None = None


class _Container(_Lenient):
    command: list[str] = []
    args: list[str] = []
    env: list[_Variable] = []


class _Task(_Lenient):
    name: str
    template: str = ""
    depends: str = ""
    dependencies: list[str] = []
    inline: "_Template | None" = None


class _Dag(_Lenient):
    tasks: list[_Task]


class _Template(_Lenient):
    name: str = ""
    dag: _Dag | None = None
    steps: list[list[_Task]] | None = None
    container: _Container | None = None
    script: _Container | None = None


class _Spec(_Lenient):
    entrypoint: str
    templates: list[_Template]
    active_deadline_seconds: int | None = Field(default=None, gt=0)


class _Metadata(_Lenient):
    name: str
    annotations: dict[str, str] = {}


class _Manifest(_Lenient):
    metadata: _Metadata
    spec: _Spec


def _check(pattern: re.Pattern[str], name: str, field: str) -> None:
    if not pattern.fullmatch(name) or len(name) > _MAX_NAME:
        raise _Unusable(
            f"{field}: `{cut(name)}` cannot be a label's value; at most {_MAX_NAME} letters, digits and `-`"
        )


def _name(template: object) -> str:
    metadata = template.get("metadata") if isinstance(template, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f" {cut(name)}" if isinstance(name, str) else ""


def _settings(annotations: Mapping[str, str]) -> Settings:
    told = {
        name.removeprefix(LABEL_PREFIX): text
        for name, text in annotations.items()
        if name.startswith(LABEL_PREFIX)
    }
    unknown = [name for name in told if name not in _ANNOTATIONS]
    if unknown:
        raise _Unusable(
            *(f"annotation {LABEL_PREFIX}{cut(name)}: unknown{instead(name, _ANNOTATIONS)}" for name in unknown)
        )
    content: dict[str, object] = {}
    for name, text in told.items():
        content[name] = _content(name, text)
    try:
        return Settings.model_validate(content)
    except ValidationError as exc:
        raise _Unusable(*(f"annotation {LABEL_PREFIX}{line}" for line in lines_of(exc))) from exc


def _content(name: str, text: str) -> object:
    """An annotation's text as the field of a pipeline file that it stands for."""
    if name in {"projects", "notify"}:
        return _words(text)
    if name == "report":
        return {"context": text}
    if name == "checkout":
        return text
    if name == "on" and all(_PLAIN_EVENT.fullmatch(word) for word in _words(text)):
        # Not left to YAML, where `404` or `null` would be something else than words.
        return _words(text)
    try:
        return strict_yaml.loaded(text)
    except strict_yaml.NotStrictYaml as exc:
        raise _Unusable(f"annotation {LABEL_PREFIX}{name}: {exc}") from exc


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def _steps(spec: _Spec) -> Iterator[Step]:
    by_name = {template.name: template for template in spec.templates}
    entrypoint = by_name.get(spec.entrypoint)
    if entrypoint is None:
        raise _Unusable(
            f"spec.entrypoint: there is no template `{cut(spec.entrypoint)}`; add it to spec.templates"
        )
    tasks = list(_tasks(entrypoint))
    if not tasks:
        raise _Unusable(f"template {cut(spec.entrypoint)}: it has no tasks; add one")
    for task, needs in tasks:
        _check(_TASK_NAME, task.name, "a task's name")
        template = task.inline or by_name.get(task.template)
        if template is None and task.template:
            raise _Unusable(f"task {cut(task.name)}: there is no template `{cut(task.template)}`; add it")
        yield _step(task.name, needs, (template.container or template.script) if template else None)


def _tasks(entrypoint: _Template) -> Iterator[tuple[_Task, tuple[str, ...]]]:
    if entrypoint.dag is not None:
        names = {task.name for task in entrypoint.dag.tasks}
        for task in entrypoint.dag.tasks:
            found = [
                *task.dependencies,
                *(word for word in _TASK_IN_DEPENDS.findall(task.depends) if word in names),
            ]
            yield task, tuple(dict.fromkeys(found))
        return
    if entrypoint.steps is None:
        yield _Task(name=entrypoint.name, template=entrypoint.name), ()
        return
    before: tuple[str, ...] = ()
    for group in entrypoint.steps:
        for task in group:
            yield task, before
        before = tuple(task.name for task in group)


def _step(name: str, needs: tuple[str, ...], container: _Container | None) -> Step:
    if container is None:
        return Step(name=name, needs=needs, tries=None, native=True)
    literal = next((variable.value for variable in container.env if variable.name == _STEP_VARIABLE), None)
    if literal is not None and "{{" not in literal and literal != name:
        raise _Unusable(
            f"task {cut(name)}: its container has {_STEP_VARIABLE}={cut(literal)}, and a step has one name; "
            "give both the same"
        )
    words = [*container.command, *container.args]
    flags = _flags(_brig_arguments(words))
    return Step(
        name=name,
        needs=needs,
        native=not _is_brig(words),
        events=tuple(flags.events),
        tries=flags.tries,
        backoff_seconds=flags.backoff,
        timeout_seconds=flags.timeout,
        lost=flags.lost,
        unhandled_ok=flags.unhandled == "ok",
    )


def _brig_arguments(words: list[str]) -> list[str]:
    """What follows `brig run`; empty for any other command."""
    for index in range(min(len(words) - 1, 2)):
        if words[index].rpartition("/")[2] == "brig" and words[index + 1] in _BRIG_RUN:
            return words[index + 2 :]
    return []


def _is_brig(words: list[str]) -> bool:
    """Whether a container runs `brig run`, also as the arguments of an image that begins with it."""
    names = ["brig" if word.rpartition("/")[2] == "brig" else word for word in words[:3]]
    pairs = [*pairwise(names)]
    return names[:1] in (["run"], ["exec"]) or any(("brig", run) in pairs for run in _BRIG_RUN)


class _Parser(argparse.ArgumentParser):
    """Does not end the process over flags that it cannot read."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentTypeError(message)


def _flags(words: list[str]) -> argparse.Namespace:
    """The flags of `brig run` as far as they are literals; it is the step itself that judges them."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-e", "--event", action="append", default=[], dest="events")
    parser.add_argument("--tries", type=int)
    parser.add_argument("--backoff", type=durations.seconds_of, default=Step.backoff_seconds)
    parser.add_argument("--timeout", type=durations.seconds_of)
    parser.add_argument("--lost", type=int, default=Step.lost)
    parser.add_argument("--unhandled", default="fail")
    try:
        return parser.parse_known_args(_literals(words))[0]
    except argparse.ArgumentTypeError as exc:
        raise _Unusable(f"`brig run`: {cut(str(exc))}; write the flag's value out") from exc


def _literals(words: list[str]) -> list[str]:
    """`words` without what Argo fills in later, and without the flag before it."""
    kept: list[str] = []
    for word in words:
        if "{{" not in word:
            kept.append(word)
        elif kept and kept[-1].startswith("-") and not word.startswith("-"):
            kept.pop()
    return kept
