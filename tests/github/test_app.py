import logging
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bridge.core.events import Event, Revision
from bridge.core.runs import Report, Run
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings, StatusNotPosted
from bridge.github.app import BUILDS, STATUSES, App, AppRefused, AppUnavailable, NotInstalled
from bridge.github.statuses import GITHUB, GITHUB_APP, NO_CREDENTIALS, GitHubStatuses
from tests.fakes import FakeClock
from tests.github.apps import APP_ID, REPOSITORY, key_file, key_pair, pem_of, with_app

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "ghp_secret_of_the_project"


@pytest.fixture
def clock():
    return FakeClock(time.time())


@pytest.fixture
def github(clock):
    with FakeGitHub(tokens=[TOKEN], now=clock.now) as fake:
        yield fake


@pytest.fixture
def app(github, clock, tmp_path):
    return App(APP_ID, key_file(tmp_path), base_url=github.url, clock=clock)


def _refusal(kind, app, repository=REPOSITORY, access=STATUSES):
    with pytest.raises(kind) as caught:
        app.token(repository, access)
    everything = "".join(traceback.format_exception(caught.value))
    assert "eyJ" not in everything
    assert "PRIVATE KEY" not in everything
    assert repository[:20] in str(caught.value)
    return caught.value


def test_a_token_is_for_one_repository_and_may_only_what_it_is_for(github, app):
    with_app(github, REPOSITORY, "acme/gadgets")
    token = app.token(REPOSITORY, STATUSES)
    [minted] = github.apps.minted
    assert (minted.token, minted.expires) == (token.token, token.expires)
    assert minted.repositories == {REPOSITORY}
    assert minted.permissions == {"statuses": "write"}


def test_a_builds_token_may_what_scripts_of_checks_do_and_was_granted(github, app):
    granted = {"administration": "write", "checks": "write", "contents": "write", "issues": "read"}
    with_app(github, permissions=granted)
    app.token(REPOSITORY, BUILDS)
    assert github.apps.minted[0].permissions == {"checks": "write", "contents": "read", "issues": "read"}


def test_a_token_is_kept_until_a_few_minutes_before_its_end(github, app, clock):
    with_app(github)
    first = app.token(REPOSITORY, STATUSES)
    clock.sleep(3600 - 310)
    assert app.token("Acme/Widgets", STATUSES) is first
    clock.sleep(20)
    second = app.token(REPOSITORY, STATUSES)
    assert second != first
    assert len(github.apps.minted) == 2


def test_a_build_gets_a_token_that_lasts_for_most_builds(github, app, clock):
    with_app(github)
    first = app.token(REPOSITORY, BUILDS)
    clock.sleep(14 * 60)
    assert app.token(REPOSITORY, BUILDS) == first
    clock.sleep(2 * 60)
    assert app.token(REPOSITORY, BUILDS) != first
    assert app.token(REPOSITORY, STATUSES) not in {first, app.token(REPOSITORY, BUILDS)}


def test_many_who_ask_at_once_cost_one_token(github, app):
    with_app(github)
    everybody = threading.Barrier(8)

    def ask(_):
        everybody.wait(60)
        return app.token(REPOSITORY, STATUSES)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert len(github.apps.minted) == 1


def test_a_token_is_in_no_repr_and_no_log(github, app, caplog):
    caplog.set_level(logging.DEBUG)
    with_app(github)
    token = app.token(REPOSITORY, STATUSES)
    assert token.token not in repr(token)
    assert token.token not in caplog.text
    assert "eyJ" not in caplog.text


def test_a_repository_without_the_app_is_told_apart_and_asked_for_once_a_minute(github, app, clock):
    with_app(github)
    assert "install the App" in str(_refusal(NotInstalled, app, "acme/gadgets"))
    _refusal(NotInstalled, app, "acme/gadgets")
    assert github.apps.requests == 1
    github.apps.install(APP_ID, "acme/gadgets")
    clock.sleep(61)
    assert app.token("acme/gadgets", STATUSES)


