"""A pipeline as an Argo WorkflowTemplate (design.md: A step, How a run ends; facts/argo.md: Manifest rules).

The only importer of Hera. What is rendered holds no text that came from outside: Argo's templating sees opaque
literals, its own variables and the parameters of a submission. Everything that `workflow_templates.pipeline_of`
needs to read the pipeline back is in it.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml
from hera.workflows import models

from bridge.core import durations
from bridge.core.concurrency import Concurrency
from bridge.core.names import ATTEMPT_LABEL, LABEL_PREFIX, PIPELINE_LABEL, RUN_LABEL, STEP_LABEL
from bridge.core.pipelines import OPTED_IN, Exit, Pipeline, Step, Trigger

DEFAULT_IMAGE = "brigade-argo-bridge:0.1.0"
SERVICE_ACCOUNT = "bridge-step"
ENTRYPOINT = "main"
EXIT_HANDLER = "exit"
HEADER = "# rendered by bridgectl render; do not edit\n"

RETRY_EXPRESSION = (
    "lastRetry.status == 'Error' || (lastRetry.exitCode in ['75','64','137','143'] "
    "&& not (lastRetry.message contains 'specified deadline'))"
)
"""Start the process again only when it could not answer; the loop over tries is in the process (design.md)."""

RETRY_LIMIT = 10
EXIT_HANDLER_TIMEOUT = "180s"
"""Also ends an exit pod that cannot be placed (facts/argo.md)."""
KEPT_SECONDS = 7 * 24 * 3600
USER = 65532

CONFIG_MAP = "bridge-step"
"""Where a step's pod finds Brigade's namespace and the gateway; the chart makes it, and nothing needs it."""
IDENTITY_VOLUME = "bridge-token"
IDENTITY_FOLDER = "/var/run/secrets/bridge"
AUDIENCE = "bridge"
"""Of the ServiceAccount's token with which a step asks the gateway for its run's token; no use anywhere else."""
IDENTITY_SECONDS = 3600

_RUN = "{{workflow.parameters.run}}"
_ATTEMPT = "{{workflow.parameters.attempt}}"


def workflow_template(
    pipeline: Pipeline,
    *,
    image: str = DEFAULT_IMAGE,
    namespace: str | None = None,
    service_account: str = SERVICE_ACCOUNT,
) -> dict[str, Any]:
    """The WorkflowTemplate of `pipeline` as plain JSON values, without fields that are not set.

    `image` is the one that holds `brig` and `bridgectl`; `service_account` the steps', which must be allowed
    what a step does. Submitted by hand without a record, `run` is `none`.
    """
    manifest = models.WorkflowTemplate(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowTemplate",
        metadata=models.ObjectMeta(name=pipeline.name, namespace=namespace, annotations=_annotations(pipeline)),
        spec=_spec(pipeline, image, service_account),
    )
    dumped: dict[str, Any] = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def render_yaml(template: Mapping[str, Any]) -> str:
    """`template` as YAML: always the same text for it, and read alike by YAML 1.1 and 1.2."""
    dumped = yaml.dump(_ordered(template), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)
    return HEADER + dumped


def _annotations(pipeline: Pipeline) -> dict[str, str]:
    told = {
        "projects": ", ".join(pipeline.projects),
        "on": _on(pipeline.on),
        "exit": _exit(pipeline.exit),
        "checkout": pipeline.checkout,
        "report": pipeline.report_context,
        "concurrency": _concurrency(pipeline.concurrency),
        "notify": ", ".join(pipeline.notify) or None,
    }
    return {f"{LABEL_PREFIX}{name}": str(text) for name, text in told.items() if text is not None}


def _on(triggers: tuple[Trigger, ...]) -> str:
    if not any(trigger.branches or trigger.tags for trigger in triggers):
        return ", ".join(trigger.event for trigger in triggers)
    return json.dumps({trigger.event: _filters(trigger) for trigger in triggers}, ensure_ascii=False)


def _filters(trigger: Trigger) -> dict[str, list[str]]:
    filters = {"branches": list(trigger.branches), "tags": list(trigger.tags)}
    return {kind: globs for kind, globs in filters.items() if globs}


def _exit(ending: Exit) -> str:
    return json.dumps(
        {
            "failed": ending.on_failure or "none",
            "succeeded": ending.on_success or "none",
            "timeout": durations.written(ending.timeout_seconds),
        }
    )


def _concurrency(group: Concurrency | None) -> str | None:
    return None if group is None else json.dumps({"group": group, "cancel": True})


def _spec(pipeline: Pipeline, image: str, service_account: str) -> models.WorkflowSpec:
    steps = [_step_template(step, pipeline, image) for step in pipeline.steps]
    return models.WorkflowSpec(
        entrypoint=ENTRYPOINT,
        on_exit=EXIT_HANDLER,
        service_account_name=service_account,
        arguments=models.Arguments(
            parameters=[
                models.Parameter(name="run", value="none"),
                models.Parameter(name="attempt", value="0"),
                models.Parameter(name="commit", value=""),
                models.Parameter(name="ref", value=""),
            ]
        ),
        active_deadline_seconds=int(pipeline.timeout_seconds),
        workflow_metadata=models.WorkflowMetadata(labels={PIPELINE_LABEL: pipeline.name}),
        pod_metadata=models.Metadata(
            labels={RUN_LABEL: _RUN, ATTEMPT_LABEL: _ATTEMPT, PIPELINE_LABEL: pipeline.name}
        ),
        security_context=models.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=models.SeccompProfile(type="RuntimeDefault"),
        ),
        pod_spec_patch=_pod_spec_patch(),
        volumes=[_identity_volume()],
        pod_gc=models.PodGC(strategy="OnWorkflowCompletion", delete_delay_duration="600s"),
        ttl_strategy=models.TTLStrategy(seconds_after_completion=KEPT_SECONDS),
        templates=[_entrypoint(pipeline.steps), *steps, _exit_template(image)],
    )


def _identity_volume() -> models.Volume:
    token = models.ServiceAccountTokenProjection(
        path="token", audience=AUDIENCE, expiration_seconds=IDENTITY_SECONDS
    )
    source = models.ProjectedVolumeSource(sources=[models.VolumeProjection(service_account_token=token)])
    return models.Volume(name=IDENTITY_VOLUME, projected=source)


def _pod_spec_patch() -> str:
    """Argo's own containers, which Pod Security `restricted` refuses as they come (facts/argo.md)."""
    context = _container_security().model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(
        {
            "initContainers": [{"name": "init", "securityContext": context}],
            "containers": [{"name": "wait", "securityContext": context}],
        }
    )


