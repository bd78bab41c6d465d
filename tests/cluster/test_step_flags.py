"""What a step's flags make of its build's Secret in a cluster; steps without a record; which commit is built."""

import pytest

from bridge.core.runs import Kind
from bridge.core.steps import ExitCode
from tests.cluster.brigades import name_of
from tests.cluster.client import path
from tests.cluster.step_world import PROJECT, one, opened
from tests.fakes import some_event
from tests.git_server import commit, git, git_host

BRIGADES_SIDECAR = "brigadecore/git-sidecar:v1.5.0"
OUR_SIDECAR = "images.example.com/ci/brigade-argo-bridge-sidecar:0.1.0"


@pytest.fixture
def world(request, tmp_path):
    with opened(request, tmp_path) as world:
        yield world


def only_build(world):
    """The id of the one build that there is."""
    (secret,) = world.brigade.builds()
    return secret["metadata"]["labels"]["build"]


def test_a_build_has_all_fields_of_the_record_and_brigs_log_level(world):
    assert world.start("-e", "good", "--tries", "1").code() == ExitCode.SUCCEEDED
    event = some_event()
    assert world.brigade.data(one("test", 1)) == {
        "build_id": name_of(one("test", 1)).encode(),
        "build_name": name_of(one("test", 1)).encode(),
        "clone_url": b"",
        "commit_id": event.revision.commit.encode(),
        "commit_ref": event.revision.ref.encode(),
        "config": b"",
        "event_provider": b"github",
        "event_type": b"good",
        "log_level": b"log",
        "long_title": b"",
        "payload": b'{"a": 1}',
        "project_id": world.brigade.secret(one("test", 1))["metadata"]["labels"]["project"].encode(),
        "script": b"",
        "short_title": b"",
    }


def test_files_payload_and_level_that_are_given_are_the_builds(world, tmp_path):
    (tmp_path / "script.js").write_text("// ein Skript für dich")
    (tmp_path / "brigade.json").write_text('{"dependencies": {}}')
    step = world.start(
        PROJECT, "-e", "good", "-f", str(tmp_path / "script.js"), "--config", str(tmp_path / "brigade.json"),
        "-i", '{"key": "value"}', "-l", "INFO", "--unhandled=ok", "--no-progress", "-c", "c" * 40, "-r", "main",
    )  # fmt: skip
    assert step.code() == ExitCode.SUCCEEDED, step.err
    data = world.brigade.data(one("test", 1))
    assert data["script"].decode() == "// ein Skript für dich"
    assert data["config"] == b'{"dependencies": {}}'
    assert data["payload"] == b'{"key": "value"}'
    assert data["log_level"] == b"info"
    assert data["event_provider"] == b"github"


def test_what_a_record_does_not_allow_is_refused_or_said(world, tmp_path):
    refused = world.start("-e", "good", "-c", "d" * 40)
    assert refused.code() == ExitCode.USAGE
    assert f"this run builds commit {'c' * 40}" in refused.err
    (tmp_path / "script.js").write_text("//")
    world.make_project(brigadejsPath="ci/brigade.js")
    beaten = world.start("-e", "good", "-f", str(tmp_path / "script.js"))
    assert beaten.code() == ExitCode.USAGE
    assert "brigadejsPath is ci/brigade.js" in beaten.err
    elsewhere = world.start("-e", "good", "-n", "elsewhere")
    assert elsewhere.code() == ExitCode.USAGE
    assert world.made() == []
    waited = world.start("-e", "good", "-b", "-l", "info")
    assert waited.code() == ExitCode.SUCCEEDED
    assert "-b: the step waits" in waited.out
    assert "-l info: built with log" in waited.out
    assert world.brigade.data(one("test", 1))["log_level"] == b"log"


def test_another_project_is_built_at_its_own_revision(world):
    world.make_project("acme/deploy")
    step = world.start("acme/deploy", "-e", "good", "-r", "live")
    assert step.code() == ExitCode.SUCCEEDED, step.err
    data = world.brigade.data(one("test", 1))
    assert (data["commit_id"], data["commit_ref"], data["payload"]) == (b"", b"live", b'{"a": 1}')
    assert world.brigade.secret(one("test", 1))["metadata"]["labels"]["project"] == data["project_id"].decode()


def test_by_hand_the_flags_say_everything_and_nothing_is_waited_for_in_the_background(world):
    project = world.brigade.admin.get(path("secrets", world.brigade_namespace), labelSelector="component=project")
    (identity,) = [found["metadata"]["name"] for found in project["items"]]
    step = world.start(
        identity, "-e", "held", "-b", "-i", "x", "-n", world.brigade_namespace,
        BRIDGE_RUN="none", BRIDGE_STEP="", BRIDGE_BRIGADE_NAMESPACE="",
    )  # fmt: skip
    assert step.code() == ExitCode.SUCCEEDED, step.err
    data = world.brigade.data(only_build(world))
    assert (data["commit_id"], data["commit_ref"], data["event_provider"]) == (b"", b"master", b"brigade-cli")
    assert data["payload"] == b"x"


def test_without_an_event_by_hand_it_is_brigs_own(world):
    step = world.start(PROJECT, "-b", BRIDGE_RUN="none")
    assert step.code() == ExitCode.SUCCEEDED, step.err
    assert world.brigade.data(only_build(world))["event_type"] == b"exec"


