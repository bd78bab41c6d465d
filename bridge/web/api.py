"""The API that `bridgectl`, the demo and other programs read runs by, and ask for acts.

Answers are JSON in the shapes of core/answers.py; errors are problem details. Each route says in the table what it
takes and answers, and /api/v1/openapi.json is made of that. Examples: docs/api.md.
"""

from typing import Annotated, Literal, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import structlog
from flask import Blueprint, Response, g, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from bridge import __version__
from bridge.core.answers import ActDecision, Explanation, RunDetails, RunList
from bridge.core.representations import build_state, run_details, run_summary
from bridge.core.runs import Kind
from bridge.core.verdicts import Verdict
from bridge.flows.acting import act
from bridge.flows.explaining import NO_WEBHOOK, Explaining
from bridge.flows.reading_logs import build_meant, log_left
from bridge.ports import RunFilter
from bridge.web.access import require_actor, require_reader
from bridge.web.bodies import read_body
from bridge.web.gateway import gateway
from bridge.web.identities import Identity, Proof
from bridge.web.openapi import Answer, Table

DEFAULT_LIMIT = 50
HIGHEST_LIMIT = 1000
PREFIX = "/api/v1"
_LONGEST_ACT_BYTES = 16 * 1024
_LONGEST_REQUEST = 200

api = Blueprint("api", __name__, url_prefix=PREFIX)
table = Table(api)

_log = structlog.get_logger("bridge.web")

_Query = TypeVar("_Query", bound=BaseModel)
_Body = TypeVar("_Body", bound="ActRequest")
_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
_Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]


class _Wanted(BaseModel):
    """The query of a list. An unknown or misspelt filter is refused: it would show everything."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    project: str = Field("", description="Of this project alone, by its whole name.")
    pipeline: str = Field("", description="Of this pipeline alone.")
    sha: str = Field("", description="Of this commit, or of those that begin with these 7 or more digits.")
    context: str = Field("", description="With this status context.")
    pull_request: int | None = Field(None, ge=1, description="Of the pull request of this number.")
    branch: str = Field("", description="Of pushes to this branch, and of pull requests into it.")
    verdict: Verdict | None = Field(None, description="That ended so; open runs have no verdict.")
    delivery: str = Field("", description="Of this delivery: GitHub's GUID, an Idempotency-Key, a CloudEvent's.")
    search: str = Field("", max_length=1000, description="All these words are in what a list shows of it.")
    open: bool = Field(False, description="Open ones alone.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=HIGHEST_LIMIT, description="At most so many, the newest.")
    after: str = Field("", description="A run's id: those that come after it in the list; 404 if it is gone.")


class _LogWanted(BaseModel):
    """The query of a log."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    build: int | None = Field(None, ge=1, description="The number of another build than the newest.")
    epoch: int | None = Field(None, ge=1, description="The attempt that began its epoch.")
    offset: int | None = Field(None, ge=0, description="Only what is new since this byte.")


class _ExplainWanted(BaseModel):
    """The query of `explain`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    about: str = Field(
        min_length=1, max_length=200, description="A run's id, a delivery's, or 7 or more digits of a commit."
    )
    project: str = Field("", description="Of GitHub's logs look through this project's and the App's alone.")


class ActRequest(BaseModel):
    """What an act may say about itself; all of it may be left out."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    request: Annotated[_Line, Field(max_length=_LONGEST_REQUEST)] = Field(
        "", description="Makes a repeat harmless; else the header Idempotency-Key; else each is one of its own."
    )
    follows: int | None = Field(
        None, ge=0, description="The attempt that the caller was looking at; the newest if left out."
    )
    who: Annotated[_Line, Field(max_length=100)] = Field(
        "", description="Who asks, for people to read. A known identity stands before it."
    )
    source: Literal["api", "cli"] = Field("api", description="From where.")


