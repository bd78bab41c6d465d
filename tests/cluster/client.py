"""A small client of the API server, for tests: JSON in, JSON out, every refusal an ApiError."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import urllib3

KINDS = {
    kind: prefix
    for prefix, kinds in {
        "/api/v1": (
            "configmaps endpoints events namespaces nodes persistentvolumeclaims persistentvolumes pods resourcequotas "
            "secrets serviceaccounts services"
        ),
        "/apis/apps/v1": "deployments replicasets",
        "/apis/argoproj.io/v1alpha1": "workflows workflowtemplates workflowtaskresults",
        "/apis/apiextensions.k8s.io/v1": "customresourcedefinitions",
        "/apis/authorization.k8s.io/v1": "subjectaccessreviews",
        "/apis/coordination.k8s.io/v1": "leases",
        "/apis/networking.k8s.io/v1": "networkpolicies ingresses",
        "/apis/policy/v1": "poddisruptionbudgets",
        "/apis/rbac.authorization.k8s.io/v1": "roles rolebindings clusterroles clusterrolebindings",
    }.items()
    for kind in kinds.split()
}
"""Where the kinds live that tests speak of."""

PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


def path(kind: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """`path("pods", "ns", "p", "log")` → `/api/v1/namespaces/ns/pods/p/log`."""
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{KINDS[kind]}{within}/{kind}" + "".join(f"/{part}" for part in (name, sub) if part)


class ApiError(Exception):
    """The API server refused: `status` is the HTTP code, `reason` Kubernetes' word (`AlreadyExists`), `body` its Status."""

    def __init__(self, act: str, status: int, body: Any) -> None:
        self.status = status
        self.body = body
        self.reason = body.get("reason", "") if isinstance(body, dict) else ""
        message = body.get("message", "") if isinstance(body, dict) else str(body)
        super().__init__(f"{act}: {status} {self.reason}: {message[:500]}")


@dataclass(frozen=True)
class Access:
    """Who one is to the API server and where it is: what a kubeconfig says."""

    url: str
    ca_file: Path
    token: str
    namespace: str = "default"

    def client(self) -> "Client":
        """A client that acts as this one; close it or use it in `with`."""
        return Client(self)

    def write_kubeconfig(self, file: Path) -> Path:
        """The same as a kubeconfig file, readable by its owner only."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "tests", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": "tests", "user": {"token": self.token}}],
            "contexts": [
                {"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": self.namespace}}
            ],
            "current-context": "tests",
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(config, indent=2))  # JSON is YAML
        return file


class Client:
    """Requests of one `Access`. Retries nothing and follows nothing: a test wants to see what happened."""

    def __init__(self, access: Access, *, timeout_seconds: float = 60) -> None:
        self.access = access
        self._pool = urllib3.PoolManager(
            maxsize=16,
            retries=False,
            timeout=timeout_seconds,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(access.ca_file),
            headers={"Authorization": f"Bearer {access.token}", "Accept": "application/json"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()

    def request(
        self, verb: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: Any
    ) -> Any:
        """One request; the decoded answer, or ApiError from 400 up. A body of bytes is sent as it is."""
        answer = self._pool.request(
            verb,
            self._url(path, query),
            body=json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body,
            headers={**self._pool.headers, "Content-Type": content_type},
        )
        return _decoded(f"{verb} {path}", answer.status, answer.data)

    def get(self, path: str, **query: Any) -> Any:
        """The object or list there."""
        return self.request("GET", path, **query)

    def create(self, path: str, body: Any, **query: Any) -> Any:
        """Create it in the collection there; what was stored."""
        return self.request("POST", path, body, **query)

    def replace(self, path: str, body: Any, **query: Any) -> Any:
        """Put it there."""
        return self.request("PUT", path, body, **query)

    def patch(self, path: str, body: Any, *, kind: str = "merge", **query: Any) -> Any:
        """Patch it: kind is a key of PATCHES. `kind="apply"` needs `fieldManager=`."""
        return self.request("PATCH", path, body, content_type=PATCHES[kind], **query)

    def delete(self, path: str, body: Any = None, **query: Any) -> Any:
        """Delete it, or with a collection's path all of it; `body` is a DeleteOptions."""
        return self.request("DELETE", path, body, **query)

    def stream(self, path: str, *, timeout_seconds: float = 60, **query: Any) -> urllib3.BaseHTTPResponse:
        """The open answer of a GET (a log that is followed): read from it, then `close()` it."""
        answer = self._pool.request("GET", self._url(path, query), preload_content=False, timeout=timeout_seconds)
        if answer.status >= 400:
            _decoded(f"GET {path}", answer.status, answer.data)
        return answer

    def watch(self, path: str, *, timeout_seconds: float = 60, **query: Any) -> Iterator[dict[str, Any]]:
        """Watch events of the collection there as `{"type", "object"}`, until the server ends it."""
        answer = self.stream(path, timeout_seconds=timeout_seconds, watch=True, **query)
        try:
            rest = b""
            for chunk in answer.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            answer.close()

    def _url(self, path: str, query: dict[str, Any]) -> str:
        given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items() if v is not None}
        return f"{self.access.url}{path}?{urlencode(given)}" if given else self.access.url + path


def _decoded(act: str, status: int, data: bytes) -> Any:
    try:
        body = json.loads(data)
    except ValueError:
        body = data.decode(errors="replace")
    if status >= 400:
        raise ApiError(act, status, body)
    return body
