"""The example of ordinary containers on one machine: fail, retry, succeed, and what its page shows."""

from pathlib import Path

import pytest
import yaml

from bridge.demonstrating.fake_github import FakeGitHub
from tests.wiring.test_serving import TOKEN, World

EXAMPLE = Path(__file__).parents[2] / "argo-templates" / "native.yaml"
SHA = "c" * 40
TAGGED = {"ref": "refs/tags/v1.0", "after": SHA, "deleted": False, "head_commit": {"id": SHA}}


@pytest.fixture
def world(tmp_path):
    with FakeGitHub(tokens=[TOKEN]) as github:
        world = World(tmp_path / "projects", github)
        world.folder.mkdir()
        world.write("", github={"token": TOKEN})
        yield world
        for server in world.servers:
            server.stop()


def test_ordinary_containers_are_a_run_with_retry_and_page(world, tmp_path):
    template = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    (smoke,) = [one for one in template["spec"]["templates"] if one["name"] == "smoke-test"]
    smoke["container"]["args"] = ["-ec", f"test -e {tmp_path / 'mended'} || exit 3"]
    (world.folder / "templates").mkdir()
    (world.folder / "templates" / "native.yaml").write_text(yaml.safe_dump(template))
    world.serve()
    status, answer = world.deliver("push", TAGGED)
    assert status == 202, answer
    run = answer["runs"][0]["id"]
    failed = world.closed(run)
    assert (failed["verdict"], failed["reason"]) == ("failed", "step smoke-test failed: exit code 3")
    assert {step["name"]: step["state"] for step in failed["steps"]} == {
        "download": "succeeded",
        "smoke-test": "failed",
    }
    assert failed["exit_builds"] == []
    (tmp_path / "mended").touch()
    assert world.act(run, "retry")[0] == 202
    again = world.closed(run, 2)
    assert again["verdict"] == "succeeded"
    said = [(one.sha, one.context, one.state) for one in world.github.history]
    assert said == [(SHA, "ci/smoke-test", state) for state in ("pending", "failure", "pending", "success")]
    page = world.http.request("GET", f"{world.url}/runs/{run}", timeout=30)
    assert page.status == 200
    assert b"smoke-test" in page.data
