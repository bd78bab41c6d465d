"""Webhooks over real HTTP: what an endpoint gets, and what each of its answers means."""

import base64
import json
import socket
import time

import pytest

from bridge.clocks import SystemClock
from bridge.core.standard_webhooks import headers, keys_of
from bridge.errors import NotDelivered
from bridge.outbound.endpoints import endpoints_of
from bridge.outbound.webhooks import Webhooks
from bridge.ports import Message
from tests.fakes import FakeClock
from tests.outbound.receiving import Hook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
MESSAGE = Message("push-r1:accepted", b'{"specversion": "1.0"}')


@pytest.fixture
def hook():
    with Hook() as one:
        yield one


@pytest.fixture
def webhooks(hook, tmp_path):
    """`webhooks(…)`: the sender, with one endpoint that is as a test says."""

    def made(clock=SystemClock, **more):
        (tmp_path / "ops.secret").write_text(SECRET + "\n")
        (tmp_path / "ops.token").write_text("t0ken\n")
        known = {"name": "ops", "url": hook.url, "secretFile": "ops.secret", "timeout": "10s"}
        (tmp_path / "endpoints.yaml").write_text(json.dumps({"endpoints": [{**known, **more}]}))
        return Webhooks(endpoints_of(tmp_path / "endpoints.yaml"), clock() if isinstance(clock, type) else clock)

    return made


def refused(sender) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        sender.send("ops", MESSAGE)
    # It may hold a secret.
    assert "/hooks/bridge" not in str(caught.value)
    return caught.value


def test_a_message_is_signed_and_typed_and_says_when_it_was_sent(hook, webhooks):
    webhooks().send("ops", MESSAGE)
    (came,) = hook.came
    assert came.body == MESSAGE.body
    assert came.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert abs(int(came.headers["webhook-timestamp"]) - time.time()) < 300
    signed = headers(
        keys=keys_of(SECRET),
        message_id="push-r1:accepted",
        timestamp=int(came.headers["webhook-timestamp"]),
        body=came.body,
    )
    assert {name: came.headers[name] for name in signed} == signed
    assert "authorization" not in came.headers


def test_a_token_instead_of_or_beside_a_signature(hook, webhooks):
    webhooks(secretFile=None, tokenFile="ops.token").send("ops", MESSAGE)
    webhooks(tokenFile="ops.token").send("ops", MESSAGE)
    assert [came.headers["authorization"] for came in hook.came] == ["Bearer t0ken"] * 2
    assert ["webhook-signature" in came.headers for came in hook.came] == [False, True]


def test_a_secret_that_is_changed_while_bridge_runs_is_taken(hook, webhooks, tmp_path):
    sender = webhooks()
    sender.send("ops", MESSAGE)
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    (tmp_path / "ops.secret").write_text(f"{other}\n{SECRET}\n")
    sender.send("ops", MESSAGE)
    assert [len(came.headers["webhook-signature"].split()) for came in hook.came] == [1, 2]
    (tmp_path / "ops.secret").unlink()
    assert "secretFile" in str(refused(sender))
    (tmp_path / "ops.secret").write_text("hunter2")
    assert "hunter2" not in str(refused(sender))


@pytest.mark.parametrize("status", [500, 502, 503, 404, 401, 403, 429])
def test_what_may_be_mended_is_to_be_sent_again(hook, webhooks, status):
    hook.script.append(status)
    error = refused(webhooks())
    assert (error.permanent, str(status) in str(error)) == (False, True)


@pytest.mark.parametrize("status", [400, 409, 410, 413, 415, 422])
def test_what_says_that_this_message_is_not_wanted_is_the_end_of_it(hook, webhooks, status):
    hook.script.append(status)
    assert refused(webhooks()).permanent


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(hook, webhooks, status):
    with Hook() as elsewhere:
        hook.script.append((status, {"location": elsewhere.url}))
        error = refused(webhooks())
        assert elsewhere.came == []
    assert "redirects are not followed" in str(error)
    assert not error.permanent


def test_no_proxy_of_the_environment_is_asked(hook, webhooks, monkeypatch):
    with Hook() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        webhooks().send("ops", MESSAGE)
        assert proxy.came == []
    assert len(hook.came) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("120", 120.0), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0), ("soon", None), ("", None), ("-5", None)],
    ids=["seconds", "a date", "nonsense", "nothing", "negative"],
)
def test_how_long_it_wants_to_be_left_alone(hook, webhooks, said, seconds):
    hook.script.append((503, {"retry-after": said}))
    assert refused(webhooks(FakeClock())).retry_after_seconds == seconds


def test_a_reset_after_it_took_it_is_no_answer(hook, webhooks):
    hook.script.append("reset")
    sender = webhooks()
    assert not refused(sender).permanent
    sender.send("ops", MESSAGE)
    assert hook.ids() == ["push-r1:accepted"] * 2


def test_silence_ends_after_the_timeout(hook, webhooks):
    hook.script.append("hang")
    assert "no answer" in str(refused(webhooks(timeout="200ms")))


def test_an_answer_that_never_ends_is_left_alone(hook, webhooks):
    hook.script.append(("trickle", {}))
    webhooks().send("ops", MESSAGE)


def test_an_endpoint_that_is_not_there(webhooks):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    assert "cannot be reached" in str(refused(webhooks(url=f"http://127.0.0.1:{port}/hooks/bridge")))


def test_one_connection_serves_many_messages(hook, webhooks):
    sender = webhooks()
    for _ in range(5):
        sender.send("ops", MESSAGE)
    assert sender._pools["ops"].connection_from_url(hook.url).num_connections == 1
