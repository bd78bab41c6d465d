"""What the one-machine engine does next with a Workflow: a function of plan, progress and time. Pure.

Phases and messages are Argo's (argo-workflows v4, workflow/controller/dag.go), so that whoever reads them needs
not know which engine it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from bridge.core import durations
from bridge.core.executions import NodePhase
from bridge.local import depends
from bridge.local.retries import End
from bridge.local.templates import EXIT_NODE, Plan, Task

STOP = "Stop"
TERMINATE = "Terminate"
"""The shutdown strategies: the exit handler runs after a stop and not after a termination."""

OMITTED = "omitted: depends condition not met"
_UNHAPPY = (NodePhase.ERROR, NodePhase.FAILED)


@dataclass(frozen=True)
class NodeState:
    """A task that began, or never will. Pending: it waits to be started again."""

    name: str
    phase: NodePhase
    exit_code: int | None = None
    message: str = ""
    tried: int = 0
    """How many tries have ended, but for the last one."""
    started: float | None = None
    ended: float | None = None
    next_at: float = 0.0
    """Pending: not started again before."""
    process: str = ""
    """Running: who that was when it was started (`processes.Identity` in JSON)."""


@dataclass(frozen=True)
class Progress:
    """What is known of a Workflow."""

    root: NodePhase | None = None
    """None: nobody has looked at it."""
    message: str = ""
    started: float | None = None
    finished: float | None = None
    shutdown: str = ""
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    """By name, the exit handler's among them; a task that cannot be told yet has none."""

    def with_node(self, node: NodeState) -> "Progress":
        """With `node` as it is now."""
        return replace(self, nodes={**self.nodes, node.name: node})


@dataclass(frozen=True)
class Move:
    """What is to be done now: write the progress down, then start and end processes."""

    progress: Progress
    start: tuple[Task, ...] = ()
    end: tuple[str, ...] = ()
    """Nodes whose processes must end."""


def moved(plan: Plan, progress: Progress, *, alive: frozenset[str], now: float, room: int, exit_room: int) -> Move:
    """The next move. `alive` are the nodes that have a process; at most `room` tasks and `exit_room` exit handlers
    may be started. A node that should have a process and has none lost it with the engine before this one: it is
    started again, and that is no retry."""
    if progress.root is None:
        progress = replace(progress, root=NodePhase.RUNNING, started=now)
    if progress.root is NodePhase.RUNNING:
        stopping = why_ending(plan, progress, now=now)
        if stopping:
            move = _winding_up(plan, progress, stopping, alive=alive, now=now)
        else:
            move = _going_on(plan, progress, alive=alive, now=now, room=room)
        if move.progress.root is NodePhase.RUNNING:
            return move
        progress = move.progress
    return _leaving(plan, progress, alive=alive, now=now, room=exit_room)


def why_ending(plan: Plan, progress: Progress, *, now: float) -> str:
    """Why the tasks must end now, in the words of the nodes' messages; empty if they need not."""
    if progress.shutdown:
        return f"Stopped with strategy '{progress.shutdown}'"
    if plan.deadline_seconds is None or progress.started is None:
        return ""
    deadline = progress.started + plan.deadline_seconds
    if now < deadline:
        return ""
    return f"exceeded workflow deadline {datetime.fromtimestamp(deadline, UTC):%Y-%m-%d %H:%M:%S} UTC"


def begun(node: NodeState | None, name: str, now: float) -> NodeState:
    """The node of a task that is started, started again, or whose process was lost."""
    if node is None:
        return NodeState(name, NodePhase.RUNNING, started=now)
    return replace(node, phase=NodePhase.RUNNING, message="", next_at=0.0, process="")


def ended(task: Task, node: NodeState, end: End, *, stopping: str, now: float) -> NodeState:
    """The node after its process came to `end`: for good, or waiting for the next try."""
    after = replace(node, exit_code=end.exit_code, process="")
    if end.phase is NodePhase.SUCCEEDED:
        return replace(after, phase=end.phase, message="", ended=now)
    if stopping:
        return replace(after, phase=end.phase, message=stopping, ended=now)
    reason = task.retry.why_not(end, node.tried)
    if reason is None:
        pause = task.retry.pause_after(node.tried)
        message = f"Backoff for {durations.written(pause)} after: {end.message}"
        return replace(after, phase=NodePhase.PENDING, message=message, tried=node.tried + 1, next_at=now + pause)
    message = f"{reason}: {end.message}" if reason else end.message
    return replace(after, phase=end.phase, message=message, ended=now)


def _going_on(plan: Plan, progress: Progress, *, alive: frozenset[str], now: float, room: int) -> Move:
    """Omit what cannot run any more, start what can, and see whether that was all."""
    progress = _with_omitted(plan, progress, now)
    active = [name for name in alive if name != EXIT_NODE]
    if plan.parallelism is not None:
        room = min(room, plan.parallelism - len(active))
    due = [task for task in plan.tasks if task.name not in alive and _is_due(task, progress, now)]
    start = tuple(due[: max(room, 0)])
    for task in start:
        progress = progress.with_node(begun(progress.nodes.get(task.name), task.name, now))
    root = _root(plan, progress)
    return Move(replace(progress, root=root), start)


def _with_omitted(plan: Plan, progress: Progress, now: float) -> Progress:
    """With a node for each task whose condition has become false; that may decide others."""
    for _ in plan.tasks:
        omitted = [task.name for task in plan.tasks if _condition(task, progress) is False]
        if not omitted:
            break
        for name in omitted:
            progress = progress.with_node(NodeState(name, NodePhase.OMITTED, message=OMITTED, ended=now))
    return progress


def _condition(task: Task, progress: Progress) -> bool | None:
    """Whether a task that has no node is to run; None: it has one, or that cannot be told yet."""
    if task.name in progress.nodes:
        return None
    needed = depends.tasks_in(task.after)
    phases = {name: node.phase for name, node in progress.nodes.items() if node.phase.ended}
    if not needed <= phases.keys():
        return None
    return depends.holds(task.after, phases)


def _is_due(task: Task, progress: Progress, now: float) -> bool:
    node = progress.nodes.get(task.name)
    if node is None:
        return _condition(task, progress) is True
    if node.phase is NodePhase.PENDING:
        return node.next_at <= now
    return node.phase is NodePhase.RUNNING


def _root(plan: Plan, progress: Progress) -> NodePhase:
    """The root node's phase: Running while anything runs or will; then the leaves tell."""
    if any(not node.phase.ended for name, node in progress.nodes.items() if name != EXIT_NODE):
        return NodePhase.RUNNING
    # With failFast what is due and has not begun does not begin any more (dag.go, assessDAGPhase).
    phases = [_branch(plan, progress, leaf.name) for leaf in plan.leaves]
    unhappy = [phase for phase in phases if phase in _UNHAPPY]
    if None in phases and not (plan.fail_fast and unhappy):
        return NodePhase.RUNNING
    return unhappy[0] if unhappy else NodePhase.SUCCEEDED


def _branch(plan: Plan, progress: Progress, name: str) -> NodePhase | None:
    """How it went on the way to a task and with it: an omitted one inherits, the unhappier first. None: it has
    not begun."""
    after = {task.name: task.after for task in plan.tasks}
    known: dict[str, NodePhase | None] = {}

    def look(name: str) -> NodePhase | None:
        if name not in known:
            known[name] = seen(name)
        return known[name]

    def seen(name: str) -> NodePhase | None:
        node = progress.nodes.get(name)
        if node is None or node.phase is not NodePhase.OMITTED:
            return None if node is None else node.phase
        before = [look(needed) for needed in sorted(depends.tasks_in(after[name]))]
        return next((phase for phase in before if phase in _UNHAPPY), NodePhase.SUCCEEDED)

    return look(name)


def _winding_up(plan: Plan, progress: Progress, stopping: str, *, alive: frozenset[str], now: float) -> Move:
    """End the tasks that run, start none, and fail once all have ended."""
    left = [node for name, node in progress.nodes.items() if name != EXIT_NODE and not node.phase.ended]
    for node in left:
        if node.name not in alive:
            phase = NodePhase.ERROR if node.exit_code is None else NodePhase.FAILED
            progress = progress.with_node(replace(node, phase=phase, message=stopping, ended=now, process=""))
    running = tuple(node.name for node in left if node.name in alive)
    if running:
        return Move(progress, end=running)
    root = _root(plan, progress)
    if root is NodePhase.RUNNING:
        root = NodePhase.FAILED
    message = "" if root is NodePhase.SUCCEEDED else stopping
    return Move(replace(progress, root=root, message=message))


def _leaving(plan: Plan, progress: Progress, *, alive: frozenset[str], now: float, room: int) -> Move:
    """The root node has ended: run the exit handler, if there is one, and finish."""
    node = progress.nodes.get(EXIT_NODE)
    over = plan.exit is None or (node is not None and node.phase.ended)
    if plan.exit is None or over or progress.shutdown == TERMINATE:
        return _finishing(progress, alive=alive, now=now)
    if EXIT_NODE in alive or not _is_due(plan.exit, progress, now) or room < 1:
        return Move(progress)
    return Move(progress.with_node(begun(node, EXIT_NODE, now)), (plan.exit,))


def _finishing(progress: Progress, *, alive: Iterable[str], now: float) -> Move:
    left = tuple(alive)
    if left:
        return Move(progress, end=left)
    node = progress.nodes.get(EXIT_NODE)
    if node is not None and not node.phase.ended:
        stopping = f"Stopped with strategy '{progress.shutdown}'"
        progress = progress.with_node(
            replace(node, phase=NodePhase.FAILED, message=stopping, ended=now, process="")
        )
    return Move(progress if progress.finished is not None else replace(progress, finished=now))
