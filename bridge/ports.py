"""The seams between deciding and the world: few small Protocols, implemented per world (one machine, cluster).

Every implementation passes the contract tests in tests/contracts. No other exception than `bridge.errors`
leaves an implementation. Methods marked `@writes` have an effect; each is idempotent or says Conflict, because
the process may die before, in or after it, and whoever comes next calls it again. Crash tests are generated
from the marks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bridge.core.builds import Build, BuildSpec, Ending, Outcome
from bridge.core.executions import Execution
from bridge.core.notifications import Subscriber
from bridge.core.pipelines import Pipeline
from bridge.core.projects import Project
from bridge.core.runs import Phase, Report, Run
from bridge.core.searching import is_found, search_text, search_words, storable

_Method = TypeVar("_Method", bound=Callable[..., object])


def writes(method: _Method) -> _Method:
    """Mark a port's method that has an effect."""
    method.__writes__ = True  # type: ignore[attr-defined]
    return method


def writing_methods(port: type) -> tuple[str, ...]:
    """The names of a Protocol's methods that are marked with `writes`, in order."""
    return tuple(name for name, member in vars(port).items() if getattr(member, "__writes__", False))


@dataclass(frozen=True)
class Created:
    """The answer of `Runs.create`."""

    run: Run
    duplicate: bool
    """It was there already; `run` is what is stored."""


_SHA_BEGINNINGS = frozenset({*range(7, 40), *range(41, 64)})
"""The lengths of a commit's name that is not whole and says which one is meant."""


@dataclass(frozen=True)
class RunFilter:
    """What a list shows; an empty field filters nothing."""

    project: str = ""
    pipeline: str = ""
    sha: str = ""
    """A commit, or 7 or more digits of its beginning, by which people name it."""
    commit: str = ""
    """Exactly this commit: others may begin with its name, since generic events have any text there."""
    context: str = ""
    pull_request: int | None = None
    branch: str = ""
    """The branch pushed to, or the base branch of a pull request."""
    verdict: str = ""
    """A Verdict's value: open runs have none."""
    delivery: str = ""
    search: str = ""
    """Words that are all in what people know a run by (core/searching.py), in any case and order."""
    open_only: bool = False
    limit: int = 0
    """At most so many, the newest; 0 is all."""
    after: str = ""
    """A run's id: only runs that come after it in the list's order. If it is not there the list is NotFound."""

    @property
    def sha_is_beginning(self) -> bool:
        """Whether `sha` means all commits that begin so: it is not empty, not whole and not too short for that."""
        return len(self.sha) in _SHA_BEGINNINGS

    def matches(self, run: Run) -> bool:
        """Whether the list shows `run`, as far as that can be told of it alone: not `limit` and `after`."""
        event, sha = run.event, storable(self.sha)
        commit = storable(event.revision.commit)
        exactly = (
            (self.project, event.project),
            (self.pipeline, run.pipeline),
            (self.commit, commit),
            (self.context, run.context),
            (self.branch, event.branch),
            (self.verdict, run.verdict.value if run.verdict else ""),
            (self.delivery, event.delivery),
        )
        return (
            all(not asked or storable(asked) == storable(has) for asked, has in exactly)
            and (not sha or commit == sha or (self.sha_is_beginning and commit.startswith(sha)))
            and (self.pull_request is None or event.pull_request == self.pull_request)
            and (not self.open_only or run.phase is not Phase.CLOSED)
            and is_found(search_words(self.search), lambda: search_text(run.id, run.pipeline, event))
        )


class Runs(Protocol):
    """The records: durable before they answer, never lost."""

    @writes
    def create(self, run: Run, payload: bytes) -> Created:
        """Store a new record. If its id is taken, answer the stored one as a duplicate and change nothing.

        Raises Unavailable when it cannot be told to be stored.
        """
        ...

    def read(self, run_id: str) -> Run:
        """The record, on a consistent read. Raises NotFound."""
        ...

    def payload(self, run_id: str) -> bytes:
        """The event's payload, whole. Raises NotFound."""
        ...

    def list(self, wanted: RunFilter) -> list[Run]:
        """Records without their payloads, the newest first. Raises NotFound if `wanted.after` is not there.

        A gateway's list may lag a moment behind what is stored; `read` never does.
        """
        ...

    @writes
    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """Apply a pure, idempotent change to the record as it is now, again if somebody else was faster.

        Answers what is stored then. Raises NotFound.
        """
        ...

    @writes
    def forget(self, run_id: str) -> None:
        """Remove the record and its payload; gone already is fine."""
        ...


class Pipelines(Protocol):
    """The pipelines there are."""

    def all(self) -> list[Pipeline]:
        """Every readable pipeline, by name."""
        ...

    def read(self, name: str) -> Pipeline:
        """One of them. Raises NotFound, or BadPipeline with the reason."""
        ...

    def refresh(self) -> bool:
        """Look anew before an event is called unwanted, at most every few seconds; whether `all` may say
        something else now. Raises Unavailable when it cannot be known."""
        ...


