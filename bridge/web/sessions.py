"""What a browser keeps: a session, the seal of forms, and what was said after a form was sent.

No server stores any of it. A session's cookie says when it began and is sealed with a key that is made from the
token that began it: every replica can check it, restarts change nothing, a token that is taken out of the settings
takes its sessions along, and the cookie does not hold the token. A form's hidden field `csrf` is sealed with the
session's secret, and with the secret of a cookie of this browser where there is no session.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256

from flask import Flask, g, request
from flask import Response as Answer
from werkzeug.wrappers import Response

from bridge.web.gateway import Gateway

LONGEST_TOLD = 300
_TOLD_SECONDS = 60
_CLOCKS_DIFFER_SECONDS = 300
_PLAIN_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_SESSION = "bridge-session"
_BROWSER = "bridge-browser"
_TOLD = "bridge-told"


@dataclass(frozen=True)
class Session:
    """A session that holds."""

    secret: str = field(repr=False)
    """Its own, known to this browser and whoever has the token."""


def begin_session(response: Response, gateway: Gateway, *, token: str) -> None:
    """Give the browser a session of `token`, which lasts as long as the settings say."""
    content = f"{int(gateway.clock.now())}.{secrets.token_urlsafe(16)}"
    seconds = max(1, int(gateway.session_seconds))
    _set(response, gateway, _SESSION, f"{content}.{_seal(token, 'session', content)}", seconds=seconds)


def session_of(gateway: Gateway, *, token: str) -> Session | None:
    """The session of a request, if `token` began it and it has not ended."""
    content, _, seal = _get(gateway, _SESSION).rpartition(".")
    if not hmac.compare_digest(seal.encode("utf-8", "replace"), _seal(token, "session", content).encode()):
        return None
    began = content.partition(".")[0]
    age = gateway.clock.now() - float(began) if began.isdecimal() else gateway.session_seconds
    if not -_CLOCKS_DIFFER_SECONDS <= age < gateway.session_seconds:
        return None
    return Session(_seal(token, "forms", content))


def end_session(response: Response, gateway: Gateway) -> None:
    """Make the browser forget its session."""
    _drop(response, gateway, _SESSION)


def csrf_of(gateway: Gateway, *, sealed_by: str = "") -> str:
    """What the forms of this answer carry in their field `csrf`; `sealed_by` is the identity's.

    A browser without a secret gets one with the answer.
    """
    return _seal(_browser_secret(gateway), "csrf", sealed_by)


def is_csrf_of(given: str, gateway: Gateway, *, sealed_by: str = "") -> bool:
    """Whether a form that came with this request was one of ours, made for this browser and identity."""
    secret = _get(gateway, _BROWSER)
    if not _PLAIN_SECRET.fullmatch(secret):
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), _seal(secret, "csrf", sealed_by).encode())


def tell(response: Response, gateway: Gateway, text: str) -> None:
    """Let the next page of this browser show `text`, once."""
    content = urlsafe_b64encode(text[:LONGEST_TOLD].encode("utf-8", "replace")).decode()
    seal = _seal(_browser_secret(gateway), "told", content)
    _set(response, gateway, _TOLD, f"{content}.{seal}", seconds=_TOLD_SECONDS)


def told(gateway: Gateway) -> str:
    """What the last form of this browser came to; it is forgotten with the answer."""
    value = _get(gateway, _TOLD)
    if not value:
        return ""
    g.forget_told = True
    content, _, seal = value.rpartition(".")
    expected = _seal(_browser_secret(gateway), "told", content)
    if not hmac.compare_digest(seal.encode("utf-8", "replace"), expected.encode()):
        return ""
    try:
        return urlsafe_b64decode(content.encode("ascii", "replace")).decode("utf-8", "replace")
    except ValueError:
        return ""


def install_sessions(app: Flask, gateway: Gateway) -> None:
    """Send the cookies along that a page of `app` asked for."""

    @app.after_request
    def _send(response: Answer) -> Answer:
        if g.get("browser_secret"):
            _set(response, gateway, _BROWSER, g.browser_secret)
        if g.get("forget_told"):
            _drop(response, gateway, _TOLD)
        return response


def _browser_secret(gateway: Gateway) -> str:
    known = _get(gateway, _BROWSER)
    if _PLAIN_SECRET.fullmatch(known):
        return known
    if "browser_secret" not in g:
        g.browser_secret = secrets.token_urlsafe(32)
    return str(g.browser_secret)


def _seal(key: str, purpose: str, content: str) -> str:
    message = f"bridge/{purpose}/1\n{content}".encode("utf-8", "replace")
    return urlsafe_b64encode(hmac.digest(key.encode("utf-8", "replace"), message, sha256)).decode().rstrip("=")


def _is_https(gateway: Gateway) -> bool:
    # X-Forwarded-Proto may be anybody's word. All it does here is that a cookie is sent over https alone.
    said = request.headers.get("X-Forwarded-Proto", "").lower()
    return gateway.public_url.startswith("https://") or request.is_secure or said == "https"


def _name(gateway: Gateway, name: str) -> str:
    # With this prefix browsers take it from nobody else, not even a subdomain.
    return f"__Host-{name}" if _is_https(gateway) else name


def _get(gateway: Gateway, name: str) -> str:
    return request.cookies.get(_name(gateway, name), "")


def _set(response: Response, gateway: Gateway, name: str, value: str, *, seconds: int | None = None) -> None:
    response.set_cookie(
        _name(gateway, name),
        value,
        max_age=seconds,
        path="/",
        secure=_is_https(gateway),
        httponly=True,
        # Not Strict: people come from the link of a commit's status. Lax sends it along with no form of others.
        samesite="Lax",
    )


def _drop(response: Response, gateway: Gateway, name: str) -> None:
    _set(response, gateway, name, "", seconds=0)
