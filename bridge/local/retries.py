"""Argo's retryStrategy: is a container that ended started again, and when?

As argo-workflows v4 does it (workflow/controller/operator.go, processNodeRetries), except that the backoff comes
after the decision, not before it. Of expressions only the one of design.md, "A step", is known. Pure.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from bridge.core import durations
from bridge.core.executions import NodePhase
from bridge.errors import BadPipeline

DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
"""How Argo says that a template's own deadline ended a container; the expression looks for it."""
UNKNOWN_CODE = "-1"
ENDLESS_PAUSE_SECONDS = 1.0
"""Between tries that nothing bounds and nothing spaces out."""

_EXPRESSION = re.compile(
    r"lastRetry\.status == 'Error' \|\| \(lastRetry\.exitCode in \[(?P<codes>'\d{1,3}'(?:, ?'\d{1,3}')*)\] "
    r"&& not \(lastRetry\.message contains 'specified deadline'\)\)",
    re.ASCII,
)
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Policy(StrEnum):
    """Which ends are tried again at all."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    ON_ERROR = "OnError"


@dataclass(frozen=True)
class End:
    """How a try ended."""

    phase: NodePhase
    """FAILED or ERROR."""
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class Strategy:
    """A template's retryStrategy. Without one nothing is tried again: `NEVER`."""

    limit: int | None
    """How often after the first time; None: without end."""
    policy: Policy = Policy.ON_FAILURE
    codes: frozenset[str] | None = None
    """The exit codes in its expression; None: it has no expression."""
    pause_seconds: float = 0.0
    factor: int = 1
    cap_seconds: float | None = None

    def why_not(self, end: End, retries: int) -> str | None:
        """Why a container that ended like this after `retries` retries is not started again, in words for the
        node's message; empty if that needs no words. None: it is."""
        if end.phase is NodePhase.FAILED and self.policy is Policy.ON_ERROR:
            return ""
        if end.phase is NodePhase.ERROR and self.policy is Policy.ON_FAILURE:
            return ""
        if not self._expected(end):
            return ""
        if self.limit is not None and retries >= self.limit:
            return "No more retries left" if self.limit else ""
        return None

    def pause_after(self, retries: int) -> float:
        """Seconds from the end of a try to the start of the next, after so many retries."""
        shortest = ENDLESS_PAUSE_SECONDS if self.limit is None else 0.0
        try:
            pause = self.pause_seconds * float(self.factor) ** retries
        except OverflowError:
            pause = durations.seconds_of("365d")
        if self.cap_seconds is not None:
            pause = min(pause, self.cap_seconds)
        return max(pause, shortest)

    def _expected(self, end: End) -> bool:
        if self.codes is None or end.phase is NodePhase.ERROR:
            return True
        code = UNKNOWN_CODE if end.exit_code is None else str(end.exit_code)
        return code in self.codes and "specified deadline" not in end.message


NEVER = Strategy(limit=0)


def codes_of(expression: str) -> frozenset[str]:
    """The exit codes in the one expression that is known, however it is spaced. Raises BadPipeline."""
    found = _EXPRESSION.fullmatch(" ".join(expression.split()))
    if found is None:
        raise BadPipeline(
            "retryStrategy.expression: the one-machine engine evaluates no expressions but bridge's own "
            "(`bridgectl render` writes it); use retryPolicy and limit, or run this pipeline on Argo"
        )
    return frozenset(code.strip(" '") for code in found["codes"].split(","))


def seconds_of(text: str) -> float:
    """The seconds of a duration as Argo reads it: `90s`, `1h30m`, or whole seconds. Raises BadPipeline."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return durations.seconds_of(text)
    except ValueError as exc:
        raise BadPipeline(str(exc)) from exc
