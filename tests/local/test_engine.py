"""The engine of one machine, with shell scripts as steps."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import bridge
from bridge.core.executions import NodePhase
from bridge.errors import BadPipeline, Conflict, NotFound, Unavailable
from bridge.local import processes
from bridge.local.engine import LocalEngine
from tests.fakes import FakeClock, some_run

SHELL = ("/bin/sh", "-c")
PATIENCE_SECONDS = 60
RUN = some_run("pr-1", pipeline="pr")


def until(condition, *, act=lambda: None):
    """Wait for `condition`, calling `act` in between."""
    over = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < over:
        act()
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def step(script, **fields):
    return {"container": {"command": ["brig"], "args": ["run", script], **fields.pop("container", {})}, **fields}


def template(tasks, *, bye=None, spec=None, **templates):
    """A DAG of `tasks`, name → depends; their templates are of the same names."""
    listed = [{"name": name, "template": name, "depends": after} for name, after in tasks.items()]
    bye = {"bye": {"container": {"command": ["bridgectl"], "args": ["exit", bye]}}} if bye else {}
    given = {"main": {"dag": {"tasks": listed, "failFast": False}}, **templates, **bye}
    return {
        "metadata": {"name": "pr"},
        "spec": {
            "entrypoint": "main",
            **({"onExit": "bye"} if bye else {}),
            "templates": [{"name": name, **one} for name, one in given.items()],
            **(spec or {}),
        },
    }


class World:
    """An engine over a folder, and what its steps left there."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.state = folder / "state"
        self.templates = {}
        self.options = options
        self.engines = []
        self.engine = self.new_engine()

    def new_engine(self, **options):
        known = {
            "step_command": SHELL,
            "exit_command": SHELL,
            "environment": {"HERE": str(self.folder)},
            "grace_seconds": 10,
        }
        engine = LocalEngine(self.state, self.template, **{**known, **self.options, **options})
        self.engines.append(engine)
        return engine

    def template(self, name):
        if name not in self.templates:
            raise NotFound(f"there is no {name}")
        return self.templates[name]

    def submit(self, manifest, run=RUN, attempt=1):
        self.templates[run.pipeline] = manifest
        return self.engine.submit(run, attempt)

    def finish(self, manifest=None, run=RUN):
        if manifest is not None:
            self.submit(manifest, run)
        until(lambda: self.seen(run).finished, act=self.engine.pass_once)
        return self.seen(run)

    def seen(self, run=RUN):
        return self.engine.observe(run, 1)

    def node(self, name, run=RUN):
        return next((node for node in self.seen(run).nodes if node.step == name), None)

    def lines(self, name):
        path = self.folder / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def wait_for(self, name, count=1):
        return until(lambda: len(self.lines(name)) >= count and self.lines(name), act=self.engine.pass_once)


