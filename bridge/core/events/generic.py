"""Simple events, as Brigade's generic gateway makes them (facts/brigade.md, 1).

Anybody who knows a project's generic secret may send any JSON object; `commit` and `ref` in it are the revision.
"""

import re
from typing import Any

from bridge.core.events import Event, Revision, fields, json_bodies
from bridge.errors import UnreadableEvent

PROVIDER = "GenericWebhook"

# Without it Brigade's sidecar fails; a project without a repository ignores it.
_REF_OF_NOBODY = Revision(ref="master")
_DELIVERY = re.compile(r"[!-~]{1,255}")


def read(project_name: str, body: bytes, delivery: str) -> Event:
    """The `simpleevent` of a body whose sender knew the secret.

    `delivery` is the sender's Idempotency-Key, or a fresh id when there is none. An empty body is an event
    too. Raises UnreadableEvent with the reason, or TooLarge.
    """
    if not _DELIVERY.fullmatch(delivery):
        raise UnreadableEvent(
            "reading a simple event: its Idempotency-Key is unusable; send 1 to 255 printable ASCII characters "
            "without spaces"
        )
    members = json_bodies.json_object(body) if body else {}
    return Event(
        provider=PROVIDER,
        type="simpleevent",
        project=project_name,
        delivery=delivery,
        revision=revision(members, what="a simple event"),
        payload=body,
    )


def revision(members: dict[str, Any], *, what: str) -> Revision:
    """The revision that `commit` and `ref` of a JSON object name; ref `master` if neither does.

    Either may be missing, null or empty. A commit is whatever git can look up, as with Brigade. Raises
    UnreadableEvent for anything that is no text, or that no ref could be called.
    """
    named = Revision(commit=_name(members, "commit", what), ref=_name(members, "ref", what))
    return _REF_OF_NOBODY if named == Revision() else named


def _name(members: dict[str, Any], field: str, what: str) -> str:
    value = members.get(field)
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise UnreadableEvent(f"reading {what}: {field} is no text")
    try:
        return fields.ref(value)
    except ValueError as exc:
        raise UnreadableEvent(f"reading {what}: {field} {exc}") from None
