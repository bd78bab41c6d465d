"""Statuses against the limits of a GitHub that is none, over real HTTP: what is told by one is known to all."""

from dataclasses import replace

import pytest

from bridge.core.runs import Report
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import StatusNotPosted, StatusOverwritten, StatusPutOff
from bridge.flows.fencing import NotLeading
from bridge.github.app import App
from bridge.github.limits import Limits
from bridge.github.statuses import GITHUB, GITHUB_APP, GitHubStatuses
from tests.fakes import some_event, some_run
from tests.github.apps import APP_ID, key_file, with_app

TOKEN = "ghs_secret_of_the_project"
SHA = some_event().revision.commit
CONTEXT = "bridge/push/push"
LINK = "https://ci.example/runs/"


class Hand:
    """A clock that only the test moves."""

    def __init__(self):
        self.passed = 0.0

    def now(self):
        return 1_700_000_000.0 + self.passed

    def monotonic(self):
        return self.passed


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def github(hand):
    with FakeGitHub(tokens=[TOKEN], now=hand.now) as fake:
        yield fake


def outbox(github, hand, **more):
    limits = Limits(monotonic=hand.monotonic, now=hand.now)
    known = {"limits": limits, "base_url": github.url, "now": hand.now, "monotonic": hand.monotonic}
    return GitHubStatuses(lambda _: TOKEN, **{**known, **more})


@pytest.fixture
def statuses(github, hand):
    return outbox(github, hand)


def run_of(name="push-r1", **changes):
    return some_run(name, **changes)


def pending(n=1):
    return Report(CONTEXT, "pending", f"attempt {n}", n)


def final(n=1, state="success"):
    return Report(CONTEXT, state, f"ended {n}", n)


def post(statuses, report, name="push-r1"):
    return statuses.post(run_of(name), report, url=LINK + name)


def states(github):
    return [status.state for status in github.history]


def put_off(statuses, report, name="push-r1"):
    with pytest.raises(StatusPutOff) as caught:
        post(statuses, report, name)
    return caught.value


# The 1,000 statuses of a commit and context.


@pytest.mark.parametrize("others", [0, 230])
def test_the_last_status_of_a_commit_and_context_is_kept_for_the_end(github, statuses, others):
    github.most_statuses = 1_000
    for n in range(998):
        github.put_status("acme/widgets", SHA, state="pending", context=CONTEXT, description=str(n))
    for _ in range(others):
        github.put_status("acme/widgets", SHA, state="success", context="another's")
    assert post(statuses, pending(1)) == GITHUB
    with pytest.raises(StatusNotPosted, match=r"999 of the 1,000 .* kept for the end") as caught:
        post(statuses, pending(2))
    assert caught.value.permanent
    assert post(statuses, final(2)) == GITHUB
    with pytest.raises(StatusNotPosted, match=r"no more than 1,000 .* push another commit") as caught:
        post(statuses, final(3, "failure"))
    assert caught.value.permanent
    mine = [status for status in github.history if status.context == CONTEXT]
    assert (len(mine), mine[-1].state) == (1000, "success")


def test_a_long_list_is_counted_once_and_from_then_on_what_is_newer(github, statuses):
    pages = []
    answered = github.answer

    def counting(method, target, headers, body):
        pages.extend([target] if method == "GET" else [])
        return answered(method, target, headers, body)

    github.answer = counting
    for n in range(450):
        github.put_status("acme/widgets", SHA, state="pending", context=CONTEXT, description=str(n))
    post(statuses, pending(1))
    assert len(pages) == 5
    for n in range(60):
        github.put_status("acme/widgets", SHA, state="pending", context=CONTEXT, description=f"more {n}")
    post(statuses, pending(2))
    assert len(pages) == 6
    for n in range(250):
        github.put_status("acme/widgets", SHA, state="pending", context=CONTEXT, description=f"again {n}")
    post(statuses, pending(3))
    assert len(pages) == 9


def test_what_is_counted_is_right_whoever_else_writes(github, statuses):
    for n in range(985):
        context = CONTEXT.upper() if n % 2 else CONTEXT
        github.put_status("acme/widgets", SHA, state="pending", context=context, description=str(n))
    for n in range(1, 15):
        assert post(statuses, pending(n)) == GITHUB
        github.put_status("acme/widgets", SHA, state="pending", context="another's")
    with pytest.raises(StatusNotPosted, match="999"):
        post(statuses, pending(15))
    assert post(statuses, final(15)) == GITHUB


# The rate limits.


@pytest.mark.parametrize("status", [403, 429])
def test_what_one_run_is_told_all_runs_of_its_credential_know(github, statuses, hand, status):
    github.fail_next(1, status, {"Retry-After": "40"})
    with pytest.raises(StatusNotPosted) as caught:
        post(statuses, final(), "push-r1")
    assert caught.value.retry_after_seconds == 40
    for name in ("push-r1", "push-r2"):
        refusal = put_off(statuses, final(), name)
        assert (refusal.permanent, refusal.turn, refusal.retry_after_seconds) == (False, False, 40)
    assert github.posts == 1
    hand.passed = 41
    assert post(statuses, final(), "push-r2") == GITHUB


