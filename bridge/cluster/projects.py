"""Brigade's project Secrets: the port Projects in a cluster (facts: brigade.md, 2. Project Secret).

What Brigade has no field for is in a second Secret, ours, of the name `<project id>-bridge` in the same
namespace, which `brig project create --replace` leaves alone::

    apiVersion: v1
    kind: Secret
    metadata:
      name: brigade-830c16d4aaf6f5490937ad719afd8490a5bcbef064d397411043ac-bridge
      labels: {component: bridge-project}
    stringData:
      secondSecret: …              # accepted beside sharedSecret, to rotate it
      defaultPipeline: "true"      # opts in to the default pipeline
      allowedAuthors: OWNER, MEMBER

The annotation `bridge.brigade.sh/default-pipeline: "true"` on Brigade's own Secret opts in as well.
A project's `secrets` are not read: Brigade's controller hands them to the worker itself.
"""

import base64
import binascii
import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.patience import within_patience
from bridge.cluster.watching import Cache
from bridge.core.names import LABEL_PREFIX, project_id
from bridge.core.projects import AUTHOR_ASSOCIATIONS, DEFAULT_ALLOWED_AUTHORS, Project
from bridge.errors import BadProject, BridgeError, NotFound, Unavailable, UnknownProject

PROJECT_LABELS = "component in (project,bridge-project)"
"""Finds both Secrets of every project, whoever made them: Helm's have another `heritage`."""
DEFAULT_PIPELINE_ANNOTATION = f"{LABEL_PREFIX}default-pipeline"
OURS = "-bridge"
"""What our Secret's name adds to a project's id."""
MISS_SECONDS = 5.0
"""For a project that is not known the cluster is asked so often at most, whoever asks."""
MISS_PATIENCE_SECONDS = 3.0
"""So long the answer to that may take."""
FRESH_SECONDS = 1.0
"""A project is read anew so often at most."""

_ID = re.compile(r"brigade-[0-9a-f]{54}")
_HOST = re.compile(r"[^/]+/(?=[^/]+/[^/]+\Z)")
"""The host that Brigade has before a repository's name."""


