"""Connections of urllib3 that send a request in one piece.

http.client sends headers and body apart: two system calls and two TLS records, and the server is woken twice, once
for a half. A create is the one call that accepting an event makes.
"""

from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Whole(HTTPConnection):
    """Holds back what a request sends until it is whole. A connection is one thread's at a time."""

    _held: bytearray | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._held = bytearray()
        try:
            super().request(*args, **kwargs)
        finally:
            held, self._held = self._held, None
        super().send(held)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held += data


class _WholeHTTPS(_Whole, HTTPSConnection):
    """The same by TLS."""


class WholeHTTPConnectionPool(HTTPConnectionPool):
    """Of connections that send each request in one piece; its body is bytes, or there is none."""

    ConnectionCls = _Whole


class WholeHTTPSConnectionPool(HTTPSConnectionPool):
    """The same by TLS."""

    ConnectionCls = _WholeHTTPS
