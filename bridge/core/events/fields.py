"""Single values from strangers: what a commit, a ref, a repository's name or a title may look like."""

import re
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

LONGEST_TITLE = 200
_LONGEST_REF = 1000
_LONGEST_FULL_NAME = 200
_LATEST_MOMENT = 2**40

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FULL_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
# git check-ref-format, rules 1 to 10; a leading dash as well, since a ref becomes an argument of git.
_FORBIDDEN_IN_REFS = re.compile(r"[\x00-\x20\x7f-\x9f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[/.-]|[/.]$|^@$|^$")
# They turn text around on a page: U+061C, U+200E, U+200F and the embeddings, overrides and isolates.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def commit(value: str) -> str:
    """`value` if it is a whole object id, SHA-1 or SHA-256, and not git's "none" of zeros; else ValueError."""
    if not _COMMIT.fullmatch(value) or not value.strip("0"):
        raise ValueError("is not a commit of 40 or 64 hexadecimal digits")
    return value


def ref(value: str) -> str:
    """`value` if git could have a ref or a branch of this name (git check-ref-format); else ValueError."""
    if len(value) > _LONGEST_REF or _FORBIDDEN_IN_REFS.search(value):
        raise ValueError("is not a name that git allows for a ref")
    return value


def full_name(value: str) -> str:
    """`value` if it is `owner/name`, and no path upwards; else ValueError."""
    if len(value) > _LONGEST_FULL_NAME or not _FULL_NAME.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("is not the full name of a repository")
    return value


def title(value: str) -> str:
    """`value` on one line, without what a terminal or page would obey, at most LONGEST_TITLE characters."""
    # Cut first too: a title is never worth a walk over a megabyte.
    shown = "".join(_visible(character) for character in value[: 4 * LONGEST_TITLE])
    line = " ".join(shown.split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"


def moment(value: object) -> float:
    """Seconds since the epoch, of a number of them or a text in ISO 8601; GitHub has both. 0 if it is neither."""
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            at = datetime.fromisoformat(value)
            return _sane((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, int) and not isinstance(value, bool):
        return _sane(value)
    return 0.0


def _sane(seconds: float) -> float:
    return float(seconds) if 0 < seconds < _LATEST_MOMENT else 0.0


def https_url(value: str) -> str:
    """`value` if it is an https URL without credentials, else empty: nothing is cloned over less."""
    if not value.isascii() or not value.isprintable() or " " in value:
        return ""
    try:
        parts = urlsplit(value)
    except ValueError:
        return ""
    return value if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc else ""


def _visible(character: str) -> str:
    if unicodedata.category(character) in _INVISIBLE_CATEGORIES:
        return " "
    return "" if character in _TURNING else character
