"""Logs of builds as strangers may see them: no control characters, no secrets, cut at characters.

The order is law: what a terminal would swallow goes first, since it may stand in the middle of a secret; secrets
go before anything is cut, since half a secret is not recognised any more.
"""

import re
from collections.abc import Iterable

from bridge.core import terminal_text

REDACTED = "[redacted]"
SHORTEST_SECRET = 6
"""Shorter values (`true`, `8080`) would be found all over a log and tell nothing."""

_LONGEST_LOG = 200_000
"""Characters of a log that are looked at, from its end."""

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]"
)
"""All but tab and line feed, with what hides text or turns its direction."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10})-----(?:(?!-----BEGIN ).)*?"
    r"(?:-----END (?P=kind)-----|\Z)",
    re.DOTALL,
)
_REST_OF_A_KEY = re.compile(
    r"\A(?:(?!-----BEGIN ).)*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----", re.DOTALL
)
"""Of a log that was cut in the middle of a key."""
_TOKENS = re.compile(
    r"\b(?:"
    r"gh[opsur]_[A-Za-z0-9_.-]{16,}"  # GitHub, also the longer form of 2026
    r"|github_pat_[A-Za-z0-9_]{20,}"
    r"|v1\.[0-9a-f]{40}\b"
    r"|gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[A-Za-z0-9_.-]{16,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|xapp-[A-Za-z0-9-]{10,}"
    r"|npm_[A-Za-z0-9]{30,}"
    r"|pypi-[A-Za-z0-9_-]{30,}"
    r"|dckr_(?:pat|oat)_[A-Za-z0-9_-]{16,}"
    r"|sk-[A-Za-z0-9_-]{20,}"
    r"|(?:sk|rk|pk|whsec)_(?:live_|test_)?[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|ya29\.[A-Za-z0-9_-]{20,}"
    r"|hv[sbr]\.[A-Za-z0-9_-]{20,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JWT
    r")"
)
_SLACK_HOOK = re.compile(r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/_-]+")
_AUTHORIZATION = re.compile(
    r"(?i)((?:authorization|private-token|x-api-key|job-token)[\"']?\s*[:=]\s*[\"']?"
    r"(?:(?:bearer|basic|token|apikey)\s+)?)[^\s\"',;]{4,}"
)
_BEARER = re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9+/_.~-]{16,}=*")
_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://)[^\s/@'\"<>]{1,400}@")
_NAMED = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"[\"']?\s*[:=]\s*[\"']?)(?!\[redacted\])[^\s\"',;]{6,}"
)


def plain(text: str) -> str:
    """`text` as a terminal would show it in the end, without any control character but tab and line feed.

    A character that cannot be shown becomes U+FFFD.
    """
    if len(text) > _LONGEST_LOG:
        text = text[-_LONGEST_LOG:]
        # A line that lost its beginning may be half a secret.
        text = text.partition("\n")[2] or text
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", terminal_text.plain(text))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without any of `secrets`, nor a line of one that has several, nor what looks like a token.

    Nor does it begin with the end of one: it may be cut.
    """
    for secret in _worth_hiding(secrets):
        text = text.replace(secret, REDACTED)
        ends = (secret[at:] for at in range(1, len(secret) - SHORTEST_SECRET + 1))
        end = next(filter(text.startswith, ends), "")
        text = REDACTED + text[len(end) :] if end else text
    text = _REST_OF_A_KEY.sub(REDACTED, _PRIVATE_KEY.sub(REDACTED, text))
    text = _TOKENS.sub(REDACTED, text)
    text = _USERINFO.sub(rf"\g<1>{REDACTED}@", text)
    for named in (_SLACK_HOOK, _AUTHORIZATION, _BEARER, _NAMED):
        text = named.sub(rf"\g<1>{REDACTED}", text)
    return text


def ending(text: str, most_bytes: int) -> str:
    """The end of `text`: at most so many bytes of UTF-8, beginning at a whole line where there is one."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most_bytes:
        return text
    kept = encoded[-most_bytes:].decode("utf-8", "ignore") if most_bytes > 0 else ""
    if encoded[-most_bytes - 1 : -most_bytes] == b"\n":
        return kept
    return kept.partition("\n")[2] or kept


def beginning(text: str, most_bytes: int) -> str:
    """The beginning of `text`: at most so many bytes of UTF-8, cut between characters."""
    return text.encode("utf-8", "replace")[: max(0, most_bytes)].decode("utf-8", "ignore")


def _worth_hiding(secrets: Iterable[str]) -> list[str]:
    """What is looked for, the longest first: one may be a part of another."""
    values: set[str] = set()
    for secret in secrets:
        whole = plain(secret).strip()
        values |= {whole, *(line.strip() for line in whole.splitlines())}
    return sorted((one for one in values if len(one) >= SHORTEST_SECRET), key=lambda one: (-len(one), one))
