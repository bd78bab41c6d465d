"""Ports whose process is killed before or after a writing call, at each place that makes the call, once.

A place is a line of a process's code, and for a delivery that two pipelines want, which of its records is stored.
That it happens once, over all processes and restarts, is the doing of files in CRASH_DIR. Without CRASH_AT nobody
dies, and the calls are only written down. With `everywhere` somebody dies at each place, before each call and after it.
"""

import inspect
import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge import ports
from bridge.core.runs import Run
from bridge.ports import writing_methods

AT = "CRASH_AT"
"""`Runs.create:before`; empty or not there: nobody dies."""
EVERYWHERE = "everywhere"
FOLDER = "CRASH_DIR"
WHENS = ("before", "after")
_DIED = "died "


def protocols() -> dict[str, type]:
    """Every port there is, by name."""
    found = vars(ports).items()
    return {name: one for name, one in found if inspect.isclass(one) and Protocol in one.__bases__}


def methods() -> list[str]:
    """Every writing method of every port: `Runs.create`, …"""
    return [f"{name}.{method}" for name, port in protocols().items() for method in writing_methods(port)]


@dataclass(frozen=True)
class Call:
    """A writing call, as it was written down."""

    method: str
    place: str
    """The process's role and the line."""
    run: str


def dying(port, name: str, *, role: str, kind: type | None = None):
    """`port`, known as `name` in bridge.ports, in a process of this role; `kind`: its Protocol, if it is elsewhere."""
    return _Dying(port, name, writing_methods(kind or protocols()[name]), role)


def calls(folder: Path) -> list[Call]:
    """What was called so far, in order."""
    path = folder / "calls"
    return [Call(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def deaths(folder: Path) -> set[str]:
    """The places at which a process died so far; of `everywhere` each with its method and when before it."""
    return {path.name.removeprefix(_DIED) for path in folder.glob(f"{_DIED}*")}


def spare(folder: Path, places: Iterable[str]) -> None:
    """Let nobody die at these places."""
    for place in places:
        (folder / f"{_DIED}{place}").touch()


class _Dying:
    def __init__(self, port, name, writing, role):
        self._port = port
        self._name = name
        self._writing = writing
        self._role = role
        self._wanting: dict[str, list[str]] = {}

    def __getattr__(self, name):
        real = getattr(self._port, name)
        if name not in self._writing:
            return real

        def called(*args, **kwargs):
            caller = sys._getframe(1)
            place = f"{self._role} {caller.f_globals['__name__']}:{caller.f_lineno}"
            if isinstance(args[0], Run) and name == "create":
                place += f" {self._position(args[0])}"
            call = Call(f"{self._name}.{name}", place, _run_of(args))
            _write_down(call)
            _die_if_told(call, "before")
            answer = real(*args, **kwargs)
            _die_if_told(call, "after")
            return answer

        return called

    def _position(self, run: Run) -> int:
        """Which of the pipelines that want this delivery."""
        wanting = self._wanting.setdefault(run.event.delivery, [])
        if run.pipeline not in wanting:
            wanting.append(run.pipeline)
        return wanting.index(run.pipeline) + 1


def _run_of(args) -> str:
    what = args[0]
    for one in args:
        if isinstance(one, ports.Message):
            return one.id.partition(":")[0]
    if isinstance(what, str):
        return what
    return what.id if isinstance(what, Run) else getattr(what, "run", "")


def _write_down(call: Call) -> None:
    line = json.dumps(vars(call)).encode() + b"\n"
    handle = os.open(Path(os.environ[FOLDER], "calls"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def _die_if_told(call: Call, when: str) -> None:
    point = f"{call.method}:{when}"
    told = os.environ.get(AT)
    if told not in {point, EVERYWHERE}:
        return
    place = call.place if told == point else f"{point} {call.place}"
    try:
        Path(os.environ[FOLDER], f"{_DIED}{place}").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
