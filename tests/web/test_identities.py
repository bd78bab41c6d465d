"""Who asks: tokens with names, and what an authenticating proxy says."""

import re
from ipaddress import ip_network

import pytest

from bridge.web.gateway import Proxy
from bridge.web.identities import Proof, identity_of, named
from tests.web.worlds import a_world

PROXY = Proxy((ip_network("10.1.0.0/16"), ip_network("fd00::7/128")), act_users=frozenset({"ada"}), act_groups=frozenset({"devs"}))  # fmt: skip


def who(world, *, peer="192.0.2.1", **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with world.app.test_request_context("/", headers=sent, environ_base={"REMOTE_ADDR": peer}) as context:
        return identity_of(context.request, world.gateway)


def shared(**settings):
    return a_world(loopback_only=False, **settings)


@pytest.mark.parametrize(
    ("text", "name", "token"),
    [
        ("grace=s3cret", "grace", "s3cret"),
        ("ada@example.com=a=b==", "ada@example.com", "a=b=="),
        ("plain", "", "plain"),
        ("cGFkZGVk==", "", "cGFkZGVk=="),
        ("cGFkZGU=", "", "cGFkZGU="),
        ("=x", "", "=x"),
        ("", "", ""),
    ],
)
def test_a_token_may_have_a_name_before_it(text, name, token):
    assert named(text) == (name, token)


def test_a_token_tells_who_asks_and_what_they_may():
    world = shared(read_tokens=("grace=reads", "old"), act_tokens=("bot=acts",))
    read = who(world, Authorization="Bearer reads")
    assert (read.name, read.may_act, read.proof) == ("grace", False, Proof.BEARER)
    act = who(world, Authorization="bearer acts")
    assert (act.name, act.may_act) == ("bot", True)
    assert who(world, Authorization="Bearer old").name == "read-token-2"
    for wrong in ("Bearer grace=reads", "Bearer grace", "Bearer", "Basic reads", "Bearer reads\xff"):
        assert who(world, Authorization=wrong) is None


def test_a_token_of_both_kinds_acts():
    world = shared(read_tokens=("same",), act_tokens=("ada=same",))
    assert who(world, Authorization="Bearer same").may_act


@pytest.mark.parametrize(
    ("peer", "believed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::7", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
        ("fd00::8", False),
        ("", False),
    ],
)
def test_the_headers_of_a_proxy_are_believed_from_its_own_addresses_alone(peer, believed):
    world = shared(proxy=PROXY)
    found = who(world, peer=peer, X_Forwarded_User="ada", X_Forwarded_For="10.1.2.3", X_Real_IP="10.1.2.3")
    assert (found is not None) is believed


def test_without_a_proxy_in_the_settings_nobody_is_believed():
    assert who(shared(), peer="10.1.2.3", X_Forwarded_User="ada") is None


@pytest.mark.parametrize(
    ("headers", "may_act"),
    [
        ({"X_Forwarded_User": "ada"}, True),
        ({"X_Forwarded_User": "Ada"}, False),
        ({"X_Forwarded_User": "eve"}, False),
        ({"X_Forwarded_User": "eve", "X_Forwarded_Groups": "others, devs"}, True),
        ({"X_Forwarded_User": "eve", "X_Forwarded_Groups": "devs-not"}, False),
        ({"X_Forwarded_User": "eve", "X_Forwarded_Groups": ","}, False),
        ({"X_Forwarded_User": "devs"}, False),
    ],
)
def test_who_may_act_is_a_setting_of_users_and_groups(headers, may_act):
    found = who(shared(proxy=PROXY), peer="10.1.2.3", **headers)
    assert (found.name, found.may_act, found.proof) == (headers["X_Forwarded_User"], may_act, Proof.PROXY)


@pytest.mark.parametrize("name", ["", " ", "ada,eve", "ada, ada", "x" * 201, "a\x7fb"])
def test_a_name_that_is_none_or_two_is_nobody(name):
    assert who(shared(proxy=PROXY), peer="10.1.2.3", X_Forwarded_User=name, X_Forwarded_Groups="devs") is None


def test_the_headers_have_the_names_of_the_settings_and_names_may_be_of_any_alphabet():
    proxy = Proxy(
        (ip_network("10.1.2.3"),), "X-Auth-Request-Email", "X-Auth-Request-Groups", act_groups=frozenset({"ü"})
    )
    world = shared(proxy=proxy)
    headers = {
        "X_Auth_Request_Email": "zoë@example.com".encode().decode("latin-1"),
        "X_Auth_Request_Groups": "ü".encode().decode("latin-1"),
    }
    found = who(world, peer="10.1.2.3", **headers)
    assert (found.name, found.may_act) == ("zoë@example.com", True)
    assert who(world, peer="10.1.2.3", X_Forwarded_User="ada") is None


def test_a_token_goes_before_the_proxy_and_a_wrong_one_does_not_hide_it():
    world = shared(proxy=PROXY, act_tokens=("bot=acts",))
    assert who(world, peer="10.1.2.3", X_Forwarded_User="eve", Authorization="Bearer acts").name == "bot"
    # oauth2-proxy may pass its own on.
    assert who(world, peer="10.1.2.3", X_Forwarded_User="eve", Authorization="Bearer ey.J.x").name == "eve"


def test_on_one_machine_everybody_acts_until_tokens_or_a_proxy_say_who():
    assert who(a_world()).may_act
    assert not who(a_world(act_tokens=("acts",))).may_act
    proxied = a_world(proxy=PROXY)
    assert not who(proxied).may_act
    assert who(proxied, peer="10.1.2.3", X_Forwarded_User="ada").may_act


OPEN = {"health", "hooks", "badges", "signin", "static", "internal", "themes"}
"""Blueprints that ask no identity of this kind: hooks and internal routes have proofs of their own."""


def test_without_identity_nothing_answers_but_hooks_probes_badges_and_the_sign_in():
    world = shared(read_tokens=("reads",), act_tokens=("acts",), proxy=PROXY)
    asked = []
    for rule in world.app.url_map.iter_rules():
        if rule.endpoint.partition(".")[0] in OPEN:
            continue
        path = rule.rule
        for name in rule.arguments:
            path = re.sub(rf"<(?:[a-z]+:)?{name}>", {"kind": "retry"}.get(name, "x"), path)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            headers = {"X-Forwarded-User": "ada", "X-Forwarded-For": "10.1.2.3", "Cookie": "bridge-session=1.a.b"}
            answer = world.client.open(path, method=method, headers=headers)
            assert answer.status_code == 401, (method, path)
            asked.append(path)
    assert len(asked) > 15
