"""The rate limits of a GitHub that is none, for each credential: by the hour, and for content that is written.

As GitHub answers (facts/github.md): 403, for the primary limit with nothing remaining and the time when it is
reset, for the secondary one with a Retry-After or without. Nothing is limited until somebody says so. For the
words of its refusals see KnpLabs/php-github-api#1070.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bridge.demonstrating.fake_replies import Reply, message

_PRIMARY = "API rate limit exceeded for installation ID 1."
_SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


@dataclass
class _Used:
    """Of one credential."""

    requests: int = 0
    reset: float = 0.0
    writes: deque[float] = field(default_factory=deque)
    blocked_until: float = 0.0


class FakeLimits:
    """Counts requests, refuses those over a limit, and says in each answer what is left. Thread safe.

    Args:
        now: the clock.

    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._used: dict[str, _Used] = {}
        self._requests, self._seconds = 0, 3600.0
        self._writes, self._write_seconds, self._says_when = 0, 60.0, True
        self.early = 0
        """How many requests came though the credential had been told to wait."""

    def limit_requests(self, requests: int, seconds: float = 3600.0) -> None:
        """From here on let each credential make so many requests in so many seconds; 0: any number."""
        with self._lock:
            self._requests, self._seconds = requests, seconds
            self._used.clear()

    def limit_writes(self, writes: int, seconds: float = 60.0, *, says_when: bool = True) -> None:
        """From here on let each credential write so many times in so many seconds, and then nothing for as long.
        0: any number. `says_when`: a refusal has a Retry-After."""
        with self._lock:
            self._writes, self._write_seconds, self._says_when = writes, seconds, says_when
            self._used.clear()

    def refusal(self, credential: str, *, writes: bool) -> Reply | None:
        """Count a request; the answer if it is over a limit."""
        now = self._now()
        with self._lock:
            used = self._used.setdefault(credential, _Used())
            if self._requests:
                if now >= used.reset:
                    used.requests, used.reset = 0, now + self._seconds
                if used.requests >= self._requests:
                    self.early += used.requests > self._requests
                    used.requests += 1
                    return message(403, _PRIMARY)
                used.requests += 1
            return self._refusal_of_write(used, now, writes=writes) if self._writes else None

    def _refusal_of_write(self, used: _Used, now: float, *, writes: bool) -> Reply | None:
        if now < used.blocked_until:
            self.early += 1
            return self._secondary(used.blocked_until - now)
        while used.writes and used.writes[0] <= now - self._write_seconds:
            used.writes.popleft()
        if not writes:
            return None
        if len(used.writes) >= self._writes:
            used.blocked_until = now + self._write_seconds
            return self._secondary(self._write_seconds)
        used.writes.append(now)
        return None

    def _secondary(self, seconds: float) -> Reply:
        refusal = message(403, _SECONDARY)
        return replace(refusal, headers={"Retry-After": str(math.ceil(seconds))}) if self._says_when else refusal

    def told(self, credential: str, reply: Reply) -> Reply:
        """`reply` with what is left, unless it says that itself."""
        with self._lock:
            used = self._used.get(credential)
            if not self._requests or used is None:
                return reply
            left = {
                "X-RateLimit-Limit": str(self._requests),
                "X-RateLimit-Remaining": str(max(self._requests - used.requests, 0)),
                "X-RateLimit-Reset": str(math.ceil(used.reset)),
            }
        return replace(reply, headers=_merged(left, reply.headers))


def _merged(headers: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    asked = {name.lower() for name in stronger}
    return {name: value for name, value in headers.items() if name.lower() not in asked} | dict(stronger)
