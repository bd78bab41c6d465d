"""Acts: what people ask of a run. An act is kept in the record; the controller does the rest."""

from dataclasses import dataclass, replace

from bridge.core.reports import how_to_approve
from bridge.core.runs import Act, Kind, Phase, Run, with_act
from bridge.core.verdicts import Verdict
from bridge.errors import Conflict, NotFound
from bridge.ports import Runs

_BEGINNING = frozenset({Kind.RETRY, Kind.RERUN})


@dataclass(frozen=True)
class Acted:
    """What became of a request."""

    run: Run
    accepted: bool
    message: str
    """For whoever asked: what happens now, or why nothing does."""
    attempt: int = 0
    """The attempt that this begins, or that is there or will be; of a cancel the one that ends."""


def act(
    runs: Runs,
    run_id: str,
    kind: Kind,
    *,
    request: str,
    who: str,
    source: str,
    now: float,
    follows: int | None = None,
    only: tuple[str, ...] = (),
) -> Acted:
    """Ask for a retry, rerun, cancel or approval of `run_id`; `request` makes a repeat harmless.

    `follows` is the attempt that whoever asks was looking at, the newest if None. If that one has a successor the
    answer says which: of many who follow the same attempt one begins the next, and the others are told its number.
    Raises NotFound for an unknown run and Conflict for a step that the run does not have.
    """
    asked = Act(kind=kind, request=request, follows=0, who=who, source=source, at=now, only=only)
    decided: list[_Decision] = []

    def decide(current: Run) -> Run:
        # Under the record's version: of many who ask at once, one is kept and all others are told of that one.
        decided[:] = [_decide(current, asked, follows)]
        return with_act(current, decided[0].kept) if decided[0].kept else current

    changed = runs.change(run_id, decide)
    (found,) = decided
    return Acted(changed, accepted=found.accepted, message=found.message, attempt=found.attempt)


@dataclass(frozen=True)
class _Decision:
    message: str
    attempt: int
    kept: Act | None = None
    """What goes into the record."""
    repeated: bool = False
    """It is there already."""

    @property
    def accepted(self) -> bool:
        return self.repeated or self.kept is not None


def _decide(run: Run, asked: Act, follows: int | None) -> _Decision:
    kind, newest = asked.kind, run.attempt.n if run.attempt is not None else 0
    wanted = newest if follows is None else follows
    if wanted > newest:
        raise NotFound(f"{run.id} has no attempt {wanted}: the newest is {newest}")
    _check_steps(run, asked.only)
    known = next((act for act in run.acts if act.request == asked.request), None)
    if known is not None:
        return _Decision(f"{kind} was asked for already", _attempt_of(known), repeated=True)
    if wanted < newest:
        return _Decision(f"attempt {wanted} has a successor: attempt {newest}", newest)
    refusal = _refusal(run, kind)
    if refusal:
        waiting = run.waiting_act if kind in _BEGINNING else None
        return _Decision(refusal, _attempt_of(waiting) if waiting else newest)
    kept = replace(asked, follows=wanted)
    return _Decision(_promise(kind, run), _attempt_of(kept), kept=kept)


def _attempt_of(act: Act) -> int:
    """The attempt that an act is about: the one that it begins, or the one that it ends."""
    return act.follows if act.kind is Kind.CANCEL else act.follows + 1


def _check_steps(run: Run, only: tuple[str, ...]) -> None:
    attempt = run.attempt
    if run.awaits_approval:
        # That is what has to be told.
        return
    steps = attempt.steps if attempt is not None else ()
    unknown = [step for step in only if step not in steps]
    if unknown:
        raise Conflict(f"{run.id} has no step {unknown[0]}: it has {', '.join(steps) or 'none yet'}")


def _refusal(run: Run, kind: Kind) -> str:
    if kind is Kind.APPROVE:
        return _nothing_to_approve(run)
    if run.awaits_approval:
        return f"nothing to {kind}: it {how_to_approve(run)}"
    ended = run.attempt is not None and run.attempt.verdict is not None
    if kind is Kind.CANCEL and ended:
        return "nothing to cancel: it has ended"
    if kind is Kind.CANCEL and run.waiting_cancel is not None:
        return "it is being cancelled already"
    if kind is Kind.RETRY and run.phase is Phase.CLOSED and run.verdict is Verdict.SUCCEEDED:
        return "nothing to retry: it succeeded (rerun runs everything again)"
    if kind is not Kind.CANCEL and run.waiting_act is not None:
        return f"a {run.waiting_act.kind} waits already: attempt {_attempt_of(run.waiting_act)} {_when(run)}"
    return ""


def _nothing_to_approve(run: Run) -> str:
    if run.awaits_approval:
        return ""
    by = next((act.who for act in run.acts if act.kind is Kind.APPROVE), "")
    return f"approved already{f' by {by}' if by else ''}" if run.held else "nothing to approve: it was not held"


def _promise(kind: Kind, run: Run) -> str:
    if kind is Kind.APPROVE:
        return "approved: its first attempt begins now"
    if kind is Kind.CANCEL:
        return "it will be cancelled"
    return f"{kind}: attempt {(run.attempt.n if run.attempt else 0) + 1} {_when(run)}"


def _when(run: Run) -> str:
    going = run.attempt is not None and run.attempt.verdict is None
    return "begins when this one has ended" if going else "begins now"
