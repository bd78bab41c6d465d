import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import urllib3

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER_SHA = "f" * 40
TOKEN = "ghs_good"


@pytest.fixture
def github():
    with FakeGitHub(tokens=[TOKEN]) as fake:
        yield fake


@pytest.fixture
def http():
    with urllib3.PoolManager(retries=False, timeout=30) as pool:
        yield pool


def _post(http, github, *, sha=SHA, repository="acme/widgets", token=TOKEN, scheme="Bearer", body=None, **fields):
    headers = {"Authorization": f"{scheme} {token}"} if token else {}
    body = json.dumps({"state": "success", **fields}) if body is None else body
    return http.request("POST", f"{github.url}/repos/{repository}/statuses/{sha}", body=body, headers=headers)


def _get(http, github, path, **headers):
    return http.request("GET", f"{github.url}/repos/acme/widgets/{path}", headers=headers)


def test_a_status_is_stored_and_shown_as_github_shows_it(http, github):
    fields = {
        "context": "bridge/pr/push",
        "description": "1 of 3 steps",
        "target_url": "https://ci.example/runs/1",
    }
    answer = _post(http, github, state="pending", **fields)
    assert answer.status == 201
    shown = answer.json()
    assert {name: shown[name] for name in fields} == fields
    assert shown["state"] == "pending"
    assert shown["created_at"].endswith("Z")
    [stored] = github.history
    assert (stored.repository, stored.sha, stored.state) == ("acme/widgets", SHA, "pending")
    assert _get(http, github, f"commits/{SHA}/statuses").json() == [shown]


def test_a_status_without_a_context_has_the_context_default(http, github):
    assert _post(http, github).json()["context"] == "default"


@pytest.mark.parametrize("state", ["cancelled", "skipped", "", None, 1])
def test_a_state_that_github_does_not_know_is_refused(http, github, state):
    answer = _post(http, github, state=state)
    assert answer.status == 422
    assert answer.json()["errors"][0]["field"] == "state"
    assert not github.history


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"description": "x" * 141}, "description is too long (maximum is 140 characters)"),
        ({"description": "a \U0001f41b"}, "description doesn't accept 4-byte Unicode"),
        ({"context": "x" * 256}, "context is too long (maximum is 255 characters)"),
        ({"target_url": "javascript:alert(1)"}, "Target url must use http(s) scheme"),
        ({"description": 7}, "description is not a string"),
        ({"sha": "main"}, "No commit found for SHA: main"),
    ],
)
def test_what_github_refuses_is_refused_in_its_words(http, github, fields, words):
    answer = _post(http, github, **fields)
    assert answer.status == 422
    assert answer.json()["errors"][0]["message"] == words
    assert not github.history


def test_the_longest_texts_are_taken(http, github):
    assert _post(http, github, description="\u00e9" * 140, context="x" * 255).status == 201


@pytest.mark.parametrize(("body", "status"), [("{", 400), ("[]", 422), ("", 400), (b"\xff", 400)])
def test_a_body_that_is_no_object_is_refused(http, github, body, status):
    assert _post(http, github, body=body).status == status


def test_the_thousand_and_first_status_of_a_sha_and_context_is_refused(http, github):
    for _ in range(1_000):
        assert _post(http, github, context="bridge/pr/push").status == 201
    refused = _post(http, github, context="bridge/pr/push")
    assert refused.status == 422
    assert "maximum number of statuses" in refused.json()["errors"][0]["message"]
    assert _post(http, github, context="another").status == 201
    assert _post(http, github, context="bridge/pr/push", sha=OTHER_SHA).status == 201


@pytest.mark.parametrize("scheme", ["Bearer", "token", "bearer"])
def test_both_spellings_of_a_token_are_let_in(http, github, scheme):
    assert _post(http, github, scheme=scheme).status == 201


def test_nobody_posts_without_a_token_that_is_known_and_allowed_there(http, github):
    github.allow("ghs_narrow", "acme/gadgets")
    assert _post(http, github, token="").status == 401
    assert _post(http, github, token="ghs_bad").json()["message"] == "Bad credentials"
    assert _post(http, github, scheme="Basic").status == 401
    assert _post(http, github, token="ghs_narrow").status == 404
    assert _post(http, github, token="ghs_narrow", repository="acme/gadgets").status == 201
    assert _get(http, github, f"commits/{SHA}/statuses", Authorization="Bearer ghs_bad").status == 401
    assert [status.repository for status in github.history] == ["acme/gadgets"]


def test_statuses_are_listed_newest_first_and_in_pages(http, github):
    for number in range(5):
        _post(http, github, description=str(number))
    pages = [_get(http, github, f"commits/{SHA}/statuses?per_page=2&page={page}") for page in (1, 2, 3, 4)]
    assert [[status["description"] for status in page.json()] for page in pages] == [
        ["4", "3"],
        ["2", "1"],
        ["0"],
        [],
    ]
    following = pages[0].headers["Link"].partition(">")[0].removeprefix("<")
    assert http.request("GET", following).json() == pages[1].json()
    assert "Link" not in pages[2].headers


@pytest.mark.parametrize(
    ("states", "combined"),
    [
        ([], "pending"),
        (["success", "success"], "success"),
        (["success", "pending"], "pending"),
        (["pending", "failure", "success"], "failure"),
        (["error", "pending"], "failure"),
    ],
)
def test_the_combined_status_counts_the_newest_of_each_context(http, github, states, combined):
    for number, state in enumerate(states):
        _post(http, github, state="error", context=str(number))
        _post(http, github, state=state, context=str(number))
    shown = _get(http, github, f"commits/{SHA}/status").json()
    assert (shown["state"], shown["total_count"], shown["sha"]) == (combined, len(states), SHA)


