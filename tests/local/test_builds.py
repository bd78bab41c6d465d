import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from bridge.core.builds import BuildPhase, Ending, Outcome, judged
from bridge.core.events import Revision
from bridge.errors import Conflict, Misconfigured, NotFound, Unavailable, UnknownProject
from bridge.local import node, processes
from bridge.local.builds import LOG_BYTES, ProcessBuilds, passed_on
from bridge.local.folders import Claim, Tombstone
from tests.fakes import FakeProjects, some_event
from tests.local.building import (
    PATIENCE_SECONDS,
    ROOT,
    NobodyStarts,
    WallClock,
    a_spec,
    builds_in,
    dying_at_each_point,
    end_all,
    folder_of,
    in_its_log,
    seen,
    some,
    some_project,
    supervise,
    supervisor_of,
    until,
    until_ended,
    until_phase,
)

FOREVER = "echo started; exec sleep 1000"
COUNTED = 'echo ran >>"$1/../../../ran-$(basename "$(dirname "$1")")-$(basename "$1")"'


@pytest.fixture
def state(tmp_path):
    """The state folder; what still runs in it when a test ends is ended."""
    yield tmp_path / "state"
    end_all(tmp_path / "state")


def times_run(state, build_id="b1", *, run="r1"):
    counter = state / f"ran-{run}-{build_id}"
    return len(counter.read_text().splitlines()) if counter.exists() else 0


# What a worker comes to.


@pytest.mark.parametrize(
    ("worker", "phase", "exit_code"),
    [
        ("exit 0", BuildPhase.SUCCEEDED, 0),
        ("exit 3", BuildPhase.FAILED, 3),
        ("kill -KILL $$", BuildPhase.FAILED, 137),
    ],
)
def test_a_build_ends_as_its_worker_does(state, worker, phase, exit_code):
    builds = builds_in(state, worker=f"echo out; echo err >&2; {worker}")
    builds.create(a_spec())
    build = until_ended(builds)
    assert (build.phase, build.exit_code) == (phase, exit_code)
    assert build.created <= build.started <= build.ended
    assert builds.log(build).splitlines()[-2:] == ["out", "err"]


@pytest.mark.parametrize("how", ["kill -TERM $$", "exit 143"])
def test_a_worker_that_somebody_told_to_stop_is_lost_and_not_failed(state, how):
    builds = builds_in(state, worker=how)
    builds.create(a_spec())
    build = until_ended(builds)
    assert (build.phase, build.exit_code) == (BuildPhase.GONE, None)
    assert judged(build, log=builds.log(build), at=1.0).ending is Ending.LOST


def test_a_worker_that_cannot_be_started_is_a_failed_build_that_says_why(state):
    builds = builds_in(state, worker_command=("/does/not/exist",))
    builds.create(a_spec())
    assert until_ended(builds).exit_code == 127
    assert in_its_log(builds, "cannot start the worker with /does/not/exist: No such file or directory")


def test_the_worker_is_told_what_build_it_is(state):
    builds = builds_in(state, worker='cp "$1/build.json" "$1/payload" "$1/../../.."; pwd')
    event = some_event(type="pull_request:opened", payload=b'{"a": "\xff\x00"}', clone_url="")
    builds.create(a_spec(event=event, number=2, attempt=3))
    until_ended(builds)
    told = json.loads((state / "build.json").read_bytes())
    assert (state / "payload").read_bytes() == b'{"a": "\xff\x00"}'
    assert told["id"] == "b1"
    assert told["number"] == 2
    assert told["jobs"] == "host"
    assert told["event"] == {
        "buildID": "b1",
        "workerID": "brigade-worker-b1",
        "type": "pull_request:opened",
        "provider": "github",
        "revision": {"commit": "c" * 40, "ref": "refs/heads/main"},
        "cloneURL": "https://git.example.com/acme/widgets.git",
        "logLevel": "log",
    }
    assert told["project"]["repo"]["name"] == "acme/widgets"
    assert told["project"]["secrets"] == {"password": "of-the-script"}
    assert told["labels"]["bridge.brigade.sh/attempt"] == "3"
    assert told["cacheRoot"] == str(state / "caches")
    assert in_its_log(builds, str(state / "builds" / "r1" / "b1"))


