"""One `brig run` over fakes: what it ends up having made, said and answered."""

from dataclasses import replace

import pytest

from bridge.core import names
from bridge.core.builds import BuildPhase, Ending
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    Phase,
    State,
    StepState,
    with_act,
    with_attempt,
    with_end,
    with_step,
)
from bridge.core.steps import Options
from bridge.core.verdicts import Verdict
from bridge.errors import Unavailable
from bridge.flows.stepping import Interrupted, Key, Stepping
from tests.fakes import FakeBuilds, FakeClock, FakeRuns, some_run

FIRST = Attempt(1, Kind.FIRST, 1, 0.0, steps=("test",))
KEY = Key("push-r1", 1, "test")
ONE_TRY = Options(("test",), tries=1)


class World:
    """The ports of a step, and builds that end by themselves as told."""

    def __init__(self, *ends: str):
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.builds = FakeBuilds(self.clock)
        self.shown = b""
        self.said: list[str] = []
        self.runs.add(some_run(phase=Phase.RUNNING, state=State(attempts=(FIRST,))), b'{"a": 1}')
        self.ends = list(ends)
        self.builds.on_create.append(self._play)

    def _play(self, spec):
        end = self.ends.pop(0) if self.ends else "succeed"
        act = {
            "succeed": lambda: self.builds.succeed(spec.id, log=f"log of {spec.number}\n"),
            "fail": lambda: self.builds.break_down(spec.id, log=f"log of {spec.number}\n"),
            "lose": lambda: self.builds.lose(spec.id),
            "unhandled": lambda: self.builds.succeed(spec.id, log="x\n[brigade:app] no-after: fired\n"),
            "run": lambda: self.builds.start(spec.id),
            "wait": lambda: None,
        }[end]
        act()

    def step(self, key: Key = KEY, options: Options = ONE_TRY):
        stepping = Stepping(self.runs, self.builds, self.clock, self.show, self.said.append)
        return stepping.answer(key, options)

    def show(self, chunk: bytes) -> None:
        self.shown += chunk


def test_a_build_is_made_with_the_records_event_and_payload():
    world = World()
    assert world.step().code == 0
    (spec,) = world.builds.specs
    assert spec.event.payload == b'{"a": 1}'
    assert (spec.event.type, spec.event.provider) == ("test", "github")
    assert spec.event.revision == some_run().event.revision
    assert spec.id == names.build_id(run="push-r1", epoch=1, step="test", number=1)


def test_the_log_is_shown_once_and_whole():
    world = World("fail", "succeed")
    assert world.step(options=Options(("test",), tries=2)).code == 0
    assert world.shown == b"log of 1\nlog of 2\n"


def test_asked_again_it_answers_at_once():
    world = World()
    world.step()
    assert world.step().code == 0
    assert len(world.builds.specs) == 1


def test_a_flake_is_tried_again_after_its_backoff():
    world = World("fail", "succeed")
    before = world.clock.now()
    assert world.step(options=Options(("test",), tries=2, backoff_seconds=7)).code == 0
    assert world.clock.now() - before >= 7
    assert [spec.number for spec in world.builds.specs] == [1, 2]


def test_after_the_last_try_it_fails():
    world = World("fail", "fail")
    answer = world.step(options=Options(("test",), tries=2))
    assert answer.code == 2
    assert "exited with code 1" in answer.message


def test_lost_workers_cost_no_try():
    world = World("lose", "lose", "succeed")
    assert world.step().code == 0
    assert [build.outcome.ending for build in world.builds.builds] == [Ending.LOST, Ending.LOST, Ending.SUCCEEDED]


def test_what_is_left_of_a_lost_build_is_stopped_before_the_next_begins():
    world = World("lose", "succeed")
    world.step()
    assert world.builds.builds[0].given_up_as is Ending.LOST


def test_lost_too_often_is_69():
    world = World(*["lose"] * 4)
    assert world.step(options=Options(("test",), tries=1, lost=2)).code == 69


def test_no_handler_is_3_or_the_next_event():
    assert World("unhandled").step().code == 3
    world = World("unhandled", "succeed")
    assert world.step(options=Options(("a", "b"), tries=1)).code == 0
    assert [spec.event.type for spec in world.builds.specs] == ["a", "b"]


def test_without_e_the_names_come_from_the_record():
    world = World("unhandled", "succeed")
    world.runs.records["push-r1"] = replace(
        world.runs.read("push-r1"), event=replace(some_run().event, type="pull_request:opened")
    )
    assert world.step(options=Options((), tries=1)).code == 0
    assert [spec.event.type for spec in world.builds.specs] == ["pull_request:opened", "pull_request"]


