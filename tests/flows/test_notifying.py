"""Endpoints are told of everything, in order and at least once, and nothing waits for them."""

from dataclasses import replace

import pytest

from bridge.core.executions import Node, NodePhase
from bridge.core.notifications import Lifecycle, Subscriber
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.runs import Kind, Phase, Told
from bridge.core.verdicts import Verdict
from bridge.errors import NotDelivered, Unavailable
from bridge.flows import notifying as flow
from bridge.flows.acting import act
from bridge.flows.notifying import Notifying
from bridge.flows.reconciling import Reconciling
from tests.fakes import (
    Fake,
    FakeBuilds,
    FakeClock,
    FakeEngine,
    FakePipelines,
    FakeReports,
    FakeRuns,
    some_run,
)

PIPELINE = Pipeline("push", ("acme/widgets",), (Trigger("push"),), (Step("test", ("test",)),), timeout_seconds=600)
RUN = "push-r1"
DAY = 86400.0


class FakeOutbound(Fake):
    """Endpoints in memory; `got` is what each took, in order, by what comes after the run's id."""

    def __init__(self, *subscribers):
        super().__init__()
        self.subscribers = subscribers
        self.got: dict[str, list[str]] = {one.name: [] for one in subscribers}
        self.tried: list[str] = []

    def send(self, endpoint, message):
        self.tried.append(endpoint)
        self._trouble("send", "before")
        self.got[endpoint].append(message.id.partition(":")[2])
        self._trouble("send", "after")


class Killed(BaseException):
    """The process died here."""


class World:
    def __init__(self, *subscribers, pipeline=PIPELINE):
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.pipelines = FakePipelines([pipeline])
        self.engine = FakeEngine()
        self.builds = FakeBuilds(self.clock)
        self.reports = FakeReports()
        self.outbound = FakeOutbound(*(subscribers or (Subscriber("ops"),)))
        self.leads = True
        self.start()
        self.runs.add(some_run(accepted=self.clock.now()))

    def start(self):
        """As a fresh process: nothing of what was in memory is left."""
        self.notifying = Notifying(
            self.runs,
            self.outbound,
            self.clock,
            owing=self.runs,
            source="/test",
            url_of=lambda run: f"http://x/{run}",
            give_up_seconds=3 * DAY,
            leads=lambda: self.leads,
        )
        self.controller = Reconciling(
            self.runs,
            self.pipelines,
            self.engine,
            self.builds,
            self.reports,
            self.clock,
            notices=self.notifying,
        )

    @property
    def run(self):
        return self.runs.read(RUN)

    @property
    def got(self):
        return self.outbound.got["ops"]

    def look(self):
        self.controller.reconcile(RUN)

    def tell(self, *names):
        for name in names or [one.name for one in self.outbound.subscribers]:
            while self.notifying.tell_due(name):
                pass

    def end(self, root=NodePhase.SUCCEEDED, code=0, n=1):
        self.engine.end(RUN, n, root=root, nodes=[Node("test", root, code, ended=self.clock.now())])

    def live(self):
        """A whole life."""
        self.look()
        self.end()
        self.look()

    def patiently(self, seconds, step=30.0):
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            self.tell()


def test_the_whole_life_of_a_run_is_told_in_its_order():
    world = World()
    world.look()
    world.tell()
    assert world.got == ["accepted", "1:started"]
    world.end()
    world.look()
    world.tell()
    assert world.got == ["accepted", "1:started", "1:test:finished", "1:closed"]
    assert world.run.state.notified["ops"] == Told(upto=4)
    assert not world.runs.owing()
    world.look()
    world.notifying.sweep()
    world.tell()
    assert len(world.got) == 4


