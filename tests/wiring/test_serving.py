"""`bridgectl local` as a process, over real projects: what a person with one machine sees."""

import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.servers import Server
from bridge.errors import Misconfigured
from bridge.sending import send
from bridge.settings import Settings
from bridge.wiring.serving import with_commands
from tests.js.nodes import PACKAGE

SECRET = "not-really-a-secret"
TOKEN = "a-token-for-tests"
PATIENCE_SECONDS = 120
PLAIN = """
const { events } = require("brigadier");
events.on("push", (e) => console.log("pushed " + e.revision.commit));
"""
SPLIT = """
const { events } = require("brigadier");
const fs = require("fs");
events.on("build", () => console.log("built"));
events.on("test", () => { if (fs.existsSync(process.env.HOME + "/never") || %s) throw new Error("it broke"); });
events.on("build_failed", (e) => console.log("told: " + JSON.parse(e.payload).bridge.verdict));
"""
PIPELINE = """
projects: acme/widgets
on: push
steps:
  - name: build
  - name: test
    needs: build
"""


@dataclass
class World:
    """A folder of one project, and a bridge that serves it."""

    folder: Path
    github: FakeGitHub
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))
    servers: list = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.folder / "widgets"

    def write(self, script: str, *, pipeline: str = "", **more) -> None:
        self.project.mkdir(exist_ok=True)
        (self.project / "brigade.js").write_text(script)
        told = {"name": "acme/widgets", "sharedSecret": SECRET, **more}
        (self.project / "project.yaml").write_text(json.dumps(told))
        if pipeline:
            (self.project / "pipelines").mkdir(exist_ok=True)
            (self.project / "pipelines" / "push.yaml").write_text(pipeline)

    def serve(self) -> Server:
        argv = [sys.executable, "-m", "bridge.cli", "local", str(self.folder), "--jobs", "host", "--port", "0"]
        server = Server(
            argv, log=self.folder.parent / "log", environment={"BRIDGE_GITHUB_API_URL": self.github.url}
        )
        self.servers.append(server)
        server.start()
        return server

    @property
    def url(self) -> str:
        return self.servers[-1].url

    def deliver(self, event: str, payload: dict) -> tuple[int, dict]:
        body = json.dumps({**payload, "repository": {"full_name": "acme/widgets"}}).encode()
        where, delivery = f"{self.url}/events/github", str(uuid.uuid4())
        return send(where, event, body, secret=SECRET, delivery=delivery, timeout_seconds=PATIENCE_SECONDS)

    def push(self, commit: str = "c" * 40) -> str:
        status, answer = self.deliver(
            "push", {"ref": "refs/heads/main", "after": commit, "deleted": False, "head_commit": {"id": commit}}
        )
        assert status == 202, answer
        return answer["runs"][0]["id"]

    def get(self, path: str) -> dict:
        answer = self.http.request("GET", f"{self.url}/api/v1{path}", timeout=PATIENCE_SECONDS)
        assert answer.status == 200, answer.data
        return answer.json()

    def act(self, run: str, kind: str, **more) -> tuple[int, dict]:
        answer = self.http.request(
            "POST",
            f"{self.url}/api/v1/runs/{run}/{kind}",
            json={"request": str(uuid.uuid4()), **more},
            timeout=PATIENCE_SECONDS,
        )
        return answer.status, answer.json()

    def closed(self, run: str, attempt: int = 1) -> dict:
        return self.until(run, lambda found: found["phase"] == "closed" and found["attempt"] == attempt)

    def until(self, run: str, holds) -> dict:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = self.get(f"/runs/{run}")
            if holds(found):
                return found
            time.sleep(0.2)
        raise AssertionError(f"it never came to that: {found}")


@pytest.fixture
def world(tmp_path):
    with FakeGitHub(tokens=[TOKEN]) as github:
        world = World(tmp_path / "projects", github)
        world.folder.mkdir()
        yield world
        for server in world.servers:
            server.stop()


def test_a_project_that_is_not_split_works_and_a_pull_request_is_nothing_to_do(world):
    world.write(PLAIN, defaultPipeline=True, github={"token": TOKEN})
    world.serve()
    pushed = world.closed(world.push())
    assert (pushed["verdict"], pushed["status"]["state"]) == ("succeeded", "success")
    status, answer = world.deliver(
        "pull_request",
        {
            "action": "opened",
            "number": 7,
            "pull_request": {
                "number": 7, "title": "t", "author_association": "NONE",
                "head": {"sha": "d" * 40, "ref": "x", "repo": {"full_name": "acme/widgets"}},
                "base": {"sha": "c" * 40, "ref": "main", "repo": {"full_name": "acme/widgets"}},
            },
        },
    )  # fmt: skip
    assert status == 202, answer
    pull = world.closed(answer["runs"][0]["id"])
    assert pull["verdict"] == "succeeded"
    assert "nothing to do" in pull["status"]["description"]
    posted = [(one.sha[0], one.state) for one in world.github.history]
    assert posted == [("c", "pending"), ("c", "success"), ("d", "pending"), ("d", "success")]


