"""Events: what happened, in the one form that all gateways' routes are parsed into."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Revision:
    """What to build. Both may be empty; `ref` is a full ref (`refs/heads/main`, `refs/pull/7/head`) or bare,
    as Brigade's own gateway for this event makes it."""

    commit: str = ""
    ref: str = ""


@dataclass(frozen=True)
class Event:
    """One event of one project.

    `payload` is, byte for byte, what a Brigade worker gets as `e.payload`. `delivery` is what makes a
    repeat recognisable: GitHub's delivery GUID, an Idempotency-Key, or source + id of a CloudEvent.
    """

    provider: str
    """`github`, `GenericWebhook`, … as Brigade's gateways say it."""
    type: str
    """The most precise name: `push`, `pull_request:opened`, `simpleevent`."""
    project: str
    delivery: str
    revision: Revision = Revision()
    payload: bytes = field(default=b"", repr=False)
    clone_url: str = ""
    short_title: str = ""
    long_title: str = ""
    branch: str = ""
    """What branch globs are held against: the branch pushed to, or the base branch of a pull request."""
    tag: str = ""
    """The tag pushed, bare."""
    pull_request: int | None = None
    fork_author: str = ""
    """The author association (`MEMBER`, `NONE`, …) of a pull request from a fork; empty when it is no fork's."""
    sender: str = ""
    """The login of who caused it, for people to read."""
    happened: float = 0.0
    """When it happened, in seconds since the epoch as its sender says it; 0 if it does not."""

    @property
    def names(self) -> tuple[str, ...]:
        """The event names that this event answers to, the most precise first."""
        family = self.type.partition(":")[0]
        return (self.type,) if family == self.type else (self.type, family)

    @property
    def family(self) -> str:
        """The event's name without its action."""
        return self.type.partition(":")[0]

    def without_payload(self) -> "Event":
        """The same event as a record's list shows it."""
        return replace(self, payload=b"")


@dataclass(frozen=True)
class Ignored:
    """Nothing has to happen for a delivery, and why, in words that its sender reads."""

    reason: str
