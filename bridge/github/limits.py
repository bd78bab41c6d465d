"""What room GitHub's limits leave, for each credential: one run finds out, and all of this process know.

GitHub counts requests by the hour (primary), and content that is written by the minute and hour (secondary);
after 403 or 429 it wants to be left alone (facts/github.md). While room is scarce final statuses go first: a run
that looks pending for a while longer loses nothing, one that looks pending after its end holds up a merge.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.github.calls import Response, host_time, wait_seconds

PENDING_SHARE = 0.1
"""So large a share of the primary limit is for final statuses alone. Sweeps leave more (github.deliveries)."""
MOST_PENDING_A_MINUTE = 60
"""Of 80 that GitHub lets a credential write; what is left is for final ones."""
MOST_PENDING_AN_HOUR = 400
"""Of 500."""
TURN_SECONDS = 15.0
"""After so long a pending one looks again whether it is its turn."""
LONGEST_TURN_SECONDS = 300.0
FORGOTTEN_SECONDS = 120.0
"""A final one that could have come back for so long and did not holds up no pending one any more."""
GROWING_SECONDS = 60.0
"""Without a word how long, GitHub wants a minute, and longer each time."""
GROWN_SECONDS = 900.0
SILENT_TIMES = 3
"""So many requests in a row without a usable answer (5xx is none), and GitHub counts as away for all."""
SILENT_SECONDS = 30.0
"""The longest pause between two tries while it is away."""

_MINUTE = 60.0
_HOUR = 3600.0
_MOST_CREDENTIALS = 10_000
_OK = range(200, 300)
_TROUBLES = range(500, 600)


@dataclass(frozen=True)
class Wait:
    """No request now."""

    seconds: float
    why: str
    turn: bool = False
    """Only because final ones go first."""


@dataclass
class _Known:
    """Of one credential; times are the process's own."""

    blocked_until: float = 0.0
    why: str = ""
    limited: int = 0
    """Refusals in a row."""
    scarce_until: float = 0.0
    writes: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_PENDING_AN_HOUR))
    finals: dict[str, float] = field(default_factory=dict)
    """The final ones that wait: who, and when it may come back."""


class Limits:
    """What is known of the limits, from any thread. Nothing secret is kept: a credential's name is the caller's.

    Args:
        monotonic: seconds of this process's own time.
        now: the time, for an answer without a Date.

    """

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._silent = {True: 0, False: 0}
        """Requests in a row without a usable answer, those that write and the others."""
        self._silent_until = 0.0

    def wait(self, credential: str, who: str, *, final: bool) -> Wait | None:
        """Why `who` may not write a status now; None if it may. A final one that has to wait goes before all
        pending ones until `leave` says that it is through."""
        now = self._monotonic()
        with self._lock:
            known = self._of(credential)
            wait = self._pause(known, now)
            if wait is not None and final:
                known.finals[who] = now + wait.seconds
            return wait or (None if final else _turn(known, now))

    def hold(self, credential: str, who: str) -> None:
        """A final status of `who` met a limit: it goes before all pending ones until `leave`."""
        now = self._monotonic()
        with self._lock:
            known = self._of(credential)
            known.finals[who] = max(now, known.blocked_until)

    def leave(self, credential: str, who: str) -> None:
        """`who` waits for nothing any more: its final status was taken, or met something that is no limit."""
        with self._lock:
            self._of(credential).finals.pop(who, None)

    def saw(self, credential: str, response: Response, *, wrote: bool = False) -> None:
        """Remember what an answer says of the limits. `wrote`: content was to be written."""
        wait = wait_seconds(response, now=self._now())
        now = self._monotonic()
        with self._lock:
            known = self._of(credential)
            if wrote:
                known.writes.append(now)
            if response.status_code in _TROUBLES:
                self._unheard(now, wrote=wrote)
            else:
                self._silent[wrote] = 0
            if wait is not None:
                self._block(known, response, wait, now)
            elif response.status_code in _OK:
                known.limited = 0
            self._mind_what_remains(known, response, now)

    def silent(self, *, wrote: bool = False) -> None:
        """No usable answer came. After a few in a row nobody asks for a moment, and then one after the other."""
        now = self._monotonic()
        with self._lock:
            self._unheard(now, wrote=wrote)

    def _unheard(self, now: float, *, wrote: bool) -> None:
        # Reading may work while writing does not.
        self._silent[wrote] += 1
        more = self._silent[wrote] - SILENT_TIMES
        if more >= 0:
            self._silent_until = now + min(2.0 ** min(more + 1, 10), SILENT_SECONDS)

    def _pause(self, known: _Known, now: float) -> Wait | None:
        if now < self._silent_until:
            return Wait(self._silent_until - now, "GitHub is away")
        return Wait(known.blocked_until - now, known.why) if now < known.blocked_until else None

    def _block(self, known: _Known, response: Response, wait: float, now: float) -> None:
        headers = response.headers
        told = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
        if response.status_code not in _OK:
            known.limited += 1
        if not told:
            wait = max(wait, min(GROWING_SECONDS * 2.0 ** (known.limited - 1), GROWN_SECONDS))
        known.blocked_until = max(known.blocked_until, now + wait)
        which = "its rate limit is used up" if headers.get("x-ratelimit-remaining") == "0" else "a limit was met"
        known.why = f"GitHub asked to be left alone: {which}"

    def _mind_what_remains(self, known: _Known, response: Response, now: float) -> None:
        limit, remaining, reset = (
            _number(response.headers.get(f"x-ratelimit-{name}", "")) for name in ("limit", "remaining", "reset")
        )
        if limit is None or remaining is None or reset is None:
            return
        scarce = remaining < limit * PENDING_SHARE
        seconds = min(max(reset - host_time(response, now=self._now()), 1.0), _HOUR)
        known.scarce_until = now + seconds if scarce else 0.0

    def _of(self, credential: str) -> _Known:
        """The one that was asked about longest ago goes, when there are too many."""
        known = self._known.pop(credential, None) or _Known()
        self._known[credential] = known
        if len(self._known) > _MOST_CREDENTIALS:
            del self._known[next(iter(self._known))]
        return known


def _turn(known: _Known, now: float) -> Wait | None:
    """Why a pending one lets final ones go first."""
    known.finals = {who: due for who, due in known.finals.items() if now - due < FORGOTTEN_SECONDS}
    if known.finals:
        return Wait(TURN_SECONDS, f"{len(known.finals)} final ones wait for GitHub's limits", turn=True)
    if now < known.scarce_until:
        left = min(known.scarce_until - now, LONGEST_TURN_SECONDS)
        return Wait(left, "little is left of GitHub's rate limit", turn=True)
    last_minute = sum(1 for at in known.writes if now - at < _MINUTE)
    if last_minute >= MOST_PENDING_A_MINUTE:
        return Wait(TURN_SECONDS, "many were written in the last minute", turn=True)
    if len(known.writes) == MOST_PENDING_AN_HOUR and now - known.writes[0] < _HOUR:
        left = min(known.writes[0] + _HOUR - now, LONGEST_TURN_SECONDS)
        return Wait(left, "many were written in the last hour", turn=True)
    return None


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= len("9999999999999") else None
