"""Whose a projected token is: real tokens of real ServiceAccounts, bound to real Pods, seen by a gateway's own account."""

import base64
import json
import threading
import time
import uuid

import jwt
import pytest
from werkzeug.serving import make_server

from bridge.clocks import SystemClock
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.gateway import GatewayTokens
from bridge.cluster.runs import SecretRuns
from bridge.cluster.tokens import TOKEN_AUDIENCE, ClusterCallers
from bridge.core.brigade import worker_name
from bridge.core.events.wrappers import wrapped
from bridge.core.names import RUN_LABEL, build_id
from bridge.core.runs import Attempt, Kind, with_attempt
from bridge.core.step_flags import BuildFlags
from bridge.core.steps import Options
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import Forbidden
from bridge.flows.freshening import Freshening
from bridge.flows.stepping import Key, Stepping
from bridge.ports import Caller
from bridge.settings import load
from bridge.web.app import create_app
from bridge.wiring.cluster import ports_over
from bridge.wsgi import cluster_gateway
from tests.cluster.accounts import create_account, eventually
from tests.cluster.apis import api_of
from tests.cluster.client import path
from tests.fakes import FakeProjects, some_event, some_run
from tests.github.apps import APP_ID, key_file, with_app
from tests.local.building import PROJECT

RUN = "push-r1"
REVIEWS = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}


@pytest.fixture
def gateway(admin, as_service_account, namespace):
    """Calls as an account that may do what the chart lets the gateway do for this."""
    access = as_service_account("bridge-gateway", [PODS])
    role = f"reviews-{uuid.uuid4().hex[:10]}"
    admin.create(path("clusterroles"), {"metadata": {"name": role}, "rules": [REVIEWS]})
    binding = {
        "metadata": {"name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "bridge-gateway", "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    }
    admin.create(path("clusterrolebindings"), binding)
    yield api_of(access)
    admin.delete(path("clusterrolebindings", name=role))
    admin.delete(path("clusterroles", name=role))


@pytest.fixture
def callers(gateway, namespace):
    callers = ClusterCallers(gateway, namespace)
    # The API server learns of Roles by a watch.
    _eventually_may(callers)
    return callers


def _eventually_may(callers):
    def may():
        try:
            return callers.caller("nobodys-token") is None
        except Forbidden:
            return False

    eventually(may, "the gateway's account may review tokens")


def _pod(admin, namespace, name="step", *, account="bridge-step", run=RUN):
    """A step's Pod, as Argo makes it of a rendered template, as far as this goes. Answers its uid."""
    create_account(admin, namespace, account)
    labels = {RUN_LABEL: run} if run else {}
    container = {"name": "main", "image": "bridge", "command": ["brig", "run"]}
    body = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"serviceAccountName": account, "containers": [container]},
    }
    return admin.create(path("pods", namespace), body)["metadata"]["uid"]


def _token(admin, namespace, *, account="bridge-step", pod="", uid="", audience=TOKEN_AUDIENCE):
    """What the kubelet would put into the Pod's projected volume."""
    spec = {"expirationSeconds": 600, "audiences": [audience] if audience else None}
    if pod:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    create_account(admin, namespace, account)
    answer = admin.create(path("serviceaccounts", namespace, account, "token"), {"spec": spec})
    return answer["status"]["token"]


def test_a_steps_pod_is_known_with_its_run(callers, admin, namespace):
    uid = _pod(admin, namespace)
    token = _token(admin, namespace, pod="step", uid=uid)
    assert callers.caller(token) == Caller(f"{namespace}:bridge-step", RUN)


def test_another_account_is_told_apart(callers, admin, namespace):
    uid = _pod(admin, namespace, account="bridge-native")
    token = _token(admin, namespace, account="bridge-native", pod="step", uid=uid)
    assert callers.caller(token) == Caller(f"{namespace}:bridge-native", RUN)


def test_a_pod_of_another_namespace_is_of_no_run_whatever_its_labels_say(
    callers, admin, namespace, make_namespace
):
    elsewhere = make_namespace()
    uid = _pod(admin, elsewhere)
    _pod(admin, namespace)
    token = _token(admin, elsewhere, pod="step", uid=uid)
    assert callers.caller(token) == Caller(f"{elsewhere}:bridge-step", "")


def test_a_token_that_is_bound_to_no_pod_is_of_no_run(callers, admin, namespace):
    _pod(admin, namespace)
    assert callers.caller(_token(admin, namespace)) == Caller(f"{namespace}:bridge-step", "")


def test_another_runs_pod_says_its_own_run_and_an_unlabelled_one_none(callers, admin, namespace):
    uid = _pod(admin, namespace, "other", run="push-r2")
    assert callers.caller(_token(admin, namespace, pod="other", uid=uid)).run == "push-r2"
    uid = _pod(admin, namespace, "bare", run="")
    assert callers.caller(_token(admin, namespace, pod="bare", uid=uid)).run == ""


def test_the_token_of_a_pod_that_is_gone_is_nobodys_also_when_another_has_its_name(callers, admin, namespace):
    uid = _pod(admin, namespace)
    token = _token(admin, namespace, pod="step", uid=uid)
    admin.delete(path("pods", namespace, "step"), {"gracePeriodSeconds": 0})
    assert (callers.caller(token) or Caller("", "")).run == ""
    _pod(admin, namespace, run="push-r2")
    assert (callers.caller(token) or Caller("", "")).run == ""


