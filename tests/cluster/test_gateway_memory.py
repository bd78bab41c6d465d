"""What a gateway takes that lists 10,000 records, and how long a page takes, by hand: BRIDGE_FULL=1. It takes minutes."""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from bridge.core.events import Revision
from bridge.core.permissions import GATEWAY
from bridge.core.runs import Attempt, Kind, Phase, Report, State, StepState
from bridge.core.verdicts import Verdict
from tests.cluster.auditing import audited
from tests.cluster.test_serve import push, serving
from tests.conftest import EXCUSED
from tests.fakes import some_event, some_run

RECORDS = 10_000
WRITERS = 6
MOST_MEGABYTES = 60
"""More than before the first list, in each worker."""
TOKEN = "a-token-that-may-read"

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("BRIDGE_FULL"), reason=f"{EXCUSED}BRIDGE_FULL=1 runs it, for minutes"),
]


def test_pages_of_ten_thousand_runs_take_a_moment_and_little_memory(realm):
    realm.pipeline()
    began = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(_store, realm, number) for number in range(RECORDS)]:
            done.result()
    print(f"stored in {time.monotonic() - began:.0f} s")
    account = realm.access(GATEWAY)
    with serving(realm, account, BRIDGE_READ_TOKENS=TOKEN, BRIDGE_WEB_WORKERS="1") as url:
        worker = _worker(realm)
        without = _rate(url, "quiet")
        before = _megabytes(worker)
        first = _seconds(url, "limit=50")
        asked = len(audited(realm.control_plane, realm.namespace, resource="secrets", verb="list"))
        pages = [
            _seconds(url, query) for query in ("limit=50", "verdict=failed&limit=50", "search=number%20987") * 10
        ]
        assert len(audited(realm.control_plane, realm.namespace, resource="secrets", verb="list")) == asked
        after = _megabytes(worker)
        watching = _rate(url, "watched")
        _seconds(url, "limit=50")
        again = _rate(url, "watched-again")
    print(
        f"memory {before:.0f} → {after:.0f} MB; the first list {first:.2f} s, a page {statistics.median(pages) * 1000:.0f} ms "
        f"(longest {max(pages) * 1000:.0f} ms); deliveries a second {without:.0f} without a watch, {watching:.0f} and {again:.0f} with"
    )
    assert after - before < MOST_MEGABYTES


def _store(realm, number):
    commit = f"{number:040x}"
    event = some_event(
        payload=b"",
        delivery=f"d-{number}",
        revision=Revision(commit, f"refs/heads/feature-{number % 50}"),
        branch=f"feature-{number % 50}",
        short_title=f"Make the thing number {number} better than it was",
        long_title=f"Make the thing number {number} better than it was\n\nAnd say why, at some length.",
        sender=f"user-{number % 30}",
        clone_url="https://git.example.com/acme/widgets.git",
    )
    attempt = Attempt(
        1, Kind.FIRST, 1, 1.7e9 + number, steps=("build", "unit-test", "lint", "deploy"), on_failure="build_failed",
        uid=f"3f0e7c1a-0000-4000-8000-{number:012d}", submitted=1.7e9 + number, ended=1.7e9 + number + 60,
        verdict=Verdict.FAILED if number % 10 == 0 else Verdict.SUCCEEDED, reason="step lint failed" if number % 10 == 0 else "",
    )  # fmt: skip
    steps = {(1, step): StepState(succeeded=1, highest=1) for step in attempt.steps}
    report = Report("bridge/push/push", "success", "4 steps succeeded", 1)
    state = State(attempts=(attempt,), steps=steps, reported=report, reported_to="github")
    run = some_run(
        f"push-{number:08x}",
        event=event,
        accepted=1.7e9 + number,
        phase=Phase.CLOSED,
        closed=1.7e9 + number + 61,
        verdict=attempt.verdict,
        state=state,
    )
    realm.runs.create(replace(run, digest=f"{number:064x}"), b"{}" * 500)


def _seconds(url, query):
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = urllib3.request("GET", f"{url}/api/v1/runs?{query}", headers=headers, timeout=60, retries=False)
    assert answer.status == 200, answer.data
    assert answer.json()["runs"]
    return time.monotonic() - began


def _rate(url, name, count=200):
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda number: push(url, f"{name}-{number}")[2].status, range(count)))
    assert statuses == {202}
    return count / (time.monotonic() - began)


def _worker(realm):
    """The one worker process of the gateway."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    for pid in pids:
        environment = _read(pid, "environ")
        parent = _read(pid, "stat").rpartition(b")")[2].split()[1:2]
        mine = realm.namespace.encode() in environment and b"gunicorn" in _read(pid, "cmdline")
        if mine and parent and b"gunicorn" in _read(int(parent[0]), "cmdline"):
            return pid
    raise AssertionError("gunicorn has no worker")


def _read(pid, what):
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _megabytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