def test_another_credential_is_not_kept_waiting(github, hand):
    github.allow("ghs_other")
    tokens = {"acme/widgets": TOKEN, "acme/gadgets": "ghs_other"}
    statuses = GitHubStatuses(
        tokens.get, base_url=github.url, limits=Limits(monotonic=hand.monotonic, now=hand.now)
    )
    github.fail_next(1, 429)
    with pytest.raises(StatusNotPosted):
        post(statuses, final())
    other = run_of("push-r2", event=some_event(project="acme/gadgets", payload=b""))
    assert statuses.post(other, final(), url="") == GITHUB


def test_all_tokens_of_an_installation_have_one_limit(github, hand, tmp_path):
    with_app(github, "acme/widgets", "acme/gadgets")
    statuses = outbox(github, hand, app=App(APP_ID, key_file(tmp_path), base_url=github.url))
    assert post(statuses, pending()) == GITHUB_APP
    github.fail_next(1, 403, {"Retry-After": "30"})
    with pytest.raises(StatusNotPosted):
        post(statuses, final())
    other = run_of("push-r2", event=some_event(project="acme/gadgets", payload=b""))
    with pytest.raises(StatusPutOff):
        statuses.post(other, final(), url="")


def test_when_the_quota_is_used_up_nobody_asks_before_it_is_reset(github, statuses, hand):
    github.quotas.limit_requests(7, 600)
    assert post(statuses, final(), "push-r1") == GITHUB
    assert post(statuses, final(2), "push-r2") == GITHUB
    for name in ("push-r3", "push-r4"):
        with pytest.raises(StatusNotPosted) as caught:
            post(statuses, final(3), name)
        assert caught.value.retry_after_seconds == pytest.approx(600, abs=2)
    assert github.quotas.early == 0
    hand.passed = 601
    assert post(statuses, final(3), "push-r3") == GITHUB


def test_when_little_is_left_only_final_ones_are_posted(github, statuses, hand):
    github.quotas.limit_requests(100, 200)
    github.limits = {}
    for n in range(1, 47):
        assert post(statuses, pending(n), f"push-{n}") == GITHUB
    refusal = put_off(statuses, pending(47), "push-47")
    assert refusal.turn
    assert "little is left" in str(refusal)
    assert refusal.retry_after_seconds == pytest.approx(200, abs=2)
    assert post(statuses, final(46), "push-46") == GITHUB
    hand.passed = 201
    assert post(statuses, pending(47), "push-47") == GITHUB


def test_final_ones_that_waited_go_first(github, statuses, hand):
    github.fail_next(1, 403, {"Retry-After": "30"})
    with pytest.raises(StatusNotPosted):
        post(statuses, pending(), "push-r1")
    put_off(statuses, final(), "push-r2")
    hand.passed = 31
    refusal = put_off(statuses, pending(), "push-r1")
    assert refusal.turn
    assert "final ones wait" in str(refusal)
    assert post(statuses, final(), "push-r2") == GITHUB
    assert post(statuses, pending(), "push-r1") == GITHUB


def test_a_final_one_that_never_comes_back_holds_nobody_up_for_ever(github, statuses, hand):
    github.fail_next(1, 403, {"Retry-After": "30"})
    with pytest.raises(StatusNotPosted):
        post(statuses, final(), "push-r1")
    hand.passed = 31
    assert put_off(statuses, pending(), "push-r2").turn
    hand.passed = 200
    assert post(statuses, pending(), "push-r2") == GITHUB


def test_a_final_one_that_is_given_up_holds_nobody_up(github, statuses, hand):
    github.fail_next(1, 403, {"Retry-After": "30"})
    github.fail_next(1, 410)
    with pytest.raises(StatusNotPosted):
        post(statuses, final(), "push-r1")
    hand.passed = 31
    with pytest.raises(StatusNotPosted, match="410"):
        post(statuses, final(), "push-r1")
    assert post(statuses, pending(), "push-r2") == GITHUB


def test_pending_ones_do_not_use_up_what_github_lets_us_write_in_a_minute(github, statuses, hand):
    github.quotas.limit_writes(80)
    for n in range(60):
        assert post(statuses, pending(n), f"push-{n}") == GITHUB
    assert put_off(statuses, pending(60), "push-60").turn
    for n in range(20):
        assert post(statuses, final(60 + n), f"push-{n}") == GITHUB
    hand.passed = 61
    assert post(statuses, pending(100), "push-60") == GITHUB
    assert github.quotas.early == 0


def test_a_secondary_limit_that_does_not_say_when_is_left_alone_for_longer_each_time(github, statuses, hand):
    github.quotas.limit_writes(1, 100_000, says_when=False)
    assert post(statuses, final(1)) == GITHUB
    waits = []
    for _ in range(6):
        with pytest.raises(StatusNotPosted):
            post(statuses, final(2))
        waits.append(round(put_off(statuses, final(2)).retry_after_seconds))
        hand.passed += waits[-1] + 1
    assert waits == [60, 120, 240, 480, 900, 900]