@pytest.mark.parametrize("repository", ["acme", "acme/../x", "acme/wid gets", "../..", "acme/widgets?x=1", ""])
def test_what_is_no_repository_never_gets_into_an_address(github, app, repository):
    with_app(github)
    _refusal(NotInstalled, app, repository)
    assert github.apps.requests == 0


def test_another_apps_key_is_refused_with_what_to_check(github, app):
    github.apps.add(APP_ID, key_pair(2).public)
    github.apps.install(APP_ID, REPOSITORY)
    refusal = str(_refusal(AppRefused, app))
    assert "BRIDGE_GITHUB_APP_KEY_FILE" in refusal
    assert "401 (A JSON web token could not be decoded)" in refusal


def test_an_id_that_is_no_apps_is_refused_and_not_taken_for_a_missing_installation(github, app):
    github.apps.add("4712", key_pair().public)
    assert "BRIDGE_GITHUB_APP_ID" in str(_refusal(AppRefused, app))


def test_a_key_that_was_replaced_is_used_without_a_restart(github, app, clock, tmp_path):
    with_app(github)
    app.token(REPOSITORY, STATUSES)
    github.apps.add(APP_ID, key_pair(2).public)
    key_file(tmp_path, key_pair(2))
    clock.sleep(3600)
    assert app.token(REPOSITORY, STATUSES)
    (tmp_path / "app.pem").write_bytes(b"-----BEGIN RSA PRIVATE KEY-----\nsecret\n")
    clock.sleep(3600)
    refusal = str(_refusal(AppRefused, app))
    assert "no private key in PEM" in refusal
    assert "secret" not in refusal


def test_a_suspended_installation_and_a_missing_permission_say_what_to_do(github, app, clock):
    installation = with_app(github)
    github.apps.change(installation, suspended=True)
    assert "unsuspend" in str(_refusal(AppRefused, app))
    github.apps.change(installation, suspended=False, permissions={"checks": "write", "statuses": "read"})
    clock.sleep(61)
    assert "not granted statuses: write" in str(_refusal(AppRefused, app))
    assert not github.apps.minted


@pytest.mark.parametrize("ahead", [-600, 600])
def test_a_clock_that_is_wrong_costs_one_more_request(github, clock, tmp_path, ahead, caplog):
    with_app(github)

    class Wrong(FakeClock):
        def now(self):
            return time.time() + ahead

    app = App(APP_ID, key_file(tmp_path), base_url=github.url, clock=Wrong())
    token = app.token(REPOSITORY, STATUSES)
    assert token.expires == github.apps.minted[0].expires
    assert github.apps.requests == 3
    assert "clock" in caplog.text


@pytest.mark.parametrize("status", [500, 502, 503, 400])
def test_an_answer_that_is_none_is_asked_for_again_soon(github, app, clock, status):
    with_app(github)
    github.apps.fail_next(1, status)
    _refusal(AppUnavailable, app)
    _refusal(AppUnavailable, app)
    assert github.apps.requests == 1
    clock.sleep(6)
    assert app.token(REPOSITORY, STATUSES)


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "17"}, 17), ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 1)],
    ids=["secondary", "primary"],
)
def test_a_rate_limit_says_when_to_come_back(github, app, status, headers, seconds):
    with_app(github)
    github.apps.fail_next(1, status, headers)
    assert _refusal(AppUnavailable, app).retry_after_seconds == seconds


@pytest.mark.parametrize("outage", ["offline", "stopped", "lies"])
def test_a_github_that_is_away_is_asked_again(github, app, outage):
    with_app(github)
    github.offline = outage == "offline"
    if outage == "stopped":
        github.stop()
    if outage == "lies":
        github.apps.fail_next(1, 200)
    _refusal(AppUnavailable, app)


