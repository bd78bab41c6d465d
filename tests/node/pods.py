"""Pods that really run: made, waited for, read."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from tests.cluster.accounts import PATIENCE_SECONDS
from tests.cluster.client import Client, path
from tests.node.images import Image

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""Labels of a namespace that takes only pods of Pod Security's strictest level."""
START_SECONDS = 2 * PATIENCE_SECONDS


def make_pod(admin: Client, namespace: str, image: Image, command: Sequence[str]) -> str:
    """Name of a new pod that runs this once, with as few rights as can be."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    container = {
        "name": "main",
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
    admin.create(path("pods", namespace), {"metadata": {"name": name}, "spec": spec})
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
