"""The routes that events come in by. The order is law: cap, claim, verify, and only then parse.

A delivery of a project that nobody here is for may be passed on to another gateway instead, before it is verified:
the other one does that (forwarding.py). A secret that does not fit is compared with the project as it is at this
moment before anybody is refused: it may have been replaced just now.

202 is answered when every run is stored, never before; whatever else is answered, nothing new was stored, or
the sender is told to send again.
"""

import time
import uuid
from collections.abc import Callable, Mapping

import structlog
from flask import Blueprint, Response, g, jsonify, make_response, request
from flask.typing import ResponseReturnValue

from bridge.core.events import Event, Ignored, cloudevents, comments, generic, github, merge_groups, rerequests
from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.core.projects import Project
from bridge.core.signatures import same_secret, verifies
from bridge.errors import BadProject, BadSignature, UnknownProject
from bridge.flows.accepting import accept, is_for_somebody
from bridge.flows.acting import Acted
from bridge.flows.commenting import obey
from bridge.flows.dequeuing import dequeue
from bridge.flows.rerequesting import rerequest
from bridge.web.access import require_sender
from bridge.web.bodies import read_body
from bridge.web.forwarding import forwarding
from bridge.web.gateway import gateway
from bridge.web.health import metrics

ANSWER_SECONDS = 8.5
"""From a request to its answer when it is passed on: GitHub waits 10 s."""
LEAST_FORWARD_SECONDS = 1.0
COMMENT_SECONDS = 8.0
"""From a request to the last moment in which GitHub is talked with about its comment."""

hooks = Blueprint("hooks", __name__)

_ASKING = frozenset({rerequests.CHECK_RUN, rerequests.CHECK_SUITE, merge_groups.EVENT})
"""The kinds of events by which something is asked of runs; all others, which are most, are not looked at twice."""

_ANSWERS = {
    200: "ignored",
    202: "accepted",
    400: "unreadable",
    401: "not_verified",
    409: "key_reused",
    413: "too_large",
    421: "wrong_host",
    429: "not_stored",
    502: "not_forwarded",
    503: "not_stored",
}
_ROUTES = {
    "hooks.from_github": "github",
    "hooks.simple": "simpleevents",
    "hooks.cloud": "cloudevents",
    "hooks.cloud_v1": "cloudevents_v1",
}

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
    with gateway().patience():
        return _from_github(body)


@hooks.post("/simpleevents/v1/<project_id>/<secret>")
def simple(project_id: str, secret: str) -> ResponseReturnValue:
    """An event as Brigade's generic gateway takes it. With an Idempotency-Key it may be sent again."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    key = request.headers.get("Idempotency-Key", "")
    # Without a key every POST is an event of its own.
    delivery = key or str(uuid.uuid4())
    with gateway().patience():
        return _generic(
            project_id, secret, body, lambda project: generic.read(project, body, delivery), keyed=bool(key)
        )


@hooks.post("/cloudevents/v02/<project_id>/<secret>")
def cloud(project_id: str, secret: str) -> ResponseReturnValue:
    """A CloudEvent 0.2 as Brigade's generic gateway takes it; its source and id make a repeat recognisable."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    with gateway().patience():
        return _generic(project_id, secret, body, lambda project: cloudevents.read_v02(project, body))


@hooks.post("/events/cloudevents")
def cloud_v1() -> ResponseReturnValue:
    """A CloudEvent 1.0 of the project that it names, from whoever may send events. It is never passed on."""
    body = read_body(request, limit_bytes=LONGEST_BODY_BYTES)
    require_sender(request, gateway())
    with gateway().patience():
        event = cloudevents.read_v1(dict(request.headers), body)
        return _answer(event, gateway().projects.read(event.project))


def _from_github(body: bytes) -> ResponseReturnValue:
    claimed = github.claimed_project(body)
    try:
        project = _project_of(lambda: gateway().projects.read(claimed)) if claimed else None
    except BadProject:
        if forwarding().may(request) and not is_for_somebody(claimed, None, gateway().pipelines):
            return _forwarded(body, claimed)
        raise
    if claimed and _is_others(project, claimed):
        return _forwarded(body, claimed)
    verified, project = _signed(body, project, claimed)
    if not verified:
        if not claimed and forwarding().may(request):
            return _forwarded(body, claimed)
        raise BadSignature(_not_verified(project, claimed))
    headers = dict(request.headers)
    asked = _asked_of_runs(headers, body, project)
    if asked is not None:
        return asked
    event = github.read(
        headers,
        body,
        app_id=gateway().app_id,
        own_contexts=_own_contexts(),
        allowed_authors=project.allowed_authors if project else (),
    )
    asking = None if isinstance(event, Ignored) else comments.asked(headers, body)
    answer = _answer(event, project)
    return answer if asking is None else _obeyed(asking, make_response(answer))


def _asked_of_runs(headers: Mapping[str, str], body: bytes, project: Project | None) -> ResponseReturnValue | None:
    """The answer to a delivery that asks something of runs there are; None: it is an event as all others."""
    if request.headers.get("X-GitHub-Event") not in _ASKING:
        return None
    asked = rerequests.read(headers, body, app_id=gateway().app_id)
    group = merge_groups.destroyed(headers, body)
    told = asked or group
    if told is None:
        return None
    if project is None or told.project != project.name:
        raise BadSignature("the event is not of the project whose secret signed it")
    if group is not None:
        acted = dequeue(group, runs=gateway().runs, clock=gateway().clock)
        return _acted(acted, project, f"nothing runs for a merge group that is {group.reason or 'given up'}")
    found = rerequest(asked, runs=gateway().runs, clock=gateway().clock) if asked is not None else None
    return None if found is None else _acted(found.acted, project, found.ignored)


