import email.utils
import socket
import threading
import time
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Revision
from bridge.core.runs import Report, Run
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings, BridgeError, StatusNotPosted
from bridge.github.statuses import GITHUB, NO_COMMIT, NO_CREDENTIALS, GitHubStatuses, description

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "ghs_secret_of_the_project"
LINK = "https://ci.example/runs/pull-request-1"


@pytest.fixture
def github():
    with FakeGitHub(tokens=[TOKEN]) as fake:
        yield fake


@pytest.fixture
def statuses(github):
    return GitHubStatuses({"acme/widgets": TOKEN}.get, base_url=github.url)


def _run(*, commit=SHA, project="acme/widgets"):
    event = Event("github", "push", project, "d-1", Revision(commit=commit, ref="refs/heads/main"))
    return Run("pull-request-1", "pull-request", event, "bridge/pull-request/push", "0", 0.0)


def _report(state="pending", text="waits for its first step", *, context="bridge/pull-request/push"):
    return Report(context, state, text, 1)


def _refusal(statuses, *, run=None, report=None):
    with pytest.raises(StatusNotPosted) as caught:
        statuses.post(run or _run(), report or _report(), url=LINK)
    everything = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in everything
    assert "bridge/pull-request/push" in str(caught.value)
    return caught.value


def test_a_report_becomes_a_commit_status(statuses, github):
    assert statuses.post(_run(), _report("failure", "build failed: retry it"), url=LINK) == GITHUB
    [stored] = github.history
    assert (stored.repository, stored.sha, stored.state) == ("acme/widgets", SHA, "failure")
    assert stored.context == "bridge/pull-request/push"
    assert stored.description == "build failed: retry it"
    assert stored.target_url == LINK


@pytest.mark.parametrize("token", [None, "", "  \n"])
def test_without_a_token_nothing_is_posted_and_nothing_raised(github, token):
    statuses = GitHubStatuses(lambda _: token, base_url=github.url)
    assert statuses.post(_run(), _report(), url=LINK) == NO_CREDENTIALS
    assert github.posts == 0


def test_an_event_without_a_commit_has_nowhere_to_go(statuses, github):
    assert statuses.post(_run(commit=""), _report(), url=LINK) == NO_COMMIT
    assert github.posts == 0


def test_the_end_of_line_of_a_token_file_is_no_part_of_the_token(github):
    assert GitHubStatuses(lambda _: f"{TOKEN}\n", base_url=github.url).post(_run(), _report(), url="") == GITHUB


def test_a_base_url_with_a_path_is_kept_and_a_project_may_live_in_another_repository(github):
    statuses = GitHubStatuses(
        lambda _: TOKEN, base_url=f"{github.url}/api/v3", repository_of=lambda _: "acme/renamed.widgets"
    )
    assert statuses.post(_run(project="widgets"), _report(), url=LINK) == GITHUB
    assert github.history[0].repository == "acme/renamed.widgets"


@pytest.mark.parametrize(
    "url", ["", "javascript:alert(1)", "/runs/1", "file:///etc/passwd", "http://", "http://[::1"]
)
def test_only_a_web_link_is_sent(statuses, github, url):
    statuses.post(_run(), _report(), url=url)
    assert github.history[0].target_url is None


def test_repeating_a_status_leaves_one(statuses, github):
    for _ in range(3):
        assert statuses.post(_run(), _report("success", "3 of 3 steps"), url=LINK) == GITHUB
    assert github.posts == 1


def test_a_lost_answer_is_an_error_and_the_next_try_finds_the_status_there(statuses, github):
    github.lose_answers(1)
    assert not _refusal(statuses).permanent
    assert statuses.post(_run(), _report(), url=LINK) == GITHUB
    assert len(github.history) == 1


def test_a_status_goes_back_to_pending_when_it_is_asked_to(statuses, github):
    for state in ("pending", "failure", "pending", "success"):
        statuses.post(_run(), _report(state, state), url=LINK)
        statuses.post(_run(), _report(state, state, context="another"), url=LINK)
    mine = [status.state for status in github.history if status.context == "bridge/pull-request/push"]
    assert mine == ["pending", "failure", "pending", "success"]


