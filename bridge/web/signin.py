"""Signing in on a page: a token is given once, and the browser gets a session for it; and signing out."""

import structlog
from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import TooManyRequests, Unauthorized

from bridge.web.access import require_own_form
from bridge.web.gateway import gateway
from bridge.web.guesses import guesses
from bridge.web.identities import identity_of, identity_of_token
from bridge.web.local_paths import local_path
from bridge.web.sessions import begin_session, end_session

LONGEST_FORM_BYTES = 16 * 1024
SEE_OTHER = 303

signin = Blueprint("signin", __name__)

_log = structlog.get_logger("bridge.web")


@signin.before_request
def _bound() -> None:
    request.max_content_length = LONGEST_FORM_BYTES


@signin.get("/signin")
def ask() -> ResponseReturnValue:
    """The form; `next` is the page to go to then."""
    return render_template("signin.html", next=local_path(request.args.get("next", "")), problem=None)


@signin.post("/signin")
def begin() -> ResponseReturnValue:
    """Begin a session for the token of the form. 401 for one that is none, 429 after too many of these."""
    require_own_form(request, gateway(), identity_of(request, gateway()))
    following = local_path(request.form.get("next", ""))
    guesser = _guesser()
    wait = guesses().wait_seconds(guesser, gateway().clock.monotonic())
    if wait:
        raise TooManyRequests(f"too many tokens that are none; try again in {wait} s", retry_after=wait)
    token = identity_of_token(request.form.get("token", "").strip(), gateway())
    if token is None:
        guesses().failed(guesser, gateway().clock.monotonic())
        raise Unauthorized("this is no token of this gateway, or not any more")
    _log.info("signed in", who=token.name, may_act=token.may_act)
    answer = redirect(following, SEE_OTHER)
    begin_session(answer, gateway(), token=token.token)
    return answer


@signin.post("/signout")
def end() -> ResponseReturnValue:
    """End this browser's session. Sessions of the same token in other browsers go on."""
    identity = identity_of(request, gateway())
    require_own_form(request, gateway(), identity)
    _log.info("signed out", who=identity.name if identity else "")
    answer = redirect(url_for("signin.ask"), SEE_OTHER)
    end_session(answer, gateway())
    return answer


def _guesser() -> str:
    """Whose guesses are counted together. A proxy's people are told apart by what it says of them, or one of them
    could keep all others from signing in; who says it alone only gets away with more guesses."""
    said = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return f"{request.remote_addr} {said[:64]}"
