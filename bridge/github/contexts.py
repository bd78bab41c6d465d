"""What GitHub shows of a commit's statuses in one context, and how many of the 1,000 are used up.

GitHub takes at most 1,000 statuses for a sha and context and then refuses (facts/github.md). Its list has all
contexts of the commit, newest first, 100 a page; a commit has rarely more. Where it has, it is counted once, and
from then on only what is newer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, TypeAdapter, ValidationError

from bridge.github.calls import Response

MOST_STATUSES = 1_000
"""For each sha and context."""
MOST_PAGES = 40
"""So many are read at most; a commit with more statuses than that counts as nearly used up."""

_PER_PAGE = 100
_MOST_REMEMBERED = 1_000


class Posted(BaseModel):
    """A status as GitHub shows it."""

    id: int = 0
    state: str
    context: str
    description: str | None = None
    target_url: str | None = None

    def says(self, body: dict[str, str]) -> bool:
        """Whether it is what posting `body` makes."""
        shown = (self.state, self.description or "", self.target_url or "")
        return shown == (body["state"], body["description"], body.get("target_url", ""))

    def as_body(self) -> dict[str, str]:
        """What makes it again when it is posted."""
        body = {"state": self.state, "context": self.context, "description": self.description or ""}
        return body | ({"target_url": self.target_url} if self.target_url else {})


_POSTED = TypeAdapter(list[Posted])


@dataclass(frozen=True)
class Shown:
    """What a commit shows in one context."""

    newest: Posted | None
    recent: tuple[Posted, ...]
    """The newest ones of the context, newest first; as many as are on the list's first page."""
    highest: int
    """The id of the commit's newest status, whatever its context: what is newer has a higher one."""
    used: int
    """How many of MOST_STATUSES there are."""


Page = Callable[[int], Response]
"""Asks for a page of the list, from 1. Raises what the client raises."""


class Contexts:
    """Reads what is shown, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        """Of long lists, by (commit, context): the highest id that was counted, and how many of the context."""

    def read(self, commit: str, context: str, page: Page) -> Shown | None:
        """What `commit` (any name that is its own) shows in `context`; None if the answer is none of GitHub's.

        Raises what `page` raises.
        """
        first = _read(page(1))
        if first is None:
            return None
        recent = tuple(_of(context, first))
        highest = max((status.id for status in first), default=0)
        used = len(recent) if len(first) < _PER_PAGE else self._count(commit, context, first, page)
        return Shown(recent[0] if recent else None, recent, highest, used)

    def recent(self, context: str, page: Page) -> tuple[Posted, ...] | None:
        """The newest ones of `context`, newest first; None if the answer is none of GitHub's."""
        first = _read(page(1))
        return None if first is None else tuple(_of(context, first))

    def _count(self, commit: str, context: str, first: list[Posted], page: Page) -> int:
        key = (commit, context.casefold())
        with self._lock:
            until, counted = self._counted.get(key, (0, 0))
        found = {status.id: status for status in first}
        number = 1
        # Ids only grow, so behind the one that was counted last everything was.
        while not any(one <= until for one in found):
            number += 1
            more = (_read(page(number)) or []) if number <= MOST_PAGES else None
            if more is None:
                return MOST_STATUSES - 1
            found |= {status.id: status for status in more}
            if len(more) < _PER_PAGE:
                break
        newer = [status for status in found.values() if status.id > until]
        used = counted + sum(1 for _ in _of(context, newer))
        with self._lock:
            self._counted[key] = (max(found), used)
            self._counted.move_to_end(key)
            if len(self._counted) > _MOST_REMEMBERED:
                self._counted.popitem(last=False)
        return used


def _of(context: str, statuses: Iterable[Posted]) -> Iterable[Posted]:
    # GitHub tells contexts apart without their case.
    return (status for status in statuses if status.context.casefold() == context.casefold())


def _read(response: Response) -> list[Posted] | None:
    try:
        return _POSTED.validate_json(response.content)
    except ValidationError:
        return None
