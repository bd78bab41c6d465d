"""Signing in with a token on a page, what the browser keeps of it, and forms of other sites."""

from io import BytesIO

import pytest

from bridge.web.guesses import AT_ONCE, SECONDS_EACH
from tests.web.pages import csrf, sign_in
from tests.web.test_api import a_running
from tests.web.worlds import a_world

READ, ACT = "token-that-reads", "token-that-acts"


def shared(**settings):
    known = {"loopback_only": False, "read_tokens": (f"grace={READ}",), "act_tokens": (f"ada={ACT}",)}
    world = a_world(**{**known, **settings})
    world.runs.add(a_running())
    return world


def cookies(answer):
    return answer.headers.getlist("Set-Cookie")


def session_cookie(answer):
    return next(one for one in cookies(answer) if "bridge-session=" in one)


def test_a_page_without_identity_is_the_form_to_sign_in_and_leads_back():
    world = shared()
    answer = world.client.get("/runs/push-r1")
    assert answer.status_code == 401
    assert "Sign in" in answer.text
    assert 'name="next" value="/runs/push-r1"' in answer.text
    answer = sign_in(world.client, READ, following="/runs/push-r1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs/push-r1")
    assert world.client.get("/runs/push-r1").status_code == 200


def test_the_cookie_is_for_this_site_alone_and_does_not_hold_the_token():
    world = shared()
    cookie = session_cookie(sign_in(world.client, ACT))
    assert cookie.startswith("bridge-session=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie.split("; ")
    assert "Domain" not in cookie
    assert "Max-Age=43200" in cookie
    assert ACT not in cookie
    assert "ada" not in cookie


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({"public_url": "https://ci.example.com"}, {}), ({}, {"X-Forwarded-Proto": "https"})],
    ids=["by the setting", "by the proxy"],
)
def test_over_https_every_cookie_is_secure_and_of_this_host(settings, headers):
    world = shared(**settings)
    answers = [world.client.get("/signin", headers=headers), sign_in(world.client, ACT, headers=headers)]
    found = [cookie for answer in answers for cookie in cookies(answer)]
    assert {cookie.partition("=")[0] for cookie in found} == {"__Host-bridge-browser", "__Host-bridge-session"}
    assert all("Secure" in cookie.split("; ") for cookie in found)
    assert world.client.get("/runs/push-r1", headers=headers).status_code == 200


def test_a_session_holds_at_every_replica_and_after_a_restart():
    first, second = shared(), shared()
    sign_in(first.client, READ)
    kept = first.client.get_cookie("bridge-session").value
    second.client.set_cookie("bridge-session", kept)
    assert second.client.get("/runs/push-r1").status_code == 200


def test_a_session_ends_with_its_token():
    first = shared()
    sign_in(first.client, READ)
    kept = first.client.get_cookie("bridge-session").value
    without = shared(read_tokens=("grace=another-token",))
    without.client.set_cookie("bridge-session", kept)
    assert without.client.get("/runs/push-r1").status_code == 401


def test_a_session_ends_after_its_time():
    world = shared(session_seconds=3600)
    sign_in(world.client, READ)
    world.clock.sleep(3599)
    assert world.client.get("/runs/push-r1").status_code == 200
    world.clock.sleep(2)
    assert world.client.get("/runs/push-r1").status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1],
        lambda value: "9" + value,
        lambda value: value.replace(".", "", 1),
        lambda value: value.upper(),
        lambda _value: "..",
        lambda _value: "x",
    ],
    ids=["cut", "later", "joined", "raised", "empty", "nothing"],
)
def test_a_session_that_somebody_changed_is_none(change):
    world = shared()
    sign_in(world.client, READ)
    world.client.set_cookie("bridge-session", change(world.client.get_cookie("bridge-session").value))
    assert world.client.get("/runs/push-r1").status_code == 401


def test_a_session_reads_the_api_and_acts_there_only_with_what_our_pages_carry():
    world = shared()
    sign_in(world.client, ACT)
    assert world.client.get("/api/v1/runs").status_code == 200
    assert world.client.post("/api/v1/runs/push-r1/retry").status_code == 403
    sealed = {"Bridge-Csrf": csrf(world.client)}
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=sealed).status_code == 202


def test_signing_out_ends_it_in_this_browser():
    world = shared()
    sign_in(world.client, READ)
    answer = world.client.post("/signout", data={"csrf": csrf(world.client)})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/signin")
    assert world.client.get_cookie("bridge-session") is None
    assert world.client.get("/").status_code == 401