def test_a_worker_whose_log_is_gone_is_lost_and_not_succeeded():
    world = World("succeed", "succeed")
    world.builds.on_create.insert(1, lambda spec: world.builds.lose_log(spec.id) if spec.number == 1 else None)
    assert world.step().code == 0
    assert [spec.number for spec in world.builds.specs] == [1, 2]


def test_a_build_that_nobody_starts_is_given_up_and_made_again():
    world = World("wait", "succeed")
    assert world.step(options=Options(("test",), tries=1, start_timeout_seconds=30)).code == 0
    assert world.builds.builds[0].outcome.ending is Ending.LOST


def test_a_build_that_runs_too_long_is_124():
    world = World("run")
    answer = world.step(options=Options(("test",), tries=1, timeout_seconds=30))
    assert answer.code == 124
    assert world.builds.builds[0].given_up_as is Ending.TIMED_OUT


def test_the_timeout_counts_from_the_workers_start_also_for_who_comes_later():
    world = World("run")
    world.builds.fail("follow", "before", Interrupted())
    world.step()
    world.clock.advance(25)
    before = world.clock.now()
    assert world.step(options=Options(("test",), tries=1, timeout_seconds=30)).code == 124
    assert world.clock.now() - before <= 6


def test_asked_to_end_it_leaves_the_build_alone():
    world = World("run")
    world.builds.fail("follow", "before", Interrupted())
    assert world.step().code == 75
    assert world.builds.builds[0].phase is BuildPhase.RUNNING
    assert world.builds.builds[0].given_up_as is None


def test_asked_to_end_where_python_loses_the_exception_it_ends_at_its_next_look():
    world = World("run")
    stepping = Stepping(world.runs, world.builds, world.clock, world.show, world.said.append)
    world.builds.meanwhile("follow", "after", lambda: setattr(stepping, "interrupted", True))
    before = world.clock.now()
    assert stepping.answer(KEY, Options(("test",), tries=1, timeout_seconds=60)).code == 75
    assert world.clock.now() - before <= 6
    assert world.builds.builds[0].phase is BuildPhase.RUNNING


