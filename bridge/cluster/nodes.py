"""Which node of which Argo Workflow a pod is, from the pod itself: for templates that say nothing of it."""

import re

from bridge.cluster.api import PODS, Api
from bridge.core.kubernetes import mapping, mappings, text
from bridge.errors import BadSettings, Forbidden, NotFound

NODE_NAME_ANNOTATION = "workflows.argoproj.io/node-name"
NODE_ID_ANNOTATION = "workflows.argoproj.io/node-id"

_RETRY = re.compile(r"\(\d+\)\Z")
_REMEDY = (
    "set BRIDGE_WORKFLOW_UID to {{workflow.uid}} and BRIDGE_STEP to the step's name in the template's env, "
    "so that a retry by Argo finds its build again"
)


def own_node(api: Api, namespace: str, pod: str, node_id: str) -> tuple[str, str]:
    """The uid of the Workflow that made this pod, and the node's name without Argo's number of the try.

    Raises BadSettings with the remedy if the pod cannot tell, and EngineError if it cannot be asked now.
    """
    try:
        metadata = mapping(api.get(PODS, namespace, pod, metadata_only=True), "metadata")
    except (NotFound, Forbidden) as exc:
        raise BadSettings(f"which step of a Workflow this is cannot be told ({exc}); {_REMEDY}") from exc
    annotations = mapping(metadata, "annotations")
    name = text(annotations, NODE_NAME_ANNOTATION)
    uid = next(
        (text(one, "uid") for one in mappings(metadata, "ownerReferences") if one.get("kind") == "Workflow"), ""
    )
    if not name or not uid or text(annotations, NODE_ID_ANNOTATION) not in {"", node_id}:
        raise BadSettings(f"pod {pod[:100]} does not say which step of a Workflow it is; {_REMEDY}")
    return uid, _RETRY.sub("", name)
