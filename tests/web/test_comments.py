"""Commands in comments, from the signed delivery to GitHub's reaction, over real HTTP to a GitHub that is none."""

import json
from dataclasses import replace

import pytest

from bridge.core.runs import Attempt, Kind, Phase, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import Unavailable
from bridge.github.comments import GitHubConversations
from tests import commented
from tests.commented import APP_ID, PULL, pull_request
from tests.web.worlds import PROJECT, a_pipeline, a_project, a_world

HEAD = "a" * 40
NEXT = "b" * 40
TOKEN = "the-projects-token"


class Place:
    """A gateway, its GitHub, and the pull request that people write below."""

    def __init__(self, github, **settings):
        self.github = github
        pipelines = [a_pipeline("checks", "pull_request"), a_pipeline("docs", "pull_request")]
        self.world = a_world(
            *pipelines, projects=[a_project()], app_id=APP_ID, conversations=lambda: conversations, **settings
        )
        conversations = GitHubConversations(lambda _name: TOKEN, base_url=github.url, clock=self.world.clock)
        self.world.clock.advance(github.now() - self.world.clock.now())
        self.runs = self.world.runs
        github.comments.put_pull_request(PROJECT, PULL, HEAD)
        github.comments.permit(PROJECT, "mona", "write")
        self.deliveries = 0

    def pushed(self, sha=HEAD, *, author="MEMBER"):
        """The pull request's head is another commit; answers the runs' ids."""
        self.github.comments.put_pull_request(PROJECT, PULL, sha)
        self.deliveries += 1
        answer = self.world.deliver(
            pull_request(sha, author=author), event="pull_request", delivery=f"push-{self.deliveries}"
        )
        assert answer.status_code == 202, answer.text
        return [one["id"] for one in answer.json["runs"]]

    def later(self, seconds=60):
        self.world.clock.advance(seconds)
        self.github.passed += seconds

    def written(self, body, login="mona"):
        return self.github.comments.write(PROJECT, PULL, login, body)

    def tell(self, comment, *, delivery="comment-1", body=None, **how):
        sent = body or commented.delivery(comment, **how)
        return self.world.deliver(sent, event="issue_comment", delivery=delivery)

    def says(self, body, login="mona", **how):
        """Somebody comments, a while later; answers GitHub's reactions, what bridge wrote, and its own answer."""
        self.later()
        comment = self.written(body, login)
        answer = self.tell(comment, delivery=f"comment-{comment.id}", **how)
        return answer, self.github.comments.reactions(comment.id), self.said()

    def said(self):
        """What bridge itself wrote so far."""
        return [one.body for one in self.github.comments.of(PROJECT, PULL) if one.login == "bridge-user"]

    def end(self, run, verdict=Verdict.FAILED):
        now = self.world.clock.now()
        attempt = self.runs.read(run).attempt
        n = attempt.n + 1 if attempt else 1
        kind = Kind.RETRY if attempt else Kind.FIRST
        begun = Attempt(n, kind, 1, now, steps=("build", "lint"), uid=f"u{n}", submitted=now)
        self.runs.change(run, lambda known: with_attempt(known, begun))
        self.runs.change(run, lambda known: with_end(known, n, verdict=verdict, reason="", at=now))
        self.runs.change(run, lambda known: closed(known, at=now))

    def acts(self, run):
        return [(one.kind, one.follows, one.who, one.source, one.only) for one in self.runs.read(run).acts]


class TimedGitHub(FakeGitHub):
    """Its clock goes on when a test says so."""

    def __init__(self):
        self.passed = 0.0
        super().__init__(tokens=[TOKEN], now=lambda: 1_795_554_000.0 + self.passed)


@pytest.fixture
def place():
    with TimedGitHub() as github:
        yield Place(github)


RETRIED = [(Kind.RETRY, 1, "mona", "comment", ())]


def test_a_retry_by_somebody_who_may_write_is_asked_for_and_answered_by_a_reaction_alone(place):
    checks, docs = place.pushed()
    place.end(checks)
    place.end(docs, Verdict.SUCCEEDED)
    answer, reactions, said = place.says("A flake, I think.\r\n\r\n/retry\r\n")
    assert answer.status_code == 200  # no pipeline is for comments
    assert answer.json["commands"] == [f"`/retry`: `checks` ({checks}): retry: attempt 2 begins now"]
    assert (reactions, said) == (("+1",), [])
    assert place.acts(checks) == RETRIED
    assert place.acts(docs) == []
    assert place.runs.read(checks).phase is not Phase.CLOSED


