"""The one place where errors become HTTP answers: problem details (RFC 9457), or a page for people."""

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException

from bridge import errors
from bridge.web.forwarding import NotForwarded
from bridge.web.local_paths import local_path

RETRY_AFTER_SECONDS = 5
"""What a sender is asked to wait before it sends what could not be stored."""

_NOT_VERIFIED = "unknown project, or no active secret of it verifies this request"
_NOT_STORED = "the gateway could not do this now and nothing is certain to be stored; send it again"
_BUSY = "too many ask at the moment and nothing is certain to be stored; send it again, later"
_NOT_FORWARDED = "the gateway that this is for gave no answer; it may have it or not"
_BROKEN = "the gateway is not set up correctly or has a fault; its log says more"
_KEPT_HEADERS = ("WWW-Authenticate", "Allow", "Retry-After")
_PAGES = frozenset({"pages", "page_acts", "signin", "themes"})
_AGAIN = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})

# The first that fits. Without a text of its own, an error's message is the answer.
_ANSWERS: tuple[tuple[type[errors.BridgeError], HTTPStatus, str], ...] = (
    # Alike, so that nobody learns which projects there are.
    (errors.UnknownProject, HTTPStatus.UNAUTHORIZED, _NOT_VERIFIED),
    (errors.BadSignature, HTTPStatus.UNAUTHORIZED, _NOT_VERIFIED),
    (errors.TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ""),
    (errors.KeyReused, HTTPStatus.CONFLICT, ""),
    (errors.EventRejected, HTTPStatus.BAD_REQUEST, ""),
    (errors.NotFound, HTTPStatus.NOT_FOUND, ""),
    (errors.Conflict, HTTPStatus.CONFLICT, ""),
    (NotForwarded, HTTPStatus.BAD_GATEWAY, _NOT_FORWARDED),
    # These say where something is kept and what is wrong there: for the log only.
    (errors.EngineError, HTTPStatus.SERVICE_UNAVAILABLE, _NOT_STORED),
    (errors.BridgeError, HTTPStatus.INTERNAL_SERVER_ERROR, _BROKEN),
)

_log = structlog.get_logger("bridge.web")


@dataclass(frozen=True)
class Problem:
    """An answer that says what was wrong."""

    status: HTTPStatus
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: Exception, *, storing: bool = False) -> Problem:
    """The answer that an error gets. What is not ours to tell is told in general words.

    Where something was to be stored, the world behind the ports has no other word than that it may not be: a
    sender that reads 404 or 409 would not come again.
    """
    if isinstance(error, HTTPException):
        given = dict(error.get_headers())
        kept = {name: given[name] for name in _KEPT_HEADERS if name in given}
        return Problem(HTTPStatus(error.code or 500), error.description or "", kept)
    if isinstance(error, errors.Unavailable):
        busy = error.busy
        status = HTTPStatus.TOO_MANY_REQUESTS if busy else HTTPStatus.SERVICE_UNAVAILABLE
        return Problem(status, _BUSY if busy else _NOT_STORED, _again(error.retry_after_seconds))
    for kind, status, detail in _ANSWERS:
        if storing and isinstance(error, errors.EngineError) and kind is not errors.EngineError:
            continue
        if isinstance(error, kind):
            headers = _again() if status in _AGAIN else {}
            return Problem(status, detail or str(error), headers)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, _BROKEN)


def _again(seconds: float | None = None) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(RETRY_AFTER_SECONDS if seconds is None else seconds)))}


def install_errors(app: Flask) -> None:
    """Answer every error of `app` by `problem_of`, and log it."""
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> Response:
    problem = problem_of(error, storing=request.blueprint == "hooks")
    _tell(error, problem)
    if request.blueprint in _PAGES:
        response = Response(_page(problem), problem.status)
    else:
        told = {
            "type": "about:blank",
            "title": problem.status.phrase,
            "status": problem.status.value,
            "detail": problem.detail,
        }
        response = Response(json.dumps(told) + "\n", problem.status, content_type="application/problem+json")
    response.headers.update(problem.headers)
    return response


def _page(problem: Problem) -> str:
    if problem.status is not HTTPStatus.UNAUTHORIZED:
        return render_template("error.html", problem=problem)
    following = request.form.get("next", "") if request.method == "POST" else request.full_path.rstrip("?")
    return render_template("signin.html", problem=problem, next=local_path(following))


def _tell(error: Exception, problem: Problem) -> None:
    known = isinstance(error, errors.BridgeError | HTTPException)
    # The message of an exception that is not ours may quote what somebody sent.
    reason = str(error) if isinstance(error, errors.BridgeError) else problem.detail
    if known and problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("refused", status=problem.status.value, error=type(error).__name__, reason=reason)
        return
    frames = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    _log.error(
        "failed", status=problem.status.value, error=type(error).__name__, reason=reason, frames=frames[-8:]
    )
