"""Who may read and act, and under which names the gateway answers at all.

Hooks prove themselves by their secrets; everything else needs an identity, unless reading is free: on one
machine, where only loopback is listened on, or by a setting.
"""

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, MisdirectedRequest, Unauthorized

from bridge.web.gateway import Gateway

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_OWN_SITE = frozenset({"same-origin", "none"})


def require_own_host(request: Request, gateway: Gateway) -> None:
    """On one machine refuse every other name than the machine's own, against DNS rebinding.

    Raises MisdirectedRequest (421).
    """
    if gateway.loopback_only and _hostname(f"//{request.headers.get('Host', '')}") not in LOOPBACK_HOSTS:
        raise MisdirectedRequest(
            "this gateway answers only to localhost, 127.0.0.1 and [::1]; a tunnel has to send such a Host"
        )


def require_reader(request: Request, gateway: Gateway) -> None:
    """Let through who may read. Raises Unauthorized (401) for everybody else, also for an invalid token."""
    if gateway.loopback_only or gateway.anonymous_read:
        return
    if not _bears(request, (*gateway.read_tokens, *gateway.act_tokens)):
        raise _unauthorized("reading needs a Bearer token of this gateway")


def require_actor(request: Request, gateway: Gateway) -> None:
    """Let through who may act. Raises Forbidden (403) for a page of another site, and Unauthorized (401).

    On one machine without act tokens everybody on it may act.
    """
    _require_own_site(request)
    if gateway.loopback_only and not gateway.act_tokens:
        return
    if not _bears(request, gateway.act_tokens):
        raise _unauthorized("acting needs a Bearer token that may act")


def require_sender(request: Request, gateway: Gateway) -> None:
    """Let through who may send events of any project. Raises Unauthorized (401), on one machine too."""
    if not _bears(request, gateway.event_tokens):
        raise _unauthorized("sending events needs a Bearer token that may send them")


def _require_own_site(request: Request) -> None:
    # Browsers send these and no page can change them; other clients send neither.
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in _OWN_SITE or (origin is not None and urlsplit(origin).netloc != request.headers.get("Host")):
        raise Forbidden("pages of other sites may not act here")


def _bears(request: Request, tokens: Iterable[str]) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    # All are compared, so that the time taken tells nothing about which of them came close.
    found = [hmac.compare_digest(given.strip().encode(), token.encode()) and bool(token) for token in tokens]
    return any(found)


def _unauthorized(message: str) -> Unauthorized:
    return Unauthorized(message, www_authenticate=WWWAuthenticate("bearer"))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
