"""The fake GitHub's webhooks, as somebody meets them who speaks HTTP."""

import hmac
import time

import jwt
import pytest
import urllib3

from bridge.core.deliveries import REDELIVERABLE_SECONDS
from bridge.demonstrating.fake_github import FakeGitHub
from tests.github.apps import APP_ID, REPOSITORY, key_pair, with_app
from tests.served import Recorded, served

TOKEN = "a-token"
HTTP = urllib3.PoolManager(retries=False)


@pytest.fixture
def github():
    with FakeGitHub(tokens=[TOKEN]) as fake:
        yield fake


@pytest.fixture
def receiver():
    app = Recorded()
    app.answer("/hook", b"no", status="503 Service Unavailable").answer("/hook", b"ok")
    with served(app) as url:
        yield app, f"{url}/hook"


def ask(github, path, *, method="GET", token=TOKEN):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = HTTP.request(method, f"{github.url}{path}", headers=headers, timeout=30)
    return answer.status, answer.json(), answer.headers


def as_app():
    now = int(time.time())
    claims = {"iat": now - 60, "exp": now + 300, "iss": APP_ID}
    return jwt.encode(claims, key_pair().private, algorithm="RS256")


def test_it_really_sends_signed_and_again_under_the_same_guid_when_asked(github, receiver):
    app, url = receiver
    hook = github.hooks.add(REPOSITORY, url, secret="s")
    guid = github.hooks.deliver("push", b'{"a": 1}', hook)
    log = f"/repos/{REPOSITORY}/hooks/{hook}/deliveries"
    (lost,) = ask(github, log)[1]
    assert (lost["guid"], lost["status_code"], lost["redelivery"]) == (guid, 503, False)
    assert ask(github, f"{log}/{lost['id']}/attempts", method="POST")[:2] == (202, {})
    github.hooks.settle()
    newest, oldest = ask(github, log)[1]
    assert (newest["guid"], newest["status_code"], newest["redelivery"], newest["status"]) == (
        guid,
        200,
        True,
        "OK",
    )
    assert oldest == lost
    assert [one.headers["x-github-delivery"] for one in app.asked] == [guid, guid]
    assert app.asked[1].body == b'{"a": 1}'
    assert app.asked[1].headers["x-hub-signature-256"].endswith(hmac.new(b"s", b'{"a": 1}', "sha256").hexdigest())
    _, shown, _ = ask(github, f"{log}/{newest['id']}")
    assert shown["request"]["payload"] == {"a": 1}


def test_an_apps_webhook_is_for_the_app_alone(github, receiver):
    with_app(github)
    github.hooks.add_app(APP_ID, receiver[1])
    assert ask(github, "/app/hook/config", token=as_app())[1]["url"] == receiver[1]
    assert ask(github, "/app/hook/deliveries", token=as_app())[:2] == (200, [])
    assert ask(github, "/app/hook/deliveries")[0] == 401


def test_a_repositorys_webhooks_are_for_tokens_that_may_see_them(github, receiver):
    with_app(github)
    hook = github.hooks.add(REPOSITORY, receiver[1])
    path = f"/repos/{REPOSITORY}/hooks"
    assert [one["id"] for one in ask(github, path)[1]] == [hook]
    assert ask(github, path, token="")[0] == 401
    assert ask(github, "/repos/acme/others/hooks")[:2] == (200, [])
    github.allow("narrow", "acme/others")
    assert ask(github, path, token="narrow")[0] == 404
    github.hooks.blind(TOKEN)
    assert ask(github, path)[0] == 404
    assert ask(github, f"{path}/{hook}/deliveries")[0] == 404


def test_a_log_is_read_by_its_cursor_though_it_grows_meanwhile(github):
    hook = github.hooks.add(REPOSITORY, "http://127.0.0.1:1")
    for age in range(5):
        github.hooks.put(hook, 200, age_seconds=100.0 + age)
    path = f"/repos/{REPOSITORY}/hooks/{hook}/deliveries"
    _, page, headers = ask(github, f"{path}?per_page=2")
    github.hooks.put(hook, 200)
    seen = [one["id"] for one in page]
    while "Link" in headers:
        following = headers["Link"].partition(">")[0].removeprefix(f"<{github.url}")
        _, page, headers = ask(github, following)
        seen += [one["id"] for one in page]
    assert seen == [1, 2, 3, 4, 5]
    assert ask(github, f"{path}?cursor=nonsense")[0] == 422


def test_nobody_there_is_an_attempt_without_an_answer(github):
    hook = github.hooks.add(REPOSITORY, "http://127.0.0.1:1/hook")
    github.hooks.deliver("push", b"{}", hook)
    assert [(one.status_code, one.status) for one in github.hooks.log] == [github.hooks.no_answer]


def test_what_is_too_old_or_not_there_is_not_sent_again(github):
    hook = github.hooks.add(REPOSITORY, "http://127.0.0.1:1/hook")
    github.hooks.put(hook, 503, age_seconds=REDELIVERABLE_SECONDS + 60)
    path = f"/repos/{REPOSITORY}/hooks/{hook}/deliveries"
    assert ask(github, f"{path}/1/attempts", method="POST")[0] == 422
    assert ask(github, f"{path}/2/attempts", method="POST")[0] == 404
    github.hooks.settle()
    assert len(github.hooks.log) == 1
