"""Argo's Workflows as plain mappings: what is submitted, and what its status says (facts/argo.md).

Nothing here trusts `status.phase`: a failing exit handler turns a success into Failed, a stopped one may say
Succeeded. A Workflow that Argo refuses has no nodes at all, and only its message says why.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.kubernetes import Json, is_being_deleted, mapping, mappings, seconds, text
from bridge.core.names import ATTEMPT_LABEL, PIPELINE_LABEL, RUN_LABEL, workflow_name
from bridge.core.runs import Run

API_VERSION = "argoproj.io/v1alpha1"
INSTANCE_LABEL = "workflows.argoproj.io/controller-instanceid"
MAX_NODES_BYTES = 64 * 1024 * 1024
"""What compressed nodes may unpack to."""

_ENDED = frozenset({"Succeeded", "Failed", "Error"})
_TASK_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]*")
"""Of a task; the nodes of retries (`build(0)`), items (`build(0:x)`) and groups (`[0]`) are named otherwise."""
_RETRY_SAYS_LITTLE = ("No more retries left", "retryStrategy.expression evaluated to false")
_SECOND = 1.0
"""Argo writes whole seconds."""


def workflow(run: Run, attempt: int, *, record_uid: str, instance_id: str = "") -> dict[str, Any]:
    """The Workflow of an attempt, which Argo takes under `templateReferencing: Strict` too: it holds no text of
    the event, only names. It goes when the run's record does."""
    labels = {RUN_LABEL: run.id, PIPELINE_LABEL: run.pipeline, ATTEMPT_LABEL: str(attempt)}
    return {
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": {
            "name": workflow_name(run.id, attempt),
            "labels": {**labels, **({INSTANCE_LABEL: instance_id} if instance_id else {})},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": run.id, "uid": record_uid}],
        },
        "spec": {
            "workflowTemplateRef": {"name": run.pipeline},
            "arguments": {
                "parameters": [{"name": "run", "value": run.id}, {"name": "attempt", "value": str(attempt)}]
            },
        },
    }


def is_of(workflow: Json, run_id: str, attempt: int) -> bool:
    """Whether a Workflow says that it is this attempt's. `argo resubmit` copies that, under another name."""
    labels = mapping(workflow, "metadata", "labels")
    return labels.get(RUN_LABEL) == run_id and labels.get(ATTEMPT_LABEL) == str(attempt)


def owner_uid(workflow: Json) -> str:
    """The uid of the record that owns a Workflow; empty if none does."""
    owners = mappings(mapping(workflow, "metadata"), "ownerReferences")
    return next((text(owner, "uid") for owner in owners if owner.get("kind") == "Secret"), "")


def execution_of(workflow: Json) -> Execution:
    """What a Workflow as the API has it says of its attempt. Whatever is in it, this answers."""
    metadata, spec, status = (mapping(workflow, key) for key in ("metadata", "spec", "status"))
    name = text(metadata, "name")
    finished = text(status, "phase") in _ENDED
    nodes, unreadable = _nodes(status)
    root = nodes.get(name) or next((node for node in nodes.values() if node.get("name") == name), None)
    steps = _steps(name, root, nodes)
    phase = None if root is None else _phase(root)
    invalid = ""
    if finished and (phase is None or not phase.ended):
        # Without nodes Argo refused it, or it was told to end before it began; with a root that never ended
        # the controller broke down over it.
        phase, invalid = _end_without_root(spec, status, unreadable, begun=root is not None)
    return Execution(
        uid=text(metadata, "uid"),
        root=phase,
        message=_message(
            spec,
            status,
            root,
            steps,
            unreadable,
            finished=finished,
            of_exit_handler=_is_of_exit_handler(text(status, "message"), name, nodes),
        ),
        nodes=steps,
        finished=finished,
        deleting=is_being_deleted(workflow),
        invalid=invalid,
    )


def _end_without_root(spec: Json, status: Json, unreadable: str, *, begun: bool) -> tuple[NodePhase | None, str]:
    if unreadable:
        return None, unreadable
    said = text(status, "message")
    if begun or spec.get("shutdown") or said.startswith("Stopped with strategy"):
        return (NodePhase.ERROR if status.get("phase") == "Error" else NodePhase.FAILED), ""
    return None, said or f"Argo ended it as {status.get('phase')} before it began, and says no more"


def _message(
    spec: Json,
    status: Json,
    root: Json | None,
    steps: tuple[Node, ...],
    unreadable: str,
    *,
    finished: bool,
    of_exit_handler: bool,
) -> str:
    """Why it is as it is, in one line: Argo's own words, else what can be told from the nodes."""
    said = text(root or {}, "message") or ("" if of_exit_handler else text(status, "message"))
    if said or unreadable:
        return said or unreadable
    late = _deadline_message(spec, status, steps)
    if late:
        return late
    # Its own message comes only seconds after its root has ended.
    told_to_end = text(spec, "shutdown")
    if told_to_end and root is not None and _phase(root) in {NodePhase.FAILED, NodePhase.ERROR}:
        return f"Stopped with strategy '{told_to_end}'"
    return "it is suspended" if spec.get("suspend") and not finished else ""


