"""A fence before every effect: who leads no more must not write any more."""

from collections.abc import Callable, Collection
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
    return fenced_calls(port, writing_methods(kind), leads)


def fenced_calls(
    port: _Port, names: Collection[str], leads: Callable[[], bool], *, through: _Port | None = None
) -> _Port:
    """`port` with a look at `leads` before each of the methods of these names; NotLeading is raised if it says no.

    A method of a port may read, wait and write: under calls that are fenced it writes nothing either once
    another one leads. Those that are fenced go `through` another one, if it is given.
    """
    return cast("_Port", _Fenced(port, port if through is None else through, frozenset(names), leads))


class _Fenced:
    def __init__(self, port: object, through: object, names: frozenset[str], leads: Callable[[], bool]) -> None:
        self._port = port
        self._through = through
        self._names = names
        self._leads = leads

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            return getattr(self._port, name)
        method = getattr(self._through, name)

        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self._leads():
                raise NotLeading(f"this controller does not lead: {name} is left to the one that does")
            return method(*args, **kwargs)

        return guarded
