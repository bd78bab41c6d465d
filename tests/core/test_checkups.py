"""How a cluster is judged: versions, flags, CRDs, and who looks at which Workflows."""

import pytest

from bridge.core import checkups
from bridge.core.checkups import ArgoController, Status, argo_controller_of, ok, unknown, warning, wrong


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("quay.example.com:5000/argoproj/workflow-controller:v4.1.4", (4, 1, 4)),
        ("workflow-controller:3.7.15-rhel", (3, 7, 15)),
        (f"workflow-controller:v4.0.10@sha256:{'a' * 64}", (4, 0, 10)),
        ("v1.34.4+k3s1", (1, 34, 4)),
        (f"workflow-controller@sha256:{'a' * 64}", None),
        ("workflow-controller:latest", None),
        ("registry.example.com:5000/workflow-controller", None),
        ("", None),
    ],
)
def test_a_version_is_read_from_a_tag_or_is_not_known(words, version):
    assert checkups.version_of(words) == version


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 4, 0), "3.7.15"),
        ((3, 7, 14), "3.7.15"),
        ((3, 7, 15), ""),
        ((4, 0, 9), "4.0.10"),
        ((4, 0, 10), ""),
        ((4, 1, 2), "4.1.4"),
        ((4, 1, 4), ""),
        ((4, 2, 0), ""),
        ((5, 0, 0), ""),
        ((3, 8, 1), "4.0.10"),
    ],
)
def test_an_argo_below_its_lines_floor_is_told_where_to_go(version, safe):
    assert checkups.safe_release(version) == safe


def deployment(args=(), env=(), *, image="argoproj/workflow-controller:v4.1.4", command=(), ready=1):
    container = {"image": image, "command": list(command), "args": list(args), "env": list(env)}
    return {
        "metadata": {"name": "argo", "namespace": "home"},
        "spec": {"template": {"spec": {"containers": [{"image": "sidecar"}, container]}}},
        "status": {"readyReplicas": ready},
    }


@pytest.mark.parametrize(
    ("args", "env", "watches"),
    [
        ([], [], ""),
        (["--namespaced"], [], "home"),
        (["--namespaced=false"], [], ""),
        (["--namespaced", "--managed-namespace", "runs"], [], "runs"),
        (["--namespaced", "--managed-namespace=runs", "--loglevel", "debug"], [], "runs"),
        ([], [{"name": "ARGO_NAMESPACED", "value": "true"}, {"name": "ARGO_MANAGED_NAMESPACE", "value": "runs"}], "runs"),
        (["--namespaced=false"], [{"name": "ARGO_NAMESPACED", "value": "true"}], ""),
    ],
)  # fmt: skip
def test_where_argo_looks_is_in_its_flags_or_their_variables(args, env, watches):
    found = argo_controller_of(deployment(args, env))
    assert found is not None
    assert found.watches == watches


def test_argo_is_known_by_its_image_or_its_command_and_nothing_else_is():
    assert argo_controller_of(deployment(image="mirror/argo-bundle:1", command=["/bin/workflow-controller"]))
    assert argo_controller_of(deployment(image="argoproj/argocli:v4.1.4")) is None
    assert argo_controller_of({}) is None
    assert (
        argo_controller_of({"spec": {"template": {"spec": {"containers": ["nonsense", {"command": "x"}]}}}})
        is None
    )


