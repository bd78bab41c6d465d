"""The plain pages: a list of runs, and one run, since a commit's status links there. They run no script."""

import re

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from bridge.core.builds import Build, tail_of
from bridge.core.representations import run_details, run_summary
from bridge.ports import RunFilter
from bridge.web.access import require_reader
from bridge.web.gateway import gateway

SHOWN_RUNS = 100
TAIL_LINES = 40
_TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

pages = Blueprint("pages", __name__)


@pages.before_request
def _guard() -> None:
    require_reader(request, gateway())


@pages.get("/")
def index() -> ResponseReturnValue:
    """The newest runs."""
    found = gateway().runs.list(RunFilter(limit=SHOWN_RUNS))
    return render_template("index.html", runs=[run_summary(run) for run in found])


@pages.get("/runs/<run_id>")
def run(run_id: str) -> ResponseReturnValue:
    """One run: its steps and builds, the ends of their logs, what happened, and the next command to type."""
    known = gateway().runs.read(run_id)
    builds = gateway().builds.find(run_id)
    return render_template("run.html", run=run_details(known, builds), tails=_tails(builds))


def _tails(builds: list[Build]) -> dict[str, str]:
    """The end of the log of each step's newest build, by build id."""
    newest = {build.step: build for build in sorted(builds, key=lambda build: (build.epoch, build.number))}
    return {build.id: _tail(build) for build in newest.values()}


def _tail(build: Build) -> str:
    text = build.outcome.tail if build.outcome is not None else tail_of(gateway().builds.log(build) or "")
    return "\n".join(_TERMINAL_SEQUENCE.sub("", text).splitlines()[-TAIL_LINES:])
