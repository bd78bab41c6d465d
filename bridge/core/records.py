"""The serialised form of a record, the same on one machine and in a cluster.

Three JSON texts, each with its schema version: the event (without its payload, written once), the acts and the
state. What is empty is left out. Reading is strict about what it knows and ignores keys that it does
not know, so that a newer bridge may add some; a text of a newer schema is left alone.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from bridge.core.events import Event, Revision
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    NodePart,
    NodeState,
    Phase,
    Report,
    State,
    StepEnd,
    StepState,
    Told,
)
from bridge.core.verdicts import Verdict
from bridge.errors import Misconfigured, TooLarge

SCHEMA_VERSION = 1
"""Grows only when an older bridge would misread what a newer one writes; a new optional key is no reason."""

HELD_SCHEMA_VERSION = 2
"""Of the state of a run that is held, and of acts with an approval: an older bridge, which would begin such a run,
leaves it alone. All else is written as before."""

MAX_RECORD_BYTES = 900 * 1024
"""Event and packed payload together: a record must fit into a Secret (design.md, On the wire)."""

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""What is unpacked at most; far more than is ever accepted, so only a damaged record meets it."""

_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))

_Choice = TypeVar("_Choice", bound=StrEnum)
_Item = TypeVar("_Item")


def encode_event(event: Event) -> str:
    """The event as JSON text in ASCII, without its payload."""
    return _dumped({"schema": SCHEMA_VERSION, **_event_fields(event)})


def decode_event(text: str) -> Event:
    """The event of `encode_event`, its payload empty. Raises Misconfigured that names the field."""
    fields = Fields.of_text(text, "event")
    revision = fields.part("revision")
    return Event(
        provider=fields.text("provider", required=True),
        type=fields.text("type", required=True),
        project=fields.text("project", required=True),
        delivery=fields.text("delivery", required=True),
        revision=Revision(commit=revision.text("commit"), ref=revision.text("ref")),
        clone_url=fields.text("clone_url"),
        short_title=fields.text("short_title"),
        long_title=fields.text("long_title"),
        branch=fields.text("branch"),
        tag=fields.text("tag"),
        pull_request=fields.whole_or_none("pull_request"),
        fork_author=fields.text("fork_author"),
        sender=fields.text("sender"),
        happened=fields.number("happened"),
    )


def encode_acts(acts: tuple[Act, ...]) -> str:
    """The acts as JSON text in ASCII."""
    approved = any(act.kind is Kind.APPROVE for act in acts)
    return _dumped(
        {"schema": HELD_SCHEMA_VERSION if approved else SCHEMA_VERSION, "acts": [_act_fields(act) for act in acts]}
    )


def decode_acts(text: str) -> tuple[Act, ...]:
    """The acts of `encode_acts`. Raises Misconfigured that names the field."""
    return Fields.of_text(text, "acts", newest=HELD_SCHEMA_VERSION).parts("acts", _act)


def encode_state(state: State) -> str:
    """The state as JSON text in ASCII, the same text for equal states."""
    steps = [
        {"epoch": epoch, "step": step, **_step_fields(seen)}
        for (epoch, step), seen in sorted(state.steps.items(), key=lambda item: item[0])
    ]
    fields = {
        "attempts": [_attempt_fields(attempt) for attempt in state.attempts],
        "steps": steps,
        "reported": _report_fields(state.reported),
        "reported_to": state.reported_to,
        "report_given_up": _report_fields(state.report_given_up),
        "report_error": state.report_error,
        "report_after": state.report_after,
        "report_failures": state.report_failures,
        "report_pending_after": state.report_pending_after or None,
        "report_overwritten": state.report_overwritten or None,
        "report_unsure_until": state.report_unsure_until or None,
        "held": state.held,
        "closings": [{"attempt": n, "at": at} for n, at in sorted(state.closings.items())],
        "notified": [{"to": name, **_told_fields(told)} for name, told in sorted(state.notified.items())],
    }
    return _dumped({"schema": HELD_SCHEMA_VERSION if state.held else SCHEMA_VERSION, **_without_empty(fields)})


