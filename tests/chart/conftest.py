"""The chart's tests need Helm, which is built once, and mostly the control plane of tests/cluster."""

from pathlib import Path

import pytest

from tests.cluster.conftest import (
    TEST_SECONDS,
    admin,
    built_binaries,
    control_plane,
    kubelet,
    make_namespace,
    namespace,
    realm,
)

__all__ = ["admin", "built_binaries", "control_plane", "kubelet", "make_namespace", "namespace", "realm"]


def pytest_collection_modifyitems(items):
    """All of them take what is built in minutes: whichever comes first may have to wait for it in a fixture."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session", autouse=True)
def helm_is_built(pytestconfig):
    """Helm, with a line about it that pytest does not capture."""
    from tests.chart.helming import helm_binary

    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        return helm_binary()
