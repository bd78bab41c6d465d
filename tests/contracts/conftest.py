"""The contracts hold on a real API server too: tests/cluster builds and starts it."""

import pytest

from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.engine import ArgoEngine
from bridge.cluster.runs import SecretRuns
from tests.cluster.apis import api_of
from tests.cluster.brigades import EndingPods, HandBrigade, HastyClock
from tests.cluster.client import path
from tests.cluster.conftest import admin, built_binaries, control_plane, kubelet, make_namespace, namespace
from tests.cluster.obedient import ObedientArgo
from tests.fakes import FakeProjects
from tests.local.building import PROJECT

__all__ = ["admin", "built_binaries", "control_plane", "kubelet", "make_namespace", "namespace"]


@pytest.fixture
def secret_runs(control_plane, namespace):
    """Records in a namespace of this test alone."""
    api = api_of(control_plane.admin)
    yield SecretRuns(api, namespace)
    api.close()


@pytest.fixture
def argo_engine(control_plane, admin, namespace, secret_runs):
    """`argo_engine(runs, templates)` → an engine with these records and WorkflowTemplates, whose Workflows obey."""
    api = api_of(control_plane.admin)

    with ObedientArgo(api, namespace):

        def engine(runs, templates):
            for run in runs:
                secret_runs.create(run, b"{}")
            for template in templates:
                admin.create(path("workflowtemplates", namespace), template)
            return ArgoEngine(api, namespace)

        yield engine
    api.close()


@pytest.fixture
def brigade_builds(control_plane, admin, kubelet, namespace):
    """Builds in a namespace, and the Brigade that does with them what a test says."""
    api = api_of(control_plane.admin)
    brigade = HandBrigade(admin, kubelet, namespace)
    with EndingPods(brigade):
        yield BrigadeBuilds(api, namespace, FakeProjects([PROJECT]), clock=HastyClock), brigade
    api.close()
