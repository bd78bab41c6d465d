"""Acts: what people ask of a run. An act is kept in the record; the controller does the rest."""

from dataclasses import dataclass

from bridge.core.reports import how_to_approve
from bridge.core.runs import Act, Kind, Phase, Run, with_act
from bridge.core.verdicts import Verdict
from bridge.errors import Conflict, NotFound
from bridge.ports import Runs


@dataclass(frozen=True)
class Acted:
    """What became of a request."""

    run: Run
    accepted: bool
    message: str
    """For whoever asked: what happens now, or why nothing does."""


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
    answer says which. Raises NotFound for an unknown run and Conflict for a step that the run does not have.
    """
    run = runs.read(run_id)
    attempt = run.attempt
    newest = attempt.n if attempt is not None else 0
    wanted = newest if follows is None else follows
    if wanted > newest:
        raise NotFound(f"{run_id} has no attempt {wanted}: the newest is {newest}")
    _check_steps(run, only)
    if any(known.request == request for known in run.acts):
        return Acted(run, accepted=True, message=f"{kind} was asked for already")
    if wanted < newest:
        return Acted(run, accepted=False, message=f"attempt {wanted} has a successor: attempt {newest}")
    refusal = _refusal(run, kind)
    if refusal:
        return Acted(run, accepted=False, message=refusal)
    asked = Act(kind=kind, request=request, follows=wanted, who=who, source=source, at=now, only=only)
    changed = runs.change(run_id, lambda current: with_act(current, asked))
    return Acted(changed, accepted=True, message=_promise(kind, run))


def _check_steps(run: Run, only: tuple[str, ...]) -> None:
    attempt = run.attempt
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
    if kind is Kind.RETRY and run.phase is Phase.CLOSED and run.verdict is Verdict.SUCCEEDED:
        return "nothing to retry: it succeeded (rerun runs everything again)"
    if kind is not Kind.CANCEL and run.waiting_act is not None:
        return f"a {run.waiting_act.kind} waits already"
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
    going = run.attempt is not None and run.attempt.verdict is None
    return f"{kind}: attempt {(run.attempt.n if run.attempt else 0) + 1} begins" + (
        " when this one has ended" if going else " now"
    )
