"""The gateway as a Flask app; a fresh one with each call."""

import re
import time

import structlog
from flask import Flask, Response, g, request
from jinja2 import StrictUndefined
from markupsafe import Markup

from bridge.web.access import require_own_host
from bridge.web.api import api
from bridge.web.assets import install_assets
from bridge.web.badges import badges
from bridge.web.contexts import install_contexts
from bridge.web.errors import install_errors
from bridge.web.forwarding import Forwarding
from bridge.web.gateway import Gateway, gateway
from bridge.web.guesses import Guesses
from bridge.web.health import Metrics, health
from bridge.web.hooks import hooks
from bridge.web.internal import internal
from bridge.web.page_acts import page_acts
from bridge.web.pages import pages
from bridge.web.sessions import install_sessions
from bridge.web.signin import signin
from bridge.web.themes import install_themes, themes
from bridge.web.wording import install_wording

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: by that browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NO_EMPTY_LINES = {"trim_blocks": True, "lstrip_blocks": True}
_PROBES = frozenset({"health.healthz", "health.readyz"})
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Control characters but line ends and tabs, halves of surrogate pairs, and what turns the direction of text."""


def create_app(gateway: Gateway) -> Flask:
    """The gateway over the ports and settings of `gateway`. Nothing is read from the environment.

    Raises BadSettings if its `fallback_url` is none.
    """
    app = Flask(__name__)
    app.jinja_options = {**app.jinja_options, "undefined": StrictUndefined, "finalize": shown, **_NO_EMPTY_LINES}
    gateway.install(app.extensions)
    Forwarding(gateway.fallback_url).install(app)
    Metrics(gateway.values).install(app)
    Guesses().install(app)
    install_errors(app)
    app.before_request(_begin)
    app.after_request(_harden)
    install_sessions(app, gateway)
    install_contexts(app)
    install_themes(app)
    install_assets(app)
    install_wording(app)
    for blueprint in (hooks, api, internal, pages, page_acts, signin, themes, badges, health):
        app.register_blueprint(blueprint)
    return app


def shown(value: object) -> object:
    """What a template writes: text in which each character that cannot or should not be seen is a sign for one.

    Jinja hands every expression through this, before it escapes it for HTML.
    """
    if value is None:
        return ""
    # Markup is what another template made, of values that went through here one by one.
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", value)
    return value


def _begin() -> None:
    g.began = time.monotonic()
    # Never the path: that of a generic route holds a secret.
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(route=request.endpoint or "unknown", method=request.method)
    # A kubelet asks by the pod's address.
    if request.endpoint not in _PROBES:
        require_own_host(request, gateway())


def _harden(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response
