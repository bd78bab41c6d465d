"""`bridgectl local` as a process over one project, whose builds do what a test says while they run."""

import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.servers import Server
from bridge.sending import send

SECRET = "not-really-a-secret"
GITHUB_TOKEN = "a-token-for-tests"
READ_TOKEN, ACT_TOKEN = "grace-may-read", "ada-may-act"
PATIENCE_SECONDS = 120
PIPELINE = """
projects: acme/widgets
on: [push, pull_request]
steps:
  - name: lint
  - name: build
    needs: lint
  - name: test
    needs: build
  - name: docs
    needs: lint
  - name: package
    needs: [test, docs]
"""
# Which commits fail, and how far the log of `test` has got, is said by files in the folder SAID.
SCRIPT = """
const { events } = require("brigadier");
const fs = require("fs");
const said = (name) => fs.existsSync(SAID + "/" + name);
const commit = (e) => e.revision.commit[0];
events.on("lint", () => console.log("lint: 42 files, no complaint"));
events.on("build", (e) => console.log("compiling\\ncompiled " + e.revision.commit));
events.on("docs", () => console.log("docs: 7 pages"));
events.on("package", () => console.log("packed"));
events.on("build_failed", (e) => console.log("told everybody: " + JSON.parse(e.payload).bridge.verdict));
events.on("test", async (e) => {
  for (let line = 1; !said("enough"); line++) {
    if (said("line-" + line)) console.log("test " + line + " ok");
    else { line--; await new Promise((resolve) => setTimeout(resolve, 100)); }
  }
  if (said("broken-" + commit(e))) throw new Error("test 3 failed: expected 4 to be 5");
  console.log("all tests passed");
});
"""


@dataclass
class World:
    """The project, the bridge that serves it, and a stand-in for GitHub."""

    folder: Path
    server: Server
    succeeded: str = ""
    failed: str = ""
    """Two runs that have ended, and that no test retries."""
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    @property
    def url(self) -> str:
        return self.server.url

    def say(self, name: str) -> None:
        """Tell the builds something."""
        (self.folder / "said" / name).touch()

    def unsay(self, name: str) -> None:
        (self.folder / "said" / name).unlink(missing_ok=True)

    def push(self, commit: str, *, branch: str, sender: str = "ada") -> str:
        """Push a commit; answers the run's id."""
        return self._deliver(
            "push",
            {
                "ref": f"refs/heads/{branch}",
                "after": commit,
                "deleted": False,
                "head_commit": {"id": commit},
                "sender": {"login": sender},
            },
        )

    def propose(self, commit: str, *, number: int, title: str, sender: str) -> str:
        """Open a pull request of a branch of the project itself; answers the run's id."""
        ours = {"full_name": "acme/widgets"}
        pull_request = {
            "number": number,
            "title": title,
            "author_association": "MEMBER",
            "head": {"sha": commit, "ref": "change", "repo": ours},
            "base": {"sha": "0" * 40, "ref": "main", "repo": ours},
        }
        told = {"action": "opened", "number": number, "pull_request": pull_request, "sender": {"login": sender}}
        return self._deliver("pull_request", told)

    def _deliver(self, event: str, payload: dict) -> str:
        body = json.dumps({**payload, "repository": {"full_name": "acme/widgets"}}).encode()
        status, answer = send(f"{self.url}/events/github", event, body, secret=SECRET, delivery=str(uuid.uuid4()))
        assert status == 202, answer
        return answer["runs"][0]["id"]

    def get(self, path: str) -> dict:
        answer = self.http.request("GET", f"{self.url}/api/v1{path}", timeout=30)
        assert answer.status == 200, answer.data
        return answer.json()

    def closed(self, run: str, attempt: int = 1) -> dict:
        return self.until(run, lambda told: told["phase"] == "closed" and told["attempt"] == attempt)

    def until(self, run: str, holds) -> dict:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            told = self.get(f"/runs/{run}")
            if holds(told):
                return told
            time.sleep(0.2)
        raise AssertionError(f"it never came to that: {told}")

    def builds(self, run: str) -> dict[str, list[str]]:
        """The states of each step's builds, by the API."""
        return {
            step["name"]: [build["state"] for build in step["builds"]]
            for step in self.get(f"/runs/{run}")["steps"]
        }


@contextmanager
def built(folder: Path) -> Iterator[World]:
    """The world, with runs that have ended."""
    project, said = folder / "projects" / "widgets", folder / "said"
    said.mkdir()
    (project / "pipelines").mkdir(parents=True)
    (project / "brigade.js").write_text(SCRIPT.replace("SAID", json.dumps(str(said))))
    told = {"name": "acme/widgets", "sharedSecret": SECRET, "github": {"token": GITHUB_TOKEN}}
    (project / "project.yaml").write_text(json.dumps(told))
    (project / "pipelines" / "checks.yaml").write_text(PIPELINE)
    argv = [sys.executable, "-m", "bridge.cli", "local", str(folder / "projects"), "--jobs", "host", "--port", "0"]
    with FakeGitHub(tokens=[GITHUB_TOKEN]) as github:
        environment = {
            "BRIDGE_GITHUB_API_URL": github.url,
            "BRIDGE_READ_TOKENS": f"grace={READ_TOKEN}",
            "BRIDGE_ACT_TOKENS": f"ada={ACT_TOKEN}",
        }
        server = Server(argv, log=folder / "log", environment=environment)
        world = World(folder, server)
        for name in ("line-1", "line-2", "enough", "broken-f"):
            world.say(name)
        try:
            server.start()
            world.succeeded = world.push("4c1d05e9" * 5, branch="main", sender="grace")
            more = world.propose("a3f7b210" * 5, number=41, title="Widgets have corners", sender="grace")
            world.failed = world.propose("f02b9c6d" * 5, number=42, title="Widgets are round again", sender="ada")
            for run in (world.succeeded, more, world.failed):
                world.closed(run)
            yield world
        finally:
            server.stop()
