"""Argo's `depends` expressions: after which ends of which tasks does a task run?

`build && (lint.Succeeded || lint.Failed) && !deploy.Skipped`: a task alone stands for its Succeeded, Skipped or
Daemoned; `!` binds closest, then `&&`, then `||` (argo-workflows v4, workflow/common/ancestry.go and
workflow/controller/dag.go). Pure.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from bridge.core.executions import NodePhase
from bridge.errors import BadPipeline

_PHASES = {
    "Succeeded": frozenset({NodePhase.SUCCEEDED}),
    "Failed": frozenset({NodePhase.FAILED}),
    "Errored": frozenset({NodePhase.ERROR}),
    "Skipped": frozenset({NodePhase.SKIPPED}),
    "Omitted": frozenset({NodePhase.OMITTED}),
    # True only of what this engine refuses: daemons, and the tasks that withItems makes.
    "Daemoned": frozenset[NodePhase](),
    "AnySucceeded": frozenset[NodePhase](),
    "AllFailed": frozenset[NodePhase](),
}
_ALONE = frozenset({NodePhase.SUCCEEDED, NodePhase.SKIPPED})
_MAX_CHARACTERS = 10_000
_MAX_DEPTH = 50
_SHOWN_CHARACTERS = 60
_TOKEN = re.compile(
    r"\s*(?:(?P<symbol>&&|\|\||!|\(|\))|(?P<task>[A-Za-z0-9][-A-Za-z0-9]*)(?:\.(?P<result>\w+))?)", re.ASCII
)


@dataclass(frozen=True)
class Ended:
    """A task came to one of these phases."""

    task: str
    phases: frozenset[NodePhase]


@dataclass(frozen=True)
class Not:
    """The opposite."""

    of: "Condition"


@dataclass(frozen=True)
class All:
    """Each of them; of none it is true."""

    of: tuple["Condition", ...]


@dataclass(frozen=True)
class Either:
    """At least one of them."""

    of: tuple["Condition", ...]


Condition = Ended | Not | All | Either


def after(tasks: Iterable[str]) -> Condition:
    """What `dependencies: [a, b]` means: `a && b`."""
    return All(tuple(Ended(task, _ALONE) for task in tasks))


def parsed(text: str) -> Condition:
    """The condition that `text` says. Raises BadPipeline that says where it cannot be read."""
    if len(text) > _MAX_CHARACTERS:
        raise BadPipeline(f"depends: it is longer than {_MAX_CHARACTERS} characters; write it shorter")
    return _Parser(text).whole()


def tasks_in(condition: Condition) -> frozenset[str]:
    """The tasks that must have ended before the condition can be told."""
    if isinstance(condition, Ended):
        return frozenset({condition.task})
    if isinstance(condition, Not):
        return tasks_in(condition.of)
    return frozenset().union(*(tasks_in(part) for part in condition.of))


def holds(condition: Condition, phases: Mapping[str, NodePhase]) -> bool:
    """Whether the condition is met, given the phases of all `tasks_in` it, which have ended."""
    if isinstance(condition, Ended):
        return phases[condition.task] in condition.phases
    if isinstance(condition, Not):
        return not holds(condition.of, phases)
    if isinstance(condition, All):
        return all(holds(part, phases) for part in condition.of)
    return any(holds(part, phases) for part in condition.of)


class _Parser:
    """Recursive descent, a method for each strength of binding."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0
        self._depth = 0

    def whole(self) -> Condition:
        found = self._either()
        if self._at < len(self._text):
            self._fail("expected `&&`, `||` or the end")
        return found

    def _either(self) -> Condition:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"nested more than {_MAX_DEPTH} deep")
        found = self._unbound()
        self._depth -= 1
        return found

    def _unbound(self) -> Condition:
        if self._take("!"):
            return Not(self._one())
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                self._fail("expected `)`")
            return inner
        return self._task()

    def _task(self) -> Condition:
        found = _TOKEN.match(self._text, self._at)
        if found is None or found["task"] is None:
            self._fail("expected a task's name, `!` or `(`")
        result = found["result"]
        if result is not None and result not in _PHASES:
            self._fail(f"a task's result is one of {', '.join(_PHASES)}")
        self._at = found.end()
        return Ended(found["task"], _ALONE if result is None else _PHASES[result])

    def _take(self, symbol: str) -> bool:
        found = _TOKEN.match(self._text, self._at)
        if found is None or found["symbol"] != symbol:
            return False
        self._at = found.end()
        return True

    def _fail(self, problem: str) -> NoReturn:
        rest = self._text[self._at :].lstrip()[:_SHOWN_CHARACTERS]
        shown = "".join(character if character.isprintable() else "?" for character in rest)
        place = f"before `{shown}`" if shown else "at its end"
        raise BadPipeline(f"depends: {problem} {place}")