def test_commits_and_refs_are_known_once_they_are_put_there(http, github):
    assert _get(http, github, "git/ref/pull/7/head").status == 404
    assert _get(http, github, f"commits/{SHA}").status == 422
    github.put_commit("acme/widgets", SHA, "refs/heads/main", "refs/pull/7/head")
    shown = _get(http, github, "git/ref/pull/7/head").json()
    assert (shown["ref"], shown["object"]["sha"]) == ("refs/pull/7/head", SHA)
    assert _get(http, github, f"commits/{SHA}").json()["sha"] == SHA
    assert _get(http, github, "commits/main").json()["sha"] == SHA
    _post(http, github)
    assert len(_get(http, github, "commits/heads%2Fmain/statuses").json()) == 1


def test_the_enterprise_path_is_the_same_api(http, github):
    url = f"{github.url}/api/v3/repos/acme/widgets/statuses/{SHA}"
    answer = http.request("POST", url, body='{"state": "error"}', headers={"Authorization": f"token {TOKEN}"})
    assert (answer.status, len(github.history)) == (201, 1)


def test_anything_else_is_not_found(http, github):
    assert http.request("GET", f"{github.url}/").status == 404
    assert http.request("POST", f"{github.url}/repos/acme/widgets/issues", body="{}").status == 404


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 502])
def test_faults_come_as_often_as_asked_for_and_store_nothing(http, github, status):
    github.fail_next(2, status, {"retry-after": "7", "x-ratelimit-remaining": "0"})
    for _ in range(2):
        answer = _post(http, github)
        assert (answer.status, answer.headers["Retry-After"]) == (status, "7")
        assert answer.headers.getlist("X-RateLimit-Remaining") == ["0"]
    assert not github.history
    assert _post(http, github).status == 201
    assert github.posts == 3


def test_a_lost_answer_is_stored(http, github):
    github.lose_answers(1)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        _post(http, github)
    assert len(github.history) == 1
    assert _post(http, github).status == 201


def test_a_hanging_post_is_stored_though_its_sender_left(http, github):
    github.hang_next(1, 3600)
    with (
        urllib3.PoolManager(retries=False, timeout=0.1) as impatient,
        pytest.raises(urllib3.exceptions.TimeoutError),
    ):
        _post(impatient, github)
    assert github.wait_for_posts(1) == 1
    assert not github.history
    github.release()
    assert len(github.wait_until(bool)) == 1


def test_stopping_does_not_wait_for_what_hangs(http, github):
    github.hang_next(1, 3600)
    failures = []

    def post():
        try:
            _post(http, github)
        except urllib3.exceptions.HTTPError as exc:
            failures.append(exc)

    sender = threading.Thread(target=post)
    sender.start()
    github.wait_for_posts(1)
    github.stop()
    sender.join()
    assert len(failures) == 1
    assert not github.history


def test_offline_and_stopped_are_no_answer_and_nothing_is_forgotten(http, github):
    _post(http, github)
    github.offline = True
    with pytest.raises(urllib3.exceptions.ProtocolError):
        _get(http, github, f"commits/{SHA}/statuses")
    github.offline = False
    url = github.url
    github.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        _post(http, github)
    github.start()
    assert github.url == url
    assert len(_get(http, github, f"commits/{SHA}/statuses").json()) == 1


def test_a_hundred_posts_at_once_are_all_stored_once(http, github):
    barrier = threading.Barrier(20)

    def post(number):
        barrier.wait()
        with urllib3.PoolManager(retries=False, timeout=30) as pool:
            for turn in range(5):
                _post(pool, github, description=f"{number}.{turn}")

    senders = [threading.Thread(target=post, args=(number,)) for number in range(20)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len({status.description for status in github.history}) == len(github.history) == 100
    assert [status.id for status in github.history] == list(range(1, 101))


def test_a_journal_brings_the_history_back_and_drops_a_torn_line(http, tmp_path):
    journal = tmp_path / "made" / "statuses.jsonl"
    with FakeGitHub(tokens=[TOKEN], journal=journal) as first:
        _post(http, first, description="one")
        before = first.history
    with journal.open("ab") as torn:
        torn.write(b'{"id": 2, "repos')
    with FakeGitHub(tokens=[TOKEN], journal=journal) as second:
        assert second.history == before
        _post(http, second, description="two")
    with FakeGitHub(journal=journal) as third:
        assert [status.description for status in third.history] == ["one", "two"]


def test_a_journal_of_somebody_else_or_in_use_is_refused(tmp_path):
    journal = tmp_path / "statuses.jsonl"
    with FakeGitHub(journal=journal), pytest.raises(BadSettings, match="another fake GitHub"):
        FakeGitHub(journal=journal)
    journal.write_text("hello\n")
    with pytest.raises(BadSettings, match="no status"):
        FakeGitHub(journal=journal)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_as_a_program_it_prints_its_address_and_keeps_its_journal(http, tmp_path, ending):
    journal = tmp_path / "statuses.jsonl"
    command = [sys.executable, "-m", "bridge.demonstrating.fake_github", "--journal", journal, "--token", TOKEN]

    class Program:
        def __init__(self):
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
            self.url = self.process.stdout.readline().strip()

        def end(self):
            self.process.send_signal(ending)
            code = self.process.wait(60)
            self.process.stdout.close()
            return code

    first = Program()
    try:
        assert _post(http, first, description="kept").status == 201
    finally:
        code = first.end()
    assert code == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
    second = Program()
    try:
        shown = _get(http, second, f"commits/{SHA}/statuses").json()
    finally:
        second.end()
    assert [status["description"] for status in shown] == ["kept"]
