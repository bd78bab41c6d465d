"""Pods that really run: made, waited for, read."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.accounts import PATIENCE_SECONDS
from tests.cluster.client import Client, path
from tests.node.images import Image

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""Labels of a namespace that takes only pods of Pod Security's strictest level."""
START_SECONDS = 2 * PATIENCE_SECONDS


def make_pod(
    admin: Client,
    namespace: str,
    image: Image,
    command: Sequence[str],
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    container_name: str = "main",
) -> str:
    """Name of a new pod that runs this once, with as few rights as can be."""
    name = name or f"p-{uuid.uuid4().hex[:8]}"
    container = {
        "name": container_name,
        "image": image.name,
        "imagePullPolicy": "Never",
        "command": list(command),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    admin.create(path("pods", namespace), {"metadata": {"name": name, "labels": dict(labels or {})}, "spec": spec})
    return name


def make_pod_of_template(
    admin: Client, namespace: str, workflow: Mapping[str, Any], template: Mapping[str, Any], step: str
) -> str:
    """Name of a new pod as Argo makes it for this step of a Workflow, but for Argo's own containers."""
    metadata = workflow["metadata"]
    given = {
        f"workflow.parameters.{one['name']}": one.get("value", "")
        for one in template["spec"]["arguments"]["parameters"]
    }
    given |= {
        f"workflow.parameters.{one['name']}": one["value"] for one in workflow["spec"]["arguments"]["parameters"]
    }
    given |= {"workflow.name": metadata["name"], "workflow.uid": metadata["uid"]}
    text = json.dumps(template["spec"])
    for name, value in given.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    spec = json.loads(text)
    (wanted,) = [one for one in spec["templates"] if one["name"] == step]
    name = f"{metadata['name']}-{step}-{uuid.uuid4().hex[:8]}"
    labels = {**spec["podMetadata"]["labels"], **wanted["metadata"]["labels"]}
    pod = {
        "restartPolicy": "Never",
        "dnsPolicy": "Default",
        "serviceAccountName": spec["serviceAccountName"],
        "securityContext": spec["securityContext"],
        "volumes": spec["volumes"],
        "containers": [{"name": "main", **wanted["container"]}],
    }
    admin.create(path("pods", namespace), {"metadata": {"name": name, "labels": labels}, "spec": pod})
    return name


def wait_for_end(admin: Client, namespace: str, name: str) -> dict[str, Any]:
    """How the pod's container ended: `exitCode`, `reason`."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        pod = admin.get(path("pods", namespace, name))
        [state] = [one["state"] for one in pod["status"].get("containerStatuses", [])] or [{}]
        if ended := state.get("terminated"):
            return ended
        assert time.monotonic() < deadline, f"{name} has not ended in {START_SECONDS} s: {pod['status']}"
        time.sleep(0.1)


def logs(admin: Client, namespace: str, name: str) -> str:
    """What the pod has printed."""
    answer = admin.stream(path("pods", namespace, name, "log"))
    try:
        return answer.read().decode()
    finally:
        answer.close()
