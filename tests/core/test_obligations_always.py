"""What holds of `owed` whatever the record and the world look like."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bridge.core import names
from bridge.core import obligations as ob
from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.reports import final_report, held_report, pending_report
from bridge.core.runs import Act, Attempt, Kind, Phase, Run, State, StepState, closed
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

NOW = 1_700_000_000.0
PIPELINE = Pipeline("push", ("acme/widgets",), (Trigger("push"),), (Step("a", ("a",)), Step("b", ("b",))))
times = st.floats(NOW - 20_000, NOW, allow_nan=False)
verdicts = st.sampled_from(list(Verdict))


@st.composite
def attempts(draw) -> tuple[Attempt, ...]:
    made: list[Attempt] = []
    for n in range(1, draw(st.integers(0, 3)) + 1):
        kind = Kind.FIRST if n == 1 else draw(st.sampled_from([Kind.RETRY, Kind.RERUN]))
        epoch = n if kind is not Kind.RETRY else made[-1].epoch
        begun = draw(times)
        made.append(
            Attempt(
                n, kind, epoch, begun, steps=draw(st.sampled_from([(), ("a", "b")])), timeout_seconds=600.0,
                on_failure=draw(st.sampled_from(["", "build_failed"])), on_success=draw(st.sampled_from(["", "done"])),
            )
        )  # fmt: skip
    settled = [
        replace(one, uid=f"u{one.n}", submitted=one.begun, verdict=draw(verdicts), ended=NOW) for one in made
    ]
    newest = made[-1:]
    if newest and draw(st.booleans()):
        newest = [replace(newest[0], uid="u", submitted=newest[0].begun, rung=draw(st.integers(0, 4)))]
    elif newest and draw(st.booleans()):
        newest = [replace(settled[-1], ended=draw(times))]
    return (*settled[:-1], *newest)


@st.composite
def builds_of(draw, run: Run) -> tuple[Build, ...]:
    found = []
    for attempt in run.state.attempts[-2:]:
        for step in ("a", "b", names.exit_step(attempt.n)):
            for number in range(1, draw(st.integers(0, 2)) + 1):
                ending = draw(st.none() | st.sampled_from(list(Ending)))
                found.append(
                    Build(
                        f"{attempt.n}-{step}-{number}", run.id, attempt.epoch, step, number + 10 * attempt.n, attempt.n,
                        step, draw(st.sampled_from(list(BuildPhase))), draw(times),
                        started=draw(st.none() | times), outcome=None if ending is None else Outcome(ending),
                    )
                )  # fmt: skip
    return tuple(found)


@st.composite
def situations(draw) -> tuple[Run, ob.Seen]:
    made = draw(attempts())
    steps = {
        (one.epoch, step): StepState(draw(st.none() | st.just(1)), draw(st.integers(0, 99)), draw(st.booleans()))
        for one in made
        for step in ("a", "b")
        if draw(st.booleans())
    }
    held = draw(st.sampled_from(["", "a fork's"]))
    run = some_run(phase=Phase.RUNNING, state=State(attempts=made, steps=steps, held=held))
    acts = [
        Act(
            draw(st.sampled_from([one for one in Kind if one is not Kind.FIRST])), f"q{n}", draw(st.integers(0, 3))
        )
        for n in range(draw(st.integers(0, 2)))
    ]
    if held and made:
        # What is held has no attempt before it was approved.
        acts.append(Act(Kind.APPROVE, "approval", 0))
    run = replace(run, acts=tuple(acts))
    attempt = run.attempt
    if attempt is not None and draw(st.booleans()):
        report = final_report(run, attempt, attempt.verdict) if attempt.verdict else pending_report(run)
        run = replace(run, state=replace(run.state, reported=report))
    elif run.awaits_approval and draw(st.booleans()):
        run = replace(run, state=replace(run.state, reported=held_report(run)))
    if (attempt is None or attempt.verdict is not None) and draw(st.booleans()):
        run = closed(run, at=NOW - 100)
    execution = draw(
        st.none()
        | st.builds(
            Execution,
            uid=st.just("u"),
            root=st.none() | st.sampled_from(list(NodePhase)),
            message=st.sampled_from(["", "Stopped with strategy 'Stop'", "exceeded its deadline"]),
            nodes=st.sampled_from([(), (Node("a", NodePhase.SUCCEEDED, 0), Node("b", NodePhase.FAILED, 2))]),
            finished=st.booleans(),
            deleting=st.booleans(),
            invalid=st.sampled_from(["", "no template"]),
        )
    )
    seen = ob.Seen(
        now=NOW,
        pipeline=draw(st.sampled_from([PIPELINE, None])),
        execution=execution,
        builds=draw(builds_of(run)),
        speaks=draw(st.booleans()),
        retention_seconds=draw(st.none() | st.just(50.0) | st.just(604_800.0)),
    )
    return run, seen


@given(situations())
def test_the_rules_hold_in_every_situation(situation):
    run, seen = situation
    actions = ob.owed(run, seen)
    attempt = run.attempt
    kinds = [type(action) for action in actions]
    for action in actions:
        if isinstance(action, ob.Begin):
            newest = attempt.n if attempt else 0
            assert action.attempt.n == newest + 1
            assert attempt is None or attempt.verdict is not None
            assert not run.awaits_approval
        elif isinstance(action, ob.Submit):
            assert not attempt.uid
            assert attempt.verdict is None
        elif isinstance(action, ob.End):
            assert attempt.verdict is None
            assert action.n == attempt.n
            fired = [
                b for b in seen.builds if b.step == names.exit_step(action.n) and b.event == attempt.on_failure
            ]
            assert not (fired and attempt.on_failure and action.verdict is Verdict.SUCCEEDED)
        elif isinstance(action, ob.Fire):
            assert attempt.verdict is not None
            exits = [b for b in seen.builds if b.step == names.exit_step(attempt.n)]
            assert all(b.outcome is not None for b in exits)
            assert not exits or exits[-1].outcome.ending is Ending.LOST
            assert action.number > max([b.number for b in exits], default=0)
            assert run.applicable_act is None
        elif isinstance(action, ob.Post):
            assert seen.speaks
            reported = run.state.reported
            assert reported is None or reported.attempt <= action.report.attempt
            if reported is not None and reported.attempt == action.report.attempt:
                assert action.report.state != "pending"
        elif isinstance(action, ob.GiveUp):
            assert action.build.open
        elif isinstance(action, ob.Close):
            assert kinds == [ob.Close]
            assert run.awaits_approval or attempt.verdict is not None
            assert not [b for b in seen.builds if b.open]
            assert run.applicable_act is None
        elif isinstance(action, ob.Forget):
            assert run.phase is Phase.CLOSED
            assert seen.now - run.closed >= seen.retention_seconds
    if run.phase is Phase.CLOSED and run.applicable_act is None:
        assert set(kinds) <= {ob.Forget}


@given(situations())
def test_the_same_question_has_the_same_answer(situation):
    assert ob.owed(*situation) == ob.owed(*situation)
