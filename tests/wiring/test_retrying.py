"""Retries on one machine, as people and programs ask for them over HTTP: what is built again, and how often."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.wiring.test_serving import world

__all__ = ["world"]

SCRIPT = """
const { events } = require("brigadier");
const fs = require("fs");
const fixed = () => fs.existsSync(%s);
const forever = () => new Promise((_, reject) => {
  fs.writeFileSync(%s, "");
  const timer = setInterval(() => { if (fs.existsSync(%s)) { clearInterval(timer); reject(new Error("let go")); } }, 50);
});
events.on("build", () => console.log("built"));
events.on("last", () => console.log("the last"));
events.on("ends_failed", () => { if (!fixed()) throw new Error("it broke"); });
events.on("ends_timed_out", () => fixed() ? undefined : forever());
events.on("ends_cancelled", () => fixed() ? undefined : forever());
events.on("ends_error", () => { if (!fixed()) process.kill(process.ppid, "SIGKILL"); });
"""
PIPELINE = """
projects: acme/widgets
on: push
exit: {failed: none}
steps:
  - name: build
  - {name: %s, needs: build%s}
  - {name: last, needs: %s}
"""
MORE = {"failed": "", "timed_out": ", timeout: 2s", "cancelled": "", "error": ", lost: 0"}
STEP = {kind: kind.replace("_", "-") for kind in MORE}


@pytest.fixture
def served(world):
    """`served(kind, …)`: a bridge with a pipeline whose second step ends in each of these ways, until it is fixed."""

    def serve(*kinds):
        told = {"name": "acme/widgets", "sharedSecret": "not-really-a-secret"}
        pipelines = world.project / "pipelines"
        pipelines.mkdir(parents=True)
        (world.project / "project.yaml").write_text(json.dumps(told))
        signs = tuple(json.dumps(str(world.folder / name)) for name in ("fixed", "stuck", "let-go"))
        (world.project / "brigade.js").write_text(SCRIPT % signs)
        for kind in kinds:
            event = f", event: ends_{kind}{MORE[kind]}"
            (pipelines / f"{STEP[kind]}.yaml").write_text(PIPELINE % (STEP[kind], event, STEP[kind]))
        world.serve()
        return world

    return serve


def push(world):
    """A push; its runs by the end that their second steps come to."""
    payload = {"ref": "refs/heads/main", "after": "c" * 40, "deleted": False, "head_commit": {"id": "c" * 40}}
    status, answer = world.deliver("push", payload)
    assert status == 202, answer
    runs = [world.get(f"/runs/{one['id']}") for one in answer["runs"]]
    return {run["pipeline"].replace("-", "_"): run["id"] for run in runs}


def built(found):
    return {step["name"]: [build["state"] for build in step["builds"]] for step in found["steps"]}


def test_after_every_kind_of_end_only_what_did_not_succeed_is_built_again(served):
    world = served(*MORE)
    runs = push(world)
    middle = STEP["cancelled"]
    running = {"name": middle, "state": "running"}
    world.until(runs["cancelled"], lambda found: any(running.items() <= step.items() for step in found["steps"]))
    assert world.act(runs["cancelled"], "cancel")[0] == 202
    for kind, run in runs.items():
        ended = world.closed(run)
        left = {"error": "lost"}.get(kind, kind)
        assert (ended["verdict"], built(ended)) == (
            kind,
            {"build": ["succeeded"], STEP[kind]: [left], "last": []},
        )

    (world.folder / "fixed").touch()
    for run in runs.values():
        status, answer = world.act(run, "retry", follows=1)
        assert (status, answer["attempt"]) == (202, 2)
    for kind, run in runs.items():
        again = world.closed(run, attempt=2)
        left = {"error": "lost"}.get(kind, kind)
        assert again["verdict"] == "succeeded", again
        assert built(again) == {"build": ["succeeded"], STEP[kind]: [left, "succeeded"], "last": ["succeeded"]}
        assert again["steps"][0]["builds"][0]["attempt"] == 1

    status, answer = world.act(runs["failed"], "retry")
    assert (status, answer["accepted"]) == (200, False)
    assert "nothing to retry" in answer["message"]
    assert world.act(runs["failed"], "rerun")[0] == 202
    rerun = world.closed(runs["failed"], attempt=3)
    assert built(rerun) == {
        "build": ["succeeded", "succeeded"],
        "failed": ["failed", "succeeded", "succeeded"],
        "last": ["succeeded", "succeeded"],
    }


def test_a_hundred_retries_at_once_are_one_attempt_and_ninety_nine_answers_that_name_it(served):
    world = served("failed")
    run = push(world)["failed"]
    world.closed(run)

    def ask(_):
        return world.act(run, "retry", follows=1, request=str(uuid.uuid4()))

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(ask, range(100)))
    assert sorted(status for status, _ in answers) == [200] * 99 + [202]
    assert {answer["attempt"] for _, answer in answers} == {2}
    assert all("attempt 2" in answer["message"] for _, answer in answers)
    again = world.closed(run, attempt=2)
    assert [attempt["kind"] for attempt in again["attempts"]] == ["first", "retry"]
    assert len(again["acts"]) == 1
    assert built(again) == {"build": ["succeeded"], "failed": ["failed", "failed"], "last": []}


def test_a_retry_of_what_runs_is_one_attempt_after_its_end(served):
    world = served("cancelled")
    run = push(world)["cancelled"]
    world.until(run, lambda _found: (world.folder / "stuck").exists())
    asked = [world.act(run, "retry", follows=1) for _ in range(3)]
    assert [status for status, _ in asked] == [202, 200, 200]
    assert {answer["attempt"] for _, answer in asked} == {2}
    assert len(world.get(f"/runs/{run}")["attempts"]) == 1
    (world.folder / "fixed").touch()
    (world.folder / "let-go").touch()
    again = world.closed(run, attempt=2)
    assert [attempt["verdict"] for attempt in again["attempts"]] == ["failed", "succeeded"]
    assert built(again) == {"build": ["succeeded"], "cancelled": ["failed", "succeeded"], "last": ["succeeded"]}


def test_of_a_retry_of_one_step_nothing_else_is_built(served):
    world = served("failed")
    run = push(world)["failed"]
    world.closed(run)
    (world.folder / "fixed").touch()
    status, answer = world.act(run, "retry", only=["last"])
    assert status == 202, answer
    still = world.closed(run, attempt=2)
    assert (still["verdict"], built(still)) == (
        "failed",
        {"build": ["succeeded"], "failed": ["failed"], "last": []},
    )
    assert world.act(run, "retry", only=["failed"])[0] == 202
    world.closed(run, attempt=3)
    assert world.act(run, "retry")[0] in {200, 202}
    done = world.until(run, lambda found: found["phase"] == "closed" and found["verdict"] == "succeeded")
    assert built(done) == {"build": ["succeeded"], "failed": ["failed", "succeeded"], "last": ["succeeded"]}
