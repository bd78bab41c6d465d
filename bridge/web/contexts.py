"""What every template is given: who looks at it, and what the forms on it need."""

from collections.abc import Callable
from uuid import uuid4

from flask import Flask, request

from bridge.web.gateway import gateway
from bridge.web.identities import Identity, identity_of
from bridge.web.sessions import csrf_of, told


def install_contexts(app: Flask) -> None:
    """Give the templates of `app`: `identity` (or None), `csrf`, and the functions `act_request()`, a new request
    id for a form, so that it counts once however often it is sent, and `told()`, what the last form came to."""
    app.context_processor(_context)


def _context() -> dict[str, Identity | str | Callable[[], str] | None]:
    identity = identity_of(request, gateway())
    return {
        "identity": identity,
        "csrf": csrf_of(gateway(), sealed_by=identity.sealed_by if identity else ""),
        "act_request": lambda: str(uuid4()),
        "told": lambda: told(gateway()),
    }
