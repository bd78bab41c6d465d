"""Runs and their statuses, from the controller's loop to a GitHub over real HTTP that fails in every way."""

from dataclasses import replace

import pytest

from bridge.core.executions import NodePhase
from bridge.core.obligations import report_due
from bridge.core.runs import Kind, Phase
from bridge.core.timelines import timeline
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.github.limits import Limits
from bridge.github.statuses import GitHubStatuses
from tests.fakes import some_run
from tests.flows.test_reconciling import RUN, World

TOKEN = "ghs_secret_of_the_project"
CONTEXT = "bridge/push/push"


class Delivered(World):
    """A run whose statuses go to a GitHub; time passes when the test says so."""

    def __init__(self, github, **more):
        super().__init__()
        github.now = self.clock.now
        self.github = github
        known = {
            "base_url": github.url,
            "now": self.clock.now,
            "monotonic": self.clock.monotonic,
            "limits": Limits(monotonic=self.clock.monotonic, now=self.clock.now),
        }
        self.statuses = GitHubStatuses(lambda _: TOKEN, **{**known, **more})
        self.controller = replace(self.controller, reports=self.statuses)

    def shown(self):
        """The states of the run's context, oldest first."""
        return [status.state for status in self.github.history if status.context.lower() == CONTEXT]

    def success(self):
        self.pay()
        self.end(NodePhase.SUCCEEDED, 0)
        self.pay()

    def pay_until_closed(self, *, within):
        """As the loop does: again whenever the status may be posted. Answers how long it took."""
        began = self.clock.now()
        for _ in range(1000):
            run = self.pay()
            if run is None or run.phase is Phase.CLOSED:
                return self.clock.now() - began
            due = report_due(run)
            self.clock.advance(max((due or 0.0) - self.clock.now(), 0.5))
            assert self.clock.now() - began <= within, run.state
        raise AssertionError("looked a thousand times")

    def explained(self):
        return "\n".join(moment.what for moment in timeline(self.run, ()))

    def counted(self):
        return self.controller.counting.values()


@pytest.fixture
def github():
    with FakeGitHub(tokens=[TOKEN]) as fake:
        yield fake


@pytest.fixture
def world(github):
    return Delivered(github)


def test_a_run_is_pending_and_then_done_and_nothing_is_asked_twice(world):
    world.success()
    assert world.shown() == ["pending", "success"]
    assert world.run.phase is Phase.CLOSED
    asked = world.github.posts
    world.pay()
    assert world.github.posts == asked
    counted = world.counted()
    assert counted["bridge_statuses_total"]["taken"] == 2
    assert counted["bridge_actions_total"]["post"] == 2
    assert sum(counted["bridge_owed_actions"].values()) == 0


def test_a_run_that_ends_before_its_pending_could_be_posted_shows_its_end_alone(world):
    world.github.fail_next(1, 502)
    world.success()
    assert world.shown() == ["success"]
    assert world.run.phase is Phase.CLOSED


def test_what_a_pending_one_met_holds_up_no_final_one_but_what_github_asked_for_does(world):
    world.github.fail_next(1, 403, {"Retry-After": "50"})
    world.success()
    assert world.shown() == []
    assert world.counted()["bridge_owed_actions"]["post"] == 1
    assert world.pay_until_closed(within=52) >= 49
    assert world.shown() == ["success"]


def test_github_away_for_ten_minutes_delays_a_final_status_by_half_a_minute_after(world):
    world.pay()
    world.github.fail_next(100_000, 500)
    world.end(NodePhase.FAILED, 2)
    began = world.clock.now()
    world.clock.on_sleep.clear()
    while world.clock.now() < began + 600:
        run = world.pay()
        world.clock.advance(max(report_due(run) - world.clock.now(), 0.5))
    asked = world.github.posts
    world.github.heal()
    for build in world.exit_builds():
        world.builds.succeed(build.id)
    world.pay_until_closed(within=60)
    assert world.shown() == ["pending", "failure"]
    assert world.github.history[-1].received <= began + 600 + 90
    assert asked < 40