def _acted(acted: tuple[Acted, ...], project: Project, otherwise: str) -> ResponseReturnValue:
    """What became of acts that a delivery asked for."""
    accepted = [one for one in acted if one.accepted]
    if not accepted:
        return _ignored(Ignored("; ".join(one.message for one in acted) or otherwise), project)
    told = [{"id": one.run.id, "url": gateway().url_of(one.run.id), "message": one.message} for one in accepted]
    _log.info("acted", project=project.name, delivery=_shown_delivery(), runs=[one["id"] for one in told])
    return jsonify(runs=told), 202


def _obeyed(asking: comments.Asking, answer: Response) -> ResponseReturnValue:
    """Do what a comment asks for, when its event is stored already: if that fails all of it comes again."""
    conversations = gateway().conversations
    if conversations is None:
        return answer
    left = COMMENT_SECONDS - (time.monotonic() - g.began)
    found = obey(asking, conversations(), runs=gateway().runs, clock=gateway().clock, seconds=left)
    _log.info(
        "comment",
        project=asking.project,
        pull_request=asking.pull_request,
        delivery=asking.delivery,
        who=asking.author,
        reaction=found.reaction,
        told=list(found.told),
    )
    return jsonify({**(answer.get_json() or {}), "commands": list(found.told)}), answer.status_code


def _generic(
    project_id: str, secret: str, body: bytes, read: Callable[[str], Event | Ignored], *, keyed: bool = True
) -> ResponseReturnValue:
    found = _project_of(lambda: gateway().projects.read_by_id(project_id))
    if _is_others(found, found.name if found else ""):
        return _forwarded(body, found.name if found else project_id)
    project = _verified(found, secret)
    return _answer(read(project.name), project, keyed=keyed)


def _project_of(read: Callable[[], Project]) -> Project | None:
    try:
        return read()
    except UnknownProject:
        return None


def _is_others(project: Project | None, name: str) -> bool:
    """Whether a delivery is for the other gateway: its project is not known, or no pipeline is for it."""
    if not forwarding().may(request):
        return False
    return project is None or not is_for_somebody(name, project, gateway().pipelines)


def _forwarded(body: bytes, project: str) -> ResponseReturnValue:
    left = max(LEAST_FORWARD_SECONDS, ANSWER_SECONDS - (time.monotonic() - g.began))
    g.answer = "not_forwarded"
    answer = forwarding().forward(request, body, within_seconds=left)
    g.answer = "forwarded"
    _log.info("forwarded", project=project, delivery=_shown_delivery(), status=answer.status)
    return Response(answer.body, answer.status, answer.headers)


def _signed(body: bytes, project: Project | None, claimed: str) -> tuple[bool, Project | None]:
    """Whether an active secret signed the body, and the project as it was found then."""
    signature = request.headers.get("X-Hub-Signature-256")
    if _signed_as_known(body, signature, project, claimed):
        return True, project
    if project is None or not signature:
        return False, project
    known = project
    project = _project_of(lambda: gateway().projects.fresh(known))
    if project is None or _secrets(project) == _secrets(known):
        return False, project
    return _signed_as_known(body, signature, project, claimed), project


def _signed_as_known(body: bytes, signature: str | None, project: Project | None, claimed: str) -> bool:
    # As many secrets, known project or not: the time taken tells nothing. Empty ones verify nothing.
    secrets = (project.shared_secret, project.second_secret) if project else ("", "")
    return verifies(body, signature, (*secrets, _default_secret(project, claimed), gateway().app_secret))


def _secrets(project: Project) -> tuple[str, ...]:
    return project.shared_secret, project.second_secret, project.generic_secret


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


def _verified(project: Project | None, secret: str) -> Project:
    """The project of a generic route if this secret is its own. Raises BadSignature, alike for an unknown one."""
    if same_secret(secret, project.generic_secret if project else "") and project is not None:
        return project
    if project is None:
        raise BadSignature("there is no such project")
    known = project
    fresh = _project_of(lambda: gateway().projects.fresh(known))
    if fresh is None or not same_secret(secret, fresh.generic_secret):
        raise BadSignature(f"the secret is not that of {known.name}")
    return fresh


def _answer(event: Event | Ignored, project: Project | None, *, keyed: bool = True) -> ResponseReturnValue:
    if isinstance(event, Ignored):
        return _ignored(event, project)
    if project is None or event.project != project.name:
        raise BadSignature("the event is not of the project whose secret signed it")
    found = accept(
        event,
        project,
        runs=gateway().runs,
        pipelines=gateway().pipelines,
        now=gateway().clock.now(),
        keyed=keyed,
    )
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
        delivery=_shown_delivery(),
        reason=ignored.reason,
    )
    return jsonify(ignored=ignored.reason)


def _shown_delivery() -> str:
    return request.headers.get("X-GitHub-Delivery") or request.headers.get("Idempotency-Key") or ""
