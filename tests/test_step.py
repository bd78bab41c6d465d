"""`brig run` as a process: its flags, its codes, its light start; real builds, with a worker that is a shell script."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.runs import Attempt, Kind, Phase, State
from bridge.errors import BadSettings
from bridge.local.database import FILE_NAME
from bridge.local.runs import SqliteRuns
from bridge.step import _Colorless
from bridge.wiring.steps import place_of
from tests.fakes import some_run

BRIGADE_JS = """
const { events } = require("brigadier");
events.on("good", () => console.log("all is well"));
events.on("bad", () => { throw new Error("it broke"); });
events.on("payload", (e) => console.log("got " + e.payload + " of " + e.provider));
"""


@pytest.fixture
def world(tmp_path):
    """A project and a record whose attempt 1 runs."""
    project = tmp_path / "projects" / "widgets"
    project.mkdir(parents=True)
    (project / "project.yaml").write_text("name: acme/widgets\n")
    (project / "brigade.js").write_text(BRIGADE_JS)
    runs = SqliteRuns(tmp_path / "state" / FILE_NAME)
    run = some_run()
    runs.create(run, b'{"a": 1}')
    attempt = Attempt(1, Kind.FIRST, 1, 0.0, steps=("s",))
    runs.change(run.id, lambda now: replace(now, phase=Phase.RUNNING, state=State(attempts=(attempt,))))
    runs.close()
    return tmp_path


def step(world: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    told = {
        "PATH": os.environ["PATH"],
        "BRIDGE_STATE_DIR": str(world / "state"),
        "BRIDGE_PROJECTS_DIR": str(world / "projects"),
        "BRIDGE_JOBS": "host",
        "BRIDGE_RUN": "push-r1",
        "BRIDGE_ATTEMPT": "1",
        "BRIDGE_STEP": "s",
        **environment,
    }
    argv = [sys.executable, "-m", "bridge.step", *arguments]
    return subprocess.run(argv, env=told, text=True, capture_output=True, timeout=200, check=False)


def test_a_build_that_succeeds_is_0_and_its_log_is_shown(world):
    ended = step(world, "-e", "good", "--tries", "1")
    assert ended.returncode == 0, ended.stderr
    assert "all is well" in ended.stdout
    assert "Build: " in ended.stdout
    again = step(world, "-e", "good", "--tries", "1")
    assert again.returncode == 0
    assert "Build: " not in again.stdout


def test_a_build_that_fails_is_2_and_says_which(world):
    ended = step(world, "-e", "bad", "--tries", "2", "--backoff", "0s")
    assert ended.returncode == 2
    assert "build 2" in ended.stderr
    assert ended.stdout.count("it broke") >= 2


def test_no_handler_is_3_or_the_next_event(world):
    assert step(world, "-e", "nobody", "--tries", "1").returncode == 3
    ended = step(world, "-e", "nobody", "-e", "good", "--tries", "1", BRIDGE_STEP="t")
    assert ended.returncode == 0, ended.stderr


def test_the_payload_and_the_provider_are_the_records(world):
    assert 'got {"a": 1} of github' in step(world, "-e", "payload", "--tries", "1").stdout


def test_an_attempt_that_is_not_in_the_record_asks_again(world):
    assert step(world, "-e", "good", BRIDGE_ATTEMPT="7").returncode == 75
    assert step(world, "-e", "good", BRIDGE_RUN="unknown").returncode == 75


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["-e", "error"], ["-e", "x", "--tries", "many"], ["-e", "x", "--timeout", "soon"], ["-e"]],
)
def test_bad_usage_is_1_and_says_what(world, arguments):
    ended = step(world, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith("brig: ")


def test_by_hand_each_call_is_a_build_of_its_own(world):
    flags = ["acme/widgets", "-e", "payload", "-p", str(world / "p"), "-c", "c" * 40]
    (world / "p").write_text("by hand")
    for _ in range(2):
        ended = step(world, *flags, BRIDGE_RUN="none")
        assert ended.returncode == 0, ended.stderr
        assert "got by hand of brigade-cli" in ended.stdout


def test_by_hand_in_a_workflow_the_second_call_attaches(world):
    told = {"BRIDGE_RUN": "none", "BRIDGE_WORKFLOW_UID": "u-1", "BRIDGE_PROJECT": "acme/widgets"}
    assert "Build: " in step(world, "-e", "good", **told).stdout
    again = step(world, "-e", "good", **told)
    assert (again.returncode, "Build: " in again.stdout) == (0, False)


def test_by_hand_without_a_project_is_bad_usage(world):
    assert step(world, "-e", "good", BRIDGE_RUN="none").returncode == 1
    assert step(world, "acme/widgets", "-e", "good", "-p", "/nowhere", BRIDGE_RUN="none").returncode == 1


def test_an_unknown_project_is_bad_usage(world):
    assert step(world, "acme/nobody", "-e", "good", BRIDGE_RUN="none").returncode == 1


@pytest.mark.parametrize(
    "told", [{"BRIDGE_ATTEMPT": "first"}, {"BRIDGE_RUN": "r", "BRIDGE_STEP": ""}], ids=["attempt", "step"]
)
def test_a_variable_that_is_wrong_is_named(told):
    with pytest.raises(BadSettings, match="BRIDGE_"):
        place_of(environment=told)


def test_nothing_heavy_is_imported():
    code = "import sys, bridge.step; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=True
    ).stdout.split()
    assert not {"hera", "flask", "pydantic", "typer", "rich", "githubkit", "structlog", "urllib3"} & set(loaded)


def test_sigterm_leaves_the_build_alone(world):
    (world / "projects" / "widgets" / "brigade.js").write_text(
        'require("brigadier").events.on("slow", () => new Promise((done) => setTimeout(done, 3000)));'
    )
    told = {
        **os.environ, "BRIDGE_STATE_DIR": str(world / "state"), "BRIDGE_PROJECTS_DIR": str(world / "projects"),
        "BRIDGE_JOBS": "host", "BRIDGE_RUN": "push-r1", "BRIDGE_ATTEMPT": "1", "BRIDGE_STEP": "s",
    }  # fmt: skip
    argv = [sys.executable, "-m", "bridge.step", "-e", "slow", "--tries", "1"]
    with subprocess.Popen(argv, env=told, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert "Build: " in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    again = step(world, "-e", "slow", "--tries", "1")
    assert (again.returncode, "Build: " in again.stdout) == (0, False), again.stderr


def test_on_one_machine_brigs_cluster_flags_say_nothing_and_files_are_refused(world, tmp_path):
    flags = ["-n", "brigade", "--kube-context", "x", "--no-progress", "-v", "--checkout", "commit"]
    ended = step(world, *flags, "-e", "good", "--tries", "1")
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "script.js").write_text("//")
    refused = step(world, "-e", "good", "-f", str(tmp_path / "script.js"))
    assert refused.returncode == 1
    assert "-f and --config are for clusters" in refused.stderr


def test_brigs_own_flags_may_stand_before_its_subcommand(world):
    for words in (["-n", "x", "run"], ["--namespace=x", "-v", "exec"], ["run"]):
        assert step(world, *words, "-e", "good", "--tries", "1").returncode == 0
    assert step(world, "-e", "run", "--tries", "1", BRIDGE_STEP="t").returncode == 3


def test_a_log_loses_its_colors_only_if_that_is_asked_for(world):
    (world / "projects" / "widgets" / "brigade.js").write_text(
        r'require("brigadier").events.on("red", () => console.log("\x1b[31mred\x1b[0m"));'
    )
    assert "\x1b[31mred" in step(world, "-e", "red", "--tries", "1").stdout
    plain = step(world, "-e", "red", "--tries", "1", "--no-color", BRIDGE_STEP="t")
    assert "\x1b" not in plain.stdout
    assert "red" in plain.stdout


def test_a_color_in_two_pieces_is_taken_out_too():
    shown = []
    show = _Colorless(shown.append)
    for piece in (b"a\x1b", b"[3", b"1mb\x1b[0", b"mc\n\x1b[K"):
        show(piece)
    assert b"".join(shown) == b"abc\n\x1b[K"
