"""The contracts hold on a real API server too: tests/cluster builds and starts it."""

import pytest

from bridge.cluster.runs import SecretRuns
from tests.cluster.apis import api_of
from tests.cluster.conftest import admin, built_binaries, control_plane, make_namespace, namespace

__all__ = ["admin", "built_binaries", "control_plane", "make_namespace", "namespace"]


@pytest.fixture
def secret_runs(control_plane, namespace):
    """Records in a namespace of this test alone."""
    api = api_of(control_plane.admin)
    yield SecretRuns(api, namespace)
    api.close()
