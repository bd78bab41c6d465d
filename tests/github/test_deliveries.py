"""Missed deliveries over real HTTP: a fake GitHub that really sends, a real gateway, and the sweep between them."""

import json
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bridge.core.deliveries import FIRST_WAIT_SECONDS, REDELIVERABLE_SECONDS
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import Unavailable
from bridge.flows import sweeping as flow
from bridge.flows.sweeping import REFUSED_SECONDS, Sweeping
from bridge.github.app import App
from bridge.github.deliveries import GitHubDeliveries
from tests.fakes import FakeClock
from tests.github.apps import APP_ID, REPOSITORY, key_file, with_app
from tests.served import served
from tests.web.worlds import COMMIT, PUSH, SECRET, a_project, a_world

TOKEN = "ghp_secret_of_the_project"
APP_SECRET = "of-the-app"
LATER = FIRST_WAIT_SECONDS + 1
MINUTES = 300.0


class Gateway:
    """A real gateway on a real port, which can be away."""

    def __init__(self):
        self.world = a_world(app_secret=APP_SECRET)
        self.away = 0
        self.asked = []
        self.url = ""

    def __call__(self, environ, start_response):
        self.asked.append(environ.get("HTTP_X_GITHUB_DELIVERY"))
        if self.away:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{self.away} away", [("Content-Length", "0")])
            return [b""]
        return self.world.app.wsgi_app(environ, start_response)

    @property
    def runs(self):
        return self.world.runs.records

    @property
    def webhook(self):
        return f"{self.url}/events/github"


@dataclass
class World:
    github: FakeGitHub
    gateway: Gateway
    clock: FakeClock
    projects: list = field(default_factory=lambda: [a_project(token=TOKEN)])
    app: App | None = None
    leads: bool = True
    most_asks: int = 1000
    """Another one leads once so much was asked for."""
    behind: list = field(default_factory=lambda: [0.0])

    def sweeping(self) -> Sweeping:
        logs = GitHubDeliveries(
            lambda: self.projects,
            webhook_url=self.gateway.webhook,
            app=self.app,
            base_url=self.github.url,
            clock=self.clock,
        )
        return Sweeping(logs, self.clock, every_seconds=MINUTES, leads=self._leads)

    def _leads(self) -> bool:
        return self.leads and len(self.asked()) < self.most_asks

    def hook(self, **changes) -> int:
        return self.github.hooks.add(REPOSITORY, **{"url": self.gateway.webhook, "secret": SECRET, **changes})

    def sweep(self, sweeping, *, after=LATER):
        """Sweep `after` seconds, and let everything arrive that was asked for."""
        self.clock.advance(after)
        sweeping.sweep()
        self.github.hooks.settle()
        return sweeping.values()

    def attempts(self, guid):
        return [one.status_code for one in self.github.hooks.log if one.guid == guid]

    @property
    def redeliveries(self):
        return [one.guid for one in self.github.hooks.log if one.redelivery]

    def asked(self, method="POST"):
        return [path for found, path in self.github.hooks.asked if found == method]


@pytest.fixture
def world():
    clock = FakeClock(time.time())
    behind = [0.0]
    with FakeGitHub(tokens=[TOKEN], now=lambda: clock.now() - behind[0]) as github:
        gateway = Gateway()
        with served(gateway) as gateway.url:
            yield World(github, gateway, clock, behind=behind)


@pytest.fixture
def with_the_app(world, tmp_path):
    with_app(world.github)
    world.app = App(APP_ID, key_file(tmp_path), base_url=world.github.url, clock=world.clock)
    world.projects = [a_project()]
    return world.github.hooks.add_app(APP_ID, world.gateway.webhook, secret=APP_SECRET)


@contextmanager
def away(gateway, code=503):
    gateway.away = code
    yield
    gateway.away = 0


def push(number) -> bytes:
    return json.dumps({**json.loads(PUSH), "number": number}).encode()


def deliver(world, *hooks, times=1, first=0):
    return [world.github.hooks.deliver("push", push(first + one), *hooks) for one in range(times)]