@pytest.mark.parametrize("role", ["write", "maintain", "admin"])
def test_whoever_may_write_may_act(place, role):
    place.github.comments.permit(PROJECT, "hubot", role)
    checks, _docs = place.pushed()
    place.end(checks)
    _answer, reactions, _said = place.says("/retry checks", "hubot")
    assert reactions == ("+1",)
    assert len(place.acts(checks)) == 1


@pytest.mark.parametrize("role", ["read", "triage", "none"])
def test_whoever_may_not_is_refused_by_one_question_and_nothing_is_looked_up(place, role):
    place.github.comments.permit(PROJECT, "stranger", role)
    checks, _docs = place.pushed()
    place.end(checks)
    answer, reactions, said = place.says("/retry", "stranger")
    assert answer.status_code == 200
    assert reactions == ("-1",)
    assert len(said) == 1
    assert said[0].startswith("only people who may write to this repository can ask for that")
    assert place.acts(checks) == []
    assert [path for method, path in place.github.comments.asked if "/pulls/" in path] == []


@pytest.mark.parametrize(
    "how",
    [
        {"action": "edited"},
        {"action": "deleted"},
        {"on_pull": False},
        {"kind": "Bot"},
    ],
    ids=["edited", "deleted", "an issue", "a bot"],
)
def test_other_comments_do_nothing_and_ask_nothing(place, how):
    checks, _docs = place.pushed()
    place.end(checks)
    answer, reactions, said = place.says("/retry", **how)
    assert answer.status_code == 200
    assert "commands" not in answer.json
    assert (reactions, said, place.acts(checks), place.github.requests) == ((), [], [], 0)


@pytest.mark.parametrize("body", ["Thank you!", "```\n/retry\n```", "> /retry", "<!-- /retry -->", "try `/retry`"])
def test_words_that_are_no_command_do_nothing_and_ask_nothing(place, body):
    checks, _docs = place.pushed()
    place.end(checks)
    _answer, reactions, said = place.says(body)
    assert (reactions, said, place.acts(checks), place.github.requests) == ((), [], [], 0)


def test_our_own_apps_comments_do_nothing_and_ask_nothing(place):
    checks, _docs = place.pushed()
    place.end(checks)
    comment = place.written("/retry")
    answer = place.tell(comment, body=commented.by_app(commented.delivery(comment)))
    assert answer.json["ignored"].endswith("caused by bridge itself")
    assert (place.acts(checks), place.github.requests) == ([], 0)


def test_what_bridge_wrote_with_a_persons_token_is_never_a_command(place):
    place.pushed()
    _answer, _reactions, (said,) = place.says("/retry", "stranger")
    before = place.github.requests
    place.says(f"/retry\n{said}")
    assert place.github.requests == before


def test_nothing_is_done_for_a_comment_whose_signature_does_not_fit(place):
    checks, _docs = place.pushed()
    place.end(checks)
    sent = commented.delivery(place.written("/retry"))
    answer = place.world.deliver(sent, event="issue_comment", secret="another")
    assert answer.status_code == 401
    assert (place.acts(checks), place.github.requests) == ([], 0)


def test_a_comment_is_an_event_too_for_the_pipelines_that_name_it(place):
    place.world.pipelines.pipelines["chat"] = a_pipeline("chat", "issue_comment")
    checks, _docs = place.pushed()
    place.end(checks)
    answer, reactions, _said = place.says("/retry")
    assert answer.status_code == 202
    assert [place.runs.read(one["id"]).pipeline for one in answer.json["runs"]] == ["chat"]
    assert reactions == ("+1",)
    assert place.acts(checks) == RETRIED


def test_one_pipeline_and_one_step_can_be_named(place):
    checks, docs = place.pushed()
    place.end(checks)
    place.end(docs)
    _answer, reactions, _said = place.says("/retry docs/lint")
    assert reactions == ("+1",)
    assert place.acts(docs) == [(Kind.RETRY, 1, "mona", "comment", ("lint",))]
    assert place.acts(checks) == []


def test_several_steps_are_retried_in_one_attempt(place):
    checks, _docs = place.pushed()
    place.end(checks)
    _answer, reactions, _said = place.says("/retry checks/lint\n/retry checks/build")
    assert reactions == ("+1",)
    assert place.acts(checks) == [(Kind.RETRY, 1, "mona", "comment", ("lint", "build"))]


