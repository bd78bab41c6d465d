"""The folder of one build: which file says what. Each is written once and whole.

==============  =============================================================  ======================
file            what it says                                                   written by
==============  =============================================================  ======================
spec.json       which build this is                                            the create
orders.json     all that its supervisor needs, secrets too                     the create
payload         the event's payload, as it came                                the create
claim           who starts its worker, or that nobody may                      supervisor or give-up
log             what supervisor and worker said                                supervisor and worker
worker.json     the worker's process                                           supervisor
build.json      the worker's orders, secrets too                               supervisor
result.json     the worker's exit code, when it ended by itself                supervisor
tombstone.json  why it was given up                                            give-up
outcome.json    what it came to                                                whoever saw it first
==============  =============================================================  ======================

The worker adds folders of its own, of which `jobs` stays: it has the states and logs of the jobs.
"""

from dataclasses import dataclass
from pathlib import Path

from bridge.core.builds import Ending, Outcome
from bridge.local import durable
from bridge.local.processes import Identity

EMITTED = "emitted"
"""The folder, in that of the state, of events that scripts have emitted (emissions.py)."""

MARK = "BRIDGE_BUILD"
"""The variable in a worker's environment that names its build's folder, with a slash at the end."""

_SWEPT = (
    *("orders.json", "build.json", "payload"),
    *("vcs", "work", "hook", "home", "tmp", "storage", "cache", "volumes"),
)
"""What nobody needs after the worker's end: what is secret, and what is large."""


@dataclass(frozen=True)
class Claim:
    """Who may start a build's worker. Only the first claim of a build exists."""

    at: float
    """Seconds since the epoch."""
    supervisor: Identity | None
    """None: the build was given up before anybody started it, and nobody may."""


@dataclass(frozen=True)
class Result:
    """How a worker ended by itself."""

    exit_code: int
    ended: float


@dataclass(frozen=True)
class Tombstone:
    """Why a build was given up."""

    reason: str
    ending: Ending
    at: float


@dataclass(frozen=True)
class BuildFolder:
    """One build's folder. Reading raises ValueError for a file that is not what it should be."""

    path: Path

    @property
    def log(self) -> Path:
        """What supervisor and worker said, in order."""
        return self.path / "log"

    @property
    def payload(self) -> Path:
        """The event's payload."""
        return self.path / "payload"

    @property
    def checkout(self) -> Path:
        """Where the source is checked out, if it comes from a git repository."""
        return self.path / "vcs"

    @property
    def marks(self) -> tuple[str, ...]:
        """How the environments of this build's processes begin an entry: its worker's, its host jobs'."""
        return (f"{MARK}={self.path}/", f"HOME={self.path}/", f"BRIGADE_WORKSPACE={self.path}/")

    def spec(self) -> dict[str, object] | None:
        """Which build this is; None if the folder is gone."""
        return durable.read_json(self.path / "spec.json")

    def orders(self) -> dict[str, object] | None:
        """What the supervisor was told; None if it was swept away."""
        return durable.read_json(self.path / "orders.json")

    def claim(self) -> Claim | None:
        """Who came first; None while nobody did."""
        found = durable.read_json(self.path / "claim")
        if found is None:
            return None
        holder = found.get("supervisor")
        supervisor = Identity.from_dict(holder) if isinstance(holder, dict) else None
        return Claim(_number(found, "at"), supervisor)

    def make_claim(self, claim: Claim) -> bool:
        """Be the first; False if somebody was. On the disk when it answers."""
        holder = claim.supervisor.as_dict() if claim.supervisor else None
        return durable.publish(self.path / "claim", durable.as_json({"at": claim.at, "supervisor": holder}))

    def worker(self) -> Identity | None:
        """The worker's process; None if there was none, or its supervisor died before it wrote that down."""
        found = durable.read_json(self.path / "worker.json")
        return None if found is None else Identity.from_dict(found)

    def write_worker(self, worker: Identity) -> None:
        """Remember the worker's process."""
        durable.replace(self.path / "worker.json", durable.as_json(worker.as_dict()))

    def write_build(self, build: dict[str, object]) -> None:
        """Write the worker's orders."""
        durable.replace(self.path / "build.json", durable.as_json(build))

    def result(self) -> Result | None:
        """How the worker ended by itself, if it did."""
        found = durable.read_json(self.path / "result.json")
        return None if found is None else Result(int(_number(found, "exit_code")), _number(found, "ended"))

    def write_result(self, result: Result) -> None:
        """Say how the worker ended."""
        value = {"exit_code": result.exit_code, "ended": result.ended}
        durable.publish(self.path / "result.json", durable.as_json(value))

    def tombstone(self) -> Tombstone | None:
        """Why it was given up, if it was."""
        found = durable.read_json(self.path / "tombstone.json")
        if found is None:
            return None
        return Tombstone(str(found.get("reason")), Ending(str(found.get("ending"))), _number(found, "at"))

    def write_tombstone(self, tombstone: Tombstone) -> None:
        """Give it up, unless somebody did: the first reason stands."""
        value = {"reason": tombstone.reason, "ending": tombstone.ending.value, "at": tombstone.at}
        durable.publish(self.path / "tombstone.json", durable.as_json(value))

    def outcome(self) -> Outcome | None:
        """What it came to, if that was written."""
        found = durable.read_json(self.path / "outcome.json")
        if found is None:
            return None
        ending = Ending(str(found.get("ending")))
        return Outcome(ending, str(found.get("reason")), _number(found, "ended"), str(found.get("tail")))

    def write_outcome(self, outcome: Outcome) -> None:
        """Write what it came to, unless somebody did."""
        value = {
            "ending": outcome.ending.value,
            "reason": outcome.reason,
            "ended": outcome.ended,
            "tail": outcome.tail,
        }
        durable.publish(self.path / "outcome.json", durable.as_json(value))

    def job_files(self) -> list[Path]:
        """The states of the jobs, as the worker wrote them."""
        return sorted((self.path / "jobs").glob("*.json"))

    def sweep(self) -> None:
        """Remove what nobody needs after the worker's end. Raises OSError if something stays."""
        for name in _SWEPT:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                durable.remove_tree(path)
            else:
                path.unlink(missing_ok=True)


def _number(found: dict[str, object], key: str) -> float:
    value = found.get(key)
    if not isinstance(value, int | float):
        raise ValueError(f"{key} is not a number")  # noqa: TRY004 - a file is wrong
    return value
