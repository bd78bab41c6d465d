"""A check run of the real controller's, as the ServiceAccount that the chart gives it: its table and the end of a pod's log."""

import pytest

from bridge.demonstrating.fake_github import FakeGitHub
from tests.cluster.controlled import PATIENCE_SECONDS, PROJECT
from tests.cluster.player import Player, recording
from tests.github.apps import APP_ID, key_file, with_app


@pytest.fixture
def brigade(playing_brigade):
    return playing_brigade


@pytest.fixture
def github():
    with FakeGitHub() as fake:
        with_app(fake, PROJECT)
        yield fake


def test_a_failed_run_is_a_check_with_a_table_and_the_end_of_the_log(realm, brigade, github, tmp_path):
    run = "push-0123456789abcdefghjk"
    one = recording("step-failed", called=run)
    realm.pipeline("push", *one.steps)
    controller = realm.process(
        BRIDGE_GITHUB_API_URL=github.url,
        BRIDGE_GITHUB_APP_ID=APP_ID,
        BRIDGE_GITHUB_APP_KEY_FILE=str(key_file(tmp_path)),
        BRIDGE_PUBLIC_URL="https://bridge.example.com",
        BRIDGE_CONTROLLER_PORT="0",
    )
    try:
        realm.accept(run)
        Player(realm, brigade, one, run).play()
        realm.until_closed(run)
    finally:
        controller.terminate()
        controller.wait(PATIENCE_SECONDS)
    begun, ended = github.checks.written
    assert (begun.status, begun.external_id) == ("in_progress", f"{run}/1")
    assert (ended.id, ended.conclusion) == (begun.id, "failure")
    assert ended.details_url == f"https://bridge.example.com/runs/{run}"
    failed = [line for line in ended.summary.splitlines() if "| failed |" in line]
    assert failed, ended.summary
    assert "it failed" in ended.text
    assert github.history == ()
