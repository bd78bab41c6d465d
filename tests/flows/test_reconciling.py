"""The controller over fakes: stories that end, whatever fails on the way and however often it is asked."""

from dataclasses import replace

import pytest

from bridge import ports
from bridge.core import names
from bridge.core.builds import BuildPhase, Ending
from bridge.core.executions import Node, NodePhase
from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.runs import Kind, Phase
from bridge.core.strays import Stray
from bridge.core.verdicts import Verdict
from bridge.errors import Forbidden, StatusNotPosted, Unavailable, UnknownProject
from bridge.flows.acting import act
from bridge.flows.reconciling import Reconciling
from tests.fakes import (
    FakeBuilds,
    FakeClock,
    FakeEngine,
    FakePipelines,
    FakeReports,
    FakeRuns,
    some_event,
    some_run,
)

PIPELINE = Pipeline("push", ("acme/widgets",), (Trigger("push"),), (Step("test", ("test",)),), timeout_seconds=600)
RUN = "push-r1"


class World:
    """The controller, its ports, and a hand that moves the Workflow and the builds."""

    def __init__(self, pipeline: Pipeline = PIPELINE):
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.pipelines = FakePipelines([pipeline])
        self.engine = FakeEngine()
        self.builds = FakeBuilds(self.clock)
        self.reports = FakeReports()
        self.controller = Reconciling(
            self.runs,
            self.pipelines,
            self.engine,
            self.builds,
            self.reports,
            self.clock,
            lambda run: f"http://x/{run}",
        )
        self.runs.add(some_run(accepted=self.clock.now()), b'{"a": 1}')

    @property
    def run(self):
        return self.runs.read(RUN)

    def pay(self):
        """As the loop does: again after trouble."""
        for _ in range(200):
            try:
                return self.controller.reconcile(RUN)
            except Unavailable:
                continue
        raise AssertionError("trouble never ends")

    def end(self, root: NodePhase, code: int, n: int = 1):
        phase = NodePhase.SUCCEEDED if code == 0 else NodePhase.FAILED
        self.engine.end(RUN, n, root=root, nodes=[Node("test", phase, code)])

    def exit_builds(self, n: int = 1):
        return [build for build in self.builds.builds if build.step == names.exit_step(n)]

    def states(self):
        return self.reports.states(RUN)

    def act(self, kind: Kind, request: str = "q", **more):
        return act(self.runs, RUN, kind, request=request, who="ann", source="test", now=self.clock.now(), **more)


def success(world: World):
    world.pay()
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay()


def failure(world: World):
    world.pay()
    world.end(NodePhase.FAILED, 2)
    world.pay()
    for build in world.exit_builds():
        if build.open:
            world.builds.succeed(build.id)
    world.pay()


def test_a_success_from_acceptance_to_its_end():
    world = World()
    success(world)
    assert world.states() == ["pending", "success"]
    assert (world.run.phase, world.run.verdict) == (Phase.CLOSED, Verdict.SUCCEEDED)
    assert world.engine.submitted == [RUN]
    assert world.reports.posts[-1].url == f"http://x/{RUN}"


def test_a_failure_fires_its_event_with_what_failed():
    world = World()
    failure(world)
    (fired,) = world.exit_builds()
    assert fired.event == "build_failed"
    (spec,) = [one for one in world.builds.specs if one.id == fired.id]
    assert b'"bridge": {"run": "push-r1", "attempt": 1, "verdict": "failed"' in spec.event.payload
    assert spec.event.payload.startswith(b'{"a": 1')
    assert world.states() == ["pending", "failure"]
    assert world.run.verdict is Verdict.FAILED


def _with_token(world: World, *, fails: int = 0):
    """Let exit events of `world` need a token, which there is after it was asked for in vain `fails` times."""
    asked = []

    def freshened(run, payload):
        asked.append(run.id)
        if len(asked) <= fails:
            raise Unavailable("GitHub is away")
        return payload.replace(b"1", b"2")

    world.controller = replace(world.controller, freshened=freshened)
    return asked


def test_an_exit_event_gets_the_payload_as_a_build_gets_it():
    world = World()
    _with_token(world)
    failure(world)
    assert world.builds.specs[-1].event.payload.startswith(b'{"a": 2, "bridge"')
    assert world.runs.payload(RUN) == b'{"a": 1}'


def test_a_token_that_is_not_to_be_had_holds_up_the_exit_event_for_a_while_and_nothing_else():
    world = World()
    asked = _with_token(world, fails=1000)
    failure(world)
    assert world.states() == ["pending", "failure"]
    assert (world.exit_builds(), world.run.phase) == ([], Phase.RUNNING)
    assert len(asked) < 10
    world.clock.advance(301)
    failure(world)
    assert world.builds.specs[-1].event.payload.startswith(b'{"a": 1, "bridge"')
    assert world.run.phase is Phase.CLOSED