def test_what_is_not_there_is_answered_with_what_is(place):
    checks, _docs = place.pushed()
    place.end(checks)
    _answer, reactions, said = place.says("/retry lint\n/retry checks/lnt\n/retry a b")
    assert reactions == ("confused",)
    assert len(said) == 1
    assert "`/retry lint`: aaaaaaa has no run of the pipeline `lint`; there are: `checks`, `docs`" in said[0]
    assert f"{checks} has no step lnt: it has build, lint" in said[0]
    assert (
        "`/retry a b` cannot be understood: write /retry [PIPELINE[/STEP]], alone on its line. There are"
        in said[0]
    )
    assert place.acts(checks) == []


def test_when_there_is_nothing_to_do_the_answer_says_why(place):
    checks, docs = place.pushed()
    place.end(checks, Verdict.SUCCEEDED)
    place.end(docs, Verdict.SUCCEEDED)
    _answer, reactions, said = place.says("/retry")
    assert reactions == ("confused",)
    assert f"`/retry`: `checks` ({checks}): nothing to retry: it succeeded" in said[0]


def test_rerun_and_cancel_are_of_all_runs_of_the_head(place):
    checks, docs = place.pushed()
    place.end(checks, Verdict.SUCCEEDED)
    place.says("/cancel")
    assert place.acts(docs) == [(Kind.CANCEL, 0, "mona", "comment", ())]
    place.end(docs, Verdict.CANCELLED)
    place.says("/rerun")
    assert [act[0] for act in place.acts(docs)] == [Kind.CANCEL, Kind.RERUN]
    assert [act[0] for act in place.acts(checks)] == [Kind.RERUN]


def test_only_runs_of_the_newest_commit_are_meant(place):
    older, _docs = place.pushed()
    place.end(older)
    place.later()
    newer, _docs = place.pushed(NEXT)
    place.end(newer)
    place.says("/retry checks")
    assert place.acts(older) == []
    assert place.acts(newer) == RETRIED


def test_a_delivery_that_comes_again_changes_nothing_whatever_happened_since(place):
    checks, docs = place.pushed()
    place.end(checks)
    place.end(docs, Verdict.SUCCEEDED)
    place.later()
    comment = place.written("/retry")
    for _ in range(2):
        place.tell(comment)
    place.end(checks)
    place.tell(comment)
    place.later()
    newest, _docs = place.pushed(NEXT)
    place.end(newest)
    place.end(docs)
    place.tell(comment)
    assert place.acts(checks) == RETRIED
    assert place.acts(newest) == place.acts(docs) == []
    assert (place.github.comments.reactions(comment.id), place.said()) == (("+1",), [])


def test_a_delivery_that_comes_late_moves_nothing_that_was_not_there_when_it_was_written(place):
    place.pushed()
    place.later()
    comment = place.written("/retry checks")
    place.later()
    newest, _docs = place.pushed(NEXT)
    place.end(newest)
    place.tell(comment)
    assert place.acts(newest) == []
    assert "no run of bbbbbbb was there when this was written" in place.said()[0]


def test_an_attempt_that_began_after_the_comment_was_not_meant(place):
    checks, _docs = place.pushed()
    place.end(checks)
    place.later()
    comment = place.written("/retry checks")
    place.later()
    place.end(checks)
    place.tell(comment)
    assert place.acts(checks) == []
    assert "attempt 1 has a successor: attempt 2" in place.said()[0]


@pytest.mark.parametrize("reaches", ["the permission", "the head", "the reaction", "the answer to it"])
def test_while_github_is_away_the_delivery_is_refused_and_nothing_is_lost_or_doubled(place, reaches):
    checks, _docs = place.pushed()
    place.end(checks)
    place.later()
    comment = place.written("/retry checks")
    fails = place.github.comments
    if reaches == "the permission":
        place.github.offline = True
    elif reaches == "the head":
        fails.fail_next(1, 502, on="/pulls/")
    elif reaches == "the reaction":
        fails.fail_next(1, 503, on="/reactions")
    else:
        fails.lose_answers(1)
    answer = place.tell(comment)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert place.acts(checks) == (RETRIED if reaches in {"the reaction", "the answer to it"} else [])
    place.github.offline = False
    assert place.tell(comment).status_code == 200
    assert place.acts(checks) == RETRIED
    assert fails.reactions(comment.id) == ("+1",)


