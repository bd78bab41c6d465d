"""How a build, a step or a run ended."""

from enum import StrEnum


class Verdict(StrEnum):
    """The five ends (design.md, Words)."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def commit_state(self) -> str:
        """The state of a GitHub commit status that says this verdict."""
        return _COMMIT_STATES[self]


_COMMIT_STATES = {
    Verdict.SUCCEEDED: "success",
    Verdict.FAILED: "failure",
    Verdict.TIMED_OUT: "failure",
    Verdict.ERROR: "error",
    Verdict.CANCELLED: "error",
}