class RetryRequest(ActRequest):
    """What a retry may say about itself."""

    only: tuple[Annotated[_Line, Field(max_length=100)], ...] = Field(
        (), max_length=100, description="These steps alone; all that did not succeed if empty."
    )


class _ActHeaders(BaseModel):
    """The headers of an act."""

    model_config = ConfigDict(hide_input_in_errors=True)

    request: str = Field(
        "",
        alias="Idempotency-Key",
        max_length=_LONGEST_REQUEST,
        pattern=r"^[ -~]*$",
        description="As `request` in the body, which goes first.",
    )


_RUN_LIST = Answer("The newest that match.", RunList, {"Link": 'The next page, `rel="next"`, if there is one.'})
_LOG = Answer(
    "The log.",
    None,
    {
        "Bridge-Build": "The build's number.",
        "Bridge-Build-State": "`running` or `waiting` while more is to come, else how it ended.",
    },
)
_DECISIONS = {
    200: Answer("There is nothing to do; the message says why, and `attempt` which one it is about.", ActDecision),
    202: Answer("It is on record, by this request or an earlier one of the same id.", ActDecision),
}


@api.before_request
def _guard() -> None:
    if request.method == "POST":
        g.actor = require_actor(request, gateway())
    else:
        require_reader(request, gateway())


@table.route("GET", "/runs", query=_Wanted, answers={200: _RUN_LIST})
def list_runs() -> ResponseReturnValue:
    """List runs, the newest first.

    In a cluster what was stored a moment ago may be missing; a single run is always as it is. For the next page
    go to `next`, which is null on the last one.
    """
    wanted = _read_query(_Wanted)
    filtered = RunFilter(
        project=wanted.project,
        pipeline=wanted.pipeline,
        sha=wanted.sha,
        context=wanted.context,
        pull_request=wanted.pull_request,
        branch=wanted.branch,
        verdict=wanted.verdict or "",
        delivery=wanted.delivery,
        search=wanted.search,
        open_only=wanted.open,
        limit=wanted.limit + 1,
        after=wanted.after,
    )
    found = gateway().runs.list(filtered)
    shown = found[: wanted.limit]
    following = None
    if len(found) > len(shown):
        query = {**request.args.to_dict(), "after": shown[-1].id}
        following = f"{PREFIX}/runs?{urlencode(query, errors='replace')}"
    answer = jsonify(runs=[run_summary(run, url=gateway().url_of(run.id)) for run in shown], next=following)
    if following:
        answer.headers["Link"] = f'<{following}>; rel="next"'
    return answer


@table.route("GET", "/runs/<run_id>", answers={200: Answer("The run.", RunDetails)})
def get_run(run_id: str) -> ResponseReturnValue:
    """All there is to know of a run: its attempts, steps with every build, acts, timeline, what it waits for."""
    known = gateway().runs.read(run_id)
    return jsonify(run_details(known, gateway().builds.find(run_id), url=gateway().url_of(run_id)))


@table.route("GET", "/runs/<run_id>/steps/<step>/log", query=_LogWanted, answers={200: _LOG})
def get_log(run_id: str, step: str) -> ResponseReturnValue:
    """The worker's log of a step's newest build, as plain text.

    `build` is the number of another one. With `offset` only what is new since then is answered, and the header
    Bridge-Next-Offset says where to go on.
    """
    wanted = _read_query(_LogWanted)
    gateway().runs.read(run_id)
    build = build_meant(gateway().builds, run_id, step, number=wanted.build, epoch=wanted.epoch)
    headers = {"Bridge-Build": str(build.number), "Bridge-Build-State": build_state(build)}
    if wanted.offset is None:
        return _plain(log_left(gateway().builds, build), headers)
    more, following = gateway().builds.follow(build, offset=wanted.offset)
    return _plain(more, {**headers, "Bridge-Next-Offset": str(following)})