def test_an_answer_is_written_once_though_the_reaction_after_it_was_lost(place):
    place.pushed()
    place.later()
    comment = place.written("/retry lint")
    place.github.comments.lose_answers(2)  # the comment, and then, once more, the reaction
    assert [place.tell(comment).status_code for _ in range(3)] == [503, 503, 200]
    assert len(place.said()) == 1
    assert place.github.comments.reactions(comment.id) == ("confused",)


def test_what_dies_between_two_acts_is_finished_by_the_next_delivery(place):
    checks, docs = place.pushed()
    place.end(checks)
    place.end(docs)
    place.later()
    comment = place.written("/retry")
    place.runs.fail("change", "after", Unavailable("the records are away"))
    assert place.tell(comment).status_code == 503
    assert sorted(len(place.acts(one)) for one in (checks, docs)) == [0, 1]
    assert place.tell(comment).status_code == 200
    assert place.acts(checks) == place.acts(docs) == RETRIED


def test_a_limit_of_github_says_when_to_come_again(place):
    checks, _docs = place.pushed()
    place.end(checks)
    place.github.comments.fail_next(1, 403, {"Retry-After": "77"})
    answer, _reactions, _said = place.says("/retry")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "77")


def test_credentials_that_may_not_ask_are_told_and_the_delivery_is_done(place):
    checks, _docs = place.pushed()
    place.end(checks)
    place.github.comments.fail_next(1, 403)
    answer, reactions, _said = place.says("/retry")
    assert answer.status_code == 200
    assert "GitHub answered 403" in answer.json["commands"][0]
    assert (
        "give the project a token that is valid and may read and write pull requests" in answer.json["commands"][0]
    )
    assert (reactions, place.acts(checks)) == ((), [])


def test_a_deleted_comment_needs_no_reaction(place):
    checks, _docs = place.pushed()
    place.end(checks)
    place.later()
    comment = place.written("/retry checks")
    place.github.comments.remove(comment.id)
    assert place.tell(comment).status_code == 200
    assert place.acts(checks) == RETRIED


# Pull requests of strangers


def held(place, runs):
    return [place.runs.read(run).awaits_approval for run in runs]


APPROVED = [(Kind.APPROVE, 0, "mona", "comment", ())]


@pytest.mark.parametrize("digits", ["", HEAD[:7], HEAD.upper(), HEAD], ids=["the head", "short", "upper", "whole"])
def test_a_maintainer_lets_a_strangers_pull_request_begin(place, digits):
    runs = place.pushed(author="NONE")
    assert held(place, runs) == [True, True]
    _answer, reactions, said = place.says(f"/ok-to-test {digits}".strip())
    assert (reactions, said) == (("+1",), [])
    assert [place.acts(run) for run in runs] == [APPROVED, APPROVED]


def test_a_stranger_approves_nothing(place):
    runs = place.pushed(author="NONE")
    _answer, reactions, _said = place.says(f"/ok-to-test {HEAD}", "stranger")
    assert reactions == ("-1",)
    assert held(place, runs) == [True, True]


def test_a_push_after_an_approval_waits_again(place):
    place.pushed(author="NONE")
    place.says("/ok-to-test")
    place.later()
    runs = place.pushed(NEXT, author="NONE")
    assert held(place, runs) == [True, True]


def test_a_push_just_before_an_approval_is_not_approved_unless_it_is_named(place):
    place.pushed(author="NONE")
    place.later()
    comment = place.written("/ok-to-test")
    runs = place.pushed(NEXT, author="NONE")
    place.tell(comment)
    assert held(place, runs) == [True, True]
    assert f"look at {NEXT}, and if it may run, comment `/ok-to-test {NEXT}`" in place.said()[0]
    assert place.github.comments.reactions(comment.id) == ("confused",)
    place.says(f"/ok-to-test {NEXT}")
    assert held(place, runs) == [False, False]


def test_a_push_in_between_whose_delivery_has_not_come_is_not_approved(place):
    runs = place.pushed(author="NONE")
    place.github.comments.put_pull_request(PROJECT, PULL, NEXT)
    place.says("/ok-to-test")
    assert held(place, runs) == [True, True]
    assert f"comment `/ok-to-test {NEXT}`" in place.said()[0]


