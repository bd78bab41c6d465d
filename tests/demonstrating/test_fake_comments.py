"""The GitHub that is none judges comments as GitHub does."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from bridge.demonstrating.fake_github import FakeGitHub

REPOSITORY = "acme/widgets"


@pytest.fixture
def github():
    with FakeGitHub(tokens=["token"]) as fake:
        yield fake


def asked(github, path, body=None, *, token="token"):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{github.url}/repos/{REPOSITORY}/{path}", headers=headers)
    request.data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_second_reaction_of_a_kind_is_answered_200_and_kept_once(github):
    comment = github.comments.write(REPOSITORY, 7, "mona", "/retry")
    path = f"issues/comments/{comment.id}/reactions"
    assert [asked(github, path, {"content": how})[0] for how in ("+1", "+1", "confused")] == [201, 200, 201]
    assert github.comments.reactions(comment.id) == ("+1", "confused")
    assert asked(github, path, {"content": "thumbs"})[0] == 422
    assert asked(github, "issues/comments/1/reactions", {"content": "+1"})[0] == 404


def test_comments_are_listed_the_oldest_first_in_pages_and_since(github):
    now = 1_795_554_000.0
    with FakeGitHub(tokens=["token"], now=lambda: now) as fake:
        for n in range(3):
            now += 60
            fake.comments.write(REPOSITORY, 7, "mona", f"{n}")
        bodies = [one["body"] for one in asked(fake, "issues/7/comments?since=2026-11-24T21:02:00Z")[1]]
        assert bodies == ["1", "2"]
        assert [one["body"] for one in asked(fake, "issues/7/comments?per_page=2&page=2")[1]] == ["2"]
        assert asked(fake, "issues/8/comments")[1] == []


def test_an_empty_or_endless_comment_is_refused(github):
    assert asked(github, "issues/7/comments", {"body": ""})[0] == 422
    assert asked(github, "issues/7/comments", {"body": "x" * 65_537})[0] == 422
    assert asked(github, "issues/7/comments", {"body": "words"})[0] == 201


def test_roles_have_an_older_word_and_everybody_may_read(github):
    github.comments.permit(REPOSITORY, "mona", "maintain")
    told = asked(github, "collaborators/mona/permission")[1]
    assert (told["permission"], told["role_name"]) == ("write", "maintain")
    assert asked(github, "collaborators/else/permission")[1]["permission"] == "read"


def test_nobody_asks_or_writes_without_a_token(github):
    assert asked(github, "collaborators/mona/permission", token="")[0] == 401
    assert asked(github, "pulls/7", token="wrong")[0] == 401
    assert asked(github, "pulls/7")[0] == 404
