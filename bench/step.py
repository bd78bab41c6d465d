"""A step's process: how soon it has its first answer and what it weighs, and how soon it knows that a build ended, beside
the way in which Brigade's `brig run` waits.

`brig run` watches the worker's pod until it runs, copies its log until that ends and looks at the pod once; what it
concludes is often wrong (facts in docs/verified.md), so only its speed is a measure. Both look at the same build.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.worlds import World, project_name, world
from bridge.cluster.api import PODS, Api
from bridge.cluster.connections import kubeconfig_connection
from bridge.cluster.runs import SecretRuns
from bridge.core.events import Event, Revision
from bridge.core.runs import Attempt, Kind, Run, StepState, with_attempt, with_step
from tests.cluster.brigades import RUNNER, HandBrigade, name_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import FakeKubelet

STARTS = 15
BUILDS = 5
WORKER_SECONDS = 4.0
PATIENCE_SECONDS = 120.0


def figures(control_plane: ControlPlane, folder: Path) -> Iterator[tuple[str, str]]:
    """The figures, as they are measured."""
    with world(control_plane, folder, projects=1, pipelines=1) as made:
        api = Api(kubeconfig_connection([made.kubeconfig]))
        runs = SecretRuns(api, made.namespace)
        run = _begun(runs, "first-answer")
        runs.change(run, lambda now: with_step(now, 1, "test", StepState(succeeded=1, highest=1)))
        yield from _starts(made, run)
        with FakeKubelet(control_plane) as kubelet:
            brigade = HandBrigade(made.admin, kubelet, made.brigade)
            both = [_waits(made, api, runs, brigade, number) for number in range(BUILDS)]
        yield "step.after_end_s", f"{statistics.median(ours for ours, _ in both):.2f}"
        yield "step.brig_after_end_s", f"{statistics.median(theirs for _, theirs in both):.2f}"


def _starts(made: World, run: str) -> Iterator[tuple[str, str]]:
    bare, answers, weights = [], [], []
    for _ in range(STARTS):
        bare.append(_timed([sys.executable, "-c", "pass"], dict(os.environ))[0])
        seconds, rss = _timed(_step(), _environment(made, run))
        answers.append(seconds)
        weights.append(rss)
    yield "step.python_s", f"{statistics.median(bare):.3f}"
    yield "step.first_answer_s", f"{statistics.median(answers):.3f}"
    yield "step.ratio", f"{statistics.median(answers) / statistics.median(bare):.1f}"
    yield "step.rss_mb", f"{max(weights):.1f}"


def _timed(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and the most megabytes it had. By way of a small process: the kernel counts the parent's as its child's."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _TIMED, *argv], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: {argv[-4:]} failed: {done.stderr[-500:]}")
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) / 1024


_TIMED = """
import os, sys, time
began = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(time.monotonic() - began, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _waits(made: World, api: Api, runs: SecretRuns, brigade: HandBrigade, number: int) -> tuple[float, float]:
    """How long after the end of a build the step and the way of `brig run` knew it, in seconds."""
    run = _begun(runs, f"waits-{number}")
    step = subprocess.Popen(
        _step(), env=_environment(made, run), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert step.stdout is not None
    build = next(line for line in step.stdout if "Build: " in line).partition("Build: ")[2].split(",")[0]
    known: list[float] = []
    theirs = threading.Thread(target=_as_brig_waits, args=(api, made.brigade, name_of(build), known))
    theirs.start()
    brigade.start(build)
    log = brigade.log(build)
    for line in range(10):
        log.write(f"line {line}")
        time.sleep(WORKER_SECONDS / 10)
    ended = time.monotonic()
    log.end()
    brigade.set(build, "Succeeded", exit_code=0)
    step.communicate(timeout=PATIENCE_SECONDS)
    ours = time.monotonic() - ended
    theirs.join(PATIENCE_SECONDS)
    if step.returncode:
        raise SystemExit(f"bench: the step exited with {step.returncode}")
    return ours, known[0] - ended


def _as_brig_waits(api: Api, namespace: str, pod: str, known: list[float]) -> None:
    """Until it runs, its log until that ends, and one look at the pod."""
    phase = ""
    while phase not in {"Running", "Succeeded", "Failed"}:
        for found in [item for page in api.pages(PODS, namespace) for item in page.items]:
            if found["metadata"]["name"] == pod:
                phase = found["status"].get("phase", "")
        time.sleep(0.05)
    query = {"container": RUNNER, "follow": "true"}
    with api.stream(PODS, namespace, pod, subresource="log", query=query, silence_seconds=60.0) as stream:
        for _chunk in stream:
            pass
    api.get(PODS, namespace, pod)
    known.append(time.monotonic())


def _begun(runs: SecretRuns, name: str) -> str:
    event = Event(
        provider="github",
        type="pull_request:opened",
        project=project_name(0),
        delivery=name,
        revision=Revision("0123456789012345678901234567890123456789", "refs/pull/7/head"),
    )
    run = Run(name, "pull-request", event, "bridge/pull-request/pull_request", "", time.time())
    runs.create(run, b"{}")
    runs.change(name, lambda now: with_attempt(now, Attempt(1, Kind.FIRST, 1, time.time(), steps=("test",))))
    return name


def _step() -> list[str]:
    return [sys.executable, "-P", "-m", "bridge.step", "run", "--tries", "1", "-e", "test"]


def _environment(made: World, run: str) -> dict[str, str]:
    return made.environment(BRIDGE_RUN=run, BRIDGE_ATTEMPT="1", BRIDGE_STEP="test")