def test_what_a_gateway_lost_that_is_healthy_again_comes_exactly_once_more(world):
    hook, sweeping = world.hook(), world.sweeping()
    before = deliver(world, hook, times=2)
    with away(world.gateway):
        lost = deliver(world, hook, times=5, first=10)
    after = deliver(world, hook, times=2, first=20)
    values = world.sweep(sweeping)
    for _ in range(5):
        world.sweep(sweeping, after=MINUTES)
    assert sorted(world.redeliveries) == sorted(lost)
    assert {guid: world.attempts(guid) for guid in lost} == {guid: [503, 202] for guid in lost}
    assert {run.event.delivery for run in world.gateway.runs.values()} == {*before, *lost, *after}
    assert len(world.gateway.runs) == len(before) + len(lost) + len(after)
    assert values["bridge_deliveries_redelivered_total"] == 5
    assert sweeping.values()["bridge_deliveries_lost"] == 0


def test_the_apps_webhook_is_swept_as_the_app_itself(world, with_the_app):
    sweeping = world.sweeping()
    with away(world.gateway):
        (lost,) = deliver(world, with_the_app)
    world.sweep(sweeping)
    assert world.attempts(lost) == [503, 202]
    assert len(world.gateway.runs) == 1


@pytest.mark.parametrize("code", [429, 500, 502, 504])
def test_every_answer_that_asks_to_come_again_is_one(world, code):
    hook = world.hook()
    with away(world.gateway, code):
        (lost,) = deliver(world, hook)
    world.sweep(world.sweeping())
    assert world.attempts(lost) == [code, 202]


@pytest.mark.parametrize("no_answer", [(0, "timed out"), (502, "failed to connect to host"), (504, "timed out")])
def test_what_never_arrived_and_what_timed_out_is_lost_too(world, no_answer):
    hook = world.hook(url="http://127.0.0.1:1/events/github")
    world.github.hooks.no_answer = no_answer
    (lost,) = deliver(world, hook)
    world.github.hooks.change(hook, url=world.gateway.webhook)
    world.sweep(world.sweeping())
    assert world.attempts(lost) == [no_answer[0], 202]


def test_what_was_refused_is_left_alone(world):
    hook, sweeping = world.hook(secret="wrong"), world.sweeping()
    refused = deliver(world, hook)
    for code in (301, 400, 404, 409, 413):
        with away(world.gateway, code):
            refused += deliver(world, hook)
    for _ in range(3):
        world.sweep(sweeping, after=MINUTES)
    assert world.asked() == []
    assert {code for guid in refused for code in world.attempts(guid)} == {301, 400, 401, 404, 409, 413}


def test_what_somebody_had_sent_again_already_is_left_alone(world):
    hook = world.hook()
    guid = world.github.hooks.put(hook, 503, age_seconds=600)
    world.github.hooks.put(hook, 202, guid=guid, age_seconds=300, redelivery=True)
    world.sweep(world.sweeping())
    assert world.asked() == []


def test_what_is_older_than_three_days_is_left_and_said(world, caplog):
    hook, sweeping = world.hook(), world.sweeping()
    old = world.github.hooks.put(hook, 503, age_seconds=REDELIVERABLE_SECONDS + 60)
    young = world.github.hooks.put(hook, 503, age_seconds=REDELIVERABLE_SECONDS - 600, body=push(1))
    with caplog.at_level(logging.WARNING):
        world.sweep(sweeping)
        values = world.sweep(sweeping, after=MINUTES)
    assert world.redeliveries == [young]
    assert caplog.text.count(old) == 1
    assert "3 days" in caplog.text
    assert values["bridge_deliveries_expired_total"] == 1


def test_a_gateway_that_stays_away_is_asked_less_and_less_until_it_is_back(world):
    hook, sweeping = world.hook(), world.sweeping()
    with away(world.gateway):
        (lost,) = deliver(world, hook)
        for _ in range(24):
            world.sweep(sweeping, after=MINUTES)
        while_away = len(world.attempts(lost)) - 1
    assert 6 <= while_away <= 10
    for _ in range(4):
        world.sweep(sweeping, after=MINUTES)
    assert world.attempts(lost) == [503] * (1 + while_away) + [202]
    assert len(world.gateway.runs) == 1