def test_a_post_that_lands_late_on_top_of_the_end_is_covered_again(github):
    """The pending one gets no answer in time and is stored after the final one was."""
    world = Delivered(github, timeout_seconds=0.3)
    github.hang_next(1, 600)
    world.pay()
    assert world.run.state.report_unsure_until > world.clock.now()
    world.end(NodePhase.SUCCEEDED, 0)
    world.clock.advance(5)
    world.pay()
    assert world.shown() == ["success"]
    assert world.run.phase is Phase.RUNNING
    github.release()
    assert [one.state for one in github.wait_until(lambda history: len(history) == 2)] == ["success", "pending"]
    assert world.pay_until_closed(within=70) <= 60
    assert world.shown() == ["success", "pending", "success"]


@pytest.mark.parametrize("lost", ["lose_answers", "reset_after_write"])
def test_an_end_whose_answer_is_lost_is_there_once(world, lost):
    world.pay()
    getattr(world.github, lost)(1)
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay_until_closed(within=70)
    assert world.shown() == ["pending", "success"]


def test_the_last_status_is_kept_for_the_end_and_explain_says_so(world):
    world.github.most_statuses = 1000
    for n in range(999):
        world.github.put_status(
            "acme/widgets", some_run().event.revision.commit, state="pending", context=CONTEXT, description=str(n)
        )
    world.pay()
    assert "kept for the end" in world.explained()
    assert world.counted()["bridge_statuses_total"]["given_up"] == 1
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay()
    assert world.shown()[-1] == "success"
    assert world.run.phase is Phase.CLOSED


@pytest.mark.parametrize("status", [404, 410, 422])
def test_an_end_that_github_refuses_for_good_is_given_up_once_with_its_reason(world, status):
    world.pay()
    world.github.fail_next(10, status)
    world.end(NodePhase.SUCCEEDED, 0)
    posts = world.github.posts
    world.pay()
    assert world.run.phase is Phase.CLOSED
    assert world.github.posts == posts + 1
    assert f"given up: posting the status 'bridge/push/push' of run push-r1: GitHub answered {status}" in (
        world.explained()
    )
    assert world.counted()["bridge_statuses_total"]["given_up"] == 1
    assert sum(world.counted()["bridge_owed_actions"].values()) == 0


def test_somebody_who_always_writes_over_an_end_is_not_fought_for_ever(world):
    world.pay()
    commit = some_run().event.revision.commit

    def rival():
        world.github.put_status("acme/widgets", commit, state="error", context=CONTEXT, description="mine")

    for _ in range(20):
        world.github.meanwhile(after=rival)
    world.end(NodePhase.SUCCEEDED, 0)
    assert world.pay_until_closed(within=120) < 120
    assert world.shown().count("success") == 5
    assert "shows a status 'error' on top" in world.explained()
    assert world.counted()["bridge_statuses_total"]["overwritten"] == 4
    assert world.counted()["bridge_statuses_total"]["given_up"] == 1


def test_an_end_that_was_covered_once_is_on_top_in_the_end(world):
    world.pay()
    commit = some_run().event.revision.commit
    world.github.meanwhile(
        after=lambda: world.github.put_status("acme/widgets", commit, state="pending", context=CONTEXT)
    )
    world.end(NodePhase.SUCCEEDED, 0)
    world.pay_until_closed(within=10)
    assert world.shown() == ["pending", "success", "pending", "success"]


def test_an_older_run_of_the_commit_says_nothing_once_there_is_a_newer_one(world):
    world.pay()
    world.clock.advance(1)
    newer = some_run("push-r2", accepted=world.clock.now())
    world.runs.add(newer, b"{}")
    world.controller.reconcile("push-r2")
    world.end(NodePhase.FAILED, 2)
    world.pay()
    assert [status.target_url for status in world.github.history] == [f"http://x/{RUN}", "http://x/push-r2"]
    world.engine.end("push-r2", 1, root=NodePhase.SUCCEEDED, nodes=[])
    world.controller.reconcile("push-r2")
    world.pay()
    assert world.shown() == ["pending", "pending", "success"]


def test_only_a_person_brings_a_status_back_to_pending(world):
    world.success()
    world.act(Kind.RERUN)
    world.pay()
    assert world.shown() == ["pending", "success", "pending"]
    world.end(NodePhase.FAILED, 2, n=2)
    world.pay()
    assert world.shown() == ["pending", "success", "pending", "failure"]
