"""One control plane for all tests of a pytest session, however many xdist workers it has; a namespace for each test."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.accounts import Rule, create_account, eventually, grant, token_of
from tests.cluster.building import binaries
from tests.cluster.client import Access, Client, path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controlled import PlayingBrigade, Realm
from tests.cluster.holding import using
from tests.cluster.kubelet import FakeKubelet

TEST_SECONDS = 600


def pytest_collection_modifyitems(items):
    """Whichever test comes first may have to wait until the control plane is built: fixtures have their own deadlines."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


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
        accounts = path("serviceaccounts", name)
        # A Pod needs it.
        eventually(lambda: admin.get(accounts)["items"], f"{name} has its default ServiceAccount")
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

    The account is made if there is none, in the test's namespace or in `home`. `rules` become a Role bound to it, there and in
    each namespace of `within`, and hold when the call returns. Without rules it may do what others gave it
    (accounts.await_allowed waits for that).
    """

    def access(
        name: str,
        rules: Sequence[Rule] = (),
        *,
        home: str = namespace,
        within: Sequence[str] = (),
    ) -> Access:
        create_account(admin, home, name)
        for where in (home, *within) if rules else ():
            grant(admin, where, home, name, list(rules))
        return control_plane.access(token_of(admin, home, name), home)

    return access


@pytest.fixture
def kubelet(control_plane) -> Iterator[FakeKubelet]:
    """A Node of this test alone, with logs that the test writes."""
    with FakeKubelet(control_plane) as fake:
        yield fake


@pytest.fixture
def realm(control_plane, admin, make_namespace, tmp_path) -> Iterator[Realm]:
    """The chart's namespaces and accounts, for a real controller or gateway."""
    with Realm(control_plane, admin, make_namespace, tmp_path) as realm:
        yield realm


@pytest.fixture
def playing_brigade(realm, admin, kubelet) -> Iterator[PlayingBrigade]:
    """A Brigade that plays along in the realm."""
    with PlayingBrigade(admin, kubelet, realm.brigade_namespace) as brigade:
        yield brigade