def test_what_was_lost_just_now_is_left_a_moment(world):
    hook, sweeping = world.hook(), world.sweeping()
    with away(world.gateway):
        deliver(world, hook)
    world.sweep(sweeping, after=1)
    assert world.asked() == []
    world.sweep(sweeping)
    assert len(world.asked()) == 1


def test_two_sweeps_that_know_nothing_of_each_other_double_nothing(world):
    hook = world.hook()
    with away(world.gateway):
        lost = deliver(world, hook, times=3)
    world.clock.advance(LATER)
    one, other = world.sweeping(), world.sweeping()
    one.sweep()
    other.sweep()
    world.github.hooks.settle()
    assert len(world.gateway.runs) == 3
    for guid in lost:
        assert world.attempts(guid)[0] == 503
        assert set(world.attempts(guid)[1:]) == {202}


def test_a_hook_of_the_app_and_one_of_the_repository_share_a_guid_and_one_delivery_is_enough(world, with_the_app):
    world.projects = [a_project(token=TOKEN)]
    hook, sweeping = world.hook(), world.sweeping()
    with away(world.gateway):
        (guid,) = deliver(world, with_the_app, hook)
    world.sweep(sweeping)
    world.sweep(sweeping, after=MINUTES)
    assert [one.hook for one in world.github.hooks.log if one.redelivery] == [with_the_app]
    assert len(world.gateway.runs) == 1
    half = world.github.hooks.put(with_the_app, 503, age_seconds=600)
    world.github.hooks.put(hook, 202, guid=half, age_seconds=600)
    world.sweep(sweeping, after=1)
    assert half not in world.redeliveries
    assert guid in world.redeliveries


def test_hooks_that_point_elsewhere_are_none_of_ours(world, with_the_app, caplog):
    world.projects = [a_project(token=TOKEN)]
    world.github.hooks.change(with_the_app, url="https://elsewhere.example/events/github?key=hunter2")
    others = world.hook(url=f"{world.gateway.url}/others")
    off = world.hook(active=False)
    ours = world.hook(url=f"{world.gateway.webhook}/")
    for hook in (with_the_app, others, off):
        world.github.hooks.put(hook, 503, age_seconds=600)
    mine = world.github.hooks.put(ours, 503, age_seconds=600)
    with caplog.at_level(logging.INFO):
        world.sweep(world.sweeping())
    assert world.redeliveries == [mine]
    assert "BRIDGE_WEBHOOK_URL" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_token_that_may_not_see_hooks_is_no_trouble_and_is_asked_about_once_an_hour(world, caplog):
    world.hook()
    world.github.hooks.blind(TOKEN)
    sweeping = world.sweeping()
    with caplog.at_level(logging.INFO):
        for _ in range(13):
            world.sweep(sweeping, after=MINUTES)
    assert len(world.asked("GET")) == 2
    assert [record.levelname for record in caplog.records if "webhooks" in record.message] == ["INFO"]
    assert TOKEN not in caplog.text


def test_one_source_that_fails_stops_no_other(world, with_the_app):
    world.projects = [a_project(token=TOKEN)]
    world.hook()
    sweeping = world.sweeping()
    world.github.hooks.fail_next(1, 500)
    lost = world.github.hooks.put(world.hook(), 503, age_seconds=600)
    world.sweep(sweeping)
    assert world.redeliveries == [lost]
    assert sweeping.values()["bridge_delivery_sweep_troubles_total"] == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, {"Retry-After": "1800"}), (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"})],
)
def test_a_limit_is_honoured_for_as_long_as_it_says(world, status, headers):
    hook, sweeping = world.hook(), world.sweeping()
    world.github.hooks.put(hook, 503, age_seconds=600)
    known = {
        name: str(int(world.clock.now()) + 1800) if value == "soon" else value for name, value in headers.items()
    }
    world.github.hooks.fail_next(1, status, known)
    world.sweep(sweeping, after=1)
    for _ in range(5):
        world.sweep(sweeping, after=MINUTES)
    assert len(world.github.hooks.asked) == 1
    world.sweep(sweeping, after=MINUTES + 1)
    assert len(world.redeliveries) == 1


