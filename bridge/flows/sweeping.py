"""Missed deliveries: GitHub's logs are looked through every few minutes, and what was lost is asked for again.

What a sweep knows it has from the logs, so that whoever begins to lead finds all of it there. Only that another
attempt was asked for, which a log may show minutes later, is remembered besides: after a restart one may be asked
for once more, and the gateway answers that as a duplicate, since the GUID decides.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from bridge.core.deliveries import REDELIVERABLE_SECONDS, Attempt, Deliveries, Lost
from bridge.errors import BridgeError, EngineError, Forbidden, NotFound, Unavailable
from bridge.ports import Clock, writes

MOST_SOURCES = 100
"""So many are looked at in a sweep; the next one goes on with those that follow."""
MOST_PAGES = 20
"""So many pages of a log are read in a sweep; the next one goes on from there."""
MOST_REDELIVERIES = 40
"""So many of a source's deliveries are asked for again in a sweep."""
MOST_AN_HOUR = 400
"""So many of a source in an hour; GitHub's secondary limit is 500 of such requests."""
OVERLAP_SECONDS = 600.0
"""So far back a log is read again that was read to its end: an attempt may be in it minutes after it was made."""
REFUSED_SECONDS = 3600.0
"""A source that does not let us in is left alone for so long."""

_HOUR = 3600.0
_POLL_SECONDS = 1.0
_LONGEST_GUID = 40
_SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """A part of a log."""

    attempts: tuple[Attempt, ...]
    """The newest first."""
    following: str
    """The cursor of the next page; empty after the last one."""
    now: float
    """The git host's own time when it answered."""


