"""One control plane for all tests of a pytest session, however many xdist workers it has; a namespace for each test."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.building import binaries
from tests.cluster.client import Access, ApiError, Client, path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.holding import using
from tests.cluster.kubelet import FakeKubelet

BUILD_AND_START_SECONDS = 3600
PATIENCE_SECONDS = 60


def pytest_collection_modifyitems(items):
    """Whichever test comes first may have to wait until the control plane is built."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(BUILD_AND_START_SECONDS))


@pytest.fixture(scope="session")
def built_binaries(pytestconfig) -> dict[str, Path]:
    """The control plane's binaries, built if need be, with lines of progress that pytest does not capture."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled() if capturing else contextlib.nullcontext():
        return binaries()


@pytest.fixture(scope="session")
def control_plane(built_binaries, tmp_path_factory) -> Iterator[ControlPlane]:
    """The control plane that all tests share. A test that breaks things starts its own (`control_plane.Processes`)."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker has its own below
    with using(folder / "control-plane") as shared:
        yield shared


@pytest.fixture(scope="session")
def admin(control_plane) -> Iterator[Client]:
    """A client that may do everything."""
    with control_plane.admin.client() as client:
        yield client


@pytest.fixture
def make_namespace(admin) -> Iterator[Callable[..., str]]:
    """`make_namespace(labels={…})` → name of a fresh namespace that has its default ServiceAccount."""
    made = []

    def make(**metadata: Any) -> str:
        name = f"t-{uuid.uuid4().hex[:10]}"
        admin.create(path("namespaces"), {"metadata": {"name": name, **metadata}})
        made.append(name)
        _eventually(lambda: admin.get(path("serviceaccounts", name, "default")))  # a Pod needs it
        return name

    yield make
    for name in made:
        admin.delete(path("namespaces", name=name))


@pytest.fixture
def namespace(make_namespace) -> str:
    """A fresh namespace of this test alone."""
    return make_namespace()


@pytest.fixture
def as_service_account(admin, control_plane, namespace) -> Callable[..., Access]:
    """`as_service_account(name, rules=[…])` → what a Pod of this ServiceAccount would hold: URL, CA and a fresh token.

    The account is made if there is none. `rules` become a Role of its own, bound to it, in the namespace and in each of
    `within`; they hold when the call returns. Without rules the account is what others made it.
    """

    def access(
        name: str,
        rules: list[dict[str, Any]] | None = None,
        *,
        home: str = namespace,
        within: tuple[str, ...] = (),
        seconds: int = 3600,
    ) -> Access:
        _create_if_absent(admin, path("serviceaccounts", home), {"metadata": {"name": name}})
        for where in (home, *within) if rules else ():
            _grant(admin, where, home, name, rules)
        request = {"spec": {"expirationSeconds": seconds}}
        answer = admin.create(path("serviceaccounts", home, name, "token"), request)
        return control_plane.access(answer["status"]["token"], home)

    return access


@pytest.fixture
def kubelet(control_plane) -> Iterator[FakeKubelet]:
    """A Node of this test alone, with logs that the test writes."""
    with FakeKubelet(control_plane) as fake:
        yield fake


def _grant(admin: Client, where: str, home: str, name: str, rules: list[dict[str, Any]] | None) -> None:
    role = f"{name}-{uuid.uuid4().hex[:8]}"
    admin.create(path("roles", where), {"metadata": {"name": role}, "rules": rules})
    binding = {
        "metadata": {"name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": home}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
    }
    admin.create(path("rolebindings", where), binding)
    for rule in rules or ():
        _eventually(lambda rule=rule: _assert_allowed(admin, where, f"system:serviceaccount:{home}:{name}", rule))


def _assert_allowed(admin: Client, where: str, user: str, rule: dict[str, Any]) -> None:
    resource, _, subresource = rule["resources"][0].partition("/")
    asked = {"namespace": where, "verb": rule["verbs"][0], "group": rule["apiGroups"][0], "resource": resource}
    asked |= {"subresource": subresource, "name": next(iter(rule.get("resourceNames", [])), "")}
    review = {"spec": {"user": user, "resourceAttributes": asked}}
    if not admin.create(path("subjectaccessreviews"), review)["status"]["allowed"]:
        raise ApiError("not allowed yet", 403, {})


def _create_if_absent(admin: Client, where: str, body: dict[str, Any]) -> None:
    try:
        admin.create(where, body)
    except ApiError as refused:
        if refused.status != 409:
            raise


def _eventually(act: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return act()
        except ApiError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)
