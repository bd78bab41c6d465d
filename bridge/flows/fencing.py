"""A fence before every effect: who leads no more must not write any more."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from bridge.errors import Unavailable
from bridge.ports import writing_methods

_Port = TypeVar("_Port")


class NotLeading(Unavailable):
    """Another controller leads, or nobody knows: what was to be written is left to it."""


def fenced(kind: type[_Port], port: _Port, leads: Callable[[], bool]) -> _Port:
    """`port` with a look at `leads` before each of its writing methods (`ports.writes`).

    They raise NotLeading when it says no. `kind` is the port's Protocol, whose marks say which methods write.
    """
    return cast("_Port", _Fenced(port, frozenset(writing_methods(kind)), leads))


class _Fenced:
    def __init__(self, port: object, writing: frozenset[str], leads: Callable[[], bool]) -> None:
        self._port = port
        self._writing = writing
        self._leads = leads

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name not in self._writing:
            return method

        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self._leads():
                raise NotLeading(f"this controller does not lead: {name} is left to the one that does")
            return method(*args, **kwargs)

        return guarded
