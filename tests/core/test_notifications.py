"""What a record implies that others are told: a list that only grows, whatever happens to the run."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core import obligations as ob
from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.events import cloudevents
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.notifications import (
    Lifecycle,
    Subscriber,
    cloud_event,
    implied,
    pending,
    step_ends,
    subscribers_of,
    waiting,
)
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    NodePart,
    NodeState,
    Phase,
    State,
    StepEnd,
    StepState,
    Told,
    closed,
    with_act,
    with_attempt,
    with_end,
    with_step,
    with_step_ends,
    with_told,
)
from bridge.core.verdicts import Verdict
from tests.fakes import some_event, some_run

NOW = 1_700_000_000.0
OPS = Subscriber("ops")
FIRST = Attempt(1, Kind.FIRST, 1, NOW, steps=("build", "test"), uid="u1", submitted=NOW)
PIPELINE = Pipeline("push", ("acme/widgets",), (Trigger("push"),), (Step("build"), Step("test")))


def going(**state):
    state.setdefault("attempts", (FIRST,))
    return some_run(accepted=NOW - 1, phase=Phase.RUNNING, state=State(**state))


def end(step, verdict=Verdict.SUCCEEDED, at=NOW + 5, **more):
    return StepEnd(step, verdict, at, **more)


def over(run, n=1, verdict=Verdict.FAILED, tell=("ops",)):
    return closed(with_end(run, n, verdict=verdict, reason="because", at=NOW + 8), at=NOW + 9, tell=tell)


def told(run):
    return [one.id_of(run.id).removeprefix(f"{run.id}:") for one in implied(run)]


def build(step, number=1, ending=None, attempt=1, epoch=1, **more):
    outcome = None if ending is None else Outcome(ending, f"it {ending}", NOW + 3)
    return Build(
        f"{step}{number}", "push-r1", epoch, step, number, attempt, step, BuildPhase.RUNNING, NOW, outcome=outcome, **more
    )  # fmt: skip


def ends_of(run, *, nodes=(), builds=(), root=NodePhase.RUNNING):
    execution = Execution("u1", root, nodes=tuple(nodes))
    return step_ends(run, run.attempt, execution, builds, now=NOW + 7)


def test_a_whole_life_in_its_order():
    run = over(with_step_ends(going(), 1, (end("build"), end("test", Verdict.FAILED))))
    run = with_attempt(
        with_act(run, Act(Kind.RETRY, "q", 1)), replace(FIRST, n=2, kind=Kind.RETRY, begun=NOW + 20)
    )
    run = over(with_step_ends(run, 2, (end("test"),)), 2, Verdict.SUCCEEDED)
    assert told(run) == [
        "accepted",
        "1:started", "1:build:finished", "1:test:finished", "1:closed",
        "2:started", "2:test:finished", "2:closed",
    ]  # fmt: skip


def test_a_run_that_is_closed_and_retried_before_anybody_was_told_was_closed_all_the_same():
    run = with_act(over(going()), Act(Kind.RETRY, "q", 1))
    assert run.phase is not Phase.CLOSED
    assert told(run) == ["accepted", "1:started", "1:closed"]


def test_a_held_run_is_told_to_be_closed_without_an_attempt():
    held = closed(some_run(state=State(held="a fork's")), at=NOW, tell=("ops",))
    assert told(held) == ["accepted", "0:closed"]
    body = json.loads(cloud_event(held, implied(held)[1], source="/x"))
    assert body["data"]["attempt"] == {"number": 0, "verdict": "cancelled", "reason": "a fork's"}


CHANGES = st.sampled_from(
    [
        lambda run: with_attempt(run, replace(FIRST, n=len(run.state.attempts) + 1)),
        lambda run: with_step_ends(run, len(run.state.attempts), (end("build"),)),
        lambda run: with_step_ends(run, len(run.state.attempts), (end("test", Verdict.FAILED), end("build"))),
        lambda run: with_step_ends(run, 1, (end("late"),)),
        lambda run: with_end(run, len(run.state.attempts), verdict=Verdict.FAILED, reason="", at=NOW),
        lambda run: closed(run, at=NOW, tell=("ops",)),
        lambda run: closed(run, at=NOW),
        lambda run: with_act(run, Act(Kind.RETRY, f"q{len(run.acts)}", len(run.state.attempts))),
        lambda run: with_told(run, "ops", Told(upto=1)),
    ]
)


@given(st.lists(CHANGES, max_size=25), st.booleans())
def test_whatever_changes_the_list_only_grows_at_its_end_and_no_id_comes_twice(changes, held):
    run = some_run(state=State(held="a fork's" if held else ""))
    before = implied(run)
    for change in changes:
        run = change(run)
        now = implied(run)
        assert now[: len(before)] == before
        before = now
    ids = told(run)
    assert len(ids) == len(set(ids))
    assert not any("." in one for one in ids)


def test_an_endpoint_lacks_what_comes_after_what_it_was_told_and_only_what_it_wants():
    run = over(with_step_ends(going(notified={"ops": Told(upto=1)}), 1, (end("build"),)))
    assert [place for place, _ in pending(run, OPS)] == [2, 3, 4]
    closings = Subscriber("ops", wants=frozenset({Lifecycle.RUN_CLOSED}))
    assert [place for place, _ in pending(run, closings)] == [4]
    assert pending(run, Subscriber("other"))[0][0] == 1


def test_who_is_told_is_who_is_told_of_all_is_named_or_was_told_already():
    named = Subscriber("audit", of_all=False)
    everybody = (OPS, named)
    assert subscribers_of(going(), PIPELINE, everybody) == (OPS,)
    assert subscribers_of(going(), replace(PIPELINE, notify=("audit",)), everybody) == everybody
    assert subscribers_of(going(notified={"audit": Told(1)}), None, everybody) == everybody


def test_a_closed_run_waits_for_those_that_were_to_be_told_when_it_was_closed_and_no_others():
    """So a new endpoint is not told of ten thousand old runs, and one that was removed is not forgotten silently."""
    run = over(going())
    assert waiting(run, (OPS, Subscriber("new"))) == ("ops",)
    assert waiting(run, ()) == ("ops",)
    assert waiting(over(going(), tell=()), (OPS,)) == ()
    done = with_told(run, "ops", Told(upto=3))
    assert waiting(done, (OPS,)) == ()
    assert [run.owes_notifications, done.owes_notifications] == [True, False]


def test_what_was_told_is_never_told_less():
    run = with_told(going(), "ops", Told(upto=2))
    assert with_told(run, "ops", Told(upto=1)) is run
    assert with_told(run, "ops", Told(upto=2)) is run


def test_a_step_ends_with_its_success_once_in_an_epoch():
    run = with_step(going(), 1, "build", StepState(succeeded=2, highest=2))
    builds = (build("build", 1, Ending.FAILED), build("build", 2, Ending.SUCCEEDED), build("test"))
    (found,) = ends_of(run, builds=builds)
    assert found == StepEnd("build", Verdict.SUCCEEDED, NOW + 3, build="build2")
    run = with_step_ends(run, 1, (found,))
    assert ends_of(run, builds=builds) == ()
    retried = with_attempt(run, replace(FIRST, n=2, kind=Kind.RETRY))
    assert ends_of(retried, builds=builds) == ()


def test_a_step_whose_tries_are_not_used_up_has_no_end():
    nodes = [Node("build", NodePhase.RUNNING)]
    assert ends_of(going(), nodes=nodes, builds=[build("build", 1, Ending.FAILED)]) == ()


def test_a_step_that_did_not_succeed_ends_with_its_node_and_says_why():
    nodes = [Node("build", NodePhase.FAILED, 2, "exit code 2", ended=NOW + 4)]
    (found,) = ends_of(going(), nodes=nodes, builds=[build("build", 3, Ending.FAILED)])
    assert (found.verdict, found.at, found.build) == (Verdict.FAILED, NOW + 4, "build3")
    assert "build 3" in found.reason


def test_containers_of_somebodys_own_end_with_their_nodes_and_what_is_left_out_has_no_end():
    nodes = [
        Node("lint", NodePhase.SUCCEEDED, 0, ended=NOW + 1),
        Node("docs", NodePhase.FAILED, 1, ended=NOW + 2),
        Node("deploy", NodePhase.OMITTED),
        Node("build", NodePhase.SUCCEEDED, 0),
    ]
    found = ends_of(going(), nodes=nodes, builds=[build("build")])
    assert [(one.step, one.verdict) for one in found] == [("lint", Verdict.SUCCEEDED), ("docs", Verdict.ERROR)]


def test_a_native_step_whose_workflow_is_gone_ended_as_it_was_last_seen():
    ended = NodeState(1, NodePart.FAILED, NOW, NOW + 2, "exit code 1")
    run = with_step(going(), 1, "build", StepState(node=ended))
    run = with_step(run, 1, "test", StepState(node=NodeState(1, NodePart.SKIPPED)))
    assert step_ends(run, run.attempt, None, (), now=NOW + 7) == (
        StepEnd("build", Verdict.FAILED, NOW + 2, "exit code 1"),
    )


def test_what_goes_on_when_its_run_ends_has_ended_once_its_build_has():
    ended = with_end(going(), 1, verdict=Verdict.CANCELLED, reason="cancelled", at=NOW)
    nodes = [Node("build", NodePhase.FAILED, 143, "terminated")]
    assert ends_of(ended, nodes=nodes, builds=[build("build")]) == ()
    (found,) = ends_of(ended, nodes=nodes, builds=[build("build", 1, Ending.CANCELLED)])
    assert found.verdict is Verdict.CANCELLED


def test_nothing_to_do_is_a_success():
    run = with_step(going(), 1, "build", StepState(unhandled=True))
    (found,) = ends_of(run, builds=[build("build", 1, Ending.UNHANDLED)])
    assert (found.verdict, found.reason) == (Verdict.SUCCEEDED, "nothing to do")


def test_exit_events_are_no_steps():
    assert ends_of(going(), builds=[build("exit.1", 1, Ending.SUCCEEDED)]) == ()


def test_owed_without_endpoints_remembers_no_step_ends_and_tells_nobody():
    run = with_step(going(), 1, "build", StepState(succeeded=1, highest=1))
    seen = ob.Seen(NOW, PIPELINE, Execution("u1", NodePhase.RUNNING), (build("build", 1, Ending.SUCCEEDED),))
    kinds = [type(action) for action in ob.owed(run, seen)]
    assert ob.Finish not in kinds
    assert ob.Notify not in kinds
    with_ops = ob.owed(run, replace(seen, subscribers=(OPS,)))
    assert ob.Notify("ops") in with_ops
    assert any(isinstance(action, ob.Finish) for action in with_ops)
    # What is urgent comes first.
    assert [type(action) for action in with_ops[: len(kinds)]] == kinds


def test_the_end_of_a_step_is_written_before_the_run_closes_and_the_closing_says_who_is_told():
    run = with_end(going(), 1, verdict=Verdict.SUCCEEDED, reason="", at=NOW)
    run = with_step(run, 1, "build", StepState(succeeded=1, highest=1))
    seen = ob.Seen(
        NOW, PIPELINE, Execution("u1", NodePhase.SUCCEEDED, finished=True), (), speaks=False, subscribers=(OPS,)
    )
    actions = ob.owed(run, seen)
    assert [type(action) for action in actions] == [ob.Finish, ob.Close, ob.Notify]
    assert actions[1] == ob.Close(("ops",))


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_another_bridge_takes_each_as_an_event_of_its_own(place):
    run = over(with_step_ends(going(), 1, (end("build", Verdict.FAILED, reason="exit code 1"),)))
    run = replace(run, event=some_event(pull_request=7, payload=b"hunter2"))
    notification = implied(run)[place]
    body = cloud_event(run, notification, source="https://ci.example", url="https://ci.example/runs/push-r1")
    assert b"hunter2" not in body
    assert body == cloud_event(
        run, notification, source="https://ci.example", url="https://ci.example/runs/push-r1"
    )
    event = cloudevents.read_v1({"Content-Type": "application/cloudevents+json; charset=utf-8"}, body)
    assert event.type == f"sh.brigade.bridge.{notification.kind}"
    assert (event.project, event.revision) == ("acme/widgets", run.event.revision)
    assert event.delivery == f"https://ci.example {notification.id_of('push-r1')}"


def test_for_another_project_the_commit_is_left_out_for_it_is_none_of_its():
    run = going()
    body = cloud_event(run, implied(run)[0], source="/x", project="acme/deploy")
    event = cloudevents.read_v1({"content-type": "application/cloudevents+json"}, body)
    assert (event.project, event.revision.commit) == ("acme/deploy", "")
    assert json.loads(body)["data"]["commit"] == run.event.revision.commit


def test_what_a_receiver_reads():
    run = over(with_step_ends(going(), 1, (end("build", Verdict.FAILED, reason="exit code 1", build="b1"),)))
    finished, ended = (json.loads(cloud_event(run, one, source="/x")) for one in implied(run)[2:])
    assert finished["subject"] == "push-r1/build"
    assert finished["data"]["step"] == {
        "name": "build", "verdict": "failed", "reason": "exit code 1", "build": "b1",
    }  # fmt: skip
    assert ended["time"] == "2023-11-14T22:13:29.000Z"
    assert ended["data"]["attempt"]["verdict"] == "failed"
    assert ended["data"]["step"] is None
