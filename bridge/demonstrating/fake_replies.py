"""What the GitHub that is none answers with, in GitHub's own form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a request is answered with."""

    status: int
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def message(status: int, text: str, **more: Any) -> Reply:
    """A refusal in words."""
    return Reply(status, {"message": text, **more, "status": str(status)})


def not_found() -> Reply:
    """It is not there, or who asks may not know."""
    return message(404, "Not Found")


def time_of(seconds: float) -> str:
    """A time as GitHub writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
