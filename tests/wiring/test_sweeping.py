"""What looks for missed deliveries, as the settings have it."""

import json
import logging
import time

import pytest
import urllib3

from bridge.clocks import SystemClock
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings
from bridge.settings import load
from bridge.wiring.sweeping import sweeping
from tests.fakes import FakeProjects
from tests.served import served
from tests.web.worlds import PUSH, a_project
from tests.wiring.test_serving import PLAIN, SECRET, TOKEN, World

PATIENCE_SECONDS = 120


def swept(**told):
    return sweeping(load(**told), FakeProjects([a_project()]), SystemClock())


def test_nothing_looks_for_them_when_it_is_off_or_nobody_said_which_webhooks_are_ours(caplog):
    assert swept(sweep_minutes=0, webhook_url="https://bridge.example/events/github") is None
    assert caplog.text == ""
    with caplog.at_level(logging.INFO):
        assert swept() is None
    assert "BRIDGE_WEBHOOK_URL" in caplog.text


def test_webhooks_point_to_the_public_url_unless_it_is_said_otherwise():
    assert load(public_url="https://bridge.example").webhook == "https://bridge.example/events/github"
    told = load(public_url="https://bridge.example", webhook_url="https://hooks.example/x/")
    assert told.webhook == "https://hooks.example/x"
    assert load().webhook == ""
    assert set(swept(public_url="https://bridge.example").values()) == {
        "bridge_deliveries_expired_total",
        "bridge_deliveries_lost",
        "bridge_deliveries_redelivered_total",
        "bridge_delivery_sweep_troubles_total",
        "bridge_delivery_sweeps_total",
    }


def test_half_an_app_is_a_bad_setting():
    with pytest.raises(BadSettings, match="BRIDGE_GITHUB_APP_KEY_FILE"):
        swept(public_url="https://bridge.example", github_app_id="1")


class Tunnel:
    """What stands before one machine: it passes on what comes, and answers 502 while nobody is behind it."""

    def __init__(self):
        self.to = ""

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if not self.to:
            start_response("502 Bad Gateway", [("Content-Length", "0")])
            return [b""]
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name[:7] == "HTTP_X_"}
        headers["Content-Type"] = environ["CONTENT_TYPE"]
        url = f"{self.to}{environ['PATH_INFO']}"
        answer = urllib3.request("POST", url, body=body, headers=headers, timeout=30, retries=False)
        start_response(f"{answer.status} x", [("Content-Length", str(len(answer.data)))])
        return [answer.data]


def test_what_came_while_one_machine_was_off_is_built_once_when_it_is_on_again(tmp_path, monkeypatch):
    tunnel = Tunnel()
    with FakeGitHub(tokens=[TOKEN]) as github, served(tunnel) as before:
        webhook = f"{before}/events/github"
        monkeypatch.setenv("BRIDGE_WEBHOOK_URL", webhook)
        monkeypatch.setenv("BRIDGE_SWEEP_MINUTES", "0.02")
        hook = github.hooks.add("acme/widgets", webhook, secret=SECRET)
        world = World(tmp_path / "projects", github)
        world.folder.mkdir()
        world.write(PLAIN, defaultPipeline=True, github={"token": TOKEN})
        try:
            tunnel.to = world.serve().url
            # Ten minutes ago, so that nobody has to wait two for it to be due.
            lost = github.hooks.put(hook, 502, age_seconds=600, body=PUSH)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline and not world.get("/runs")["runs"]:
                time.sleep(0.1)
            (run,) = world.get("/runs")["runs"]
            assert world.closed(run["id"])["verdict"] == "succeeded"
        finally:
            for server in world.servers:
                server.stop()
            tunnel.to = ""
        github.hooks.settle()
    attempts = [(one.guid, one.status_code) for one in github.hooks.log]
    assert attempts == [(lost, 502), (lost, 202)]
    assert [one.state for one in github.history] == ["pending", "success"]
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert sum(lost in str(line) and "is sent again" in str(line) for line in said) == 1
