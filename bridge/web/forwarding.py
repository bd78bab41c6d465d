"""Passing a delivery on to another gateway, so that a Brigade gateway and bridge share one webhook.

What is passed on is not stored here and mostly not verified here: the other side knows its secrets. Its address is
a setting and nothing of a request changes it: no redirect is followed, no proxy of the environment is asked, and
the path is written anew from the route that matched. Only headers that a gateway verifies or reads by go along.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from flask import Flask, Request, current_app
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.response import BaseHTTPResponse

from bridge.errors import BadSettings, BridgeError, Unavailable

FORWARDED = "Bridge-Forwarded"
"""Says that a delivery was passed on once; it is not a second time, so that two gateways cannot play ping-pong."""
LONGEST_ANSWER_BYTES = 64 * 1024
"""What is longer is cut: GitHub keeps less."""
CONNECT_SECONDS = 2.0

_HEADERS = frozenset({"content-type", "user-agent", "idempotency-key"})
_HEADER_FAMILIES = ("x-github-", "x-hub-", "ce-")
_SAFE_TYPES = frozenset({"application/json", "application/problem+json", "text/plain"})
_PLAIN = "text/plain; charset=utf-8"
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"
_DOTS = frozenset({".", ".."})
_PIECE_BYTES = 16 * 1024
_LONGEST_RETRY_AFTER = 4

_EXTENSION = "bridge_forwarding"


class NotForwarded(BridgeError):
    """The other gateway gave no usable answer; it may have the delivery or not."""


@dataclass(frozen=True)
class Answer:
    """What the other gateway said, as far as it is handed on."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Forwarding:
    """The way to one other gateway, from any thread.

    While it does not answer, one delivery at a time tries, and the others are refused at once: a gateway that
    hangs must not take all threads of this one.

    Args:
        url: of the other gateway, of which the paths are those of this one; empty: there is none.

    Raises BadSettings for what is no address.

    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        odd = parts.username is not None or parts.query or parts.fragment
        if url and (parts.scheme not in {"http", "https"} or not host or odd):
            raise BadSettings("BRIDGE_FALLBACK_URL: write http://HOST:PORT or https://HOST, and maybe a path")
        self._scheme = parts.scheme
        self._host = host or ""
        self._port = port
        self._prefix = quote(parts.path.rstrip("/"), safe=f"{_PATH_CHARACTERS}%")
        self._options: dict[str, Any] = {}
        if parts.scheme == "https":
            context = urllib3.util.create_urllib3_context()
            context.load_default_certs()
            self._options["ssl_context"] = context
        self._away = False
        self._trying = threading.Lock()

    def may(self, request: Request) -> bool:
        """Whether this delivery can be passed on at all."""
        return bool(self._host) and FORWARDED not in request.headers and _DOTS.isdisjoint(request.path.split("/"))

    def forward(self, request: Request, body: bytes, *, within_seconds: float) -> Answer:
        """Pass a delivery on, once, and answer what the other gateway says, whatever it is.

        Raises Unavailable when it does not have the delivery, and NotForwarded when it may have it or not.
        """
        if not self._away:
            return self._told(request, body, within_seconds)
        if not self._trying.acquire(blocking=False):
            raise Unavailable(f"passing on to {self._host}: it does not answer at the moment; send it again")
        try:
            return self._told(request, body, within_seconds)
        finally:
            self._trying.release()

    def _told(self, request: Request, body: bytes, within_seconds: float) -> Answer:
        try:
            answer = self._sent(request, body, within_seconds)
        except (NotForwarded, Unavailable):
            self._away = True
            raise
        self._away = False
        return answer

    def _sent(self, request: Request, body: bytes, within_seconds: float) -> Answer:
        deadline = time.monotonic() + within_seconds
        # A connection for each: on one that was kept, a delivery may be lost without anybody knowing where.
        with self._connections() as pool:
            try:
                response = pool.urlopen(
                    "POST",
                    f"{self._prefix}{quote(request.path, safe=_PATH_CHARACTERS)}{_query(request)}",
                    body=body,
                    headers=_passed_on(request),
                    retries=False,
                    redirect=False,
                    timeout=urllib3.Timeout(
                        connect=min(CONNECT_SECONDS, within_seconds), read=within_seconds, total=within_seconds
                    ),
                    preload_content=False,
                    decode_content=False,
                )
                with response:
                    return self._answer(response, deadline)
            except (NewConnectionError, ConnectTimeoutError, SSLError) as exc:
                raise Unavailable(
                    f"passing on to {self._host}: it cannot be reached ({type(exc).__name__}); "
                    "look at BRIDGE_FALLBACK_URL and at what is behind it"
                ) from None
            except (HTTPError, OSError) as exc:
                # Not the exception itself: it may hold the path, and that a secret.
                raise NotForwarded(
                    f"passing on to {self._host}: no answer in {within_seconds:.1f} s or a broken one "
                    f"({type(exc).__name__}); look at what is behind BRIDGE_FALLBACK_URL"
                ) from None

    def _answer(self, response: BaseHTTPResponse, deadline: float) -> Answer:
        if response.status < HTTPStatus.OK or HTTPStatus.MULTIPLE_CHOICES <= response.status < 400:  # noqa: PLR2004
            raise NotForwarded(
                f"passing on to {self._host}: it answers {response.status}, and redirects are not followed; "
                "write its final address into BRIDGE_FALLBACK_URL"
            )
        body = bytearray()
        while len(body) < LONGEST_ANSWER_BYTES and (piece := response.read1(_PIECE_BYTES)):
            body += piece
            if time.monotonic() > deadline:
                raise NotForwarded(f"passing on to {self._host}: its answer was not complete in time")
        headers = {"Content-Type": _content_type(response.headers.get("Content-Type", ""))}
        wait = response.headers.get("Retry-After", "")
        if wait.isdecimal() and wait.isascii() and len(wait) <= _LONGEST_RETRY_AFTER:
            headers["Retry-After"] = wait
        return Answer(response.status, bytes(body[:LONGEST_ANSWER_BYTES]), headers)

    def _connections(self) -> HTTPConnectionPool:
        kind = HTTPSConnectionPool if self._scheme == "https" else HTTPConnectionPool
        return kind(self._host, self._port, maxsize=1, **self._options)

    def install(self, app: Flask) -> None:
        """Make this the way on of `app`."""
        app.extensions[_EXTENSION] = self


def forwarding() -> Forwarding:
    """The way on of the app that handles this request."""
    found = current_app.extensions[_EXTENSION]
    assert isinstance(found, Forwarding)  # noqa: S101 - for mypy; only `Forwarding.install` writes it
    return found


def _passed_on(request: Request) -> dict[str, str]:
    """The headers that go along. Others may be for this gateway alone, as tokens are, or for one hop."""
    kept = {
        name: value
        for name, value in request.headers.items()
        if name.lower() in _HEADERS or name.lower().startswith(_HEADER_FAMILIES)
    }
    return {**kept, FORWARDED: "1", "Accept-Encoding": "identity"}


def _query(request: Request) -> str:
    text = request.query_string.decode("latin-1")
    return f"?{quote(text, safe=f'{_PATH_CHARACTERS}?%[]')}" if text else ""


def _content_type(said: str) -> str:
    """A type that no browser runs."""
    kind = said.partition(";")[0].strip().lower()
    return kind if kind in _SAFE_TYPES and kind != "text/plain" else _PLAIN
