"""Where a verb is shown to be needed: the chart's namespaces, with a project, a pipeline and a Brigade played by hand."""

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from bridge.cluster.api import Api
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.projects import SecretProjects
from bridge.core.events import Event
from bridge.core.names import build_id, project_id
from bridge.core.runs import Attempt, Kind, Run, with_attempt
from bridge.settings import Settings
from bridge.wiring.cluster import ClusterPorts, cluster_ports
from tests.chart.granted import bindings, without
from tests.chart.helming import of_kind
from tests.chart.placing import Place, apply
from tests.cluster.accounts import eventually, token_of
from tests.cluster.apis import api_of
from tests.cluster.auditing import LOG_SECONDS, Request, _request
from tests.cluster.brigades import HandBrigade, HastyClock
from tests.cluster.client import Access, ApiError, Client, path
from tests.cluster.control_plane import ControlPlane
from tests.fakes import some_event, some_run
from tests.local.building import a_spec, seen

PATIENCE_SECONDS = 60.0
PROJECT = "acme/widgets"
PIPELINE = "default"
SHARED_SECRET = "shared-secret-of-widgets"
RULES = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
RBAC = "rbac.authorization.k8s.io"
_COUNT = itertools.count(1)


class World:
    """The chart's objects in namespaces of their own, what is around them, and accounts that may do less."""

    def __init__(
        self, control_plane: ControlPlane, admin: Client, brigade: HandBrigade, place: Place, folder: Path
    ) -> None:
        self.control_plane = control_plane
        self.admin = admin
        self.brigade = brigade
        self.place = place
        self.folder = folder
        self.objects = place.rendered()
        self.used: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
        """By account and scenario: what it did as that account, as (where, resource, verb)."""
        for one in self.objects:
            if one["kind"] in {"ServiceAccount", *RULES, "WorkflowTemplate"}:
                apply(admin, one)
        admin.create(path("secrets", place.brigade), _project())

    def clusters(self) -> list[dict[str, Any]]:
        """The objects that belong to no namespace."""
        return [one for one in self.objects if "namespace" not in one["metadata"]]

    def whole(self, account: str) -> "Stage":
        """As an account of the chart itself, with all that the chart gives it."""
        (found,) = [one for one in of_kind(self.objects, "ServiceAccount") if one["metadata"]["name"] == account]
        home = found["metadata"]["namespace"]
        for binding, role in self._of(account):
            self._await(home, account, binding, role["rules"])
        return Stage(self, account, home)

    def less(self, account: str, where: str, resource: str, verb: str) -> "Stage":
        """As a new account that may do all that `account` may, but for one verb."""
        home, name = self.place.home, f"less-{uuid.uuid4().hex[:10]}"
        self.admin.create(path("serviceaccounts", home), {"metadata": {"name": name}})
        for number, (binding, role) in enumerate(self._of(account)):
            own = f"{name}-{number}"
            ref, rules = binding["roleRef"], role["rules"]
            is_meant = self.place.role_of(binding["metadata"].get("namespace")) == where
            if is_meant:
                rules = without(rules, resource, verb)
                ref = {**ref, "name": own}
            bound = {"metadata": {"name": own}, "roleRef": ref, "subjects": [_subject(name, home)]}
            self._bind(binding, bound, rules if is_meant else None)
            self._await(home, name, binding, rules)
        return Stage(self, name, home)

    def _of(self, account: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for binding, role in bindings(self.objects):
            if any(subject["name"] == account for subject in binding["subjects"]):
                yield binding, role

    def _bind(self, like: dict[str, Any], bound: dict[str, Any], rules: list[dict[str, Any]] | None) -> None:
        namespace = like["metadata"].get("namespace")
        if namespace is None:
            # Roles of the whole cluster hold one verb: without it nothing is left to bind.
            if rules is None:
                self.admin.create(path("clusterrolebindings"), bound)
            return
        if rules is not None:
            role = {"metadata": {"name": bound["metadata"]["name"]}, "rules": rules}
            self.admin.create(path("roles", namespace), role)
        self.admin.create(path("rolebindings", namespace), bound)

    def _await(self, home: str, name: str, binding: dict[str, Any], rules: list[dict[str, Any]]) -> None:
        """Until the API server knows of the binding."""
        for rule in rules[:1]:
            resource, _, subresource = rule["resources"][0].partition("/")
            attributes = {
                "namespace": binding["metadata"].get("namespace", ""),
                "verb": rule["verbs"][0],
                "group": rule["apiGroups"][0],
                "resource": resource,
                "subresource": subresource,
                "name": next(iter(rule.get("resourceNames", [])), ""),
            }
            review = {"spec": {"user": f"system:serviceaccount:{home}:{name}", "resourceAttributes": attributes}}
            eventually(
                lambda review=review: self.admin.create(path("subjectaccessreviews"), review)["status"]["allowed"],
                f"{name} may {rule}",
            )


class Stage:
    """The world as one account sees it."""

    def __init__(self, world: World, account: str, home: str) -> None:
        self.world = world
        self.place = world.place
        self.admin = world.admin
        self.brigade = world.brigade
        self.account = account
        self.user = f"system:serviceaccount:{home}:{account}"
        self.access = world.control_plane.access(token_of(world.admin, home, account), home)
        self._closing = contextlib.ExitStack()
        self.began = world.control_plane.audit_log.stat().st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def later(self, act: Callable[[], object]) -> None:
        """Do this when the scenario is over, whatever came of it."""
        self._closing.callback(act)

    @cached_property
    def settings(self) -> Settings:
        """What the chart tells a process, for this account."""
        return self._settings(self.access)

    @cached_property
    def ports(self) -> ClusterPorts:
        """The product's adapters as this account."""
        return self._ports(self.settings)

    @cached_property
    def as_admin(self) -> ClusterPorts:
        """The same, allowed everything: for what others do."""
        return self._ports(self._settings(self.world.control_plane.admin))

    @cached_property
    def api(self) -> Api:
        """Raw calls as this account."""
        api = api_of(self.access)
        self.later(api.close)
        return api

    def run(self, *, attempted: bool = False, **changes: Any) -> Run:
        """A record of its own; with a first attempt whose Workflow is not submitted."""
        run_id = f"default-{uuid.uuid4().hex[:12]}"
        event = some_event(delivery=run_id, project=PROJECT, payload=b"")
        stored = self.as_admin.runs.create(
            some_run(run_id, pipeline=PIPELINE, event=event, accepted=time.time(), **changes), b'{"a": 1}'
        ).run
        if not attempted:
            return stored
        begun = Attempt(1, Kind.FIRST, 1, begun=time.time(), steps=("event",), on_failure="build_failed")
        return self.as_admin.runs.change(run_id, lambda now: with_attempt(now, begun))

    def build(self, run: Run, *, started: bool = True, number: int = 1):
        """A build of the run's step, made by somebody else; its worker runs."""
        one = build_id(run=run.id, epoch=1, step="event", number=number)
        spec = a_spec(one, run=run.id, step="event", number=number, pipeline=PIPELINE, event=event_of(run))
        admin = self.as_admin
        projects = SecretProjects(admin.api, admin.brigade_namespace)
        BrigadeBuilds(admin.api, admin.brigade_namespace, projects, clock=HastyClock).create(spec)
        if started:
            self.brigade.start(one)
        return seen(self.as_admin.builds, one, run=run.id)

    def requests(self) -> list[Request]:
        """What this account asked for since it was made, as the audit log has it."""
        return [_request(event) for event in self._audited()]

    def refused(self) -> set[tuple[str, str, str]]:
        """What it was forbidden: (where, resource, verb)."""
        return {self._told(one) for one in self.requests() if one.code == 403}

    def did(self) -> set[tuple[str, str, str]]:
        """What it was not forbidden."""
        return {self._told(one) for one in self.requests() if one.code != 403}

    def _told(self, one: Request) -> tuple[str, str, str]:
        resource = one.resource + (f"/{one.subresource}" if one.subresource else "")
        group = one.uri.split("/")[2] if one.uri.startswith("/apis/") else ""
        return self.place.role_of(one.namespace or None), f"{resource}.{group}" if group else resource, one.verb

    def _audited(self) -> list[dict[str, Any]]:
        # A line may be written a moment after its answer was sent. What is asked last stands last.
        marker = f"audit-marker-{uuid.uuid4().hex}"
        with contextlib.suppress(ApiError):
            self.admin.get(path("configmaps", "default", marker))
        deadline = time.monotonic() + LOG_SECONDS
        wanted = f'"username":"{self.user}"'.encode()
        while time.monotonic() < deadline:
            with self.world.control_plane.audit_log.open("rb") as log:
                log.seek(self.began)
                lines = log.read().split(b"\n")
            if any(marker.encode() in line for line in reversed(lines)):
                return [json.loads(line) for line in lines[:-1] if wanted in line]
            time.sleep(0.05)
        raise AssertionError(f"the audit log does not come to {marker}")

    def _settings(self, access: Access) -> Settings:
        file = access.write_kubeconfig(self.world.folder / f"kubeconfig-{next(_COUNT)}")
        return Settings(
            kubeconfig=file,
            namespace=self.place.runs,
            brigade_namespace=self.place.brigade,
            lease_namespace=self.place.home,
            anonymous_read=True,
            act_tokens=("token-of-somebody",),
        )

    def _ports(self, settings: Settings) -> ClusterPorts:
        # Patient: CI is loaded.
        ports = cluster_ports(settings, timeout_seconds=PATIENCE_SECONDS, connect_timeout_seconds=30.0)
        self.later(ports.api.close)
        self.later(ports.pipelines.stop)
        self.later(ports.projects.stop)
        return ports


def event_of(run: Run) -> Event:
    """The event with its payload."""
    return replace(run.event, payload=b'{"a": 1}')


class Refusal(Exception):
    """A watch was refused; the audit log says what."""


def until(holds: Callable[[], bool], what: str, *watchings: Any) -> None:
    """Wait until it holds. Raises Refusal if one of these watches meets trouble, as the watch goes on for ever."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        for one in watchings:
            if one._trouble.said:
                raise Refusal(one._trouble.said)
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        time.sleep(0.02)


def _subject(name: str, home: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": name, "namespace": home}


def _project() -> dict[str, Any]:
    return {
        "metadata": {
            "name": project_id(PROJECT),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
            "annotations": {"projectName": PROJECT, "bridge.brigade.sh/default-pipeline": "true"},
        },
        "type": "brigade.sh/project",
        "stringData": {"sharedSecret": SHARED_SECRET, "cloneURL": "https://git.example.com/acme/widgets.git"},
    }
