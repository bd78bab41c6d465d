"""Is this body signed with one of these secrets? (facts/github.md, Webhooks)"""

import hmac
import re
from collections.abc import Iterable

_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


def verifies(body: bytes, header: str | None, secrets: Iterable[str]) -> bool:
    """Whether `header`, the X-Hub-Signature-256 of a request, signs `body` with one of `secrets`.

    Only sha256 counts: the older X-Hub-Signature never verifies, nor does a missing header or an empty
    secret. All secrets are tried in constant time, also after one has matched, so that the time taken
    tells nothing about which of them did.
    """
    signature = _SHA256.fullmatch(header or "")
    # A header that is no signature is compared too, with one that nobody can make.
    claimed = signature[1] if signature else "-" * 64
    verified = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), body, "sha256").hexdigest()
        verified |= hmac.compare_digest(expected, claimed) and bool(secret)
    return verified


def same_secret(given: str, expected: str) -> bool:
    """Whether a secret in a route is the project's, in constant time; an empty one never is."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode()) and bool(expected)