@pytest.fixture
def new_world(tmp_path):
    made = []

    def make(**options):
        made.append(World(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        for engine in one.engines:
            engine.close()


@pytest.fixture
def world(new_world):
    return new_world()


@contextmanager
def running(engine):
    """`engine` runs in a thread; it is stopped at the end, whatever happens."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run_forever, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def gone(pid):
    one = processes.identity_of(int(pid))
    return one is None


SLEEP = "echo $$ >> $HERE/pids; exec sleep 1000"


def test_a_step_runs_as_its_template_says(world):
    manifest = template(
        {"a": ""},
        a=step(
            'echo "$RUN $ATTEMPT $WORKFLOW $FLAG"; echo err >&2',
            container={
                "env": [
                    {"name": "RUN", "value": "{{workflow.parameters.run}}"},
                    {"name": "ATTEMPT", "value": "{{workflow.parameters.attempt}}"},
                    {"name": "WORKFLOW", "value": "{{workflow.name}} {{workflow.uid}}"},
                    {"name": "FLAG", "value": "$(id)"},
                ]
            },
        ),
    )
    uid = world.submit(manifest)
    before = world.seen()
    assert (before.uid, before.root, before.nodes, before.finished) == (uid, None, (), False)
    execution = world.finish()
    assert (execution.root, execution.message) == (NodePhase.SUCCEEDED, "")
    (node,) = execution.nodes
    assert (node.step, node.phase, node.exit_code, node.message) == ("a", NodePhase.SUCCEEDED, 0, "")
    assert node.started <= node.ended
    log = world.state / "steps" / "pr-1" / "a.1.log"
    assert log.read_text() == f"pr-1 1 pr-1 {uid} $(id)\nerr\n"
    assert log.stat().st_mode & 0o077 == 0
    assert not world.engine.pass_once()


def test_steps_get_the_wirings_variables_and_none_of_bridges_settings(world, monkeypatch):
    monkeypatch.setenv("BRIDGE_ACT_TOKENS", "secret")
    monkeypatch.setenv("PLAIN", "yes")
    env = [{"name": "HERE", "value": "/nowhere"}, {"name": "BRIDGE_STEP", "value": "a"}]
    world.finish(template({"a": ""}, a=step("env > $HERE/env", container={"env": env})))
    seen = dict(line.split("=", 1) for line in world.lines("env") if "=" in line)
    assert seen["HERE"] == str(world.folder)
    assert (seen["BRIDGE_STEP"], seen["PLAIN"], seen["PATH"]) == ("a", "yes", os.environ["PATH"])
    assert "BRIDGE_ACT_TOKENS" not in seen
    assert str(Path(bridge.__file__).parents[1]) in seen["PYTHONPATH"].split(":")


def test_an_ordinary_container_gets_little_and_a_folder_of_its_own(new_world, monkeypatch):
    world = new_world(run_on_host=True)
    monkeypatch.setenv("PLAIN", "secret")
    script = f"pwd > {world.folder}/pwd; env > {world.folder}/env"
    command = {"command": ["/bin/sh", "-c"], "args": [script], "env": [{"name": "MINE", "value": "1"}]}
    assert world.finish(template({"a": ""}, a={"container": command})).root is NodePhase.SUCCEEDED
    assert world.lines("pwd") == [str(world.state / "steps" / "pr-1" / "a.1.work")]
    assert "MINE=1" in world.lines("env")
    assert not [line for line in world.lines("env") if line.startswith(("PLAIN", "HERE"))]


def test_what_cannot_be_run_is_refused_before_anything_starts(world):
    with pytest.raises(BadPipeline, match="ordinary containers need a cluster or --jobs=host"):
        world.submit(template({"a": ""}, a={"container": {"command": ["make"]}}))
    assert world.seen() is None
    with pytest.raises(BadPipeline, match="pipeline nowhere cannot be run: there is no nowhere"):
        world.engine.submit(replace(RUN, pipeline="nowhere"), 1)
    assert not world.engine.pass_once()


def test_steps_run_in_the_order_of_their_dependencies(world):
    tasks = {"d": "b && c", "b": "a", "c": "a", "a": ""}
    scripts = {name: step(f"echo {name} >> $HERE/order") for name in tasks}
    execution = world.finish(template(tasks, bye='echo "bye $STATUS" >> $HERE/order', **scripts))
    order = world.lines("order")
    assert (order[0], set(order[1:3]), order[3:]) == ("a", {"b", "c"}, ["d", "bye "])
    assert {node.step for node in execution.nodes} == set(tasks)


def test_the_exit_handler_is_told_how_it_ended(world):
    manifest = template({"a": "", "b": "a"}, bye="-", a=step("exit 2"), b=step("true"))
    manifest["spec"]["templates"][-1]["container"]["args"] = ["exit", "echo {{workflow.status}} > $HERE/status"]
    execution = world.finish(manifest)
    assert (execution.root, execution.message) == (NodePhase.FAILED, "")
    assert world.lines("status") == ["Failed"]
    a, b = world.node("a"), world.node("b")
    assert (a.phase, a.exit_code, a.message) == (NodePhase.FAILED, 2, "Error (exit code 2)")
    assert (b.phase, b.message) == (NodePhase.OMITTED, "omitted: depends condition not met")


def test_a_failing_exit_handler_changes_nothing(world):
    assert world.finish(template({"a": ""}, bye="exit 3", a=step("true"))).root is NodePhase.SUCCEEDED


def test_no_more_steps_run_at_once_than_are_allowed(new_world):
    world = new_world(parallel_steps=2)
    script = "mkdir $HERE/at.$$; ls -d $HERE/at.* | wc -l >> $HERE/counts; sleep 0.05; rmdir $HERE/at.$$"
    for number in range(2):
        tasks = {f"t{n}": "" for n in range(4)}
        run = some_run(f"pr-{number}", pipeline="pr")
        world.submit(template(tasks, **{name: step(script) for name in tasks}), run)
    for number in range(2):
        assert world.finish(run=some_run(f"pr-{number}")).root is NodePhase.SUCCEEDED
    counts = [int(line) for line in world.lines("counts")]
    assert len(counts) == 8
    assert max(counts) <= 2


def test_steps_run_side_by_side(world):
    meet = "touch $HERE/at.%s; while ! [ -e $HERE/at.%s ]; do sleep 0.02; done"
    manifest = template({"a": "", "b": ""}, a=step(meet % ("a", "b")), b=step(meet % ("b", "a")))
    assert world.finish(manifest).root is NodePhase.SUCCEEDED


def retrying(**fields):
    expression = (
        "lastRetry.status == 'Error' || (lastRetry.exitCode in ['75','64','137','143'] "
        "&& not (lastRetry.message contains 'specified deadline'))"
    )
    return {
        "limit": "2",
        "retryPolicy": "Always",
        "expression": expression,
        "backoff": {"duration": "10ms"},
        **fields,
    }


def test_a_step_that_could_not_find_out_is_started_again(world):
    script = 'echo "$TRY" >> $HERE/tries; [ "$TRY" = 1 ] || exit 75'
    env = {"env": [{"name": "TRY", "value": "{{retries}}"}]}
    world.finish(template({"a": ""}, a=step(script, container=env, retryStrategy=retrying())))
    assert world.lines("tries") == ["0", "1"]
    assert (world.node("a").phase, world.node("a").exit_code) == (NodePhase.SUCCEEDED, 0)
    assert (world.state / "steps" / "pr-1" / "a.2.log").exists()


@pytest.mark.parametrize(
    ("script", "code", "tries"), [("exit 75", 75, 3), ("kill -9 $$", 137, 3), ("exit 2", 2, 1)]
)
def test_retries_have_an_end_and_an_answer_is_final(world, script, code, tries):
    script = f"echo x >> $HERE/tries; echo 'brig: why not'; {script}"
    execution = world.finish(template({"a": ""}, a=step(script, retryStrategy=retrying())))
    assert execution.root is NodePhase.FAILED
    assert len(world.lines("tries")) == tries
    message = f"Error (exit code {code}): brig: why not"
    node = world.node("a")
    assert (node.exit_code, node.message) == (code, f"No more retries left: {message}" if tries == 3 else message)


def test_only_bridges_own_last_words_are_repeated(world):
    world.finish(template({"a": ""}, a=step("echo 'brig: x'; echo password; exit 1")))
    assert world.node("a").message == "Error (exit code 1)"


def test_a_command_that_is_not_there_fails_its_step(new_world):
    world = new_world(step_command=("/nowhere/at/all",))
    world.finish(template({"a": ""}, a=step("x")))
    assert world.node("a").exit_code == 127
    assert "/nowhere/at/all cannot be started" in world.node("a").message


def test_an_exit_code_that_somebody_else_took_is_an_error_and_tried_again(world):
    script = 'echo $$ >> $HERE/pids; [ "$TRY" = 1 ]'
    env = {"env": [{"name": "TRY", "value": "{{retries}}"}]}
    world.submit(template({"a": ""}, a=step(script, container=env, retryStrategy=retrying())))
    world.engine.pass_once()
    until(lambda: world.lines("pids"))
    os.waitpid(int(world.lines("pids")[0]), 0)
    assert world.finish().root is NodePhase.SUCCEEDED
    assert len(world.lines("pids")) == 2


def test_past_the_deadline_steps_end_and_the_exit_handler_runs(new_world):
    clock = FakeClock()
    world = new_world(clock=clock)
    spec = {"activeDeadlineSeconds": 60}
    world.submit(
        template({"a": "", "b": "a"}, bye="echo bye > $HERE/bye", spec=spec, a=step(SLEEP), b=step("true"))
    )
    (pid,) = world.wait_for("pids")
    clock.advance(59)
    world.engine.pass_once()
    assert not gone(pid)
    clock.advance(1)
    execution = world.finish()
    assert gone(pid)
    assert execution.root is NodePhase.FAILED
    assert execution.message.startswith("exceeded workflow deadline 20")
    assert (world.node("a").phase, world.node("a").exit_code) == (NodePhase.FAILED, 143)
    assert world.lines("bye") == ["bye"]


def test_a_templates_own_timeout_ends_a_try_for_good(new_world):
    clock = FakeClock()
    world = new_world(clock=clock)
    world.submit(template({"a": ""}, a=step(SLEEP, timeout="30s", retryStrategy=retrying())))
    world.wait_for("pids")
    clock.advance(30)
    world.finish()
    node = world.node("a")
    assert (node.phase, node.exit_code) == (NodePhase.FAILED, 143)
    assert node.message == "Pod was active on the node longer than the specified deadline"
    assert len(world.lines("pids")) == 1


def test_the_exit_handler_has_a_timeout_of_its_own(new_world):
    clock = FakeClock()
    world = new_world(clock=clock)
    manifest = template({"a": ""}, bye=SLEEP, a=step("true"))
    manifest["spec"]["templates"][-1]["timeout"] = "180s"
    world.submit(manifest)
    (pid,) = world.wait_for("pids")
    assert (world.seen().root, world.seen().finished) == (NodePhase.SUCCEEDED, False)
    clock.advance(180)
    assert world.finish().root is NodePhase.SUCCEEDED
    assert gone(pid)


def test_stop_ends_the_steps_and_runs_the_exit_handler(world):
    manifest = template({"a": "", "b": "a"}, bye="echo bye > $HERE/bye", a=step(SLEEP), b=step("true"))
    world.submit(manifest)
    (pid,) = world.wait_for("pids")
    # From another process it comes through the database alone.
    other = world.new_engine()
    other.stop(RUN, 1)
    other.stop(RUN, 1)
    execution = world.finish()
    assert (execution.root, execution.message) == (NodePhase.FAILED, "Stopped with strategy 'Stop'")
    assert world.node("a").message == "Stopped with strategy 'Stop'"
    assert world.lines("bye") == ["bye"]
    assert gone(pid)
    world.engine.stop(RUN, 1)
    world.engine.terminate(RUN, 1)
    assert world.seen() == execution


def test_stop_before_the_first_look_starts_no_step(world):
    world.submit(template({"a": ""}, bye="echo bye > $HERE/bye", a=step("touch $HERE/ran")))
    world.engine.stop(RUN, 1)
    assert world.finish().root is NodePhase.FAILED
    assert world.lines("bye") == ["bye"]
    assert not (world.folder / "ran").exists()


def test_a_termination_runs_no_exit_handler(world):
    world.submit(template({"a": ""}, bye="echo bye > $HERE/bye", a=step(SLEEP)))
    world.wait_for("pids")
    world.engine.stop(RUN, 1)
    world.engine.terminate(RUN, 1)
    execution = world.finish()
    assert (execution.root, execution.message) == (NodePhase.FAILED, "Stopped with strategy 'Terminate'")
    assert not world.lines("bye")


def test_a_step_that_will_not_end_is_killed_with_what_it_started(new_world):
    world = new_world(grace_seconds=0.1)
    script = "trap '' TERM; (trap '' TERM; echo $(exec sh -c 'echo $PPID') >> $HERE/pids; sleep 1000) & echo $$ >> $HERE/pids; wait; sleep 1000"
    world.submit(template({"a": ""}, a=step(script)))
    pids = world.wait_for("pids", 2)
    world.engine.terminate(RUN, 1)
    world.finish()
    assert world.node("a").exit_code == 137
    until(lambda: all(gone(pid) for pid in pids))


def test_a_deleted_workflow_is_gone_with_its_processes_and_logs(world):
    uid = world.submit(template({"a": ""}, bye="echo bye > $HERE/bye", a=step(SLEEP)))
    (pid,) = world.wait_for("pids")
    world.new_engine().delete(RUN, 1)
    assert world.seen() is None
    until(lambda: not world.engine.pass_once())
    assert gone(pid)
    assert not (world.state / "steps" / "pr-1").exists()
    assert not world.lines("bye")
    for act in (world.engine.touch, world.engine.stop, world.engine.terminate, world.engine.delete):
        act(RUN, 1)
    assert world.engine.submit(RUN, 1) == uid
    assert world.seen() is None
    assert not world.engine.pass_once()


def test_a_finished_workflow_can_be_deleted(world):
    world.finish(template({"a": ""}, a=step("true")))
    world.engine.delete(RUN, 1)
    until(lambda: not world.engine.pass_once())
    assert not (world.state / "steps" / "pr-1").exists()


def test_a_forgotten_run_that_comes_again_has_a_workflow_of_its_own(world):
    manifest = template({"a": ""}, a=step("echo x >> $HERE/ran"))
    first = world.submit(manifest)
    world.finish()
    world.engine.delete(RUN, 1)
    again = replace(RUN, accepted=RUN.accepted + 1)
    with pytest.raises(Unavailable, match="still being removed"):
        world.engine.submit(again, 1)
    until(lambda: not world.engine.pass_once())
    assert world.engine.submit(again, 1) != first
    assert world.finish().root is NodePhase.SUCCEEDED
    assert len(world.lines("ran")) == 2


def test_a_workflow_runs_what_it_was_submitted_with(world):
    world.submit(template({"a": ""}, a=step("echo first > $HERE/said")))
    world.templates["pr"] = template({"a": ""}, a=step("echo second > $HERE/said"))
    world.finish()
    assert world.lines("said") == ["first"]


def test_a_workflow_that_cannot_go_on_stops_no_other(new_world):
    world = new_world(run_on_host=True)
    stuck = some_run("stuck-1", pipeline="stuck")
    world.submit(template({"a": ""}, bye="true", a={"container": {"command": ["true"]}}), stuck)
    world.submit(template({"a": ""}, a=step("true")))
    # The next bridge was started without --jobs=host.
    world.engine = world.new_engine(run_on_host=False)
    assert world.finish().root is NodePhase.SUCCEEDED
    execution = world.finish(run=stuck)
    assert execution.root is NodePhase.ERROR
    assert "ordinary containers need a cluster" in execution.message
    world.engine.delete(stuck, 1)
    until(lambda: not world.engine.pass_once())


def test_a_damaged_workflow_stops_no_other_and_can_be_removed(world):
    stuck = some_run("stuck-1", pipeline="stuck")
    world.submit(template({"a": ""}, a=step("true")), stuck)
    with world.engine._rows._database.writing() as connection:
        connection.execute("UPDATE workflows SET template = '{' WHERE run = 'stuck-1'")
    assert world.finish(template({"a": ""}, a=step("true"))).root is NodePhase.SUCCEEDED
    execution = world.finish(run=stuck)
    assert (execution.root, execution.message) == (NodePhase.ERROR, "a defect: JSONDecodeError, see the log")


def test_two_engines_never_share_a_state_folder(world):
    world.submit(template({"a": ""}, a=step("true")))
    world.engine.pass_once()
    second = world.new_engine()
    with pytest.raises(Conflict, match=rf"another engine \(process {os.getpid()}\) runs the steps of .*state"):
        second.pass_once()
    with running(second):
        world.engine.close()
        until(lambda: world.seen().finished)
    assert world.seen().root is NodePhase.SUCCEEDED


def test_an_engine_that_waits_can_be_stopped_and_says_once_why_it_waits(world, caplog):
    world.engine.pass_once()
    with running(world.new_engine()):
        until(lambda: caplog.messages)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the engine waits: another engine")


def test_an_engine_that_ends_ends_its_steps_and_the_next_one_starts_them_again(world):
    script = (
        '[ -e $HERE/again ] && exit 0; echo $$ >> $HERE/pids; trap "exit 75" TERM; while :; do sleep 0.05; done'
    )
    manifest = template({"a": "", "b": "a"}, a=step("echo x >> $HERE/a"), b=step(script))
    world.submit(manifest)
    with running(world.engine):
        (pid,) = until(lambda: world.lines("pids"))
    assert gone(pid)
    assert world.node("b").phase is NodePhase.RUNNING
    (world.folder / "again").touch()
    world.engine = world.new_engine()
    execution = world.finish()
    assert execution.root is NodePhase.SUCCEEDED
    assert len(world.lines("a")) == 1


def test_a_success_while_the_engine_ends_is_not_lost(world):
    script = 'trap "exit 0" TERM; echo $$ >> $HERE/pids; while :; do sleep 0.05; done'
    world.submit(template({"a": ""}, a=step(script)))
    world.wait_for("pids")
    world.engine.close()
    assert world.node("a").phase is NodePhase.SUCCEEDED
    world.engine = world.new_engine()
    assert world.finish().root is NodePhase.SUCCEEDED
    assert len(world.lines("pids")) == 1


SERVER = """
import sys, threading, yaml
from pathlib import Path
from bridge.local.engine import LocalEngine
folder = Path(sys.argv[1])
shell = ("/bin/sh", "-c")
engine = LocalEngine(
    folder / "state", lambda name: yaml.safe_load((folder / "pr.yaml").read_text()),
    step_command=shell, exit_command=shell, environment={"HERE": str(folder)},
)
thread = threading.Thread(target=engine.run_forever, args=(threading.Event(),), daemon=True)
thread.start()
thread.join()
"""


def test_after_sigkill_steps_die_with_the_server_and_the_next_one_goes_on(world):
    child = "(trap '' TERM HUP; echo $(exec sh -c 'echo $PPID') >> $HERE/pids; exec sleep 1000) &"
    script = f"[ -e $HERE/again ] && exit 0; {child} echo $$ >> $HERE/pids; wait"
    manifest = template(
        {"a": "", "b": "a", "c": "b"},
        bye="echo bye >> $HERE/bye",
        a=step("echo x >> $HERE/a"),
        b=step(script, retryStrategy={"limit": 0}),
        c=step("true"),
    )
    uid = world.submit(manifest)
    (world.folder / "pr.yaml").write_text(yaml.safe_dump(manifest))
    paths = (str(Path(bridge.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(world.folder)], env=env)
    try:
        pids = until(lambda: len(world.lines("pids")) >= 2 and world.lines("pids"))
        until(lambda: world.node("b") is not None)
    finally:
        server.kill()
        server.wait()
    # The kernel ended the step itself; what the step had started is for the next engine to find.
    until(lambda: any(gone(pid) for pid in pids))
    (world.folder / "again").touch()
    execution = world.finish()
    assert (execution.uid, execution.root) == (uid, NodePhase.SUCCEEDED)
    assert len(world.lines("a")) == 1
    assert world.lines("bye") == ["bye"]
    left = [pid for pid in pids if not gone(pid)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    assert not left


def test_nobody_is_left_behind_when_the_log_cannot_be_written(world):
    world.submit(template({"a": ""}, a=step("echo x >> $HERE/a")))
    folder = world.state / "steps"
    folder.write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be made"):
        world.engine.pass_once()
    folder.unlink()
    assert world.finish().root is NodePhase.SUCCEEDED
    assert world.lines("a") == ["x"]
