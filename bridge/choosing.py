"""Which runs are meant by `RUN|SHA|PR` on the command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.core.runs import Kind
from bridge.errors import Misconfigured, NotFound

Json = Mapping[str, Any]

_PULL_REQUEST = re.compile(r"(?P<project>[\w.-]+/[\w.-]+)?#(?P<number>[1-9][0-9]{0,8})|(?P<bare>[1-9][0-9]{0,5})")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_RUN = re.compile(r"[a-z][a-z0-9-]*-[a-z0-9]+")


@dataclass(frozen=True)
class Wanted:
    """What was written; exactly one of `run`, `commit` and `pull_request` is set."""

    text: str
    run: str = ""
    commit: str = ""
    """Whole, or its beginning."""
    pull_request: int | None = None
    project: str = ""
    """Of a pull request; empty if it was not said."""


def wanted(text: str) -> Wanted:
    """Read a run's id, a commit (7 hex digits or more) or a pull request (`7`, `#7`, `acme/widgets#7`).

    A run's id has a dash, so none of them looks like another. Raises Misconfigured.
    """
    pull_request = _PULL_REQUEST.fullmatch(text)
    if pull_request:
        number = int(pull_request["number"] or pull_request["bare"])
        return Wanted(text, pull_request=number, project=pull_request["project"] or "")
    if _COMMIT.fullmatch(text.lower()):
        return Wanted(text, commit=text.lower())
    if _RUN.fullmatch(text):
        return Wanted(text, run=text)
    raise Misconfigured(
        f"{text[:80]!r} is no run, commit or pull request: write a run's id (`bridgectl list` shows them), "
        "7 or more digits of a commit, or #7 or acme/widgets#7"
    )


def chosen(what: Wanted, kind: Kind, runs: Sequence[Json]) -> tuple[str, ...]:
    """The ids of the runs, among `runs` (the newest first), that `kind` is to be asked of.

    Of a pull request its newest commit counts. Of several runs of one project with one status context only the
    newest counts, since only that one may report. Retried are those that closed without success, cancelled those
    that are open, rerun are all. Raises NotFound if none is left, and Misconfigured if a pull request of several
    projects could be meant.
    """
    found = [run for run in runs if _is_meant(what, run)]
    if not found:
        raise NotFound(f"there is no run of {what.text}: `bridgectl list` shows those there are")
    if what.pull_request is not None:
        _check_one_project(what, found)
        found = [run for run in found if run.get("sha") == found[0].get("sha")]
    elif what.commit:
        _check_one_commit(what, found)
    fitting = [str(run.get("id")) for run in _newest_of_context(found) if _fits(kind, run)]
    if not fitting:
        raise NotFound(f"nothing to {kind}: none of the {len(found)} runs of {what.text} {_LACKING[kind]}")
    return tuple(fitting)


_LACKING = {
    Kind.RETRY: "closed without success",
    Kind.CANCEL: "is open",
    Kind.RERUN: "is there any more",
}


def _is_meant(what: Wanted, run: Json) -> bool:
    if what.pull_request is not None:
        same_project = not what.project or run.get("project") == what.project
        return same_project and run.get("pull_request") == what.pull_request
    return str(run.get("sha") or "").startswith(what.commit)


def _check_one_project(what: Wanted, found: Sequence[Json]) -> None:
    projects = sorted({str(run.get("project")) for run in found})
    if len(projects) > 1:
        examples = ", ".join(f"{project}#{what.pull_request}" for project in projects[:5])
        raise Misconfigured(f"{what.text} is a pull request of {len(projects)} projects: write one of {examples}")


def _check_one_commit(what: Wanted, found: Sequence[Json]) -> None:
    commits = {str(run.get("sha")) for run in found}
    if len(commits) > 1:
        raise Misconfigured(f"{len(commits)} commits begin with {what.text}: write more of it")


def _newest_of_context(found: Sequence[Json]) -> list[Json]:
    newest: dict[tuple[object, object], Json] = {}
    for run in found:
        status = run.get("status")
        context = status.get("context") if isinstance(status, Mapping) else run.get("pipeline")
        newest.setdefault((run.get("project"), context), run)
    return list(newest.values())


def _fits(kind: Kind, run: Json) -> bool:
    closed = run.get("phase") == "closed"
    if kind is Kind.RETRY:
        return closed and run.get("verdict") != "succeeded"
    if kind is Kind.CANCEL:
        return not closed
    return True
