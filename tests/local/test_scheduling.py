"""What the engine does next: Argo's rules for DAGs, without processes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.executions import NodePhase
from bridge.local import depends
from bridge.local.retries import End, Policy, Strategy
from bridge.local.scheduling import OMITTED, NodeState, Progress, begun, ended, moved, why_ending
from bridge.local.templates import EXIT_NODE, Plan, Program, Task

RUNNING, SUCCEEDED, FAILED, ERROR, PENDING = (
    NodePhase.RUNNING,
    NodePhase.SUCCEEDED,
    NodePhase.FAILED,
    NodePhase.ERROR,
    NodePhase.PENDING,
)


def task(name, after="", **fields):
    condition = depends.parsed(after) if after else depends.after(())
    return Task(name, condition, Program.STEP, (), {}, {}, **fields)


def plan(*tasks, with_exit=False, deadline_seconds=None, parallelism=None, fail_fast=False):
    bye = task(EXIT_NODE) if with_exit else None
    return Plan(tasks, bye, deadline_seconds, parallelism, fail_fast)


def played(plan, ends, *, room=10, limit=100):
    """Play `plan` to its end; each task that starts comes at once to its phase in `ends` (SUCCEEDED if not
    named). Answers the progress and the names in the order of their starts."""
    progress, order = Progress(), []
    tasks = {one.name: one for one in plan.tasks} | ({EXIT_NODE: plan.exit} if plan.exit else {})
    for now in range(limit):
        move = moved(plan, progress, alive=frozenset(), now=now, room=room, exit_room=1)
        progress = move.progress
        for one in move.start:
            order.append(one.name)
            phase = ends.get(one.name, SUCCEEDED)
            node = ended(
                tasks[one.name], progress.nodes[one.name], End(phase, 2, "no"), stopping="", now=float(now)
            )
            progress = progress.with_node(node)
        if progress.finished is not None:
            return progress, order
    raise AssertionError(f"not finished: {progress}")


def phases(progress):
    return {name: node.phase.value for name, node in progress.nodes.items()}


def test_tasks_run_after_what_they_depend_on():
    diamond = plan(task("d", "b && c"), task("b", "a"), task("c", "a"), task("a"))
    progress, order = played(diamond, {})
    assert order == ["a", "b", "c", "d"]
    assert progress.root is SUCCEEDED


def test_dependents_of_a_failed_task_are_omitted_and_the_root_fails():
    progress, order = played(plan(task("a"), task("b", "a"), task("c", "b"), task("x")), {"a": FAILED})
    assert order == ["a", "x"]
    assert phases(progress) == {"a": "Failed", "b": "Omitted", "c": "Omitted", "x": "Succeeded"}
    assert progress.nodes["c"].message == OMITTED
    assert progress.root is FAILED


def test_a_handled_failure_at_a_leaf_succeeds_and_on_another_branch_fails():
    handled = plan(task("a"), task("cleanup", "a.Failed"))
    assert played(handled, {"a": FAILED})[0].root is SUCCEEDED
    branching = plan(task("a"), task("cleanup", "a.Failed"), task("ship", "a"))
    assert played(branching, {"a": FAILED})[0].root is FAILED


def test_a_task_that_waits_for_a_failure_is_omitted_after_a_success():
    progress, _ = played(plan(task("a"), task("cleanup", "a.Failed || a.Errored")), {})
    assert phases(progress) == {"a": "Succeeded", "cleanup": "Omitted"}
    assert progress.root is SUCCEEDED


def test_an_error_at_a_leaf_is_the_roots():
    assert played(plan(task("a")), {"a": ERROR})[0].root is ERROR


def test_without_fail_fast_everything_that_can_run_runs():
    progress, order = played(plan(task("a"), task("b"), task("c", "b")), {"a": FAILED}, room=1)
    assert order == ["a", "b", "c"]
    assert progress.root is FAILED


@pytest.mark.parametrize(("fail_fast", "root"), [(True, FAILED), (False, RUNNING)])
def test_with_fail_fast_what_finds_no_room_after_a_failure_does_not_begin(fail_fast, root):
    hasty = plan(task("a"), task("b"), fail_fast=fail_fast)
    progress = moved(hasty, Progress(), alive=frozenset(), now=0, room=1, exit_room=1).progress
    failed = ended(hasty.tasks[0], progress.nodes["a"], End(FAILED, 2, ""), stopping="", now=1)
    move = moved(hasty, progress.with_node(failed), alive=frozenset(), now=1, room=0, exit_room=1)
    assert (move.progress.root, move.start) == (root, ())
    assert "b" not in move.progress.nodes


def test_with_fail_fast_what_runs_is_waited_for():
    hasty = plan(task("a"), task("b"), fail_fast=True)
    progress = moved(hasty, Progress(), alive=frozenset(), now=0, room=2, exit_room=1).progress
    failed = ended(hasty.tasks[0], progress.nodes["a"], End(FAILED, 2, ""), stopping="", now=1)
    move = moved(hasty, progress.with_node(failed), alive=frozenset({"b"}), now=1, room=2, exit_room=1)
    assert move.progress.root is RUNNING
    assert not move.start


@pytest.mark.parametrize(
    ("room", "parallelism", "started"), [(4, None, 4), (2, None, 2), (4, 3, 3), (0, None, 0), (-1, 1, 0)]
)
def test_no_more_start_than_there_is_room_for(room, parallelism, started):
    wide = plan(*(task(name) for name in "abcdef"), parallelism=parallelism)
    move = moved(wide, Progress(), alive=frozenset(), now=0, room=room, exit_room=1)
    assert [one.name for one in move.start] == list("abcdef")[:started]


def test_the_workflows_own_bound_counts_what_runs():
    wide = plan(*(task(name) for name in "abc"), parallelism=2)
    first = moved(wide, Progress(), alive=frozenset(), now=0, room=9, exit_room=1)
    again = moved(wide, first.progress, alive=frozenset("ab"), now=1, room=7, exit_room=1)
    assert not again.start


def test_a_running_node_without_a_process_is_started_again_and_that_is_no_retry():
    one = plan(task("a", retry=Strategy(limit=0)))
    node = NodeState("a", RUNNING, tried=3, started=1.0, process="gone")
    move = moved(
        one, Progress(RUNNING, started=0.0, nodes={"a": node}), alive=frozenset(), now=9, room=1, exit_room=1
    )
    assert [one.name for one in move.start] == ["a"]
    assert move.progress.nodes["a"] == replace(node, process="")


def test_a_try_that_may_be_repeated_waits_for_its_backoff():
    flaky = task("a", retry=Strategy(limit=2, policy=Policy.ALWAYS, pause_seconds=5, factor=2))
    node = begun(None, "a", 0.0)
    node = ended(flaky, node, End(FAILED, 75, "Error (exit code 75)"), stopping="", now=10.0)
    assert (node.phase, node.tried, node.next_at, node.exit_code) == (PENDING, 1, 15.0, 75)
    assert node.message == "Backoff for 5s after: Error (exit code 75)"
    waiting = Progress(RUNNING, started=0.0, nodes={"a": node})
    assert not moved(plan(flaky), waiting, alive=frozenset(), now=14, room=1, exit_room=1).start
    move = moved(plan(flaky), waiting, alive=frozenset(), now=15, room=1, exit_room=1)
    again = move.progress.nodes["a"]
    assert (again.phase, again.started, again.message) == (RUNNING, 0.0, "")
    second = ended(flaky, again, End(FAILED, 75, "x"), stopping="", now=20.0)
    third = ended(flaky, begun(second, "a", 30.0), End(FAILED, 75, "x"), stopping="", now=40.0)
    assert (second.next_at, third.phase, third.message) == (30.0, FAILED, "No more retries left: x")


def test_the_exit_handler_runs_after_the_tasks_and_changes_nothing_of_the_root():
    progress, order = played(plan(task("a"), with_exit=True), {EXIT_NODE: FAILED})
    assert order == ["a", EXIT_NODE]
    assert progress.root is SUCCEEDED


def test_the_exit_handler_waits_for_room():
    done = Progress(SUCCEEDED, started=0.0)
    move = moved(plan(task("a"), with_exit=True), done, alive=frozenset(), now=1, room=9, exit_room=0)
    assert (move.start, move.progress.finished) == ((), None)


def test_past_the_deadline_tasks_are_ended_and_the_exit_handler_is_not():
    late = plan(task("a"), task("b", "a"), with_exit=True, deadline_seconds=60)
    running = Progress(RUNNING, started=0.0, nodes={"a": begun(None, "a", 0.0)})
    assert not moved(late, running, alive=frozenset("a"), now=59, room=1, exit_room=1).end
    move = moved(late, running, alive=frozenset("a"), now=60, room=1, exit_room=1)
    assert (move.end, move.start) == (("a",), ())
    stopping = why_ending(late, running, now=60)
    assert stopping == "exceeded workflow deadline 1970-01-01 00:01:00 UTC"
    killed = ended(late.tasks[0], running.nodes["a"], End(FAILED, 143, "x"), stopping=stopping, now=61)
    move = moved(late, running.with_node(killed), alive=frozenset(), now=61, room=1, exit_room=1)
    assert (move.progress.root, move.progress.message) == (FAILED, stopping)
    assert [one.name for one in move.start] == [EXIT_NODE]
    assert not moved(late, move.progress, alive=frozenset({EXIT_NODE}), now=10**6, room=1, exit_room=1).end


def test_a_success_at_the_last_moment_counts():
    late = plan(task("a"), deadline_seconds=60)
    running = Progress(RUNNING, started=0.0, nodes={"a": begun(None, "a", 0.0)})
    won = ended(late.tasks[0], running.nodes["a"], End(SUCCEEDED, 0, ""), stopping="late", now=61)
    move = moved(late, running.with_node(won), alive=frozenset(), now=61, room=1, exit_room=1)
    assert (move.progress.root, move.progress.message) == (SUCCEEDED, "")


@pytest.mark.parametrize(("strategy", "exits"), [("Stop", 1), ("Terminate", 0)])
def test_a_shutdown_ends_what_waits_too_and_only_a_stop_runs_the_exit_handler(strategy, exits):
    one = plan(task("a"), task("b"), with_exit=True)
    waiting = NodeState("a", PENDING, exit_code=75, tried=1, started=0.0, next_at=500.0)
    lost = NodeState("b", RUNNING, started=0.0)
    progress = Progress(RUNNING, started=0.0, shutdown=strategy, nodes={"a": waiting, "b": lost})
    move = moved(one, progress, alive=frozenset(), now=1, room=5, exit_room=1)
    told = f"Stopped with strategy '{strategy}'"
    assert {(node.phase, node.message) for node in move.progress.nodes.values() if node.name != EXIT_NODE} == {
        (FAILED, told),
        (ERROR, told),
    }
    assert (move.progress.root, move.progress.message, len(move.start)) == (FAILED, told, exits)
    assert (move.progress.finished is None) == bool(exits)


def test_a_termination_ends_a_running_exit_handler_and_the_root_stays():
    one = plan(task("a"), with_exit=True)
    progress = Progress(
        SUCCEEDED, started=0.0, shutdown="Terminate", nodes={EXIT_NODE: begun(None, EXIT_NODE, 1.0)}
    )
    move = moved(one, progress, alive=frozenset({EXIT_NODE}), now=2, room=1, exit_room=1)
    assert move.end == (EXIT_NODE,)
    move = moved(one, progress, alive=frozenset(), now=3, room=1, exit_room=1)
    assert (move.progress.root, move.progress.finished) == (SUCCEEDED, 3)
    assert move.progress.nodes[EXIT_NODE].phase is FAILED


def test_a_stop_leaves_a_running_exit_handler_alone():
    one = plan(task("a"), with_exit=True)
    progress = Progress(SUCCEEDED, started=0.0, shutdown="Stop", nodes={EXIT_NODE: begun(None, EXIT_NODE, 1.0)})
    assert moved(one, progress, alive=frozenset({EXIT_NODE}), now=2, room=1, exit_room=1).end == ()


def test_a_finished_workflow_stays_as_it_is():
    progress, _ = played(plan(task("a"), with_exit=True), {})
    assert (
        moved(plan(task("a"), with_exit=True), progress, alive=frozenset(), now=99, room=1, exit_room=1).progress
        == progress
    )


@st.composite
def graphs(draw):
    """A DAG, and how its tasks end."""
    names = [f"t{n}" for n in range(draw(st.integers(1, 7)))]
    tasks = []
    for n, name in enumerate(names):
        needed = draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=3)) if n else []
        results = [draw(st.sampled_from(["", ".Failed", ".Succeeded", ".Omitted", ".Errored"])) for _ in needed]
        joint = draw(st.sampled_from([" && ", " || ", " && !"]))
        tasks.append(task(name, joint.join(f"{one}{result}" for one, result in zip(needed, results, strict=True))))
    ends = {name: draw(st.sampled_from([SUCCEEDED, FAILED, ERROR])) for name in names}
    return plan(*draw(st.permutations(tasks)), with_exit=True, fail_fast=draw(st.booleans())), ends


@given(graphs(), st.integers(1, 3))
def test_every_workflow_comes_to_an_end_and_runs_each_task_once_and_after_what_it_needs(graph, room):
    some_plan, ends = graph
    progress, order = played(some_plan, ends, room=room)
    assert order[-1] == EXIT_NODE
    assert len(set(order)) == len(order)
    for one in some_plan.tasks:
        for needed in depends.tasks_in(one.after) if one.name in order else ():
            assert needed not in order or order.index(needed) < order.index(one.name)
    unhappy = {progress.nodes[leaf.name].phase for leaf in some_plan.leaves if leaf.name in progress.nodes} & {
        FAILED,
        ERROR,
    }
    assert not unhappy or progress.root in unhappy | {FAILED, ERROR}
    if all(ends[name] is SUCCEEDED for name in order[:-1]):
        assert progress.root is SUCCEEDED
