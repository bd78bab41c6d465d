"""Check runs end to end: `bridgectl local` as a process, a GitHub App, real builds, and GitHub's Re-run button."""

import json
import sys

import pytest

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.payloads import example
from bridge.demonstrating.servers import Server
from tests.github.apps import APP_ID, key_file, with_app
from tests.github.rerunning import rerequested
from tests.wiring.test_serving import PIPELINE, World

APP_SECRET = "the-secret-of-the-app"
OF_THE_PROJECT = "a-password-of-the-project"
CONTEXT = "bridge/push/push"
SCRIPT = """
const { events } = require("brigadier");
const fs = require("fs");
events.on("build", () => console.log("built"));
events.on("test", (e, p) => {
  console.log("uses " + p.secrets.PASSWORD + "\\n```\\n\\u001b[31mred\\u001b[0m");
  process.stdout.write(Buffer.from([0xff, 0x00, 0x0a]));
  console.log("x".repeat(80).concat("\\n").repeat(2000));
  if (!fs.existsSync(MENDED)) throw new Error("it broke here");
});
"""


class AppWorld(World):
    """A bridge that has a GitHub App."""

    def serve(self) -> Server:
        environment = {
            "BRIDGE_GITHUB_API_URL": self.github.url,
            "BRIDGE_GITHUB_APP_ID": APP_ID,
            "BRIDGE_GITHUB_APP_KEY_FILE": str(key_file(self.folder.parent)),
            "BRIDGE_GITHUB_APP_WEBHOOK_SECRET": APP_SECRET,
        }
        argv = [sys.executable, "-m", "bridge.cli", "local", str(self.folder), "--jobs", "host", "--port", "0"]
        server = Server(argv, log=self.folder.parent / "log", environment=environment)
        self.servers.append(server)
        server.start()
        return server

    def completed(self, count: int):
        """The check runs once so many are completed."""
        checks = self.github.checks.wait_until(
            lambda found: sum(one.status == "completed" for one in found) >= count, timeout_seconds=120
        )
        assert len(checks) == count, checks
        return checks

    def press_rerun(self, check) -> int:
        """What the gateway answers to the button's delivery."""
        hook = self.github.hooks.add_app(APP_ID, f"{self.url}/events/github", secret=APP_SECRET)
        self.github.hooks.deliver("check_run", rerequested(self.github, check), hook)
        return self.github.hooks.log[-1].status_code

    def built(self, run: str) -> dict[str, list[str]]:
        """By step what its builds came to."""
        return {
            step["name"]: [one["state"] for one in step["builds"]] for step in self.get(f"/runs/{run}")["steps"]
        }


@pytest.fixture
def world(tmp_path):
    with FakeGitHub() as github:
        with_app(github)
        world = AppWorld(tmp_path / "projects", github)
        world.folder.mkdir()
        script = SCRIPT.replace("MENDED", repr(str(tmp_path / "mended")))
        world.write(script, pipeline=PIPELINE, secrets={"PASSWORD": OF_THE_PROJECT})
        yield world
        for server in world.servers:
            server.stop()


def test_a_failed_check_shows_the_log_and_its_button_builds_only_what_failed(world, tmp_path):
    world.serve()
    run = world.push()
    [failed] = world.completed(1)
    assert (failed.name, failed.conclusion, failed.external_id) == (CONTEXT, "failure", f"{run}/1")
    assert failed.details_url == f"{world.url}/runs/{run}"
    assert "| <code>build</code> | succeeded | 1: succeeded |" in failed.summary
    assert "| <code>test</code> | failed | 1: failed |" in failed.summary
    assert "it broke here" in failed.text
    assert OF_THE_PROJECT not in failed.title + failed.summary + failed.text
    (tmp_path / "mended").touch()
    assert world.press_rerun(failed) == 202
    first, second = world.completed(2)
    assert first == failed
    assert (second.name, second.conclusion, second.external_id) == (CONTEXT, "success", f"{run}/2")
    assert "| <code>build</code> | succeeded | 1: succeeded (attempt 1) |" in second.summary
    assert world.built(run) == {"build": ["succeeded"], "test": ["failed", "succeeded"]}
    assert world.github.history == ()
    world.closed(run, 2)
    assert world.press_rerun(second) == 202
    *_, third = world.completed(3)
    assert (third.conclusion, third.external_id) == ("success", f"{run}/3")
    assert world.built(run)["build"] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_killed_before_it_could_write_down_that_github_has_the_check_it_is_still_one(world, method):
    world.github.checks.hold_answers(1, method=method)
    server = world.serve()
    run = world.push()
    held = "in_progress" if method == "POST" else "completed"
    world.github.checks.wait_until(lambda found: [one.status for one in found] == [held], timeout_seconds=120)
    server.kill()
    world.github.checks.release()
    world.serve()
    [check] = world.completed(1)
    assert (check.external_id, check.conclusion) == (f"{run}/1", "failure")
    world.closed(run)
    assert len(world.github.checks.all) == 1


def test_an_app_that_may_not_write_checks_posts_statuses(world):
    installation = next(iter(world.github.apps._installations))
    world.github.apps.change(installation, permissions={"statuses": "write"})
    world.serve()
    world.push()
    history = world.github.wait_until(lambda posted: len(posted) == 2, timeout_seconds=120)
    assert [(one.context, one.state) for one in history] == [(CONTEXT, "pending"), (CONTEXT, "failure")]
    assert world.github.checks.all == ()


def test_a_merge_group_is_a_check_of_its_commit_under_the_pull_requests_name_and_ends_with_the_group(world):
    slow = """
const { events } = require("brigadier");
events.on("wait", () => new Promise((done) => setTimeout(done, 600000)));
"""
    pipeline = "projects: acme/widgets\non: [pull_request, merge_group]\nsteps: [{name: wait}]\n"
    world.write(slow, pipeline=pipeline)
    world.serve()
    group = json.loads(example("merge_group", "checks_requested").body)
    sha = group["merge_group"]["head_sha"]
    status, answer = world.deliver("merge_group", group)
    assert status == 202, answer
    run = answer["runs"][0]["id"]
    pushed = {"ref": group["merge_group"]["head_ref"], "after": sha, "head_commit": {"id": sha}}
    assert world.deliver("push", pushed)[0] == 200
    world.until(run, lambda found: found["steps"] and found["steps"][0]["state"] == "running")
    [check] = world.github.checks.all
    assert (check.head_sha, check.name, check.status) == (sha, "bridge/push/pull_request", "in_progress")
    status, answer = world.deliver("merge_group", {**group, "action": "destroyed", "reason": "dequeued"})
    assert (status, [one["id"] for one in answer["runs"]]) == (202, [run])
    [check] = world.completed(1)
    assert (check.conclusion, check.title) == ("cancelled", "cancelled by the merge queue (dequeued)")