def decode_state(text: str) -> State:
    """The state of `encode_state`. Raises Misconfigured that names the field."""
    fields = Fields.of_text(text, "state", newest=HELD_SCHEMA_VERSION)
    return State(
        attempts=fields.parts("attempts", _attempt),
        steps=dict(fields.parts("steps", _step)),
        reported=_report(fields, "reported"),
        reported_to=fields.text("reported_to"),
        report_given_up=_report(fields, "report_given_up"),
        report_error=fields.text("report_error"),
        report_after=fields.number("report_after"),
        report_failures=fields.whole("report_failures"),
        report_pending_after=fields.number("report_pending_after"),
        report_overwritten=fields.whole("report_overwritten"),
        report_unsure_until=fields.number("report_unsure_until"),
        held=fields.text("held"),
        closings=dict(fields.parts("closings", _closing)),
        notified=dict(fields.parts("notified", _told)),
    )


def decode_phase(text: object) -> Phase:
    """The phase that a label or column says. Raises Misconfigured."""
    return Fields({"phase": text}, "record").choice("phase", Phase)


def decode_verdict(text: object) -> Verdict | None:
    """The verdict that a label or column says; empty is none yet. Raises Misconfigured."""
    return Fields({"verdict": text}, "record").choice_or_none("verdict", Verdict)


def pack_payload(payload: bytes) -> bytes:
    """The payload as it is stored: gzip, the same bytes for the same payload."""
    return gzip.compress(payload, mtime=0)