class Projects(Protocol):
    """The Brigade projects there are."""

    def read(self, name: str) -> Project:
        """By name (`acme/widgets`). Raises UnknownProject."""
        ...

    def read_by_id(self, project_id: str) -> Project:
        """By id (`brigade-…`). Raises UnknownProject."""
        ...

    def all(self) -> list[Project]:
        """Every readable project, by name."""
        ...

    def fresh(self, known: Project) -> Project:
        """A project as it is at this moment, or was a moment ago, before its sender is refused.

        Raises UnknownProject if it is gone, and Unavailable when it cannot be known.
        """
        ...


class Engine(Protocol):
    """Who executes an attempt's Workflow. Workflows are known by their name (`names.workflow_name`)."""

    @writes
    def submit(self, run: Run, attempt: int) -> str:
        """Create the attempt's Workflow; answers its uid. If it is there already, answers that one's.

        Raises BadPipeline when the template is missing or cannot be run, and nothing will change that by itself.
        """
        ...

    def observe(self, run: Run, attempt: int) -> Execution | None:
        """What is there now, on a consistent read; None if nothing is."""
        ...

    @writes
    def touch(self, run: Run, attempt: int) -> None:
        """Make the engine look at it again. It being gone is fine, here and below."""
        ...

    @writes
    def stop(self, run: Run, attempt: int) -> None:
        """End its steps, run its exit handler; also when it is suspended."""
        ...

    @writes
    def terminate(self, run: Run, attempt: int) -> None:
        """End its steps and its exit handler; also when it is suspended."""
        ...

    @writes
    def delete(self, run: Run, attempt: int) -> None:
        """Remove it."""
        ...


class Builds(Protocol):
    """The Brigade builds of runs."""

    def find(self, run_id: str, *, epoch: int | None = None, step: str | None = None) -> list[Build]:
        """The builds of a run (or of one epoch, one step), by step and number, on a consistent read."""
        ...

    def highest(self, run_id: str, *, epoch: int, step: str) -> int:
        """The highest number of which anything at all is left (Secret, pod, volume, folder); 0 if nothing."""
        ...

    @writes
    def create(self, spec: BuildSpec) -> None:
        """Ask for a build. Raises Conflict if the id was ever used and something of it is left."""
        ...

    @writes
    def give_up(self, build: Build, *, reason: str, ending: Ending) -> None:
        """End a build for good: the tombstone first, then its worker and jobs. The first reason stands, and a
        build that has ended by itself keeps its end."""
        ...

    @writes
    def record(self, build: Build, outcome: Outcome) -> Outcome:
        """Write what a build came to; answers what stands, which is the first writing."""
        ...

    def log(self, build: Build) -> str | None:
        """The worker's log so far, or its last megabytes; None if it cannot be read any more."""
        ...

    def follow(self, build: Build, *, offset: int) -> tuple[bytes, int]:
        """The log's bytes from `offset` on (maybe none yet), and the offset to ask from next."""
        ...

    @writes
    def forget(self, run_id: str) -> None:
        """Remove all builds of a run that is being forgotten."""
        ...


class Reports(Protocol):
    """Where commit statuses go."""

    @writes
    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status; answers who took it (`github`, `board`). Repeating it is harmless.

        Raises StatusNotPosted.
        """
        ...


@dataclass(frozen=True)
class Message:
    """One notification as it is sent."""

    id: str
    """By which a receiver knows a repeat."""
    body: bytes = field(repr=False)
    """A CloudEvent in the JSON format."""


class Outbound(Protocol):
    """The endpoints that are told of what happens to runs; all of them from configuration."""

    @property
    def subscribers(self) -> Sequence[Subscriber]:
        """They, as far as it matters what they are told."""
        ...

    @writes
    def send(self, endpoint: str, message: Message) -> None:
        """Tell an endpoint. Repeating it is harmless: the receiver knows the id.

        Raises NotDelivered, also when it may have taken it.
        """
        ...


@dataclass(frozen=True)
class InstallationToken:
    """A token of our GitHub App that is good for one repository. It is never stored, and not in the repr."""

    token: str = field(repr=False)
    expires: float
    """When it ends, in seconds since the epoch."""


NO_APP = "no-app"
"""The `reason` with which a gateway tells a step that there is NoToken."""


@dataclass(frozen=True)
class NoToken:
    """There is no App for a repository, and a build goes on without."""

    reason: str
    """For people."""


class InstallationTokens(Protocol):
    """Who hands out installation tokens to builds."""

    def fresh(self, run_id: str, project: str) -> InstallationToken | NoToken:
        """A token for the repository of the run's project that lasts as long as most builds do.

        Raises EngineError when there should be one and is none now.
        """
        ...


@dataclass(frozen=True)
class Caller:
    """Who bears a token, as the cluster says."""

    account: str
    """The ServiceAccount, `namespace:name`."""
    run: str
    """The run that the pod belongs to which the token is bound to; empty if there is none."""


class Callers(Protocol):
    """Who finds out whose a projected ServiceAccount token is."""

    def caller(self, token: str) -> Caller | None:
        """Who bears this token; None if it is not valid, or not meant for us. Raises EngineError when that cannot
        be found out now."""
        ...


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds of this process's own time, which nobody turns back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...
