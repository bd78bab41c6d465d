"""The wrapper that brigade-github-app puts around a body whose scripts talk to GitHub, and its token.

The record keeps the token empty; a build gets a fresh one (design.md, On the wire). Apart from the reading of
deliveries, since a step's process does this.
"""

import json
from datetime import UTC, datetime

from bridge.core.events import Event

PROVIDER = "github"

# A point in time that Go's time.Time writes when nobody set it; there is no token that could expire.
_NO_TIME = "0001-01-01T00:00:00Z"


def wrapped(name: str, body: bytes, *, commit: str, branch: str) -> bytes:
    """The payload of an event of the kind `name`, its token empty."""
    # The body goes in as it came: writing it anew could change its numbers.
    after = _compact({"commit": commit, "branch": branch})
    return b'%s,"body":%s,%s' % (_beginning(name, "", _NO_TIME), body.strip(), after[1:])


def lacks_token(event: Event, payload: bytes) -> bool:
    """Whether this is an event's payload as `wrapped` makes it."""
    return event.provider == PROVIDER and payload.startswith(_beginning(event.family, "", _NO_TIME) + b",")


def with_token(event: Event, payload: bytes, *, token: str, expires: float) -> bytes:
    """A payload that `lacks_token`, with an installation token that ends at `expires`; any other as it is."""
    if not lacks_token(event, payload):
        return payload
    until = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    before = _beginning(event.family, "", _NO_TIME)
    return _beginning(event.family, token, until) + payload[len(before) :]


def _beginning(name: str, token: str, until: str) -> bytes:
    return _compact({"type": name, "token": token, "tokenExpires": until})[:-1]


def _compact(members: dict[str, str]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()
