"""GitHub's Re-run buttons: which deliveries ask for one of our check runs, or for all of a commit, once more.

GitHub shows the buttons only to people who may write to the repository, and sends what they press to the App whose
checks they are alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.core.checks import attempt_of
from bridge.core.events import fields, json_bodies
from bridge.core.events import github_payloads as payloads
from bridge.core.events.github import is_of_app, named

_REREQUESTED = "rerequested"
CHECK_RUN, CHECK_SUITE = "check_run", "check_suite"


@dataclass(frozen=True)
class Rerequest:
    """Somebody pressed Re-run."""

    project: str
    """The repository."""
    delivery: str
    sender: str
    """The login of who pressed it."""
    sha: str
    run: str = ""
    """The run whose check it was; empty: all of the commit."""
    attempt: int = 0
    """The attempt whose check it was."""
    seen: float | None = None
    """When what the sender saw was written, by GitHub's clock; None if that is not told."""


class _CheckRun(payloads.Suite):
    external_id: str | None = None


class _OfRun(payloads.Delivery):
    check_run: _CheckRun


class _CheckSuite(payloads.Suite):
    updated_at: str = ""


class _OfSuite(payloads.Delivery):
    check_suite: _CheckSuite


def read(headers: Mapping[str, str], body: bytes, *, app_id: int | str) -> Rerequest | None:
    """What a verified delivery asks for; None if it is no Re-run of a check of our App, `app_id`.

    Also of ours is what a project's script made with our App's token: its Re-run is an event, and None here.
    Raises UnreadableEvent with the reason.
    """
    name, delivery = named(headers)
    if name not in {CHECK_RUN, CHECK_SUITE}:
        return None
    document = json_bodies.json_object(body)
    if document.get("action") != _REREQUESTED or not is_of_app(document.get(name), app_id):
        return None
    return _of_run(document, delivery) if name == CHECK_RUN else _of_suite(document, delivery)


def _of_run(document: dict[str, Any], delivery: str) -> Rerequest | None:
    read = payloads.read_as(_OfRun, document, what="GitHub's check_run payload")
    ours = attempt_of(read.check_run.external_id or "")
    if ours is None:
        return None
    return Rerequest(
        read.repository.full_name, delivery, _login(read), read.check_run.head_sha, run=ours[0], attempt=ours[1]
    )


def _of_suite(document: dict[str, Any], delivery: str) -> Rerequest:
    read = payloads.read_as(_OfSuite, document, what="GitHub's check_suite payload")
    suite = read.check_suite
    return Rerequest(
        read.repository.full_name, delivery, _login(read), suite.head_sha, seen=_seconds(suite.updated_at)
    )


def _login(read: payloads.Delivery) -> str:
    return fields.title(read.sender.login) if read.sender else ""


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None
