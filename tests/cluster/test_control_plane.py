"""The control plane that the cluster tests stand on does what they take for granted."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from tests.cluster.accounts import eventually
from tests.cluster.auditing import audited
from tests.cluster.building import KUBERNETES
from tests.cluster.client import ApiError, path
from tests.cluster.control_plane import Processes
from tests.cluster.holding import ROOT, running, using
from tests.cluster.kubelet import Fault, set_phase

READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}
FOLLOWED = {"container": "main", "follow": True}


def secret(name, **data):
    return {"metadata": {"name": name}, "stringData": data}


def workflow(name, **spec):
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"phase": "Running"},
    }


def followed(client, namespace, pod, **query):
    """All that a follower of this log reads until its connection ends."""
    answer = client.stream(path("pods", namespace, pod, "log"), **FOLLOWED, **query)
    try:
        return answer.read().decode()
    except urllib3.exceptions.HTTPError:
        pytest.fail("the API server ends a follower's answer in good order, whatever happened behind it")
    finally:
        answer.close()


def test_the_api_server_is_the_version_that_was_asked_for(admin):
    assert admin.get("/version")["gitVersion"] == f"v{KUBERNETES}"


def test_a_second_create_of_one_name_is_a_conflict_that_changes_nothing(admin, namespace):
    admin.create(path("secrets", namespace), secret("run", a="1"))
    with pytest.raises(ApiError) as refused:
        admin.create(path("secrets", namespace), secret("run", a="2"))
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")
    assert admin.get(path("secrets", namespace, "run"))["data"] == {"a": "MQ=="}


def test_a_patch_under_a_stale_resource_version_is_a_conflict(admin, namespace):
    stale = admin.create(path("secrets", namespace), secret("run"))["metadata"]["resourceVersion"]
    admin.patch(path("secrets", namespace, "run"), {"metadata": {"annotations": {"a": "1"}}})
    with pytest.raises(ApiError) as refused:
        admin.patch(
            path("secrets", namespace, "run"), {"metadata": {"resourceVersion": stale, "labels": {"a": "1"}}}
        )
    assert (refused.value.status, refused.value.reason) == (409, "Conflict")


def test_each_namespace_holds_only_what_its_own_test_made(admin, make_namespace):
    one, other = make_namespace(), make_namespace()
    admin.create(path("secrets", one), secret("run"))
    assert [s["metadata"]["name"] for s in admin.get(path("secrets", one))["items"]] == ["run"]
    assert admin.get(path("secrets", other))["items"] == []


def test_a_service_account_may_do_what_its_rules_say_and_nothing_else(
    as_service_account, namespace, make_namespace
):
    with as_service_account("step", [READ_SECRETS]).client() as step:
        assert step.get(path("secrets", namespace))["items"] == []
        for refused in (
            lambda: step.create(path("secrets", namespace), secret("run")),
            lambda: step.get(path("pods", namespace)),
            lambda: step.get(path("secrets", make_namespace())),
        ):
            with pytest.raises(ApiError) as forbidden:
                refused()
            assert (forbidden.value.status, forbidden.value.reason) == (403, "Forbidden")


def test_a_service_account_can_have_its_rules_in_another_namespace_too(as_service_account, make_namespace):
    other = make_namespace()
    with as_service_account("step", [READ_SECRETS], within=(other,)).client() as step:
        assert step.get(path("secrets", other))["items"] == []


def test_a_service_account_without_rules_may_nothing_and_a_bad_token_is_nobody(
    as_service_account, namespace, control_plane
):
    for access, status in [(as_service_account("idle"), 403), (control_plane.access("nonsense"), 401)]:
        with access.client() as client, pytest.raises(ApiError) as refused:
            client.get(path("secrets", namespace))
        assert refused.value.status == status


def test_the_audit_log_tells_who_did_what_and_how_it_ended(as_service_account, admin, control_plane, namespace):
    with as_service_account("step", [READ_SECRETS]).client() as step, pytest.raises(ApiError):
        step.create(path("secrets", namespace), secret("run"))
    admin.create(path("secrets", namespace), secret("run"))
    for _ in range(2):
        with pytest.raises(ApiError):
            admin.create(path("secrets", namespace), secret("run"))
    created = audited(control_plane, namespace, verb="create", resource="secrets")
    assert [(r.name, r.code) for r in created] == [("", 403), ("run", 201), ("run", 409), ("run", 409)]
    assert created[0].user == f"system:serviceaccount:{namespace}:step"
    assert audited(control_plane, namespace, user="step", resource="secrets") == created[:1]


def test_a_watch_sees_what_happens_after_its_list(admin, namespace):
    version = admin.get(path("secrets", namespace))["metadata"]["resourceVersion"]
    admin.create(path("secrets", namespace), secret("run"))
    admin.patch(path("secrets", namespace, "run"), {"metadata": {"labels": {"a": "1"}}})
    admin.delete(path("secrets", namespace, "run"))
    seen = itertools.islice(admin.watch(path("secrets", namespace), resourceVersion=version), 3)
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]


def test_workflows_keep_their_status_through_a_plain_write(admin, namespace):
    admin.create(path("workflows", namespace), workflow("run", suspend=True))
    admin.patch(path("workflows", namespace, "run"), {"spec": {"suspend": None}, "status": {"phase": "Failed"}})
    stored = admin.get(path("workflows", namespace, "run"))
    assert (stored["spec"], stored["status"]["phase"]) == ({}, "Failed")


def test_a_field_that_argo_does_not_know_is_refused_where_its_schemas_are_at_hand(admin, namespace, control_plane):
    if not control_plane.strict:
        pytest.skip("not needed here: Argo's full schemas are not beside this clone")
    with pytest.raises(ApiError, match="unknown field"):
        admin.create(path("workflows", namespace), workflow("run", nonsense=True), fieldValidation="Strict")
    admin.create(path("workflows", namespace), workflow("run", suspend=True), fieldValidation="Strict")


def test_what_a_deleted_secret_owned_goes_with_it(admin, namespace):
    owner = admin.create(path("secrets", namespace), secret("run"))["metadata"]
    owned = workflow("run")
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Secret", "name": "run", "uid": owner["uid"]},
    ]
    admin.create(path("workflows", namespace), owned)
    admin.delete(path("secrets", namespace, "run"))
    eventually(lambda: admin.get(path("workflows", namespace))["items"] == [], "what it owned is gone")


def test_a_pods_log_comes_from_the_tests_kubelet(admin, namespace, kubelet):
    pod = kubelet.create_pod(admin, namespace, "worker")
    assert (pod["spec"]["nodeName"], pod["status"]["phase"]) == (kubelet.node, "Running")
    log = kubelet.log(namespace, "worker", "main")
    log.write("one", "two")
    answer = admin.stream(path("pods", namespace, "worker", "log"), **FOLLOWED)
    assert answer.read(8) == b"one\ntwo\n"
    log.write("three")
    log.end()
    assert answer.read() == b"three\n"
    answer.close()
    assert log.asked == [{"follow": "true"}]
    done = set_phase(admin, namespace, "worker", "Failed", exit_code=3)
    assert done["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_a_log_begins_where_it_is_asked_to(admin, namespace, kubelet):
    kubelet.create_pod(admin, namespace, "worker")
    log = kubelet.log(namespace, "worker", "main")
    log.write("old", at=1_700_000_000.0)
    log.write("new", at=1_700_000_001.5)
    log.end()
    stamped = followed(admin, namespace, "worker", sinceTime="2023-11-14T22:13:21Z", timestamps=True)
    assert stamped == "2023-11-14T22:13:21.500000000Z new\n"
    assert followed(admin, namespace, "worker", tailLines=1) == "new\n"
    assert followed(admin, namespace, "worker", limitBytes=5) == "old\nn"


def test_a_log_can_be_cut_torn_closed_repeated_and_refused(admin, namespace, kubelet):
    kubelet.create_pod(admin, namespace, "worker")
    log = kubelet.log(namespace, "worker", "main")
    log.write("one", "two", "three")
    log.next(Fault(after=2), Fault(after=1, torn=True), Fault(after=1, then="close"))
    assert followed(admin, namespace, "worker") == "one\ntwo\n"
    assert followed(admin, namespace, "worker") == "one\ntw"
    assert followed(admin, namespace, "worker") == "one\n"
    log.end()
    log.next(Fault(repeat=1))
    assert followed(admin, namespace, "worker", tailLines=1) == "two\nthree\n"
    log.next(Fault(status=404, message="no such container"))
    with pytest.raises(ApiError) as refused:
        admin.get(path("pods", namespace, "worker", "log"))
    assert refused.value.status == 404
    assert followed(admin, namespace, "worker") == "one\ntwo\nthree\n"


def test_a_log_can_stall_and_go_on_or_be_cut_from_outside(admin, namespace, kubelet):
    kubelet.create_pod(admin, namespace, "worker")
    log = kubelet.log(namespace, "worker", "main")
    log.write("one", "two")
    log.next(Fault(after=1, then="stall"))
    answer = admin.stream(path("pods", namespace, "worker", "log"), timeout_seconds=1, **FOLLOWED)
    assert answer.read(4) == b"one\n"
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        answer.read(1)
    answer.close()
    eventually(lambda: log.followers == 0, "the server sees that its client has left")
    log.next(Fault(after=1, then="stall"))
    answer = admin.stream(path("pods", namespace, "worker", "log"), **FOLLOWED)
    assert answer.read(4) == b"one\n"
    log.resume()
    assert answer.read(4) == b"two\n"
    log.cut()
    assert answer.read() == b""
    answer.close()


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def processes_of(folder):
    """Ids of the processes that were started with this folder in their arguments."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if str(folder).encode() in command(pid)]


