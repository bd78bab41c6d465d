"""A cluster in which bridge, Argo and Brigade are as they should be, as far as objects tell; and things broken in it."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from bridge.core.names import project_id
from bridge.core.permissions import ACCOUNTS, RIGHTS, Place, Right
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.fake_replies import Reply
from tests.cluster.client import ApiError, Client, path

PROJECT = "acme/widgets"
TOKEN = "ghp_token-of-widgets"
SHARED_SECRET = "the-shared-secret"
SECRETS = (TOKEN, SHARED_SECRET, "the-default-secret", "the-generic-secret")
"""What nobody may ever see."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE_SECONDS = 60


class GitHub(FakeGitHub):
    """One that says how much of the rate limit is left."""

    remaining = 4990

    def answer(self, method, target, headers, body):
        if urlsplit(target).path == "/rate_limit":
            if self.offline:
                return None
            rate = {"limit": 5000, "remaining": self.remaining, "reset": int(time.time()) + 1800}
            return Reply(200, {"rate": rate})
        return super().answer(method, target, headers, body)


@dataclass
class Healthy:
    """The namespaces and what is in them. `make` first; `remove` at the end."""

    admin: Client
    runs: str = field(default_factory=lambda: _name("runs"))
    brigade: str = field(default_factory=lambda: _name("brigade"))
    release: str = field(default_factory=lambda: _name("release"))
    argo: str = field(default_factory=lambda: _name("argo"))

    def make(self) -> None:
        for name in (self.runs, self.brigade, self.release, self.argo):
            labels = RESTRICTED if name == self.runs else {}
            self.admin.create(path("namespaces"), {"metadata": {"name": name, "labels": labels}})
        self._accounts()
        self._argo()
        self._brigade()
        self._bridge()

    def remove(self) -> None:
        for name in (self.runs, self.brigade, self.release, self.argo):
            self.admin.delete(path("namespaces", name=name))
        for kind in ("clusterrolebindings", "clusterroles"):
            self.admin.delete(path(kind, name=self.role(_OF_CLUSTER)))

    def of(self, place: Place) -> str | None:
        return {Place.RUNS: self.runs, Place.BRIGADE: self.brigade, Place.RELEASE: self.release}.get(place)

    def role(self, right: Right) -> str:
        """A Role of its own for each right."""
        return f"{right.account.name}-{right.place}-{right.resource.replace('/', '-')}-{'-'.join(right.verbs)}-{self.runs}"

    def role_path(self, right: Right) -> str:
        kind = "clusterroles" if right.place is Place.CLUSTER else "roles"
        return path(kind, self.of(right.place), self.role(right))

    def _accounts(self) -> None:
        for account in ACCOUNTS:
            self.admin.create(path("serviceaccounts", self.of(account.home)), {"metadata": {"name": account.name}})
        for right in RIGHTS:
            self._grant(right)

    def _grant(self, right: Right) -> None:
        where, name = self.of(right.place), self.role(right)
        kinds = ("clusterroles", "clusterrolebindings") if where is None else ("roles", "rolebindings")
        rule = {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        if right.name:
            rule["resourceNames"] = [right.name]
        self.admin.create(path(kinds[0], where), {"metadata": {"name": name}, "rules": [rule]})
        home = self.of(right.account.home)
        binding = {
            "metadata": {"name": name},
            "subjects": [{"kind": "ServiceAccount", "name": right.account.name, "namespace": home}],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole" if where is None else "Role",
                "name": name,
            },
        }
        self.admin.create(path(kinds[1], where), binding)

    def _argo(self) -> None:
        self.deploy(
            self.argo,
            "workflow-controller",
            image="quay.example.com/argoproj/workflow-controller:v4.1.4",
            command=["workflow-controller"],
            args=["--namespaced", "--managed-namespace", self.runs],
        )
        config = {"metadata": {"name": "workflow-controller-configmap"}, "data": {"config": "instanceID: ours\n"}}
        self.admin.create(path("configmaps", self.argo), config)
        self.workflow("looked-at", phase="Succeeded")

    def workflow(self, name: str, *, phase: str = "") -> str:
        labels = {"workflows.argoproj.io/phase": phase} if phase else {}
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name, "labels": labels},
            "spec": {"workflowTemplateRef": {"name": "pull-request"}},
        }
        self.admin.create(path("workflows", self.runs), manifest)
        return path("workflows", self.runs, name)

    def _brigade(self) -> None:
        self.deploy(
            self.brigade, "brigade-ctrl", image="brigadecore/brigade-controller:v1.4.0", command=[], args=[]
        )
        self.admin.create(path("serviceaccounts", self.brigade), {"metadata": {"name": "brigade-worker"}})
        self.project(PROJECT)

    def project(self, name: str, **data: str) -> str:
        known = {
            "sharedSecret": SHARED_SECRET,
            "genericGatewaySecret": "the-generic-secret",
            "github.token": TOKEN,
            "repository": f"github.com/{name}",
            "cloneURL": f"https://github.com/{name}.git",
            "vcsSidecar": "images.example.com/brigade-argo-bridge-sidecar:0.1.0",
        }
        secret = {
            "metadata": {
                "name": project_id(name),
                "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
                "annotations": {"projectName": name},
            },
            "type": "brigade.sh/project",
            "stringData": {**known, **data},
        }
        self.admin.create(path("secrets", self.brigade), secret)
        return path("secrets", self.brigade, project_id(name))

    def build(self, name: str, **labels: str) -> str:
        """The Secret of a build of Brigade's."""
        told = {"heritage": "brigade", "component": "build", "build": name, **labels}
        body = {"metadata": {"name": f"brigade-worker-{name}", "labels": told}, "type": "brigade.sh/build"}
        self.admin.create(path("secrets", self.brigade), body)
        return path("secrets", self.brigade, f"brigade-worker-{name}")

    def pipeline(self, name: str, projects: str, on: str = "push") -> str:
        annotations = {"bridge.brigade.sh/projects": projects, "bridge.brigade.sh/on": on}
        main = {"name": "main", "dag": {"tasks": [{"name": "build", "template": "build"}]}}
        build = {
            "name": "build",
            "container": {"image": "none", "command": ["brig"], "args": ["run", "-e", "build"]},
        }
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTemplate",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"entrypoint": "main", "templates": [main, build]},
        }
        self.admin.create(path("workflowtemplates", self.runs), manifest)
        return path("workflowtemplates", self.runs, name)

    def _bridge(self) -> None:
        self.pipeline("pull-request", PROJECT)
        step = {"BRIDGE_BRIGADE_NAMESPACE": self.brigade, "BRIDGE_GATEWAY_URL": "http://bridge-gateway"}
        both = {
            "BRIDGE_NAMESPACE": self.runs,
            "BRIDGE_BRIGADE_NAMESPACE": self.brigade,
            "BRIDGE_PUBLIC_URL": "https://bridge.example.com",
        }
        maps = (
            (self.runs, "bridge-step", step),
            (self.release, "bridge-gateway", both),
            (self.release, "bridge-controller", {**both, "BRIDGE_ARGO_INSTANCE_ID": "ours"}),
        )
        for where, name, data in maps:
            self.admin.create(path("configmaps", where), {"metadata": {"name": name}, "data": data})
        reference = {"secretKeyRef": {"name": "bridge-tokens", "key": "default-shared-secret", "optional": True}}
        env = [{"name": "BRIDGE_DEFAULT_SHARED_SECRET", "valueFrom": reference}]
        self.deploy(self.release, "bridge-gateway", image="bridge", command=["bridgectl"], args=["serve"], env=env)
        self.deploy(self.release, "bridge-controller", image="bridge", command=["bridgectl"], args=["controller"])
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": "bridge-controller-1", "leaseDurationSeconds": 15, "renewTime": renewed}
        self.admin.create(path("leases", self.release), {"metadata": {"name": "bridge-controller"}, "spec": spec})

    def quota(self, pods: int) -> str:
        """A ResourceQuota, whose controller has counted."""
        body = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(pods)}}}
        self.admin.create(path("resourcequotas", self.runs), body)
        return path("resourcequotas", self.runs, "full")

    def record(self, name: str, **annotations: str) -> str:
        """A Secret that says it is a record."""
        told = {f"bridge.brigade.sh/{key}": value for key, value in annotations.items()}
        body = {"metadata": {"name": name, "annotations": told}, "type": "bridge.brigade.sh/run"}
        self.admin.create(path("secrets", self.runs), body)
        return path("secrets", self.runs, name)

    def renew(self) -> None:
        """The leader renews its Lease."""
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.admin.patch(path("leases", self.release, "bridge-controller"), {"spec": {"renewTime": renewed}})

    def deploy(self, where: str, name: str, **container: Any) -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", **container}]}}
        manifest = {
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
        self.admin.create(path("deployments", where), manifest)
        self.ready(path("deployments", where, name), 1)

    def ready(self, deployment: str, replicas: int) -> None:
        """The Deployment's controller, which does not run here, says so."""
        status = {"replicas": 1, "readyReplicas": replicas, "availableReplicas": replicas}
        self.admin.patch(f"{deployment}/status", {"status": status})


@contextlib.contextmanager
def patched(admin: Client, where: str, patch: Any, *, kind: str = "merge") -> Iterator[None]:
    """An object changed, and as it was afterwards."""
    before = admin.get(where)
    admin.patch(where, patch, kind=kind)
    try:
        yield
    finally:
        before["metadata"]["resourceVersion"] = admin.get(where)["metadata"]["resourceVersion"]
        admin.replace(where, before)


@contextlib.contextmanager
def unready(world: Healthy, where: str, name: str) -> Iterator[None]:
    """A Deployment without ready pods, and with one afterwards."""
    deployment = path("deployments", where, name)
    world.ready(deployment, 0)
    try:
        yield
    finally:
        world.ready(deployment, 1)


@contextlib.contextmanager
def gone(admin: Client, where: str, *, status: bool = False) -> Iterator[None]:
    """An object that is not there, and there again afterwards; with its status too, if that is a subresource."""
    before = admin.get(where)
    admin.delete(where)
    try:
        yield
    finally:
        for key in ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"):
            before["metadata"].pop(key, None)
        admin.create(where.rpartition("/")[0], before)
        if status:
            admin.patch(f"{where}/status", {"status": before["status"]})


@contextlib.contextmanager
def there(admin: Client, where: str) -> Iterator[None]:
    """An object that was made for this, and is gone afterwards."""
    try:
        yield
    finally:
        with contextlib.suppress(ApiError):
            admin.delete(where)


def _name(part: str) -> str:
    return f"t-{part}-{uuid.uuid4().hex[:8]}"


_OF_CLUSTER = next(right for right in RIGHTS if right.place is Place.CLUSTER)
