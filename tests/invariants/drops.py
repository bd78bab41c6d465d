"""What can be left out of bridge, one thing at a time: every kind of action that may be owed, and every precondition.

A precondition is dropped where it stands in the source: a function is compiled again without it. Each has a history in
histories.json in which something that must hold does not, once it is dropped. `python -m tests.invariants.seek NAME…`
looks for new ones.
"""

import contextlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

from bridge.core import endings, runs, steps
from bridge.core import obligations as ob
from bridge.flows import accepting, fencing, reconciling
from tests.invariants.world import Operation

HISTORIES = Path(__file__).with_name("histories.json")


@dataclass(frozen=True)
class Drop:
    """A precondition: in this function this piece of source becomes that one."""

    module: ModuleType
    function: str
    before: str
    after: str

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """In this block it does not hold, wherever the function is known."""
        owner, _, name = self.function.rpartition(".")
        place = getattr(self.module, owner) if owner else self.module
        known = getattr(place, name)
        mutant = self._mutant(known, name)
        holders = [place] if owner else _holders(known, name)
        with contextlib.ExitStack() as stack:
            for holder in holders:
                setattr(holder, name, mutant)
                stack.callback(setattr, holder, name, known)
            yield

    def _mutant(self, known: FunctionType, name: str) -> Any:
        source = textwrap.dedent(inspect.getsource(known))
        found = source.count(self.before)
        assert found == 1, (
            f"{self.module.__name__}.{self.function} has {self.before!r} {found} times, not once: "
            "say in tests/invariants/drops.py where this precondition stands now"
        )
        code = compile(source.replace(self.before, self.after), f"<{self.function} without>", "exec")
        scope: dict[str, Any] = {}
        exec(code, known.__globals__, scope)  # noqa: S102 - our own source
        return scope[name]


def _holders(known: object, name: str) -> list[ModuleType]:
    return [
        module
        for called, module in list(sys.modules.items())
        if called.startswith(("bridge.", "tests.invariants")) and getattr(module, name, None) is known
    ]


