"""CloudEvents 0.2 in structured mode, as Brigade's generic gateway takes them (facts/brigade.md, 1)."""

import re
from typing import Any

from bridge.core.events import Event, generic, json_bodies
from bridge.errors import UnreadableEvent

_REQUIRED = ("type", "specversion", "source", "id")
_SOURCE = re.compile(r"[!-~]{1,500}")
_LONGEST_ID = 500


def read_v02(project_name: str, body: bytes) -> Event:
    """The `cloudevent` of a body whose sender knew the secret; its payload is the whole CloudEvent.

    The delivery is source and id, which together are what makes a repeat of a CloudEvent. Raises
    UnreadableEvent with the reason, or TooLarge.
    """
    envelope = json_bodies.json_object(body)
    _type, specversion, source, identifier = (_required(envelope, name) for name in _REQUIRED)
    if specversion != "0.2":
        raise UnreadableEvent("reading a CloudEvent: this route takes specversion 0.2 only")
    data = envelope.get("data")
    if data is not None and not isinstance(data, dict):
        raise UnreadableEvent("reading a CloudEvent: data is not an object")
    return Event(
        provider=generic.PROVIDER,
        type="cloudevent",
        project=project_name,
        delivery=_delivery(source, identifier),
        revision=generic.revision(data or {}, what="a CloudEvent's data"),
        payload=body,
    )


def _required(envelope: dict[str, Any], name: str) -> str:
    value = envelope.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableEvent(f"reading a CloudEvent: {name} is missing, empty or no text")
    return value


def _delivery(source: str, identifier: str) -> str:
    """Source and id with a space between: a source has none, so no two share one, nor a key of `generic`."""
    if not _SOURCE.fullmatch(source):
        raise UnreadableEvent("reading a CloudEvent: source is not a URI reference of at most 500 characters")
    if len(identifier) > _LONGEST_ID or not identifier.isprintable():
        raise UnreadableEvent("reading a CloudEvent: id is over 500 characters or has control characters")
    return f"{source} {identifier}"
