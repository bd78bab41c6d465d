"""`bridgectl doctor` on a real API server: all is well, then one thing is broken, and the remedy is said."""

import json
import os
import time
from contextlib import ExitStack, contextmanager

import pytest

from bridge.commands import run
from bridge.core.checkups import Status
from bridge.core.names import project_id
from bridge.core.permissions import ACCOUNTS, CONTROLLER, FOR_TOKENS, NATIVE, RIGHTS, STEP, rights_of
from bridge.settings import load
from bridge.wiring.doctor import examine
from tests.cluster.accounts import token_of
from tests.cluster.client import path
from tests.cluster.control_plane import Processes
from tests.cluster.doctored import (
    PATIENCE_SECONDS,
    PROJECT,
    SECRETS,
    TOKEN,
    GitHub,
    Healthy,
    gone,
    patched,
    there,
    unready,
)

WRONG, WARNING, UNKNOWN, OK = "wrong", "warning", "unknown", "ok"


@pytest.fixture(scope="module")
def world(admin):
    world = Healthy(admin)
    world.make()
    yield world
    world.remove()


@pytest.fixture
def github():
    with GitHub(tokens=[TOKEN]) as fake:
        yield fake


@pytest.fixture
def doctor(world, github, control_plane, monkeypatch, tmp_path, capsys):  # noqa: PLR0917 - fixtures
    """Call it: the exit code, and the findings by their checks."""
    for name in list(os.environ):
        if name.startswith(("BRIDGE_", "BRIGADE_", "KUBECONFIG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv(
        "BRIDGE_KUBECONFIG", str(control_plane.admin.write_kubeconfig(tmp_path / "admin.kubeconfig"))
    )
    monkeypatch.setenv("BRIDGE_LEASE_NAMESPACE", world.release)
    monkeypatch.setenv("BRIDGE_GITHUB_API_URL", github.url)
    world.renew()

    def doctor(*arguments):
        code = run(["doctor", "--argo-namespace", world.argo, "-o", "json", *arguments])
        out, err = capsys.readouterr()
        assert not err
        assert not [secret for secret in SECRETS if secret in out]
        return code, json.loads(out)["checks"]

    return doctor


def until(doctor, check, status, *words, remedy="", asked=None):
    """Call it until the check comes out like this: the API server learns of Roles by a watch. The exit code fits.

    Answers the finding. `asked` is what it said before, to be looked at first.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        code, findings = asked or doctor()
        asked = None
        found = [one for one in findings if one["check"] == check and one["status"] == status]
        fits = [one for one in found if all(word in one["told"] for word in words) and remedy in one["remedy"]]
        if fits:
            assert status == OK or fits[0]["remedy"], "what to do is said"
            assert code == (2 if any(one["status"] == WRONG for one in findings) else 0)
            return fits[0]
        assert time.monotonic() < deadline, [
            one for one in findings if one["status"] != OK or one["check"] == check
        ]
        time.sleep(0.1)


def test_a_cluster_in_which_all_is_well_is_called_well(doctor):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        code, findings = doctor()
        troubles = [one for one in findings if one["status"] != OK]
        if not troubles:
            break
        assert time.monotonic() < deadline, troubles
        time.sleep(0.1)
    assert code == 0
    checks = {one["check"] for one in findings}
    assert {
        "kubernetes",
        "argo.crds.workflows",
        "argo.crds.workflowtemplates",
        "argo.crds.workflowtaskresults",
        "argo.version",
        "argo.watches",
        "bridge.leader",
        "bridge.url",
        "brigade.controller",
        "brigade.node",
        "github.api",
        "github.limit",
        "github.statuses",
        "namespaces.pod-security",
        "pipelines",
        "namespaces.quota",
        "projects",
        "projects.pipelines",
        "projects.secret",
        "projects.sidecar",
        "records",
        "steps.config",
        *(f"rights.{account.name}" for account in ACCOUNTS),
    } <= checks


def test_people_get_a_line_for_each_check_its_remedy_and_a_count(world, doctor, capsys):
    with unready(world, world.brigade, "brigade-ctrl"):
        code = run(["doctor", "--argo-namespace", world.argo])
    out = capsys.readouterr().out
    assert code == 2
    lines = out.splitlines()
    [at] = [index for index, line in enumerate(lines) if line.startswith("wrong    brigade.controller ")]
    assert lines[at + 1].strip().startswith("-> kubectl --namespace")
    assert "1 wrong" in lines[-1]
    assert not [secret for secret in SECRETS if secret in out]


BROKEN = {
    "a namespace that is not there": (
        lambda world: _elsewhere("BRIDGE_BRIGADE_NAMESPACE", "nowhere-at-all"),
        ("namespaces", WRONG, "nowhere-at-all"),
        "kubectl create namespace",
    ),
    "a release beside the Workflows": (
        lambda world: _elsewhere("BRIDGE_NAMESPACE", world.release),
        ("namespaces.apart", WARNING, "steps may read every Secret there"),
        "namespace of its own",
    ),
    "Pod Security that refuses Brigade's workers": (
        lambda world: patched(
            world.admin,
            path("namespaces", name=world.brigade),
            {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        ),
        ("namespaces.pod-security", WRONG, "Brigade's workers and jobs are refused"),
        "enforce=baseline",
    ),
    "a quota that is used up": (
        lambda world: there(world.admin, world.quota(0)),
        ("namespaces.quota", WARNING, "no more pods fit into namespace", "full (0 of 0 pods)"),
        "raise the ResourceQuota",
    ),
    "a record that cannot be read": (
        lambda world: there(world.admin, world.record("damaged", schema="nonsense")),
        ("records.set-aside", WRONG, "record damaged is left alone"),
        "get secret damaged",
    ),
    "Workflows without Pod Security": (
        lambda world: patched(
            world.admin,
            path("namespaces", name=world.runs),
            {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}},
        ),
        ("namespaces.pod-security", WARNING, "enforces nothing"),
        "enforce=restricted",
    ),
    "an Argo with known holes": (
        lambda world: _argo(world, image="argoproj/workflow-controller:v4.1.2"),
        ("argo.version", WRONG, "4.1.2, which has known holes"),
        "upgrade Argo to 4.1.4",
    ),
    "an Argo whose image names no version": (
        lambda world: _argo(world, image=f"argoproj/workflow-controller@sha256:{'a' * 64}"),
        ("argo.version", UNKNOWN, "names no version"),
        "3.7.15, 4.0.10, 4.1.4",
    ),
    "an Argo that watches another namespace": (
        lambda world: _argo(world, args=["--namespaced"]),
        ("argo.watches", WRONG, "it watches namespace"),
        "--managed-namespace",
    ),
    "an Argo with another instanceID": (
        lambda world: patched(
            world.admin,
            path("configmaps", world.argo, "workflow-controller-configmap"),
            {"data": {"config": "instanceID: theirs\n"}},
        ),
        ("argo.watches", WRONG, "it has the instanceID theirs", "bridge's Workflows have ours"),
        "BRIDGE_ARGO_INSTANCE_ID",
    ),
    "an Argo without a ready pod": (
        lambda world: unready(world, world.argo, "workflow-controller"),
        ("argo.watches", WRONG, "none of its pods is ready"),
        "let one watch it",
    ),
    "no Argo": (
        lambda world: _both(
            gone(world.admin, path("deployments", world.argo, "workflow-controller"), status=True),
            gone(world.admin, path("workflows", world.runs, "looked-at")),
        ),
        ("argo.watches", WRONG, "there is no Deployment of Argo's workflow-controller"),
        "install Argo Workflows",
    ),
    "an Argo that is no Deployment": (
        lambda world: gone(
            world.admin, path("deployments", world.argo, "workflow-controller"), status=True
        ),
        ("argo.watches", UNKNOWN, "Argo has looked at Workflows there"),
        "compare its version by hand",
    ),
    "steps that know nothing": (
        lambda world: gone(world.admin, path("configmaps", world.runs, "bridge-step")),
        ("steps.config", WRONG, "there is no ConfigMap bridge-step"),
        "helm upgrade",
    ),
    "steps that look for another Brigade": (
        lambda world: patched(
            world.admin,
            path("configmaps", world.runs, "bridge-step"),
            {"data": {"BRIDGE_BRIGADE_NAMESPACE": "elsewhere"}},
        ),
        ("steps.config", WRONG, "make builds in elsewhere"),
        "BRIDGE_BRIGADE_NAMESPACE=",
    ),
    "steps that know no gateway": (
        lambda world: patched(
            world.admin,
            path("configmaps", world.runs, "bridge-step"),
            {"data": {"BRIDGE_GATEWAY_URL": None}},
        ),
        ("steps.config", WARNING, "names no gateway"),
        "helm upgrade",
    ),
    "nobody who leads": (
        lambda world: gone(world.admin, path("leases", world.release, "bridge-controller")),
        ("bridge.leader", WRONG, "no controller has ever led"),
        "logs deployment/bridge-controller",
    ),
    "a leader that is dead": (
        lambda world: patched(
            world.admin,
            path("leases", world.release, "bridge-controller"),
            {"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}},
        ),
        ("bridge.leader", WRONG, "no controller leads"),
        "logs deployment/bridge-controller",
    ),
    "a gateway that is not ready": (
        lambda world: unready(world, world.release, "bridge-gateway"),
        ("bridge.gateway", WRONG, "no pod is ready"),
        "describe pods",
    ),
    "a gateway that is not installed": (
        lambda world: gone(world.admin, path("deployments", world.release, "bridge-gateway"), status=True),
        ("bridge.gateway", WRONG, "there is no Deployment bridge-gateway"),
        "helm install",
    ),
    "a ServiceAccount that is not there": (
        lambda world: gone(world.admin, path("serviceaccounts", world.runs, "bridge-native")),
        ("rights.bridge-native", WRONG, "there is no ServiceAccount bridge-native"),
        "helm upgrade",
    ),
    "no Brigade": (
        lambda world: gone(world.admin, path("deployments", world.brigade, "brigade-ctrl"), status=True),
        ("brigade.controller", WRONG, "there is no Deployment of brigade-controller"),
        "install Brigade v1",
    ),
    "a Brigade that is not ready": (
        lambda world: unready(world, world.brigade, "brigade-ctrl"),
        ("brigade.controller", WRONG, "no ready pod"),
        "describe pods",
    ),
    "a Brigade that looks elsewhere": (
        lambda world: _brigade(world, args=["--namespace=elsewhere"]),
        ("brigade.namespace", WRONG, "looks at namespace elsewhere"),
        "BRIDGE_BRIGADE_NAMESPACE",
    ),
    "a worker image of somebody": (
        lambda world: _brigade(world, args=["--worker-image", "example.com/our-worker:v7"]),
        ("brigade.node", UNKNOWN, "example.com/our-worker:v7"),
        "node --version",
    ),
    "a worker image of a project": (
        lambda world: _project(
            world, "acme/imaged", **{"worker.registry": "example.com", "worker.name": "w", "worker.tag": "9"}
        ),
        ("brigade.node", UNKNOWN, "of acme/imaged is example.com/w:9"),
        "node --version",
    ),
    "workers without a ServiceAccount": (
        lambda world: gone(world.admin, path("serviceaccounts", world.brigade, "brigade-worker")),
        ("brigade.accounts", WRONG, "brigade-worker of the workers", "no pod with it starts"),
        "create serviceaccount brigade-worker",
    ),
    "jobs without a ServiceAccount": (
        lambda world: _project(world, "acme/accounted", serviceAccount="nobody-made-it"),
        ("brigade.accounts", WRONG, "nobody-made-it of project acme/accounted"),
        "create serviceaccount nobody-made-it",
    ),
    "a project that cannot be read": (
        lambda world: _project(world, "acme/broken", allowHostMounts="perhaps"),
        ("projects.broken", WRONG, "allowHostMounts"),
        "mend that Secret",
    ),
    "no project": (
        lambda world: gone(world.admin, path("secrets", world.brigade, project_id(PROJECT))),
        ("projects", WARNING, "there are no projects"),
        "brig project create",
    ),
    "a project with Brigade's sidecar": (
        lambda world: _project(world, "acme/theirs", vcsSidecar="brigadecore/git-sidecar:latest"),
        ("projects.sidecar", WARNING, "acme/theirs"),
        "brigade-argo-bridge-sidecar",
    ),
    "a project that nobody signs for": (
        lambda world: _project(world, "acme/unsigned", sharedSecret=""),
        ("projects.secret", WRONG, "acme/unsigned"),
        "sharedSecret",
    ),
    "a project without a pipeline": (
        lambda world: _project(world, "acme/idle"),
        ("projects.pipelines", WARNING, "acme/idle"),
        "default-pipeline=true",
    ),
    "a pipeline that cannot be read": (
        lambda world: there(world.admin, world.pipeline("broken", PROJECT, on="{push: 7}")),
        ("pipelines.broken", WRONG, "WorkflowTemplate broken"),
        "docs/pipelines.md",
    ),
    "a pipeline for nobody": (
        lambda world: there(world.admin, world.pipeline("for-nobody", "acme/*-that-is-not")),
        ("pipelines.projects", WARNING, "pipeline for-nobody is for acme/*-that-is-not"),
        "brig project list",
    ),
    "no pipeline": (
        lambda world: gone(world.admin, path("workflowtemplates", world.runs, "pull-request")),
        ("pipelines", WARNING, "no WorkflowTemplate"),
        "docs/pipelines.md",
    ),
    "no public URL": (
        lambda world: _config(world, BRIDGE_PUBLIC_URL=None),
        ("bridge.url", WARNING, "no public URL"),
        "publicUrl",
    ),
    "a public URL without TLS": (
        lambda world: _config(world, BRIDGE_PUBLIC_URL="http://bridge.example.com"),
        ("bridge.url", WARNING, "without TLS"),
        "publicUrl",
    ),
    "a GitHub App without a key": (
        lambda world: _config(world, BRIDGE_GITHUB_APP_ID="7"),
        ("github.app", WRONG, "App 7 has no key"),
        "github.app.existingSecret",
    ),
    "a GitHub App's key without its id": (
        lambda world: _config(world, BRIDGE_GITHUB_APP_KEY_FILE="/nowhere/key.pem"),
        ("github.app", WRONG, "not its id"),
        "BRIDGE_GITHUB_APP_ID",
    ),
    "a GitHub App whose key is in the pods": (
        lambda world: _config(world, BRIDGE_GITHUB_APP_ID="7", BRIDGE_GITHUB_APP_KEY_FILE="/nowhere/key.pem"),
        ("github.app", UNKNOWN, "the key of GitHub App 7 is not here"),
        "kubectl exec",
    ),
    "a project without a token": (
        lambda world: _project(world, "acme/tokenless", **{"github.token": ""}),
        ("github.credentials", WARNING, "acme/tokenless"),
        "Commit statuses: write",
    ),
    "a token that GitHub refuses": (
        lambda world: _project(world, "acme/refused", **{"github.token": "ghp_another"}),
        ("github.token", WRONG, "acme/refused", "401"),
        "Commit statuses: write",
    ),
}  # fmt: skip


ROUNDS = {
    "first": (
        "Pod Security that refuses Brigade's workers",
        "an Argo with known holes",
        "a quota that is used up",
        "a record that cannot be read",
        "steps that know nothing",
        "nobody who leads",
        "a gateway that is not ready",
        "a worker image of somebody",
        "workers without a ServiceAccount",
        "a project that cannot be read",
        "a project with Brigade's sidecar",
        "a pipeline that cannot be read",
        "no public URL",
        "a project without a token",
    ),
    "second": (
        "Workflows without Pod Security",
        "an Argo whose image names no version",
        "steps that look for another Brigade",
        "a leader that is dead",
        "a gateway that is not installed",
        "a Brigade that is not ready",
        "a worker image of a project",
        "jobs without a ServiceAccount",
        "a project that nobody signs for",
        "a pipeline for nobody",
        "a public URL without TLS",
        "a token that GitHub refuses",
    ),
    "third": (
        "an Argo that watches another namespace",
        "steps that know no gateway",
        "a ServiceAccount that is not there",
        "a Brigade that looks elsewhere",
        "a project without a pipeline",
        "a GitHub App without a key",
    ),
    "fourth": (
        "an Argo with another instanceID",
        "no Brigade",
        "no pipeline",
        "a GitHub App whose key is in the pods",
    ),
    "fifth": ("an Argo without a ready pod", "no project", "a GitHub App's key without its id"),
    "no Argo": ("no Argo",),
    "an Argo that is no Deployment": ("an Argo that is no Deployment",),
    "a namespace that is not there": ("a namespace that is not there",),
    "a release beside the Workflows": ("a release beside the Workflows",),
}
"""What is broken at once, since it does not hide one another: a call of the doctor takes a while."""


@pytest.mark.parametrize("name", ROUNDS)
def test_what_is_broken_is_found_and_the_remedy_is_said(name, world, doctor):
    with ExitStack() as broken:
        for what in ROUNDS[name]:
            breaking, _, _ = BROKEN[what]
            broken.enter_context(breaking(world))
        asked = doctor()
        for what in ROUNDS[name]:
            _, (check, status, *words), remedy = BROKEN[what]
            until(doctor, check, status, *words, remedy=remedy, asked=asked)


def test_everything_that_can_be_broken_is_in_one_round():
    assert sorted(what for names in ROUNDS.values() for what in names) == sorted(BROKEN)


@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.name)
def test_every_verb_that_an_account_lacks_is_named(account, world, doctor):
    rights = rights_of(account)
    with ExitStack() as broken:
        for right in rights:
            broken.enter_context(patched(world.admin, world.role_path(right), {"rules": []}))
        every = [
            f"{', '.join(right.verbs)} {right}{f' {right.name}' if right.name else ''}"
            for right in rights
            if right not in FOR_TOKENS
        ]
        until(doctor, f"rights.{account.name}", WRONG, *every, remedy="docs/rbac.md")


def test_a_chart_without_token_reviews_is_only_a_warning(world, doctor):
    with _both(*(patched(world.admin, world.role_path(right), {"rules": []}) for right in FOR_TOKENS)):
        words = ("create tokenreviews", f"get pods in {world.runs}", "steps get no GitHub token")
        until(doctor, "rights.bridge-gateway", WARNING, *words, remedy="rbac.tokenReview")


def test_one_verb_that_is_missing_is_named_alone(world, doctor):
    right = next(right for right in RIGHTS if right.account == STEP and right.resource == "workflowtaskresults")
    rule = {"apiGroups": [right.group], "resources": [right.resource], "verbs": ["create"]}
    with patched(world.admin, world.role_path(right), {"rules": [rule]}):
        found = until(doctor, "rights.bridge-step", WRONG, f"may not patch {right} in {world.runs}")
    assert "create" not in found["told"]


def test_native_steps_that_may_read_secrets_are_found(world, doctor):
    made = "native-reads"
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    world.admin.create(path("roles", world.runs), {"metadata": {"name": made}, "rules": [rule]})
    binding = {
        "metadata": {"name": made},
        "subjects": [{"kind": "ServiceAccount", "name": NATIVE.name, "namespace": world.runs}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": made},
    }
    world.admin.create(path("rolebindings", world.runs), binding)
    with (
        there(world.admin, path("roles", world.runs, made)),
        there(world.admin, path("rolebindings", world.runs, made)),
    ):
        until(doctor, "rights.bridge-native", WRONG, f"may get secrets in {world.runs}", remedy="take the Role")


def test_a_workflow_that_nobody_looks_at_is_found_once_it_waited_long(world, doctor):
    with (
        gone(world.admin, path("workflows", world.runs, "looked-at")),
        there(world.admin, world.workflow("waiting")),
    ):
        _, findings = doctor()
        assert not [one for one in findings if one["check"] == "argo.workflows"], "it is new"
        later = examine(load(), argo_namespace=world.argo, now=lambda: time.time() + 600)
        [found] = [one for one in later.findings if one.check == "argo.workflows"]
    assert found.status is Status.WRONG
    assert "waiting: nobody looks at them" in found.told
    assert "start Argo's controller" in found.remedy


def test_a_build_that_nobody_takes_is_found_once_it_waited_long(world, doctor):
    with there(world.admin, world.build("forgotten")):
        _, findings = doctor()
        assert not [one for one in findings if one["check"] == "brigade.builds" and one["status"] != OK], (
            "it is new"
        )
        later = examine(load(), argo_namespace=world.argo, now=lambda: time.time() + 600)
    [found] = [one for one in later.findings if one.check == "brigade.builds"]
    assert found.status is Status.WRONG
    assert "brigade-worker-forgotten" in found.told
    assert "start Brigade's controller" in found.remedy


def test_a_brigade_that_is_no_deployment_but_takes_builds_is_not_called_away(world, doctor):
    deployment = path("deployments", world.brigade, "brigade-ctrl")
    with gone(world.admin, deployment, status=True), there(world.admin, world.build("taken", status="accepted")):
        until(
            doctor, "brigade.controller", UNKNOWN, "somebody takes builds there", remedy="Brigade v1's controller"
        )


def test_a_workflow_that_argo_passed_over_is_only_a_warning(world, doctor):
    with there(world.admin, world.workflow("passed-over")):
        # Times of creation are whole seconds.
        time.sleep(1.1)
        with there(world.admin, world.workflow("later", phase="Running")):
            later = examine(load(), argo_namespace=world.argo, now=lambda: time.time() + 600)
    [found] = [one for one in later.findings if one.check == "argo.workflows"]
    assert found.status is Status.WARNING
    assert "describe workflow passed-over" in found.remedy


def test_a_secret_of_the_gateway_signs_for_projects_without_one(world, doctor):
    secret = {"metadata": {"name": "bridge-tokens"}, "stringData": {"default-shared-secret": "the-default-secret"}}
    world.admin.create(path("secrets", world.release), secret)
    with (
        there(world.admin, path("secrets", world.release, "bridge-tokens")),
        _project(world, "acme/unsigned", sharedSecret=""),
    ):
        until(doctor, "projects.secret", OK)


def test_with_a_fallback_a_project_without_a_pipeline_is_no_trouble(world, doctor):
    with _config(world, BRIDGE_FALLBACK_URL="http://brigade-github-app"), _project(world, "acme/idle"):
        until(doctor, "projects.pipelines", OK, "BRIDGE_FALLBACK_URL", "acme/idle")


def test_a_github_that_is_away_is_found(world, doctor, github):
    github.offline = True
    until(doctor, "github.api", WRONG, "gives no usable answer", remedy="egress")


def test_a_rate_limit_that_is_nearly_used_up_is_found(world, doctor, github):
    github.remaining = 12
    until(doctor, "github.limit", WARNING, "12 of 5000", remedy="who else uses")


def test_a_token_without_the_right_to_post_is_found(world, doctor, github):
    github.fail_next(1000, 403)
    until(doctor, "github.token", WRONG, PROJECT, "403", remedy="repo:status")
    assert not github.history


def test_nothing_is_stored_at_github(world, doctor, github):
    until(doctor, "github.statuses", OK, "their own tokens", PROJECT)
    assert github.posts
    assert not github.history


def test_the_app_is_tried_on_each_projects_repository(world, doctor, github, monkeypatch, tmp_path):
    pytest.importorskip("jwt", reason="the GitHub App's JWTs need PyJWT")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = tmp_path / "key.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    github.apps.add("7", public)
    installation = github.apps.install("7", PROJECT)
    monkeypatch.setenv("BRIDGE_GITHUB_APP_ID", "7")
    monkeypatch.setenv("BRIDGE_GITHUB_APP_KEY_FILE", str(file))
    until(doctor, "github.statuses", OK, "by the App", PROJECT)
    until(doctor, "github.checks", OK, "may write check runs")
    with _project(world, "acme/elsewhere", **{"github.token": ""}):
        until(doctor, "github.app", WRONG, "acme/elsewhere", remedy="install the App")
    with _project(world, "acme/suspended", **{"github.token": ""}):
        github.apps.change(installation, repositories=frozenset({PROJECT, "acme/suspended"}), suspended=True)
        until(doctor, "github.app", WRONG, "acme/suspended", "suspended", remedy="unsuspend")


def test_the_controllers_own_account_sees_what_it_may_and_says_what_the_rest_needs(
    world, doctor, control_plane, monkeypatch, tmp_path
):
    _be(world, control_plane, CONTROLLER.name, world.release, monkeypatch=monkeypatch, tmp_path=tmp_path)
    # In its pod it is told what others read from ConfigMaps.
    monkeypatch.setenv("BRIDGE_NAMESPACE", world.runs)
    monkeypatch.setenv("BRIDGE_BRIGADE_NAMESPACE", world.brigade)
    until(doctor, "rights.bridge-controller", OK)
    asked = doctor()
    until(doctor, "rights.bridge-gateway", UNKNOWN, remedy="the verb create on subjectaccessreviews", asked=asked)
    until(doctor, "argo.watches", UNKNOWN, remedy="list on deployments.apps", asked=asked)
    until(doctor, "argo.crds.workflows", OK, "are served", asked=asked)
    until(doctor, "namespaces", UNKNOWN, remedy="get on namespaces", asked=asked)
    until(doctor, "steps.config", UNKNOWN, remedy="get on configmaps", asked=asked)
    until(doctor, "brigade.controller", UNKNOWN, remedy="list on deployments", asked=asked)
    for check in ("projects", "pipelines", "bridge.leader"):
        until(doctor, check, OK, asked=asked)


def test_an_account_without_rights_calls_nothing_well_that_it_did_not_see(
    world, doctor, control_plane, monkeypatch, tmp_path
):
    world.admin.create(path("serviceaccounts", world.argo), {"metadata": {"name": "nobody"}})
    _be(world, control_plane, "nobody", world.argo, monkeypatch=monkeypatch, tmp_path=tmp_path)
    monkeypatch.setenv("BRIDGE_NAMESPACE", world.runs)
    monkeypatch.setenv("BRIDGE_BRIGADE_NAMESPACE", world.brigade)
    code, findings = doctor()
    assert code == 0
    well = {one["check"] for one in findings if one["status"] == OK}
    assert well <= {
        "kubernetes",
        "argo.crds.workflows",
        "argo.crds.workflowtemplates",
        "argo.crds.workflowtaskresults",
        "github.app",
        "github.api",
    }
    assert all(one["remedy"] for one in findings if one["status"] != OK)


def test_a_token_that_the_api_server_does_not_know_is_wrong_and_ends_it(
    world, doctor, control_plane, monkeypatch, tmp_path
):
    access = control_plane.access("hunter2")
    monkeypatch.setenv("BRIDGE_KUBECONFIG", str(access.write_kubeconfig(tmp_path / "kubeconfig")))
    code, findings = doctor()
    assert code == 2
    [found] = findings
    assert found["status"] == WRONG
    assert found["remedy"] == "log in again"


def test_an_api_server_that_is_away_exits_75(world, doctor, control_plane, monkeypatch, tmp_path):
    access = control_plane.admin
    closed = type(access)("https://127.0.0.1:1", access.ca_file, access.token)
    monkeypatch.setenv("BRIDGE_KUBECONFIG", str(closed.write_kubeconfig(tmp_path / "kubeconfig")))
    code, findings = doctor()
    assert code == 75
    [found] = findings
    assert found["check"] == "kubernetes"
    assert found["status"] == UNKNOWN
    assert found["remedy"]


def test_settings_that_lead_to_no_cluster_exit_1(doctor, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BRIDGE_KUBECONFIG", str(tmp_path / "none"))
    assert run(["doctor"]) == 1
    assert capsys.readouterr().err.startswith("bridgectl: the kubeconfig")


def test_crds_that_are_missing_or_lack_fields_are_found(tmp_path, monkeypatch, capsys):
    for name in list(os.environ):
        if name.startswith(("BRIDGE_", "BRIGADE_", "KUBECONFIG")):
            monkeypatch.delenv(name)
    with Processes(tmp_path / "own", strict=False, audit=False) as own, own.admin.client() as admin:
        monkeypatch.setenv("BRIDGE_KUBECONFIG", str(own.kubeconfig))
        monkeypatch.setenv("BRIDGE_GITHUB_API_URL", "http://127.0.0.1:1")

        def found(plural):
            code = run(["doctor", "-o", "json"])
            checks = json.loads(capsys.readouterr().out)["checks"]
            assert code == 2
            return next(one for one in checks if one["check"] == f"argo.crds.{plural}")

        known = {"spec": {"type": "object", "properties": {"onExit": {"type": "string"}}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": known}}
        change = [{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]
        where = path("customresourcedefinitions", name="workflowtemplates.argoproj.io")
        admin.patch(where, change, kind="json")
        fields = found("workflowtemplates")
        assert fields["status"] == WRONG
        assert "spec.workflowTemplateRef" in fields["told"]
        assert "spec.onExit" not in fields["told"]
        assert "install the CRDs" in fields["remedy"]

        where = path("customresourcedefinitions", name="workflowtaskresults.argoproj.io")
        admin.delete(where)
        missing = found("workflowtaskresults")
        assert missing["status"] == WRONG
        assert "not installed" in missing["told"]
        assert "install the CRDs" in missing["remedy"]


@contextmanager
def _elsewhere(name, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        yield


@contextmanager
def _both(*breaking):
    with ExitStack() as stack:
        for one in breaking:
            stack.enter_context(one)
        yield


def _argo(world, **changes):
    return _container(world, world.argo, "workflow-controller", changes)


def _brigade(world, **changes):
    return _container(world, world.brigade, "brigade-ctrl", changes)


def _container(world, where, name, changes):
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", **changes}]}}}}
    return patched(world.admin, path("deployments", where, name), patch, kind="strategic")


def _project(world, name, **data):
    return there(world.admin, world.project(name, **data))


def _config(world, **data):
    return _both(
        *(
            patched(world.admin, path("configmaps", world.release, name), {"data": data})
            for name in ("bridge-gateway", "bridge-controller")
        )
    )


def _be(world, control_plane, account, home, *, monkeypatch, tmp_path):

    access = control_plane.access(token_of(world.admin, home, account), world.release)
    monkeypatch.setenv("BRIDGE_KUBECONFIG", str(access.write_kubeconfig(tmp_path / f"{account}.kubeconfig")))
