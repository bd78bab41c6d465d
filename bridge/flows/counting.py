"""What a controller did, and what runs are still owed: for the metrics, without a request more."""

import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import get_args

from bridge.core import obligations as ob

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Posting(StrEnum):
    """What came of a status that was to be posted."""

    TAKEN = "taken"
    """Somebody holds it."""
    FAILED = "failed"
    """It was not taken, and is tried again."""
    PUT_OFF = "put_off"
    """A limit of the git host left no room, and nobody was asked."""
    OVERWRITTEN = "overwritten"
    """Another one was on top of it."""
    GIVEN_UP = "given_up"
    """It cannot be delivered; the run says why."""


def kind_of(action: type) -> str:
    """What an action's kind is called: `give_up` of GiveUp."""
    return _WORD.sub("_", action.__name__).lower()


KINDS = tuple(kind_of(action) for action in get_args(ob.Action) if action is not ob.Notify)
"""All kinds of actions but one: what endpoints are told is counted where they are told (flows/notifying.py)."""


class Counting:
    """Counts, from any thread. What is owed is known of the runs that were looked at, until they are paid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = dict.fromkeys(KINDS, 0)
        self._postings = dict.fromkeys(Posting, 0)
        self._owed: dict[str, Counter[str]] = {}

    def owes(self, run: str, actions: Iterable[ob.Action]) -> None:
        """These actions, and no others, are owed to a run."""
        found = Counter(kind_of(type(action)) for action in actions)
        with self._lock:
            if found:
                self._owed[run] = found
            else:
                self._owed.pop(run, None)

    def did(self, run: str, action: ob.Action) -> None:
        """One of the actions that were owed to a run is done."""
        kind = kind_of(type(action))
        with self._lock:
            self._done[kind] += 1
            left = self._owed.get(run)
            if left is None:
                return
            left[kind] -= 1
            if left[kind] <= 0:
                del left[kind]
            if not left:
                del self._owed[run]

    def came(self, posting: Posting) -> None:
        """A status was to be posted, and this came of it."""
        with self._lock:
            self._postings[posting] += 1

    def keep(self, runs: Collection[str]) -> None:
        """Nothing is owed to other runs than these."""
        with self._lock:
            self._owed = {run: left for run, left in self._owed.items() if run in runs}

    def owed(self) -> dict[str, float]:
        """How many actions of each kind are owed to all runs together."""
        with self._lock:
            total = sum(self._owed.values(), Counter[str]())
        return {kind: float(total[kind]) for kind in KINDS}

    def values(self) -> dict[str, dict[str, float]]:
        """For the metrics (core.metrics)."""
        with self._lock:
            done = {kind: float(count) for kind, count in self._done.items()}
            postings = {posting.value: float(count) for posting, count in self._postings.items()}
        return {
            "bridge_owed_actions": self.owed(),
            "bridge_actions_total": done,
            "bridge_statuses_total": postings,
        }
