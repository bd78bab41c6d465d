"""What keeps a Workflow from going on, as far as Argo says it: for whoever has to do something about it.

Argo tells of it only while it lasts; once the Workflow is made to end its message is another one. So the
controller remembers it (`Attempt.waits`), and the end of a run that never got anywhere says why.
"""

import re

from bridge.core.executions import Execution, Node, NodePhase

PATIENCE_SECONDS = 60.0
"""What is usual in the beginning, such as a pod that is being made, is no reason before."""
_CHARACTERS = 200
_LOCK = re.compile(r"Waiting for (\S+/(?:Mutex|Semaphore)/\S+|\S+) lock")
_QUOTA = re.compile(r"exceeded quota: ([^,\s]+)")
_IMAGE = re.compile(
    r"(?:ImagePullBackOff|ErrImagePull|InvalidImageName|ErrImageNeverPull)\b(?:[^\"]*\"([^\"]+)\")?"
)
_REFUSED = re.compile(r"^pods \"[^\"]*\" is forbidden: (.+)", re.DOTALL)
_STARTING = ("PodInitializing", "ContainerCreating", "CreateContainerConfigError", "CreateContainerError")
_BEGINNING = ("PodInitializing", "ContainerCreating")


def waits_for(execution: Execution | None, *, submitted: float | None, now: float) -> str:
    """Why a Workflow that has not ended does not go on, at most a line; empty if it does, or nothing tells."""
    if execution is None or execution.root_ended or execution.finished or execution.deleting or execution.invalid:
        return ""
    if execution.message == "it is suspended":
        return "the workflow is suspended: argo resume it"
    if execution.root is None:
        return _of_queue(execution.message, submitted=submitted, now=now)
    # With one step that goes on the Workflow does.
    found = [_of_node(node, now) for node in execution.nodes if not node.phase.ended]
    return found[0] if found and all(found) else ""


def _of_queue(message: str, *, submitted: float | None, now: float) -> str:
    lock = _LOCK.search(message)
    if lock is not None:
        return _cut(f"the workflow waits for the lock {lock[1]}")
    if "too many workflows" in message or "parallelism" in message.lower():
        return "the workflow waits behind others: Argo's parallelism is used up"
    if message:
        return _cut(f"the workflow does not begin: {message}")
    if submitted is not None and now >= submitted + PATIENCE_SECONDS:
        return "Argo has not begun it: is its controller running?"
    return ""


def _of_node(node: Node, now: float) -> str:
    message, step = " ".join(node.message.split()), node.step
    quota = _QUOTA.search(message)
    if quota is not None:
        return _cut(f"step {step}: the quota {quota[1]} allows no more pods")
    refused = _REFUSED.match(message)
    if refused is not None:
        return _cut(f"step {step}: its pod is refused: {refused[1]}")
    if message.startswith("Unschedulable"):
        told = message.removeprefix("Unschedulable").lstrip(": ")
        return _cut(f"step {step}: its pod fits on no node: {told or 'nobody says why'}")
    image = _IMAGE.search(message)
    if image is not None:
        return _cut(f"step {step}: the image {image[1] or 'of its pod'} cannot be pulled")
    if node.phase is NodePhase.PENDING and not message:
        return ""
    if message.startswith(_STARTING) and _is_late(node, message, now):
        return _cut(f"step {step}: its pod does not start: {message}")
    return ""


def _is_late(node: Node, message: str, now: float) -> bool:
    if not message.startswith(_BEGINNING):
        return True
    return node.started is not None and now >= node.started + PATIENCE_SECONDS


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1].rstrip() + "…"
