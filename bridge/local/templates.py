"""A WorkflowTemplate as a plan that one machine can execute, or the reason why it cannot. Pure.

What only a cluster needs (images, resources, security contexts, node selection, …) is passed over; whatever would
change what is run, or when, and is not understood here is refused before anything starts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic.alias_generators import to_camel

from bridge.core.complaints import complaints, cut
from bridge.errors import BadPipeline
from bridge.local import depends, parameters, retries
from bridge.local.depends import Condition
from bridge.local.retries import NEVER, Strategy

EXIT_NODE = "on.exit"
"""How the exit handler's node is called; no task can be, for the dot in it."""

_TASK_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,127}", re.ASCII)


class Program(StrEnum):
    """What a container runs."""

    STEP = "brig run"
    EXIT = "bridgectl exit"
    HOST = "a command of the host"


@dataclass(frozen=True)
class Command:
    """What is started, with everything filled in."""

    program: Program
    words: tuple[str, ...]
    """The arguments after the program's name; of `HOST` the whole command."""
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """One node of the plan: a container, and after what it runs."""

    name: str
    after: Condition
    program: Program
    words: tuple[str, ...]
    environment: Mapping[str, str]
    values: Mapping[str, str]
    """What `{{…}}` stands for in words and environment, apart from what is only known when it starts."""
    retry: Strategy = NEVER
    timeout_seconds: float | None = None
    """How long one try may take."""

    def command(self, *, tried: int = 0, status: str = "") -> Command:
        """What to start after `tried` tries; `status` is the root node's phase, for the exit handler."""
        values = {**self.values, parameters.RETRIES: str(tried), parameters.STATUS: status}
        return Command(
            self.program,
            tuple(parameters.filled(word, values) for word in self.words),
            {name: parameters.filled(value, values) for name, value in self.environment.items()},
        )


@dataclass(frozen=True)
class Plan:
    """What to execute."""

    tasks: tuple[Task, ...]
    """In the template's order."""
    exit: Task | None
    deadline_seconds: float | None
    """How long the tasks may take together."""
    parallelism: int | None
    """How many of the tasks may run at once."""
    fail_fast: bool

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """The tasks, and the exit handler if there is one."""
        return self.tasks if self.exit is None else (*self.tasks, self.exit)

    @property
    def leaves(self) -> tuple[Task, ...]:
        """The tasks on whose end no other task waits."""
        needed = frozenset[str]().union(*(depends.tasks_in(task.after) for task in self.tasks))
        return tuple(task for task in self.tasks if task.name not in needed)


def plan_of(
    template: Mapping[str, Any],
    *,
    name: str,
    uid: str,
    arguments: Mapping[str, str],
    run_on_host: bool,
) -> Plan:
    """The plan of the Workflow `name` of `template`, submitted with `arguments`.

    `run_on_host` allows commands other than `brig run` and `bridgectl exit`. Raises BadPipeline with the template,
    the field, and what to do.
    """
    try:
        manifest = _read(_Manifest, template, "the WorkflowTemplate", ignored=("apiVersion", "kind", "status"))
        return _Planning(manifest.spec, name, uid, arguments, run_on_host=run_on_host).plan()
    except BadPipeline as exc:
        raise BadPipeline(f"WorkflowTemplate{_named(template)} cannot be run: {exc}") from exc


class _Lenient(BaseModel):
    """Takes every field; `_read` judges those that a model does not name."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", hide_input_in_errors=True)


class _Parameter(_Lenient):
    name: StrictStr
    value: StrictStr | StrictBool | StrictInt | StrictFloat | None = None
    default: StrictStr | StrictBool | StrictInt | StrictFloat | None = None

    @property
    def text(self) -> str | None:
        """Its value as Argo's AnyString has it."""
        found = self.default if self.value is None else self.value
        return str(found).lower() if isinstance(found, bool) else None if found is None else str(found)


class _Parameters(_Lenient):
    parameters: list[dict[str, Any]] = []


class _Backoff(_Lenient):
    duration: StrictStr | StrictInt
    factor: StrictStr | StrictInt | None = None
    cap: StrictStr | StrictInt | None = None


class _Retry(_Lenient):
    limit: StrictStr | StrictInt | None = None
    retry_policy: StrictStr | None = None
    expression: StrictStr | None = None
    backoff: dict[str, Any] | None = None


class _Variable(_Lenient):
    name: StrictStr
    value: StrictStr = ""


class _Container(_Lenient):
    command: list[StrictStr] = []
    args: list[StrictStr] = []
    env: list[dict[str, Any]] = []


class _Task(_Lenient):
    name: StrictStr
    template: StrictStr
    depends: StrictStr = ""
    dependencies: list[StrictStr] = []
    arguments: dict[str, Any] = {}


