"""JSON bodies from strangers: bounded, strict, and refused with a reason.

What is accepted here means the same to every reader of the payload: Python, JavaScript and Go disagree about
duplicate keys, NaN, lone surrogates and numbers too large for a double, so a body with these is refused.
"""

import json
import math
from itertools import accumulate
from typing import Any, NoReturn

from bridge.errors import TooLarge, UnreadableEvent

LONGEST_BODY_BYTES = 1_000_000
"""Of a raw payload, on every route (design.md, On the wire)."""
DEEPEST_NESTING = 64
"""Levels of objects and arrays; GitHub's own payloads have fewer than ten."""

_LEVELS = dict(zip(b"[{]}", (1, 1, -1, -1), strict=True))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises UnreadableEvent, with the reason, for everything else: not UTF-8, a byte order mark, not JSON, no
    object at the top, NaN or Infinity, a number that no double holds, a key twice in one object, a lone
    surrogate, nesting over DEEPEST_NESTING. Raises TooLarge over LONGEST_BODY_BYTES.
    """
    text = _bounded_text(body)
    document = _loaded(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(document)
    return document


def claimed_text(body: bytes, *path: str) -> str:
    """The text at `path` in a body that nobody has verified yet; empty if there is none.

    A claim, good for choosing the secret that may have signed the body and for nothing else. As bounded as
    `json_object`, but quicker: what only that refuses is not looked for. Where both accept a body they read
    the same text. Raises UnreadableEvent or TooLarge.
    """
    found: Any = _loaded(_bounded_text(body))
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return ""
    if not isinstance(found, str):
        raise UnreadableEvent(f"reading the body: {'.'.join(path)} is no text")
    return found


def media_type_of(content_type: str | None) -> str:
    """A Content-Type's media type in lower case, without parameters; empty if there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def must_be_json(content_type: str | None) -> None:
    """Raises UnreadableEvent unless a Content-Type is JSON, in UTF-8 if it says so."""
    media_type = media_type_of(content_type)
    if media_type != "application/json":
        raise UnreadableEvent(
            f"reading the body: its content type is {(media_type or 'missing')[:60]!r}; "
            "set the webhook's content type to application/json"
        )
    must_be_utf8(content_type)


def must_be_utf8(content_type: str | None) -> None:
    """Raises UnreadableEvent if a Content-Type names another charset than UTF-8."""
    parameters = [part.strip().lower() for part in (content_type or "").split(";")[1:]]
    if any(part.startswith("charset=") and part[8:].strip('"') not in {"utf-8", "utf8"} for part in parameters):
        raise UnreadableEvent("reading the body: only UTF-8 is read; send JSON in UTF-8")


def must_be_unencoded(content_encoding: str | None) -> None:
    """Raises UnreadableEvent for any Content-Encoding: a small body must not grow once it is inside."""
    if (content_encoding or "identity").strip().lower() != "identity":
        raise UnreadableEvent("reading the body: it has a Content-Encoding; send it without compression")


def _bounded_text(body: bytes) -> str:
    if len(body) > LONGEST_BODY_BYTES:
        raise TooLarge(f"reading the body: {len(body)} bytes; at most {LONGEST_BODY_BYTES} are accepted")
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise UnreadableEvent(f"reading the body: byte {exc.start} is not UTF-8") from None
    if _depth(body) > DEEPEST_NESTING:
        raise UnreadableEvent(f"reading the body: it is nested deeper than {DEEPEST_NESTING} levels")
    return text


def _depth(body: bytes) -> int:
    """How deep brackets outside strings nest, found without recursion in linear time.

    Of something that is no JSON it is at least as deep as a parser gets before it sees that.
    """
    without_escapes = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = outside_strings.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_LEVELS.__getitem__, brackets)), default=0)


def _loaded(text: str, **hooks: Any) -> dict[str, Any]:
    try:
        document = json.loads(text, **hooks)
    except json.JSONDecodeError as exc:
        raise UnreadableEvent(f"reading the body: it is not JSON: {exc.msg} at character {exc.pos}") from None
    except ValueError:
        # Python's own limit of 4,300 digits.
        raise UnreadableEvent("reading the body: a number in it has too many digits") from None
    if not isinstance(document, dict):
        raise UnreadableEvent("reading the body: it is JSON, but not an object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnreadableEvent("reading the body: an object in it has the same key twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise UnreadableEvent(f"reading the body: {name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UnreadableEvent("reading the body: a number in it is too large")
    return number


def _refuse_lone_surrogates(document: dict[str, Any]) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableEvent("reading the body: a text in it has half a surrogate pair") from None