def test_a_failure_and_its_retry():
    world = World()
    world.look()
    world.end(NodePhase.FAILED, 2)
    world.look()
    for build in world.builds.builds:
        world.builds.succeed(build.id)
    world.look()
    assert world.run.phase is Phase.CLOSED
    act(world.runs, RUN, Kind.RETRY, request="q", who="ann", source="test", now=world.clock.now())
    world.look()
    world.end(n=2)
    world.look()
    world.tell()
    first, second = ["accepted", "1:started", "1:test:finished", "1:closed"], ["2:started", "2:test:finished"]
    assert world.got == [*first, *second, "2:closed"]


def test_a_dead_endpoint_holds_up_neither_the_status_nor_the_closing():
    world = World()
    world.outbound.fail("send", "before", NotDelivered("it answered 500"), times=10**6)
    world.live()
    world.tell()
    assert world.run.phase is Phase.CLOSED
    assert world.reports.states(RUN) == ["pending", "success"]
    assert world.runs.owing() == [RUN]


def test_an_endpoint_that_comes_back_gets_everything_once():
    world = World()
    world.outbound.fail("send", "before", NotDelivered("it answered 500"), times=5)
    world.live()
    world.tell()
    world.patiently(3600)
    assert world.got == ["accepted", "1:started", "1:test:finished", "1:closed"]
    assert len(world.outbound.tried) == 9