@pytest.mark.parametrize("path", ["/signin", "/signout"])
@pytest.mark.parametrize("given", ["", "x", "\u00e9" * 43], ids=["none", "wrong", "odd"])
def test_a_form_that_is_not_ours_is_refused(path, given):
    world = shared()
    sign_in(world.client, READ)
    assert world.client.post(path, data={"csrf": given, "token": ACT}).status_code == 403
    assert world.client.get("/runs/push-r1").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://e.example"}]
)
def test_another_site_signs_nobody_in_even_with_a_form_of_ours(headers):
    world = shared()
    sent = {"csrf": csrf(world.client), "token": READ}
    assert world.client.post("/signin", data=sent, headers=headers).status_code == 403


def test_a_form_of_one_browser_is_none_of_another():
    world = shared()
    sealed = csrf(world.client)
    other = world.app.test_client()
    csrf(other)
    assert other.post("/signin", data={"csrf": sealed, "token": READ}).status_code == 403


def test_a_form_made_before_signing_in_is_none_of_the_session():
    world = shared()
    before = csrf(world.client)
    sign_in(world.client, ACT)
    assert world.client.post("/signout", data={"csrf": before}).status_code == 403


def test_behind_a_proxy_the_origin_is_that_of_the_public_url():
    world = shared(public_url="https://ci.example.com")
    headers = {"Origin": "https://ci.example.com", "Sec-Fetch-Site": "same-origin"}
    sent = {"csrf": csrf(world.client), "token": READ}
    assert world.client.post("/signin", data=sent, headers=headers).status_code == 303


@pytest.mark.parametrize(
    "following",
    [
        "https://e.example/",
        "//e.example",
        "///e.example",
        "/\\e.example",
        "\\\\e.example",
        "/\t/e.example",
        "javascript:alert(1)",
        "/runs/\r\nSet-Cookie: a=b",
        "runs/x",
        "//[",
        "http:/runs",
        "/é",
    ],
)
def test_nobody_is_sent_anywhere_else(following):
    world = shared()
    assert sign_in(world.client, READ, following=following).headers["Location"] == "/"
    shown = world.client.get("/signin", query_string={"next": following}).text
    assert 'name="next" value="/"' in shown


def test_a_page_with_its_filter_is_gone_back_to():
    world = shared()
    answer = sign_in(world.client, READ, following="/?project=acme/widgets&verdict=failed")
    assert answer.headers["Location"] == "/?project=acme/widgets&verdict=failed"


def test_a_wrong_token_is_told_so_and_not_shown():
    world = shared()
    answer = sign_in(world.client, "hunter2", following="/runs/push-r1")
    assert answer.status_code == 401
    assert "no token of this gateway" in answer.text
    assert 'name="next" value="/runs/push-r1"' in answer.text
    assert "hunter2" not in answer.text
    assert not [cookie for cookie in cookies(answer) if "session" in cookie]


def test_who_guesses_too_often_has_to_wait_and_others_do_not():
    world = shared()
    guesser, other = {"REMOTE_ADDR": "192.0.2.7"}, {"REMOTE_ADDR": "192.0.2.8"}
    for _ in range(AT_ONCE):
        assert sign_in(world.client, "guess", environ_base=guesser).status_code == 401
    answer = sign_in(world.client, ACT, environ_base=guesser)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= SECONDS_EACH
    assert sign_in(world.app.test_client(), ACT, environ_base=other).status_code == 303
    world.clock.sleep(SECONDS_EACH)
    assert sign_in(world.client, ACT, environ_base=guesser).status_code == 303


def test_one_of_a_proxys_people_keeps_nobody_else_from_signing_in():
    world = shared()
    guesser = {"X-Forwarded-For": "10.9.9.9, 203.0.113.5"}
    for _ in range(AT_ONCE):
        assert sign_in(world.client, "guess", headers=guesser).status_code == 401
    assert sign_in(world.client, ACT, headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.5"}).status_code == 429
    assert sign_in(world.client, ACT, headers={"X-Forwarded-For": "203.0.113.6"}).status_code == 303


def test_a_form_that_is_too_large_is_not_read():
    world = shared()
    sent = {"csrf": csrf(world.client), "token": "x" * 100_000}
    assert world.client.post("/signin", data=sent).status_code == 413
    assert world.client.post("/signin", data={**sent, "file": (BytesIO(b"x" * 100_000), "f")}).status_code == 413


def test_on_one_machine_with_tokens_people_sign_in_to_act():
    world = a_world(act_tokens=(f"ada={ACT}",))
    world.runs.add(a_running())
    assert world.client.get("/runs/push-r1").status_code == 200
    sign_in(world.client, ACT)
    sealed = {"Bridge-Csrf": csrf(world.client)}
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=sealed).status_code == 202
