"""How long all calls of one request may take together: GitHub waits 10 s, and an event may take several calls.

Whoever answers a request says it once, around everything; each call below takes what is left.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar

_until: ContextVar[float] = ContextVar("until", default=math.inf)


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """In this block and thread, calls to the API server raise AskLater once all of them took so long together.

    Within another one the shorter counts.
    """
    token = _until.set(min(_until.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _until.reset(token)


def within_patience(seconds: float) -> float:
    """`seconds`, or what is left if that is less: 0 when nothing is, and never below."""
    return max(0.0, min(seconds, _until.get() - time.monotonic()))
