"""What every implementation of the port Builds keeps to."""

import threading

import pytest

from bridge.core.builds import BuildPhase, Ending, Outcome, judged
from bridge.core.names import build_id
from bridge.errors import Conflict, NotFound
from tests.fakes import FakeBuilds, some_event
from tests.local.building import a_spec, builds_in, seen, until, until_phase


class OfTheFake:
    """Builds in memory, and what their workers do."""

    def __init__(self):
        self.builds = FakeBuilds()

    def running(self, build_id, run="r1"):
        return self.builds.start(build_id)

    def ended(self, build_id, code, log=""):
        if code == 0:
            return self.builds.succeed(build_id, log=log)
        return self.builds.break_down(build_id, exit_code=code, log=log)

    def sweep(self, build_id):
        self.builds.sweep(build_id, leaves_volume=True)

    def lose_log(self, build_id):
        self.builds.lose_log(build_id)


class OfProcesses:
    """Builds as processes: their workers wait for a file that says how to end."""

    WORKER = """
orders="$1/../../../$(basename "$1")"
until [ -e "$orders.code" ]; do sleep 0.02; done
cat "$orders.log"
exit "$(cat "$orders.code")"
"""

    def __init__(self, state):
        self.state = state
        self.builds = builds_in(state, worker=self.WORKER)

    def running(self, build_id, run="r1"):
        return until_phase(self.builds, BuildPhase.RUNNING, build_id=build_id, run=run)

    def ended(self, build_id, code, log=""):
        (self.state / f"{build_id}.log").write_text(log)
        (self.state / f"{build_id}.half").write_text(str(code))
        (self.state / f"{build_id}.half").rename(self.state / f"{build_id}.code")
        return until_phase(self.builds, BuildPhase.SUCCEEDED, BuildPhase.FAILED, build_id=build_id)

    def sweep(self, build_id):
        self.builds.give_up(seen(self.builds, build_id), reason="swept", ending=Ending.LOST)
        folder = self.state / "builds" / "r1" / build_id
        folder.rename(self.state / "swept")

    def lose_log(self, build_id):
        (self.state / "builds" / "r1" / build_id / "log").unlink()


class OfBrigade:
    """Builds in a cluster, Brigade and the kubelet played by hand."""

    def __init__(self, builds, brigade):
        self.builds = builds
        self.brigade = brigade

    def running(self, build_id, run="r1"):
        self.brigade.start(build_id)
        return seen(self.builds, build_id, run=run)

    def ended(self, build_id, code, log=""):
        self.brigade.end(build_id, code, *log.splitlines())
        return seen(self.builds, build_id)

    def sweep(self, build_id):
        self.brigade.make_volume(build_id)
        self.brigade.vacuum(build_id)

    def lose_log(self, build_id):
        self.brigade.collect(build_id)


@pytest.fixture(params=["processes", "fake", pytest.param("brigade", marks=pytest.mark.timeout(3600))])
def world(request, tmp_path):
    if request.param == "fake":
        yield OfTheFake()
        return
    if request.param == "brigade":
        yield OfBrigade(*request.getfixturevalue("brigade_builds"))
        return
    world = OfProcesses(tmp_path / "state")
    yield world
    for run in ("r1", "r2"):
        world.builds.forget(run)


@pytest.fixture
def builds(world):
    return world.builds


def test_a_build_is_found_as_it_was_asked_for(builds):
    builds.create(a_spec(event=some_event(type="pull_request:opened"), number=3, attempt=2, epoch=2))
    build = seen(builds)
    assert (build.id, build.run, build.epoch, build.step, build.number) == ("b1", "r1", 2, "test", 3)
    assert (build.attempt, build.event) == (2, "pull_request:opened")
    assert build.open
    assert build.phase in {BuildPhase.WAITING, BuildPhase.RUNNING}
    assert build.created > 0
    assert (build.ended, build.exit_code, build.given_up, build.given_up_as) == (None, None, "", None)


def test_nothing_is_found_of_a_run_without_builds(builds):
    assert builds.find("r1") == []
    assert builds.highest("r1", epoch=1, step="test") == 0


def test_an_id_is_created_once(builds):
    builds.create(a_spec())
    with pytest.raises(Conflict):
        builds.create(a_spec())
    assert len(builds.find("r1")) == 1


def test_of_many_creates_at_once_one_succeeds(builds):
    barrier = threading.Barrier(20)
    conflicts = []

    def create():
        barrier.wait()
        try:
            builds.create(a_spec())
        except Conflict:
            conflicts.append(1)

    threads = [threading.Thread(target=create) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conflicts) == 19
    assert len(builds.find("r1")) == 1


def test_builds_are_found_by_epoch_and_step_in_order(builds):
    builds.create(a_spec("b1", step="test", number=2))
    builds.create(a_spec("b2", step="build", number=1))
    builds.create(a_spec("b3", step="test", number=1))
    builds.create(a_spec("b4", step="test", number=1, epoch=2))
    builds.create(a_spec("b5", run="r2"))
    assert [build.id for build in builds.find("r1")] == ["b2", "b3", "b1", "b4"]
    assert [build.id for build in builds.find("r1", epoch=1)] == ["b2", "b3", "b1"]
    assert [build.id for build in builds.find("r1", step="test", epoch=2)] == ["b4"]
    assert [build.id for build in builds.find("r1", step="build")] == ["b2"]
    assert builds.find("r1", step="tes") == []


