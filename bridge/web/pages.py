"""The pages: runs, a run, its logs, and projects. They work without script; with it (htmx) they stay up to date.

What is asked for again and again is cheap: it says what it shows already (`seen`), and is answered 204 if that is
all there is.
"""

from typing import Annotated, TypeVar

from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from werkzeug.exceptions import BadRequest, NotFound

from bridge.core.builds import Build
from bridge.core.graphs import BOX_HEIGHT
from bridge.core.representations import build_state
from bridge.errors import BridgeError, UnknownProject
from bridge.errors import NotFound as NotThere
from bridge.web.access import require_reader
from bridge.web.gateway import gateway
from bridge.web.listing import STATES, Page, Query, page_of, query_of
from bridge.web.log_views import newest_of, page_text, piece_of, whole_log
from bridge.web.project_views import BAR_WIDTH, CHART_HEIGHT, CHART_WIDTH, pipelines_of, project_rows, project_view
from bridge.web.run_views import run_view, seen_of_run

SUGGESTIONS = 200
"""So many names are suggested in a filter."""
UNCHANGED = 204

pages = Blueprint("pages", __name__)

_Asked = TypeVar("_Asked", bound=BaseModel)


class _Seen(BaseModel):
    """What a page that stays up to date shows already."""

    model_config = ConfigDict(hide_input_in_errors=True)

    seen: Annotated[str, StringConstraints(max_length=40)] = ""


class _Log(BaseModel):
    """Which build's log, and from where on."""

    model_config = ConfigDict(hide_input_in_errors=True)

    build: int | None = Field(None, ge=1)
    epoch: int | None = Field(None, ge=1)
    offset: int = Field(0, ge=0, le=2**53)


@pages.before_request
def _guard() -> None:
    require_reader(request, gateway())


@pages.get("/")
def index() -> ResponseReturnValue:
    """The runs that the query's filters let through, the newest first, a page at a time."""
    query = query_of(request.args)
    try:
        page = page_of(gateway().runs, query)
    except NotThere:
        # The run that this page begins after was swept away meanwhile.
        return redirect(url_for("pages.index") + query.text(after=""))
    return render_template("index.html", **_shown_list(query, page), **_suggestions())


@pages.get("/live")
def live_index() -> ResponseReturnValue:
    """The first page of the list again, if it is another one by now."""
    query = query_of(request.args)
    page = page_of(gateway().runs, query.model_copy(update={"after": ""}))
    if page.seen == _asked(_Seen).seen:
        return "", UNCHANGED
    return render_template("live_list.html", **_shown_list(query, page))


@pages.get("/runs/<run_id>")
def run(run_id: str) -> ResponseReturnValue:
    """One run: its steps and builds, the ends of their logs, what happened, and what can be done."""
    return render_template("run.html", **_shown_run(run_id))


@pages.get("/runs/<run_id>/live")
def live_run(run_id: str) -> ResponseReturnValue:
    """What of a run's page may change, if it did."""
    known = gateway().runs.read(run_id)
    builds = gateway().builds.find(run_id)
    if seen_of_run(known, builds, pipelines=gateway().pipelines) == _asked(_Seen).seen:
        return "", UNCHANGED
    return render_template("live_run.html", **_shown_run(run_id))


@pages.get("/runs/<run_id>/steps/<step>/log")
def log(run_id: str, step: str) -> ResponseReturnValue:
    """The end of a build's log, which grows while the build runs."""
    build = _build(run_id, step)
    text, is_end = page_text(whole_log(gateway().builds, build))
    known = gateway().runs.read(run_id)
    state = build_state(build)
    return render_template("log.html", run=known, build=build, state=state, text=text, is_end=is_end)


@pages.get("/runs/<run_id>/steps/<step>/log/more")
def more_log(run_id: str, step: str) -> ResponseReturnValue:
    """What a log has from `offset` on, as a piece of a page."""
    build = _build(run_id, step)
    piece = piece_of(gateway().builds, build, offset=_asked(_Log).offset)
    if not piece.text and not piece.ended:
        return "", UNCHANGED
    return render_template("log_piece.html", build=build, piece=piece)


@pages.get("/runs/<run_id>/steps/<step>/log.txt")
def log_text(run_id: str, step: str) -> ResponseReturnValue:
    """All of a build's log, as plain text."""
    text = whole_log(gateway().builds, _build(run_id, step))
    return Response(text.encode("utf-8", "replace"), content_type="text/plain; charset=utf-8")


@pages.get("/projects")
def projects() -> ResponseReturnValue:
    """All projects."""
    known, pipelines = gateway().projects.all(), gateway().pipelines.all()
    return render_template("projects.html", projects=project_rows(known, pipelines, gateway().runs))


@pages.get("/projects/<path:name>")
def project(name: str) -> ResponseReturnValue:
    """A project: its pipelines with their last runs."""
    try:
        known = gateway().projects.read(name)
        pipelines = pipelines_of(known, gateway().pipelines.all())
    except UnknownProject:
        pipelines = []
    view = project_view(name, pipelines, gateway().runs, now=gateway().clock.now())
    if not view.pipelines and not view.runs and not _is_known(name):
        raise NotFound("there is no project of this name, and no run of it is left")
    return render_template(
        "project.html",
        project=view,
        site=gateway().public_url or request.host_url.rstrip("/"),
        bar_width=BAR_WIDTH,
        chart_width=CHART_WIDTH,
        chart_height=CHART_HEIGHT,
    )


def _is_known(name: str) -> bool:
    try:
        gateway().projects.read(name)
    except UnknownProject:
        return False
    return True


def _shown_list(query: Query, page: Page) -> dict[str, object]:
    return {"query": query, "page": page, "states": STATES}


def _suggestions() -> dict[str, list[str]]:
    try:
        projects = [project.name for project in gateway().projects.all()]
        pipelines = [pipeline.name for pipeline in gateway().pipelines.all()]
    except BridgeError:
        # The list is there without them.
        return {"projects": [], "pipelines": []}
    return {"projects": projects[:SUGGESTIONS], "pipelines": pipelines[:SUGGESTIONS]}


def _shown_run(run_id: str) -> dict[str, object]:
    known = gateway().runs.read(run_id)
    builds = gateway().builds.find(run_id)
    now = gateway().clock.now()
    view = run_view(known, builds, pipelines=gateway().pipelines, logs=gateway().builds, now=now)
    return {"run": view.told, "view": view, "box_height": BOX_HEIGHT}


def _build(run_id: str, step: str) -> Build:
    gateway().runs.read(run_id)
    wanted = _asked(_Log)
    found = newest_of(gateway().builds.find(run_id, step=step), number=wanted.build, epoch=wanted.epoch)
    if found is None:
        raise NotFound("this step has no such build")
    return found


def _asked(model: type[_Asked]) -> _Asked:
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        fields = ", ".join(str(one["loc"][0])[:60] for one in error.errors()[:5])
        raise BadRequest(f"this page's address cannot be used: look at {fields}") from None
