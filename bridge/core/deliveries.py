"""GitHub's log of deliveries: which of them never arrived, and which are to be sent again now.

GitHub sends nothing again by itself (facts/github.md, Webhooks). A delivery is known by its GUID, which all its
attempts share, those of other hooks too. It is lost while its newest attempt got no answer, 5xx or 429. That the
gateway took any attempt settles it for good; that it refused one settles it for that hook alone, whose secret may
be what is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

REDELIVERABLE_SECONDS = 3 * 86400.0
"""So long after its first attempt GitHub sends a delivery again; on GitHub Enterprise Server longer."""
FIRST_WAIT_SECONDS = 120.0
"""So long an attempt is left alone before the next one; it doubles with each, up to the longest."""
LONGEST_WAIT_SECONDS = 900.0
MOST_SETTLED = 50_000
"""So many settled GUIDs are remembered. A forgotten one may be sent once more: the gateway still knows it."""

_MOST_DOUBLINGS = 10
_TOO_MANY = 429


class Answer(StrEnum):
    """What an attempt came to."""

    TAKEN = "taken"
    REFUSED = "refused"
    LOST = "lost"
    UNDER_WAY = "under way"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a delivery, as the log of a hook has it."""

    id: int
    guid: str
    delivered: float
    """When, in seconds since the epoch, by GitHub's clock."""
    status_code: int = 0
    """What was answered; 0: nothing."""
    under_way: bool = False
    """Nobody knows yet."""

    @property
    def answer(self) -> Answer:
        """What it came to."""
        if self.under_way:
            return Answer.UNDER_WAY
        if self.status_code // 100 == 2:  # noqa: PLR2004 - as everybody calls it
            return Answer.TAKEN
        lost = self.status_code == _TOO_MANY or self.status_code // 100 not in {3, 4}
        return Answer.LOST if lost else Answer.REFUSED


@dataclass(frozen=True)
class Lost:
    """A delivery that is lost until now."""

    guid: str
    log: str
    """The name of the log that it was found in first, which is asked to send it again."""
    newest: Attempt
    """The newest attempt in that log."""
    first: float
    """When the first known attempt was."""
    last: float
    """When the last one was, of any hook."""
    attempts: frozenset[int]
    """The ids of the known ones."""
    asked: float = 0.0
    """When we last asked for another one, which its log may not show yet."""
    asks: int = 0

    def due(self) -> float:
        """When it may be sent again."""
        doublings = max(len(self.attempts) - 1, self.asks)
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(doublings, _MOST_DOUBLINGS), LONGEST_WAIT_SECONDS)
        return max(self.last, self.asked) + wait


@dataclass(frozen=True)
class _Settled:
    log: str
    attempt: Attempt

    def covers(self, log: str, attempt: Attempt) -> bool:
        """Whether another attempt says nothing new."""
        taken = self.attempt.answer is Answer.TAKEN
        return taken or (self.log == log and self.attempt.delivered >= attempt.delivered)


class Deliveries:
    """What is known of deliveries by what logs say, in whatever order they say it. Not thread safe."""

    def __init__(self) -> None:
        self._lost: dict[str, Lost] = {}
        self._settled: dict[str, _Settled] = {}

    @property
    def lost(self) -> int:
        """How many are lost until now."""
        return len(self._lost)

    def see(self, log: str, attempt: Attempt) -> None:
        """Take in one attempt of a log; the same one again changes nothing."""
        settled, known = self._settled.get(attempt.guid), self._lost.get(attempt.guid)
        if attempt.answer is Answer.TAKEN:
            self._settle(log, attempt)
        elif settled is not None and settled.covers(log, attempt):
            return
        elif attempt.answer is Answer.REFUSED:
            # An older refusal says nothing of what a later attempt met, nor does that of another hook.
            if known is None or (known.log == log and known.newest.delivered <= attempt.delivered):
                self._settle(log, attempt)
        elif known is not None:
            self._lost[attempt.guid] = _with(known, log, attempt)
        elif attempt.answer is Answer.LOST:
            at = attempt.delivered
            self._lost[attempt.guid] = Lost(attempt.guid, log, attempt, at, at, frozenset({attempt.id}))

    def due(self, logs: Iterable[str], *, now: float) -> list[Lost]:
        """What these logs may be asked for again now: first what was asked for least, and of that the oldest."""
        wanted = frozenset(logs)
        found = [one for one in self._lost.values() if one.log in wanted and one.due() <= now]
        return sorted(found, key=lambda one: (one.asks, one.first, one.guid))

    def ask(self, guid: str, *, now: float) -> None:
        """Another attempt is about to be asked for."""
        known = self._lost[guid]
        self._lost[guid] = replace(known, asked=now, asks=known.asks + 1)

    def expire(self, *, now: float) -> list[Lost]:
        """Give up what is too old to be sent again, and answer it, once."""
        found = [one for one in self._lost.values() if now - one.first > REDELIVERABLE_SECONDS]
        for one in found:
            self._settle(one.log, one.newest)
        return found

    def _settle(self, log: str, attempt: Attempt) -> None:
        self._lost.pop(attempt.guid, None)
        # Anew at the end: what was heard of last is forgotten last.
        self._settled.pop(attempt.guid, None)
        self._settled[attempt.guid] = _Settled(log, attempt)
        while len(self._settled) > MOST_SETTLED:
            del self._settled[next(iter(self._settled))]


def _with(known: Lost, log: str, attempt: Attempt) -> Lost:
    """What is known after another attempt, which may be older than those that are known."""
    newer = log == known.log and attempt.delivered >= known.newest.delivered
    return replace(
        known,
        newest=attempt if newer else known.newest,
        first=min(known.first, attempt.delivered),
        last=max(known.last, attempt.delivered),
        attempts=known.attempts | {attempt.id},
    )
