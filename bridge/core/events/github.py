"""GitHub's deliveries as brigade-github-app makes events of them (facts/brigade.md, 1).

Two things differ, both on purpose (design.md, On the wire): a delivery with an action is one event that
answers to both its names, not two builds, and every action of a pull request is an event, not six of them.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.core.checks import attempt_of
from bridge.core.events import Event, Ignored, Revision, fields, json_bodies
from bridge.core.events import github_payloads as payloads
from bridge.core.events.wrappers import PROVIDER, wrapped
from bridge.core.pipelines import MERGE_QUEUE
from bridge.core.projects import DEFAULT_ALLOWED_AUTHORS
from bridge.errors import UnreadableEvent

OWN_CONTEXT_PREFIX = "bridge/"
PING = "ping"

_EVENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_DELIVERY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_BRANCHES = "refs/heads/"
_TAGS = "refs/tags/"

_APPS_AT = (
    ("check_suite", "app"),
    ("check_run", "app"),
    ("check_run", "check_suite", "app"),
    ("comment", "performed_via_github_app"),
)
_CHECKS = frozenset({"check_run", "check_suite"})
_ASKED = frozenset({"requested", "rerequested", "requested_action"})
"""Actions by which an App is asked for its checks; all others tell what became of them."""
_NEED_NAMING = frozenset(
    {"check_run", "check_suite", "commit_comment", "issue_comment", "pull_request_review_comment", "status"}
)


@dataclass(frozen=True)
class _Delivered:
    """What a reader of one kind of event needs to know of the delivery."""

    name: str
    document: dict[str, Any]
    body: bytes
    allowed_authors: Collection[str]

    def as_model(self, model: type[payloads.Model]) -> payloads.Model:
        return payloads.read_as(model, self.document, what=f"GitHub's {self.name} payload")


def claimed_project(body: bytes) -> str:
    """The repository that an unverified body claims to be about; empty if it names none, as an App's ping.

    Good for choosing secrets only. The event that `read` makes of the same body has the same project.
    Raises UnreadableEvent, or TooLarge over json_bodies.LONGEST_BODY_BYTES.
    """
    return _valid_project(json_bodies.claimed_text(body, "repository", "full_name"))


def read(
    headers: Mapping[str, str],
    body: bytes,
    *,
    app_id: int | str = 0,
    own_contexts: Collection[str] = (),
    allowed_authors: Collection[str] = DEFAULT_ALLOWED_AUTHORS,
) -> Event | Ignored:
    """The event of a delivery whose signature was verified, or why nothing has to happen for it.

    `app_id` and `own_contexts` are ours, so that what bridge itself causes starts nothing. A comment on a
    pull request by none of `allowed_authors` is an event without payload and revision of the pull request.
    Whether a fork's author may build is the caller's question, with `Event.fork_author`.
    Raises UnreadableEvent with the reason, or TooLarge.
    """
    name, delivery = named(headers)
    document = json_bodies.json_object(body)
    if name == PING:
        return Ignored("pong")
    reader = _READERS.get(name)
    if reader is None:
        return Ignored(_UNSUPPORTED.get(name, f"events of the kind {name} start nothing"))
    if is_own_echo(name, document, app_id=app_id, own_contexts=own_contexts):
        return Ignored(f"this {name} was caused by bridge itself")
    common = payloads.read_as(payloads.Delivery, document, what=f"GitHub's {name} payload")
    event = reader(_Delivered(name=name, document=document, body=body, allowed_authors=allowed_authors))
    if isinstance(event, Ignored):
        return event
    return replace(
        event,
        project=common.repository.full_name,
        delivery=delivery,
        clone_url=fields.https_url(common.repository.clone_url),
        sender=fields.title(common.sender.login) if common.sender else "",
    )


def needs_naming(event: Event) -> bool:
    """Whether only a pipeline that names this kind of event wants it: others are too many, or echoes."""
    return event.provider == PROVIDER and event.family in _NEED_NAMING


def is_own_echo(
    event_name: str, document: Mapping[str, Any], *, app_id: int | str = 0, own_contexts: Collection[str] = ()
) -> bool:
    """Whether a delivery tells of something that bridge itself did: its statuses, its App's checks and comments.

    `own_contexts` are status contexts that pipelines chose; those that begin with OWN_CONTEXT_PREFIX are ours
    anyway. Without an `app_id` no App is ours. What GitHub or a person asks of our App (_ASKED) is no echo:
    brigade-github-app starts its builds by it (facts/brigade.md, 1). A check run that stands for a run is always
    one: what is asked of it is asked of the run (events/rerequests.py).
    """
    if event_name == "status":
        context = str(document.get("context"))
        return context.startswith(OWN_CONTEXT_PREFIX) or context in own_contexts
    if event_name == "check_run" and attempt_of(str(_at(document, "check_run", "external_id"))) is not None:
        return True
    if event_name in _CHECKS and str(document.get("action")) in _ASKED:
        return False
    return any(_is_app(_at(document, *path), app_id) for path in _APPS_AT)


def is_of_app(check: Any, app_id: int | str) -> bool:
    """Whether a check run, or a check suite, of a delivery is our App's, known by its id or its client id."""
    return any(_is_app(_at(check, *path), app_id) for path in (("app",), ("check_suite", "app")))


