"""A row of one machine is damaged while its run goes on: the run ends all the same, and can be retried."""

import json
import sqlite3
import sys
import time

import pytest

from bridge.client import Client
from bridge.core.mending import REASON
from bridge.core.runs import Kind
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.servers import Server
from bridge.local.database import FILE_NAME
from bridge.sending import send

PATIENCE_SECONDS = 150
COMMIT = "c" * 40
SCRIPT = """
const { events } = require("brigadier");
const { existsSync } = require("fs");
events.on("push", async () => {
  if (existsSync(%s)) await new Promise((done) => setTimeout(done, 3600 * 1000));
});
"""


def until(look, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain: {what}")


@pytest.fixture
def world(tmp_path):
    slow = tmp_path / "slow"
    slow.touch()
    project = tmp_path / "projects" / "widgets"
    project.mkdir(parents=True)
    (project / "brigade.js").write_text(SCRIPT % json.dumps(str(slow)))
    told = {"name": "acme/widgets", "sharedSecret": "s", "defaultPipeline": True, "github": {"token": "t"}}
    (project / "project.yaml").write_text(json.dumps(told))
    argv = [sys.executable, "-m", "bridge.cli", "local", str(project.parent), "--jobs", "host", "--port", "0"]
    with FakeGitHub(tokens=["t"]) as github:
        server = Server(argv, log=tmp_path / "log", environment={"BRIDGE_GITHUB_API_URL": github.url})
        server.start()
        yield server, github, slow, project.parent / ".bridge" / FILE_NAME
        server.stop()


def test_a_run_whose_row_is_damaged_in_mid_run_ends_with_an_error_and_can_be_retried(world):
    server, github, slow, database = world
    body = {"ref": "refs/heads/main", "after": COMMIT, "deleted": False, "head_commit": {"id": COMMIT}}
    sent = json.dumps({**body, "repository": {"full_name": "acme/widgets"}}).encode()
    status, answer = send(f"{server.url}/events/github", "push", sent, secret="s", delivery="d-1")
    assert status == 202
    run = answer["runs"][0]["id"]
    with Client(server.url, "") as client:

        def builds():
            steps = client.get(run)["steps"]
            return [build for step in steps for build in step["builds"]]

        until(lambda: any(build["state"] == "running" for build in builds()), "a build runs")
        with sqlite3.connect(database, timeout=60) as connection:
            connection.execute("UPDATE runs SET state = '{no json' WHERE id = ?", (run,))
        connection.close()

        def closed():
            listed = client.list(limit=1)
            return listed and listed[0]["phase"] == "closed" and client.get(run)

        ended = until(closed, "the run is closed")
        assert (ended["verdict"], ended["reason"]) == ("error", REASON)
        assert [one["n"] for one in ended["attempts"]] == [2]
        assert all(build["state"] not in {"running", "waiting"} for build in builds())
        states = [one.state for one in github.history]
        assert states[-1] == "error"
        slow.unlink()
        client.act(run, Kind.RETRY, request="once more")
        until(lambda: client.get(run)["verdict"] == "succeeded", "the retry succeeds")