@pytest.mark.parametrize("status", [404, 410, 422])
def test_what_github_refuses_for_good_is_permanent(statuses, github, status):
    github.fail_next(1, status)
    refusal = _refusal(statuses)
    assert refusal.permanent
    assert str(status) in str(refusal)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_are_tried_again_slowly(statuses, github, status):
    github.fail_next(1, status)
    refusal = _refusal(statuses)
    assert not refusal.permanent
    assert refusal.retry_after_seconds == 300
    assert "token" in str(refusal)


def test_a_token_that_github_does_not_know_is_no_permanent_refusal(github):
    refusal = _refusal(GitHubStatuses(lambda _: "ghs_unknown", base_url=github.url))
    assert (refusal.permanent, refusal.retry_after_seconds) == (False, 300)
    assert "Bad credentials" in str(refusal)


def test_a_repository_that_the_token_may_not_enter_is_permanent(statuses, github):
    github.allow(TOKEN, "acme/gadgets")
    assert _refusal(statuses).permanent


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17),
        ({"retry-after": "99999999"}, 7200),
        ({"retry-after": "0"}, 60),
        ({"x-ratelimit-remaining": "0"}, pytest.approx(3600, abs=120)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 1),
    ],
)
def test_a_rate_limit_says_when_to_come_back(statuses, github, status, headers, seconds):
    github.fail_next(1, status, headers)
    refusal = _refusal(statuses)
    assert (refusal.permanent, refusal.retry_after_seconds) == (False, seconds)


def test_429_without_a_header_waits_a_minute(statuses, github):
    github.fail_next(1, 429)
    assert _refusal(statuses).retry_after_seconds == 60


def test_the_reset_is_counted_on_githubs_clock(statuses, github):
    reset = str(int(time.time()) + 600 - 7200)
    date = email.utils.formatdate(time.time() - 7200, usegmt=True)
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset, "Date": date}
    answer = b"HTTP/1.1 403 Forbidden\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items())
    with _Answering(answer + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}") as url:
        refusal = _refusal(GitHubStatuses(lambda _: TOKEN, base_url=url))
    assert refusal.retry_after_seconds == pytest.approx(600, abs=30)


@pytest.mark.parametrize("status", [400, 409, 500, 502, 503])
def test_everything_else_may_be_tried_again_and_only_once_by_the_adapter(statuses, github, status):
    github.fail_next(1, status)
    refusal = _refusal(statuses)
    assert (refusal.permanent, refusal.retry_after_seconds) == (False, None)
    assert github.posts == 1
    assert statuses.post(_run(), _report(), url=LINK) == GITHUB


def test_the_reason_that_github_gives_is_in_the_message(statuses):
    refusal = _refusal(statuses, run=_run(commit="abcdef0"))
    assert refusal.permanent
    assert "Validation Failed: No commit found for SHA: abcdef0" in str(refusal)


@pytest.mark.parametrize("outage", ["offline", "stopped"])
def test_no_answer_is_not_permanent(statuses, github, outage):
    if outage == "stopped":
        github.stop()
    github.offline = True
    refusal = _refusal(statuses)
    assert (refusal.permanent, refusal.retry_after_seconds) == (False, None)


def test_silence_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refusal = _refusal(GitHubStatuses(lambda _: TOKEN, base_url=url, timeout_seconds=0.2))
    assert "Timeout" in str(refusal)
    assert not refusal.permanent


@pytest.mark.parametrize(
    "commit", ["main", "../../evil/repo", SHA + "/../x", "0123456789abcdef?x=1", "{}", "\u2603"]
)
def test_what_is_no_sha_never_gets_into_an_address(statuses, github, commit):
    assert _refusal(statuses, run=_run(commit=commit)).permanent
    assert github.posts == 0


@pytest.mark.parametrize(
    "project", ["acme/..", "../widgets", "acme/widgets/x", "acme", "acme/wid gets", "acme/{}"]
)
def test_what_is_no_repository_never_gets_into_an_address(github, project):
    statuses = GitHubStatuses(lambda _: TOKEN, base_url=github.url)
    assert _refusal(statuses, run=_run(project=project)).permanent
    assert github.posts == 0


