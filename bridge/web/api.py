"""The API that `bridgectl`, the demo and other programs read runs by, and ask for acts.

Answers are JSON in the form of core/representations.py; errors are problem details. Examples: docs/api.md.
"""

from typing import Annotated, TypeVar
from uuid import uuid4

import structlog
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from bridge.core.builds import Build
from bridge.core.representations import build_state, run_details, run_summary
from bridge.core.runs import Kind
from bridge.flows.acting import act
from bridge.ports import RunFilter
from bridge.web.access import require_actor, require_reader
from bridge.web.bodies import read_body
from bridge.web.gateway import gateway

DEFAULT_LIMIT = 50
HIGHEST_LIMIT = 1000
_LONGEST_ACT_BYTES = 16 * 1024

api = Blueprint("api", __name__, url_prefix="/api/v1")

_log = structlog.get_logger("bridge.web")

_Query = TypeVar("_Query", bound=BaseModel)
_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Wanted(BaseModel):
    """The query of a list. An unknown or misspelt filter is refused: it would show everything."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    project: str = ""
    pipeline: str = ""
    sha: str = ""
    context: str = ""
    pull_request: int | None = None
    open: bool = False
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=HIGHEST_LIMIT)


class _LogWanted(BaseModel):
    """The query of a log."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    build: int | None = Field(None, ge=1)
    epoch: int | None = Field(None, ge=1)
    offset: int | None = Field(None, ge=0)


class _Asked(BaseModel):
    """The body of an act."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    request: Annotated[_Line, Field(max_length=200)] = ""
    """Makes a repeated request harmless; without it each request is one of its own."""
    follows: int | None = Field(None, ge=0)
    """The attempt that the caller was looking at; the newest if left out."""
    only: tuple[Annotated[_Line, Field(max_length=100)], ...] = Field((), max_length=100)
    who: Annotated[_Line, Field(max_length=100)] = ""
    source: Annotated[_Line, Field(max_length=40)] = "api"


@api.before_request
def _guard() -> None:
    if request.method == "POST":
        require_actor(request, gateway())
    else:
        require_reader(request, gateway())


@api.get("/runs")
def runs() -> ResponseReturnValue:
    """The newest runs that match: `{"runs": [...]}`.

    Filters: project, pipeline, sha, context, pull_request, open=true, limit (50 unless told, at most 1000).
    """
    wanted = _read_query(_Wanted)
    filtered = RunFilter(
        project=wanted.project,
        pipeline=wanted.pipeline,
        sha=wanted.sha,
        context=wanted.context,
        pull_request=wanted.pull_request,
        open_only=wanted.open,
        limit=wanted.limit,
    )
    found = gateway().runs.list(filtered)
    return jsonify(runs=[run_summary(run, url=gateway().url_of(run.id)) for run in found])


@api.get("/runs/<run_id>")
def run(run_id: str) -> ResponseReturnValue:
    """All there is to know of a run."""
    known = gateway().runs.read(run_id)
    return jsonify(run_details(known, gateway().builds.find(run_id), url=gateway().url_of(run_id)))


@api.get("/runs/<run_id>/steps/<step>/log")
def log(run_id: str, step: str) -> ResponseReturnValue:
    """The worker's log of a step's newest build, as plain text.

    `build` is the number of another one, `epoch` the attempt that began its epoch. With `offset` only what is
    new since then is answered, and Bridge-Next-Offset says where to go on. The headers Bridge-Build (its
    number) and Bridge-Build-State say which build it is and whether more is to come.
    """
    wanted = _read_query(_LogWanted)
    gateway().runs.read(run_id)
    build = _build_of(run_id, step, wanted)
    headers = {"Bridge-Build": str(build.number), "Bridge-Build-State": build_state(build)}
    if wanted.offset is None:
        text = gateway().builds.log(build)
        if text is None:
            text = build.outcome.tail if build.outcome else ""
        return _plain(text.encode("utf-8", "replace"), headers)
    more, following = gateway().builds.follow(build, offset=wanted.offset)
    return _plain(more, {**headers, "Bridge-Next-Offset": str(following)})


@api.post("/runs/<run_id>/retry")
def retry(run_id: str) -> ResponseReturnValue:
    """Run again what did not succeed."""
    return _act(run_id, Kind.RETRY)


@api.post("/runs/<run_id>/rerun")
def rerun(run_id: str) -> ResponseReturnValue:
    """Run everything again."""
    return _act(run_id, Kind.RERUN)


@api.post("/runs/<run_id>/approve")
def approve(run_id: str) -> ResponseReturnValue:
    """Let a held run begin."""
    return _act(run_id, Kind.APPROVE)


@api.post("/runs/<run_id>/cancel")
def cancel(run_id: str) -> ResponseReturnValue:
    """End the newest attempt."""
    return _act(run_id, Kind.CANCEL)


def _act(run_id: str, kind: Kind) -> ResponseReturnValue:
    """202 when the act is on record (also by an earlier request of the same id), 200 when there is nothing to
    do, with the reason: `{"run", "accepted", "message"}`."""
    asked = _read_act()
    acted = act(
        gateway().runs,
        run_id,
        kind,
        request=asked.request or str(uuid4()),
        who=asked.who,
        source=asked.source,
        now=gateway().clock.now(),
        follows=asked.follows,
        only=asked.only,
    )
    _log.info(kind.value, run=run_id, accepted=acted.accepted, who=asked.who, message=acted.message)
    told = {"run": run_id, "accepted": acted.accepted, "message": acted.message}
    return jsonify(told), 202 if acted.accepted else 200


def _read_act() -> _Asked:
    body = read_body(request, limit_bytes=_LONGEST_ACT_BYTES)
    if not body:
        return _Asked.model_validate({})
    # A form of another site cannot send this type; a script of one needs permission that nobody gives it.
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the act as application/json")
    try:
        return _Asked.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(_complaint(error, "the act")) from None


def _read_query(model: type[_Query]) -> _Query:
    given = request.args.to_dict()
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadRequest(_complaint(error, "the query")) from None


def _complaint(error: ValidationError, what: str) -> str:
    problems = [f"{'.'.join(map(str, one['loc']))[:60] or 'it'}: {one['msg']}" for one in error.errors()[:5]]
    return f"{what} cannot be used: {'; '.join(problems)}"


def _build_of(run_id: str, step: str, wanted: _LogWanted) -> Build:
    builds = [
        build
        for build in gateway().builds.find(run_id, epoch=wanted.epoch, step=step)
        if wanted.build is None or build.number == wanted.build
    ]
    if not builds:
        raise NotFound(f"step {step[:100]} of run {run_id[:100]} has no such build")
    return max(builds, key=lambda build: (build.epoch, build.number))


def _plain(text: bytes, headers: dict[str, str]) -> Response:
    return Response(text, content_type="text/plain; charset=utf-8", headers=headers)
