import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bridge.core.builds import BuildPhase
from bridge.local import processes
from bridge.local.supervisor import EXIT_NO_SOURCE, EXIT_SOURCE_UNAVAILABLE, Orders, main
from tests.local.building import (
    PROJECT,
    ROOT,
    NobodyStarts,
    a_spec,
    builds_in,
    dying_at_each_point,
    end_all,
    folder_of,
    in_its_log,
    seen,
    some_project,
    supervise,
    until,
    until_ended,
)

COUNTED = 'echo ran >>"$1/../../../ran-$(basename "$(dirname "$1")")"'


@pytest.fixture
def state(tmp_path):
    """The state folder; what still runs in it when a test ends is ended."""
    yield tmp_path / "state"
    end_all(tmp_path / "state")


def asked_for(state, *, run="r1", **settings):
    """Builds with one build that nobody has started."""
    builds = builds_in(state, **{"kind": NobodyStarts, **settings})
    builds.create(a_spec(run=run))
    return builds


def times_run(state, run="r1"):
    counter = state / f"ran-{run}"
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def test_of_many_supervisors_one_runs_the_worker(state):
    builds = asked_for(state, worker=COUNTED)
    argv = [sys.executable, "-P", "-m", "bridge.local.supervisor", str(folder_of(state).path)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    many = [subprocess.Popen(argv, env=env) for _ in range(8)]
    assert [one.wait() for one in many] == [0] * 8
    assert seen(builds).phase is BuildPhase.SUCCEEDED
    assert times_run(state) == 1


def _supervise(state, n):
    main(["supervisor", str(folder_of(state, run=f"r{n}").path)])


def test_a_supervisor_that_dies_at_any_point_never_leads_to_a_second_worker(state):
    builds = asked_for(state, worker=COUNTED)
    phases = set()
    for n in dying_at_each_point(partial(_supervise, state)):
        run = f"r{n}"
        before = until_not_running(builds, run)
        phases.add(before)
        supervise(folder_of(state, run=run))
        after = seen(builds, run=run)
        if before is BuildPhase.WAITING:
            assert (after.phase, times_run(state, run)) == (BuildPhase.SUCCEEDED, 1)
        else:
            assert after.phase is before
            assert times_run(state, run) <= 1
        builds.create(a_spec(run=f"r{n + 1}"))
    assert phases == {BuildPhase.WAITING, BuildPhase.GONE, BuildPhase.SUCCEEDED}
    assert seen(builds, run=f"r{n + 1}").phase is BuildPhase.SUCCEEDED


def until_not_running(builds, run):
    return until(lambda: (phase := seen(builds, run=run).phase) is not BuildPhase.RUNNING and phase)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_supervisor_told_to_stop_tells_its_worker_and_leaves_no_result(state, number):
    builds = builds_in(state, worker="trap 'echo told; exit 1' TERM; echo started; while :; do sleep 0.05; done")
    builds.create(a_spec())
    until(lambda: in_its_log(builds, "started"))
    processes.send(folder_of(state).claim().supervisor, number)
    assert until_ended(builds).phase is BuildPhase.GONE
    assert in_its_log(builds, "told")


def test_a_supervisor_survives_the_session_of_who_started_it(state):
    builds = builds_in(state, worker='until [ -e "$1/../../../go" ]; do sleep 0.05; done')
    builds.create(a_spec())
    supervisor = until(folder_of(state).claim).supervisor
    fields = Path(f"/proc/{supervisor.pid}/stat").read_text().rpartition(")")[2].split()
    parent, group, session = int(fields[1]), int(fields[2]), int(fields[3])
    assert (group, session) == (supervisor.pid, supervisor.pid)
    assert parent != processes.identity_of(supervisor.pid)
    (state / "go").touch()
    assert until_ended(builds).phase is BuildPhase.SUCCEEDED


# The script: of the source, else of the project's folder.


@pytest.mark.parametrize(
    ("there", "script", "wanted"),
    [
        (["source/brigade.js", "project/brigade.js"], "brigade.js", "source/brigade.js"),
        (["project/brigade.js"], "brigade.js", "project/brigade.js"),
        (["source/ci/b.js", "source/brigade.js"], "ci/b.js", "source/ci/b.js"),
        (["source/brigade.js", "project/ci/b.js", "project/brigade.js"], "ci/b.js", "project/ci/b.js"),
        (["project/brigade.js"], "ci/b.js", "project/brigade.js"),
    ],
)
def test_the_script_is_that_of_the_source_else_that_of_the_project(state, tmp_path, there, script, wanted):
    for name in ("source", "project"):
        (tmp_path / name).mkdir()
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("//")
    project = some_project(source=str(tmp_path / "source"), folder=str(tmp_path / "project"), script=script)
    builds = asked_for(state, worker='cat "$1/build.json"', project=project)
    supervise(folder_of(state))
    assert in_its_log(builds, f'"script": "{tmp_path / wanted}"')
    assert in_its_log(builds, f'"source": "{tmp_path / "source"}"')


def test_without_a_script_the_log_says_so_and_the_worker_decides(state, tmp_path):
    project = some_project(source=str(tmp_path), script="ci/b.js")
    builds = asked_for(state, worker="echo decided", project=project)
    supervise(folder_of(state))
    assert in_its_log(builds, "there is no ci/b.js in the source or the project's folder")
    assert in_its_log(builds, "decided")


# Sources that are not there.


def test_a_source_that_is_not_there_is_a_failed_build_that_says_what_to_do(state):
    builds = asked_for(state, worker=COUNTED, project=some_project(source="/does/not/exist"))
    supervise(folder_of(state))
    assert (seen(builds).phase, seen(builds).exit_code) == (BuildPhase.FAILED, EXIT_NO_SOURCE)
    assert in_its_log(builds, "/does/not/exist is not there")
    assert times_run(state) == 0


def test_a_revision_that_is_not_there_is_a_failed_build_and_nothing_else_is_built(state, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "repository"], check=True)
    builds = asked_for(state, worker=COUNTED, project=some_project(source=str(tmp_path / "repository")))
    supervise(folder_of(state))
    assert seen(builds).exit_code == EXIT_NO_SOURCE
    assert in_its_log(builds, f"has no commit {'c' * 40}")
    assert times_run(state) == 0