def test_a_failure_is_told_and_retried_without_a_new_commit(world):
    world.write(SPLIT % "true", pipeline=PIPELINE)
    world.serve()
    run = world.push()
    failed = world.closed(run)
    assert (failed["verdict"], failed["status"]["taken_by"]) == ("failed", "board")
    assert "step test failed" in failed["status"]["description"]
    assert [build["state"] for build in failed["exit_builds"]] == ["succeeded"]

    (world.project / "brigade.js").write_text(SPLIT % "false")
    assert world.act(run, "retry")[0] == 202
    retried = world.closed(run, attempt=2)
    assert retried["verdict"] == "succeeded"
    built = {step["name"]: [build["state"] for build in step["builds"]] for step in retried["steps"]}
    assert built == {"build": ["succeeded"], "test": ["failed", "succeeded"]}

    assert world.act(run, "rerun")[0] == 202
    again = world.closed(run, attempt=3)
    assert again["verdict"] == "succeeded"
    assert [len(step["builds"]) for step in again["steps"]] == [2, 3]


def test_a_cancel_ends_what_runs(world):
    world.write(SPLIT % "(() => { for (;;) {} })()", pipeline=PIPELINE)
    world.serve()
    run = world.push()
    world.until(run, lambda found: any(step["state"] == "running" for step in found["steps"][1:]))
    assert world.act(run, "cancel")[0] == 202
    cancelled = world.closed(run)
    assert (cancelled["verdict"], cancelled["status"]["state"]) == ("cancelled", "error")
    assert [build["state"] for build in cancelled["steps"][1]["builds"]] == ["cancelled"]


def test_a_script_that_emits_an_event_starts_the_pipeline_on_it_once_also_after_a_retry(world):
    world.write(
        f"""
const {{ events }} = require("brigadier");
const {{ emit }} = require({json.dumps(str(PACKAGE))});
const fs = require("fs");
events.on("build", async () => {{
  await emit("release", {{ to: "production" }});
  if (!fs.existsSync({json.dumps(str(world.folder / "fixed"))})) throw new Error("it broke after that");
}});
events.on("release", (e) => console.log("released " + e.revision.commit + " " + e.payload));
""",
        pipeline="projects: acme/widgets\non: push\nexit: {failed: none}\nsteps:\n  - name: build\n",
    )
    (world.project / "pipelines" / "release.yaml").write_text(
        "projects: acme/widgets\non: release\nsteps:\n  - name: release\n"
    )
    world.serve()
    run = world.push("d" * 40)
    assert world.closed(run)["verdict"] == "failed"
    (world.folder / "fixed").touch()
    assert world.act(run, "retry")[0] == 202
    assert world.closed(run, attempt=2)["verdict"] == "succeeded"
    (released,) = [found for found in world.get("/runs")["runs"] if found["pipeline"] == "release"]
    assert world.closed(released["id"])["verdict"] == "succeeded"
    log = world.http.request("GET", f"{world.url}/api/v1/runs/{released['id']}/steps/release/log").data.decode()
    assert f'released {"d" * 40} {{"to":"production"}}' in log


def test_it_starts_again_where_it_was_and_stops_when_told(world):
    world.write(SPLIT % "false", pipeline=PIPELINE)
    first = world.serve()
    run = world.push()
    world.closed(run)
    first.stop()
    world.serve()
    assert world.get(f"/runs/{run}")["phase"] == "closed"
    assert [one["id"] for one in world.get("/runs")["runs"]] == [run]


def test_a_second_one_on_the_same_state_is_refused(world):
    from bridge.errors import Unavailable

    world.write(PLAIN, defaultPipeline=True)
    world.serve()
    argv = [sys.executable, "-m", "bridge.cli", "local", str(world.folder), "--jobs", "host", "--port", "0"]
    second = Server(argv, log=world.folder.parent / "second.log")
    with pytest.raises(Unavailable):
        second.start()
    assert "another `bridgectl local` serves" in (world.folder.parent / "second.log").read_text()


def test_a_container_engine_that_was_named_and_does_not_work_is_refused_before_anything_starts(tmp_path):
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho 'cannot reach its daemon' >&2\nexit 1\n")
    engine.chmod(0o755)
    with pytest.raises(Misconfigured, match=r"cannot reach its daemon.*--jobs=host"):
        with_commands(Settings(projects_dir=tmp_path, container_command=str(engine)))


def test_a_container_engine_that_was_named_and_works_is_taken(tmp_path):
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nexit 0\n")
    engine.chmod(0o755)
    taken = with_commands(Settings(projects_dir=tmp_path, container_command=str(engine)))
    assert taken.container_command == str(engine)
