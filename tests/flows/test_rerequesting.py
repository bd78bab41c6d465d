import json
from dataclasses import replace

import pytest

from bridge.core.events import merge_groups, rerequests
from bridge.core.events.merge_groups import Destroyed
from bridge.core.events.rerequests import Rerequest
from bridge.core.names import run_id
from bridge.core.reports import BY_CHECK
from bridge.core.runs import Attempt, Kind, Phase, Report, State
from bridge.core.verdicts import Verdict
from bridge.errors import Unavailable
from bridge.flows.dequeuing import dequeue
from bridge.flows.rerequesting import rerequest
from tests.fakes import FakeClock, FakeRuns, some_event, some_run

PROJECT = "acme/widgets"
SHA = "c" * 40
BEGAN = 1_700_000_000.0


def a_run_id(delivery="d1", pipeline="push"):
    return run_id(project=PROJECT, provider="github", pipeline=pipeline, delivery=delivery)


RUN = a_run_id()


class Scene:
    def __init__(self):
        self.clock = FakeClock()
        self.runs = FakeRuns()

    def add(self, run=RUN, verdict=Verdict.FAILED, *, to=BY_CHECK, attempts=1, **changes):
        ended = [
            Attempt(n, Kind.FIRST, 1, BEGAN + n, steps=("build",), ended=BEGAN + n + 60, verdict=verdict)
            for n in range(1, attempts + 1)
        ]
        state = State(attempts=tuple(ended), reported=Report("c", "failure", "", attempts), reported_to=to)
        phase = Phase.CLOSED if verdict else Phase.RUNNING
        return self.runs.add(some_run(run, state=state, phase=phase, verdict=verdict, **changes))

    def ask(self, asked):
        return rerequest(asked, runs=self.runs, clock=self.clock)

    def acts(self, run=RUN):
        return [(one.kind, one.follows, one.who, one.source) for one in self.runs.read(run).acts]


@pytest.fixture
def scene():
    return Scene()


def of_run(run=RUN, attempt=1, **changes):
    return replace(Rerequest(PROJECT, "guid-1", "octocat", SHA, run, attempt), **changes)


def of_suite(**changes):
    return replace(Rerequest(PROJECT, "guid-1", "octocat", SHA), **changes)


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.ERROR, Verdict.CANCELLED, Verdict.TIMED_OUT])
def test_a_rerun_of_what_did_not_succeed_is_a_retry(scene, verdict):
    scene.add(verdict=verdict)
    [acted] = scene.ask(of_run()).acted
    assert acted.accepted
    assert scene.acts() == [(Kind.RETRY, 1, "octocat", "check")]


def test_a_rerun_of_a_success_runs_everything_again(scene):
    scene.add(verdict=Verdict.SUCCEEDED)
    scene.ask(of_run())
    assert scene.acts() == [(Kind.RERUN, 1, "octocat", "check")]


def test_a_delivery_that_comes_again_is_one_act(scene):
    scene.add()
    first, again = scene.ask(of_run()), scene.ask(of_run())
    assert [one.acted[0].accepted for one in (first, again)] == [True, True]
    assert len(scene.acts()) == 1


def test_two_presses_at_once_are_one_act_and_an_answer(scene):
    scene.add()
    scene.ask(of_run())
    [acted] = scene.ask(of_run(delivery="guid-2")).acted
    assert not acted.accepted
    assert len(scene.acts()) == 1


def test_a_rerun_of_an_older_attempt_says_that_there_is_a_newer_one(scene):
    scene.add(attempts=2)
    [acted] = scene.ask(of_run()).acted
    assert (acted.accepted, acted.message) == (False, "attempt 1 has a successor: attempt 2")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (of_run(run=a_run_id("gone")), "is not kept any more"),
        (of_run(project="acme/gadgets"), "is not of this repository"),
        (of_run(attempt=7), "has no attempt 7"),
    ],
)
def test_what_cannot_be_meant_is_said_and_changes_nothing(scene, asked, said):
    scene.add()
    found = scene.ask(asked)
    assert (found.acted, said in found.ignored) == ((), True)
    assert scene.acts() == []


def test_a_rerun_of_what_waits_for_approval_approves_nothing(scene):
    state = State(held="a stranger", reported=Report("c", "error", "", 0), reported_to=BY_CHECK)
    scene.runs.add(some_run(RUN, state=state, phase=Phase.CLOSED, verdict=Verdict.CANCELLED))
    [acted] = scene.ask(of_run(attempt=0)).acted
    assert not acted.accepted
    assert "/ok-to-test" in acted.message
    assert scene.acts() == []


def test_a_rerun_of_all_is_of_the_newest_run_of_each_context(scene):
    older, newest, other, by_status, elsewhere = (a_run_id(f"d{n}") for n in range(5))
    scene.add(older, accepted=1.0)
    scene.add(newest, accepted=2.0)
    scene.add(other, Verdict.SUCCEEDED, context="bridge/lint/push")
    scene.add(by_status, context="bridge/docs/push", to="github app")
    scene.add(elsewhere, context="x", event=some_event(project="acme/gadgets", payload=b""))
    found = scene.ask(of_suite())
    assert {one.run.id for one in found.acted} == {newest, other}
    assert scene.acts(newest) == [(Kind.RETRY, 1, "octocat", "check")]
    assert scene.acts(other) == [(Kind.RERUN, 1, "octocat", "check")]
    assert scene.acts(older) == scene.acts(by_status) == scene.acts(elsewhere) == []