def test_a_token_for_somebody_else_is_nobodys(callers, admin, namespace):
    uid = _pod(admin, namespace)
    for audience in ("vault", ""):
        assert callers.caller(_token(admin, namespace, pod="step", uid=uid, audience=audience)) is None


def _changed(token, **claims):
    head, body, signature = token.split(".")
    known = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**known, **claims}).encode()).decode().rstrip("=")
    return f"{head}.{forged}.{signature}"


def test_a_token_that_ended_or_was_never_made_is_nobodys(callers, admin, namespace):
    uid = _pod(admin, namespace)
    token = _token(admin, namespace, pod="step", uid=uid)
    nobodys = [
        "",
        "garbage",
        "a.b.c",
        "x" * 20_000,
        "two words",
        "line\nbreak",
        "caf\u00e9",
        token[:-4],
        f"{token}x",
        _changed(token, exp=1_700_000_000),
        _changed(token, sub=f"system:serviceaccount:{namespace}:bridge-other"),
    ]
    assert [callers.caller(one) for one in nobodys] == [None] * len(nobodys)
    assert callers.caller(token) is not None


def test_a_gateway_without_the_right_says_which_one_it_lacks(as_service_account, namespace):
    bare = ClusterCallers(api_of(as_service_account("bare", [PODS])), namespace)
    with pytest.raises(Forbidden, match="verb create on tokenreviews") as caught:
        bare.caller("some-token")
    assert "some-token" not in str(caught.value)


def test_a_gateway_that_may_not_read_pods_says_so(admin, gateway, namespace, make_namespace):
    elsewhere = make_namespace()
    callers = ClusterCallers(gateway, elsewhere)
    _eventually_may(callers)
    uid = _pod(admin, elsewhere)
    with pytest.raises(Forbidden, match="verb get on pods"):
        callers.caller(_token(admin, elsewhere, pod="step", uid=uid))


def test_a_token_that_was_good_and_has_ended_is_nobodys(callers, admin, namespace, control_plane):
    uid = _pod(admin, namespace)
    token = _token(admin, namespace, pod="step", uid=uid)
    # The key that makes the tests' API server an authority signs its tokens too.
    key = control_plane.admin.ca_file.with_suffix(".key").read_text()
    claims = jwt.decode(token, options={"verify_signature": False})

    def signed(ends):
        made = {**claims, "iat": ends - 600, "nbf": ends - 600, "exp": ends}
        return jwt.encode(made, key, algorithm="RS256", headers={"kid": jwt.get_unverified_header(token)["kid"]})

    assert callers.caller(signed(int(time.time()) + 300)) == Caller(f"{namespace}:bridge-step", RUN)
    assert callers.caller(signed(int(time.time()) - 300)) is None


@pytest.fixture
def gateway_url(control_plane, namespace, tmp_path):
    """A cluster's gateway with an App, over real HTTP; and the GitHub that knows the App."""
    with FakeGitHub() as github:
        with_app(github, "acme/widgets")
        settings = load(
            namespace=namespace,
            brigade_namespace=namespace,
            github_app_id=APP_ID,
            github_app_key_file=key_file(tmp_path),
            github_api_url=github.url,
        )
        ports = ports_over(api_of(control_plane.admin), settings)
        ports.projects.start()
        server = make_server("127.0.0.1", 0, create_app(cluster_gateway(settings, ports)), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", github
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            ports.projects.stop()


def test_a_steps_build_gets_a_fresh_token_and_the_record_none(
    gateway_url, control_plane, admin, namespace, tmp_path
):
    url, github = gateway_url
    api = api_of(control_plane.admin)
    event = some_event(type="check_run:created", payload=b"")
    runs = SecretRuns(api, namespace)
    runs.create(some_run(RUN, event=event), wrapped("check_run", b'{"action":"created"}', commit="", branch=""))
    runs.change(RUN, lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, time.time(), steps=("test",))))
    uid = _pod(admin, namespace)
    bearer = tmp_path / "token"
    bearer.write_text(_token(admin, namespace, pod="step", uid=uid))
    stepping = Stepping(
        runs,
        BrigadeBuilds(api, namespace, FakeProjects([PROJECT]), clock=SystemClock()),
        SystemClock(),
        lambda _chunk: None,
        lambda _line: None,
        flags=BuildFlags(background=True),
        freshened=Freshening(GatewayTokens(url, token_file=bearer), lambda _line: None),
    )
    answer = stepping.answer(Key(RUN, 1, "test"), Options(events=("check_run",)))
    assert answer.code == 0, answer
    secret = admin.get(path("secrets", namespace, worker_name(build_id(run=RUN, epoch=1, step="test", number=1))))
    payload = json.loads(base64.b64decode(secret["data"]["payload"]))
    [minted] = github.apps.minted
    assert (payload["token"], payload["body"]) == (minted.token, {"action": "created"})
    assert minted.repositories == {"acme/widgets"}
    assert minted.token.encode() not in runs.payload(RUN)
