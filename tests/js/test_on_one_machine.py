"""Durable jobs on one machine, whole: builds as `bridgectl local` makes them, supervisor, worker and job processes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.builds import BuildPhase
from bridge.local.builds import ProcessBuilds
from bridge.local.folders import BuildFolder
from bridge.local.projects import FolderProjects
from tests.fakes import FakeProjects
from tests.js.nodes import PACKAGE, ROOT, runner
from tests.local.building import PROJECT, WallClock, a_spec, seen, until

SCRIPT = """
const { events } = require("brigadier")
const { DurableJob } = require(%(package)s)
events.on("push", async () => {
  for (const name of ["one", "two", "three", "four"]) {
    const wait = name === "three" ? "while [ ! -f %(folder)s/go ]; do sleep 0.05; done" : "true"
    const job = new DurableJob(name, "alpine:3", ["echo " + name + " $$ >> %(folder)s/started", "echo out of " + name, wait])
    console.log("RESULT " + (await job.run()).toString().trim())
  }
})
"""


@pytest.fixture
def world(tmp_path: Path):
    project = tmp_path / "project"
    project.mkdir()
    known = {"package": json.dumps(str(PACKAGE)), "folder": str(tmp_path)}
    (project / "brigade.js").write_text(SCRIPT % known)
    settings = {"jobs": "host", "clock": WallClock, "node": runner(), "poke_after_seconds": 0.2}
    known_project = replace(PROJECT, folder=str(project), source="", script="brigade.js")
    builds = ProcessBuilds(tmp_path / "state", FakeProjects([known_project]), **settings)
    yield builds
    (tmp_path / "go").touch()
    builds.forget("r1")


def test_after_sigkill_of_the_worker_two_jobs_are_skipped_one_is_launched_again_and_one_runs(world, tmp_path):
    world.create(a_spec("b1", number=1))
    until(lambda: started(tmp_path) == ["one", "two", "three"], what="the third job")
    folder = BuildFolder(tmp_path / "state" / "builds" / "r1" / "b1")
    worker = until(folder.worker, what="the worker's process")
    os.kill(worker.pid, signal.SIGKILL)
    until(
        lambda: seen(world, "b1").phase in {BuildPhase.FAILED, BuildPhase.GONE}, what="the end of the first build"
    )

    world.create(a_spec("b2", number=2))
    until(lambda: started(tmp_path) == ["one", "two", "three", "three"], what="the third job again")
    (tmp_path / "go").touch()
    until(lambda: seen(world, "b2").phase is BuildPhase.SUCCEEDED, what="the second build")

    log = world.log(seen(world, "b2"))
    results = [line for line in log.splitlines() if line.startswith("RESULT")]
    assert results == [f"RESULT out of {name}" for name in ("one", "two", "three", "four")]
    assert "[durable] one: done already in build b1, skipped" in log
    assert "[durable] two: done already in build b1, skipped" in log
    assert started(tmp_path) == ["one", "two", "three", "three", "four"]
    jobs = sorted(path.stem for path in (tmp_path / "state" / "builds" / "r1" / "b2" / "jobs").glob("*.json"))
    assert jobs == ["four", "three"]


def test_what_durable_jobs_keep_is_forgotten_with_their_run(world, tmp_path):
    (tmp_path / "go").touch()
    world.create(a_spec("b1"))
    until(lambda: seen(world, "b1").phase is BuildPhase.SUCCEEDED, what="the build")
    kept = tmp_path / "state" / "builds" / "r1" / ".checkpoints"
    assert len(list(kept.iterdir())) == 4
    world.forget("r1")
    assert not kept.exists()


def test_a_rerun_of_the_step_runs_everything_again(world, tmp_path):
    (tmp_path / "go").touch()
    world.create(a_spec("b1"))
    until(lambda: seen(world, "b1").phase is BuildPhase.SUCCEEDED, what="the build")
    world.create(a_spec("b2", epoch=2, attempt=2))
    until(lambda: seen(world, "b2").phase is BuildPhase.SUCCEEDED, what="the build of the rerun")
    assert started(tmp_path) == ["one", "two", "three", "four"] * 2


def test_the_example_is_a_project_with_a_pipeline(tmp_path):
    projects = FolderProjects(ROOT / "examples")
    assert projects.broken() == []
    assert projects.read("acme/gadgets").script == "brigade.js"
    command = [
        sys.executable,
        "-m",
        "bridge.cli",
        "render",
        str(ROOT / "examples/durable/pipelines"),
        "-o",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    assert [file.name for file in tmp_path.iterdir()] == ["gadgets.yaml"]


def started(folder: Path) -> list[str]:
    """The jobs that were started, in order."""
    try:
        lines = (folder / "started").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines]