@dataclass(frozen=True)
class Recorded:
    """What was sent."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    """The same JSON, not the same bytes: its signature fits no more."""


class DeliveryLog(Protocol):
    """The log of one hook that points to our gateway."""

    @property
    def name(self) -> str:
        """For people, and its own among all."""
        ...

    def page(self, cursor: str) -> Page:
        """The page at `cursor`, the first one if that is empty. Raises EngineError."""
        ...

    def recorded(self, attempt: Attempt) -> Recorded:
        """What an attempt sent. Raises NotFound when the log has it no more, and EngineError."""
        ...

    @writes
    def redeliver(self, attempt: Attempt) -> None:
        """Ask for another attempt at a delivery.

        Raises NotFound when it is none that can be sent again, Forbidden when we may not ask, Unavailable when
        nobody knows whether it was asked for.
        """
        ...


class DeliveryLogs(Protocol):
    """Where logs are: with the GitHub App and with projects."""

    def sources(self) -> Sequence[str]:
        """The names of all that may have logs, the most important first."""
        ...

    def of(self, source: str) -> Sequence[DeliveryLog]:
        """The logs of its hooks that point to our gateway. Raises EngineError, Forbidden if we may not look."""
        ...


@dataclass(frozen=True)
class _Reading:
    """How far a log was read."""

    until: float
    """Older attempts are known, or are of no use any more."""
    cursor: str = ""
    """Where to go on; empty at its beginning."""
    began: float = 0.0


class _Stopped(Exception):
    """Another one leads, or the process ends."""


class Sweeping:
    """Looks through all logs and asks for what was lost. One thread sweeps; `values` is for any.

    Args:
        logs: where deliveries are logged.
        clock: time.
        every_seconds: from the beginning of a sweep to that of the next one.
        leads: whether this process may act now; asked before each request that has an effect.

    """

    def __init__(
        self,
        logs: DeliveryLogs,
        clock: Clock,
        *,
        every_seconds: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._every_seconds = every_seconds
        self._leads = leads
        self._deliveries = Deliveries()
        self._readings: dict[str, _Reading] = {}
        self._rests: dict[str, float] = {}
        self._asked: dict[str, deque[float]] = {}
        self._said: dict[str, str] = {}
        self._next = 0
        self._ahead_seconds = 0.0
        self._counts = dict.fromkeys(("sweeps", "redelivered", "expired", "troubles"), 0)

    def values(self) -> dict[str, float]:
        """For the metrics."""
        counts = self._counts
        return {
            "bridge_delivery_sweeps_total": float(counts["sweeps"]),
            "bridge_delivery_sweep_troubles_total": float(counts["troubles"]),
            "bridge_deliveries_lost": float(self._deliveries.lost),
            "bridge_deliveries_redelivered_total": float(counts["redelivered"]),
            "bridge_deliveries_expired_total": float(counts["expired"]),
        }

    def run_forever(self, stop: threading.Event) -> None:
        """Sweep as often as was asked for, while this process leads, until `stop`."""
        due = self._clock.monotonic()
        while not stop.is_set():
            now = self._clock.monotonic()
            if now >= due and self._leads():
                due = now + self._every_seconds
                try:
                    self.sweep(stop)
                except Exception:
                    # A defect; runs go on all the same, and the next sweep may get further.
                    log.exception("sweeping the logs of deliveries failed")
            stop.wait(_POLL_SECONDS)

    def sweep(self, stop: threading.Event | None = None) -> None:
        """Look through what is due, and ask for what was lost. What goes wrong at one source stops no other."""

        def going() -> None:
            if (stop is not None and stop.is_set()) or not self._leads():
                raise _Stopped

        found: dict[str, dict[str, DeliveryLog]] = {}
        try:
            for source in self._turn():
                going()
                with self._spared(source):
                    found[source] = self._look(source, going)
            # Only now: what one hook lost another one may have delivered.
            self._give_up()
            for source, logs in found.items():
                with self._spared(source):
                    self._redeliver(source, logs, going)
        except _Stopped:
            return
        self._counts["sweeps"] += 1

    def _turn(self) -> list[str]:
        """The sources of this sweep: the first one always, and the others in turn."""
        found = list(self._logs.sources())
        first, others = found[:1], found[1:]
        begin = self._next if self._next < len(others) else 0
        chosen = others[begin : begin + MOST_SOURCES - 1]
        self._next = begin + len(chosen)
        now = self._clock.monotonic()
        return [source for source in (*first, *chosen) if self._rests.get(source, now) <= now]

    def _look(self, source: str, going: Callable[[], None]) -> dict[str, DeliveryLog]:
        """Take in what is new in a source's logs; answers them by name."""
        logs = {one.name: one for one in self._logs.of(source)}
        for one in logs.values():
            self._read(one, going)
        self._said.pop(source, None)
        return logs

    @contextmanager
    def _spared(self, source: str) -> Iterator[None]:
        """What goes wrong within is said, and the source is left alone for a while."""
        try:
            yield
        except Unavailable as error:
            self._trouble(source, error, error.retry_after_seconds or 0.0)
        except EngineError as error:
            self._trouble(source, error, REFUSED_SECONDS)
        except BridgeError as error:
            self._trouble(source, error, 0.0)

    def _read(self, one: DeliveryLog, going: Callable[[], None]) -> None:
        """Read a log from its beginning to where it is known, or go on with that."""
        reading = self._readings.get(one.name) or _Reading(until=self._now() - REDELIVERABLE_SECONDS)
        for _ in range(MOST_PAGES):
            going()
            try:
                page = one.page(reading.cursor)
            except NotFound:
                # A cursor does not live for ever.
                self._readings[one.name] = _Reading(until=reading.until)
                raise
            self._ahead_seconds = self._clock.now() - page.now
            for attempt in page.attempts:
                self._deliveries.see(one.name, attempt)
            reading = replace(reading, cursor=page.following, began=reading.began or page.now)
            known = any(attempt.delivered < reading.until for attempt in page.attempts)
            if known or not page.following:
                reading = _Reading(until=reading.began - OVERLAP_SECONDS)
            self._readings[one.name] = reading
            if not reading.cursor:
                return

    def _redeliver(self, source: str, logs: dict[str, DeliveryLog], going: Callable[[], None]) -> None:
        for lost in self._deliveries.due(logs, now=self._now())[: self._budget(source)]:
            going()
            # Before it is done: if the answer is lost, nobody asks again at once.
            self._deliveries.ask(lost.guid, now=self._now())
            self._asked[source].append(self._clock.monotonic())
            said = f"delivery {lost.guid[:_LONGEST_GUID]} in {lost.log}, which {_met(lost)}"
            try:
                logs[lost.log].redeliver(lost.newest)
            except NotFound as error:
                self._counts["troubles"] += 1
                log.warning("%s, cannot be sent again: %s", said, error)
                continue
            self._counts["redelivered"] += 1
            log.info("%s, is sent again", said)

    def _budget(self, source: str) -> int:
        asked = self._asked.setdefault(source, deque())
        while asked and asked[0] <= self._clock.monotonic() - _HOUR:
            asked.popleft()
        return max(0, min(MOST_REDELIVERIES, MOST_AN_HOUR - len(asked)))

    def _give_up(self) -> None:
        found = self._deliveries.expire(now=self._now())
        if not found:
            return
        self._counts["expired"] += len(found)
        shown = [f"{one.guid[:_LONGEST_GUID]} in {one.log}, which {_met(one)}" for one in found[:_SHOWN]]
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        log.warning(
            "lost for good, since GitHub sends nothing again that is older than 3 days: %s; "
            "push a commit, or reopen the pull request, to build what it was about",
            "; ".join([*shown, *more]),
        )

    def _trouble(self, source: str, error: BridgeError, rest_seconds: float) -> None:
        self._counts["troubles"] += 1
        self._rests[source] = self._clock.monotonic() + rest_seconds
        text = str(error)
        if self._said.get(source) == text:
            return
        self._said[source] = text
        # Most projects' tokens may post statuses and no more, which is as it should be.
        level = logging.INFO if isinstance(error, Forbidden) else logging.WARNING
        log.log(level, "the deliveries of %s are not looked through now: %s", source, text)

    def _now(self) -> float:
        """By the git host's clock, which dates all attempts."""
        return self._clock.now() - self._ahead_seconds


def _met(lost: Lost) -> str:
    code = lost.newest.status_code
    return f"met {code}" if code else "got no answer"
