"""The list of runs as a page shows it: its filters are the URL's query, so that a list can be sent to somebody."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from werkzeug.exceptions import BadRequest

from bridge.core.representations import run_summary
from bridge.core.runs import Run
from bridge.core.searching import storable
from bridge.core.verdicts import Verdict
from bridge.ports import RunFilter, Runs

PAGE_RUNS = 50
OPEN = "open"
"""In place of a verdict: the runs that have none yet."""
STATES = (OPEN, *(verdict.value for verdict in Verdict))

_MOST_CHARACTERS = 300


def _state(text: str) -> str:
    if text and text not in STATES:
        raise ValueError(f"write one of {', '.join(STATES)}")
    return text


def _number(text: str) -> str:
    bare = text.removeprefix("#")
    if bare and not (bare.isascii() and bare.isdigit() and len(bare) <= 12):  # noqa: PLR2004 - beyond any number
        raise ValueError("write a pull request's number, such as 7")
    return bare


_Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MOST_CHARACTERS)]


class Query(BaseModel):
    """What is asked for. An empty field filters nothing; a name that is none is left out of account."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    search: _Text = ""
    project: _Text = ""
    pipeline: _Text = ""
    branch: _Text = ""
    pull_request: Annotated[_Text, BeforeValidator(_number)] = ""
    verdict: Annotated[_Text, BeforeValidator(_state)] = ""
    """A verdict, or OPEN."""
    sha: _Text = ""
    delivery: _Text = ""
    after: _Text = ""
    """The run that this page begins after."""

    @property
    def filters(self) -> dict[str, str]:
        """The fields that filter, without the page."""
        return {name: value for name, value in self.model_dump(exclude={"after"}).items() if value}

    @property
    def run_filter(self) -> RunFilter:
        """The same for the records: a page, and one run more if there is one."""
        return RunFilter(
            project=self.project,
            pipeline=self.pipeline,
            branch=self.branch,
            pull_request=int(self.pull_request) if self.pull_request else None,
            verdict="" if self.verdict == OPEN else self.verdict,
            open_only=self.verdict == OPEN,
            sha=self.sha,
            delivery=self.delivery,
            search=self.search,
            after=self.after,
            limit=PAGE_RUNS + 1,
        )

    def text(self, **changes: str) -> str:
        """The query of a URL that asks for this, with `changes`: `?project=…`, or empty."""
        wanted = {**self.filters, "after": self.after, **changes}
        written = urlencode({name: storable(value) for name, value in wanted.items() if value})
        return f"?{written}" if written else ""


def query_of(given: Mapping[str, str]) -> Query:
    """The query of a request. Raises BadRequest (400) that says what to write."""
    try:
        return Query.model_validate(dict(given))
    except ValidationError as error:
        problems = "; ".join(
            f"{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        )
        raise BadRequest(f"this list cannot be shown: {problems}") from None


@dataclass(frozen=True)
class Page:
    """One page of the list."""

    runs: list[dict[str, Any]]
    """In the form of core/representations.py."""
    older: str
    """The query of the next page; empty if this is the last."""
    seen: str
    """Is another one when there is something else to show."""


def page_of(runs: Runs, query: Query) -> Page:
    """The page that is asked for. Raises NotFound if the run that it begins after is gone."""
    found = runs.list(query.run_filter)
    shown = found[:PAGE_RUNS]
    older = query.text(after=shown[-1].id) if len(found) > PAGE_RUNS else ""
    return Page([_row(run) for run in shown], older, seen_of([run_summary(run) for run in shown], older))


def seen_of(*shown: object) -> str:
    """A short text that differs when what is shown differs."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:20]


def seconds_of(run: Run, now: float) -> float:
    """How long a run took, or has been taking: its newest attempt, without the time before a retry."""
    return max(0.0, (run.closed if run.closed is not None else now) - _since(run))


def summary_of(run: Run) -> dict[str, Any]:
    """A run as a list of a page shows it: as the API's summary, with its whole title."""
    return {**run_summary(run), "title": run.event.long_title or run.event.short_title}


def _row(run: Run) -> dict[str, Any]:
    seconds = None if run.closed is None else seconds_of(run, run.closed)
    return {**summary_of(run), "seconds": seconds, "since": _since(run) if seconds is None else None}


def _since(run: Run) -> float:
    """Waiting to begin counts for the first attempt; a later one begins when it is asked for."""
    return run.accepted if run.attempt is None or run.attempt.n == 1 else run.attempt.begun
