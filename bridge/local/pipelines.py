"""WorkflowTemplates in folders: the port Pipelines on one machine, and the templates for its engine."""

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.core.pipelines import Pipeline
from bridge.core.workflow_templates import is_pipeline, pipeline_of
from bridge.errors import BadPipeline, NotFound
from bridge.local.stamps import Stamp, stamp_of

_SUFFIXES = (".yaml", ".yml")
_MAX_BYTES = 4 * 1024 * 1024
_SHOWN_CHARACTERS = 300


class TemplatePipelines:
    """The WorkflowTemplates in YAML files, the same files that a cluster gets, and the pipelines among them.

    A file may hold several documents; other kinds in it are left out. What cannot be read is set aside and
    hinders nothing else. Files are read again when they changed. A name in an earlier folder hides the same name
    in a later one; twice in one folder, neither is used. A folder that is not there is empty.

    Args:
        directories: the folders, the most important first.

    """

    def __init__(self, *directories: Path) -> None:
        self._directories = tuple(directory.absolute() for directory in directories)
        self._lock = threading.Lock()
        self._known: dict[Path, _Known] = {}

    def all(self) -> list[Pipeline]:
        """Every pipeline that can be read, by name."""
        found = [one.pipeline for one in self._by_name().values() if one.pipeline is not None]
        return sorted(found, key=lambda pipeline: pipeline.name)

    def read(self, name: str) -> Pipeline:
        """One of them. Raises NotFound, or BadPipeline with the reason."""
        one = self._one(name)
        if one.pipeline is None:
            raise NotFound(
                f"the WorkflowTemplate {name[:100]} is no pipeline; "
                "annotate it with bridge.brigade.sh/projects and bridge.brigade.sh/on"
            )
        return one.pipeline

    def refresh(self) -> bool:
        """Files are looked at each time anyway."""
        return False

    def template(self, name: str) -> dict[str, Any]:
        """The WorkflowTemplate of this name, pipeline or not; a copy. Raises NotFound, or BadPipeline."""
        return copy.deepcopy(dict(self._one(name).template))

    def broken(self) -> Sequence[tuple[Path, str]]:
        """What was set aside: the file and the reason, a line for everything that is wrong."""
        shown = [*self._by_name().values(), *(one for known in self._current() for one in known if not one.name)]
        return sorted((one.path, one.reason) for one in shown if one.reason)

    def _one(self, name: str) -> "_Found":
        one = self._by_name().get(name)
        if one is None:
            folders = ", ".join(str(directory) for directory in self._directories)
            unreadable = [
                one for known in self._current() for one in known if one.reason and one.path.stem == name
            ]
            if unreadable:
                raise BadPipeline(unreadable[0].reason)
            raise NotFound(f"the WorkflowTemplate {name[:100]} is in none of {folders}")
        if one.reason:
            raise BadPipeline(one.reason)
        return one

    def _by_name(self) -> dict[str, "_Found"]:
        named: dict[str, _Found] = {}
        for one in (one for known in self._current() for one in known if one.name):
            first = named.get(one.name)
            if first is None:
                named[one.name] = one
            elif first.path.parent == one.path.parent:
                named[one.name] = _twice(first, one)
        return named

    def _current(self) -> list[tuple["_Found", ...]]:
        with self._lock:
            known = {}
            for path in self._paths():
                stamp = stamp_of(path)
                before = self._known.get(path)
                fresh = before is not None and before.stamp == stamp
                known[path] = before if before is not None and fresh else _Known(stamp, tuple(_read(path)))
            self._known = known
            return [one.found for one in known.values()]

    def _paths(self) -> Iterator[Path]:
        for directory in self._directories:
            try:
                paths = sorted(directory.iterdir())
            except OSError:
                continue
            yield from (path for path in paths if path.suffix in _SUFFIXES and not path.name.startswith("."))


@dataclass(frozen=True)
class _Found:
    """One document of a file, or a file that cannot be read."""

    path: Path
    name: str = ""
    """Empty: it could not be read so far."""
    template: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline | None = None
    """None: it cannot be read, or means to be none."""
    reason: str = ""
    """Why it cannot be used; empty if it can."""


@dataclass(frozen=True)
class _Known:
    stamp: Stamp
    found: tuple[_Found, ...]


class _Loader(yaml.SafeLoader):
    """Leaves dates as text, as YAML's way into Kubernetes does."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path) -> Iterator[_Found]:
    try:
        documents = _documents(path)
    except _Unreadable as exc:
        yield _Found(path, reason=f"{path}: {exc}")
        return
    for document in documents:
        found = _found(path, document)
        if found is not None:
            yield found


class _Unreadable(Exception):
    pass


def _documents(path: Path) -> list[object]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _Unreadable(f"it is longer than {_MAX_BYTES} bytes; split it")
        # _Loader is a SafeLoader: it makes plain values only.
        return list(yaml.load_all(content, Loader=_Loader))
    except OSError as exc:
        raise _Unreadable(f"it cannot be read ({exc.strerror}); check its access rights") from exc
    except yaml.YAMLError as exc:
        said = " ".join(str(exc).split())[:_SHOWN_CHARACTERS]
        raise _Unreadable(f"it is no YAML: {said}") from exc
    except (ValueError, RecursionError, TypeError) as exc:
        raise _Unreadable("it is no YAML that can be read; look for bytes or numbers that are none") from exc


def _found(path: Path, document: object) -> _Found | None:
    if document is None:
        return None
    if not isinstance(document, dict) or "kind" not in document:
        return _Found(
            path,
            reason=f"{path}: it is no WorkflowTemplate, it has no `kind`; if it is a pipeline file, "
            "run `bridgectl render` and put here what that writes",
        )
    if document["kind"] != "WorkflowTemplate":
        return None
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        return _Found(path, reason=f"{path}: metadata.name: the WorkflowTemplate has no name; give it one")
    if not is_pipeline(document):
        return _Found(path, name, document)
    try:
        return _Found(path, name, document, pipeline_of(document))
    except BadPipeline as exc:
        return _Found(path, name, document, reason="\n".join(f"{path}: {line}" for line in str(exc).splitlines()))


def _twice(first: _Found, second: _Found) -> _Found:
    where = "twice in this file" if first.path == second.path else f"also in {second.path}"
    reason = f"{first.path}: metadata.name: the WorkflowTemplate {first.name} is {where}; keep one of them"
    return _Found(first.path, first.name, reason=reason)