def test_the_highest_number_is_of_its_epoch_and_step(builds):
    builds.create(a_spec("b1", number=1))
    builds.create(a_spec("b2", number=4))
    builds.create(a_spec("b3", number=9, epoch=2))
    builds.create(a_spec("b4", number=8, step="build"))
    assert builds.highest("r1", epoch=1, step="test") == 4
    assert builds.highest("r2", epoch=1, step="test") == 0


def test_what_is_left_of_a_build_keeps_its_number_used(world, builds):
    second = build_id(run="r1", epoch=1, step="test", number=2)
    builds.create(a_spec(second, number=2))
    world.running(second)
    world.sweep(second)
    assert builds.find("r1") == []
    assert builds.highest("r1", epoch=1, step="test") == 2
    with pytest.raises(Conflict):
        builds.create(a_spec(second, number=2))


@pytest.mark.parametrize(("code", "phase"), [(0, BuildPhase.SUCCEEDED), (4, BuildPhase.FAILED)])
def test_a_worker_runs_and_ends(world, builds, code, phase):
    builds.create(a_spec())
    running = world.running("b1")
    assert running.phase is BuildPhase.RUNNING
    assert running.started is not None
    ended = world.ended("b1", code, "what it said\n")
    assert (ended.phase, ended.exit_code) == (phase, code)
    assert ended.ended >= ended.started >= ended.created
    assert builds.log(ended).endswith("what it said\n")
    assert judged(ended, log=builds.log(ended), at=1.0).tail.endswith("what it said\n")


def test_the_first_outcome_stands(builds):
    builds.create(a_spec())
    build = seen(builds)
    first = Outcome(Ending.FAILED, "exit code 1", 5.0, "the tail \ufffd")
    assert builds.record(build, first) == first
    assert builds.record(build, Outcome(Ending.SUCCEEDED)) == first
    assert seen(builds).outcome == first
    assert not seen(builds).open


def test_the_outcome_of_a_build_that_is_not_there_is_not_found(builds):
    builds.create(a_spec())
    build = seen(builds)
    builds.forget("r1")
    with pytest.raises(NotFound):
        builds.record(build, Outcome(Ending.LOST))


def test_the_first_reason_of_giving_up_stands(world, builds):
    builds.create(a_spec())
    build = world.running("b1")
    builds.give_up(build, reason="timed out after 5 s", ending=Ending.TIMED_OUT)
    builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    build = seen(builds)
    assert (build.given_up, build.given_up_as) == ("timed out after 5 s", Ending.TIMED_OUT)
    assert build.phase is BuildPhase.GONE
    assert judged(build, log=builds.log(build), at=1.0).ending is Ending.TIMED_OUT


def test_a_waiting_build_that_is_given_up_is_never_started(builds):
    builds.create(a_spec())
    builds.give_up(seen(builds), reason="cancelled", ending=Ending.CANCELLED)
    assert seen(builds).phase is BuildPhase.GONE
    assert seen(builds).given_up == "cancelled"


@pytest.mark.parametrize("code", [0, 1])
def test_a_build_that_ended_by_itself_keeps_its_end(world, builds, code):
    builds.create(a_spec())
    world.running("b1")
    ended = world.ended("b1", code)
    builds.give_up(ended, reason="too late", ending=Ending.CANCELLED)
    assert seen(builds) == ended


def test_giving_up_keeps_an_outcome_that_was_written(builds):
    builds.create(a_spec())
    build = seen(builds)
    builds.record(build, Outcome(Ending.LOST, "lost"))
    builds.give_up(build, reason="too late", ending=Ending.CANCELLED)
    assert seen(builds).given_up == ""
    assert seen(builds).outcome.reason == "lost"


def test_giving_up_what_is_not_there_is_fine(builds):
    builds.create(a_spec())
    build = seen(builds)
    builds.forget("r1")
    builds.give_up(build, reason="x", ending=Ending.CANCELLED)
    assert builds.find("r1") == []


def test_a_log_is_followed_from_where_one_was(world, builds):
    builds.create(a_spec())
    world.running("b1")
    ended = world.ended("b1", 0, "one\ntwo\n")
    whole, offset = until(lambda: builds.follow(ended, offset=0), what="the log")
    assert whole.endswith(b"one\ntwo\n")
    assert offset == len(whole)
    assert builds.follow(ended, offset=offset - 4) == (b"two\n", offset)
    assert builds.follow(ended, offset=offset) == (b"", offset)


def test_a_log_that_is_gone_is_none(world, builds):
    builds.create(a_spec())
    world.running("b1")
    world.ended("b1", 0, "one\n")
    world.lose_log("b1")
    assert builds.log(seen(builds)) is None
    assert builds.follow(seen(builds), offset=2) == (b"", 2)


def test_a_run_is_forgotten_with_all_of_its_builds_and_no_others(builds):
    builds.create(a_spec("b1"))
    builds.create(a_spec("b2", run="r2"))
    builds.forget("r1")
    builds.forget("r1")
    assert builds.find("r1") == []
    assert builds.highest("r1", epoch=1, step="test") == 0
    assert [build.id for build in builds.find("r2")] == ["b2"]
