"""The buttons of pages, as their forms send them."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict
from bridge.web.gateway import Proxy
from tests.web.pages import csrf, sign_in
from tests.web.test_api import a_running
from tests.web.worlds import a_world

ACT, READ = "token-that-acts", "token-that-reads"


def a_world_of_one(**settings):
    world = a_world(**settings)
    world.runs.add(a_running())
    return world


def shared(**settings):
    return a_world_of_one(
        loopback_only=False, read_tokens=(f"grace={READ}",), act_tokens=(f"ada={ACT}",), **settings
    )


def press(world, path="/runs/push-r1/retry", *, sealed=None, **fields):
    sent = {"csrf": csrf(world.client) if sealed is None else sealed, "follows": "1", **fields}
    return world.client.post(path, data=sent)


def acts(world):
    return [(one.kind, one.follows, one.only, one.who, one.source) for one in world.runs.records["push-r1"].acts]


@pytest.mark.parametrize("kind", ["retry", "rerun", "cancel"])
def test_a_button_asks_for_its_act_and_leads_back_to_the_run(kind):
    world = a_world_of_one()
    answer = press(world, f"/runs/push-r1/{kind}")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs/push-r1")
    assert acts(world) == [(Kind(kind), 1, (), "this machine", "page")]


def test_what_is_held_is_approved():
    world = a_world_of_one()
    run = world.runs.records["push-r1"]
    world.runs.records["push-r1"] = replace(run, state=replace(run.state, attempts=(), held="from a fork"))
    assert press(world, "/runs/push-r1/approve", follows="0").status_code == 303
    assert acts(world) == [(Kind.APPROVE, 0, (), "this machine", "page")]


def test_one_step_is_retried_alone():
    world = a_world_of_one()
    assert press(world, "/runs/push-r1/steps/build/retry").status_code == 303
    assert acts(world) == [(Kind.RETRY, 1, ("build",), "this machine", "page")]
    assert press(world, "/runs/push-r1/steps/nothing/retry").status_code == 409


def test_the_name_of_who_signed_in_is_kept_with_the_act():
    world = shared()
    sign_in(world.client, ACT)
    assert press(world).status_code == 303
    assert acts(world) == [(Kind.RETRY, 1, (), "ada", "page")]


def test_a_double_click_is_one_act():
    world = a_world_of_one()
    for _ in range(2):
        assert press(world, request="the-same").status_code == 303
    assert len(acts(world)) == 1


def test_what_became_of_it_is_shown_once_and_only_to_whom_it_was_told():
    world = a_world_of_one()
    press(world)
    told = world.client.get("/runs/push-r1").text
    assert "retry: attempt 2 begins when this one has ended" in told
    assert "begins when" not in world.client.get("/runs/push-r1").text
    world.client.set_cookie("bridge-told", "aGVsbG8=.forged")
    assert "hello" not in world.client.get("/runs/push-r1").text


def test_a_button_of_a_page_that_is_behind_does_nothing_and_says_so():
    world = a_world_of_one()
    run = world.runs.records["push-r1"]
    second = replace(run.attempt, n=2, kind=Kind.RETRY)
    world.runs.records["push-r1"] = replace(run, state=replace(run.state, attempts=(run.attempt, second)))
    assert press(world, follows="1").status_code == 303
    assert acts(world) == []
    assert "attempt 1 has a successor: attempt 2" in world.client.get("/runs/push-r1").text


@pytest.mark.parametrize(
    "path", ["/runs/push-r1/retry", "/runs/push-r1/steps/build/retry", "/runs/push-r1/cancel"]
)
def test_who_may_only_read_does_not_act(path):
    world = shared()
    sign_in(world.client, READ)
    assert press(world, path).status_code == 403
    assert acts(world) == []


@pytest.mark.parametrize("settings", [{}, {"anonymous_read": True}])
def test_who_is_nobody_does_not_act(settings):
    world = shared(**settings)
    answer = press(world)
    assert answer.status_code == 401
    assert "Sign in" in answer.text
    assert acts(world) == []


@pytest.mark.parametrize("sealed", ["", "wrong"])
@pytest.mark.parametrize("token", [None, ACT])
def test_without_the_seal_of_a_form_of_ours_nothing_is_done(sealed, token):
    world = shared() if token else a_world_of_one()
    if token:
        sign_in(world.client, token)
    assert press(world, sealed=sealed).status_code == 403
    assert acts(world) == []


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}]
)
def test_another_site_does_not_press_a_button(headers):
    world = a_world_of_one()
    answer = world.client.post("/runs/push-r1/retry", data={"csrf": csrf(world.client)}, headers=headers)
    assert answer.status_code == 403
    assert acts(world) == []


def test_who_a_proxy_names_acts_with_a_form_and_not_without():
    proxy = Proxy((ip_network("10.0.0.9"),), act_users=frozenset({"ada"}))
    world = a_world_of_one(loopback_only=False, proxy=proxy)
    named = {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}, "headers": {"X-Forwarded-User": "ada"}}
    sealed = csrf(world.client, **named)
    assert world.client.post("/api/v1/runs/push-r1/retry", **named).status_code == 403
    assert world.client.post("/runs/push-r1/retry", data={"follows": "1"}, **named).status_code == 403
    elsewhere = {**named, "environ_base": {"REMOTE_ADDR": "10.0.0.10"}}
    assert world.client.post("/runs/push-r1/retry", data={"csrf": sealed}, **elsewhere).status_code == 401
    assert (
        world.client.post("/runs/push-r1/retry", data={"csrf": sealed, "follows": "1"}, **named).status_code == 303
    )
    assert acts(world) == [(Kind.RETRY, 1, (), "ada", "page")]


@pytest.mark.parametrize(
    "fields", [{"follows": "-1"}, {"follows": "x"}, {"request": "a\nb"}, {"request": "x" * 201}]
)
def test_a_form_that_cannot_be_used_is_refused_without_quoting_it(fields):
    world = a_world_of_one()
    answer = press(world, **fields)
    assert answer.status_code == 400
    assert "x" * 201 not in answer.text
    assert acts(world) == []


def test_there_are_no_other_buttons_and_no_other_runs():
    world = a_world_of_one()
    assert press(world, "/runs/push-r1/forget").status_code == 404
    assert press(world, "/runs/push-r1/first").status_code == 404
    assert press(world, "/runs/none/retry").status_code == 404
    assert world.client.get("/runs/push-r1/retry").status_code == 405


def test_a_run_that_succeeded_has_nothing_to_retry():
    world = a_world_of_one()
    run = world.runs.records["push-r1"]
    ended = replace(run.attempt, verdict=Verdict.SUCCEEDED, ended=1.0)
    state = replace(run.state, attempts=(ended,))
    world.runs.records["push-r1"] = replace(run, phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED, state=state)
    press(world)
    assert acts(world) == []
    assert "nothing to retry" in world.client.get("/runs/push-r1").text
