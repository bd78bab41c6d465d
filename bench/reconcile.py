"""The controller: one pass over many closed and some open runs, and how fast it submits a backlog."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench.worlds import World, free_port, project_name, running, world
from bridge.cluster.api import WORKFLOWS, Api
from bridge.cluster.connections import kubeconfig_connection
from bridge.cluster.runs import SecretRuns
from bridge.core.events import Event, Revision
from bridge.core.runs import Phase, Run
from bridge.core.verdicts import Verdict
from tests.cluster.control_plane import ControlPlane

CLOSED, OPEN, BACKLOG = 10_000, 200, 1_000
PAYLOAD_BYTES = 25_000
WRITERS = 8
BACKLOG_SECONDS = 900.0


def figures(control_plane: ControlPlane, folder: Path) -> Iterator[tuple[str, str]]:
    """The figures, as they are measured."""
    with world(control_plane, folder, projects=1, pipelines=1) as made:
        api = Api(kubeconfig_connection([made.kubeconfig]))
        runs = SecretRuns(api, made.namespace)
        _store(runs, "closed", CLOSED, closed=True)
        _store(runs, "open", OPEN)
        found = _one_pass(made)
        for name in ("sync_s", "pass_s", "pass_cpu_s", "pass_requests", "rss_mb"):
            yield f"reconcile.{name}", f"{found[name]:g}"
        yield "reconcile.requests_per_open_run", f"{found['pass_requests'] / OPEN:.1f}"
        _store(runs, "backlog", BACKLOG)
        yield "reconcile.submissions_per_s", f"{_submissions_per_s(made, api, folder):.1f}"


def _store(runs: SecretRuns, kind: str, count: int, *, closed: bool = False) -> None:
    payloads = random.Random(kind)

    def one(number: int, payload: bytes) -> None:
        runs.create(_run(f"{kind}-{number}", closed=closed), payload)

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(one, number, payloads.randbytes(PAYLOAD_BYTES)) for number in range(count)]:
            done.result()


def _run(name: str, *, closed: bool) -> Run:
    commit = f"{random.Random(name).getrandbits(160):040x}"
    event = Event(
        provider="github",
        type="pull_request:synchronize",
        project=project_name(0),
        delivery=name,
        revision=Revision(commit, "refs/pull/7/head"),
        pull_request=7,
        short_title="PR #7: Make widgets rounder",
    )
    run = Run(name, "pull-request", event, "bridge/pull-request/pull_request", "0" * 64, time.time())
    if not closed:
        return run
    return replace(run, phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED, closed=time.time())


def _one_pass(made: World) -> dict[str, float]:
    argv = [sys.executable, "-P", "-m", "bench.passing"]
    environment = made.environment(PYTHONPATH=str(Path(__file__).parents[1]))
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _submissions_per_s(made: World, api: Api, folder: Path) -> float:
    port = free_port()
    before = _workflows(api, made)
    settings = {
        "BRIDGE_CONTROLLER_HOST": "127.0.0.1",
        "BRIDGE_CONTROLLER_PORT": str(port),
        "BRIDGE_LOG_LEVEL": "warning",
    }
    ready = f"http://127.0.0.1:{port}/readyz"
    with running(made, "controller", ready=ready, log=folder / "controller.log", **settings):
        while (begun := _workflows(api, made)) == before:
            time.sleep(0.1)
        began = time.monotonic()
        while (found := _workflows(api, made)) < before + BACKLOG:
            if time.monotonic() - began > BACKLOG_SECONDS:
                raise SystemExit(f"bench: {found - before} of {BACKLOG} were submitted in {BACKLOG_SECONDS:g} s")
            time.sleep(0.25)
        return (found - begun) / (time.monotonic() - began)


def _workflows(api: Api, made: World) -> int:
    return sum(len(page.items) for page in api.pages(WORKFLOWS, made.namespace, metadata_only=True, limit=2000))