def _is_app(app: Any, app_id: int | str) -> bool:
    return bool(app_id) and isinstance(app, Mapping) and app_id in (app.get("id"), app.get("client_id"))


def named(headers: Mapping[str, str]) -> tuple[str, str]:
    """The event's name and the delivery's GUID. Raises UnreadableEvent for what cannot be a delivery of GitHub."""
    given = {name.lower(): value for name, value in headers.items()}
    name = given.get("x-github-event", "")
    if not _EVENT_NAME.fullmatch(name):
        raise UnreadableEvent("reading a GitHub delivery: the header X-GitHub-Event is missing or no event's name")
    delivery = given.get("x-github-delivery", "")
    if not _DELIVERY.fullmatch(delivery):
        raise UnreadableEvent("reading a GitHub delivery: the header X-GitHub-Delivery is missing or no GUID")
    json_bodies.must_be_json(given.get("content-type"))
    return name, delivery


def _valid_project(name: str) -> str:
    try:
        return fields.full_name(name) if name else ""
    except ValueError as exc:
        raise UnreadableEvent(f"reading the body: repository.full_name {exc}") from None


def _at(document: Any, *path: str) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _push(delivered: _Delivered) -> Event | Ignored:
    push = delivered.as_model(payloads.Push)
    if push.deleted:
        return Ignored("a branch or tag was deleted")
    # Brigade takes the head commit, which for an annotated tag is not `after`.
    commit = push.head_commit.id if push.head_commit else _commit(push.after, "after", delivered.name)
    branch = _behind(_BRANCHES, push.ref)
    tag = _behind(_TAGS, push.ref)
    title = fields.title(f"branch: {branch}" if branch else f"tag: {tag}" if tag else "")
    return replace(
        _event(delivered, action="", revision=Revision(commit=commit, ref=push.ref)),
        short_title=title,
        long_title=title,
        branch=branch,
        tag=tag,
        happened=fields.moment(push.repository.pushed_at),
    )


def _pull_request(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.PullRequestDelivery)
    pull = delivery.pull_request
    revision = Revision(commit=pull.head.sha, ref=_pull_ref(pull.number))
    return replace(
        _titled(_event(delivered, delivery.action, revision), pull.number, pull.title),
        branch=pull.base.ref,
        pull_request=pull.number,
        fork_author=pull.author_association if pull.is_from_a_fork else "",
        happened=fields.moment(pull.updated_at),
    )


def _issue_comment(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.IssueComment)
    issue = delivery.issue
    event = _titled(_event(delivered, delivery.action, Revision()), issue.number, issue.title)
    if issue.pull_request is not None:
        event = replace(event, pull_request=issue.number)
    may_act = delivery.comment.author_association in delivered.allowed_authors
    if issue.pull_request is None or delivery.action not in {"created", "edited"} or not may_act:
        return replace(event, revision=Revision(ref="refs/heads/master"), payload=b"")
    # The payload has no commit: Brigade asks the API for it. The ref is what can be known here.
    revision = Revision(ref=_pull_ref(issue.number))
    return replace(event, revision=revision, payload=_wrapped(delivered, revision))