@pytest.mark.parametrize("token", ["ghs_one\nghs_two", "ghs_\u00e9t\u00e9", "ghs_three words"])
def test_a_token_that_no_header_carries_is_kept_out_of_the_error(github, token):
    with pytest.raises(StatusNotPosted) as caught:
        GitHubStatuses(lambda _: token, base_url=github.url).post(_run(), _report(), url=LINK)
    assert not any(word in "".join(traceback.format_exception(caught.value)) for word in token.split("\n"))
    assert not caught.value.permanent


def test_a_context_that_github_cannot_take_is_permanent(statuses, github):
    report = _report(context="bridge/pull-request/push\ud800")
    assert _refusal(statuses, report=report).permanent
    assert github.posts == 0


@pytest.mark.parametrize("url", ["", "api.github.com", "ftp://x", "http://h:999999", "http://[::1", "http://a b"])
def test_a_base_url_that_cannot_be_used_is_a_bad_setting(url):
    with pytest.raises(BadSettings):
        GitHubStatuses(lambda _: TOKEN, base_url=url)


class _Answering:
    """A server that gives every connection the same bytes and hangs up."""

    def __init__(self, answer):
        self._answer = answer

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                connection.sendall(self._answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


def _http(status, headers="", body=""):
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{}",
        _http("200 OK", body="<html>sign in</html>"),
        _http("200 OK", "Content-Encoding: gzip\r\n", body="not gzip"),
        _http("301 Moved Permanently", "Location: https://evil.example/\r\n"),
        _http("429 Too Many", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
        _http("429 Too Many", f"Retry-After: {'9' * 30}\r\n"),
        _http("429 Too Many", "Retry-After: -5\r\n"),
        _http("403 Forbidden", "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: soon\r\n"),
        _http("403 Forbidden", f"x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {'9' * 30}\r\nDate: x\r\n"),
        _http("403 Forbidden", body='{"message": "You have exceeded a secondary rate limit"}'),
        _http("500 Oops", body='{"message": ["not", "text"]}'),
        _http("500 Oops", body=f'{{"message": "you sent {TOKEN}\\n\\u001b[31m"}}'),
        _http("599 Odd", body="x" * 100_000),
    ],
    ids=str,
)
def test_nothing_but_our_own_errors_comes_out_whatever_the_host_answers(answer):
    with _Answering(answer) as url, pytest.raises(BridgeError) as caught:
        GitHubStatuses(lambda _: TOKEN, base_url=url).post(_run(), _report(), url=LINK)
    text = str(caught.value)
    assert isinstance(caught.value, StatusNotPosted)
    assert not caught.value.permanent
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert text.isprintable()
    assert len(text) < 600
    assert caught.value.retry_after_seconds is None or 1 <= caught.value.retry_after_seconds <= 7200


def test_a_repository_that_moved_is_told_to_a_person(statuses):
    with _Answering(_http("301 Moved Permanently", "Location: http://x/\r\n")) as url:
        refusal = _refusal(GitHubStatuses(lambda _: TOKEN, base_url=url))
    assert "renamed" in str(refusal)
    assert refusal.retry_after_seconds == 300


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("", ""),
        ("x" * 140, "x" * 140),
        ("x" * 141, "x" * 139 + "\u2026"),
        ("word " * 40, "word " * 27 + "word\u2026"),
        ("e\u0301" * 71, "e\u0301" * 69 + "\u2026"),
        ("two\nlines\tand   gaps ", "two lines and gaps"),
        ("a bug \U0001f41b", "a bug \ufffd"),
        ("\ud800 \x1b[31mred", "\ufffd \ufffd[31mred"),
    ],
)
def test_a_description_is_cut_to_what_github_takes(text, sent):
    assert description(text) == sent


@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=300))
def test_every_description_is_one_that_github_takes(text):
    sent = description(text)
    assert len(sent) <= 140
    assert max(sent, default="") <= "\uffff"
    assert sent.encode() or not text.strip()
    assert description(sent) == sent


def test_the_longest_and_oddest_description_arrives(statuses, github):
    assert statuses.post(_run(), _report(text="\U0001f41b\u00e9" * 200), url=LINK) == GITHUB
    assert statuses.post(_run(), _report(text="\U0001f41b\u00e9" * 200), url=LINK) == GITHUB
    assert [len(status.description) for status in github.history] == [140]