def unpack_payload(packed: bytes) -> bytes:
    """The payload of `pack_payload`. Raises Misconfigured if it is damaged."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        payload = unpacker.decompress(packed, MAX_PAYLOAD_BYTES)
    except zlib.error as exc:
        raise _damaged("payload", f"it is no gzip data ({exc})") from exc
    if not unpacker.eof:
        raise _damaged("payload", "its gzip data ends too early or is too long")
    return payload


def check_size(event_text: str, packed_payload: bytes) -> None:
    """Raise TooLarge if a record of these could not be stored in every world."""
    size = len(event_text.encode()) + len(packed_payload)
    if size > MAX_RECORD_BYTES:
        raise TooLarge(
            f"the event and its compressed payload are {size} bytes, and at most {MAX_RECORD_BYTES} "
            "can be stored; send a smaller payload"
        )


def digest(event: Event) -> str:
    """A hash (hex SHA-256) of the whole event with its payload: equal for the same delivery with the same body.

    An empty field does not count, so a field that a newer bridge adds changes no digest of before; nor does when
    it happened, which such a bridge reads from the payload.
    """
    timeless = replace(event, happened=0.0)
    return hashlib.sha256(_dumped(_event_fields(timeless)).encode() + b"\n" + event.payload).hexdigest()


def _event_fields(event: Event) -> dict[str, object]:
    revision = _without_empty({"commit": event.revision.commit, "ref": event.revision.ref})
    required = {
        "provider": event.provider,
        "type": event.type,
        "project": event.project,
        "delivery": event.delivery,
    }
    optional: dict[str, object] = {
        "revision": revision,
        "clone_url": event.clone_url,
        "short_title": event.short_title,
        "long_title": event.long_title,
        "branch": event.branch,
        "tag": event.tag,
        "pull_request": event.pull_request,
        "fork_author": event.fork_author,
        "sender": event.sender,
        "happened": event.happened or None,
    }
    return {**required, **_without_empty(optional)}


def _act_fields(act: Act) -> dict[str, object]:
    optional = {"who": act.who, "source": act.source, "at": act.at, "only": list(act.only)}
    return {"kind": act.kind, "request": act.request, "follows": act.follows, **_without_empty(optional)}


def _act(fields: "Fields") -> Act:
    return Act(
        kind=fields.choice("kind", Kind),
        request=fields.text("request", required=True),
        follows=fields.whole("follows", required=True),
        who=fields.text("who"),
        source=fields.text("source"),
        at=fields.number("at"),
        only=fields.texts("only"),
    )


def _attempt_fields(attempt: Attempt) -> dict[str, object]:
    optional: dict[str, object] = {
        "only": list(attempt.only),
        "steps": list(attempt.steps),
        "native": list(attempt.native),
        "on_failure": attempt.on_failure,
        "on_success": attempt.on_success,
        "exit_error": attempt.exit_error,
        "uid": attempt.uid,
        "submitted": attempt.submitted,
        "rung": attempt.rung,
        "waits": attempt.waits,
        "ended": attempt.ended,
        "verdict": attempt.verdict,
        "reason": attempt.reason,
        "finished": [_step_end_fields(end) for end in attempt.finished],
    }
    # The wire's word is `from` (design.md, The record), which Python keeps for itself. The timeouts are always
    # written: another default in a later version must not change what this attempt began with.
    required = {
        "n": attempt.n,
        "kind": attempt.kind,
        "from": attempt.epoch,
        "begun": attempt.begun,
        "timeout_seconds": attempt.timeout_seconds,
        "exit_timeout_seconds": attempt.exit_timeout_seconds,
    }
    return {**required, **_without_empty(optional)}


def _attempt(fields: "Fields") -> Attempt:
    return Attempt(
        n=fields.whole("n", required=True),
        kind=fields.choice("kind", Kind),
        epoch=fields.whole("from", required=True),
        begun=fields.number("begun", required=True),
        only=fields.texts("only"),
        steps=fields.texts("steps"),
        native=fields.texts("native"),
        timeout_seconds=fields.number("timeout_seconds", required=True),
        on_failure=fields.text("on_failure"),
        on_success=fields.text("on_success"),
        exit_timeout_seconds=fields.number("exit_timeout_seconds", required=True),
        exit_error=fields.text("exit_error"),
        uid=fields.text("uid"),
        submitted=fields.number_or_none("submitted"),
        rung=fields.whole("rung"),
        waits=fields.text("waits"),
        ended=fields.number_or_none("ended"),
        verdict=fields.choice_or_none("verdict", Verdict),
        reason=fields.text("reason"),
        finished=fields.parts("finished", _step_end),
    )


def _step_end_fields(end: StepEnd) -> dict[str, object]:
    optional = {"reason": end.reason, "build": end.build}
    return {"step": end.step, "verdict": end.verdict, "at": end.at, **_without_empty(optional)}


def _step_end(fields: "Fields") -> StepEnd:
    return StepEnd(
        step=fields.text("step", required=True),
        verdict=fields.choice("verdict", Verdict),
        at=fields.number("at", required=True),
        reason=fields.text("reason"),
        build=fields.text("build"),
    )


def _closing(fields: "Fields") -> tuple[int, float]:
    return fields.whole("attempt", required=True), fields.number("at", required=True)


def _told_fields(told: Told) -> dict[str, object]:
    optional = {"given_up": told.given_up or None, "error": told.error, "waits": told.waits}
    return {"upto": told.upto, **_without_empty(optional)}


def _told(fields: "Fields") -> tuple[str, Told]:
    told = Told(
        upto=fields.whole("upto", required=True),
        given_up=fields.whole("given_up"),
        error=fields.text("error"),
        waits=fields.flag("waits"),
    )
    return fields.text("to", required=True), told


def _step_fields(seen: StepState) -> dict[str, object]:
    known = {"succeeded": seen.succeeded, "highest": seen.highest, "unhandled": seen.unhandled}
    return _without_empty({**known, "node": _node_fields(seen.node)})


def _node_fields(node: NodeState | None) -> dict[str, object] | None:
    if node is None:
        return None
    optional = {"started": node.started, "ended": node.ended, "reason": node.reason}
    return {"attempt": node.attempt, "part": node.part, **_without_empty(optional)}


def _node(fields: "Fields") -> NodeState | None:
    if not fields.has("node"):
        return None
    part = fields.part("node")
    return NodeState(
        attempt=part.whole("attempt", required=True),
        part=part.choice("part", NodePart),
        started=part.number_or_none("started"),
        ended=part.number_or_none("ended"),
        reason=part.text("reason"),
    )


def _step(fields: "Fields") -> tuple[tuple[int, str], StepState]:
    key = (fields.whole("epoch", required=True), fields.text("step", required=True))
    seen = StepState(
        succeeded=fields.whole_or_none("succeeded"),
        highest=fields.whole("highest"),
        unhandled=fields.flag("unhandled"),
        node=_node(fields),
    )
    return key, seen


def _report_fields(report: Report | None) -> dict[str, object] | None:
    if report is None:
        return None
    return {
        "context": report.context,
        "state": report.state,
        "description": report.description,
        "attempt": report.attempt,
    }


def _report(fields: "Fields", key: str) -> Report | None:
    if not fields.has(key):
        return None
    part = fields.part(key)
    return Report(
        context=part.text("context", required=True),
        state=part.text("state", required=True),
        description=part.text("description", required=True),
        attempt=part.whole("attempt", required=True),
    )


def _without_empty(fields: Mapping[str, object]) -> dict[str, object]:
    # Numbers stay, also 0: where None is possible 0 is another value.
    return {key: value for key, value in fields.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _dumped(fields: Mapping[str, object]) -> str:
    # ASCII, because a title may hold half a surrogate pair, which is no UTF-8 but is JSON.
    return _ENCODER.encode(fields)


def _damaged(where: str, what: str) -> Misconfigured:
    return Misconfigured(
        f"the record is damaged: {where}: {what}; restore it from a backup, or remove the record with its run"
    )


class Fields:
    """An object of a record, read field by field; every complaint is Misconfigured and names where it is.

    Args:
        values: what was stored, of any type.
        where: what to call it in a complaint.

    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self._where = where

    @classmethod
    def of_text(cls, text: str, where: str, *, newest: int = SCHEMA_VERSION) -> "Fields":
        """The object in a text that says its schema, at most `newest`. Raises Misconfigured."""
        try:
            values = json.loads(text, parse_constant=_refused_constant)
        except (ValueError, RecursionError) as exc:
            raise _damaged(where, "it is no JSON") from exc
        if not isinstance(values, dict):
            raise _damaged(where, "it is no JSON object")
        fields = cls(values, where)
        schema = fields.whole("schema", required=True)
        if schema > newest:
            raise Misconfigured(
                f"the record's {where} was written by a newer bridge: left alone "
                f"(its schema is {schema}, this bridge knows {newest}); upgrade this bridge"
            )
        return fields

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._values.get(key) is not None

    def text(self, key: str, *, required: bool = False) -> str:
        """A string; empty if it is not there."""
        value = self._value(key, "", required=required)
        if not isinstance(value, str):
            raise self._wrong(key, "is no text")
        return value

    def whole(self, key: str, *, required: bool = False) -> int:
        """A whole number; 0 if it is not there."""
        value = self._value(key, 0, required=required)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "is no whole number")
        return value

    def whole_or_none(self, key: str) -> int | None:
        """A whole number, or None if it is not there."""
        return self.whole(key) if self.has(key) else None

    def number(self, key: str, *, required: bool = False) -> float:
        """A number; 0.0 if it is not there."""
        value = self._value(key, 0.0, required=required)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(key, "is no number")
        try:
            return float(value)
        except OverflowError as exc:
            raise self._wrong(key, "is too large") from exc

    def number_or_none(self, key: str) -> float | None:
        """A number, or None if it is not there."""
        return self.number(key) if self.has(key) else None

    def flag(self, key: str) -> bool:
        """True or False; False if it is not there."""
        value = self._value(key, False, required=False)
        if not isinstance(value, bool):
            raise self._wrong(key, "is neither true nor false")
        return value

    def choice(self, key: str, choices: type[_Choice]) -> _Choice:
        """A member of an enumeration; it must be there."""
        value = self.text(key, required=True)
        try:
            return choices(value)
        except ValueError as exc:
            raise self._wrong(key, f"is none of {', '.join(choices)}") from exc

    def choice_or_none(self, key: str, choices: type[_Choice]) -> _Choice | None:
        """A member of an enumeration, or None if it is not there or empty."""
        return self.choice(key, choices) if self.has(key) and self._values[key] != "" else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if it is not there."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(key, "is no list of texts")
        return tuple(str(value) for value in values)

    def part(self, key: str) -> "Fields":
        """An object inside this one; an empty one if it is not there."""
        value = self._value(key, {}, required=False)
        if not isinstance(value, dict):
            raise self._wrong(key, "is no object")
        return Fields(value, f"{self._where}.{key}")

    def parts(self, key: str, make: Callable[["Fields"], _Item]) -> tuple[_Item, ...]:
        """What `make` makes of each object in a list; empty if it is not there."""
        items = []
        for position, value in enumerate(self._list(key)):
            if not isinstance(value, dict):
                raise self._wrong(f"{key}[{position}]", "is no object")
            items.append(make(Fields(value, f"{self._where}.{key}[{position}]")))
        return tuple(items)

    def _list(self, key: str) -> list[object]:
        value = self._value(key, [], required=False)
        if not isinstance(value, list):
            raise self._wrong(key, "is no list")
        return value

    def _value(self, key: str, default: object, *, required: bool) -> object:
        if required and key not in self._values:
            raise self._wrong(key, "is missing")
        return self._values.get(key, default)

    def _wrong(self, key: str, what: str) -> Misconfigured:
        return _damaged(f"{self._where}.{key}", f"it {what}")


def _refused_constant(name: str) -> float:
    raise ValueError(name)