def _commit_comment(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.CommitComment)
    return _event(delivered, delivery.action, Revision(commit=delivery.comment.commit_id))


def _merge_group(delivered: _Delivered) -> Event | Ignored:
    delivery = delivered.as_model(payloads.MergeGroupDelivery)
    if delivery.action != "checks_requested":
        return Ignored("only a merge group that asks for checks is built")
    group = delivery.merge_group
    base = _behind(_BRANCHES, group.base_ref) or group.base_ref
    title = fields.title(f"merge queue: {base}")
    revision = Revision(commit=group.head_sha, ref=group.head_ref)
    event = _event(delivered, delivery.action, revision)
    return replace(event, short_title=title, long_title=title, branch=base)


def _create(delivered: _Delivered) -> Event | Ignored:
    created = delivered.as_model(payloads.Create)
    if created.ref_type == "branch" and created.ref.startswith(MERGE_QUEUE):
        return Ignored("branches of the merge queue are not built")
    return replace(
        _event(delivered, action="", revision=Revision(ref=created.ref)),
        branch=created.ref if created.ref_type == "branch" else "",
        tag=created.ref if created.ref_type == "tag" else "",
    )


def _release(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.Release)
    tag = delivery.release.tag_name
    return replace(_event(delivered, delivery.action, Revision(ref=tag)), tag=tag)


def _deployment(delivered: _Delivered) -> Event:
    target = delivered.as_model(payloads.Deployment).deployment
    return _event(delivered, action="", revision=Revision(commit=target.sha, ref=target.ref))


def _status(delivered: _Delivered) -> Event:
    return _event(delivered, action="", revision=Revision(commit=delivered.as_model(payloads.Status).sha))


def _check_suite(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.CheckSuite)
    return _check(delivered, delivery.action, delivery.check_suite)


def _check_run(delivered: _Delivered) -> Event:
    delivery = delivered.as_model(payloads.CheckRun)
    return _check(delivered, delivery.action, delivery.check_run.check_suite)


def _check(delivered: _Delivered, action: str, suite: payloads.Suite) -> Event:
    event = _event(delivered, action, Revision(commit=suite.head_sha, ref=suite.head_branch or ""))
    return replace(event, payload=_wrapped(delivered, Revision()), branch=suite.head_branch or "")


def _event(delivered: _Delivered, action: str, revision: Revision) -> Event:
    """An event that `read` still gives its project, delivery, clone URL and sender."""
    return Event(
        provider=PROVIDER,
        type=f"{delivered.name}:{action}" if action else delivered.name,
        project="",
        delivery="",
        revision=revision,
        payload=delivered.body,
    )


def _titled(event: Event, number: int, title: str | None) -> Event:
    short = f"PR #{number}"
    return replace(event, short_title=short, long_title="" if title is None else fields.title(f"{short}: {title}"))


def _wrapped(delivered: _Delivered, revision: Revision) -> bytes:
    return wrapped(delivered.name, delivered.body, commit=revision.commit, branch=revision.ref)


def _pull_ref(number: int) -> str:
    return f"refs/pull/{number}/head"


def _behind(prefix: str, ref: str) -> str:
    return ref[len(prefix) :] if ref.startswith(prefix) else ""


def _commit(value: str, field: str, name: str) -> str:
    try:
        return fields.commit(value)
    except ValueError as exc:
        raise UnreadableEvent(f"reading GitHub's {name} payload: {field}: {exc}") from None


_READERS: dict[str, Callable[[_Delivered], Event | Ignored]] = {
    "check_run": _check_run,
    "check_suite": _check_suite,
    "commit_comment": _commit_comment,
    "create": _create,
    "deployment": _deployment,
    "deployment_status": _deployment,
    "issue_comment": _issue_comment,
    "merge_group": _merge_group,
    "pull_request": _pull_request,
    "pull_request_review": _pull_request,
    "pull_request_review_comment": _pull_request,
    "push": _push,
    "release": _release,
    "status": _status,
}

_UNSUPPORTED = {
    "delete": "a branch or tag was deleted",
}
