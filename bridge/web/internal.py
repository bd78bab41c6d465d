"""What only bridge's own steps ask for: the installation token of their run's repository.

A step proves by its pod's projected ServiceAccount token which run it is of; the App's key never leaves gateway
and controller (design.md, On the wire). Not for the outside: the chart's Ingress has no path to it.
"""

from datetime import UTC, datetime
from http import HTTPStatus

import structlog
from flask import Blueprint, Response, json, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, NotFound, Unauthorized

from bridge.core.runs import Phase
from bridge.errors import EngineError
from bridge.ports import NO_APP, Callers, NoToken
from bridge.web.errors import RETRY_AFTER_SECONDS
from bridge.web.gateway import gateway

internal = Blueprint("internal", __name__, url_prefix="/internal/v1")

_log = structlog.get_logger("bridge.web")


@internal.post("/runs/<run_id>/token")
def token(run_id: str) -> ResponseReturnValue:
    """A token of our GitHub App for the run's repository: `{"token", "expires"}`, for a step of this run alone.

    401: the Bearer is no token of a ServiceAccount for us. 403: of another one than the steps', of no pod, of
    another run's pod, or the run is closed. 404: no such run; with `"reason": "no-app"`: there is no App for its
    repository, and builds go on without. 503: ask again.
    """
    callers, tokens = gateway().callers, gateway().tokens
    if callers is None or tokens is None:
        raise NotFound("this gateway hands out no tokens")
    _require_step_of(run_id, callers)
    run = gateway().runs.read(run_id)
    if run.phase is Phase.CLOSED:
        raise Forbidden("the run is closed: nothing of it needs a token any more")
    try:
        found = tokens.fresh(run.id, run.event.project)
    except EngineError as error:
        _log.error("no token", run=run.id, project=run.event.project, reason=str(error))
        return _unavailable()
    if isinstance(found, NoToken):
        _log.info("no token", run=run.id, project=run.event.project, reason=found.reason)
        return _problem(HTTPStatus.NOT_FOUND, found.reason, reason=NO_APP)
    expires = datetime.fromtimestamp(found.expires, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    _log.info("token", run=run.id, project=run.event.project, expires=expires)
    return jsonify(token=found.token, expires=expires)


def _require_step_of(run_id: str, callers: Callers) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    caller = callers.caller(given.strip()) if scheme.lower() == "bearer" and given.strip() else None
    if caller is None:
        raise Unauthorized(
            "send the pod's projected ServiceAccount token as a Bearer", www_authenticate=WWWAuthenticate("bearer")
        )
    if caller.account != gateway().step_account or not caller.run or caller.run != run_id:
        # For the log; who asks is not told what it lacks.
        _log.warning("no step of the run", run=run_id[:100], account=caller.account, of_run=caller.run)
        raise Forbidden("only a step's pod of this run gets its token")


def _unavailable() -> Response:
    response = _problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "GitHub gave no token for the run's repository; the gateway's log says why; ask again",
    )
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _problem(status: HTTPStatus, detail: str, **more: str) -> Response:
    told = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **more}
    return Response(json.dumps(told) + "\n", status, content_type="application/problem+json")