def holder_of(folder):
    (pid,) = (pid for pid in processes_of(folder) if b"tests.cluster" in command(pid))
    return pid


@pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux only")
def test_the_control_plane_dies_with_its_holder_or_its_last_user_and_can_be_started_again(
    built_binaries, tmp_path
):
    folder = tmp_path / "control-plane"
    with using(folder, own_crds=True) as lost:
        os.kill(holder_of(folder), signal.SIGKILL)
        eventually(lambda: processes_of(folder) == [], "no process is left")
        assert running(folder) is None
    script = (
        "import pathlib, sys, time\n"
        "from tests.cluster.holding import using\n"
        "with using(pathlib.Path(sys.argv[1]), own_crds=True):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"up\n"
        with using(folder, own_crds=True) as second:
            first.kill()
            first.wait()
            with second.admin.client() as admin:
                assert admin.get(path("namespaces", name="default"))
            assert running(folder) == second != lost
    assert processes_of(folder) == []
    assert not (folder / "etcd").exists()


def test_an_api_server_of_ones_own_can_be_killed_and_comes_back_with_its_data(built_binaries, tmp_path):
    processes = Processes(tmp_path / "control-plane", strict=False)
    with processes as own, own.admin.client() as admin:
        admin.create(path("secrets", "default"), secret("run"))
        processes.stop_api_server()
        with pytest.raises(urllib3.exceptions.HTTPError):
            admin.get(path("secrets", "default", "run"))
        processes.start_api_server()
        assert admin.get(path("secrets", "default", "run"))
    assert processes_of(tmp_path) == []