def test_when_little_is_left_of_a_limit_the_rest_is_for_statuses(world):
    hook, sweeping = world.hook(), world.sweeping()
    world.github.hooks.put(hook, 503, age_seconds=600)
    low = {
        "X-RateLimit-Limit": "5000",
        "X-RateLimit-Remaining": "900",
        "X-RateLimit-Reset": str(int(world.clock.now()) + 1200),
    }
    world.github.limits = low
    world.sweep(sweeping, after=1)
    for _ in range(3):
        world.sweep(sweeping, after=MINUTES)
    assert len(world.github.hooks.asked) == 1
    world.github.limits = {}
    world.sweep(sweeping, after=MINUTES)
    assert len(world.redeliveries) == 1


def test_a_redelivery_that_is_refused_is_tried_again_later_and_stops_no_other(world, caplog):
    hook, sweeping = world.hook(), world.sweeping()
    first, second = (world.github.hooks.put(hook, 503, age_seconds=age, body=push(age)) for age in (700, 600))
    world.github.hooks.fail_next(1, 404, method="POST")
    world.sweep(sweeping)
    assert world.redeliveries == [second]
    assert "cannot be sent again" in caplog.text
    for _ in range(2):
        world.sweep(sweeping, after=MINUTES)
    assert world.redeliveries == [second, first]


def test_a_token_that_may_see_hooks_but_not_ask_is_left_alone_for_an_hour(world):
    hook, sweeping = world.hook(), world.sweeping()
    for age in (900, 800, 700):
        world.github.hooks.put(hook, 503, age_seconds=age)
    world.github.hooks.fail_next(2, 403, method="POST")
    for _ in range(6):
        world.sweep(sweeping, after=MINUTES)
    assert len(world.asked()) == 1
    world.sweep(sweeping, after=REFUSED_SECONDS)
    assert len(world.asked()) == 2


def test_an_answer_that_is_lost_is_no_reason_to_ask_again_at_once(world):
    hook, sweeping = world.hook(), world.sweeping()
    world.github.hooks.put(hook, 503, age_seconds=600, body=push(1))
    world.github.hooks.lose_answers(1)
    world.sweep(sweeping, after=1)
    assert len(world.redeliveries) == 1
    for _ in range(4):
        world.sweep(sweeping, after=MINUTES)
    assert len(world.asked()) == 1
    assert len(world.gateway.runs) == 1


def test_what_was_asked_for_and_is_not_in_the_log_yet_is_not_asked_for_again(world):
    hook, sweeping = world.hook(), world.sweeping()
    lost = world.github.hooks.put(hook, 503, age_seconds=600, body=push(1))
    world.github.hooks.hold()
    for after in (1, 60, 60, 60):
        world.clock.advance(after)
        sweeping.sweep()
    assert len(world.asked()) == 1
    world.github.hooks.settle()
    assert world.redeliveries == [lost]


def test_what_is_under_way_is_left_until_it_is_known(world):
    hook, sweeping = world.hook(), world.sweeping()
    world.github.hooks.put(hook, 0, age_seconds=600, status="pending")
    world.sweep(sweeping)
    assert world.asked() == []


def test_what_comes_into_a_log_late_is_found_though_the_log_was_read_past_it(world):
    hook, sweeping = world.hook(), world.sweeping()
    world.github.hooks.put(hook, 202, age_seconds=10)
    world.sweep(sweeping, after=0)
    late = world.github.hooks.put(hook, 503, age_seconds=300, body=push(1))
    for age in range(150):
        world.github.hooks.put(hook, 202, age_seconds=age)
    world.sweep(sweeping, after=0)
    assert world.redeliveries == [late]


def test_a_cursor_that_is_of_no_use_any_more_is_dropped(world, monkeypatch):
    monkeypatch.setattr(flow, "MOST_PAGES", 1)
    hook, sweeping = world.hook(), world.sweeping()
    for age in range(150):
        world.github.hooks.put(hook, 202, age_seconds=600 + age)
    world.sweep(sweeping)
    world.github.hooks.forget()
    lost = world.github.hooks.put(hook, 503, age_seconds=600, body=push(1))
    world.sweep(sweeping)
    assert world.redeliveries == []
    world.sweep(sweeping, after=REFUSED_SECONDS)
    assert world.redeliveries == [lost]