@table.route("POST", "/runs/<run_id>/retry", body=RetryRequest, headers=_ActHeaders, answers=_DECISIONS)
def retry_run(run_id: str) -> ResponseReturnValue:
    """Run again what did not succeed.

    Of many who ask at once and follow the same attempt, one begins the next; all are told its number. A retry of
    what still runs is kept and applied when that has ended.
    """
    asked = _read_act(RetryRequest)
    return _act(run_id, Kind.RETRY, asked, only=asked.only)


@table.route("POST", "/runs/<run_id>/rerun", body=ActRequest, headers=_ActHeaders, answers=_DECISIONS)
def rerun_run(run_id: str) -> ResponseReturnValue:
    """Run everything again."""
    return _act(run_id, Kind.RERUN, _read_act(ActRequest))


@table.route("POST", "/runs/<run_id>/approve", body=ActRequest, headers=_ActHeaders, answers=_DECISIONS)
def approve_run(run_id: str) -> ResponseReturnValue:
    """Let a held run begin."""
    return _act(run_id, Kind.APPROVE, _read_act(ActRequest))


@table.route("POST", "/runs/<run_id>/cancel", body=ActRequest, headers=_ActHeaders, answers=_DECISIONS)
def cancel_run(run_id: str) -> ResponseReturnValue:
    """End the newest attempt."""
    return _act(run_id, Kind.CANCEL, _read_act(ActRequest))


@table.route("GET", "/explain", query=_ExplainWanted, answers={200: Answer("What is known.", Explanation)})
def explain() -> ResponseReturnValue:
    """What became of a run, a commit or a delivery, with times and reasons.

    A delivery that nobody wanted has no record: it is read in GitHub's log and matched again, which takes a while.
    """
    wanted = _read_query(_ExplainWanted)
    here = gateway()
    explaining = Explaining(
        here.runs,
        here.builds,
        here.pipelines,
        here.projects,
        here.clock,
        logs=here.logs,
        no_logs=NO_WEBHOOK,
        app_id=here.app_id,
        url_of=here.url_of,
    )
    return jsonify(explaining.explain(wanted.about, project=wanted.project))


@api.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    """This API as OpenAPI 3.1."""
    return jsonify(table.document(prefix=PREFIX, version=__version__))


def _act(run_id: str, kind: Kind, asked: ActRequest, *, only: tuple[str, ...] = ()) -> ResponseReturnValue:
    who = who_of(g.actor, asked.who)
    acted = act(
        gateway().runs,
        run_id,
        kind,
        request=asked.request or _request_header() or str(uuid4()),
        who=who,
        source=asked.source,
        now=gateway().clock.now(),
        follows=asked.follows,
        only=only,
    )
    _log.info(kind.value, run=run_id, accepted=acted.accepted, who=who, message=acted.message)
    told = {"run": run_id, "accepted": acted.accepted, "message": acted.message, "attempt": acted.attempt}
    return jsonify(told), 202 if acted.accepted else 200


def who_of(identity: Identity, said: str) -> str:
    """Who acts, for people: who somebody is known to be, and who they say they are. On one machine, where nobody
    is asked, what they say."""
    if identity.proof is Proof.MACHINE:
        return said or identity.name
    return identity.name if said in {"", identity.name} else f"{identity.name} (says: {said})"


def _request_header() -> str:
    try:
        return _ActHeaders.model_validate(dict(request.headers.items())).request
    except ValidationError as error:
        raise BadRequest(_complaint(error, "a header")) from None


def _read_act(model: type[_Body]) -> _Body:
    body = read_body(request, limit_bytes=_LONGEST_ACT_BYTES)
    if not body:
        return model.model_validate({})
    # A form of another site cannot send this type; a script of one needs permission that nobody gives it.
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the act as application/json")
    try:
        return model.model_validate_json(body)
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


def _plain(text: bytes, headers: dict[str, str]) -> Response:
    return Response(text, content_type="text/plain; charset=utf-8", headers=headers)
