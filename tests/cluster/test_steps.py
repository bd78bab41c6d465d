"""The step as a process in a cluster: the rows of its table, over what a real Brigade did and over one that obeys."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.core.runs import StepState, with_step
from bridge.core.steps import ExitCode
from tests import recorded
from tests.cluster.auditing import audited
from tests.cluster.brigades import RUNNER, name_of
from tests.cluster.client import path
from tests.cluster.kubelet import Fault
from tests.cluster.racing import Racers
from tests.cluster.step_world import one, opened
from tests.local.building import until

ROUNDS = 100


@pytest.fixture
def world(request, tmp_path):
    with opened(request, tmp_path) as world:
        yield world


def play(world, name, build):
    """Do to a build what was recorded: names, labels and times are its own. Answers what its worker said."""
    brigade = world.brigade
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


def test_each_recording_has_its_code():
    assert sorted(CODES) == recorded.names("brigade")


@pytest.mark.parametrize("name", sorted(CODES))
def test_what_a_real_brigade_did_is_answered_by_the_step(world, name):
    code = CODES[name]
    world.brigade.away.set()
    step = world.start("-e", "build", "--tries", "1")
    step.wait_for("Build: ")
    said = play(world, name, one("test", 1))
    assert step.code() == code, step.err
    assert step.log == said
    again = world.start("-e", "build", "--tries", "1")
    assert again.code() == code, again.err
    assert world.made() == [name_of(one("test", 1))]


@pytest.mark.timeout(1200, func_only=True)
def test_two_steps_with_one_key_make_one_build_in_each_of_a_hundred_rounds(world):
    steps = tuple(f"s{number}" for number in range(ROUNDS))
    world.begin(2, steps=steps)
    world.brigade.away.set()
    with Racers(world.environment(BRIDGE_ATTEMPT="2"), 2) as racers:
        said = [sorted(racers.race(step, "-e", "held", "--tries", "1")) for step in steps]
    created = audited(world.control_plane, world.brigade_namespace, verb="create", resource="secrets")
    builds = [request for request in created if request.name.startswith("brigade-worker-")]
    made = sorted(request.name for request in builds if request.code == 201)
    assert made == sorted(name_of(one(step, 1)) for step in steps)
    # Each either made the build or attached to it.
    assert all([first[:6], second[:8]] == ["Build:", "attached"] for first, second in said)
    assert {request.code for request in builds} <= {201, 409}


@pytest.mark.parametrize(
    ("flags", "code", "ending"),
    [
        (("-e", "good", "--tries", "1"), ExitCode.SUCCEEDED, "succeeded"),
        (("-e", "bad", "--tries", "1"), ExitCode.FAILED, "failed"),
        (("-e", "held", "--tries", "1", "--timeout", "1s"), ExitCode.TIMED_OUT, "timed_out"),
    ],
    ids=["good", "bad", "held"],
)
def test_a_step_that_is_killed_at_any_write_and_started_again_makes_one_build(
    world, tmp_path, flags, code, ending
):
    dying = "tests.cluster.dying_step"
    counted = tmp_path / "writes"
    whole = world.start(*flags, module=dying, DYING_COUNT=str(counted))
    assert whole.code() == code, whole.err
    writes = counted.read_text().splitlines()
    assert len(writes) >= 2
    points = [(number, when) for number in range(1, len(writes) + 1) for when in ("before", "after")]
    world.begin(2, steps=tuple(f"{when}{number}" for number, when in points))

    def killed_and_started_again(point):
        number, when = point
        told = {"BRIDGE_STEP": f"{when}{number}", "BRIDGE_ATTEMPT": "2"}
        first = world.start(*flags, module=dying, DYING_AT=f"{number}:{when}", **told)
        assert first.code() in {-9, code}, f"{point}: {first.out}{first.err}"
        second = world.start(*flags, **told)
        assert second.code() == code, f"{point}: {second.out}{second.err}"
        assert world.endings(told["BRIDGE_STEP"]) == [ending], point

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(killed_and_started_again, points))
    wanted = ["test", *(f"{when}{number}" for number, when in points)]
    assert world.made() == sorted(name_of(one(step, 1)) for step in wanted)
    if ending == "timed_out":
        until(lambda: world.brigade.pods() == [], what="the workers to be gone")


def test_a_worker_lost_twice_and_then_fine_succeeds_with_a_single_try(world):
    step = world.start("-e", "later", "--tries", "1")
    assert step.code() == ExitCode.SUCCEEDED, step.err
    assert world.endings() == ["lost", "lost", "succeeded"]
    again = world.start("-e", "later", "--tries", "1")
    assert again.code() == ExitCode.SUCCEEDED
    assert len(world.made()) == 3


def test_a_step_whose_pod_is_killed_between_its_tries_makes_no_more_builds_than_it_has_tries(world):
    flags = ("-e", "bad", "--tries", "3", "--backoff", "1s")
    for number in (1, 2):
        step = world.start(*flags)

        def has_ended(number=number):
            return world.endings()[number - 1 :] == ["failed"]

        until(has_ended, what=f"build {number} to end")
        step.kill()
    last = world.start(*flags)
    assert last.code() == ExitCode.FAILED
    assert f"build 3 ({one('test', 3)})" in last.err
    assert world.start(*flags).code() == ExitCode.FAILED
    assert len(world.made()) == 3


def test_success_outlives_vacuum_once_it_is_on_record(world):
    assert world.start("-e", "good", "--tries", "1").code() == ExitCode.SUCCEEDED
    world.runs.change("r1", lambda run: with_step(run, 1, "test", StepState(succeeded=1, highest=1)))
    world.brigade.vacuum(one("test", 1))
    world.begin(2)
    retry = world.start("-e", "good", "--tries", "1", BRIDGE_ATTEMPT="2")
    assert retry.code() == ExitCode.SUCCEEDED
    assert len(world.made()) == 1


def test_the_step_of_an_old_attempt_beside_the_new_one_creates_nothing(world):
    old = world.start("-e", "held", "--tries", "3", "--backoff", "0s")
    first = world.brigade.wait_for(one("test", 1))
    world.begin(2)
    new = world.start("-e", "held", "--tries", "1", "--backoff", "0s", BRIDGE_ATTEMPT="2")
    new.wait_for(f"attached to build 1 ({first})")
    world.brigade.end(first, 1, "it broke")
    assert old.code() == ExitCode.ASK_AGAIN
    assert "attempt 2 has taken over" in old.err
    # The adopted build counts for the attempt that made it: the new one has its own try.
    new.wait_for("Build: ")
    again = world.start("-e", "held", "--tries", "3")
    again.wait_for("attached to build 2")
    world.brigade.end(world.brigade.wait_for(one("test", 2)), 0, "fine")
    assert new.code() == again.code() == ExitCode.SUCCEEDED
    assert len(world.made()) == 2


def test_no_handler_is_3_and_the_next_event_is_tried_before_that(world):
    assert world.start("-e", "nobody", "--tries", "1").code() == ExitCode.NO_HANDLER
    assert world.start("-e", "nobody", "--tries", "1", "--unhandled=ok").code() == ExitCode.SUCCEEDED
    world.begin(2, steps=("other",))
    told = {"BRIDGE_STEP": "other", "BRIDGE_ATTEMPT": "2"}
    assert world.start("-e", "nobody", "-e", "good", "--tries", "1", **told).code() == ExitCode.SUCCEEDED
    assert world.endings("other") == ["unhandled", "succeeded"]


def test_a_build_that_brigade_never_starts_is_given_up_and_brigade_never_starts_it(world):
    world.brigade.away.set()
    step = world.start("-e", "good", "--start-timeout", "1s", "--lost", "0")
    assert step.code() == ExitCode.LOST, step.err
    assert "is Brigade's controller away?" in step.out + step.err
    world.brigade.away.clear()
    # Brigade is back, and has dealt with a build that came later.
    later = world.start("-e", "good", "--tries", "1", BRIDGE_RUN="none", BRIDGE_PROJECT="acme/widgets")
    assert later.code() == ExitCode.SUCCEEDED, later.err
    assert name_of(one("test", 1)) not in world.brigade.pods()
    assert world.endings() == ["lost"]


def test_the_log_is_shown_once_and_whole_whatever_breaks_on_the_way(world):
    step = world.start("-e", "held", "--tries", "1")
    build = world.brigade.wait_for(one("test", 1))
    log = world.brigade.log(build)
    log.next(
        Fault(after=2, then="cut", torn=True),
        Fault(after=1, then="close"),
        Fault(status=500),
        Fault(after=3, then="cut"),
        Fault(repeat=4),
        Fault(after=0, then="close"),
    )
    lines = [f"line {number} " + "x" * (number % 7) for number in range(50)]
    for start in range(0, 50, 10):
        log.write(*lines[start : start + 10])
        step.wait_for(lines[start + 9])
    log.next(Fault(after=0, then="close"), Fault(after=1, then="cut"))
    world.brigade.end(build, 0, "the last line")
    assert step.code() == ExitCode.SUCCEEDED, step.err
    assert step.log.splitlines() == [*lines, "the last line"]


def test_sigterm_leaves_the_build_alone_and_says_ask_again(world):
    step = world.start("-e", "held", "--tries", "1")
    build = world.brigade.wait_for(one("test", 1))
    step.process.terminate()
    assert step.code() == ExitCode.ASK_AGAIN
    assert world.endings() == ["running"]
    world.brigade.end(build, 0)
    assert world.start("-e", "held", "--tries", "1").code() == ExitCode.SUCCEEDED


def test_a_step_without_its_record_asks_again(world):
    assert world.start("-e", "good", BRIDGE_RUN="r2").code() == ExitCode.ASK_AGAIN
    assert world.start("-e", "good", BRIDGE_ATTEMPT="7").code() == ExitCode.ASK_AGAIN
    assert world.made() == []


def test_the_step_does_as_the_charts_role_lets_it(world):
    """Every request was allowed."""
    assert world.start("-e", "good", "--tries", "1").code() == ExitCode.SUCCEEDED
    assert world.start("-e", "held", "--timeout", "1s", BRIDGE_STEP="test").code() == ExitCode.SUCCEEDED
    for namespace in (world.namespace, world.brigade_namespace):
        refused = [one for one in audited(world.control_plane, namespace, user="bridge-step") if one.code == 403]
        assert refused == []


def test_the_reason_of_a_failure_is_where_the_kubelet_takes_it_from(tmp_path, monkeypatch):
    from bridge import step

    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(step, "TERMINATION_LOG", log)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(SystemExit) as ended:
        step.main(["-e", "good"], where=lambda _flags: (_ for _ in ()).throw(step.BadSettings("it is so")))
    assert ended.value.code == ExitCode.USAGE
    assert log.read_text() == "it is so"