class Node:
    """A pod of Argo's whose template says nothing of where it is."""

    def __init__(self, world, workflow, name, node):
        metadata = {
            "name": name,
            "annotations": {
                "workflows.argoproj.io/node-name": node,
                "workflows.argoproj.io/node-id": name,
            },
            "ownerReferences": [
                {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "wf", "uid": workflow}
            ],
        }
        spec = {"containers": [{"name": "main", "image": "none"}]}
        world.admin.create(path("pods", world.namespace), {"metadata": metadata, "spec": spec})
        self.told = {"BRIDGE_RUN": "", "BRIDGE_STEP": "", "HOSTNAME": name, "ARGO_NODE_ID": name}


def test_by_hand_in_a_workflow_that_says_nothing_the_pod_says_which_step_it_is(world, as_service_account):
    # No such right is the chart's: whoever writes such templates has a ServiceAccount of their own.
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"}, "spec": {}}
    workflow = world.admin.create(path("workflows", world.namespace), body)["metadata"]["uid"]
    tries = [Node(world, workflow, f"wf-build-{number}", f"wf.build({number})") for number in range(2)]
    refused = world.start(PROJECT, "-e", "good", **tries[0].told)
    assert refused.code() == ExitCode.USAGE
    assert "BRIDGE_WORKFLOW_UID" in refused.err
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    as_service_account("bridge-step", [rule], home=world.namespace)
    for node in tries:
        step = world.start(PROJECT, "-e", "good", **node.told)
        assert step.code() == ExitCode.SUCCEEDED, step.err
    assert len(world.made()) == 1
    other = Node(world, workflow, "wf-test-0", "wf.test")
    assert world.start(PROJECT, "-e", "good", **other.told).code() == ExitCode.SUCCEEDED
    assert len(world.made()) == 2


@pytest.fixture
def repository(world, tmp_path):
    """The project's repository at a git host, whose main is the run's commit; answers (host, work tree, commit)."""
    with git_host(tmp_path / "host", password="t0ken") as host:
        host.make("acme/widgets.git")
        tree = tmp_path / "tree"
        tree.mkdir()
        git(tree, "init", "-q", "-b", "main")
        wanted = commit(tree, "first")
        git(tree, "remote", "add", "origin", str(host.folder / "acme/widgets.git"))
        git(tree, "push", "-q", "origin", "main")
        yield host, tree, wanted


def test_a_later_attempt_builds_no_other_commit_than_the_first(world, repository, tmp_path):
    host, tree, wanted = repository
    url = f"{host.url}/acme/widgets.git"
    project = {"cloneURL": url, "github.token": "t0ken", "vcsSidecar": BRIGADES_SIDECAR}
    world.make_project(**project)
    world.record("r2", commit=wanted)
    told = {"BRIDGE_RUN": "r2"}
    assert world.start("-e", "bad", "--tries", "1", **told).code() == ExitCode.FAILED
    assert host.asked == []
    # The branch is still there.
    world.begin(2, run="r2")
    told["BRIDGE_ATTEMPT"] = "2"
    assert world.start("-e", "bad", "--tries", "1", **told).code() == ExitCode.FAILED
    assert host.asked
    # It went on.
    moved = commit(tree, "second")
    git(tree, "push", "-q", "origin", "main")
    world.begin(3, run="r2")
    told["BRIDGE_ATTEMPT"] = "3"
    flags = ("-e", "good", "--tries", "1")
    refused = world.start(*flags, **told)
    assert refused.code() == ExitCode.FAILED
    assert f"refs/heads/main points at {moved[:12]} now" in refused.err
    assert len(world.made()) == 2
    # What the pipeline, or the project's sidecar, says instead.
    for number, (checkout, sidecar, ref) in enumerate(
        [
            (["--checkout", "ref"], BRIGADES_SIDECAR, b"refs/heads/main"),
            (["--checkout", "commit"], BRIGADES_SIDECAR, b""),
            ([], OUR_SIDECAR, b"refs/heads/main"),
        ],
        start=4,
    ):
        world.make_project(**{**project, "vcsSidecar": sidecar})
        world.begin(number, run="r2", kind=Kind.RERUN, epoch=number)
        step = world.start(*flags, *checkout, **{**told, "BRIDGE_ATTEMPT": str(number)})
        assert step.code() == ExitCode.SUCCEEDED, step.err
        data = world.brigade.data(one("test", 1, run="r2", epoch=number))
        assert (data["commit_id"].decode(), data["commit_ref"]) == (wanted, ref)


def test_a_git_host_that_does_not_answer_is_asked_again_and_nothing_is_built(world, repository):
    host, _, wanted = repository
    world.make_project(cloneURL=f"{host.url}/acme/widgets.git", vcsSidecar=BRIGADES_SIDECAR)
    world.record("r2", commit=wanted)
    world.begin(2, run="r2")
    step = world.start("-e", "good", BRIDGE_RUN="r2", BRIDGE_ATTEMPT="2")
    assert step.code() == ExitCode.ASK_AGAIN
    assert "answered 401" in step.err
    assert world.made() == []