# GitHub away.


def test_while_github_is_away_runs_do_not_find_out_one_by_one(github, statuses, hand):
    github.fail_next(1000, 500)
    for n in range(3):
        with pytest.raises(StatusNotPosted, match="500"):
            post(statuses, final(), f"push-{n}")
    asked = github.posts
    for n in range(50):
        refusal = put_off(statuses, final(), f"push-{n}")
        assert "away" in str(refusal)
        assert refusal.retry_after_seconds <= 30
    assert github.posts == asked


def test_ten_minutes_without_github_cost_few_requests_and_the_status_is_there_half_a_minute_after(
    github, statuses, hand
):
    github.fail_next(100_000, 500)
    taken = None
    for _ in range(1000):
        if taken is not None:
            break
        try:
            post(statuses, final())
            taken = hand.passed
        except StatusPutOff as error:
            hand.passed += error.retry_after_seconds
        except StatusNotPosted:
            pass
        if hand.passed >= 600:
            github.heal()
    assert taken <= 630
    assert states(github) == ["success"]
    assert github.posts < 40


# What is on top.


def test_after_a_final_one_the_context_is_read_and_what_is_on_top_of_it_is_told(github, hand):
    def overwriting():
        github.put_status("acme/widgets", SHA, state="pending", context=CONTEXT, description="an older one")

    statuses = outbox(github, hand)
    github.meanwhile(after=overwriting)
    with pytest.raises(StatusOverwritten, match="shows a status 'pending' on top") as caught:
        post(statuses, final())
    assert not caught.value.permanent
    assert post(statuses, final()) == GITHUB
    assert states(github) == ["success", "pending", "success"]


def test_a_pending_one_is_not_read_again(github, statuses):
    github.meanwhile(after=lambda: github.put_status("acme/widgets", SHA, state="error", context=CONTEXT))
    assert post(statuses, pending()) == GITHUB


def test_who_slept_while_another_one_led_puts_back_what_it_covered(github, hand):
    """Paused between its last look and its write, for as long as another controller takes to end the run."""
    asleep = outbox(github, hand)

    def other_leader():
        hand.passed += 100
        assert post(outbox(github, hand), final(1, "failure")) == GITHUB

    github.meanwhile(before=other_leader)
    with pytest.raises(StatusOverwritten, match="put back"):
        post(asleep, pending())
    assert states(github) == ["failure", "pending", "failure"]
    assert github.history[-1].description == "ended 1"
    assert github.history[-1].target_url == LINK + "push-r1"


def test_who_does_not_lead_any_more_writes_nothing(github, hand):
    statuses = outbox(github, hand, leads=lambda: False)
    with pytest.raises(NotLeading):
        post(statuses, final())
    assert github.posts == 0


@pytest.mark.parametrize("lost", ["lose_answers", "reset_after_write"])
def test_a_write_whose_answer_is_lost_is_there_once_and_may_have_been_taken(github, statuses, lost):
    getattr(github, lost)(1)
    with pytest.raises(StatusNotPosted) as caught:
        post(statuses, final())
    assert caught.value.unsure
    assert post(statuses, final()) == GITHUB
    assert states(github) == ["success"]


def test_a_write_that_was_never_sent_is_not_unsure(hand):
    with FakeGitHub(tokens=[TOKEN]) as github:
        url = github.url
    statuses = outbox(github, hand, base_url=url)
    with pytest.raises(StatusNotPosted) as caught:
        post(statuses, final())
    assert not caught.value.unsure


# What can never be delivered, and what can only not be delivered yet.


def test_a_commit_of_a_fork_that_is_not_seen_yet_is_asked_for_again_for_a_while(github, statuses, hand):
    event = some_event(payload=b"", revision=replace(some_event().revision, commit="abcdef0"))
    run = run_of(event=event, accepted=hand.now())
    with pytest.raises(StatusNotPosted, match="does not know the commit yet") as caught:
        statuses.post(run, final(), url="")
    assert not caught.value.permanent
    hand.passed = 301
    with pytest.raises(StatusNotPosted, match="No commit found") as caught:
        statuses.post(run, final(), url="")
    assert caught.value.permanent


def test_an_older_run_that_was_overtaken_on_its_way_puts_the_newer_verdict_back(github, hand):
    """It was the newest when it looked; meanwhile a newer run of the commit was accepted, and ended."""
    older, newer = outbox(github, hand), outbox(github, hand)
    github.meanwhile(before=lambda: post(newer, final(1, "failure"), "push-r2"))
    with pytest.raises(StatusOverwritten, match="put back"):
        post(older, final(1, "success"), "push-r1")
    assert states(github) == ["failure", "success", "failure"]
    assert github.history[-1].target_url == LINK + "push-r2"
