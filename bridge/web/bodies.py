"""Reading a request's body: bounded in bytes before anything else is done with it.

Its time is bounded by the server (workers.py): no read here waits for ever under gunicorn.
"""

from flask import Request

from bridge.core.events.json_bodies import must_be_unencoded
from bridge.errors import TooLarge, UnreadableEvent

_PIECE_BYTES = 64 * 1024
_DISCARDED_BYTES = 26_000_000
"""So much of a body that is too large is taken from the wire all the same, so that its sender gets to read the
answer: GitHub sends 25 MB at most, and a connection closed too early swallows what was answered."""


def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """The whole raw body, with a Content-Length or in chunks; never more than `limit_bytes` are kept.

    Raises TooLarge over the limit; UnreadableEvent for a Content-Encoding, a body that is broken off, badly
    chunked or too slow.
    """
    must_be_unencoded(request.headers.get("Content-Encoding"))
    if (request.content_length or 0) > limit_bytes:
        _discard(request)
        raise _too_large(limit_bytes)
    body = bytearray()
    while piece := _read(request, min(_PIECE_BYTES, limit_bytes + 1 - len(body))):
        body += piece
        if len(body) > limit_bytes:
            _discard(request)
            raise _too_large(limit_bytes)
    return bytes(body)


def _read(request: Request, size: int) -> bytes:
    try:
        return request.stream.read(size)
    except Exception as exc:
        # Each server has its own exceptions for what a client can do wrong here (gunicorn: a dozen).
        raise UnreadableEvent(
            f"reading the body: it was broken off, badly chunked or too slow ({type(exc).__name__}); send it again"
        ) from exc


def _discard(request: Request) -> None:
    left = _DISCARDED_BYTES
    try:
        while left > 0 and (piece := _read(request, _PIECE_BYTES)):
            left -= len(piece)
    except UnreadableEvent:
        return


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"reading the body: it has more than {limit_bytes} bytes; send a smaller payload")