class _Dag(_Lenient):
    tasks: list[dict[str, Any]]
    fail_fast: StrictBool | None = None


class _Template(_Lenient):
    name: StrictStr
    container: dict[str, Any] | None = None
    dag: dict[str, Any] | None = None
    inputs: dict[str, Any] = {}
    retry_strategy: dict[str, Any] | None = None
    timeout: StrictStr | None = None
    active_deadline_seconds: StrictStr | StrictInt | None = None
    parallelism: StrictInt | None = Field(default=None, gt=0)


class _Spec(_Lenient):
    entrypoint: StrictStr
    templates: list[dict[str, Any]]
    arguments: dict[str, Any] = {}
    on_exit: StrictStr | None = None
    active_deadline_seconds: StrictInt | None = Field(default=None, gt=0)
    parallelism: StrictInt | None = Field(default=None, gt=0)


class _Manifest(_Lenient):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any]


_POD_FIELDS = (
    "affinity",
    "automountServiceAccountToken",
    "executor",
    "hostAliases",
    "metrics",
    "nodeSelector",
    "podResources",
    "podSpecPatch",
    "resourceClaims",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "volumes",
)
_IGNORED_IN_SPEC = (
    *_POD_FIELDS,
    "archiveLogs",
    "artifactGC",
    "artifactRepositoryRef",
    "dnsConfig",
    "dnsPolicy",
    "hostNetwork",
    "imagePullSecrets",
    "podDisruptionBudget",
    "podGC",
    "podMetadata",
    "podPriorityClassName",
    "priority",
    "ttlStrategy",
    "volumeClaimGC",
    "volumeClaimTemplates",
    "workflowMetadata",
)
_IGNORED_IN_TEMPLATE = (
    *_POD_FIELDS,
    "annotations",
    "archiveLocation",
    "metadata",
    "pendingTimeout",
    "priorityClassName",
)
_IGNORED_IN_CONTAINER = (
    "image",
    "imagePullPolicy",
    "name",
    "ports",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
)
_IGNORED_IN_OURS = ("envFrom", "volumeDevices", "volumeMounts", "workingDir")
"""`brig run` and `bridgectl exit` ask the machine for everything themselves."""

_Model = TypeVar("_Model", bound=_Lenient)


def _read(model: type[_Model], value: object, place: str, *, ignored: Iterable[str] = ()) -> _Model:
    """`value` as `model`; a field that neither it nor `ignored` names is refused, unless it says nothing."""
    try:
        found = model.model_validate(value)
    except ValidationError as exc:
        lines = complaints(exc, model=model, sections={}, examples={})
        raise BadPipeline(f"{place}: {lines[0]}") from exc
    for field, content in (found.model_extra or {}).items():
        if content not in (None, False, "", [], {}) and field not in ignored:
            _refuse(f"{place}: {cut(field)}", "the one-machine engine does not know this field; leave it out")
    return found


def _refuse(place: str, reason: str) -> NoReturn:
    raise BadPipeline(f"{place}: {reason}, or run this pipeline on Argo")


def _named(template: Mapping[str, Any]) -> str:
    metadata = template.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f" {cut(name)}" if isinstance(name, str) else ""


