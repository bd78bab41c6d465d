"""Webhooks: the port Outbound by HTTP, signed as Standard Webhooks has it.

Whoever configured an endpoint chose its URL, and nobody else does: no redirect is followed, no proxy is taken from
the environment, and of an answer only its status and its Retry-After are looked at.
"""

from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import urllib3

from bridge.core import standard_webhooks
from bridge.core.notifications import Subscriber
from bridge.errors import Misconfigured, NotDelivered
from bridge.outbound.endpoints import Endpoint
from bridge.ports import Clock, Message

CONNECT_SECONDS = 3.0
_REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""The receiver does not want this message, whoever sends it and how often."""


class Webhooks:
    """Sends to these endpoints, each of which has connections of its own.

    Args:
        endpoints: all there are.
        clock: time, which receivers compare with theirs.

    """

    def __init__(self, endpoints: Iterable[Endpoint], clock: Clock) -> None:
        self._endpoints = {endpoint.subscriber.name: endpoint for endpoint in endpoints}
        self._clock = clock
        self._pools = {
            name: urllib3.PoolManager(
                retries=False,
                timeout=urllib3.Timeout(
                    connect=min(CONNECT_SECONDS, endpoint.timeout_seconds), read=endpoint.timeout_seconds
                ),
                maxsize=1,
            )
            for name, endpoint in self._endpoints.items()
        }

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """See Outbound."""
        return tuple(endpoint.subscriber for endpoint in self._endpoints.values())

    def send(self, endpoint: str, message: Message) -> None:
        """See Outbound. Raises NotDelivered."""
        found = self._endpoints[endpoint]
        try:
            headers = self._headers(found, message)
        except Misconfigured as error:
            raise NotDelivered(str(error)) from None
        try:
            answer = self._pools[endpoint].request(
                "POST",
                found.url,
                body=message.body,
                headers=headers,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            # urllib3 puts the URL into its messages, and in a path there may be a secret.
            raise NotDelivered(f"it cannot be reached or gave no answer ({type(error).__name__})") from None
        try:
            self._judge(answer.status, answer.headers)
        finally:
            _finish(answer)

    def _headers(self, endpoint: Endpoint, message: Message) -> Mapping[str, str]:
        keys, token = endpoint.keys(), endpoint.token()
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "brigade-argo-bridge",
        }
        if token:
            headers["authorization"] = f"Bearer {token}"
        if keys:
            signed = standard_webhooks.headers(
                keys=keys, message_id=message.id, timestamp=int(self._clock.now()), body=message.body
            )
            headers.update(signed)
        return headers

    def _judge(self, status: int, headers: Mapping[str, str]) -> None:
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise NotDelivered(f"it answered {status}: redirects are not followed; configure where it points to")
        if status in _REFUSALS:
            raise NotDelivered(f"it answered {status}: it does not take this message", permanent=True)
        wait = self._retry_after(headers.get("retry-after", ""))
        raise NotDelivered(f"it answered {status}; it is asked again", retry_after_seconds=wait)

    def _retry_after(self, said: str) -> float | None:
        if said.isascii() and said.isdigit():
            return float(said[:9])
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - self._clock.now())
        except (TypeError, ValueError, OverflowError):
            return None


def _finish(answer: urllib3.BaseHTTPResponse) -> None:
    """Let the connection be used again after an empty answer, else close it: reading what may never end would keep
    its endpoint waiting."""
    if answer.status == HTTPStatus.NO_CONTENT or answer.headers.get("content-length") == "0":
        answer.drain_conn()
    else:
        answer.close()
    answer.release_conn()