def test_what_was_taken_without_an_answer_is_sent_again_with_the_same_id():
    world = World()
    world.outbound.fail("send", "after", NotDelivered("no answer"))
    world.look()
    world.tell()
    world.patiently(60)
    assert world.got == ["accepted", "accepted", "1:started"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("port", ["outbound", "runs"])
def test_whoever_comes_after_a_death_tells_the_rest_and_perhaps_something_twice(port, when):
    world = World()
    world.live()
    method = "send" if port == "outbound" else "change"
    getattr(world, port).fail(method, when, Killed())
    with pytest.raises(Killed):
        world.tell()
    world.start()
    assert world.runs.owing() == ([] if (port, when) == ("runs", "after") else [RUN])
    world.notifying.sweep()
    world.tell()
    assert list(dict.fromkeys(world.got)) == ["accepted", "1:started", "1:test:finished", "1:closed"]
    assert world.runs.owing() == []


def test_an_endpoint_that_is_not_there_is_asked_less_and_less_and_others_are_not_held_up():
    world = World(Subscriber("ops"), Subscriber("dead"))

    def refuse():
        if world.outbound.tried[-1] == "dead":
            raise NotDelivered("it cannot be reached")

    world.outbound.meanwhile("send", "before", refuse, times=10**6)
    for number in range(20):
        world.runs.add(some_run(f"push-{number}", accepted=world.clock.now()))
        world.controller.reconcile(f"push-{number}")
    world.tell()
    assert world.outbound.tried.count("dead") == 1
    assert world.got.count("accepted") == 20
    world.patiently(3600, step=1.0)
    assert 10 < world.outbound.tried.count("dead") < 30


def test_an_endpoint_may_say_how_long_it_wants_to_be_left_alone():
    world = World()
    world.outbound.fail("send", "before", NotDelivered("it answered 429", retry_after_seconds=900.0))
    world.look()
    world.tell()
    world.patiently(870)
    assert world.got == []
    world.patiently(60)
    assert world.got == ["accepted", "1:started"]


def test_what_is_not_taken_for_days_is_given_up_with_the_reason():
    world = World()
    world.live()
    world.outbound.fail("send", "before", NotDelivered("it answered 500"), times=10**6)
    world.tell()
    world.patiently(3 * DAY + 3600, step=60.0)
    assert world.run.state.notified["ops"] == Told(upto=4, given_up=4, error="it answered 500")
    assert world.runs.owing() == []
    assert world.notifying.values()["bridge_notifications_given_up_total"] == 4
    assert world.notifying.values()["bridge_notifications_waiting"] == 0
    assert len(world.outbound.tried) < 1100


def test_what_an_endpoint_refuses_is_given_up_at_once_and_the_rest_goes_on():
    world = World()
    world.outbound.fail("send", "before", NotDelivered("it answered 400", permanent=True))
    world.live()
    world.tell()
    assert world.got == ["1:started", "1:test:finished", "1:closed"]
    assert world.run.state.notified["ops"] == Told(upto=4, given_up=1, error="it answered 400")


def test_a_run_that_one_endpoint_does_not_take_holds_up_no_other_run():
    world = World()
    world.look()
    world.outbound.fail("send", "before", NotDelivered("it answered 500"))
    world.tell()
    world.runs.add(some_run("push-r2", accepted=world.clock.now()))
    world.controller.reconcile("push-r2")
    world.patiently(60)
    assert world.got.count("accepted") == 2


def test_an_endpoint_gets_what_it_wants_and_nothing_is_left_owing():
    world = World(Subscriber("ops", wants=frozenset({Lifecycle.RUN_CLOSED})))
    world.live()
    world.tell()
    assert world.got == ["1:closed"]
    assert world.runs.owing() == []


def test_one_that_only_wants_the_beginning_leaves_nothing_owing_at_the_end():
    world = World(Subscriber("ops", wants=frozenset({Lifecycle.RUN_ACCEPTED})))
    world.look()
    world.tell()
    world.end()
    world.look()
    assert world.run.phase is Phase.CLOSED
    world.notifying.sweep()
    world.tell()
    assert world.got == ["accepted"]
    assert world.runs.owing() == []


def test_pipelines_name_endpoints_that_are_told_of_no_other_runs():
    named = Subscriber("ops", of_all=False)
    world = World(named)
    world.live()
    world.tell()
    assert world.got == []
    world = World(named, pipeline=replace(PIPELINE, notify=("ops", "unknown")))
    world.live()
    world.tell()
    assert len(world.got) == 4


def test_an_endpoint_that_is_configured_later_is_told_of_open_runs_and_of_no_closed_ones():
    world = World()
    world.controller = replace(world.controller, notices=flow.NoNotices())
    world.live()
    world.runs.add(some_run("push-r2", accepted=world.clock.now()))
    world.controller.reconcile("push-r2")
    world.start()
    world.look()
    world.controller.reconcile("push-r2")
    world.notifying.sweep()
    world.tell()
    assert world.got == ["accepted", "1:started"]


def test_what_is_owed_to_an_endpoint_that_was_removed_is_given_up():
    world = World()
    world.live()
    world.outbound = FakeOutbound()
    world.start()
    world.notifying.sweep()
    world.tell("")
    assert world.run.state.notified["ops"] == Told(
        upto=4, given_up=4, error="no endpoint ops is configured any more"
    )
    assert world.runs.owing() == []


def test_who_does_not_lead_sends_nothing():
    world = World()
    world.live()
    world.leads = False
    world.tell()
    assert world.got == []


def test_who_stops_leading_in_between_sends_no_more():
    world = World()
    world.live()

    def lose():
        world.leads = False

    world.outbound.meanwhile("send", "after", lose)
    world.tell()
    assert world.got == ["accepted"]


def test_a_store_that_does_not_answer_costs_a_pause_and_perhaps_a_repeat():
    world = World()
    world.live()
    world.runs.fail("change", "before", Unavailable("away"))
    world.tell()
    world.patiently(60)
    assert list(dict.fromkeys(world.got)) == ["accepted", "1:started", "1:test:finished", "1:closed"]
    assert world.runs.owing() == []


def test_a_run_that_was_forgotten_is_no_trouble():
    world = World()
    world.live()
    world.runs.forget(RUN)
    world.tell()
    assert world.got == []


def test_what_happens_while_something_is_sent_is_told_next():
    world = World()
    world.look()

    def go_on():
        world.end()
        world.look()

    world.outbound.meanwhile("send", "before", go_on)
    world.tell()
    assert world.got == ["accepted", "1:started", "1:test:finished", "1:closed"]
    assert world.run.verdict is Verdict.SUCCEEDED
    assert world.runs.owing() == []
