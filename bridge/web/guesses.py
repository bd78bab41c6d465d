"""How often somebody may be wrong: a bucket of guesses for each address, in this process."""

import math
import threading
from collections import OrderedDict

from flask import Flask, current_app

AT_ONCE = 10
SECONDS_EACH = 6.0
"""So long until one more is allowed."""
_EXTENSION = "bridge_guesses"
_ADDRESSES = 4096
"""More are not remembered; who is forgotten begins anew."""


class Guesses:
    """Counts wrong guesses, from any thread. Times are seconds that only grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, address: str, now: float) -> int:
        """How long this address has to wait; 0: it may guess."""
        with self._lock:
            left = self._full_at.get(address, now) - now
        return max(0, math.ceil(left - (AT_ONCE - 1) * SECONDS_EACH))

    def failed(self, address: str, now: float) -> None:
        """It was wrong."""
        with self._lock:
            self._full_at[address] = max(now, self._full_at.get(address, now)) + SECONDS_EACH
            self._full_at.move_to_end(address)
            while len(self._full_at) > _ADDRESSES:
                self._full_at.popitem(last=False)

    def install(self, app: Flask) -> None:
        """Make these the guesses of `app`."""
        app.extensions[_EXTENSION] = self


def guesses() -> Guesses:
    """The guesses of the app that handles this request."""
    found = current_app.extensions[_EXTENSION]
    assert isinstance(found, Guesses)  # noqa: S101 - for mypy; only `Guesses.install` writes it
    return found
