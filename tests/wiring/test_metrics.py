"""The metrics of one machine: what its controller knows comes out of the gateway's port."""

import json
import os
import sys
import time

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from bridge.core.metrics import METRICS
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.servers import Server
from bridge.local.shared_values import STALE_SECONDS, SharedValues
from bridge.sending import send

PATIENCE_SECONDS = 120
SCRIPT = """
const { events } = require("brigadier");
events.on("push", () => console.log("pushed"));
"""


@pytest.fixture
def server(tmp_path):
    project = tmp_path / "projects" / "widgets"
    project.mkdir(parents=True)
    (project / "brigade.js").write_text(SCRIPT)
    told = {"name": "acme/widgets", "sharedSecret": "s", "defaultPipeline": True, "github": {"token": "t"}}
    (project / "project.yaml").write_text(json.dumps(told))
    argv = [sys.executable, "-m", "bridge.cli", "local", str(project.parent), "--jobs", "host", "--port", "0"]
    with FakeGitHub(tokens=["t"]) as github:
        server = Server(argv, log=tmp_path / "log", environment={"BRIDGE_GITHUB_API_URL": github.url})
        server.start()
        yield server
        server.stop()


def served(url):
    answer = urllib3.request("GET", f"{url}/metrics", timeout=30, retries=False)
    assert answer.status == 200
    return answer.data.decode()


def test_one_machine_serves_what_its_controller_did_and_owes(server):
    commit = "c" * 40
    body = {"ref": "refs/heads/main", "after": commit, "deleted": False, "head_commit": {"id": commit}}
    sent = json.dumps({**body, "repository": {"full_name": "acme/widgets"}}).encode()
    status, _ = send(f"{server.url}/events/github", "push", sent, secret="s", delivery="d-1")
    assert status == 202
    found = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and found.get(("bridge_actions_total", "close")) != 1:
        time.sleep(0.2)
        text = served(server.url)
        families = list(text_string_to_metric_families(text))
        found = {
            (one.name, next(iter(one.labels.values()), "")): one.value
            for family in families
            for one in family.samples
        }
    assert found["bridge_actions_total", "close"] == 1, text
    assert found["bridge_actions_total", "submit"] == 1
    assert found["bridge_statuses_total", "taken"] == 2
    assert found["bridge_statuses_total", "given_up"] == 0
    assert found["bridge_owed_actions", "post"] == 0
    assert (found["bridge_leading", ""], found["bridge_open_runs", ""]) == (1, 0)
    assert (found["bridge_oldest_pending_seconds", ""], found["bridge_overdue_seconds", ""]) == (0, 0)
    assert found["bridge_events_total", "accepted"] == 1
    for family in families:
        known = METRICS.get(f"{family.name}_total" if family.type == "counter" else family.name)
        assert known is None or family.documentation == known.help
    assert "# TYPE bridge_actions_total counter" in text
    assert "# TYPE bridge_owed_actions gauge" in text


def test_numbers_of_a_controller_that_is_gone_are_left_out(tmp_path):
    shared = SharedValues(tmp_path)
    assert shared.read() == {}
    shared.write({"bridge_leading": 1.0, "bridge_owed_actions": {"post": 2.0}})
    assert shared.read() == {"bridge_leading": 1.0, "bridge_owed_actions": {"post": 2.0}}
    (file,) = tmp_path.iterdir()
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(file, (long_ago, long_ago))
    assert shared.read() == {}
    shared.write({"bridge_leading": 1.0})
    assert shared.read() == {"bridge_leading": 1.0}


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_numbers_that_cannot_be_read_are_left_out(tmp_path, text):
    shared = SharedValues(tmp_path)
    shared.write({})
    (file,) = tmp_path.iterdir()
    file.write_text(text, encoding="latin-1")
    assert shared.read() == {}


def test_where_nothing_can_be_written_the_work_goes_on(tmp_path):
    shared = SharedValues(tmp_path / "not" / "there")
    shared.write({"bridge_leading": 1.0})
    assert shared.read() == {}
