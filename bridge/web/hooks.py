"""The routes that events come in by. The order is law: cap, claim, verify, and only then parse.

202 is answered when every run is stored, never before; whatever else is answered, nothing new was stored, or
the sender is told to send again.
"""

import time
import uuid
from collections.abc import Callable

import structlog
from flask import Blueprint, Response, g, jsonify, request
from flask.typing import ResponseReturnValue

from bridge.core.events import Event, Ignored, cloudevents, generic, github
from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.core.projects import Project
from bridge.core.signatures import same_secret, verifies
from bridge.errors import BadSignature, UnknownProject
from bridge.flows.accepting import accept
from bridge.web.bodies import read_body
from bridge.web.gateway import gateway
from bridge.web.health import metrics

hooks = Blueprint("hooks", __name__)

_ANSWERS = {
    200: "ignored",
    202: "accepted",
    400: "unreadable",
    401: "not_verified",
    409: "key_reused",
    413: "too_large",
    421: "wrong_host",
    503: "not_stored",
}
_ROUTES = {"hooks.from_github": "github", "hooks.simple": "simpleevents", "hooks.cloud": "cloudevents"}

_log = structlog.get_logger("bridge.web")


@hooks.after_request
def _count(response: Response) -> Response:
    metrics().count(
        route=_ROUTES.get(request.endpoint or "", "other"),
        answer=g.get("answer") or _ANSWERS.get(response.status_code, "failed"),
        seconds=time.monotonic() - g.began,
    )
    return response


@hooks.post("/events/github")
def from_github() -> ResponseReturnValue:
    """A webhook of GitHub. The repository in its body is a claim until one of that project's secrets signs it."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    claimed = github.claimed_project(body)
    project = _project_of(lambda: gateway().projects.read(claimed)) if claimed else None
    # As many secrets, known project or not: the time taken tells nothing. Empty ones verify nothing.
    secrets = (project.shared_secret, project.second_secret) if project else ("", "")
    signature = request.headers.get("X-Hub-Signature-256")
    verified = verifies(body, signature, (*secrets, _default_secret(project, claimed), gateway().app_secret))
    if not verified:
        raise BadSignature(_not_verified(project, claimed))
    event = github.read(
        dict(request.headers),
        body,
        app_id=gateway().app_id,
        own_contexts=_own_contexts(),
        allowed_authors=project.allowed_authors if project else (),
    )
    return _answer(event, project)


@hooks.post("/simpleevents/v1/<project_id>/<secret>")
def simple(project_id: str, secret: str) -> ResponseReturnValue:
    """An event as Brigade's generic gateway takes it. With an Idempotency-Key it may be sent again."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    project = _verified(project_id, secret)
    return _answer(generic.read(project.name, body, _delivery()), project)


@hooks.post("/cloudevents/v02/<project_id>/<secret>")
def cloud(project_id: str, secret: str) -> ResponseReturnValue:
    """A CloudEvent 0.2 as Brigade's generic gateway takes it; its source and id make a repeat recognisable."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    project = _verified(project_id, secret)
    return _answer(cloudevents.read_v02(project.name, body), project)


def _project_of(read: Callable[[], Project]) -> Project | None:
    try:
        return read()
    except UnknownProject:
        return None


def _default_secret(project: Project | None, claimed: str) -> str:
    """The secret of projects that have none; it also signs the ping of a hook that is of no repository."""
    if project is None:
        return "" if claimed else gateway().default_secret
    return "" if project.signing_secrets else gateway().default_secret


def _not_verified(project: Project | None, claimed: str) -> str:
    """For the log; the sender is told neither."""
    if project is None:
        return f"there is no project {claimed}" if claimed else "the body names no repository"
    return f"no active secret of {project.name} made its X-Hub-Signature-256"


def _own_contexts() -> frozenset[str]:
    if request.headers.get("X-GitHub-Event") != "status":
        return frozenset()
    return frozenset(one.report_context for one in gateway().pipelines.all() if one.report_context)


def _verified(project_id: str, secret: str) -> Project:
    """The project of a generic route whose secret this is. Raises BadSignature, alike for an unknown project."""
    project = _project_of(lambda: gateway().projects.read_by_id(project_id))
    if not same_secret(secret, project.generic_secret if project else "") or project is None:
        raise BadSignature(f"the secret is not that of {project.name}" if project else "there is no such project")
    return project


def _delivery() -> str:
    """What makes a repeat recognisable: without a key every POST is an event of its own."""
    return request.headers.get("Idempotency-Key") or str(uuid.uuid4())


def _answer(event: Event | Ignored, project: Project | None) -> ResponseReturnValue:
    if isinstance(event, Ignored):
        return _ignored(event, project)
    if project is None or event.project != project.name:
        raise BadSignature("the event is not of the project whose secret signed it")
    found = accept(event, project, runs=gateway().runs, pipelines=gateway().pipelines, now=gateway().clock.now())
    if isinstance(found, Ignored):
        return _ignored(found, project)
    if all(one.duplicate for one in found.created):
        g.answer = "duplicate"
    _log.info(
        g.get("answer") or "accepted",
        project=project.name,
        type=event.type,
        delivery=event.delivery,
        runs=[one.run.id for one in found.created],
    )
    runs = [
        {"id": one.run.id, "url": gateway().url_of(one.run.id), "duplicate": one.duplicate}
        for one in found.created
    ]
    return jsonify(runs=runs), 202


def _ignored(ignored: Ignored, project: Project | None) -> ResponseReturnValue:
    _log.info(
        "ignored",
        project=project.name if project else "",
        delivery=request.headers.get("X-GitHub-Delivery") or request.headers.get("Idempotency-Key") or "",
        reason=ignored.reason,
    )
    return jsonify(ignored=ignored.reason)