def test_the_status_does_not_wait_for_the_exit_event_but_closing_does():
    world = World()
    world.pay()
    world.end(NodePhase.FAILED, 2)
    world.pay()
    assert world.states() == ["pending", "failure"]
    assert world.run.phase is Phase.RUNNING


def test_asking_again_changes_nothing():
    world = World()
    failure(world)
    before = (world.run, len(world.reports.posts), len(world.builds.specs))
    for _ in range(3):
        world.pay()
    assert (world.run, len(world.reports.posts), len(world.builds.specs)) == before


def test_a_retry_starts_the_same_steps_again_and_may_succeed():
    world = World()
    failure(world)
    assert world.act(Kind.RETRY).accepted
    world.pay()
    assert world.states() == ["pending", "failure", "pending"]
    assert world.engine.submitted == [RUN, f"{RUN}-2"]
    world.end(NodePhase.SUCCEEDED, 0, n=2)
    world.pay()
    assert world.states()[-1] == "success"
    assert world.run.phase is Phase.CLOSED
    assert world.run.attempt.epoch == 1


def test_a_rerun_begins_an_epoch():
    world = World()
    success(world)
    assert world.act(Kind.RERUN).accepted
    world.pay()
    assert world.run.attempt.epoch == 2


def test_a_retry_asked_for_twice_is_one_attempt():
    world = World()
    failure(world)
    world.act(Kind.RETRY, "a")
    assert not world.act(Kind.RETRY, "b").accepted
    world.act(Kind.RETRY, "a")
    world.pay()
    late = world.act(Kind.RETRY, "c", follows=1)
    assert not late.accepted
    assert "attempt 2" in late.message
    world.pay()
    assert world.run.attempt.n == 2


def test_a_retry_of_a_running_run_waits_for_its_end():
    world = World()
    world.pay()
    assert world.act(Kind.RETRY).accepted
    world.pay()
    assert world.run.attempt.n == 1
    world.end(NodePhase.FAILED, 2)
    world.pay()
    assert world.run.attempt.n == 2
    assert world.states() == ["pending", "pending"]
    assert world.exit_builds() == []


def test_a_retry_of_a_success_is_refused():
    world = World()
    success(world)
    assert not world.act(Kind.RETRY).accepted


def test_a_cancel_ends_everything():
    world = World()
    world.pay()
    spec = make_build(world)
    world.act(Kind.CANCEL)
    world.pay()
    assert world.engine.terminated == [RUN]
    assert world.builds.builds[0].outcome.ending is Ending.CANCELLED
    assert world.states() == ["pending", "error"]
    for build in world.exit_builds():
        world.builds.succeed(build.id)
    world.pay()
    assert (world.run.phase, world.run.verdict) == (Phase.CLOSED, Verdict.CANCELLED)
    assert spec.id not in world.builds.used_twice


def make_build(world: World, number: int = 1):
    from bridge.core.builds import BuildSpec

    spec = BuildSpec(
        names.build_id(run=RUN, epoch=1, step="test", number=number),
        RUN,
        "push",
        1,
        "test",
        number,
        1,
        some_event(),
    )
    world.builds.create(spec)
    world.builds.start(spec.id)
    return spec


def test_a_workflow_that_never_ends_is_ended_and_the_run_closes():
    world = World()
    world.engine.obeys = False
    world.pay()
    started = world.clock.now()
    while world.run.attempt.verdict is None and world.clock.now() < started + 2000:
        world.clock.advance(10)
        if world.engine.deleted:
            world.engine.vanish(RUN)
        world.pay()
    assert world.run.attempt.verdict is Verdict.TIMED_OUT
    assert world.run.attempt.ended - started <= 600 + 3 * 60 + 20
    assert [world.engine.touched[:1], world.engine.stopped[:1], world.engine.terminated[:1]] == [[RUN]] * 3


def test_a_deleted_workflow_closes_the_run():
    world = World()
    world.pay()
    world.engine.vanish(RUN)
    world.pay()
    assert world.states() == ["pending", "error"]


def test_a_template_that_cannot_be_run_closes_the_run_with_the_reason():
    world = World()
    world.engine.refused["push"] = "template push uses suspend, which one machine cannot run"
    world.pay()
    assert world.states()[-1] == "error"
    assert "suspend" in world.reports.posts[-1].report.description


