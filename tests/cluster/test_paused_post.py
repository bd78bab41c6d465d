"""A leader that is paused while its post is on the way, for as long as the next one takes to end the run."""

import signal

from bridge.demonstrating.fake_github import FakeGitHub
from tests.cluster.client import path

TOKEN = "of-the-project"


def test_a_pending_one_of_a_leader_that_slept_does_not_stay_on_top_of_the_end(realm):
    """GitHub stores the post of the paused process after the next leader has posted the end and closed the run."""
    realm.pipeline()
    with FakeGitHub(tokens=[TOKEN]) as github:
        secrets = path("secrets", realm.brigade_namespace)
        (project,) = realm.admin.get(secrets, labelSelector="component=project")["items"]
        realm.admin.patch(f"{secrets}/{project['metadata']['name']}", {"stringData": {"github.token": TOKEN}})
        told = {"BRIDGE_GITHUB_API_URL": github.url, "BRIDGE_LOG_LEVEL": "info"}
        github.hang_next(1, 600)
        processes = [realm.process(log="asleep.log", **told)]
        try:
            run = realm.accept()
            assert github.wait_for_posts(1) == 1
            processes[0].send_signal(signal.SIGSTOP)
            processes.append(realm.process(log="awake.log", **told))
            realm.end_workflow(run)
            realm.until_closed(run)
            assert [one.state for one in github.history][-1] == "success"
            github.release()
            stored = github.wait_until(lambda history: history[-1].state == "pending")
            assert stored[-1].state == "pending"
            processes[0].send_signal(signal.SIGCONT)
            shown = github.wait_until(lambda history: history[-1].state == "success")
            assert [one.state for one in shown][-2:] == ["pending", "success"]
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(60)
    assert realm.runs.read(run).state.reported.state == "success"
