"""What the API server was asked, from its audit log."""

import contextlib
import json
import time
import uuid
from dataclasses import dataclass

from tests.cluster.client import ApiError, path
from tests.cluster.control_plane import ControlPlane

LOG_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """One request as the audit log has it. `user` is `system:serviceaccount:<namespace>:<name>` for a ServiceAccount.

    `name` is empty for lists and for a create that was forbidden: nobody read its body.
    """

    user: str
    agent: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    received: str
    uri: str


def audited(
    control_plane: ControlPlane,
    namespace: str,
    *,
    user: str | None = None,
    verb: str | None = None,
    resource: str | None = None,
) -> list[Request]:
    """All requests of this namespace that ended before the call (a watch: that began), oldest first, narrowed as asked.

    A ServiceAccount's short name will do for `user`.
    """
    requests = [_request(event) for event in _events(control_plane, namespace)]
    return [
        request
        for request in requests
        if request.namespace == namespace
        and user in (None, request.user, request.user.rpartition(":")[2])
        and verb in (None, request.verb)
        and resource in (None, request.resource)
    ]


def _events(control_plane: ControlPlane, namespace: str) -> list[dict]:
    # A log line may be written a moment after its answer was sent. What is asked last stands last.
    marker = f"audit-marker-{uuid.uuid4().hex}"
    with control_plane.admin.client() as admin, contextlib.suppress(ApiError):  # there is no such object
        admin.get(path("configmaps", "default", marker))
    deadline = time.monotonic() + LOG_SECONDS
    wanted = f'"namespace":"{namespace}"'.encode()
    while time.monotonic() < deadline:
        lines = control_plane.audit_log.read_bytes().split(b"\n")
        if any(marker.encode() in line for line in reversed(lines)):
            return [json.loads(line) for line in lines[:-1] if wanted in line]
        time.sleep(0.05)
    raise AssertionError(f"the marker of {LOG_SECONDS} s ago is not in {control_plane.audit_log}")


def _request(event: dict) -> Request:
    what = event["objectRef"]
    return Request(
        user=event["user"]["username"],
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource=what.get("resource", ""),
        subresource=what.get("subresource", ""),
        namespace=what.get("namespace", ""),
        name=what.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        received=event["requestReceivedTimestamp"],
        uri=event["requestURI"],
    )
