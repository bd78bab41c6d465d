"""A newer commit of the same pull request cancels the older run, where the pipeline says so, and nothing else does."""

from dataclasses import replace

from bridge.core.builds import Ending
from bridge.core.concurrency import Concurrency
from bridge.core.events import Revision
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict
from bridge.flows.acting import act
from bridge.flows.reconciling import Reconciling
from bridge.flows.superseding import ListedGroups
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
from tests.local.building import a_spec

PIPELINE = Pipeline("push", ("acme/widgets",), (Trigger("pull_request"),), (Step("test", ("test",)),))
ASKING = replace(PIPELINE, concurrency=Concurrency.PULL_REQUEST)
A, B, C = "a" * 40, "b" * 40, "c" * 40


class World:
    def __init__(self, pipeline=ASKING):
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.engine = FakeEngine()
        self.builds = FakeBuilds(self.clock)
        self.reports = FakeReports()
        self.controller = Reconciling(
            self.runs,
            FakePipelines([pipeline]),
            self.engine,
            self.builds,
            self.reports,
            self.clock,
            groups=ListedGroups(self.runs),
        )

    def accept(self, run_id, commit, *, number=7, project="acme/widgets", pipeline="push", happened=0.0):
        event = some_event(
            type="pull_request:synchronize",
            project=project,
            delivery=run_id,
            pull_request=number,
            revision=Revision(commit, f"refs/pull/{number}/head"),
            payload=b"",
            happened=happened,
        )
        self.clock.advance(10)
        return self.runs.add(some_run(run_id, event=event, accepted=self.clock.now(), pipeline=pipeline))

    def pay(self, *run_ids):
        for run_id in run_ids:
            self.controller.reconcile(run_id)

    def rest(self, run_id):
        """As the loop does, until the exit event's build has ended and the run is closed."""
        for _ in range(5):
            self.pay(run_id)
            for build in self.builds.find(run_id):
                if build.open:
                    self.builds.succeed(build.id)

    def verdict(self, run_id):
        attempt = self.runs.read(run_id).attempt
        return (attempt.verdict, attempt.reason)

    def retry(self, run_id):
        self.clock.advance(10)
        return act(
            self.runs, run_id, Kind.RETRY, request="q", who="ann", source="test", now=self.clock.now()
        ).accepted


def test_a_newer_commit_ends_the_older_run_with_all_that_it_runs_and_says_so():
    world = World()
    world.accept("r1", A)
    world.pay("r1")
    world.builds.create(a_spec("b1", run="r1"))
    world.builds.start("b1")
    world.accept("r2", B)
    world.pay("r2", "r1")
    assert world.verdict("r1") == (Verdict.CANCELLED, "superseded by bbbbbbb")
    assert world.engine.terminated == ["r1"]
    assert [b.outcome.ending for b in world.builds.find("r1", step="test")] == [Ending.CANCELLED]
    world.rest("r1")
    last = world.reports.posts[-1].report
    assert (last.state, last.description) == ("error", "superseded by bbbbbbb; bridgectl retry r1")
    assert world.runs.read("r1").phase is Phase.CLOSED
    assert world.runs.read("r2").attempt.verdict is None


def test_one_that_was_not_submitted_yet_never_is():
    world = World()
    world.accept("r1", A)
    world.accept("r2", B)
    world.pay("r1", "r2")
    assert world.engine.submitted == ["r2"]
    assert world.verdict("r1") == (Verdict.CANCELLED, "superseded by bbbbbbb")


def test_by_default_nothing_is_superseded_and_nobody_lists_records_for_it():
    world = World(PIPELINE)
    world.accept("r1", A)
    world.accept("r2", B)
    lists = []
    world.runs.meanwhile("list", "before", lambda: lists.append(1), times=1000)
    world.controller = replace(world.controller, url_of=lambda run: run)
    world.pay("r1", "r2")
    assert world.verdict("r1") == (None, "")
    assert len(lists) == 2  # before each posts its status


def test_other_pull_requests_projects_and_pipelines_are_let_alone():
    world = World()
    world.accept("r1", A)
    world.accept("r2", B, number=8)
    world.accept("r3", B, project="acme/gadgets")
    world.accept("r4", B, pipeline="other")
    world.pay("r1")
    assert world.verdict("r1") == (None, "")


def test_a_run_that_has_its_end_keeps_it():
    world = World()
    world.accept("r1", A)
    world.pay("r1")
    world.engine.end("r1", root=world.engine.executions["r1"].root.SUCCEEDED)
    world.accept("r2", B)
    world.pay("r1")
    assert world.verdict("r1") == (Verdict.SUCCEEDED, "")


def test_an_old_delivery_that_is_sent_again_late_cancels_no_newer_commit_but_itself():
    world = World()
    world.accept("r2", B, happened=2000.0)
    world.pay("r2")
    world.accept("r1", A, happened=1000.0)
    world.pay("r1", "r2")
    assert world.verdict("r2") == (None, "")
    assert world.verdict("r1") == (Verdict.CANCELLED, "superseded by bbbbbbb")


def test_a_retry_of_a_superseded_run_goes_on_until_another_commit_comes():
    world = World()
    world.accept("r1", A)
    world.accept("r2", B)
    world.rest("r1")
    assert world.retry("r1")
    world.pay("r1")
    assert world.engine.submitted == ["r1-2"]
    assert world.verdict("r1") == (None, "")
    world.accept("r3", C)
    world.pay("r1")
    assert world.verdict("r1") == (Verdict.CANCELLED, "superseded by ccccccc")


def test_looking_twice_or_after_a_crash_changes_nothing_more():
    world = World()
    world.accept("r1", A)
    world.accept("r2", B)
    world.rest("r1")
    before = world.runs.read("r1")
    world.rest("r1")
    assert world.runs.read("r1") == before


def test_the_exit_handler_supersedes_nothing():
    world = World()
    world.accept("r1", A)
    world.pay("r1")
    world.controller = replace(world.controller, groups=None)
    world.accept("r2", B)
    world.controller.exit("r1")
    assert world.verdict("r1") == (None, "")


def test_of_a_branch_with_many_pull_requests_the_pushes_are_found():
    world = World(replace(ASKING, on=(Trigger("push"),), concurrency=Concurrency.BRANCH))

    def push(run_id, commit):
        world.clock.advance(1)
        event = some_event(revision=Revision(commit, "refs/heads/main"), delivery=run_id, payload=b"")
        world.runs.add(some_run(run_id, event=event, accepted=world.clock.now()))

    push("r1", A)
    push("r2", B)
    for number in range(120):
        world.accept(f"p{number}", C, number=number + 1)
    world.pay("r1", "r2")
    assert world.verdict("r1") == (Verdict.CANCELLED, "superseded by bbbbbbb")
    assert world.verdict("r2") == (None, "")
