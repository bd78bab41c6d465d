"""Comments on GitHub over real HTTP: with which token, within which time, and what is told."""

import pytest

from bridge.core.events.comments import Asking, commands_of
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings, Unavailable
from bridge.flows.commenting import Conversation, ConversationRefused
from bridge.github.app import App
from bridge.github.comments import GitHubConversation, GitHubConversations
from bridge.ports import writing_methods
from tests.fakes import FakeClock
from tests.github.apps import APP_ID, REPOSITORY, key_file, with_app

START = 1_795_554_000.0
TOKEN = "the-projects-token"
WRITES = {"pull_requests": "write"}


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
def github(clock):
    with FakeGitHub(tokens=[TOKEN], now=clock.now) as fake:
        fake.comments.put_pull_request(REPOSITORY, 7, "a" * 40)
        yield fake


def conversations(github, clock, tmp_path=None, *, token="", repository=REPOSITORY):
    app = None
    if tmp_path is not None:
        app = App(APP_ID, key_file(tmp_path), base_url=github.url, clock=clock)
    return GitHubConversations(
        lambda _name: token, app=app, base_url=github.url, repository_of=lambda _name: repository, clock=clock
    )


def talk(github, clock, tmp_path=None, *, seconds=8.0, **how):
    found = conversations(github, clock, tmp_path, **how).about("widgets", seconds=seconds)
    assert found is not None
    return found


def asking(github, clock):
    written = github.comments.write(REPOSITORY, 7, "mona", "/retry")
    return Asking(REPOSITORY, "guid", 7, written.id, "mona", clock.now(), commands_of("/retry"))


def who_wrote(github):
    return [one.login for one in github.comments.of(REPOSITORY, 7)]


def test_the_port_is_kept():
    assert writing_methods(Conversation) == ("react", "answer")
    assert {name for name in vars(Conversation) if not name.startswith("_")} <= set(vars(GitHubConversation))


def test_the_app_speaks_where_it_is_installed_and_its_token_may_little_else(github, clock, tmp_path):
    with_app(github, permissions={"pull_requests": "write", "contents": "read", "statuses": "write"})
    asks = asking(github, clock)
    talking = talk(github, clock, tmp_path, token=TOKEN)
    talking.answer(asks, "words", "<!-- mark -->")
    talking.react(asks.comment, "-1")
    assert who_wrote(github) == ["mona", "bridge[bot]"]
    assert github.comments.comment(asks.comment).reactions == (("bridge[bot]", "-1"),)
    assert [dict(one.permissions) for one in github.apps.minted] == [WRITES]


@pytest.mark.parametrize("granted", [None, {"pull_requests": "read"}, {"statuses": "write"}], ids=range(3))
def test_the_projects_token_speaks_where_the_app_is_not_or_may_not(github, clock, tmp_path, granted):
    if granted is not None:
        with_app(github, permissions=granted)
    asks = asking(github, clock)
    talk(github, clock, tmp_path, token=TOKEN).answer(asks, "words", "<!-- mark -->")
    assert who_wrote(github) == ["mona", "bridge-user"]


def test_an_app_that_may_not_and_no_token_is_told_with_what_to_do(github, clock, tmp_path):
    with_app(github, permissions={"statuses": "write"})
    with pytest.raises(ConversationRefused, match="pull_requests"):
        conversations(github, clock, tmp_path).about("widgets", seconds=8)


def test_nobody_speaks_without_credentials(github, clock):
    assert conversations(github, clock).about("widgets", seconds=8) is None
    assert conversations(github, clock, token="two words").about("widgets", seconds=8) is None


def test_permissions_and_heads_are_as_github_shows_them_at_that_moment(github, clock):
    talking = talk(github, clock, token=TOKEN)
    assert talking.permission("mona") == "read"
    github.comments.permit(REPOSITORY, "mona", "maintain")
    assert talking.permission("mona") == "write"
    assert talking.head(7).sha == "a" * 40
    github.comments.put_pull_request(REPOSITORY, 7, "B" * 40)
    assert talking.head(7).sha == "b" * 40


def test_how_far_githubs_clock_is_ahead_comes_with_the_head(clock):
    with FakeGitHub(tokens=[TOKEN], now=lambda: clock.now() + 90) as ahead:
        ahead.comments.put_pull_request(REPOSITORY, 7, "a" * 40)
        assert talk(ahead, clock, token=TOKEN).head(7).ahead_seconds == 90


def test_whom_github_does_not_know_may_do_nothing(github, clock):
    github.comments.fail_next(1, 404)
    assert talk(github, clock, token=TOKEN).permission("ghost") == "none"


def test_an_answer_with_its_mark_is_written_once(github, clock):
    asks = asking(github, clock)
    for _ in range(2):
        talk(github, clock, token=TOKEN).answer(asks, "words <!-- mark -->", "<!-- mark -->")
    assert who_wrote(github) == ["mona", "bridge-user"]


def test_a_token_of_the_app_that_was_revoked_is_replaced_for_the_next_delivery(github, clock, tmp_path):
    with_app(github, permissions=WRITES)
    speaking = conversations(github, clock, tmp_path)
    speaking.about("widgets", seconds=8).permission("mona")
    github.apps.revoke_tokens()
    with pytest.raises(Unavailable):
        speaking.about("widgets", seconds=8).permission("mona")
    assert speaking.about("widgets", seconds=8).permission("mona") == "read"


def test_no_call_begins_when_the_time_is_over(github, clock):
    talking = talk(github, clock, token=TOKEN, seconds=3)
    clock.advance(2.7)
    with pytest.raises(Unavailable, match="no time left"):
        talking.permission("mona")
    with pytest.raises(Unavailable, match="no time left"):
        talk(github, clock, token=TOKEN, seconds=0.2)
    assert github.requests == 0


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_github_that_is_broken_is_asked_again_by_the_next_delivery(github, clock, status):
    github.comments.fail_next(1, status)
    with pytest.raises(Unavailable, match=f"GitHub answered {status}"):
        talk(github, clock, token=TOKEN).head(7)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 410])
def test_what_a_person_has_to_mend_is_no_reason_to_come_again(github, clock, status):
    github.comments.fail_next(1, status)
    with pytest.raises(ConversationRefused, match=f"GitHub answered {status}") as refused:
        talk(github, clock, token=TOKEN).head(7)
    assert TOKEN not in str(refused.value)


def test_an_answer_that_is_not_githubs_is_none(github, clock):
    github.comments.fail_next(1, 200)
    with pytest.raises(Unavailable, match="check that BRIDGE_GITHUB_API_URL"):
        talk(github, clock, token=TOKEN).head(7)


def test_a_project_whose_repository_is_none_is_refused(github, clock):
    with pytest.raises(ConversationRefused, match="set the project's repository"):
        conversations(github, clock, token=TOKEN, repository="../..").about("widgets", seconds=8)
    with pytest.raises(BadSettings):
        GitHubConversations(lambda _name: TOKEN, base_url="ftp://example.com", clock=clock)