class SecretProjects:
    """Projects read from their Secrets at each call: for commands and steps.

    Args:
        api: the API server.
        namespace: Brigade's.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def read(self, name: str) -> Project:
        """By name. Raises UnknownProject, and BadProject with the reason if a Secret of it cannot be used."""
        return _usable(self._found(project_id(name), f"project {name[:200]}"), name=name)

    def read_by_id(self, project_id: str) -> Project:
        """By id. Raises UnknownProject, and BadProject with the reason if a Secret of it cannot be used."""
        return _usable(self._found(project_id, f"project with the id {project_id[:100]}"))

    def all(self) -> list[Project]:
        """Every project that can be used, by name."""
        kept: dict[str, _Part] = {}
        for page in self._api.pages(SECRETS, self._namespace, labels=PROJECT_LABELS):
            parts = ((str(secret["metadata"]["name"]), part_of(secret)) for secret in page.items)
            kept |= {name: part for name, part in parts if part is not None}
        return _all(kept)

    def fresh(self, known: Project) -> Project:
        """It is read at each call anyway; see the port."""
        return self.read(known.name)

    def _found(self, identity: str, what: str) -> "_Joined":
        if not _ID.fullmatch(identity):
            raise _unknown(what, self._namespace)
        try:
            brigades = part_of(self._api.get(SECRETS, self._namespace, identity))
        except NotFound:
            brigades = None
        if brigades is None:
            raise _unknown(what, self._namespace)
        try:
            ours = part_of(self._api.get(SECRETS, self._namespace, f"{identity}{OURS}"))
        except NotFound:
            ours = None
        return _joined(brigades, ours)


class WatchedProjects:
    """Projects from a watch, for the gateway. Until `cache.watching.synced` is set, they are unknown.

    One that is not known is looked for in the cluster once more, at most every few seconds whoever asks, because
    anybody may ask; Unavailable is raised when that gets no answer.

    Args:
        api: the API server.
        namespace: Brigade's.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._namespace = namespace
        self._secrets = SecretProjects(api.within(MISS_PATIENCE_SECONDS), namespace)
        self._fresh: dict[str, _Fresh] = {}
        self._fresh_lock = threading.Lock()
        self.cache: Cache[_Part] = Cache(api, SECRETS, namespace, part_of, labels=PROJECT_LABELS)

    def start(self) -> None:
        """Begin to watch."""
        self.cache.start()

    def stop(self) -> None:
        """End watching."""
        self.cache.stop()

    def read(self, name: str) -> Project:
        """By name. Raises UnknownProject, and BadProject with the reason if a Secret of it cannot be used."""
        return _usable(self._found(project_id(name), f"project {name[:200]}"), name=name)

    def read_by_id(self, project_id: str) -> Project:
        """By id. Raises UnknownProject, and BadProject with the reason if a Secret of it cannot be used."""
        return _usable(self._found(project_id, f"project with the id {project_id[:100]}"))

    def fresh(self, known: Project) -> Project:
        """A known project as it is in the cluster at this moment, for a last look before a signature is refused.

        At most one read every second for each project; in between, and to whoever asks meanwhile, the answer of
        that one is given. Raises as `read`, and Unavailable when there is no answer.
        """
        with self._fresh_lock:
            # No more of these than there are projects.
            fresh = self._fresh.setdefault(known.id, _Fresh())
        if not fresh.lock.acquire(timeout=within_patience(MISS_PATIENCE_SECONDS)):
            raise Unavailable(f"reading project {known.name[:200]} anew was not done in time; ask again")
        try:
            if time.monotonic() - fresh.read_at >= FRESH_SECONDS:
                fresh.answer = self._asked(known.name)
                fresh.read_at = time.monotonic()
            answer = fresh.answer
        finally:
            fresh.lock.release()
        if isinstance(answer, BridgeError):
            raise answer.with_traceback(None)
        return answer

    def all(self) -> list[Project]:
        """Every project that can be used, by name."""
        return _all(self.cache.all())

    def broken(self) -> Sequence[tuple[str, str]]:
        """The projects that cannot be used, by id, each with the reason."""
        joined = _all_joined(self.cache.all())
        return sorted((name, one.reason) for name, one in joined.items() if one.reason)

    def _asked(self, name: str) -> Project | BridgeError:
        try:
            return self._secrets.read(name)
        except BridgeError as exc:
            return exc

    def _found(self, identity: str, what: str) -> "_Joined":
        if not _ID.fullmatch(identity):
            raise _unknown(what, self._namespace)
        part = self.cache.get(identity)
        if part is None and self.cache.refresh(
            not_within_seconds=MISS_SECONDS, timeout_seconds=MISS_PATIENCE_SECONDS
        ):
            part = self.cache.get(identity)
        if part is None:
            raise _unknown(what, self._namespace)
        return _joined(part, self.cache.get(f"{identity}{OURS}"))


class _Fresh:
    """The last time that a project was read anew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read_at = -math.inf
        self.answer: Project | BridgeError = UnknownProject("nobody asked yet")


@dataclass(frozen=True)
class _Part:
    """What is read of one Secret."""

    project: Project | None = None
    """From Brigade's; without a name if it says none."""
    second_secret: str = ""
    """From ours, and below."""
    default_pipeline: bool = False
    allowed_authors: tuple[str, ...] = DEFAULT_ALLOWED_AUTHORS
    reason: str = ""
    """Why it cannot be used; empty if it can."""

    def __repr__(self) -> str:
        return f"_Part({self.project!r}, {self.reason!r})"


@dataclass(frozen=True)
class _Joined:
    project: Project
    reason: str = ""


def part_of(secret: Mapping[str, Any]) -> _Part | None:
    """What a Secret says of a project; None if it is of none. A Secret that cannot be used says why instead."""
    name = str(secret["metadata"]["name"])
    labels = secret["metadata"].get("labels") or {}
    fields = _Fields(secret, name)
    try:
        ours = name.endswith(OURS) and _ID.fullmatch(name.removesuffix(OURS))
        if ours and labels.get("component") == "bridge-project":
            return _Part(
                second_secret=fields.text("secondSecret"),
                default_pipeline=fields.flag("defaultPipeline", absent=False),
                allowed_authors=_authors(fields),
            )
        if labels.get("component") == "project" and labels.get("app") == "brigade" and _ID.fullmatch(name):
            return _Part(project=_project(secret, fields, name))
    except BadProject as exc:
        return _Part(project=Project(name="", id=name.removesuffix(OURS)), reason=str(exc))
    return None


