"""The limits of a GitHub that is none, over real HTTP."""

import json

import pytest
import urllib3

from bridge.demonstrating.fake_github import FakeGitHub

SHA = "0123456789abcdef0123456789abcdef01234567"
OF_A_PROJECT, OF_ANOTHER = "ghs_one", "ghs_other"


class Hand:
    passed = 0.0

    def now(self):
        return 1_700_000_000.0 + self.passed


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def github(hand):
    with FakeGitHub(tokens=[OF_A_PROJECT, OF_ANOTHER], now=hand.now) as fake:
        yield fake


@pytest.fixture
def http():
    with urllib3.PoolManager(retries=False, timeout=30) as pool:
        yield pool


def post(http, github, token=OF_A_PROJECT, **fields):
    body = json.dumps({"state": "success", **fields})
    headers = {"Authorization": f"Bearer {token}"}
    return http.request("POST", f"{github.url}/repos/acme/widgets/statuses/{SHA}", body=body, headers=headers)


def get(http, github, token=OF_A_PROJECT):
    return http.request(
        "GET",
        f"{github.url}/repos/acme/widgets/commits/{SHA}/statuses",
        headers={"Authorization": f"token {token}"},
    )


def test_the_primary_limit_counts_requests_of_a_credential_and_says_what_is_left(http, github, hand):
    github.quotas.limit_requests(3, 100)
    left = [get(http, github).headers["x-ratelimit-remaining"] for _ in range(2)]
    last = post(http, github)
    assert (left, last.status, last.headers["x-ratelimit-remaining"]) == (["2", "1"], 201, "0")
    assert last.headers["x-ratelimit-reset"] == str(int(hand.now()) + 100)
    refused = post(http, github)
    assert (refused.status, refused.headers["x-ratelimit-remaining"]) == (403, "0")
    assert "rate limit" in refused.json()["message"]
    assert github.quotas.early == 0
    assert get(http, github).status == 403
    assert github.quotas.early == 1
    assert post(http, github, OF_ANOTHER).status == 201
    hand.passed = 101
    assert post(http, github).status == 201


@pytest.mark.parametrize("says_when", [True, False])
def test_the_secondary_limit_is_of_what_is_written_and_then_of_everything(http, github, hand, says_when):
    github.quotas.limit_writes(2, 60, says_when=says_when)
    assert [post(http, github).status for _ in range(2)] == [201, 201]
    assert get(http, github).status == 200
    refused = post(http, github)
    assert refused.status == 403
    assert "secondary rate limit" in refused.json()["message"]
    assert refused.headers.get("retry-after") == ("60" if says_when else None)
    assert refused.headers["x-ratelimit-remaining"] != "0"
    hand.passed = 30
    assert get(http, github).status == 403
    assert post(http, github, OF_ANOTHER).status == 201
    hand.passed = 61
    assert post(http, github).status == 201


def test_the_budget_of_statuses_is_of_a_commit_and_context_whatever_its_case(http, github):
    github.most_statuses = 2
    assert [post(http, github, context=one).status for one in ("a", "A", "b", "a")] == [201, 201, 201, 422]
    assert github.history[-1].context == "b"


def test_a_reset_comes_after_the_write(http, github):
    github.reset_after_write(1)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(http, github)
    assert len(github.history) == 1
    assert post(http, github).status == 201


def test_something_can_happen_before_and_after_a_write(http, github):
    seen = []
    github.meanwhile(
        before=lambda: seen.append(len(github.history)), after=lambda: seen.append(len(github.history))
    )
    post(http, github)
    post(http, github)
    assert seen == [0, 1]


def test_what_is_healed_fails_no_more(http, github):
    github.fail_next(100, 500)
    assert post(http, github).status == 500
    github.heal()
    assert post(http, github).status == 201