@pytest.mark.parametrize(
    ("data", "instance"),
    [
        ({"instanceID": "ours"}, "ours"),
        ({"instanceID": '"ours"'}, "ours"),
        ({"config": "instanceID: ours\nparallelism: 7\n"}, "ours"),
        ({"config": "parallelism: 7\n"}, ""),
        ({"config": "]["}, ""),
        ({"config": "- a list"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_instance_id_is_read_from_either_form_of_argos_config(data, instance):
    assert checkups.instance_id_of({"data": data}) == instance


def controller(**changes):
    known = {"namespace": "argo", "name": "argo", "image": "", "config": "", "watches": "", "ready": 1}
    return ArgoController(**{**known, **changes})


def test_why_a_controller_does_not_look_is_said():
    def why(controller, instance=""):
        return checkups.why_unwatched(controller, "runs", instance)

    assert why(controller()) == ""
    assert why(controller(watches="runs", instance_id="ours"), "ours") == ""
    assert why(controller(watches="other")) == "it watches namespace other alone"
    assert why(controller(instance_id="theirs"), "ours") == (
        "it has the instanceID theirs, and bridge's Workflows have ours"
    )
    assert why(controller(), "ours") == "it has no instanceID, and bridge's Workflows have ours"
    assert why(controller(instance_id="theirs")).endswith("bridge's Workflows have none")
    assert why(controller(instance_id=None), "ours") == "", "not known is no reason"
    assert why(controller(ready=0)) == "none of its pods is ready"


def crd(schema, *, version="v1alpha1", served=True, scope="Namespaced"):
    versions = [{"name": version, "served": served, "schema": {"openAPIV3Schema": schema}}]
    return {"spec": {"scope": scope, "versions": versions}}


def test_a_crd_without_what_is_used_is_told_by_its_fields():
    assert checkups.crd_complaint(crd({"x-kubernetes-preserve-unknown-fields": True})) == ""
    kept = {"properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}}
    assert checkups.crd_complaint(crd(kept)) == ""
    known = {"properties": {"spec": {"properties": {name: {} for name in checkups._SPEC_FIELDS}}}}
    assert checkups.crd_complaint(crd(known)) == ""
    del known["properties"]["spec"]["properties"]["suspend"]
    assert checkups.crd_complaint(crd(known)) == "its schema does not know spec.suspend"
    assert checkups.crd_complaint(crd({}, version="v1")) == "it does not serve v1alpha1"
    assert checkups.crd_complaint(crd({}, served=False)) == "it does not serve v1alpha1"
    assert checkups.crd_complaint(crd({}, scope="Cluster")) == "its objects are not in namespaces"
    assert checkups.crd_complaint({})


def workflow(name, created):
    return {"metadata": {"name": name, "creationTimestamp": created}}


def test_a_workflow_waits_too_long_only_after_a_while():
    noon = 1_767_268_800.0  # 2026-01-01T12:00:00Z
    old, new = workflow("old", "2026-01-01T11:50:00Z"), workflow("new", "2026-01-01T11:59:30Z")
    assert checkups.unattended([new, workflow("undated", "")], None, noon) == ([], False)
    assert checkups.unattended([new, old], None, noon) == (["old"], False)
    assert checkups.unattended([old], noon - 3600, noon) == (["old"], False), "Argo has stopped since"
    assert checkups.unattended([old], noon - 30, noon) == (["old"], True)


def test_the_worst_finding_counts():
    well, watch, bad, dark = ok("a", "b"), warning("a", "b", "c"), wrong("a", "b", "c"), unknown("a", "b", "c")
    assert checkups.worst([]) is Status.OK
    assert checkups.worst([well, watch]) is Status.WARNING
    assert checkups.worst([watch, dark]) is Status.UNKNOWN
    assert checkups.worst([dark, bad, well]) is Status.WRONG


def test_many_names_are_cut():
    assert checkups.named(["a", "b"]) == "a, b"
    assert checkups.named([str(one) for one in range(12)]).endswith("9 and 2 more")


def test_a_quota_without_room_for_a_pod_is_full():
    def quota(hard, used):
        return {"status": {"hard": hard, "used": used}}

    assert checkups.full_quotas(quota({"pods": "0"}, {"pods": "0"})) == [(0, 0)]
    assert checkups.full_quotas(quota({"count/pods": "3"}, {"count/pods": "3"})) == [(3, 3)]
    assert checkups.full_quotas(quota({"pods": "3"}, {"pods": "2"})) == []
    assert checkups.full_quotas(quota({"requests.cpu": "1"}, {"requests.cpu": "1"})) == []
    assert checkups.full_quotas({}) == []