def _project(secret: Mapping[str, Any], fields: "_Fields", identity: str) -> Project:
    annotations = secret["metadata"].get("annotations") or {}
    name = str(annotations.get("projectName") or "")
    if name and project_id(name) != identity:
        raise BadProject(
            f"Secret {identity}: annotation projectName: {name[:200]} has another id, {project_id(name)}; "
            "a project's name has to be spelled as its repository's"
        )
    return Project(
        name=name,
        id=identity,
        shared_secret=fields.text("sharedSecret"),
        generic_secret=fields.text("genericGatewaySecret"),
        token=fields.text("github.token").strip(),
        repository=_HOST.sub("", fields.text("repository")),
        clone_url=fields.text("cloneURL"),
        default_pipeline=annotations.get(DEFAULT_PIPELINE_ANNOTATION) == "true",
        script=fields.text("brigadejsPath") or Project.script,
        vcs_sidecar=fields.text("vcsSidecar").strip(),
        script_path=fields.text("brigadejsPath"),
        config_path=fields.text("brigadeConfigPath"),
        allow_privileged_jobs=fields.flag("allowPrivilegedJobs", absent=True),
        allow_host_mounts=fields.flag("allowHostMounts", absent=False),
    )


def _authors(fields: "_Fields") -> tuple[str, ...]:
    said = fields.text("allowedAuthors")
    authors = tuple(one for one in re.split(r"[\s,]+", said) if one)
    unknown = [one for one in authors if one not in AUTHOR_ASSOCIATIONS]
    if unknown:
        raise fields.wrong("allowedAuthors", f"write some of {', '.join(sorted(AUTHOR_ASSOCIATIONS))}")
    return authors or DEFAULT_ALLOWED_AUTHORS


class _Fields:
    """A Secret's values; complaints name the key and never quote a value."""

    def __init__(self, secret: Mapping[str, Any], name: str) -> None:
        self._values = secret.get("data") or {}
        self._name = name

    def text(self, key: str) -> str:
        try:
            return base64.b64decode(self._values.get(key) or "", validate=True).decode()
        except (binascii.Error, ValueError):
            raise self.wrong(key, "write text in UTF-8") from None

    def flag(self, key: str, *, absent: bool) -> bool:
        said = self.text(key).strip().lower()
        if said not in {"", "true", "false"}:
            raise self.wrong(key, "write true or false")
        return said == "true" if said else absent

    def wrong(self, key: str, remedy: str) -> BadProject:
        return BadProject(f"Secret {self._name}: {key}: it cannot be used; {remedy}")


def _joined(brigades: _Part, ours: _Part | None) -> _Joined:
    project = brigades.project
    if project is None:
        raise AssertionError
    if ours is None:
        return _Joined(project, brigades.reason)
    added = replace(
        project,
        second_secret=ours.second_secret,
        default_pipeline=project.default_pipeline or ours.default_pipeline,
        allowed_authors=ours.allowed_authors,
    )
    return _Joined(added, brigades.reason or ours.reason)


def _usable(found: _Joined, *, name: str = "") -> Project:
    if found.reason:
        raise BadProject(found.reason)
    # Who asked by name knows it: the id is its hash.
    project = found.project if found.project.name else replace(found.project, name=name)
    if not project.name:
        raise BadProject(f"Secret {project.id}: {_NO_NAME}")
    return project


def _all(kept: Mapping[str, _Part]) -> list[Project]:
    joined = _all_joined(kept).values()
    return sorted((one.project for one in joined if not one.reason), key=lambda project: project.name)


def _all_joined(kept: Mapping[str, _Part]) -> dict[str, _Joined]:
    ids = [name for name in kept if _ID.fullmatch(name)]
    found = {name: _joined(kept[name], kept.get(f"{name}{OURS}")) for name in ids}
    return {
        name: one if one.project.name or one.reason else replace(one, reason=f"Secret {name}: {_NO_NAME}")
        for name, one in found.items()
    }


_NO_NAME = "annotation projectName: it is missing; make the project anew with `brig project create --replace`"


def _unknown(what: str, namespace: str) -> UnknownProject:
    return UnknownProject(
        f"there is no {what} in namespace {namespace}; `brig project list -n {namespace}` shows those there are"
    )
