"""What `bridgectl doctor` says of a cluster, and how it judges what it read there. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import yaml

from bridge.core.kubernetes import Json, mapping, mappings, seconds, text

PHASE_LABEL = "workflows.argoproj.io/phase"
"""Argo writes it on a Workflow as soon as it has looked at it."""
UNATTENDED_SECONDS = 120.0
"""A Workflow that has waited so long for Argo's first look is not looked at."""
SAFE_ARGO: Mapping[tuple[int, int], int] = {(3, 7): 15, (4, 0): 10, (4, 1): 4}
"""The first safe release of each line of Argo (facts: Argo's advisories of 2026); later lines are safe."""
OLDEST_KUBERNETES = (1, 30)
"""Older API servers do not know a preStop sleep, by which the gateway's pods end without losing requests."""

_CONFIG = "workflow-controller-configmap"
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[-+.].*)?")
_TRUE = frozenset({"true", "1", "t"})
_NAMED = 10
_SPEC_FIELDS = (
    "activeDeadlineSeconds",
    "arguments",
    "onExit",
    "podGC",
    "podMetadata",
    "podSpecPatch",
    "securityContext",
    "serviceAccountName",
    "shutdown",
    "suspend",
    "templates",
    "ttlStrategy",
    "workflowMetadata",
    "workflowTemplateRef",
)
"""Of a Workflow's or WorkflowTemplate's spec: what bridge writes."""


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """It could not be looked at; what that needs is said."""


@dataclass(frozen=True)
class Finding:
    """One check's result. Nothing secret is in it."""

    check: str
    """Which check, in words with dots: `argo.version`."""
    status: Status
    told: str
    """What was seen."""
    remedy: str = ""
    """What to do about it; never empty unless the status is ok."""

    @property
    def content(self) -> dict[str, str]:
        """As `-o json` shows it."""
        return {"check": self.check, "status": self.status.value, "told": self.told, "remedy": self.remedy}


def ok(check: str, told: str) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, told)


def warning(check: str, told: str, remedy: str) -> Finding:
    """It works, but somebody should look."""
    return Finding(check, Status.WARNING, told, remedy)


