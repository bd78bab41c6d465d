"""CloudEvents: 1.0 in structured and binary mode, and 0.2 as Brigade's generic gateway takes it.

Of 0.2 see facts/brigade.md, 1. A CloudEvent 1.0 says by its attributes alone what it is about: the extension
`project` names the project, `commit` and `ref` the revision, its type is the event's name. Its data is never
looked into, and a worker gets the same payload in both modes: the event in the JSON format.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from bridge.core.events import Event, generic, json_bodies
from bridge.core.names import RESERVED_EVENTS
from bridge.errors import UnreadableEvent

PROVIDER = "cloudevents"
"""Of CloudEvents 1.0; those of 0.2 have Brigade's name for it."""

_REQUIRED = ("type", "specversion", "source", "id")
_SOURCE = re.compile(r"[!-~]{1,500}")
_LONGEST_ID = 500

_STRUCTURED = "application/cloudevents+json"
_ANY_FORMAT = "application/cloudevents"
_BATCH = "application/cloudevents-batch"
_HEADER = "ce-"
_DATA = frozenset({"data", "data_base64"})
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_LARGEST_INTEGER = 2**31
# What a pipeline's trigger can be called (pipeline_files).
_TYPE = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9](?:[-A-Za-z0-9_.:/]*[A-Za-z0-9_])?")
_PROJECT = re.compile(r"[!-~]{1,200}")
_TIME = re.compile(r"[0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_URI = re.compile(r"[A-Za-z][-+.A-Za-z0-9]*:[!-~]+")
_MEDIA_TYPE = re.compile(r"[!-~]+/[!-~]+(?: *;[ -~]*)?")
_JSON_TYPE = re.compile(r"[^/]+/(?:[^/]+\+)?json")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})?")
_SHAPES = {"time": _TIME, "dataschema": _URI, "datacontenttype": _MEDIA_TYPE}
_TEXTS = frozenset({"subject", *_REQUIRED, *_SHAPES})


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


def read_v1(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a CloudEvent 1.0, structured or binary, whose sender is known to be allowed to send it.

    `headers` have latin-1 texts, as WSGI hands them on. The delivery is source and id. Raises UnreadableEvent with
    the reason, also for a batch; or TooLarge.
    """
    named = {name.lower(): value for name, value in headers.items()}
    content_type = named.get("content-type", "")
    media_type = json_bodies.media_type_of(content_type)
    if media_type.startswith(_BATCH):
        raise UnreadableEvent("reading a CloudEvent: batches are not taken; send each event by itself")
    if media_type == _STRUCTURED:
        json_bodies.must_be_utf8(content_type)
        return _event(json_bodies.json_object(body), body)
    if media_type.startswith(_ANY_FORMAT):
        raise UnreadableEvent(
            f"reading a CloudEvent: the format {media_type[:60]!r} is not read; send {_STRUCTURED}, or binary mode"
        )
    if f"{_HEADER}specversion" not in named:
        raise UnreadableEvent(
            f"reading a CloudEvent: its content type is not {_STRUCTURED}, and there is no header ce-specversion"
        )
    payload = _in_json_format(_attributes(named), content_type, body)
    return _event(json_bodies.json_object(payload), payload)


def _event(envelope: dict[str, Any], payload: bytes) -> Event:
    for name, value in envelope.items():
        _check(name, value)
    if all(envelope.get(name) is not None for name in _DATA):
        raise UnreadableEvent("reading a CloudEvent: it has both data and data_base64")
    kind, specversion, source, identifier = (_required(envelope, name) for name in _REQUIRED)
    if specversion != "1.0":
        raise UnreadableEvent("reading a CloudEvent: this route takes specversion 1.0 only")
    if not _TYPE.fullmatch(kind) or kind in RESERVED_EVENTS:
        raise UnreadableEvent("reading a CloudEvent: its type is no name that a pipeline could wait for")
    project = envelope.get("project")
    if not isinstance(project, str) or not _PROJECT.fullmatch(project):
        raise UnreadableEvent(
            "reading a CloudEvent: name the project in the extension attribute `project` (header ce-project)"
        )
    return Event(
        provider=PROVIDER,
        type=kind,
        project=project,
        delivery=_delivery(source, identifier),
        revision=generic.revision(envelope, what="a CloudEvent"),
        payload=payload,
    )


def _check(name: str, value: object) -> None:
    """Refuse what is no attribute of 1.0; data may be anything."""
    if name == "data" or value is None:
        return
    if name == "data_base64":
        _check_base64(value)
    elif not _ATTRIBUTE.fullmatch(name):
        raise UnreadableEvent(f"reading a CloudEvent: {name[:40]!r} is no attribute's name: a-z and 0-9 only")
    elif isinstance(value, str):
        _check_text(name, value)
    elif not isinstance(value, int) or not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER or name in _TEXTS:
        raise UnreadableEvent(f"reading a CloudEvent: {name[:40]} is no text, whole number or boolean")


def _check_text(name: str, value: str) -> None:
    shape = _SHAPES.get(name)
    if not value or _CONTROLS.search(value) or (shape and not shape.fullmatch(value)):
        raise UnreadableEvent(f"reading a CloudEvent: {name[:40]} is empty or not what the standard says it is")


def _check_base64(value: object) -> None:
    try:
        base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableEvent("reading a CloudEvent: data_base64 is no base64") from None


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are in headers, whose names are in lower case."""
    found = {
        name.removeprefix(_HEADER): _decoded(name, value)
        for name, value in sorted(headers.items())
        if name.startswith(_HEADER)
    }
    for name in found:
        # These belong elsewhere; from a header they would pass for the body's.
        if name == "datacontenttype" or not _ATTRIBUTE.fullmatch(name) or name in _DATA:
            raise UnreadableEvent(f"reading a CloudEvent: binary mode has no header {_HEADER}{name[:40]}")
    return found


def _decoded(name: str, value: str) -> str:
    """A header's value as the HTTP binding has it: quotes off, then percent-decoded once, strictly UTF-8."""
    text = value.strip(" \t")
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return _PERCENT.sub(_byte, text.encode("ascii")).decode()
    except ValueError:
        raise UnreadableEvent(f"reading a CloudEvent: header {name[:40]} is no percent-encoded UTF-8") from None


def _byte(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        raise ValueError("a percent sign that encodes nothing")
    return bytes([int(found[1], 16)])


def _in_json_format(attributes: Mapping[str, str], content_type: str, body: bytes) -> bytes:
    """The CloudEvent of a request in binary mode as it would be in structured mode."""
    typed = {**attributes, "datacontenttype": content_type} if content_type else attributes
    envelope = json.dumps(typed, separators=(",", ":")).encode()[:-1]
    if not body:
        return envelope + b"}"
    if not content_type:
        raise UnreadableEvent("reading a CloudEvent: its body has no Content-Type")
    if not _JSON_TYPE.fullmatch(json_bodies.media_type_of(content_type)):
        return b'%s,"data_base64":"%s"}' % (envelope, base64.b64encode(body))
    json_bodies.must_be_utf8(content_type)
    # Alone first: what is one JSON value cannot become another attribute of the whole. It goes in as it came.
    if set(json_bodies.json_object(b'{"data":%s}' % body)) != {"data"}:
        raise UnreadableEvent("reading the body: it is not one JSON value")
    return b'%s,"data":%s}' % (envelope, body)


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
