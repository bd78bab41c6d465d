"""What a controller of 10,000 records takes, by hand: BRIDGE_FULL=1. It takes minutes."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from bridge.cluster.api import WORKFLOWS
from bridge.core.events import Revision
from bridge.core.runs import Phase
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from tests.cluster.auditing import audited
from tests.cluster.client import path
from tests.conftest import EXCUSED
from tests.fakes import some_event, some_run

RECORDS, OPEN = 10_000, 200
PAYLOAD_BYTES = 25_000
MOST_MEGABYTES = 120
WRITERS = 6
MINUTES = 20

pytestmark = [
    pytest.mark.timeout(MINUTES * 120),
    pytest.mark.skipif(not os.environ.get("BRIDGE_FULL"), reason=f"{EXCUSED}BRIDGE_FULL=1 runs it, for minutes"),
]


def test_ten_thousand_records_of_25_kilobytes_take_less_than_120_megabytes(realm):
    realm.pipeline()
    chance = random.Random(10)
    with ThreadPoolExecutor(WRITERS) as pool:
        payloads = (chance.randbytes(PAYLOAD_BYTES) for _ in range(RECORDS))
        for done in [pool.submit(_store, realm, number, payload) for number, payload in enumerate(payloads)]:
            done.result()
    secrets = path("secrets", realm.brigade_namespace)
    (project,) = realm.admin.get(secrets, labelSelector="component=project")["items"]
    realm.admin.patch(
        f"{secrets}/{project['metadata']['name']}", {"stringData": {"github.token": "of-the-project"}}
    )
    with FakeGitHub(tokens=["of-the-project"]) as github:
        _measure(realm, github)


def _measure(realm, github):
    began = time.monotonic()
    process = realm.process(BRIDGE_RESYNC_SECONDS="20", BRIDGE_GITHUB_API_URL=github.url)
    try:
        port = realm.until(lambda: _port(realm), "its port")
        with urllib3.PoolManager(retries=False) as pool:
            where = f"http://127.0.0.1:{port}/readyz"
            realm.until(
                lambda: pool.request("GET", where, timeout=60).status == 200, "it to be ready", seconds=300
            )
        synced = time.monotonic() - began
        after_sync = _peak_megabytes(process.pid)
        realm.until(lambda: _workflows(realm) == OPEN, "the open ones to be submitted", seconds=MINUTES * 60)
        time.sleep(60)  # some rounds of looks at what is open
        peak = _peak_megabytes(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    print(f"ready after {synced:.1f} s at {after_sync:.0f} MB, peak {peak:.0f} MB")
    assert peak < MOST_MEGABYTES
    created = audited(realm.control_plane, realm.namespace, verb="create", resource="workflows")
    assert len(created) == OPEN
    assert github.history, "statuses were posted"


def _store(realm, number, payload):
    # Of the closed ones some hundred of each commit; of the open ones each is the newest of its own.
    commit = f"{number if number < OPEN else OPEN + number % 20:040x}"
    event = some_event(payload=b"", revision=Revision(commit, "refs/heads/main"))
    run = some_run(f"push-{number}", event=event, accepted=time.time())
    if number >= OPEN:
        run = replace(run, phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED, closed=time.time())
    realm.runs.create(run, payload)


def _port(realm):
    found = [line for line in realm.said().splitlines() if "probes and metrics on port" in line]
    return found[0].split("on port ")[1].split('"')[0] if found else ""


def _workflows(realm):
    found = realm.api.pages(WORKFLOWS, realm.namespace, metadata_only=True)
    return sum(len(page.items) for page in found)


def _peak_megabytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