def test_a_checkout_that_cannot_be_made_is_a_failed_build(state, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "repository"], check=True)
    state.mkdir()
    (state / "mirrors").write_text("a file where a folder should be")
    builds = asked_for(state, project=some_project(source=str(tmp_path / "repository")))
    supervise(folder_of(state))
    assert seen(builds).exit_code == EXIT_SOURCE_UNAVAILABLE


# Containers.


def test_containers_that_a_worker_left_are_removed(state, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ "$1" = ps ] && echo 0123456789ab\nexit 0\n')
    engine.chmod(0o755)
    worker = 'mkdir "$1/jobs"; echo "{}" >"$1/jobs/test.json"'
    builds = asked_for(state, worker=worker, jobs="container", container_command=(str(engine),))
    supervise(folder_of(state))
    assert seen(builds).phase is BuildPhase.SUCCEEDED
    assert (tmp_path / "asked").read_text().splitlines() == [
        "ps --all --quiet --filter label=build=b1",
        "kill 0123456789ab",
        "rm --force 0123456789ab",
    ]


# Orders.


def test_orders_are_read_as_they_were_written(state):
    asked_for(state)
    found = folder_of(state).orders()
    assert Orders.from_dict(found).as_dict() == found
    assert PROJECT.token not in repr(Orders.from_dict(found))


def test_a_build_that_was_forgotten_meanwhile_is_not_made_again(state):
    builds = asked_for(state)
    folder = folder_of(state)
    builds.forget("r1")
    supervise(folder)
    assert not folder.path.exists()