def _is_of_exit_handler(message: str, name: str, nodes: Mapping[str, Json]) -> bool:
    """Whether the Workflow's message tells why its exit handler failed, which is nothing to its verdict."""
    if message.startswith("error in exit template execution"):
        return True
    handler = next((node for node in nodes.values() if node.get("name") == f"{name}.onExit"), None)
    ended_badly = handler is not None and _phase(handler) in {NodePhase.FAILED, NodePhase.ERROR}
    return bool(message) and ended_badly and message == text(handler or {}, "message")


def _deadline_message(spec: Json, status: Json, steps: tuple[Node, ...]) -> str:
    """Argo tells of the Workflow's deadline on the nodes alone, and on some in the words it has for a template's
    own: those count if the Workflow's had passed."""
    allowed = spec.get("activeDeadlineSeconds")
    if allowed is None:
        allowed = mapping(status, "storedWorkflowTemplateSpec").get("activeDeadlineSeconds")
    started = seconds(status, "startedAt")
    over = started + allowed - _SECOND if started is not None and isinstance(allowed, int) else None
    for node in steps:
        if node.phase not in {NodePhase.FAILED, NodePhase.ERROR}:
            continue
        late = over is not None and node.ended is not None and node.ended >= over
        if "workflow deadline" in node.message or (late and "deadline" in node.message):
            return f"the workflow's deadline has passed: step {node.step}: {node.message}"
    return ""


def _nodes(status: Json) -> tuple[dict[str, Json], str]:
    """The nodes by id, wherever Argo keeps them, and why they cannot be read."""
    found: object = status.get("nodes")
    unreadable = ""
    compressed = text(status, "compressedNodes")
    if not found and compressed:
        try:
            found = _unpacked(compressed)
        except (ValueError, RecursionError, zlib.error):
            unreadable = "its status.compressedNodes cannot be read"
    elif not found and status.get("offloadNodeStatusVersion"):
        unreadable = (
            "its nodes are offloaded to a database that bridge does not read; "
            "set persistence.nodeStatusOffLoad to false in Argo's configuration"
        )
    if not isinstance(found, Mapping):
        return {}, unreadable
    return {str(key): node for key, node in found.items() if isinstance(node, Mapping)}, unreadable


def _unpacked(compressed: str) -> object:
    try:
        packed = base64.b64decode(compressed, validate=True)
    except binascii.Error as exc:
        raise ValueError("no base64") from exc
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = unpacker.decompress(packed, MAX_NODES_BYTES)
    if not unpacker.eof:
        raise ValueError("cut or too long")
    return json.loads(content)


def _steps(name: str, root: Json | None, nodes: Mapping[str, Json]) -> tuple[Node, ...]:
    if root is None:
        return ()
    within = [node for node in nodes.values() if node is not root and _is_task(node, root)]
    found = [_step(str(node["displayName"]), node, nodes) for node in within]
    if not found and root.get("type") in {"Pod", "Retry"}:
        # The entrypoint is a container, and its template's name the step's.
        found = [_step(str(root.get("templateName") or name), root, nodes)]
    return tuple(sorted(found, key=lambda node: (node.started or 0.0, node.step)))


def _is_task(node: Json, root: Json) -> bool:
    """Whether a node is a task of the entrypoint's; exit handlers and other hooks are not."""
    flags = mapping(node, "nodeFlag")
    shown = node.get("displayName")
    return (
        node.get("boundaryID") == root.get("id")
        and isinstance(shown, str)
        and _TASK_NAME.fullmatch(shown) is not None
        and not flags.get("hooked")
        and not flags.get("retried")
    )


def _step(step: str, node: Json, nodes: Mapping[str, Json]) -> Node:
    last = _last_retry(node, nodes)
    phase = _phase(node)
    code = _exit_code(node)
    message = text(node, "message")
    if last is not None:
        code = _exit_code(last) if code is None and phase.ended else code
        last_message = text(last, "message")
        if last_message and (not message or message.startswith(_RETRY_SAYS_LITTLE)):
            message = last_message
    if code == 0 and phase is not NodePhase.SUCCEEDED:
        # The process succeeded and something else did not: the code says nothing of the node.
        code = None
    return Node(
        step=step,
        phase=phase,
        exit_code=code,
        message=message,
        started=seconds(node, "startedAt"),
        ended=seconds(node, "finishedAt"),
    )


def _last_retry(node: Json, nodes: Mapping[str, Json]) -> Json | None:
    if node.get("type") != "Retry":
        return None
    children = node.get("children")
    tries = [nodes[child] for child in children if child in nodes] if isinstance(children, list) else []
    return max(tries, key=_number_of_try, default=None)


def _number_of_try(node: Json) -> int:
    found = re.search(r"\((\d{1,9})\)\Z", str(node.get("displayName") or ""))
    return int(found[1]) if found else -1


def _phase(node: Json) -> NodePhase:
    said = node.get("phase")
    try:
        return NodePhase(str(said)) if said else NodePhase.PENDING
    except ValueError:
        return NodePhase.RUNNING


def _exit_code(node: Json) -> int | None:
    """Argo writes it as text; -1 is what it says of a pod that left none."""
    said = mapping(node, "outputs").get("exitCode")
    if not isinstance(said, str) or not said.isascii() or not said.isdigit() or len(said) > 9:  # noqa: PLR2004
        return None
    return int(said)
