"""Who may read and act, and under which names the gateway answers at all.

Hooks prove themselves by their secrets; everything else needs an identity, unless reading is free: on one
machine, where only loopback is listened on, or by a setting.
"""

from urllib.parse import urlsplit

from flask import Request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, MisdirectedRequest, Unauthorized

from bridge.web.gateway import Gateway
from bridge.web.identities import Identity, Proof, bearer_of, identity_of, named, same_token
from bridge.web.sessions import is_csrf_of

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
    """Let through who may read. Raises Unauthorized (401) for everybody else."""
    if gateway.anonymous_read or identity_of(request, gateway) is not None:
        return
    raise _unauthorized("reading needs a Bearer token of this gateway")


def require_actor(request: Request, gateway: Gateway) -> Identity:
    """Let through who may act, and answer who it is.

    Raises Forbidden (403) for a page of another site and for somebody who may only read, and Unauthorized (401).
    On one machine without act tokens everybody on it may act. Who is known by what a browser sends by itself, a
    session or a proxy's headers, has to send what our pages carry, too.
    """
    identity = _actor(request, gateway)
    if identity.proof in {Proof.SESSION, Proof.PROXY}:
        require_own_form(request, gateway, identity)
    return identity


def require_form_of_actor(request: Request, gateway: Gateway) -> Identity:
    """Let a form of our own pages through that somebody sends who may act, and answer who it is.

    Raises what `require_actor` raises, and Forbidden (403) for a form that was not made for this browser.
    """
    identity = _actor(request, gateway)
    require_own_form(request, gateway, identity)
    return identity


def require_own_form(request: Request, gateway: Gateway, identity: Identity | None) -> None:
    """Let through what one of our pages sends, with its `csrf` in the header Bridge-Csrf or in a form's field.

    Raises Forbidden (403).
    """
    _require_own_site(request, gateway)
    given = request.headers.get("Bridge-Csrf") or request.form.get("csrf", "")
    if not is_csrf_of(given, gateway, sealed_by=identity.sealed_by if identity else ""):
        raise Forbidden("this form was not made for you, or is too old: load its page again, with cookies allowed")


def _actor(request: Request, gateway: Gateway) -> Identity:
    _require_own_site(request, gateway)
    identity = identity_of(request, gateway)
    if identity is None or (identity.proof is Proof.MACHINE and not identity.may_act):
        raise _unauthorized("acting needs a Bearer token that may act")
    if not identity.may_act:
        raise Forbidden(f"{identity.name} may read here, and not act")
    return identity


def require_sender(request: Request, gateway: Gateway) -> None:
    """Let through who may send events of any project. Raises Unauthorized (401), on one machine too."""
    given = bearer_of(request)
    # All are compared, so that the time taken tells nothing about which of them came close.
    found = [same_token(given, named(text)[1]) for text in gateway.event_tokens]
    if not any(found):
        raise _unauthorized("sending events needs a Bearer token that may send them")


def _require_own_site(request: Request, gateway: Gateway) -> None:
    # Browsers send these and no page can change them; other clients send neither.
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    # Behind a proxy the Host may be another than the browser's.
    own = {request.headers.get("Host"), urlsplit(gateway.public_url).netloc or None}
    if site not in _OWN_SITE or (origin is not None and urlsplit(origin).netloc not in own):
        raise Forbidden("pages of other sites may not act here")


def _unauthorized(message: str) -> Unauthorized:
    return Unauthorized(message, www_authenticate=WWWAuthenticate("bearer"))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
