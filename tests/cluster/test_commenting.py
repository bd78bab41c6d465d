"""Comments at the gateway of a cluster: what is held, approved and retried is on the real API server."""

import uuid

import pytest

from bridge.clocks import SystemClock
from bridge.core.runs import Kind, Phase, closed
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.github.comments import GitHubConversations
from bridge.sending import signed_headers
from tests import commented
from tests.cluster.test_gateway import SECRET, Place, Replica, gateway, place

__all__ = ["Place", "Replica", "gateway", "place"]

TOKEN = "the-projects-token"
HEAD, NEXT = "a" * 40, "b" * 40
PULL = 7


@pytest.fixture
def github():
    with FakeGitHub(tokens=[TOKEN]) as fake:
        yield fake


def test_a_strangers_run_is_held_in_its_secret_until_a_maintainer_approves_its_commit(place, gateway, github):
    project = place.make_project(**{"github.token": TOKEN})
    pipeline = place.make_pipeline(project, on="[pull_request]")
    github.comments.permit(project, "mona", "admin")
    github.comments.put_pull_request(project, PULL, HEAD)
    conversations = GitHubConversations(lambda _name: TOKEN, base_url=github.url, clock=SystemClock())
    replica = gateway(conversations=lambda: conversations)

    def tell(event, body):
        headers = signed_headers(event, body, SECRET, str(uuid.uuid4()))
        return replica.app.test_client().post("/events/github", data=body, headers=headers)

    def pushed(sha):
        answer = tell("pull_request", commented.pull_request(sha, project=project))
        assert answer.status_code == 202, answer.text
        return answer.json["runs"][0]["id"]

    def says(words, login="mona"):
        comment = github.comments.write(project, PULL, login, words)
        answer = tell("issue_comment", commented.delivery(comment))
        assert answer.status_code == 200, answer.text
        return github.comments.reactions(comment.id)

    run = pushed(HEAD)
    held = place.runs.read(run)
    assert (held.pipeline, held.awaits_approval) == (pipeline, True)
    place.runs.change(run, lambda known: closed(known, at=SystemClock().now()))
    assert says("/retry") == ("confused",)
    assert says(f"/ok-to-test {HEAD}", "stranger") == ("-1",)
    assert says(f"/ok-to-test {HEAD}") == ("+1",)
    approved = place.runs.read(run)
    assert (approved.awaits_approval, approved.phase) == (False, Phase.RUNNING)
    assert [(act.kind, act.who) for act in approved.acts] == [(Kind.APPROVE, "mona")]

    github.comments.put_pull_request(project, PULL, NEXT)
    pushed_since = pushed(NEXT)
    assert place.runs.read(pushed_since).awaits_approval
