"""Which world a step's variables and flags mean, and that the other one is not imported."""

import json
import subprocess
import sys

import pytest

from bridge.errors import BadSettings, Misconfigured
from bridge.wiring.cluster_steps import ClusterPlace
from bridge.wiring.local_steps import LocalPlace
from bridge.wiring.places import ClusterFlags
from bridge.wiring.steps import place_of

STEP = {"BRIDGE_RUN": "push-r1", "BRIDGE_ATTEMPT": "1", "BRIDGE_STEP": "s"}
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def kubeconfig(tmp_path):
    """A kubeconfig whose context is in namespace `ci`."""
    content = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "ci"}},
            {"name": "other", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}},
        ],
        "current-context": "one",
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("folder", ["BRIDGE_STATE_DIR", "BRIDGE_PROJECTS_DIR"])
def test_a_folder_means_one_machine_whatever_else_is_there(tmp_path, kubeconfig, folder):
    told = {**STEP, **POD, "KUBECONFIG": kubeconfig, folder: str(tmp_path)}
    assert isinstance(place_of(ClusterFlags(namespace="brigade"), told), LocalPlace)


def test_without_anything_it_is_one_machine():
    assert isinstance(place_of(environment=STEP), LocalPlace)


@pytest.mark.parametrize("variable", ["KUBECONFIG", "BRIDGE_KUBECONFIG"])
def test_a_kubeconfig_means_a_cluster_and_its_namespace_is_the_records(kubeconfig, variable):
    place = place_of(environment={**STEP, variable: kubeconfig})
    assert isinstance(place, ClusterPlace)
    assert (place.namespace, place.brigade_namespace) == ("ci", "default")
    assert place_of(environment={**STEP, variable: kubeconfig, "BRIDGE_NAMESPACE": "runs"}).namespace == "runs"


def test_flags_win_over_variables(kubeconfig, tmp_path):
    told = {**STEP, "KUBECONFIG": str(tmp_path / "none"), "BRIDGE_KUBE_CONTEXT": "one", "BRIGADE_NAMESPACE": "a"}
    place = place_of(ClusterFlags(kubeconfig, "other", "b"), told)
    assert (place.namespace, place.brigade_namespace) == ("elsewhere", "b")


def test_a_pod_means_a_cluster_and_says_what_its_pod_lacks():
    with pytest.raises(Misconfigured, match="ServiceAccount"):
        place_of(environment={**STEP, **POD})


@pytest.mark.parametrize(
    ("flag", "told", "wanted"),
    [
        ("", {}, "default"),
        ("", {"BRIGADE_NAMESPACE": "a"}, "a"),
        ("", {"BRIGADE_NAMESPACE": "a", "BRIDGE_BRIGADE_NAMESPACE": "b"}, "b"),
        ("c", {"BRIGADE_NAMESPACE": "a"}, "c"),
        ("b", {"BRIDGE_BRIGADE_NAMESPACE": "b"}, "b"),
    ],
)
def test_brigades_namespace_is_the_flags_then_ours_then_brigs(kubeconfig, flag, told, wanted):
    place = place_of(ClusterFlags(namespace=flag), {**STEP, **told, "KUBECONFIG": kubeconfig})
    assert place.brigade_namespace == wanted


def test_a_runs_builds_are_not_made_where_its_controller_does_not_look(kubeconfig):
    told = {"KUBECONFIG": kubeconfig, "BRIDGE_BRIGADE_NAMESPACE": "b"}
    with pytest.raises(BadSettings, match="-n c"):
        place_of(ClusterFlags(namespace="c"), {**STEP, **told})
    assert place_of(ClusterFlags(namespace="c"), told).brigade_namespace == "c"


def test_a_long_build_is_looked_at_less_often_and_none_less_than_every_two_seconds(kubeconfig):
    place = place_of(environment={**STEP, "KUBECONFIG": kubeconfig})
    assert [place.pause(followed) for followed in (0, 10, 3600)] == [0.25, 1.0, 2.0]


@pytest.mark.parametrize(
    ("world", "needless"),
    [
        ("BRIDGE_STATE_DIR", {"urllib3", "bridge.cluster", "ssl"}),
        ("KUBECONFIG", {"sqlite3", "bridge.local", "bridge.local.node"}),
    ],
)
def test_of_the_two_worlds_only_one_is_imported(kubeconfig, world, needless):
    code = (
        "import sys, bridge.step; from bridge.wiring.steps import place_of; place = place_of(); "
        "place.runs(); print(*sys.modules)"
    )
    told = {**STEP, world: kubeconfig, "BRIDGE_JOBS": "host"}
    ran = subprocess.run([sys.executable, "-c", code], env=told, text=True, capture_output=True)
    heavy = {"hera", "flask", "pydantic", "typer", "rich", "githubkit", "structlog"}
    assert not (needless | heavy) & set(ran.stdout.split()), ran.stderr
