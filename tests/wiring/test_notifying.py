"""`bridgectl local` tells endpoints of its runs: killed in between, kept waiting, and as the source of another run."""

import base64
import json
import sys
import time

import pytest

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.servers import Server
from tests.outbound.receiving import Hook
from tests.ports import free_ports
from tests.wiring.test_serving import TOKEN, World

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
SCRIPT = """
const { events } = require("brigadier");
events.on("build", () => console.log("built"));
events.on("after-ci", (e) => console.log("told: " + JSON.parse(e.payload).data.attempt.verdict));
"""
CI = """
projects: acme/widgets
on: push
steps: [{name: build}]
notify: [deploy]
"""
DEPLOY = """
projects: acme/widgets
on: [sh.brigade.bridge.run.closed]
steps: [{name: after-ci}]
"""
LIFE = ["accepted", "1:started", "1:build:finished", "1:closed"]
PATIENCE_SECONDS = 120


class Told(World):
    """A bridge with endpoints."""

    port = 0

    def configure(self, *endpoints):
        folder = self.folder.parent / "notify"
        folder.mkdir(exist_ok=True)
        (folder / "secret").write_text(SECRET)
        (folder / "token").write_text("token-of-events")
        self.notify = folder / "endpoints.yaml"
        self.notify.write_text(json.dumps({"endpoints": list(endpoints)}))

    def serve(self):
        argv = [sys.executable, "-m", "bridge.cli", "local", str(self.folder), "--jobs", "host"]
        server = Server(
            [*argv, "--port", str(self.port)],
            log=self.folder.parent / "log",
            environment={
                "BRIDGE_GITHUB_API_URL": self.github.url,
                "BRIDGE_NOTIFY_FILE": str(self.notify),
                "BRIDGE_EVENT_TOKENS": "token-of-events",
            },
        )
        self.servers.append(server)
        server.start()
        return server


@pytest.fixture
def world(tmp_path):
    with FakeGitHub(tokens=[TOKEN]) as github:
        world = Told(tmp_path / "projects", github)
        world.folder.mkdir()
        yield world
        for server in world.servers:
            server.stop()


def until(holds, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def test_killed_between_sending_and_writing_down_it_is_sent_again_with_the_same_id_and_nothing_waited(world):
    with Hook(script=["hang"]) as hook:
        world.write(SCRIPT, pipeline=CI, github={"token": TOKEN})
        world.configure({"name": "ops", "url": hook.url, "secretFile": "secret", "timeout": "60s"})
        server = world.serve()
        run = world.push()
        # Its endpoint took the first message and has not answered yet: status and closing do not care.
        closed = world.closed(run)
        assert (closed["verdict"], closed["status"]["state"]) == ("succeeded", "success")
        until(lambda: hook.ids() == [f"{run}:accepted"], "the first message to come")
        server.kill()
        hook.script[:] = [500, "reset"]
        world.serve()
        wanted = [f"{run}:{what}" for what in LIFE]
        until(lambda: hook.ids()[-1] == wanted[-1], "all to come")
        came = hook.ids()
        assert list(dict.fromkeys(came)) == wanted
        assert came.count(wanted[0]) == 4
        bodies = [one.body for one in hook.came if one.headers["webhook-id"] == wanted[0]]
        assert {json.loads(body)["id"] for body in bodies} == {wanted[0]}


def test_the_end_of_one_run_is_the_event_of_another(world):
    """One bridge that feeds another, which is the same here."""
    (world.port,) = free_ports(1)
    world.write(SCRIPT, pipeline=CI, github={"token": TOKEN})
    (world.project / "pipelines" / "deploy.yaml").write_text(DEPLOY)
    world.configure(
        {
            "name": "deploy",
            "url": f"http://127.0.0.1:{world.port}/events/cloudevents",
            "tokenFile": "token",
            "runs": "named",
            "events": ["run.closed"],
        }
    )
    world.serve()
    first = world.push()
    world.closed(first)

    def other():
        return next((one for one in world.get("/runs")["runs"] if one["pipeline"] == "deploy"), None)

    found = until(other, "the other run")
    second = world.closed(found["id"])
    assert (second["verdict"], second["event"], second["sha"]) == (
        "succeeded",
        "sh.brigade.bridge.run.closed",
        "c" * 40,
    )
    assert second["delivery"] == f"/brigade-argo-bridge {first}:1:closed"