def test_a_head_that_comes_back_is_not_approved_by_who_looked_at_another(place):
    place.pushed(HEAD, author="NONE")
    place.later()
    place.pushed(NEXT, author="NONE")
    place.later()
    comment = place.written("/ok-to-test")
    runs = place.pushed(HEAD, author="NONE")
    place.tell(comment)
    assert held(place, runs) == [True, True]
    place.github.comments.put_pull_request(PROJECT, PULL, NEXT)


def test_the_digits_of_another_commit_approve_nothing(place):
    older = place.pushed(author="NONE")
    place.later()
    newer = place.pushed(NEXT, author="NONE")
    _answer, reactions, said = place.says(f"/ok-to-test {HEAD}")
    assert reactions == ("confused",)
    assert "aaaaaaa is not the head of this pull request" in said[0]
    assert held(place, [*older, *newer]) == [True] * 4


def test_few_digits_that_fit_a_push_in_between_do_not_approve_it(place):
    twin = HEAD[:7] + "f" * 33
    place.pushed(author="NONE")
    place.later()
    comment = place.written(f"/ok-to-test {HEAD[:7]}")
    runs = place.pushed(twin, author="NONE")
    place.tell(comment)
    assert held(place, runs) == [True, True]


def test_the_clock_of_github_counts_however_wrong_ours_is(place):
    # Ours is two minutes behind: what was accepted just now looks older than the comment.
    place.world.clock._start -= 120
    place.pushed(author="NONE")
    place.later()
    comment = place.written("/ok-to-test")
    runs = place.pushed(NEXT, author="NONE")
    place.tell(comment)
    assert held(place, runs) == [True, True]
    place.says("/ok-to-test")
    assert held(place, runs) == [False, False]


def test_an_approval_that_comes_again_approves_nothing_newer(place):
    runs = place.pushed(author="NONE")
    place.later()
    comment = place.written("/ok-to-test")
    place.tell(comment)
    place.later()
    newer = place.pushed(NEXT, author="NONE")
    place.tell(comment)
    assert [place.acts(run) for run in runs] == [APPROVED, APPROVED]
    assert held(place, newer) == [True, True]
    assert place.said() == []


def test_half_an_approval_is_finished_by_the_next_delivery_though_there_was_a_push(place):
    runs = place.pushed(author="NONE")
    place.later()
    comment = place.written("/ok-to-test")
    place.runs.fail("change", "after", Unavailable("the records are away"))
    assert place.tell(comment).status_code == 503
    newer = place.pushed(NEXT, author="NONE")
    assert place.tell(comment).status_code == 200
    assert [place.acts(run) for run in runs] == [APPROVED, APPROVED]
    assert held(place, newer) == [True, True]


@pytest.mark.parametrize("words", ["/retry", "/retry checks/lint", "/rerun", "/cancel"])
def test_nothing_else_lets_a_strangers_pull_request_begin(place, words):
    runs = place.pushed(author="NONE")
    _answer, reactions, said = place.says(words)
    assert reactions == ("confused",)
    assert "it waits for a maintainer: comment /ok-to-test aaaaaaa" in said[0]
    assert held(place, runs) == [True, True]
    assert [place.acts(run) for run in runs] == [[], []]


def test_what_waits_for_nobody_needs_no_approval(place):
    place.pushed()
    _answer, reactions, said = place.says("/ok-to-test")
    assert reactions == ("confused",)
    assert "`/ok-to-test`: no run of aaaaaaa waits for approval" in said[0]


def test_another_approval_says_who_was_first(place):
    place.github.comments.permit(PROJECT, "lisa", "admin")
    place.pushed(author="NONE")
    place.says("/ok-to-test")
    _answer, reactions, said = place.says("/ok-to-test", "lisa")
    assert reactions == ("confused",)
    assert "approved already by mona" in said[0]


def test_without_credentials_a_comment_is_an_event_and_the_answer_says_why(place):
    conversations = GitHubConversations(lambda _name: None, base_url=place.github.url, clock=place.world.clock)
    gateway = replace(place.world.gateway, conversations=lambda: conversations)
    gateway.install(place.world.app.extensions)
    answer, reactions, _said = place.says("/retry")
    assert answer.status_code == 200
    assert json.loads(answer.text)["commands"] == ["there are no credentials to ask GitHub whether mona may act"]
    assert (reactions, place.github.requests) == ((), 0)
