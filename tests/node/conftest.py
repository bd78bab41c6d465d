"""One node for all of these tests, which need root: on it the project's image really runs."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.building import CannotBuild
from tests.cluster.conftest import admin, as_service_account, make_namespace, namespace
from tests.cluster.control_plane import CannotStart, ControlPlane
from tests.cluster.holding import using
from tests.cluster.node import import_image, prepare, why_not
from tests.conftest import EXCUSED
from tests.node.images import Image, project_image

__all__ = ["admin", "as_service_account", "make_namespace", "namespace"]

TEST_SECONDS = 600


def pytest_collection_modifyitems(items):
    """Mark them; whichever comes first may have to wait until everything is built: fixtures have their own deadlines."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.node)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def progress(pytestconfig):
    """`with progress():` lines that a person who waits should see."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    return capturing.global_and_fixture_disabled if capturing else contextlib.nullcontext


@pytest.fixture(scope="session")
def control_plane(progress, tmp_path_factory) -> Iterator[ControlPlane]:
    """The node's control plane."""
    if reason := why_not():
        pytest.skip((EXCUSED if os.geteuid() != 0 else "") + reason)
    try:
        with progress():
            prepare()
    except (CannotBuild, CannotStart) as failure:
        pytest.skip(str(failure))
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker has its own below
    with using(folder / "node", own_crds=True, node=True) as shared:
        yield shared


@pytest.fixture(scope="session")
def image(progress, control_plane) -> Image:
    """The image of this working tree, on the node."""
    with progress():
        built = project_image()
    import_image(control_plane.folder, built.archive)
    return built