def test_a_long_log_is_read_in_pages_over_several_sweeps_and_then_only_what_is_new(world, monkeypatch):
    monkeypatch.setattr(flow, "MOST_PAGES", 2)
    hook, sweeping = world.hook(), world.sweeping()
    for age in range(550):
        world.github.hooks.put(hook, 200, age_seconds=1000.0 + age)
    oldest = world.github.hooks.put(hook, 503, age_seconds=2000, body=push(1))
    pages = []
    for _ in range(3):
        before = len(world.asked("GET"))
        world.sweep(sweeping, after=MINUTES)
        pages.append(len(world.asked("GET")) - before)
    assert pages == [3, 2, 2]
    assert world.redeliveries == [oldest]
    before = len(world.asked("GET"))
    world.sweep(sweeping, after=MINUTES)
    assert len(world.asked("GET")) - before == 1


def test_no_sweep_and_no_hour_asks_for_more_than_it_may(world, monkeypatch):
    monkeypatch.setattr(flow, "MOST_REDELIVERIES", 4)
    monkeypatch.setattr(flow, "MOST_AN_HOUR", 10)
    hook, sweeping = world.hook(), world.sweeping()
    lost = [world.github.hooks.put(hook, 503, age_seconds=900 - one, body=push(one)) for one in range(14)]
    asked = []
    for _ in range(6):
        world.sweep(sweeping, after=MINUTES)
        asked.append(len(world.redeliveries))
    assert asked == [4, 8, 10, 10, 10, 10]
    world.sweep(sweeping, after=3600)
    assert len(world.redeliveries) == 14
    assert sorted(world.redeliveries) == sorted(lost)
    assert sorted(world.redeliveries[:4]) == sorted(lost[:4])


def test_many_projects_are_looked_at_in_turn_and_one_repository_once(world, monkeypatch):
    monkeypatch.setattr(flow, "MOST_SOURCES", 3)
    world.projects = [a_project(f"acme/p{number}", token=TOKEN) for number in range(6)]
    world.projects.append(a_project("acme/again", token=TOKEN, repository="Acme/P1"))
    world.projects.append(a_project("acme/without"))
    sweeping = world.sweeping()
    for _ in range(3):
        world.sweep(sweeping, after=MINUTES)
    assert sorted(world.asked("GET")) == [f"/repos/acme/p{number}/hooks" for number in range(6)]


def test_who_does_not_lead_asks_for_nothing(world):
    hook, sweeping = world.hook(), world.sweeping()
    for age in (800, 700, 600):
        world.github.hooks.put(hook, 503, age_seconds=age)
    world.leads = False
    world.sweep(sweeping)
    assert world.github.hooks.asked == ()
    world.leads, world.most_asks = True, 1
    world.sweep(sweeping)
    assert len(world.asked()) == 1


@pytest.mark.parametrize("behind", [3600.0, -3600.0])
def test_a_clock_that_is_wrong_by_an_hour_loses_nothing(world, behind):
    world.behind[0] = behind
    hook, sweeping = world.hook(), world.sweeping()
    world.sweep(sweeping)
    with away(world.gateway):
        (lost,) = deliver(world, hook)
    world.sweep(sweeping)
    world.sweep(sweeping)
    assert world.attempts(lost) == [503, 202]


def test_a_project_that_is_gone_or_has_a_broken_token_is_said_and_no_more(world, caplog):
    world.projects = [a_project(token="bad token"), a_project("acme/gadgets", token="ghp_unknown")]
    with caplog.at_level(logging.INFO):
        world.sweep(world.sweeping())
    assert "no token has" in caplog.text
    assert "401" in caplog.text
    assert "ghp_unknown" not in caplog.text
    assert "bad token" not in caplog.text


def test_when_the_gateway_stores_and_its_answer_is_lost_the_run_stays_one(world):
    hook, sweeping = world.hook(), world.sweeping()
    world.gateway.world.runs.fail("create", "after", Unavailable("the answer was lost"))
    (guid,) = deliver(world, hook)
    assert world.attempts(guid) == [503]
    world.sweep(sweeping)
    assert world.attempts(guid) == [503, 202]
    (run,) = world.gateway.runs.values()
    assert (run.event.delivery, run.event.revision.commit) == (guid, COMMIT)