def _entrypoint(steps: tuple[Step, ...]) -> models.Template:
    tasks = [
        models.DAGTask(name=step.name, template=step.name, depends=" && ".join(step.needs) or None)
        for step in steps
    ]
    return models.Template(name=ENTRYPOINT, dag=models.DAGTemplate(fail_fast=False, tasks=tasks))


def _step_template(step: Step, pipeline: Pipeline, image: str) -> models.Template:
    told = {**_told(), "BRIDGE_STEP": step.name, **_told_by_hand(pipeline)}
    return models.Template(
        name=step.name,
        metadata=models.Metadata(labels={STEP_LABEL: step.name}),
        retry_strategy=models.RetryStrategy(
            limit=models.IntOrString(str(RETRY_LIMIT)),
            retry_policy="Always",
            expression=RETRY_EXPRESSION,
            backoff=models.Backoff(duration="5s", factor=models.IntOrString("2"), cap="2m"),
        ),
        container=_container(image, ["brig"], ["run", *_flags(step, pipeline)], told),
    )


def _exit_template(image: str) -> models.Template:
    return models.Template(
        name=EXIT_HANDLER,
        timeout=EXIT_HANDLER_TIMEOUT,
        metadata=models.Metadata(labels={STEP_LABEL: EXIT_HANDLER}),
        container=_container(image, ["bridgectl"], ["exit"], _told()),
    )


def _flags(step: Step, pipeline: Pipeline) -> list[str]:
    """The flags of `brig run`; what is at its default is left out, but for the tries."""
    flags = [] if step.tries is None else ["--tries", str(step.tries)]
    if step.backoff_seconds != Step.backoff_seconds:
        flags += ["--backoff", durations.written(step.backoff_seconds)]
    if step.timeout_seconds is not None:
        flags += ["--timeout", durations.written(step.timeout_seconds)]
    if step.lost != Step.lost:
        flags += ["--lost", str(step.lost)]
    if step.unhandled_ok:
        flags.append("--unhandled=ok")
    if pipeline.checkout is not None:
        flags += ["--checkout", pipeline.checkout]
    for event in step.events:
        flags += ["-e", event]
    return flags


def _told() -> dict[str, str]:
    """What every container of ours must know of its place."""
    return {
        "BRIDGE_RUN": _RUN,
        "BRIDGE_ATTEMPT": _ATTEMPT,
        "BRIDGE_WORKFLOW": "{{workflow.name}}",
        "BRIDGE_WORKFLOW_UID": "{{workflow.uid}}",
    }


def _told_by_hand(pipeline: Pipeline) -> dict[str, str]:
    """What a step needs when somebody submits the template by hand and there is no record to ask."""
    told = {"BRIDGE_COMMIT": "{{workflow.parameters.commit}}", "BRIDGE_REF": "{{workflow.parameters.ref}}"}
    if (
        len(pipeline.projects) == 1
        and not {"*", "?"} & set(pipeline.projects[0])
        and pipeline.projects[0] != OPTED_IN
    ):
        told["BRIDGE_PROJECT"] = pipeline.projects[0]
    return told


def _container(image: str, command: list[str], args: list[str], told: Mapping[str, str]) -> models.Container:
    return models.Container(
        image=image,
        image_pull_policy="IfNotPresent",
        command=command,
        args=args,
        env=[models.EnvVar(name=name, value=value) for name, value in told.items()],
        env_from=[models.EnvFromSource(config_map_ref=models.ConfigMapEnvSource(name=CONFIG_MAP, optional=True))],
        volume_mounts=[models.VolumeMount(name=IDENTITY_VOLUME, mount_path=IDENTITY_FOLDER, read_only=True)],
        resources=models.ResourceRequirements(
            requests={"cpu": models.Quantity("10m"), "memory": models.Quantity("64Mi")},
            limits={"memory": models.Quantity("128Mi")},
        ),
        security_context=_container_security(),
    )


def _container_security() -> models.SecurityContext:
    return models.SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=models.Capabilities(drop=["ALL"]),
    )


_FIRST_KEYS = ("apiVersion", "kind", "name", "namespace", "metadata", "entrypoint", "onExit")
_LAST_KEYS = ("templates",)


def _ordered(value: Any) -> Any:
    """Mappings with what names a thing first, its templates last and the rest by name."""
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value, key=_place)}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _place(key: str) -> tuple[int, str]:
    if key in _FIRST_KEYS:
        return _FIRST_KEYS.index(key), ""
    return len(_FIRST_KEYS) + (key in _LAST_KEYS), key


class _Dumper(yaml.SafeDumper):
    """Indents lists under their key, and quotes whatever another YAML could take for a number or a boolean."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow=flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Kubernetes' YAML takes `y`, `n` and `1e3` for something else; PyYAML does not and would leave them bare.
    bare = text[:1].isalpha() and len(text) > 1
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else "'")


_Dumper.add_representer(str, _text)
