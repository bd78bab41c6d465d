"""Following a run and its logs over a real gateway, while the world behind it changes."""

import pytest

from bridge.client import Client
from bridge.core import names
from bridge.core.builds import BuildPhase, BuildSpec
from bridge.core.runs import Attempt, Kind, closed, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound, Unavailable
from bridge.flows.settling import settled
from bridge.watching import Logs, Polling
from tests.fakes import some_event, some_run
from tests.served import served
from tests.web.worlds import a_world

NOW = 1_700_000_000.0


class Scene:
    """A run with two steps behind a gateway; each sleep of whoever follows takes the next of `acts`."""

    def __init__(self, world, client):
        self.world, self.acts, self.slept = world, [], 0.0
        self.polling = Polling(client, sleep=self.sleep, monotonic=lambda: self.slept, patience_seconds=5)
        first = Attempt(1, Kind.FIRST, 1, NOW, steps=("build", "test"))
        world.runs.add(with_attempt(some_run(), first))

    def sleep(self, seconds):
        self.slept += seconds
        assert self.slept < 100, "followed for longer than anything happens"
        if self.acts:
            self.acts.pop(0)()

    def create(self, step, number=1, log=""):
        spec = BuildSpec(self.id_of(step, number), "push-r1", "push", 1, step, number, 1, some_event(type=step))
        self.world.builds.create(spec)
        self.world.builds.start(spec.id)
        self.write(step, number, log)

    def write(self, step, number=1, log=""):
        self.world.builds.write_log(self.id_of(step, number), log)

    def end(self, step, number=1, *, phase=BuildPhase.SUCCEEDED, **changes):
        build = self.world.builds.set(self.id_of(step, number), phase, **changes)
        settled(build, self.world.builds, now=NOW)

    def close(self, verdict=Verdict.SUCCEEDED):
        self.world.runs.change(
            "push-r1", lambda run: closed(with_end(run, 1, verdict=verdict, reason="", at=NOW), at=NOW)
        )

    def id_of(self, step, number):
        return names.build_id(run="push-r1", epoch=1, step=step, number=number)


@pytest.fixture
def scene():
    world = a_world()
    with served(world.app) as url, Client(url) as client:
        yield Scene(world, client)


def test_a_run_is_followed_until_it_is_closed(scene):
    scene.acts = [lambda: None, scene.close]
    assert [run["phase"] for run in scene.polling.states("push-r1")] == ["running", "running", "closed"]


def test_a_server_that_is_started_again_is_waited_for(scene):
    answers = [Unavailable("no"), Unavailable("no"), "here"]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    assert scene.polling.patiently(ask) == "here"
    assert scene.slept == 2


def test_a_server_that_stays_away_is_not_waited_for_for_ever(scene):
    scene.polling = Polling(
        Client("http://127.0.0.1:9"), sleep=scene.sleep, monotonic=lambda: scene.slept, patience_seconds=3
    )
    with pytest.raises(Unavailable):
        list(scene.polling.states("push-r1"))
    assert 3 <= scene.slept < 10


def test_the_newest_builds_log_of_each_step_is_shown_under_a_line_that_names_it(scene):
    scene.create("build", log="compiled\n")
    scene.create("test", 1, log="first\n")
    scene.create("test", 2, log="second without an end")
    assert list(Logs(scene.polling, "push-r1").so_far()) == [
        "==> build, build 1", "compiled", "==> test, build 2", "second without an end",
    ]  # fmt: skip


def test_a_step_that_is_not_there_is_not_found_and_those_that_are_are_named(scene):
    with pytest.raises(NotFound, match="it has build, test"):
        list(Logs(scene.polling, "push-r1", "nope").so_far())


def test_a_followed_log_shows_each_line_once_as_it_comes(scene):
    scene.create("build", log="one\ntw")
    scene.acts = [
        lambda: scene.write("build", log="o\nthree\n"),
        lambda: scene.write("build", log="half"),
        lambda: scene.end("build"),
    ]
    assert list(Logs(scene.polling, "push-r1", "build").following()) == [
        "==> build, build 1", "one", "two", "three", "half",
    ]  # fmt: skip


def test_the_next_try_of_a_followed_step_is_followed_too(scene):
    scene.create("test", 1, log="fails\n")
    scene.acts = [
        lambda: scene.end("test", 1, phase=BuildPhase.FAILED, exit_code=1),
        lambda: scene.create("test", 2, log="works\n"),
        lambda: scene.end("test", 2),
    ]
    assert list(Logs(scene.polling, "push-r1", "test").following()) == [
        "==> test, build 1", "fails", "==> test, build 2", "works",
    ]  # fmt: skip


def test_all_steps_are_followed_until_the_run_is_closed(scene):
    scene.acts = [
        lambda: scene.create("build", log="compiled\n"),
        lambda: scene.end("build"),
        lambda: scene.create("test", log="tested\n"),
        lambda: scene.end("test"),
        scene.close,
    ]
    assert list(Logs(scene.polling, "push-r1").following()) == [
        "==> build, build 1", "compiled", "==> test, build 1", "tested",
    ]  # fmt: skip


def test_builds_that_come_and_go_between_two_looks_are_shown_all_the_same(scene):
    def two_builds():
        scene.create("test", 1, log="fails\n")
        scene.end("test", 1, phase=BuildPhase.FAILED, exit_code=1)
        scene.create("test", 2, log="works\n")

    scene.acts = [two_builds, lambda: scene.end("test", 2)]
    lines = list(Logs(scene.polling, "push-r1", "test").following())
    assert lines == ["==> test, build 1", "fails", "==> test, build 2", "works"]


def test_a_step_that_is_never_reached_does_not_keep_its_follower(scene):
    scene.acts = [lambda: scene.close(Verdict.FAILED)]
    assert list(Logs(scene.polling, "push-r1", "test").following()) == []


def test_a_log_that_was_swept_away_is_no_error(scene):
    scene.create("build")
    scene.end("build")
    scene.world.builds.lose_log(scene.id_of("build", 1))
    scene.close()
    assert list(Logs(scene.polling, "push-r1").following()) == []
    assert list(Logs(scene.polling, "push-r1").so_far()) == []
