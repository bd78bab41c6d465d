"""Where the cluster is and who we are, from every place that can say it."""

import base64
import json
import os
import ssl
import stat

import pytest
import yaml

from bridge.cluster.api import Api
from bridge.cluster.connections import (
    Connection,
    ExecTokens,
    FixedToken,
    TokenFile,
    find_connection,
    kubeconfig_connection,
    pod_connection,
    tls_context,
)
from bridge.errors import Misconfigured

SECRET = "hunter2"


def kubeconfig(path, *, user=None, cluster=None, context=None, current="one", name="one"):
    content = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.com", **(cluster or {})}}],
        "users": [{"name": name, "user": {"token": SECRET} if user is None else user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **(context or {})}}],
        "current-context": current,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def account(tmp_path):
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "namespace").write_text("bridge")
    return folder


def test_a_pod_speaks_as_its_service_account(account):
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = find_connection(environment, service_account=account)
    assert (found.server, found.namespace, found.authority) == (
        "https://10.96.0.1:443",
        "bridge",
        account / "ca.crt",
    )
    assert found.tokens.current() == SECRET
    assert SECRET not in repr(found)
    six = pod_connection({"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account=account)
    assert six.server == "https://[fd00::1]:443"


def test_a_pod_without_a_token_is_told_so(account):
    (account / "token").unlink()
    with pytest.raises(Misconfigured, match="mount the ServiceAccount's token"):
        find_connection({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, service_account=account)
    with pytest.raises(Misconfigured, match="this is no pod"):
        pod_connection({}, service_account=account)


def test_a_token_that_the_kubelet_replaced_is_read_again(account):
    tokens = TokenFile(account / "token")
    assert tokens.current() == SECRET
    assert not tokens.renew(SECRET)
    # As the kubelet does: another file under the same name.
    (account / "new").write_text("other")
    (account / "new").replace(account / "token")
    assert tokens.current() == "other"
    assert tokens.renew(SECRET)


def test_a_kubeconfig_says_everything(tmp_path):
    (tmp_path / "token").write_text("from-file")
    path = kubeconfig(
        tmp_path / "config",
        cluster={"certificate-authority": "ca.crt", "tls-server-name": "kubernetes"},
        user={
            "tokenFile": "token",
            "token": "older",
            "client-certificate-data": base64.b64encode(b"pem").decode(),
        },
        context={"namespace": "ns"},
    )
    found = find_connection({"KUBECONFIG": str(path), "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert (found.server, found.namespace, found.server_name) == ("https://one.example.com", "ns", "kubernetes")
    assert found.authority == tmp_path / "ca.crt"
    assert found.certificate == b"pem"
    assert found.tokens.current() == "from-file"
    assert found.verified


def test_of_several_kubeconfigs_the_first_to_say_something_is_believed(tmp_path):
    first = kubeconfig(tmp_path / "first", current="")
    second = kubeconfig(tmp_path / "second", name="two", current="two")
    environment = {"KUBECONFIG": f"{first}:{tmp_path / 'absent'}:{second}"}
    assert find_connection(environment).server == "https://two.example.com"
    assert find_connection(environment, context="one").server == "https://one.example.com"


def test_the_kubeconfig_at_home_is_the_last_resort(tmp_path, account):
    kubeconfig(tmp_path / ".kube" / "config")
    assert find_connection({"HOME": str(tmp_path)}).server == "https://one.example.com"
    with pytest.raises(Misconfigured, match="set KUBECONFIG"):
        find_connection({"HOME": str(account)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": {"auth-provider": {"name": "gcp"}}}, "auth-provider is not supported"),
        ({"user": {"username": "u", "password": SECRET}}, "password is not supported"),
        ({"user": {"as": "admin"}}, "as is not supported"),
        ({"user": {"exec": {"args": []}}}, "exec names no command"),
        ({"user": {"client-key-data": "%%%"}}, "client-key-data is no base64"),
        ({"user": {"token": 7}}, "token is no text"),
        ({"cluster": {"server": ""}}, "server is missing"),
        ({"cluster": {"proxy-url": "http://proxy"}}, "proxy-url is not supported"),
        ({"current": ""}, "no current-context"),
        ({"current": "other"}, "there is no context 'other'"),
        ({"context": {"cluster": "other"}}, "there is no cluster 'other'"),
        ({"context": {"user": "other"}}, "there is no user 'other'"),
    ],
    ids=range(12),
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path, changes, said):
    path = kubeconfig(tmp_path / "config", **changes)
    with pytest.raises(Misconfigured, match=said) as caught:
        kubeconfig_connection([path])
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", ["[", "[]", "a: b: c", f"token: {SECRET}\n\t- x", "\x00"], ids=range(5))
def test_what_is_no_kubeconfig_is_not_quoted(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Misconfigured, match=str(path)) as caught:
        kubeconfig_connection([path])
    assert SECRET not in str(caught.value)
    with pytest.raises(Misconfigured, match="check KUBECONFIG"):
        kubeconfig_connection([tmp_path / "absent"])


def plugin(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_exec_plugin_is_run_when_a_token_is_needed(tmp_path):
    credential = {
        "kind": "ExecCredential",
        "status": {"token": SECRET, "expirationTimestamp": "2999-01-01T00:00:00Z"},
    }
    plugin(
        tmp_path / "plugin",
        f"echo called >> {tmp_path}/calls; [ \"$A$1\" = bc ] && echo '{json.dumps(credential)}'",
    )
    user = {
        "exec": {"command": "./plugin", "args": ["c"], "env": [{"name": "A", "value": "b"}], "apiVersion": "v1"}
    }
    found = kubeconfig_connection([kubeconfig(tmp_path / "config", user=user)], environment=os.environ)
    assert not (tmp_path / "calls").exists()
    assert [found.tokens.current() for _ in range(3)] == [SECRET] * 3
    assert (tmp_path / "calls").read_text() == "called\n"
    assert not found.tokens.renew(SECRET)
    assert (tmp_path / "calls").read_text() == "called\ncalled\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "ended with 3"),
        (f"echo {SECRET}", "answered no token"),
        ("echo '{}'", "answered no token"),
        ("echo '[]'", "answered no token"),
        ('echo \'{"status": {"token": "t", "expirationTimestamp": "tomorrow"}}\'', "answered no token"),
    ],
    ids=range(5),
)
def test_an_exec_plugin_that_does_not_help_says_so(tmp_path, text, said):
    tokens = ExecTokens([str(plugin(tmp_path / "plugin", text))], environment={}, api_version="v1")
    with pytest.raises(Misconfigured, match=said) as caught:
        tokens.current()
    assert SECRET not in str(caught.value)


def test_an_exec_plugin_that_is_not_there_says_so(tmp_path):
    with pytest.raises(Misconfigured, match="did not run"):
        ExecTokens([str(tmp_path / "absent")], environment={}, api_version="v1").current()


def test_certificates_come_from_files_or_from_the_kubeconfig_itself(control_plane):
    folder = control_plane.folder / "certificates"
    certificate, key = folder / "apiserver.crt", folder / "apiserver.key"
    for made in (
        Connection("https://host", authority=certificate, certificate=certificate, key=key),
        Connection(
            "https://host", authority=certificate.read_bytes(), certificate=certificate.read_bytes(), key=key
        ),
    ):
        context = tls_context(made)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    assert tls_context(Connection("https://host", verified=False)).verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("broken", ["authority", "certificate", "key"])
def test_certificates_that_cannot_be_used_are_not_quoted(control_plane, tmp_path, broken):
    folder = control_plane.folder / "certificates"
    files = {
        "authority": folder / "apiserver.crt",
        "certificate": folder / "apiserver.crt",
        "key": folder / "apiserver.key",
    }
    with pytest.raises(Misconfigured, match="certificate"):
        Api(Connection("https://host", **{**files, broken: f"-----BEGIN {SECRET}-----".encode()}))
    with pytest.raises(Misconfigured, match="cannot be read"):
        Api(Connection("https://host", **{**files, broken: tmp_path / "absent"}))


def test_the_admins_kubeconfig_works(control_plane):
    api = Api(kubeconfig_connection([control_plane.kubeconfig]), timeout_seconds=60)
    assert api.at("/version")["gitVersion"].startswith("v1.")


def test_without_verification_anybody_is_spoken_to(control_plane):
    connection = Connection(control_plane.url, FixedToken(control_plane.admin_token), verified=False)
    assert Api(connection, timeout_seconds=60).at("/version")["major"] == "1"