def wrong(check: str, told: str, remedy: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(check, Status.WRONG, told, remedy)


def unknown(check: str, told: str, remedy: str) -> Finding:
    """It could not be found out."""
    return Finding(check, Status.UNKNOWN, told, remedy)


def worst(findings: Iterable[Finding]) -> Status:
    """Of all: wrong, else unknown, else warning, else ok."""
    found = {finding.status for finding in findings}
    order = (Status.WRONG, Status.UNKNOWN, Status.WARNING)
    return next((status for status in order if status in found), Status.OK)


def named(names: Sequence[str]) -> str:
    """The first of them, and how many more."""
    shown = ", ".join(name[:200] for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def version_of(words: str) -> tuple[int, int, int] | None:
    """The version in an image's tag or a `gitVersion`; None where there is none (a digest, `latest`)."""
    tag = words.partition("@")[0].rpartition("/")[2]
    found = _VERSION.fullmatch(tag.rpartition(":")[2])
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def safe_release(version: tuple[int, int, int]) -> str:
    """The release to go to if this one of Argo is not safe; empty if it is."""
    line, patch = version[:2], version[2]
    if line in SAFE_ARGO:
        floor = SAFE_ARGO[line]
        return "" if patch >= floor else f"{line[0]}.{line[1]}.{floor}"
    later = min((known for known in SAFE_ARGO if known > line), default=None)
    return f"{later[0]}.{later[1]}.{SAFE_ARGO[later]}" if later else ""


def crd_complaint(crd: Json) -> str:
    """What bridge needs and this CRD of Argo's does not have; empty if it has all."""
    spec = mapping(crd, "spec")
    version = next((one for one in mappings(spec, "versions") if one.get("name") == "v1alpha1"), None)
    if version is None or version.get("served") is not True:
        return "it does not serve v1alpha1"
    if spec.get("scope") != "Namespaced":
        return "its objects are not in namespaces"
    schema = mapping(version, "schema", "openAPIV3Schema")
    known = mapping(schema, "properties", "spec")
    if any(part.get("x-kubernetes-preserve-unknown-fields") is True for part in (schema, known)):
        # Argo's minimal CRDs keep every field.
        return ""
    missing = [name for name in _SPEC_FIELDS if name not in mapping(known, "properties")]
    return f"its schema does not know spec.{', spec.'.join(missing)}" if missing else ""


@dataclass(frozen=True)
class ArgoController:
    """A Deployment of Argo's workflow-controller."""

    namespace: str
    name: str
    image: str
    config: str
    """The ConfigMap that it reads, in its own namespace."""
    watches: str
    """The one namespace that it looks at; empty is all."""
    ready: int
    instance_id: str | None = ""
    """None: not known."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def argo_controller_of(deployment: Json) -> ArgoController | None:
    """Argo's controller in a Deployment; None if it runs something else."""
    container = container_of(deployment, "workflow-controller")
    if container is None:
        return None
    metadata = mapping(deployment, "metadata")
    namespace = text(metadata, "namespace")
    flags = _argo_flags(container)
    # --managed-namespace counts without --namespaced too: Argo refuses to start otherwise.
    only = flags.get("managed-namespace", "") or (namespace if flags.get("namespaced") in _TRUE else "")
    return ArgoController(
        namespace=namespace,
        name=text(metadata, "name"),
        image=text(container, "image"),
        config=flags.get("configmap", "") or _CONFIG,
        watches=only,
        ready=ready_replicas(deployment),
    )


def container_of(deployment: Json, program: str) -> Json | None:
    """The container of a Deployment that runs `program`, by its image or its command; None if none does."""
    for container in mappings(mapping(deployment, "spec", "template", "spec"), "containers"):
        image = text(container, "image").partition("@")[0].rpartition("/")[2].partition(":")[0]
        first = [word.rpartition("/")[2] for word in _words(container, "command")[:1]]
        if image == program or program in first:
            return container
    return None


def ready_replicas(deployment: Json) -> int:
    """How many of its pods are ready."""
    ready = mapping(deployment, "status").get("readyReplicas")
    return ready if isinstance(ready, int) else 0


def flags_of(container: Json) -> dict[str, str]:
    """A container's flags, `--name value` and `--name=value`; one without a value is `true`."""
    words = [*_words(container, "command"), *_words(container, "args")]
    flags: dict[str, str] = {}
    for index, word in enumerate(words):
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        after = words[index + 1] if index + 1 < len(words) else "-"
        flags[name] = value if equals else "true" if after.startswith("-") else after
    return flags


def variables_of(container: Json) -> dict[str, str]:
    """A container's variables as far as they are literals."""
    return {text(one, "name"): text(one, "value") for one in mappings(container, "env")}


def instance_id_of(config: Json) -> str:
    """The `instanceID` in a ConfigMap of Argo's controller; empty if it has none, or it cannot be read."""
    data = mapping(config, "data")
    direct = text(data, "instanceID").strip().strip("\"'")
    if direct:
        return direct
    try:
        loaded = yaml.safe_load(text(data, "config"))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return ""
    return text(loaded, "instanceID") if isinstance(loaded, Mapping) else ""


def why_unwatched(controller: ArgoController, namespace: str, instance_id: str) -> str:
    """Why this controller does not look at our Workflows; empty if it does, as far as is known."""
    if controller.watches and controller.watches != namespace:
        return f"it watches namespace {controller.watches} alone"
    if controller.instance_id is not None and controller.instance_id != instance_id:
        theirs = f"has the instanceID {controller.instance_id}" if controller.instance_id else "has no instanceID"
        return f"it {theirs}, and bridge's Workflows {f'have {instance_id}' if instance_id else 'have none'}"
    return "" if controller.ready else "none of its pods is ready"


def unattended(
    without_phase: Iterable[Json], newest_with_phase: float | None, now: float
) -> tuple[list[str], bool]:
    """The Workflows that wait for Argo's first look for too long, and whether Argo looked at a later one.

    Args:
        without_phase: Workflows without Argo's label, their metadata is enough.
        newest_with_phase: when the newest with it was created.
        now: in seconds since the epoch.

    """
    waits = {
        text(mapping(one, "metadata"), "name"): seconds(mapping(one, "metadata"), "creationTimestamp") or now
        for one in without_phase
    }
    late = sorted(name for name, created in waits.items() if now - created > UNATTENDED_SECONDS)
    looked = newest_with_phase is not None and any(newest_with_phase > waits[name] for name in late)
    return late, looked


def full_quotas(quota: Json) -> list[tuple[int, int]]:
    """The limits of a ResourceQuota on the number of pods that are used up, each as (limit, used)."""
    hard, used = mapping(quota, "status", "hard"), mapping(quota, "status", "used")
    counts = [(_whole(hard, name), _whole(used, name)) for name in ("pods", "count/pods") if name in hard]
    return [(most, now) for most, now in counts if now >= most]


def _whole(values: Json, key: str) -> int:
    value = text(values, key)
    return int(value) if value.isdecimal() and value.isascii() and len(value) < len("9999999999999") else 0


def _argo_flags(container: Json) -> dict[str, str]:
    """Argo takes each flag from a variable as well; the flag wins."""
    prefix = "ARGO_"
    told = {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in variables_of(container).items()
        if name.startswith(prefix)
    }
    return {**told, **flags_of(container)}


def _words(container: Json, key: str) -> list[str]:
    found = container.get(key)
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []
