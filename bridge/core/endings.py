"""How an attempt ended: its verdict and the reason, from the root node and the builds, never from the phase."""

import re
from collections.abc import Iterable, Sequence

from bridge.core import names
from bridge.core.builds import Build, Ending
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.runs import Attempt, NodePart, NodeState, Run, StepState
from bridge.core.steps import ExitCode
from bridge.core.verdicts import Verdict

End = tuple[Verdict, str]

_VERDICT_OF_CODE = {
    ExitCode.FAILED: Verdict.FAILED,
    ExitCode.NO_HANDLER: Verdict.FAILED,
    ExitCode.TIMED_OUT: Verdict.TIMED_OUT,
}
_SAID = re.compile(r"\(exit code \d+\): (.+)", re.DOTALL)
"""In a node's message: what its container left in its termination log."""
_FORBIDDEN = re.compile(
    r'is forbidden: User "(?:system:serviceaccount:)?([^"]{1,200})" cannot (\w{1,20}) resource "([^"]{1,100})"'
)
"""In a node's message: what Argo's executor is not allowed to do."""
_LONGEST_REASON = 400
_DEADLINE = "deadline"
"""Argo's word, in all that it says of a template's own."""
_GRAVITY = (Verdict.FAILED, Verdict.TIMED_OUT, Verdict.ERROR)
"""Of several steps that did not succeed, the first of these is what the run says."""


def root_end(run: Run, attempt: Attempt, execution: Execution, builds: Sequence[Build]) -> End:
    """The end of an attempt whose root node has ended."""
    if execution.root is NodePhase.SUCCEEDED:
        if _fired(attempt, builds):
            return Verdict.FAILED, f"{attempt.on_failure} was fired before its steps succeeded"
        return Verdict.SUCCEEDED, _nothing_to_do(run, attempt)
    if all_steps_succeeded(run, attempt, builds) and not _fired(attempt, builds):
        return Verdict.SUCCEEDED, ""
    found = [node_end(attempt, node, builds) for node in execution.nodes if _failed(node)]
    answered = [end for end in found if end is not None]
    for verdict in _GRAVITY[:2]:
        chosen = next((end for end in answered if end[0] is verdict), None)
        if chosen is not None:
            return chosen
    if attempt.rung > 0 or "deadline" in execution.message.lower():
        return Verdict.TIMED_OUT, _too_long(attempt)
    if "strategy" in execution.message or "terminat" in execution.message.lower():
        return Verdict.CANCELLED, _stopped(execution.message)
    if answered:
        return answered[0]
    return Verdict.ERROR, execution.message or "the workflow failed and no step says why"


def _stopped(message: str) -> str:
    """Argo's `Stopped with strategy 'Terminate'` in the words of those who asked for it."""
    if message == "Stopped with strategy 'Terminate'":
        return "the workflow was terminated"
    if message == "Stopped with strategy 'Stop'":
        return "the workflow was stopped"
    return f"the workflow was stopped: {message}"


def gone_end(run: Run, attempt: Attempt, execution: Execution | None, builds: Sequence[Build]) -> End:
    """The end of an attempt whose Workflow is gone, being deleted or invalid: succeeded only if every one of its
    steps is known to have succeeded."""
    if all_steps_succeeded(run, attempt, builds) and not _fired(attempt, builds):
        return Verdict.SUCCEEDED, ""
    if attempt.rung > 0:
        return Verdict.TIMED_OUT, _too_long(attempt)
    if execution is not None and execution.invalid:
        return Verdict.ERROR, f"the workflow cannot be run: {execution.invalid}"
    return Verdict.CANCELLED, "the workflow was deleted"


def all_steps_succeeded(run: Run, attempt: Attempt, builds: Iterable[Build]) -> bool:
    """Whether every step that the template had at submission has a success on record or on a build."""
    succeeded = {
        build.step
        for build in builds
        if build.epoch == attempt.epoch and build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED
    }
    remembered = {step for step in attempt.steps if _is_remembered(run.step(attempt.epoch, step), attempt)}
    return bool(attempt.steps) and set(attempt.steps) <= succeeded | remembered


def _is_remembered(state: StepState, attempt: Attempt) -> bool:
    done = state.node is not None and state.node.attempt == attempt.n and state.node.is_done
    return state.succeeded is not None or done


def node_state(attempt: Attempt, node: Node) -> NodeState | None:
    """What is worth remembering of a node that no build tells of: a native step's, or one that Argo left out."""
    # One that is omitted waits for what did not come: its `depends` may have wanted a success.
    left_out = node.phase is NodePhase.SKIPPED
    if not left_out and (node.step not in attempt.native or node.phase in {NodePhase.PENDING, NodePhase.OMITTED}):
        return None
    part, reason = NodePart.RUNNING, ""
    if left_out:
        part = NodePart.SKIPPED
    elif node.phase is NodePhase.SUCCEEDED:
        part = NodePart.SUCCEEDED
    elif _failed(node):
        verdict, reason = _native_end(node)
        part = NodePart(verdict.value)
    ended = node.ended if node.phase.ended else None
    return NodeState(attempt.n, part, node.started, ended, reason[:_LONGEST_REASON])


def _native_end(node: Node) -> End:
    """How a container of its own did not succeed: with any code it has failed, without one only Argo knows."""
    said = _SAID.search(node.message)
    told = said[1].strip() if said is not None else node.message
    if _DEADLINE in node.message:
        return Verdict.TIMED_OUT, told
    if node.phase is NodePhase.ERROR or node.exit_code is None:
        return Verdict.ERROR, told or "no reason given"
    return Verdict.FAILED, told if said is not None and told else f"exit code {node.exit_code}"


def _fired(attempt: Attempt, builds: Iterable[Build]) -> bool:
    """Whether the failure event of this attempt exists: then it cannot become succeeded."""
    return any(build.step == names.exit_step(attempt.n) and build.event == attempt.on_failure for build in builds)


def did_nothing(run: Run, attempt: Attempt) -> bool:
    """Whether an attempt that succeeded did so because nobody handles any event of its steps."""
    states = [run.step(attempt.epoch, step) for step in attempt.steps]
    return bool(states) and all(state.unhandled and state.succeeded is None for state in states)


def _nothing_to_do(run: Run, attempt: Attempt) -> str:
    if did_nothing(run, attempt):
        return f"nothing to do: brigade.js has no handler for {run.event.type}"
    return ""


def _too_long(attempt: Attempt) -> str:
    late = f"timed out after {attempt.timeout_seconds:g} s"
    return f"{late}: {attempt.waits}" if attempt.waits else f"{late} of the pipeline's time"


def _failed(node: Node) -> bool:
    return node.phase in {NodePhase.FAILED, NodePhase.ERROR}


def node_end(attempt: Attempt, node: Node, builds: Sequence[Build]) -> End | None:
    """The end that a step's node stands for."""
    verdict = _VERDICT_OF_CODE.get(node.exit_code if node.exit_code is not None else -1, Verdict.ERROR)
    newest = next(
        (build for build in reversed(builds) if build.epoch == attempt.epoch and build.step == node.step), None
    )
    if node.step in attempt.native and newest is None:
        verdict, told = _native_end(node)
        word = "could not be run" if verdict is Verdict.ERROR else _word(verdict)
        return verdict, f"step {node.step} {word}: {told[:_LONGEST_REASON]}"
    said = _SAID.search(node.message)
    if said is not None and (newest is None or newest.attempt != attempt.n):
        # This attempt made no build: the step itself says why.
        return verdict, f"step {node.step} {_word(verdict)}: {said[1][:_LONGEST_REASON].strip()}"
    forbidden = _FORBIDDEN.search(node.message)
    if forbidden is not None and verdict is Verdict.ERROR:
        return verdict, f"step {node.step}: {forbidden[1]} may not {forbidden[2]} {forbidden[3]}"
    told = newest.outcome.reason if newest is not None and newest.outcome is not None else node.message
    if node.exit_code == ExitCode.LOST:
        return verdict, f"step {node.step} lost its builds: {told.removeprefix('lost: ')}"
    number = f" (build {newest.number})" if newest is not None else ""
    return verdict, f"step {node.step} {_word(verdict)}{number}: {told or node.message or 'no reason given'}"


def _word(verdict: Verdict) -> str:
    return "could not be answered" if verdict is Verdict.ERROR else verdict.value.replace("_", " ")
