"""Answers that are the same for a while."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Asked = TypeVar("_Asked", bound=Hashable)
_Answer = TypeVar("_Answer")


class Remembered(Generic[_Asked, _Answer]):
    """What was found out, for so many seconds and of so many questions; from any thread."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[_Asked, tuple[float, _Answer]] = OrderedDict()

    def get(self, asked: _Asked, now: float, find: Callable[[], _Answer]) -> _Answer:
        """The answer to `asked`, by `find` if it is not known or too old at `now`."""
        with self._lock:
            at, answer = self._known.get(asked, (float("-inf"), None))
        if answer is not None and now - at < self._seconds:
            return answer
        found = find()
        with self._lock:
            self._known[asked] = now, found
            self._known.move_to_end(asked)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found