def test_a_key_that_is_none_is_a_bad_setting(github, tmp_path):
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it shall be refused
    for content in (
        b"",
        b"ghs_no_key",
        key_pair().public,
        pem_of(small).private,
        pem_of(ec.generate_private_key(ec.SECP256R1())).private,
    ):
        file = tmp_path / "app.pem"
        file.write_bytes(content)
        with pytest.raises(BadSettings, match="BRIDGE_GITHUB_APP_KEY_FILE"):
            App(APP_ID, file, base_url=github.url)
    with pytest.raises(BadSettings, match="No such file"):
        App(APP_ID, tmp_path / "missing.pem", base_url=github.url)
    with pytest.raises(BadSettings, match="http"):
        App(APP_ID, key_file(tmp_path), base_url="github.com")


def _statuses(github, app, token=None):
    return GitHubStatuses(lambda _: token, app=app, base_url=github.url)


def _post(statuses, state="success", *, project=REPOSITORY):
    event = Event("github", "push", project, "d-1", Revision(commit=SHA, ref="refs/heads/main"))
    run = Run("pull-request-1", "pull-request", event, "bridge/pull-request/push", "0", 0.0)
    return statuses.post(run, Report("bridge/pull-request/push", state, "3 of 3 steps", 1), url="")


def test_the_app_posts_where_it_is_installed_and_the_projects_token_elsewhere(github, app):
    with_app(github)
    statuses = _statuses(github, app, TOKEN)
    assert _post(statuses) == GITHUB_APP
    assert _post(statuses, project="acme/gadgets") == GITHUB
    assert _post(_statuses(github, app), project="acme/gadgets") == NO_CREDENTIALS
    assert _post(_statuses(github, app), project="no repository") == NO_CREDENTIALS
    assert [status.repository for status in github.history] == [REPOSITORY, "acme/gadgets"]


def test_a_token_that_was_revoked_is_replaced_at_once(github, app):
    with_app(github)
    statuses = _statuses(github, app)
    assert _post(statuses, "pending") == GITHUB_APP
    github.apps.revoke_tokens()
    assert _post(statuses) == GITHUB_APP
    assert [status.state for status in github.history] == ["pending", "success"]
    assert len(github.apps.minted) == 2


@pytest.mark.parametrize("change", ["uninstalled", "moved", "no permission"])
def test_when_the_app_lost_its_access_the_projects_token_takes_over(github, app, change):
    installation = with_app(github)
    statuses = _statuses(github, app, TOKEN)
    assert _post(statuses, "pending") == GITHUB_APP
    if change == "uninstalled":
        github.apps.uninstall(installation)
    elif change == "moved":
        github.apps.change(installation, repositories=frozenset({"acme/gadgets"}))
    else:
        github.apps.change(installation, permissions={"metadata": "read"})
    assert _post(statuses) == GITHUB
    assert [status.state for status in github.history] == ["pending", "success"]


def test_an_app_that_is_refused_leaves_it_to_the_projects_token_and_without_one_to_people(github, app):
    github.apps.add(APP_ID, key_pair(2).public)
    assert _post(_statuses(github, app, TOKEN)) == GITHUB
    with pytest.raises(StatusNotPosted) as caught:
        _post(_statuses(github, app))
    assert not caught.value.permanent
    assert caught.value.retry_after_seconds == 300
    assert "BRIDGE_GITHUB_APP_ID" in str(caught.value)


def test_a_limit_of_the_app_is_waited_for_also_with_a_token_at_hand(github, app):
    with_app(github)
    github.apps.fail_next(1, 429, {"Retry-After": "90"})
    with pytest.raises(StatusNotPosted) as caught:
        _post(_statuses(github, app, TOKEN))
    assert caught.value.retry_after_seconds == 90
    assert not github.history


def test_a_status_that_github_refuses_for_good_is_permanent_for_the_app_too(github, app):
    with_app(github)
    github.fail_next(1, 422)
    with pytest.raises(StatusNotPosted) as caught:
        _post(_statuses(github, app))
    assert caught.value.permanent
    assert github.posts == 1
