"""Comments on a real `bridgectl local`: what a person on GitHub does, and what then is built."""

import json
import subprocess
import sys
import uuid

import pytest

from bridge.demonstrating.fake_github import FakeGitHub
from bridge.sending import send
from tests import commented
from tests.wiring.test_serving import SECRET, TOKEN, World

PROJECT = "acme/widgets"
PULL = 7
HEAD = "a" * 40
NEXT = "b" * 40
SCRIPT = """
const { events } = require("brigadier");
const fs = require("fs");
events.on("build", (e) => console.log("built " + e.revision.commit + " of " + e.revision.ref));
events.on("test", (e) => {
  console.log("tested " + e.revision.commit);
  if (!fs.existsSync(FLAG)) throw new Error("a flake");
});
"""
PIPELINE = """
projects: acme/widgets
on: [pull_request]
steps:
  - name: build
  - name: test
    needs: build
"""


class Pull(World):
    """A pull request, the people below it, and the machine."""

    def open(self) -> None:
        self.folder.mkdir()
        self.flag = self.folder.parent / "mended"
        script = SCRIPT.replace("FLAG", json.dumps(str(self.flag)))
        self.write(script, pipeline=PIPELINE, github={"token": TOKEN})
        self.github.comments.permit(PROJECT, "mona", "write")
        self.serve()

    def tell(self, event: str, body: bytes) -> dict:
        status, answer = send(f"{self.url}/events/github", event, body, secret=SECRET, delivery=str(uuid.uuid4()))
        assert status in {200, 202}, answer
        return answer

    def push_to_it(self, sha: str, author: str) -> str:
        self.github.comments.put_pull_request(PROJECT, PULL, sha)
        return self.tell("pull_request", commented.pull_request(sha, author=author))["runs"][0]["id"]

    def comment(self, body: str, login: str = "mona") -> tuple[str, ...]:
        """Write it; answers the reactions."""
        comment = self.github.comments.write(PROJECT, PULL, login, body)
        self.tell("issue_comment", commented.delivery(comment))
        return self.github.comments.reactions(comment.id)

    def built(self, run: str) -> dict[str, list[str]]:
        return {
            step["name"]: [build["state"] for build in step["builds"]]
            for step in self.get(f"/runs/{run}")["steps"]
        }

    def log(self, run: str, step: str, build: int) -> str:
        path = f"{self.url}/api/v1/runs/{run}/steps/{step}/log?build={build}"
        return self.http.request("GET", path, timeout=30).data.decode()

    def states(self, sha: str) -> list[str]:
        return [one.state for one in self.github.history if one.sha == sha]


@pytest.fixture
def pull(tmp_path):
    with FakeGitHub(tokens=[TOKEN]) as github:
        pull = Pull(tmp_path / "projects", github)
        pull.open()
        yield pull
        for server in pull.servers:
            server.stop()


def test_a_flake_is_retried_by_a_comment_and_only_what_failed_is_built_again(pull):
    run = pull.push_to_it(HEAD, "MEMBER")
    assert pull.closed(run)["verdict"] == "failed"
    assert pull.comment("/retry", "stranger") == ("-1",)
    pull.flag.touch()
    assert pull.comment("It was a flake.\r\n\r\n/retry\r\n") == ("+1",)
    found = pull.closed(run, attempt=2)
    assert found["verdict"] == "succeeded"
    assert pull.built(run) == {"build": ["succeeded"], "test": ["failed", "succeeded"]}
    assert [(act["kind"], act["who"], act["source"]) for act in found["acts"]] == [("retry", "mona", "comment")]
    assert f"built {HEAD} of refs/pull/{PULL}/head" in pull.log(run, "build", 1)
    assert [f"tested {HEAD}" in pull.log(run, "test", number) for number in (1, 2)] == [True, True]
    assert pull.states(HEAD) == ["pending", "failure", "pending", "success"]


def test_a_strangers_pull_request_waits_for_a_maintainer_and_so_does_its_next_commit(pull):
    pull.flag.touch()
    run = pull.push_to_it(HEAD, "NONE")
    waiting = pull.closed(run, attempt=0)
    assert (waiting["verdict"], waiting["steps"]) == ("cancelled", [])
    assert waiting["waits_for"].startswith("its approval: it waits for a maintainer: comment /ok-to-test aaaaaaa")
    (told,) = pull.github.history
    assert (told.state, told.description) == (
        "error", f"waits for a maintainer: comment /ok-to-test aaaaaaa, or bridgectl approve {run}",
    )  # fmt: skip

    assert pull.comment("/retry") == ("confused",)
    assert pull.comment(f"/ok-to-test {HEAD}") == ("+1",)
    assert pull.closed(run, attempt=1)["verdict"] == "succeeded"
    assert pull.states(HEAD) == ["error", "pending", "success"]

    pushed = pull.push_to_it(NEXT, "NONE")
    assert pull.closed(pushed, attempt=0)["verdict"] == "cancelled"
    assert (pull.built(pushed), pull.states(NEXT)) == ({}, ["error"])

    assert pull.act(pushed, "rerun")[1]["message"].startswith("nothing to rerun: it waits for a maintainer")
    approving = [sys.executable, "-m", "bridge.cli", "approve", pushed, "--url", pull.url]
    said = subprocess.run(approving, capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout == f"{pushed}: approved: its first attempt begins now\n"
    assert pull.closed(pushed, attempt=1)["verdict"] == "succeeded"
