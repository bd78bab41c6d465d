"""The step over Brigade's objects: what a real Brigade did, played again, and what `brig run` would have made of it."""

import threading
import time

import pytest

from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.runs import SecretRuns
from bridge.core.builds import Ending
from bridge.core.names import build_id
from bridge.core.runs import Attempt, Kind, StepState, with_attempt, with_step
from bridge.core.steps import ExitCode, Options
from bridge.flows.stepping import Key, Stepping
from tests import recorded
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.brigades import RUNNER, EndingPods, HandBrigade, HastyClock, name_of
from tests.cluster.client import ApiError, path
from tests.fakes import FakeProjects, some_event, some_run
from tests.local.building import PROJECT, until

KEY = Key("r1", 1, "test")


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def brigade(admin, kubelet, namespace):
    brigade = HandBrigade(admin, kubelet, namespace)
    with EndingPods(brigade):
        yield brigade


@pytest.fixture
def runs(api, namespace):
    runs = SecretRuns(api, namespace)
    runs.create(some_run("r1", event=some_event(type="build")), b"{}")
    runs.change("r1", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, time.time(), steps=("test",))))
    return runs


class Step(threading.Thread):
    """`brig run` in a thread."""

    def __init__(self, api, namespace, runs, **options):
        super().__init__(daemon=True)
        self.builds = BrigadeBuilds(api, namespace, FakeProjects([PROJECT]), clock=HastyClock)
        self.shown = b""
        self.answer = None
        self._runs = runs
        self._options = Options(**{"events": ("build",), "tries": 1, "backoff_seconds": 0.0, **options})

    def run(self):
        stepping = Stepping(self._runs, self.builds, HastyClock, self._show, lambda line: None)
        self.answer = stepping.answer(KEY, self._options)

    def finish(self):
        self.join(60)
        assert self.answer is not None
        return self.answer.code

    def _show(self, chunk):
        self.shown += chunk


def one(number):
    return build_id(run="r1", epoch=1, step="test", number=number)


def wait_for_build(brigade, number):
    def is_there():
        try:
            return brigade.secret(one(number))
        except ApiError:
            return None

    until(is_there, what=f"build {number}")
    return one(number)


def play(brigade, name, build):
    """Do to a build what was recorded: names, labels and times are its own."""
    recording = recorded.recorded("brigade", name)
    before = recording[0]["object"]["metadata"]["labels"]["build"]
    lines = (recorded.RECORDINGS / "brigade" / f"{name}.log").read_text().replace(before, build).splitlines()
    for event in recording:
        found = event["object"]
        called = found["metadata"]["name"].replace(before, build)
        if found["kind"] == "Secret":
            if found["metadata"]["labels"].get("status") == "accepted":
                brigade.accept(build)
            continue
        if event["type"] == "ADDED" and called == name_of(build):
            labels = brigade.secret(build)["metadata"]["labels"]
            brigade.kubelet.create_pod(
                brigade.admin, brigade.namespace, called, container=RUNNER, phase="Pending", labels=labels
            )
        elif event["type"] == "ADDED":
            labels = {**found["metadata"]["labels"], "build": build, "worker": name_of(build)}
            brigade.kubelet.create_pod(brigade.admin, brigade.namespace, called, labels=labels)
        if called == name_of(build) and found["status"]["phase"] in {"Succeeded", "Failed"}:
            brigade.log(build).write(*lines)
            brigade.log(build).end()
        brigade.admin.patch(path("pods", brigade.namespace, called, "status"), {"status": found["status"]})
    return "".join(f"{line}\n" for line in lines)


CODES = {
    "succeeded": ExitCode.SUCCEEDED,
    "no-handler": ExitCode.NO_HANDLER,
    "job-failed": ExitCode.FAILED,
    "script-error": ExitCode.FAILED,
    "syntax-error": ExitCode.FAILED,
}


@pytest.mark.parametrize("name", sorted(CODES))
def test_what_a_real_brigade_did_is_answered_by_the_step(control_plane, api, runs, brigade, name):
    namespace, code = brigade.namespace, CODES[name]
    step = Step(api, namespace, runs)
    step.start()
    said = play(brigade, name, wait_for_build(brigade, 1))
    assert step.finish() == code
    assert step.shown.decode() == said
    again = Step(api, namespace, runs)
    again.start()
    assert again.finish() == code
    created = audited(control_plane, namespace, verb="create", resource="secrets")
    builds = [one for one in created if one.name.startswith("brigade-worker-")]
    assert [one.code for one in builds] == [201]


def test_a_worker_lost_twice_and_then_fine_succeeds_with_a_single_try(api, namespace, runs, brigade):
    step = Step(api, namespace, runs, tries=1)
    step.start()
    for number in (1, 2):
        brigade.start(wait_for_build(brigade, number))
        brigade.collect(one(number))
    play(brigade, "succeeded", wait_for_build(brigade, 3))
    assert step.finish() == ExitCode.SUCCEEDED
    endings = [build.outcome.ending for build in step.builds.find("r1")]
    assert endings == [Ending.LOST, Ending.LOST, Ending.SUCCEEDED]


def test_a_build_that_brigade_never_starts_is_given_up_and_brigade_never_starts_it(api, namespace, runs, brigade):
    step = Step(api, namespace, runs, start_timeout_seconds=0.1, lost=0)
    step.start()
    assert step.finish() == ExitCode.LOST
    # Brigade is back: it looks at no build that is accepted.
    assert brigade.secret(one(1))["metadata"]["labels"]["status"] == "accepted"
    assert brigade.pods() == []


def test_two_steps_with_one_key_make_one_build(control_plane, api, namespace, runs, brigade):
    steps = [Step(api, namespace, runs) for _ in range(2)]
    for step in steps:
        step.start()
    said = play(brigade, "succeeded", wait_for_build(brigade, 1))
    assert [step.finish() for step in steps] == [ExitCode.SUCCEEDED] * 2
    assert all(step.shown.decode() == said for step in steps)
    created = audited(control_plane, namespace, verb="create", resource="secrets")
    assert [one.code for one in created if "brigade-worker" in one.name].count(201) == 1


def test_success_outlives_vacuum_once_it_is_on_record(api, namespace, runs, brigade):
    step = Step(api, namespace, runs)
    step.start()
    play(brigade, "succeeded", wait_for_build(brigade, 1))
    assert step.finish() == ExitCode.SUCCEEDED
    runs.change("r1", lambda run: with_step(run, 1, "test", StepState(succeeded=1, highest=1)))
    brigade.vacuum(one(1))
    again = Step(api, namespace, runs)
    again.start()
    assert again.finish() == ExitCode.SUCCEEDED
    assert again.builds.find("r1") == []