@pytest.mark.parametrize("method", ["read", "payload"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_trouble_with_the_records_is_waited_out(method, when):
    world = World()
    world.runs.fail(method, when, Unavailable("no answer"), times=3)
    assert world.step().code == 0
    assert len(world.builds.specs) == 1


@pytest.mark.parametrize("method", ["find", "highest", "create", "record", "log", "follow"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_trouble_with_the_builds_is_waited_out_and_makes_no_second_one(method, when):
    world = World()
    world.builds.fail(method, when, Unavailable("no answer"), times=3)
    assert world.step().code == 0
    assert len(world.builds.specs) == 1


def test_when_it_cannot_be_found_out_it_says_ask_again():
    world = World()
    world.runs.fail("read", "before", Unavailable("no answer"), times=100)
    assert world.step().code == 75


def test_an_unknown_run_is_ask_again():
    assert World().step(Key("nobody", 1, "test")).code == 75


def test_a_newer_attempt_makes_the_old_steps_process_create_nothing():
    world = World("fail")
    second = replace(FIRST, n=2, kind=Kind.RETRY)
    world.builds.meanwhile(
        "create", "after", lambda: world.runs.change("push-r1", lambda run: with_attempt(run, second))
    )
    assert world.step(options=Options(("test",), tries=3)).code == 75
    assert len(world.builds.specs) == 1
    assert world.step(Key("push-r1", 2, "test")).code == 0
    assert world.builds.used_twice == []


SECOND = Attempt(2, Kind.RETRY, 1, 9.0, steps=("test",))


@pytest.mark.parametrize(
    ("end", "options", "code"),
    [
        ("fail", ONE_TRY, 2),
        ("lose", Options(("test",), tries=1, lost=0), 69),
        ("run", Options(("test",), tries=1, timeout_seconds=30.0), 124),
        ("unhandled", ONE_TRY, 3),
        ("cancel", ONE_TRY, 75),
    ],
    ids=["failed", "lost", "timed-out", "no-handler", "cancelled"],
)
def test_whatever_an_attempt_ended_by_the_next_one_makes_one_build_and_then_no_more(end, options, code):
    world = World("run" if end == "cancel" else end, "succeed")
    if end == "cancel":

        def cancelled():
            (build,) = world.builds.builds
            world.builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
            world.runs.change("push-r1", lambda run: with_act(run, Act(Kind.CANCEL, "q", 1)))

        world.builds.meanwhile("create", "after", cancelled)
    assert world.step(options=options).code == code
    world.runs.change("push-r1", lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=5.0))
    world.runs.change("push-r1", lambda run: with_attempt(run, SECOND))
    for _ in range(2):
        assert world.step(Key("push-r1", 2, "test"), options).code == 0
    assert [(spec.number, spec.attempt) for spec in world.builds.specs] == [(1, 1), (2, 2)]


def test_a_step_that_succeeded_makes_no_build_in_the_next_attempt():
    world = World("succeed")
    assert world.step().code == 0
    world.runs.change("push-r1", lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="", at=5.0))
    world.runs.change("push-r1", lambda run: with_attempt(run, SECOND))
    assert world.step(Key("push-r1", 2, "test")).code == 0
    assert [spec.number for spec in world.builds.specs] == [1]


def test_a_cancel_stops_new_builds():
    world = World("fail")
    cancel = Act(Kind.CANCEL, "q", 1)
    world.builds.meanwhile(
        "create", "after", lambda: world.runs.change("push-r1", lambda run: with_act(run, cancel))
    )
    assert world.step(options=Options(("test",), tries=3)).code == 75
    assert len(world.builds.specs) == 1


def test_a_build_made_in_the_moment_of_closing_is_given_up():
    world = World("run")

    def close():
        world.runs.change(
            "push-r1",
            lambda run: replace(
                with_end(run, 1, verdict=Verdict.CANCELLED, reason="", at=1.0), phase=Phase.CLOSED, closed=1.0
            ),
        )

    world.builds.meanwhile("create", "before", close)
    assert world.step().code == 75
    assert world.builds.builds[0].given_up_as is Ending.CANCELLED


def test_a_success_that_was_swept_away_is_remembered_by_the_record():
    world = World()
    world.step()
    world.runs.change("push-r1", lambda run: with_step(run, 1, "test", StepState(1, 1)))
    world.builds.sweep(world.builds.specs[0].id)
    assert world.step().code == 0
    assert len(world.builds.specs) == 1


def test_a_success_swept_away_while_it_looks_is_still_found():
    world = World()
    world.step()

    def sweep():
        world.runs.change("push-r1", lambda run: with_step(run, 1, "test", StepState(1, 1)))
        world.builds.sweep(world.builds.specs[0].id)

    world.builds.meanwhile("find", "before", sweep)
    assert world.step().code == 0
    assert len(world.builds.specs) == 1


def test_a_volume_that_was_left_behind_takes_its_number_along():
    world = World("fail", "succeed")
    world.step()
    world.builds.sweep(world.builds.specs[0].id, leaves_volume=True)
    assert world.step().code == 0
    assert [spec.number for spec in world.builds.specs] == [1, 2]


def test_two_steps_of_one_key_make_one_build():
    world = World("run")
    other = Stepping(world.runs, world.builds, world.clock, lambda _: None, lambda _: None)
    answers = []

    def second():
        world.clock.on_sleep.append(finish)
        answers.append(other.answer(KEY, ONE_TRY))

    def finish():
        (build,) = world.builds.builds
        if build.phase is BuildPhase.RUNNING:
            world.builds.succeed(build.id)

    world.builds.meanwhile("create", "before", second)
    assert world.step().code == 0
    assert answers[0].code == 0
    assert len(world.builds.specs) == 1


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "mirrored"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["find", "highest", "create", "read", "payload"])
def test_whenever_another_step_makes_the_build_there_is_one(method, when, nth, mirrored):
    """What a step reads is not of one moment: a build in the highest number or in the record alone is no reason for
    a second one beside it."""
    world = World("run")
    calls = []

    def another():
        calls.append(method)
        if len(calls) != nth or world.builds.specs:
            return
        other = Stepping(world.runs, world.builds, world.clock, lambda _: None, lambda _: None)
        world.clock.on_sleep.append(finish)
        assert other.answer(KEY, ONE_TRY).code == 0

    def finish():
        (build,) = world.builds.builds
        if mirrored:
            state = StepState(highest=1)
            world.runs.change("push-r1", lambda run: with_step(run, 1, "test", state))
        if build.phase is BuildPhase.RUNNING:
            world.builds.succeed(build.id)

    port = world.runs if method in {"read", "payload"} else world.builds
    port.meanwhile(method, when, another, times=1000)
    world.clock.on_sleep.append(finish)
    assert world.step().code == 0
    assert len(world.builds.specs) == 1
