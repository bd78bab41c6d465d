"""Standard Webhooks 1.0: the headers by which a receiver knows who sent a webhook, and when."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from bridge.errors import Misconfigured

SECRET_PREFIX = "whsec_"  # noqa: S105 - of all such secrets
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64


def keys_of(text: str) -> tuple[bytes, ...]:
    """The keys in a file of secrets, one a line; while they are being changed there are two.

    Raises Misconfigured, without anything of the text.
    """
    keys = tuple(_key(line.strip()) for line in text.splitlines() if line.strip())
    if not keys:
        raise Misconfigured(f"it has no secret: write {SECRET_PREFIX} and the base64 of 24 to 64 random bytes")
    return keys


def headers(*, keys: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """`webhook-id`, `webhook-timestamp` and `webhook-signature` with a signature by each key.

    `message_id` has no dot, by which the parts are told apart.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(line: str) -> bytes:
    try:
        key = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not line.startswith(SECRET_PREFIX) or not _SHORTEST_SECRET <= len(key) <= _LONGEST_SECRET:
        raise Misconfigured(f"a line is no secret: write {SECRET_PREFIX} and the base64 of 24 to 64 random bytes")
    return key
