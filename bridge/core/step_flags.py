"""The flags of `brig run` that say what its builds are made of, and what they may say where there is a record."""

from dataclasses import dataclass, field, replace

from bridge.core.builds import LOG_LEVEL
from bridge.core.events import Event, Revision
from bridge.core.pipelines import Checkout
from bridge.core.steps import Options
from bridge.errors import BadSettings

DEFAULT_REF = "master"
"""What `brig` builds if nothing is said."""
LOG_LEVELS = ("all", "log", "info", "warn", "error", "none")

_SHORTEST_COMMIT = 7


@dataclass(frozen=True)
class BuildFlags:
    """What was given; empty or None: the record, or the default, says it."""

    project: str = ""
    """Its name."""
    commit: str = ""
    ref: str = ""
    payload: bytes | None = field(default=None, repr=False)
    script: str = field(default="", repr=False)
    """The text of the script, for that of the source."""
    config: str = field(default="", repr=False)
    """The text of the brigade.json."""
    log_level: str = LOG_LEVEL
    checkout: Checkout | None = None
    background: bool = False
    """Ask for the build and do not wait for it."""

    @property
    def revision(self) -> Revision:
        """The revision that they name; with a commit no ref is made up, for the commit would not be built."""
        return Revision(self.commit, self.ref or ("" if self.commit else DEFAULT_REF))


def built(event: Event, flags: BuildFlags) -> Event:
    """The event of a run's record as a step with these flags builds it.

    A payload that is given wins over the record's. The project's commit and ref are the record's, so that every
    attempt builds the same; those of another project are not, for they are another repository's. Raises
    BadSettings if the flags say otherwise.
    """
    if flags.project and flags.project != event.project:
        event = replace(
            event, project=flags.project, revision=flags.revision, clone_url="", short_title="", long_title=""
        )
    else:
        _check_revision(event.revision, flags)
    return event if flags.payload is None else replace(event, payload=flags.payload)


def log_level(flags: BuildFlags, options: Options) -> str:
    """The level to build with: above the default it could not be told whether the event has a handler, so such a
    level is taken only where that does not matter."""
    matters = not options.unhandled_ok or len(options.events) > 1
    return LOG_LEVEL if matters and flags.log_level != "all" else flags.log_level


def _check_revision(revision: Revision, flags: BuildFlags) -> None:
    commit, ref = flags.commit, flags.ref
    if commit and not (revision.commit.startswith(commit) and len(commit) >= _SHORTEST_COMMIT):
        raise BadSettings(_refusal("-c", commit, f"commit {revision.commit[:40] or '(none)'}"))
    if ref and ref not in {revision.ref, revision.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")}:
        raise BadSettings(_refusal("-r", ref, f"ref {revision.ref[:200] or '(none)'}"))


def _refusal(flag: str, said: str, wins: str) -> str:
    return (
        f"{flag} {said[:200]}: this run builds {wins}, in every attempt; "
        f"leave {flag} out, or start the step without a record (BRIDGE_RUN=none)"
    )
