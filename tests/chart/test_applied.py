"""The chart's objects on a real API server: each is taken, and the pods fit Pod Security `restricted`."""

import copy

import pytest

from tests.chart.helming import CHART, RELEASE, Refused, bare, everything, helm, of_kind, rendered
from tests.chart.placing import Place, apply, remove
from tests.cluster.accounts import create_account
from tests.cluster.client import ApiError, path

OF_THE_PROMETHEUS_OPERATOR = ("PodMonitor", "PrometheusRule")
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


@pytest.fixture
def place(make_namespace):
    return Place(*(make_namespace() for _ in range(3)))


def somewhere(values, place):
    """These values, for these namespaces."""
    more = {
        key: value
        for key, value in values.items()
        if isinstance(value, dict) and key not in {"workflows", "brigade"}
    }
    more["workflows"] = {**values.get("workflows", {}), "namespace": place.runs}
    return {**values, **place.values(**more)}


@pytest.mark.parametrize("values", [{}, everything(), bare()], ids=["default", "everything", "bare"])
def test_every_object_is_taken_and_a_second_time_changes_nothing(values, admin, place):
    objects = rendered(somewhere(values, place), namespace=place.home)
    clusters = [one for one in objects if "namespace" not in one["metadata"]]
    try:
        taken = [one for one in objects if one["kind"] not in OF_THE_PROMETHEUS_OPERATOR]
        assert len(taken) > 5
        for one in taken:
            first = apply(admin, one)
            again = apply(admin, one)
            assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], one["kind"]
    finally:
        for one in clusters:
            remove(admin, one)


def test_a_misspelt_field_would_be_refused(admin, place):
    (budget, *_) = of_kind(place.rendered(), "PodDisruptionBudget")
    wrong = copy.deepcopy(budget)
    wrong["spec"]["maxUnavailible"] = 1
    with pytest.raises(ApiError, match="maxUnavailible"):
        apply(admin, wrong)


@pytest.mark.parametrize("values", [{}, everything()], ids=["default", "everything"])
def test_pods_of_the_deployments_are_taken_where_pod_security_is_restricted(values, admin, make_namespace, place):
    strict = make_namespace(labels=RESTRICTED)
    objects = rendered(somewhere(values, place), namespace=place.home)
    deployments = of_kind(objects, "Deployment")
    assert len(deployments) == 2
    for one in deployments:
        template = one["spec"]["template"]
        create_account(admin, strict, template["spec"]["serviceAccountName"])
        spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
        pod = {"metadata": {**template["metadata"], "name": one["metadata"]["name"]}, "spec": spec}
        stored = admin.create(path("pods", strict), pod, fieldValidation="Strict")
        assert stored["spec"]["securityContext"]["runAsUser"] == 65532


def test_a_pod_that_may_more_is_refused_there(admin, make_namespace, place):
    strict = make_namespace(labels=RESTRICTED)
    (deployment, *_) = of_kind(place.rendered(), "Deployment")
    spec = copy.deepcopy(deployment["spec"]["template"]["spec"])
    create_account(admin, strict, spec["serviceAccountName"])
    del spec["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(ApiError, match="restricted"):
        admin.create(path("pods", strict), {"metadata": {"name": "greedy"}, "spec": spec})


@pytest.fixture
def install(control_plane, place):
    """`install(values)` → what `helm install` says; uninstalled at the end."""
    options = ("--namespace", place.home)

    def act(**values):
        said = helm(
            "install",
            RELEASE,
            str(CHART),
            *options,
            values=place.values(**values),
            kubeconfig=control_plane.kubeconfig,
        )
        installed.append(RELEASE)
        return said

    installed = []
    yield act
    for name in installed:
        helm("uninstall", name, *options, kubeconfig=control_plane.kubeconfig)


def test_helm_installs_it_and_the_notes_say_where_everything_is(install, admin, place):
    notes = install(ingress={"enabled": True, "host": "b.example.com"}).partition("NOTES:")[2]
    assert "https://b.example.com/events/github" in notes
    assert f"kubectl --namespace {place.home} rollout status" in notes
    assert "there are no tokens" in notes.lower()
    assert f"namespace {place.runs}" in notes
    assert f"bridgectl doctor --release-namespace {place.home}" in notes
    deployments = admin.get(path("deployments", place.home))["items"]
    assert {one["metadata"]["name"] for one in deployments} == {"bridge-gateway", "bridge-controller"}


def test_another_release_in_another_namespace_can_share_a_brigade(
    install, admin, control_plane, make_namespace, place
):
    install()
    other = Place(make_namespace(), make_namespace(), place.brigade)
    options = ("--namespace", other.home)
    helm("install", RELEASE, str(CHART), *options, values=other.values(), kubeconfig=control_plane.kubeconfig)
    try:
        roles = admin.get(path("roles", place.brigade))["items"]
        assert len(roles) == 6
    finally:
        helm("uninstall", RELEASE, *options, kubeconfig=control_plane.kubeconfig)


def test_a_missing_namespace_is_named(control_plane, make_namespace):
    place = Place(make_namespace(), "is-not-there", make_namespace())
    options = ("--namespace", place.home)
    with pytest.raises(Refused, match='namespaces "is-not-there" not found'):
        helm("install", RELEASE, str(CHART), *options, values=place.values(), kubeconfig=control_plane.kubeconfig)
    helm("uninstall", RELEASE, *options, "--ignore-not-found", kubeconfig=control_plane.kubeconfig)