PRECONDITIONS: dict[str, Drop] = {
    "an event is answered only when its record is stored": Drop(
        accepting,
        "_created",
        "created = runs.create(run, event.payload)",
        "created = Created(run, False)\n    try:\n        created = runs.create(run, event.payload)\n"
        "    except Exception:\n        pass",
    ),
    "whoever leads no more writes no more": Drop(fencing, "fenced", "return fenced_calls(", "return port or ("),
    "an attempt follows one that has ended": Drop(
        ob,
        "_owed",
        "    settling =",
        "    act = run.applicable_act\n    if act is not None and attempt.verdict is None:\n"
        "        return (Begin(_next_attempt(act, attempt, seen)),)\n    settling =",
    ),
    "what a build came to is read before its attempt is judged": Drop(
        ob,
        "_owed",
        "    if settling:\n        return settling\n",
        "    if settling and attempt.verdict is not None:\n        return settling\n",
    ),
    "a deletion that is held up counts as gone": Drop(
        ob, "_of_running", "execution is None or execution.deleting or", "execution is None or"
    ),
    "what Argo refuses has ended": Drop(ob, "_of_running", " or execution.invalid", ""),
    "the escalation begins at the deadline": Drop(
        ob, "_of_running", "rung <= DELETE and seen.now >= _rung_due(attempt, rung)", "rung <= DELETE"
    ),
    "a run that nothing is known of has not succeeded": Drop(
        endings, "all_steps_succeeded", "bool(attempt.steps) and ", ""
    ),
    "an attempt whose build_failed exists cannot succeed": Drop(
        endings, "_fired", "return any(", "return False and any("
    ),
    "a verdict stands": Drop(runs, "with_end", " or attempt.verdict is not None", ""),
    "the verdict comes before builds are given up": Drop(
        ob,
        "_owed",
        "    overdue = _overdue_exits(run, seen)\n",
        "    overdue = (*_overdue_exits(run, seen), *_left_over(seen, Verdict.CANCELLED))\n",
    ),
    "a retry adopts the builds of before": Drop(
        ob, "_of_ended", "_left_over(seen, verdict) if act.kind is Kind.RERUN else ()", "_left_over(seen, verdict)"
    ),
    "a rerun ends the builds of before": Drop(
        ob, "_of_ended", "_left_over(seen, verdict) if act.kind is Kind.RERUN else ()", "()"
    ),
    "an attempt's Workflow ends before the next one begins": Drop(
        ob, "_of_ended", "if lingering and attempt.rung < TERMINATE else ()", "if False else ()"
    ),
    "an act that waits comes before the end is told": Drop(ob, "_of_ended", "if act is not None:", "if False:"),
    "a run closes when its Workflow has ended": Drop(ob, "_of_ended", "if actions or lingering:", "if actions:"),
    "a run closes when its builds have ended": Drop(
        ob, "_settled", "if any(build.open for build in seen.builds):", "if False:"
    ),
    "an exit event is fired once": Drop(
        ob,
        "_firing",
        "again = newest.outcome.ending is Ending.LOST and len(builds) <= LOST_EXIT_BUILDS",
        "again = len(builds) <= LOST_EXIT_BUILDS",
    ),
    "an exit event whose build was lost is fired again": Drop(
        ob, "_firing", "again = newest.outcome.ending is Ending.LOST and", "again = False and"
    ),
    "an exit event is lost at most so often": Drop(ob, "_firing", " and len(builds) <= LOST_EXIT_BUILDS", ""),
    "an exit event whose build does not start is lost": Drop(
        ob, "_overdue", "build.phase is BuildPhase.WAITING and seen.now", "False and seen.now"
    ),
    "an exit event has a time out": Drop(
        ob, "_overdue", "build.started is not None and seen.now", "False and seen.now"
    ),
    "an exit event of an older attempt has a time out": Drop(
        ob, "_overdue_exits", "for attempt in run.state.attempts", "for attempt in run.state.attempts[-1:]"
    ),
    "an exit event that vacuum took was fired": Drop(
        ob, "_firing", "if run.step(attempt.epoch, names.exit_step(attempt.n)).highest:", "if False:"
    ),
    "an older run does not speak": Drop(reconciling, "Reconciling._speaks", "return all(", "return True or all("),
    "a final status never goes back to pending": Drop(
        runs, "Report.is_older_than", "return other.is_final and not self.is_final", "return False"
    ),
    "a status waits as long as GitHub says": Drop(ob, "_posting", "if seen.now >= due", "if True"),
    "a status that was given up is not posted again": Drop(
        ob, "_lacks", "if report in {reported, run.state.report_given_up}:", "if report == reported:"
    ),
    "a newer commit takes the place of an older one": Drop(
        ob, "_of_running", "if seen.superseded_by:", "if False:"
    ),
    "a stranger's run waits for an approval": Drop(
        ob, "_owed", "if attempt is None and run.awaits_approval:", "if False:"
    ),
    "a held run is closed": Drop(ob, "_of_held", "(Close(),) if _settled(run, report, seen) else ()", "()"),
    "a held run that was approved begins": Drop(
        ob, "_owed", "if attempt is None and run.awaits_approval:", "if attempt is None and run.held:"
    ),
    "a closed run is kept": Drop(
        ob, "_kept", "if seen.now >= run.closed + seen.retention_seconds else ()", "if True else ()"
    ),
    "an act is on record before its Workflow ends": Drop(
        ob,
        "owed",
        "return (*owing, *_asked(run, seen), *ending,",
        "return (*owing, *ending, *_asked(run, seen),",
    ),
    "a step of an attempt that has ended makes no build": Drop(
        steps, "_attach_only", "if known.attempt_ended:", "if False:"
    ),
    "what succeeded is not built again": Drop(steps, "_success", "if remembered is not None:", "if False:"),
    "a number is not used twice": Drop(steps, "_next_number", "known.remembered.highest, ", ""),
}
"""What must hold before something is done, by what it says."""


def kinds() -> list[str]:
    """The kinds of action that may be owed."""
    return sorted(kind.__name__ for kind in get_args(ob.Action))


def names() -> list[str]:
    """All that can be left out."""
    return [*kinds(), *PRECONDITIONS]


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """In this block bridge lacks it."""
    if name in PRECONDITIONS:
        with PRECONDITIONS[name].applied():
            yield
        return
    known = ob.owed
    ob.owed = _filtered(known, name)  # type: ignore[assignment]
    try:
        yield
    finally:
        ob.owed = known


def _filtered(known: Callable[..., tuple[ob.Action, ...]], name: str) -> Callable[..., tuple[ob.Action, ...]]:
    def owed(run: runs.Run, seen: ob.Seen) -> tuple[ob.Action, ...]:
        return tuple(action for action in known(run, seen) if type(action).__name__ != name)

    return owed


def histories() -> dict[str, list[Operation]]:
    """By what is left out: a history in which that is noticed."""
    if not HISTORIES.exists():
        return {}
    found = json.loads(HISTORIES.read_text())
    return {name: [tuple(one) for one in history] for name, history in found.items()}


def keep(found: dict[str, list[Operation]]) -> None:
    """Write the histories, in the order of what can be left out."""
    known = {name: found[name] for name in names() if name in found}
    lines = [
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(one)}" for one in history) + "\n  ]"
        for name, history in known.items()
    ]
    HISTORIES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
