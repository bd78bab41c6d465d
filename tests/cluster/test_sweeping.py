"""Of several controllers the one that leads asks GitHub for what it missed, as the process that the chart starts."""

import re
import signal

import urllib3

from bridge.demonstrating.fake_github import FakeGitHub
from tests.cluster.client import path
from tests.cluster.controlled import PROJECT
from tests.served import Recorded, served

TOKEN = "of-the-project"


def test_only_the_leader_asks_for_what_was_lost_and_the_next_leader_asks_for_nothing_again(realm):
    with FakeGitHub(tokens=[TOKEN]) as github, served(Recorded().answer("/hook", b"ok")) as receiver:
        secrets = path("secrets", realm.brigade_namespace)
        (project,) = realm.admin.get(secrets, labelSelector="component=project")["items"]
        realm.admin.patch(f"{secrets}/{project['metadata']['name']}", {"stringData": {"github.token": TOKEN}})
        hook = github.hooks.add(PROJECT, f"{receiver}/hook")
        lost = [github.hooks.put(hook, 503, age_seconds=600) for _ in range(3)]
        told = {
            "BRIDGE_GITHUB_API_URL": github.url,
            "BRIDGE_WEBHOOK_URL": f"{receiver}/hook",
            "BRIDGE_SWEEP_MINUTES": "0.02",
            "BRIDGE_LOG_LEVEL": "info",
        }
        logs = ("one.log", "other.log")
        processes = [realm.process(log=log, **told) for log in logs]

        def metrics(log):
            port = realm.until(
                lambda: re.search(r"probes and metrics on port (\d+)", realm.said(log)), "its port"
            )[1]
            answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=60, retries=False)
            lines = (line.split() for line in answer.data.decode().splitlines() if not line.startswith("#"))
            return {name: float(value) for name, value in lines}

        def leads(log):
            found = metrics(log)
            return found["bridge_leading"] == 1 and found["bridge_delivery_sweeps_total"] >= 2

        try:
            first = realm.until(lambda: next((log for log in logs if leads(log)), ""), "one to lead and to sweep")
            (second,) = set(logs) - {first}
            assert metrics(first)["bridge_deliveries_redelivered_total"] == 3
            assert metrics(second)["bridge_delivery_sweeps_total"] == 0
            processes[logs.index(first)].send_signal(signal.SIGKILL)
            realm.until(lambda: leads(second), "the other one to lead and to sweep")
            github.hooks.settle()
            assert metrics(second)["bridge_deliveries_redelivered_total"] == 0
        finally:
            for process in processes:
                process.kill()
                process.wait(60)
    assert sorted(one.guid for one in github.hooks.log if one.redelivery) == sorted(lost)
    assert realm.said(first).count("is sent again") == 3