def test_a_status_that_is_not_taken_is_tried_until_it_is():
    world = World()
    success_without_status(world)
    for _ in range(10):
        world.clock.advance(400)
        world.pay()
    assert world.states()[-1] == "success"
    assert world.run.phase is Phase.CLOSED


def success_without_status(world: World):
    world.reports.fail("post", "before", StatusNotPosted("GitHub said 502"), times=5)
    world.pay()
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay()
    assert world.run.phase is Phase.RUNNING
    assert "502" in world.run.state.report_error


def test_what_the_host_asks_for_is_respected():
    world = World(replace(PIPELINE, timeout_seconds=7200))
    world.reports.fail("post", "before", StatusNotPosted("limit", retry_after_seconds=900))
    world.pay()
    world.clock.advance(899)
    world.pay()
    assert world.states() == []
    world.clock.advance(2)
    world.pay()
    assert world.states() == ["pending"]


def test_a_status_that_can_never_be_taken_is_given_up_with_the_reason():
    world = World()
    world.reports.fail("post", "before", StatusNotPosted("no such commit", permanent=True), times=99)
    success(world)
    assert world.run.phase is Phase.CLOSED
    assert "no such commit" in world.run.state.report_error


def test_of_two_runs_with_one_commit_and_context_only_the_newest_speaks():
    world = World()
    world.pay()
    world.runs.add(some_run("push-r2", accepted=world.clock.now() + 1))
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay()
    assert world.states() == ["pending"]
    assert world.run.phase is Phase.CLOSED
    world.controller.reconcile("push-r2")
    assert world.reports.states("push-r2") == ["pending"]


def test_the_exit_handler_ends_and_fires_but_leaves_the_status_alone():
    world = World()
    world.pay()
    world.end(NodePhase.FAILED, 2)
    world.controller.exit(RUN)
    world.controller.exit(RUN)
    assert len(world.exit_builds()) == 1
    assert world.run.attempt.verdict is Verdict.FAILED
    assert world.states() == ["pending"]
    world.pay()
    assert len(world.exit_builds()) == 1
    assert world.states() == ["pending", "failure"]


def test_a_forgotten_run_takes_its_builds_along():
    world = World()
    failure(world)
    controller = replace(world.controller, retention_seconds=604800.0)
    assert controller.reconcile(RUN) is not None
    world.clock.advance(604801)
    assert controller.reconcile(RUN) is None
    assert world.runs.records == {}
    assert world.builds.builds == []


def test_a_build_whose_step_died_is_settled_by_the_controller():
    world = World()
    world.pay()
    spec = make_build(world)
    world.builds.succeed(spec.id, log="ok\n")
    world.pay()
    assert world.builds.builds[0].outcome.ending is Ending.SUCCEEDED
    assert world.run.step(1, "test").succeeded == 1
    world.engine.vanish(RUN)
    world.pay()
    assert world.run.verdict is Verdict.SUCCEEDED


WRITES = [
    (port, method)
    for port in (ports.Runs, ports.Engine, ports.Builds, ports.Reports)
    for method in ports.writing_methods(port)
    if (port, method) != (ports.Runs, "create")
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("port", "method"), WRITES, ids=[f"{port.__name__}.{method}" for port, method in WRITES])
@pytest.mark.parametrize("story", [success, failure], ids=["success", "failure"])
def test_a_lost_answer_at_any_effect_leaves_the_same_end(story, port, method, when):
    world = World()
    fake = {"Runs": world.runs, "Engine": world.engine, "Builds": world.builds, "Reports": world.reports}
    error = StatusNotPosted("lost") if port is ports.Reports else Unavailable("lost")
    fake[port.__name__].fail(method, when, error, times=2)
    story(world)
    for _ in range(5):
        world.clock.advance(300)
        world.pay()
    assert world.run.phase is Phase.CLOSED
    assert world.states() == (["pending", "success"] if story is success else ["pending", "failure"]) or (
        port is ports.Reports and world.states()[-1] in {"success", "failure"}
    )
    assert world.engine.submitted == [RUN]
    assert len(world.exit_builds()) == (0 if story is success else 1)
    assert world.builds.used_twice == []


@pytest.mark.parametrize(("port", "method"), WRITES, ids=[f"{port.__name__}.{method}" for port, method in WRITES])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_second_controller_in_the_middle_of_any_effect_changes_nothing(port, method, when):
    world = World()
    other = replace(world.controller)
    fake = {"Runs": world.runs, "Engine": world.engine, "Builds": world.builds, "Reports": world.reports}
    fake[port.__name__].meanwhile(method, when, lambda: other.reconcile(RUN), times=3)
    failure(world)
    world.pay()
    assert world.run.phase is Phase.CLOSED
    assert world.states() == ["pending", "failure"]
    assert world.engine.submitted == [RUN]
    assert len(world.exit_builds()) == 1


