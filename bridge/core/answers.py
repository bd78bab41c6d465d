"""The shapes of what the API answers, which representations.py makes and /api/v1/openapi.json describes.

Every key is always there. A moment is a text of UTC (`2026-11-24T15:04:05.678Z`), null if it has not come.
"""

from typing_extensions import TypedDict  # pydantic reads no other one under Python 3.11

from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict

Moment = str | None


class GivenUp(TypedDict):
    """A commit status that cannot be delivered, whatever is done."""

    state: str
    description: str


class Status(TypedDict):
    """The commit status: what was taken last and by whom, and what is in the way of the next."""

    context: str
    state: str | None
    description: str
    attempt: int
    taken_by: str
    given_up: GivenUp | None
    error: str


class RunSummary(TypedDict):
    """What a list shows of a run."""

    id: str
    url: str
    project: str
    pipeline: str
    phase: Phase
    verdict: Verdict | None
    reason: str
    attempt: int
    held: str
    event: str
    provider: str
    delivery: str
    sha: str
    ref: str
    branch: str
    tag: str
    pull_request: int | None
    title: str
    sender: str
    accepted: Moment
    closed: Moment
    status: Status


class AttemptAnswer(TypedDict):
    """One Workflow of a run."""

    n: int
    kind: Kind
    epoch: int
    only: list[str]
    workflow: str
    begun: Moment
    submitted: Moment
    ended: Moment
    verdict: Verdict | None
    reason: str


class BuildAnswer(TypedDict):
    """One Brigade build of a step."""

    id: str
    step: str
    number: int
    epoch: int
    attempt: int
    event: str
    state: str
    reason: str
    exit_code: int | None
    created: Moment
    started: Moment
    ended: Moment


class StepAnswer(TypedDict):
    """A step with its builds."""

    name: str
    state: str
    reason: str
    builds: list[BuildAnswer]


class ActAnswer(TypedDict):
    """What somebody asked for."""

    kind: Kind
    follows: int
    who: str
    source: str
    at: Moment
    only: list[str]


class MomentAnswer(TypedDict):
    """One thing that happened; `at` is null where nobody wrote down when, but its place is right."""

    at: Moment
    what: str


class NotifiedAnswer(TypedDict):
    """What an endpoint was told of a run; `error` is why it will never get some of it."""

    endpoint: str
    told: int
    given_up: int
    error: str


class RunDetails(RunSummary):
    """All there is to know of a run."""

    attempts: list[AttemptAnswer]
    steps: list[StepAnswer]
    exit_builds: list[BuildAnswer]
    acts: list[ActAnswer]
    timeline: list[MomentAnswer]
    notified: list[NotifiedAnswer]
    waits_for: str
    next: list[str]


class RunList(TypedDict):
    """A page of a list; `next` is where the next page is, null on the last."""

    runs: list[RunSummary]
    next: str | None


class ReceivedAnswer(TypedDict):
    """An attempt at a delivery, as GitHub's log has it; `status` is what was answered, 0 for nothing."""

    at: Moment
    log: str
    status: int
    what: str


class MatchAnswer(TypedDict):
    """Whether a pipeline, as it is now, wants an event, and if not, why."""

    pipeline: str
    wants: bool
    why: str


class EventAnswer(TypedDict):
    """What happened; empty where it cannot be told."""

    delivery: str
    provider: str
    event: str
    project: str
    sha: str


class ExplainedEvent(EventAnswer):
    """One event from its delivery to its runs. `ignored`: why there are none, empty if there are some."""

    received: list[ReceivedAnswer]
    matched: list[MatchAnswer]
    ignored: str
    runs: list[RunDetails]


class Explanation(TypedDict):
    """What is known of a run, a commit or a delivery. `notes`: what was not looked at, and why."""

    about: str
    events: list[ExplainedEvent]
    notes: list[str]


class ActDecision(TypedDict):
    """What became of a request. `attempt`: the one that it begins, that is there already, or that it ends."""

    run: str
    accepted: bool
    message: str
    attempt: int


class Problem(TypedDict):
    """What was wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
