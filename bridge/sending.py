"""Deliver a webhook as GitHub does: the same headers, signed, once, without retries or redirects.

`bridgectl send`, the demo and the tests use it, so what bridge is tried with is what GitHub would post
(facts/github.md, Webhooks).
"""

import hmac
import json
import uuid
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.util import parse_url

from bridge.errors import Misconfigured, Unavailable

# GitHub gives a receiver 10 s to answer.
_TIMEOUT_SECONDS = 10.0
_LONGEST_ANSWER_BYTES = 1_000_000
_LONGEST_EXCERPT = 200


def signed_headers(event: str, body: bytes, secret: str, delivery: str) -> dict[str, str]:
    """The headers of GitHub's POST of `body`: event, delivery GUID, hook and both signatures.

    An empty secret leaves the signatures out, as GitHub does for a hook without one.
    """
    headers = {
        "Accept": "*/*",
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/0000000",
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Event": event,
        "X-GitHub-Hook-ID": "1",
        "X-GitHub-Hook-Installation-Target-ID": "1",
        "X-GitHub-Hook-Installation-Target-Type": "repository",
    }
    if not secret:
        return headers
    key = secret.encode()
    return headers | {
        "X-Hub-Signature": f"sha1={hmac.new(key, body, 'sha1').hexdigest()}",
        "X-Hub-Signature-256": f"sha256={hmac.new(key, body, 'sha256').hexdigest()}",
    }


def send(
    url: str,
    event: str,
    payload: bytes | Mapping[str, Any],
    *,
    secret: str,
    delivery: str = "",
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> tuple[int, Any]:
    """POST one delivery; answers the HTTP status and the answer's JSON, or its text if it is no JSON.

    Bytes are sent as they are, a mapping as JSON. Without `delivery` it gets a new GUID. Every answer is
    returned, also a refusal. Raises Unavailable if there is none, Misconfigured for an address or a header
    that cannot be used; neither names more of the address than its host, since a path may hold a secret.
    """
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = signed_headers(event, body, secret, delivery or str(uuid.uuid4()))
    unusable = (
        f"delivering {event[:100]!r}: the address or the event's name cannot be used in HTTP; "
        "give an address like http://HOST:PORT/events/github"
    )
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(unusable)
    try:
        return _posted(url, body, headers, timeout_seconds=timeout_seconds)
    except ValueError as exc:
        raise Misconfigured(unusable) from exc
    except urllib3.exceptions.HTTPError as exc:
        raise Unavailable(
            f"delivering {event[:100]!r} to {_origin(url)}: no answer ({type(exc).__name__}); "
            "is bridge running there? The same delivery id can be sent again"
        ) from exc


def _posted(url: str, body: bytes, headers: Mapping[str, str], *, timeout_seconds: float) -> tuple[int, Any]:
    with urllib3.PoolManager(timeout=timeout_seconds, retries=False) as pool:
        answer = pool.request("POST", url, body=body, headers=headers, redirect=False, preload_content=False)
        try:
            return answer.status, _content(answer.read(_LONGEST_ANSWER_BYTES))
        finally:
            answer.close()


def _content(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return answer.decode(errors="replace")[:_LONGEST_EXCERPT]


def _origin(url: str) -> str:
    address = parse_url(url)
    port = f":{address.port}" if address.port else ""
    return f"{address.scheme}://{address.host}{port}"