def test_an_exit_event_that_may_not_run_for_ever():
    world = World(replace(PIPELINE, exit=Exit(timeout_seconds=30)))
    world.pay()
    world.end(NodePhase.FAILED, 2)
    world.pay()
    world.builds.set(world.exit_builds()[0].id, BuildPhase.RUNNING)
    world.clock.advance(31)
    world.pay()
    assert world.run.phase is Phase.CLOSED
    assert world.exit_builds()[0].outcome.ending is Ending.TIMED_OUT


class Strays:
    """Workflows that people made by Argo's own commands."""

    def __init__(self):
        self.found = []
        self.ended = []

    def of(self, _run):
        return list(self.found)

    def end(self, stray):
        self.ended.append(stray)
        self.found.remove(stray)


def world_with_strays():
    world, strays = World(), Strays()
    world.controller = replace(world.controller, strays=strays)
    failure(world)
    return world, strays


def test_argo_retry_of_an_ended_attempt_is_the_next_attempt_and_the_old_one_keeps_its_verdict():
    world, strays = world_with_strays()
    assert world.run.phase is Phase.CLOSED
    stray = Stray(RUN, f"uid-{RUN}", 1, "ada")
    strays.found = [stray]
    world.pay()
    assert strays.ended == [stray]
    assert [act.who for act in world.run.acts] == ["ada"]
    assert world.engine.submitted == [RUN, f"{RUN}-2"]
    world.end(NodePhase.SUCCEEDED, 0, n=2)
    world.pay()
    assert (world.run.phase, world.run.verdict) == (Phase.CLOSED, Verdict.SUCCEEDED)
    assert world.run.attempt_numbered(1).verdict is Verdict.FAILED


def test_argo_retry_again_of_an_attempt_that_has_a_successor_is_only_ended():
    world, strays = world_with_strays()
    for _ in range(2):
        strays.found = [Stray(RUN, f"uid-{RUN}", 1, "ada")]
        world.pay()
    assert len(strays.ended) == 2
    assert world.engine.submitted == [RUN, f"{RUN}-2"]


def test_a_copy_is_ended_and_moves_nothing():
    world, strays = world_with_strays()
    before = (world.run, world.states())
    strays.found = [Stray(f"{RUN}-x", "u7")]
    world.pay()
    assert len(strays.ended) == 1
    assert (world.run, world.states()) == before


def test_an_exit_event_that_cannot_be_fired_holds_up_no_status_and_closes_the_run_once_its_time_is_over():
    world = World()
    world.pay()
    world.builds.fail("create", "before", UnknownProject("there is no project acme/widgets"), times=1000)
    world.end(NodePhase.FAILED, 2)
    with pytest.raises(UnknownProject):
        world.controller.reconcile(RUN)
    assert world.states() == ["pending", "failure"]
    world.clock.advance(world.run.attempt.exit_timeout_seconds)
    world.pay()
    assert (world.run.phase, world.run.verdict) == (Phase.CLOSED, Verdict.FAILED)
    assert world.run.attempt.exit_error == "there is no project acme/widgets"


def test_an_exit_event_is_fired_when_what_was_wrong_is_mended_in_time():
    world = World()
    world.pay()
    world.builds.fail("create", "before", UnknownProject("there is no project acme/widgets"))
    world.end(NodePhase.FAILED, 2)
    with pytest.raises(UnknownProject):
        world.controller.reconcile(RUN)
    world.pay()
    assert len(world.exit_builds()) == 1


def test_a_submission_that_is_forbidden_is_tried_as_long_as_the_run_has_time():
    world = World()
    world.engine.fail("submit", "before", Forbidden("create on workflows is forbidden"), times=1000)
    with pytest.raises(Forbidden):
        world.controller.reconcile(RUN)
    world.clock.advance(601)
    world.pay()
    assert world.run.attempt.verdict is Verdict.ERROR
    assert "forbidden" in world.run.attempt.reason
    assert world.states() == ["pending", "error"]


def test_statuses_go_where_the_record_was_read_to_belong_whatever_a_change_answers():
    """In a cluster a change answers by the record's metadata alone, which a step's account may patch."""
    world = World()
    change = world.runs.change
    stolen = some_event(project="evil/widgets", payload=b"")
    world.runs.change = lambda run, what: replace(change(run, what), event=stolen)
    projects = []
    post = world.reports.post
    world.reports.post = lambda run, report, *, url: (
        projects.append(run.event.project) or post(run, report, url=url)
    )
    success(world)
    assert projects == ["acme/widgets"] * 2