def test_a_rerun_of_all_that_is_about_none_of_our_checks_is_an_event(scene):
    assert scene.ask(of_suite()) is None
    scene.add(to="github app")
    assert scene.ask(of_suite()) is None


def test_a_rerun_of_all_that_comes_days_later_again_retries_nothing_that_began_since(scene):
    scene.add()
    late = of_suite(seen=BEGAN - 3600)
    found = scene.ask(late)
    assert (found.acted, found.ignored) == ((), "what was asked for has begun already")
    assert len(scene.ask(of_suite(seen=BEGAN)).acted) == 1
    assert scene.ask(replace(late, seen=BEGAN - 3600)).acted[0].message == "retry was asked for already"


def test_records_that_do_not_answer_make_the_delivery_come_again(scene):
    scene.add()
    scene.runs.fail("change", "before", Unavailable("away"))
    with pytest.raises(Unavailable):
        scene.ask(of_run())
    scene.runs.fail("change", "after", Unavailable("away"))
    with pytest.raises(Unavailable):
        scene.ask(of_run())
    scene.ask(of_run())
    assert len(scene.acts()) == 1


# -- reading ---------------------------------------------------------------------------------------------


def read(name, document, *, app_id=4711):
    headers = {"X-GitHub-Event": name, "X-GitHub-Delivery": "guid-1", "Content-Type": "application/json"}
    common = {"repository": {"full_name": PROJECT}, "sender": {"login": "octocat"}}
    return rerequests.read(headers, json.dumps(common | document).encode(), app_id=app_id)


def a_check_run(**changes):
    check = {"head_sha": SHA, "external_id": f"{RUN}/2", "app": {"id": 4711, "client_id": "Iv1.a"}, **changes}
    return {"action": "rerequested", "check_run": check}


def test_the_run_and_the_attempt_are_read_of_a_check_run():
    assert read("check_run", a_check_run()) == of_run(attempt=2)
    assert read("check_run", a_check_run(), app_id="Iv1.a") == of_run(attempt=2)


def test_the_commit_is_read_of_a_check_suite():
    suite = {"head_sha": SHA, "updated_at": "2023-11-14T22:13:20Z", "app": {"id": 4711}}
    told = {"action": "rerequested", "check_suite": suite}
    assert read("check_suite", told) == of_suite(seen=BEGAN)
    assert read("check_suite", {**told, "check_suite": {**suite, "updated_at": "x"}}) == of_suite()


def test_what_is_no_rerun_of_ours_is_left_to_others():
    for document in (
        a_check_run(app={"id": 1}),
        a_check_run(external_id="of-a-script"),
        a_check_run(external_id=None),
        a_check_run() | {"action": "completed"},
    ):
        assert read("check_run", document) is None
    assert read("check_run", a_check_run(), app_id=0) is None
    assert read("push", {"action": "rerequested"}) is None


# -- merge groups ----------------------------------------------------------------------------------------


def a_group_run(scene, run=RUN, **changes):
    event = some_event(type="merge_group:checks_requested", payload=b"", **changes)
    return scene.add(run, None, event=event)


def end(scene, reason="dequeued", **changes):
    group = replace(Destroyed(PROJECT, "guid-9", SHA, reason), **changes)
    return dequeue(group, runs=scene.runs, clock=scene.clock)


@pytest.mark.parametrize("reason", ["dequeued", "invalidated", ""])
def test_what_runs_for_a_group_that_is_given_up_is_cancelled_once(scene, reason):
    a_group_run(scene)
    assert [one.accepted for one in end(scene, reason)] == [True]
    assert [one.accepted for one in end(scene, reason)] == [True]
    [act] = scene.runs.read(RUN).acts
    assert (act.kind, act.source) == (Kind.CANCEL, "merge queue")
    assert act.who == (f"the merge queue ({reason})" if reason else "the merge queue")


def test_what_runs_for_a_group_that_was_merged_runs_to_its_end(scene):
    a_group_run(scene)
    assert end(scene, "merged") == ()
    assert scene.runs.read(RUN).acts == ()


def test_a_push_of_the_queue_is_the_groups_and_other_runs_of_the_commit_are_not(scene):
    pushed, other = a_run_id("d2"), a_run_id("d3")
    scene.add(pushed, None, event=some_event(branch="gh-readonly-queue/main/pr-7-a", payload=b""))
    scene.add(other, None)
    end(scene)
    assert len(scene.runs.read(pushed).acts) == 1
    assert scene.runs.read(other).acts == ()
    assert end(scene, project="acme/gadgets") == ()


def test_the_end_of_a_group_is_read():
    headers = {"X-GitHub-Event": "merge_group", "X-GitHub-Delivery": "guid-9", "Content-Type": "application/json"}
    group = {
        "head_sha": SHA,
        "head_ref": "refs/heads/gh-readonly-queue/main/pr-7-a",
        "base_ref": "refs/heads/main",
    }
    document = {"action": "destroyed", "reason": "dequeued", "merge_group": group}
    document["repository"] = {"full_name": PROJECT}
    found = merge_groups.destroyed(headers, json.dumps(document).encode())
    assert found == Destroyed(PROJECT, "guid-9", SHA, "dequeued")
    asked = {**document, "action": "checks_requested"}
    assert merge_groups.destroyed(headers, json.dumps(asked).encode()) is None
