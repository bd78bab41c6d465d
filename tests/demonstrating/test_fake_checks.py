import json

import pytest
import urllib3

from bridge.demonstrating.fake_checks import LONGEST_OUTPUT_BYTES
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.github.app import CHECKS, App
from tests.github.apps import APP_ID, REPOSITORY, key_file, key_pair, with_app

SHA = "0123456789abcdef0123456789abcdef01234567"
OUTPUT = {"title": "t", "summary": "s"}


@pytest.fixture
def github():
    with FakeGitHub(tokens=["ghp_own"]) as fake:
        with_app(fake)
        yield fake


@pytest.fixture
def ask(github, tmp_path):
    app = App(APP_ID, key_file(tmp_path), base_url=github.url)
    http = urllib3.PoolManager()

    def asked(method, path, body=None, *, token=""):
        bearer = token or app.token(REPOSITORY, CHECKS).token
        answer = http.request(
            method,
            f"{github.url}/repos/{REPOSITORY}/{path}",
            headers={"Authorization": f"Bearer {bearer}"},
            body=json.dumps(body) if body is not None else None,
            retries=False,
        )
        return answer.status, answer.json()

    yield asked
    http.clear()


def a_check(**changes):
    return {"name": "ci", "head_sha": SHA, "status": "in_progress", "output": OUTPUT, **changes}


def test_a_check_run_is_made_changed_and_listed(ask):
    status, made = ask("POST", "check-runs", a_check(external_id="r/1"))
    assert (status, made["status"], made["conclusion"]) == (201, "in_progress", None)
    status, changed = ask("PATCH", f"check-runs/{made['id']}", {"conclusion": "failure", "output": OUTPUT})
    assert (status, changed["status"], changed["conclusion"]) == (200, "completed", "failure")
    assert changed["completed_at"]
    status, listed = ask("GET", f"commits/{SHA}/check-runs?check_name=ci&app_id={APP_ID}")
    assert (status, [one["external_id"] for one in listed["check_runs"]]) == (200, ["r/1"])
    assert ask("GET", f"commits/{SHA}/check-runs?check_name=other")[1]["total_count"] == 0


def test_only_the_newest_of_a_name_is_listed_unless_all_are_asked_for(ask):
    for _ in range(3):
        ask("POST", "check-runs", a_check())
    assert ask("GET", f"commits/{SHA}/check-runs")[1]["total_count"] == 1
    status, page = ask("GET", f"commits/{SHA}/check-runs?filter=all&per_page=2&page=2")
    assert (status, page["total_count"], len(page["check_runs"])) == (200, 3, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "completed"}, "conclusion"),
        ({"status": "done"}, "done is not a member"),
        ({"conclusion": "error"}, "error is not a member"),
        ({"conclusion": "stale"}, "stale is not a member"),
        ({"name": ""}, "name"),
        ({"head_sha": "main"}, "No commit found"),
        ({"output": {"title": "t"}}, "summary"),
        ({"output": {"title": "t", "summary": "x" * (LONGEST_OUTPUT_BYTES + 1)}}, "Only 65535 characters"),
        ({"output": {"title": "t", "summary": "é" * 40_000}}, "Validation Failed"),
        ({"details_url": "javascript:alert(1)"}, "scheme"),
        ({"started_at": "yesterday"}, "date-time"),
    ],
)
def test_what_github_refuses_is_refused(ask, github, changes, said):
    status, answer = ask("POST", "check-runs", a_check(**changes))
    assert status == 422
    assert said in answer["message"]
    assert github.checks.all == ()


def test_only_the_app_that_may_writes_and_only_its_own(ask, github, tmp_path):
    assert ask("POST", "check-runs", a_check(), token="ghp_own") == (
        403,
        {"message": "You must authenticate via a GitHub App.", "status": "403"},
    )
    other = github.checks.put(REPOSITORY, "4712", "ci", SHA)
    assert ask("PATCH", f"check-runs/{other.id}", {"conclusion": "success"})[0] == 403
    github.apps.add("4713", key_pair(2).public)
    github.apps.install("4713", REPOSITORY, permissions={"checks": "read"})
    (tmp_path / "other").mkdir()
    reader = App("4713", key_file(tmp_path / "other", key_pair(2)), base_url=github.url)
    access = type(CHECKS)("reading", {"checks": "read"})
    token = reader.token(REPOSITORY, access).token
    assert ask("GET", f"commits/{SHA}/check-runs", token=token)[0] == 200
    status, answer = ask("POST", "check-runs", a_check(), token=token)
    assert (status, answer["message"]) == (403, "Resource not accessible by integration")