class _Planning:
    """One template on its way to a plan."""

    def __init__(
        self, spec: Mapping[str, Any], name: str, uid: str, arguments: Mapping[str, str], *, run_on_host: bool
    ) -> None:
        self._spec = _read(_Spec, spec, "spec", ignored=_IGNORED_IN_SPEC)
        self._run_on_host = run_on_host
        self._templates: dict[str, Mapping[str, Any]] = {}
        for template in self._spec.templates:
            known = template.get("name")
            if not isinstance(known, str) or known in self._templates:
                raise BadPipeline("spec.templates: each needs a name of its own")
            self._templates[known] = template
        self._values = {"workflow.name": name, "workflow.uid": uid}
        given = {**self._parameters(self._spec.arguments, "spec.arguments"), **arguments}
        for parameter, value in given.items():
            if value is None:
                raise BadPipeline(f"spec.arguments: parameter {cut(parameter)} has no value; give it a default")
            self._values[f"{parameters.WORKFLOW_PARAMETER}{parameter}"] = value

    def plan(self) -> Plan:
        """The plan of the entrypoint and the exit handler."""
        template = self._template(self._spec.entrypoint, "spec.entrypoint")
        parallelism, fail_fast = self._spec.parallelism, True
        if template.dag is None:
            _check_name(template.name, "spec.entrypoint")
            alone = self._container_task(template, template.name, depends.after(()), {})
            tasks: tuple[Task, ...] = (alone,)
        else:
            place = f"template {cut(template.name)}"
            dag = _read(_Dag, template.dag, f"{place}: dag")
            self._refuse_limits(template, place)
            tasks = tuple(self._dag_task(raw) for raw in dag.tasks)
            _check_graph(tasks, place)
            parallelism = min(filter(None, (parallelism, template.parallelism)), default=None)
            fail_fast = dag.fail_fast is not False
        deadline = self._spec.active_deadline_seconds
        return Plan(
            tasks=tasks,
            exit=self._exit(),
            deadline_seconds=None if deadline is None else float(deadline),
            parallelism=parallelism,
            fail_fast=fail_fast,
        )

    def _exit(self) -> Task | None:
        if not self._spec.on_exit:
            return None
        template = self._template(self._spec.on_exit, "spec.onExit")
        if template.dag is not None:
            _refuse("spec.onExit", "the exit handler must be one container; give it a template of that kind")
        return self._container_task(template, EXIT_NODE, depends.after(()), {}, is_exit=True)

    def _template(self, name: str, place: str) -> _Template:
        raw = self._templates.get(name)
        if raw is None:
            raise BadPipeline(f"{place}: there is no template `{cut(name)}`; add it to spec.templates")
        found = _read(_Template, raw, f"template {cut(name)}", ignored=_IGNORED_IN_TEMPLATE)
        if (found.dag is None) == (found.container is None):
            _refuse(f"template {cut(name)}", "it must have either a `container` or, as the entrypoint, a `dag`")
        return found

    def _refuse_limits(self, template: _Template, place: str) -> None:
        for field in ("retry_strategy", "timeout", "active_deadline_seconds", "inputs"):
            if getattr(template, field):
                _refuse(f"{place}: {to_camel(field)}", "it is not known here for a whole dag; leave it out")

    def _dag_task(self, raw: Mapping[str, Any]) -> Task:
        shown = cut(str(raw.get("name", "")))
        task = _read(_Task, raw, f"task {shown}")
        place = f"task {shown}"
        _check_name(task.name, place)
        template = self._template(task.template, place)
        if template.dag is not None:
            _refuse(place, f"its template `{cut(template.name)}` is a dag in a dag; write its tasks out")
        if task.depends and task.dependencies:
            raise BadPipeline(f"{place}: it has both depends and dependencies; keep one")
        try:
            after = depends.parsed(task.depends) if task.depends else depends.after(task.dependencies)
        except BadPipeline as exc:
            raise BadPipeline(f"{place}: {exc}") from exc
        return self._container_task(template, task.name, after, self._parameters(task.arguments, place))

    def _container_task(
        self,
        template: _Template,
        name: str,
        after: Condition,
        given: Mapping[str, str | None],
        *,
        is_exit: bool = False,
    ) -> Task:
        place = f"template {cut(template.name)}"
        if template.parallelism is not None:
            _refuse(f"{place}: parallelism", "it is known here for the entrypoint's dag only; leave it out")
        program, words, environment = self._contents(template.container, f"{place}: container")
        values = {**self._values, **self._inputs(template, given, f"task {cut(name)}")}
        known = {**values, **({parameters.STATUS: ""} if is_exit else {})}
        if template.retry_strategy is not None:
            known[parameters.RETRIES] = ""
        for text in (*words, *environment.values()):
            self._filled(text, known, place)
        return Task(
            name=name,
            after=after,
            program=program,
            words=words,
            environment=environment,
            values=values,
            retry=self._retry(template, values, place),
            timeout_seconds=self._timeout(template, values, place),
        )

    def _contents(
        self, raw: Mapping[str, Any] | None, place: str
    ) -> tuple[Program, tuple[str, ...], dict[str, str]]:
        container = _Container.model_validate(raw) if raw is None else _read_container(raw, place)
        if not container.command:
            raise BadPipeline(f"{place}: it has no command, and images are not looked into; write it out")
        environment: dict[str, str] = {}
        for variable in container.env:
            found = _read(_Variable, variable, f"{place}: env")
            environment[found.name] = found.value
        words = (*container.command, *container.args)
        for name in environment:
            if any(f"$({name})" in text for text in (*words, *environment.values())):
                _refuse(place, f"`$({cut(name)})` is filled in by Kubernetes only; write the value out")
        program, rest = _program(words)
        if program is Program.HOST and not self._run_on_host:
            raise BadPipeline(
                f"{place}: ordinary containers need a cluster or --jobs=host; without isolation only "
                "`brig run` and `bridgectl exit` run here"
            )
        return program, rest, environment

    def _inputs(self, template: _Template, given: Mapping[str, str | None], place: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for name, default in self._parameters(template.inputs, f"template {cut(template.name)}: inputs").items():
            value = given.get(name) if given.get(name) is not None else default
            if value is None:
                raise BadPipeline(f"{place}: its template wants a parameter `{cut(name)}`; give it in arguments")
            values[f"{parameters.INPUT}{name}"] = self._filled(value, self._values, place)
        return values

    def _parameters(self, raw: Mapping[str, Any], place: str) -> dict[str, str | None]:
        found = _read(_Parameters, raw, place)
        read = (
            _read(_Parameter, one, f"{place}: parameters", ignored=("description",)) for one in found.parameters
        )
        return {one.name: one.text for one in read}

    def _retry(self, template: _Template, values: Mapping[str, str], place: str) -> Strategy:
        if template.retry_strategy is None:
            return NEVER
        place = f"{place}: retryStrategy"
        told = _read(_Retry, template.retry_strategy, place, ignored=("affinity",))
        try:
            policy = told.retry_policy or ("Always" if told.expression else "OnFailure")
            strategy = Strategy(
                limit=None if told.limit is None else self._count(told.limit, values),
                policy=retries.Policy(policy),
                codes=None if told.expression is None else retries.codes_of(told.expression),
            )
            return strategy if told.backoff is None else self._backing_off(strategy, told.backoff, values)
        except ValueError as exc:
            raise BadPipeline(f"{place}: retryPolicy: known are {', '.join(retries.Policy)}") from exc
        except BadPipeline as exc:
            raise BadPipeline(f"{place}: {exc}") from exc

    def _backing_off(self, strategy: Strategy, raw: Mapping[str, Any], values: Mapping[str, str]) -> Strategy:
        told = _read(_Backoff, raw, "backoff")
        return Strategy(
            limit=strategy.limit,
            policy=strategy.policy,
            codes=strategy.codes,
            pause_seconds=self._seconds(told.duration, values),
            # Argo takes a factor of 0 for none.
            factor=1 if told.factor is None else self._count(told.factor, values) or 1,
            cap_seconds=None if told.cap is None else self._seconds(told.cap, values),
        )

    def _timeout(self, template: _Template, values: Mapping[str, str], place: str) -> float | None:
        told = [value for value in (template.timeout, template.active_deadline_seconds) if value is not None]
        try:
            return min((self._seconds(value, values) for value in told), default=None)
        except BadPipeline as exc:
            raise BadPipeline(f"{place}: timeout or activeDeadlineSeconds: {exc}") from exc

    def _seconds(self, told: str | int, values: Mapping[str, str]) -> float:
        return retries.seconds_of(parameters.filled(str(told), values))

    def _count(self, told: str | int, values: Mapping[str, str]) -> int:
        text = parameters.filled(str(told), values)
        if not text.isascii() or not text.isdigit() or len(text) > 9:  # noqa: PLR2004
            raise BadPipeline(f"`{cut(text)}` is no whole number from 0 on")
        return int(text)

    def _filled(self, text: str, values: Mapping[str, str], place: str) -> str:
        try:
            return parameters.filled(text, values)
        except BadPipeline as exc:
            raise BadPipeline(f"{place}: {exc}") from exc


def _read_container(raw: Mapping[str, Any], place: str) -> _Container:
    ours = _read(_Container, raw, place, ignored=raw)
    program, _ = _program((*ours.command, *ours.args))
    ignored = (*_IGNORED_IN_CONTAINER, *(() if program is Program.HOST else _IGNORED_IN_OURS))
    return _read(_Container, raw, place, ignored=ignored)


def _program(words: Sequence[str]) -> tuple[Program, tuple[str, ...]]:
    """What a command is, and the arguments that are left."""
    first = [word.rpartition("/")[2] for word in words[:1]] + list(words[1:3])
    match first:
        case ["brig", "run" | "exec", *_]:
            return Program.STEP, tuple(words[2:])
        case ["bridgectl", "brig", "run" | "exec"]:
            return Program.STEP, tuple(words[3:])
        case ["bridgectl", "exit", *_]:
            return Program.EXIT, tuple(words[2:])
    return Program.HOST, tuple(words)


def _check_name(name: str, place: str) -> None:
    if not _TASK_NAME.fullmatch(name):
        raise BadPipeline(f"{place}: a name has at most 128 letters, digits and `-`, and begins with no `-`")


def _check_graph(tasks: Sequence[Task], place: str) -> None:
    if not tasks:
        raise BadPipeline(f"{place}: it has no tasks; add one")
    needs = {task.name: depends.tasks_in(task.after) for task in tasks}
    if len(needs) < len(tasks):
        raise BadPipeline(f"{place}: two tasks have one name; give each its own")
    for name, needed in needs.items():
        unknown = sorted(needed - needs.keys())
        if unknown:
            raise BadPipeline(f"task {cut(name)}: it depends on `{cut(unknown[0])}`, which is no task; correct it")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        circle = " → ".join(cut(str(name)) for name in exc.args[1])
        raise BadPipeline(f"{place}: its tasks wait for each other ({circle}); break the circle") from exc
