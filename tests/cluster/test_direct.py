"""`bridgectl --kube` without any gateway: as a ServiceAccount with a person's rights, on a real API server."""

import json

import pytest

from bridge.commands import run as typed
from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from tests.cluster.client import path
from tests.cluster.controlled import PROJECT

TOKEN = "ghp-of-the-project"
READ = [
    {"apiGroups": [""], "resources": ["secrets", "pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get", "list"]},
]
ACT = [*READ, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]}]


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def type_in(realm, as_service_account, monkeypatch, capsys):
    """Type a command as somebody who may do this; answers its exit code and what it wrote."""

    def type_in(name, rules, *arguments):
        access = as_service_account(name, rules, home=realm.namespace, within=[realm.brigade_namespace])
        for key, value in realm.environment(access, BRIDGE_KUBE="true").items():
            if key.startswith("BRIDGE_"):
                monkeypatch.setenv(key, value)
        code = typed(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return type_in


def test_a_person_lists_explains_and_retries_with_no_gateway(realm, brigade, type_in):
    realm.pipeline()
    with realm.controlled():
        run = realm.accept()
        realm.end_workflow(run, "Failed")
        sha = realm.until_closed(run).event.revision.commit
        code, out, err = type_in("ada", ACT, "list", "--sha", sha[:10], "-o", "json")
        assert code == 0, err
        (found,) = json.loads(out)["runs"]
        assert (found["id"], found["verdict"], found["project"]) == (run, "failed", PROJECT)

        assert type_in("ada", ACT, "get", run, "-w")[0] == 2
        code, out, err = type_in("ada", ACT, "explain", sha)
        assert code == 0, err
        assert "pipeline push wants it" in out
        assert "attempt 1 ended: failed" in out

        code, out, err = type_in("ada", ACT, "retry", sha[:12])
        assert (code, out) == (0, f"{run}: retry: attempt 2 begins now\n"), err
        realm.end_workflow(f"{run}-2")
        again = realm.until_run(
            run, lambda now: now.phase is Phase.CLOSED and now.attempt and now.attempt.n == 2, "to close"
        )
    assert again.verdict is Verdict.SUCCEEDED
    (asked,) = again.acts
    who = f"system:serviceaccount:{realm.namespace}:ada"
    assert (asked.kind, asked.who, asked.source, asked.follows) == (Kind.RETRY, who, "cli", 1)
    (fired,) = brigade.builds(run)
    assert fired["labels"]["bridge.brigade.sh/step"] == "exit.1"
    for arguments in (["logs", run, "exit.1"], ["logs", "-f", run]):
        code, out, err = type_in("ada", ACT, *arguments)
        assert (code, out) == (0, "==> exit.1, build 1\ndone\n"), err
    code, out, err = type_in("ada", ACT, "get", run, "-o", "yaml")
    assert code == 0, err
    assert "verdict: succeeded" in out


def test_a_delivery_that_nobody_wanted_is_explained_with_the_tokens_that_this_person_may_read(
    realm, type_in, monkeypatch
):
    realm.pipeline()
    webhook = "https://bridge.example/events/github"
    secrets = path("secrets", realm.brigade_namespace)
    (project,) = realm.admin.get(secrets, labelSelector="component=project")["items"]
    realm.admin.patch(f"{secrets}/{project['metadata']['name']}", {"stringData": {"github.token": TOKEN}})
    with FakeGitHub(tokens=[TOKEN]) as github:
        hook = github.hooks.add(PROJECT, webhook)
        body = json.dumps({"action": "opened", "repository": {"full_name": PROJECT}}).encode()
        guid = github.hooks.put(hook, 200, event="issues", body=body)
        monkeypatch.setenv("BRIDGE_GITHUB_API_URL", github.url)
        assert "BRIDGE_WEBHOOK_URL" in type_in("ada", READ, "explain", guid)[2]
        monkeypatch.setenv("BRIDGE_WEBHOOK_URL", webhook)
        code, out, err = type_in("ada", READ, "explain", guid)
    assert code == 0, err
    assert "200" in out
    assert "Now: nothing runs for it: " in out
    assert TOKEN not in out + err


def test_who_may_only_read_reads_and_is_told_what_is_missing(realm, type_in):
    run = realm.accept()
    code, out, _ = type_in("eve", READ, "list", "-o", "json")
    assert (code, [one["id"] for one in json.loads(out)["runs"]]) == (0, [run])
    code, out, err = type_in("eve", READ, "cancel", run)
    assert (code, out) == (1, "")
    assert "patch" in err
    assert realm.runs.read(run).acts == ()


def test_who_may_nothing_reads_nothing(realm, type_in):
    realm.accept()
    code, out, err = type_in("mallory", [], "list")
    assert (code, out) == (1, "")
    assert err.startswith("bridgectl: ")
    assert err.count("\n") == 1


def test_what_is_not_there_is_4_and_a_gateway_that_is_named_is_asked_instead(realm, type_in):
    assert type_in("ada", READ, "get", "push-none")[0] == 4
    assert type_in("ada", READ, "explain", "00000000-0000-0000-0000-000000000000")[0] == 4
    code, _, err = type_in("ada", READ, "list", "--url", "http://127.0.0.1:1")
    assert code == 75
    assert "http://127.0.0.1:1" in err