def test_others_may_not_read_builds_and_no_secret_outlives_one(state):
    builds = builds_in(state, worker='until [ -e "$1/../../../go" ]; do sleep 0.05; done')
    builds.create(a_spec())
    until_phase(builds, BuildPhase.RUNNING)
    run = state / "builds" / "r1"
    until((run / "b1" / "build.json").exists)
    for path in [run, *run.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    (state / "go").touch()
    until_ended(builds)
    until(lambda: not processes.is_alive(supervisor_of(state)))
    for path in run.rglob("*"):
        assert path.is_dir() or b"of-the-" not in path.read_bytes(), path


def test_the_environment_of_a_worker_has_none_of_our_settings(state, monkeypatch):
    monkeypatch.setenv("BRIDGE_GITHUB_TOKEN", "secret")
    builds = builds_in(state, worker="env")
    builds.create(a_spec())
    until_ended(builds)
    assert not in_its_log(builds, "BRIDGE_GITHUB_TOKEN")
    assert not in_its_log(builds, "PYTHONPATH")
    assert in_its_log(builds, "PATH=")
    assert passed_on({"LC_ALL": "C", "DOCKER_HOST": "x", "AWS_SECRET_ACCESS_KEY": "y"}) == {
        "LC_ALL": "C",
        "DOCKER_HOST": "x",
    }


def test_what_a_worker_leaves_behind_ends_with_it(state):
    builds = builds_in(state, worker='setsid sleep 1000 & echo $! >"$1/../../../left"; sleep 0.1')
    builds.create(a_spec())
    until_ended(builds)
    assert processes.marked(folder_of(state).marks) == []


# Creating.


def test_nothing_is_created_for_an_unknown_project(state):
    builds = ProcessBuilds(state, FakeProjects(), jobs="host", clock=WallClock)
    with pytest.raises(UnknownProject):
        builds.create(a_spec())
    assert builds.find("r1") == []


def test_jobs_in_containers_without_an_engine_are_refused_with_the_remedy(state):
    builds = builds_in(state, jobs="container")
    with pytest.raises(Misconfigured, match="--jobs=host"):
        builds.create(a_spec())
    assert builds.find("r1") == []


def test_a_disk_that_takes_nothing_is_unavailable(state):
    state.mkdir()
    (state / "builds").write_text("a file where a folder should be")
    with pytest.raises(Unavailable, match="cannot create b1"):
        builds_in(state).create(a_spec())


def test_names_from_outside_stay_inside(state):
    builds = builds_in(state)
    builds.create(a_spec("..", run="../../up", step="../x"))
    build = until_ended(builds, "..", run="../../up")
    assert build.phase is BuildPhase.SUCCEEDED
    assert builds.highest("../../up", epoch=1, step="../x") == 1
    assert [path.name for path in state.iterdir()] == ["builds"]
    assert [path.name for path in state.parent.iterdir()] == ["state"]


def _create_at_once(state, barrier, answers):
    builds = builds_in(state, worker=COUNTED)

    def create():
        barrier.wait()
        try:
            builds.create(a_spec())
        except Conflict:
            answers.put("conflict")
        else:
            answers.put("created")

    threads = [threading.Thread(target=create) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_fifty_at_once_make_one_build_with_one_worker(state):
    spawning = multiprocessing.get_context("spawn")
    barrier, answers = spawning.Barrier(50), spawning.Queue()
    creators = [spawning.Process(target=_create_at_once, args=(state, barrier, answers)) for _ in range(2)]
    for creator in creators:
        creator.start()
    told = sorted(answers.get(timeout=PATIENCE_SECONDS) for _ in range(50))
    for creator in creators:
        creator.join(PATIENCE_SECONDS)
    assert told == ["conflict"] * 49 + ["created"]
    builds = builds_in(state)
    assert until_ended(builds).phase is BuildPhase.SUCCEEDED
    assert times_run(state) == 1
    assert len(builds.find("r1")) == 1


def _create(state, n):
    builds_in(state, worker=COUNTED).create(a_spec(run=f"r{n}"))


def test_a_create_that_dies_at_any_point_leaves_a_whole_build_or_none_and_one_worker_runs(state):
    builds = builds_in(state, worker=COUNTED)
    left_whole = []
    for n in dying_at_each_point(partial(_create, state)):
        run = f"r{n}"
        if builds.find(run):
            left_whole.append(run)
            assert builds.highest(run, epoch=1, step="test") == 1
            with pytest.raises(Conflict):
                builds.create(a_spec(run=run))
        else:
            builds.create(a_spec(run=run))
    assert left_whole
    assert len(left_whole) < n
    for number in range(1, n + 1):
        assert until_ended(builds, run=f"r{number}").phase is BuildPhase.SUCCEEDED
        assert times_run(state, run=f"r{number}") == 1


def test_a_build_survives_whoever_made_it(state):
    text = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.local.building import a_spec, builds_in
os.setsid()
builds_in(Path({str(state)!r}), worker="sleep 0.3").create(a_spec())
os.killpg(0, signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", text]).returncode == -signal.SIGKILL
    assert until_ended(builds_in(state)).phase is BuildPhase.SUCCEEDED


def test_a_build_that_nobody_started_is_started_by_whoever_looks_twice(state):
    builds_in(state, worker=COUNTED, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state, poke_after_seconds=0.0)
    assert until_ended(builds).phase is BuildPhase.SUCCEEDED
    assert times_run(state) == 1


def test_a_single_look_starts_nothing(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    assert seen(builds_in(state)).phase is BuildPhase.WAITING
    assert folder_of(state).claim() is None


# Numbers.


def test_a_number_is_not_used_twice_even_when_its_folder_was_swept_away(state):
    builds = builds_in(state)
    builds.create(a_spec(number=7))
    until_ended(builds)
    until(lambda: not processes.is_alive(supervisor_of(state)))
    (state / "builds" / "r1" / "b1").rename(state / "away")
    assert builds.find("r1") == []
    assert builds.highest("r1", epoch=1, step="test") == 7
    assert builds.highest("r1", epoch=2, step="test") == 0
    assert builds.highest("r1", epoch=1, step="tes") == 0
    with pytest.raises(Conflict, match="number 7 of test"):
        builds.create(a_spec(number=7))


# Lost.


def test_a_killed_supervisor_is_seen_at_the_next_look_and_takes_its_worker_along(state):
    builds = builds_in(state, worker=FOREVER)
    builds.create(a_spec())
    until_phase(builds, BuildPhase.RUNNING)
    worker = until(folder_of(state).worker)
    supervisor = supervisor_of(state)
    processes.send(supervisor, signal.SIGKILL)
    until(lambda: not processes.is_alive(supervisor))
    assert seen(builds).phase is BuildPhase.GONE
    until(lambda: not processes.is_alive(worker), what="the kernel to end the worker")


def test_a_dead_supervisor_that_nobody_collected_is_gone(state):
    builds_in(state, worker=FOREVER, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    argv = [sys.executable, "-P", "-m", "bridge.local.supervisor", str(folder_of(state).path)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=env) as child:
        until(lambda: in_its_log(builds, "started"))
        assert seen(builds).phase is BuildPhase.RUNNING
        os.kill(child.pid, signal.SIGKILL)
        assert until_ended(builds).phase is BuildPhase.GONE
        assert Path(f"/proc/{child.pid}").exists(), "it is a zombie"


@pytest.mark.parametrize("changes", [{"start": 1}, {"boot": "another"}])
def test_a_number_that_passed_to_another_process_is_nobody_and_is_not_killed(state, changes):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    myself = processes.identity_of(os.getpid()).as_dict() | changes
    folder = folder_of(state)
    folder.make_claim(Claim(5.0, processes.Identity.from_dict(myself)))
    folder.write_worker(processes.Identity.from_dict(myself))
    build = seen(builds)
    assert (build.phase, build.started) == (BuildPhase.GONE, 5.0)
    builds.give_up(build, reason="lost", ending=Ending.LOST)
    assert seen(builds).given_up_as is Ending.LOST


# Giving up.


def test_a_build_given_up_while_it_waits_is_never_started(state):
    builds_in(state, worker=COUNTED, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state, poke_after_seconds=0.0)
    waiting = builds_in(state, kind=NobodyStarts).find("r1")[0]
    builds.give_up(waiting, reason="cancelled by ada", ending=Ending.CANCELLED)
    assert supervise(folder_of(state)) == 0
    build = seen(builds)
    assert (build.phase, build.given_up, build.given_up_as) == (
        BuildPhase.GONE,
        "cancelled by ada",
        Ending.CANCELLED,
    )
    assert build.started is None
    assert times_run(state) == 0


def test_a_tombstone_alone_keeps_a_build_from_being_started(state):
    builds_in(state, worker=COUNTED, kind=NobodyStarts).create(a_spec())
    folder_of(state).write_tombstone(Tombstone("closing", Ending.CANCELLED, 1.0))
    builds = builds_in(state, poke_after_seconds=0.0)
    for _ in range(3):
        assert seen(builds).given_up == "closing"
    supervise(folder_of(state))
    assert times_run(state) == 0


def test_a_build_given_up_while_it_runs_is_told_first_and_ends(state):
    builds = builds_in(state, worker="trap 'echo told; exit 143' TERM; echo started; while :; do sleep 0.05; done")
    builds.create(a_spec())
    until(lambda: in_its_log(builds, "started"))
    builds.give_up(seen(builds), reason="timed out after 1 s", ending=Ending.TIMED_OUT)
    build = seen(builds)
    assert (build.phase, build.given_up_as) == (BuildPhase.GONE, Ending.TIMED_OUT)
    assert in_its_log(builds, "told")
    assert not folder_of(state).payload.exists()


def test_what_does_not_end_by_itself_is_killed_with_all_that_it_started(state):
    worker = """
trap '' TERM
echo $$ >"$1/../../../pids"
setsid sh -c 'trap "" TERM; sleep 1000' & echo $! >>"$1/../../../pids"
mkdir "$1/jobs"; env -i setsid sleep 1000 &
job=$!; sleep 0.2
echo "{\\"pid\\": $job, \\"pidStart\\": $(cut -d' ' -f22 "/proc/$job/stat")}" >"$1/jobs/j.json"
echo $job >>"$1/../../../pids"
echo started
while :; do sleep 1; done
"""
    builds = builds_in(state, worker=worker, grace_seconds=0.2)
    builds.create(a_spec())
    until(lambda: in_its_log(builds, "started"))
    pids = [int(line) for line in (state / "pids").read_text().split()]
    alive = [processes.identity_of(pid) for pid in pids]
    assert len(alive) == 3
    assert None not in alive
    builds.give_up(seen(builds), reason="closing", ending=Ending.CANCELLED)
    assert [processes.identity_of(pid) for pid in pids] == [None] * 3


def test_a_build_that_ended_by_itself_keeps_its_end(state):
    builds = builds_in(state)
    builds.create(a_spec())
    before = until_ended(builds)
    builds.give_up(before, reason="too late", ending=Ending.CANCELLED)
    assert seen(builds) == before


def test_the_first_reason_stands(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    builds.give_up(seen(builds), reason="first", ending=Ending.TIMED_OUT)
    builds.give_up(seen(builds), reason="second", ending=Ending.CANCELLED)
    assert (seen(builds).given_up, seen(builds).given_up_as) == ("first", Ending.TIMED_OUT)


def _give_up(state, n):
    builds = builds_in(state, grace_seconds=0.5)
    builds.give_up(seen(builds, run=f"r{n}"), reason=f"try {n}", ending=Ending.CANCELLED)


def test_a_give_up_that_dies_at_any_point_is_finished_by_the_next(state):
    builds = builds_in(state, worker=FOREVER, grace_seconds=0.5)

    def prepare(n):
        builds.create(a_spec(run=f"r{n}"))
        until(lambda: in_its_log(builds, "started", run=f"r{n}"))

    prepare(1)
    for n in dying_at_each_point(partial(_give_up, state)):
        build = seen(builds, run=f"r{n}")
        builds.give_up(build, reason="again", ending=Ending.CANCELLED)
        after = seen(builds, run=f"r{n}")
        assert after.phase is BuildPhase.GONE
        assert after.given_up == (build.given_up or "again")
        assert processes.marked(folder_of(state, run=f"r{n}").marks) == []
        prepare(n + 1)
    assert seen(builds, run=f"r{n + 1}").phase is BuildPhase.GONE


def test_nobody_counts_a_build_as_ended_whose_giving_up_was_cut_short(state):
    builds = builds_in(state, worker=FOREVER)
    builds.create(a_spec())
    until(lambda: in_its_log(builds, "started"))
    folder_of(state).write_tombstone(Tombstone("cancelled", Ending.CANCELLED, 1.0))
    build = seen(builds)
    outcome = judged(build, log=builds.log(build), at=2.0)
    assert builds.record(build, outcome).ending is Ending.CANCELLED
    assert seen(builds).phase is BuildPhase.GONE
    assert processes.marked(folder_of(state).marks) == []


def test_a_build_that_is_not_there_is_given_up_already(state):
    builds = builds_in(state)
    builds_in(state, kind=NobodyStarts).create(a_spec())
    build = seen(builds)
    builds.forget("r1")
    builds.give_up(build, reason="x", ending=Ending.LOST)
    assert builds.find("r1") == []


# Outcomes and logs.


def test_of_many_outcomes_at_once_one_stands_for_all(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    build = seen(builds)
    barrier = threading.Barrier(10)
    answers = []

    def record(n):
        barrier.wait()
        answers.append(builds.record(build, Outcome(Ending.FAILED, f"by {n}", 2.0, "tail \ud800")))

    threads = [threading.Thread(target=record, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 10
    assert set(answers) == {seen(builds).outcome}


def test_an_outcome_of_a_forgotten_build_is_not_found(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    build = seen(builds)
    builds.forget("r1")
    with pytest.raises(NotFound, match="forgotten"):
        builds.record(build, Outcome(Ending.LOST))


def test_a_long_log_is_read_from_its_end_and_followed_whole(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    build = seen(builds)
    text = b"first\n" + b"x" * LOG_BYTES + b"\xff\nlast\n"
    folder_of(state).log.write_bytes(text)
    log = builds.log(build)
    assert log.endswith("x\ufffd\nlast\n")
    assert len(log) == LOG_BYTES
    got, offset = b"", 0
    while True:
        piece, offset = builds.follow(build, offset=offset)
        if not piece:
            break
        got += piece
    assert got == text
    assert builds.follow(build, offset=offset + 100) == (b"", offset + 100)


def test_a_log_that_is_gone_cannot_be_read(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    assert builds.log(seen(builds)) == ""
    folder_of(state).log.unlink()
    assert builds.log(seen(builds)) is None
    assert builds.follow(seen(builds), offset=3) == (b"", 3)


@pytest.mark.parametrize("name", ["spec.json", "claim", "result.json", "tombstone.json", "outcome.json"])
def test_a_damaged_file_is_unavailable_and_not_a_guess(state, name):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    folder = folder_of(state)
    folder.make_claim(Claim(1.0, None))
    (folder.path / name).write_bytes(b'{"half')
    with pytest.raises(Unavailable, match="damaged"):
        builds_in(state).find("r1")


# Forgetting.


def test_forgetting_ends_what_runs_and_removes_all_of_it(state):
    builds = builds_in(state, worker='mkdir -p "$1/work/j"; chmod 500 "$1/work/j"; exec sleep 1000')
    builds.create(a_spec())
    builds.create(a_spec("b2", run="r2"))
    until((folder_of(state).path / "work" / "j").exists)
    supervisor = supervisor_of(state)
    builds.forget("r1")
    builds.forget("r1")
    assert builds.find("r1") == []
    assert builds.highest("r1", epoch=1, step="test") == 0
    assert not processes.is_alive(supervisor)
    assert [path.name for path in (state / "builds").iterdir()] == ["r2"]
    assert len(builds.find("r2")) == 1


# With Node and our own worker.

SCRIPT = """
const { events, Job } = require("brigadier")
events.on("push", async (e, p) => {
  const job = new Job("hello", "alpine", ["echo from the job; cat a.txt"])
  console.log((await job.run()).toString())
})
events.on("broken", () => { throw new Error("no") })
"""


@pytest.fixture
def with_node(state, tmp_path):
    """Builds of a project folder, by our own worker in Node."""
    folder = tmp_path / "widgets"
    folder.mkdir()
    (folder / "brigade.js").write_text(SCRIPT)
    (folder / "a.txt").write_text("from the source\n")
    (folder / "project.yaml").write_text("sharedSecret: of-the-hook")
    project = some_project(folder=str(folder), source=str(folder))
    try:
        command = node.find_node()
    except Misconfigured as error:
        pytest.skip(str(error))
    return builds_in(state, worker_command=(), node=command, project=project)


@pytest.mark.parametrize(
    ("event", "ending"), [("push", Ending.SUCCEEDED), ("broken", Ending.FAILED), ("unknown", Ending.UNHANDLED)]
)
def test_brigade_js_runs_in_node_and_its_end_is_the_builds(with_node, event, ending):
    with_node.create(a_spec(event=some_event(type=event, revision=Revision())))
    build = until_ended(with_node)
    log = with_node.log(build)
    assert judged(build, log=log, at=1.0).ending is ending, log
    if event == "push":
        assert "from the job\nfrom the source" in log


def test_giving_up_a_build_in_node_ends_its_job(with_node, state, tmp_path):
    script = SCRIPT.replace("echo from the job", "sleep 1000")
    (tmp_path / "widgets" / "brigade.js").write_text(script)
    with_node.create(a_spec())
    job = folder_of(state).path / "jobs" / "hello.json"
    pid = until(lambda: job.exists() and json.loads(job.read_bytes()).get("pid"))
    with_node.give_up(seen(with_node), reason="closing", ending=Ending.CANCELLED)
    assert processes.identity_of(pid) is None
    assert processes.marked(folder_of(state).marks) == []
    assert seen(with_node).given_up == "closing"


# The step's process.


def test_builds_can_be_imported_without_what_is_heavy():
    heavy = ["pydantic", "pydantic_settings", "flask", "hera", "yaml", "rich", "typer", "asyncio"]
    text = f"import sys, bridge.local.builds, bridge.local.supervisor; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_a_build_is_known_by_its_own_run(state):
    builds_in(state, kind=NobodyStarts).create(a_spec())
    builds = builds_in(state)
    stranger = some(seen(builds), run="another")
    builds.give_up(stranger, reason="x", ending=Ending.CANCELLED)
    assert seen(builds).given_up == ""
