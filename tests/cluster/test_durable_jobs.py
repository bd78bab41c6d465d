"""The JavaScript package against a real API server: node runs the scripts, a thread plays the kubelet.

The worker is a stand-in for Brigade's (js/test/v1_worker.js says which habits it has); its jobs' pods go through the
phases that were recorded of the real one. A worker's death is what kubelet makes of it: SIGKILL, then its pod Failed.
"""

import base64
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import urllib3
import yaml

from tests.cluster.client import ApiError, Client, path
from tests.cluster.kubelet import FakeKubelet, set_phase
from tests.js.nodes import PACKAGE, TESTS, node

PATIENCE_SECONDS = 20
PROJECT = "brigade-4625a05a36594e1e1a3f1d0cb3e9d5b8e0a1c2d3e4f5a6b7c8d9e0"
LABELS = {
    "bridge.brigade.sh/run": "widgets-1",
    "bridge.brigade.sh/epoch": "1",
    "bridge.brigade.sh/step": "test",
}
DURABLE_RULES = next(yaml.safe_load_all((PACKAGE / "rbac.yaml").read_text()))["rules"]
WORKER_RULES = [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["create"]}]
"""What the worker itself needs to make a job."""
SCRIPT = """
const fs = require('fs')
const {{ events }} = require('brigadier')
const {{ DurableJob, checkpoint, emit }} = require({package})
const job = (name, {{ image = name, ...options }} = {{}}) => new DurableJob(name, image, ['task'], options)
const NOTES = {notes}
events.on('push', async (e, p) => {{ {body} }})
"""
FOUR = """for (const name of ['one', 'two', 'three', 'four']) console.log('RESULT ' + String(await job(name).run()).trim())"""


class Pods:
    """A kubelet for job pods: each goes through Pending and Running to the end that is planned for its image."""

    def __init__(self, admin: Client, kubelet: FakeKubelet, namespace: str) -> None:
        self.admin = admin
        self.kubelet = kubelet
        self.namespace = namespace
        self.plans: dict[str, list[str]] = defaultdict(list)
        """By image, the ends of its pods in the order of their creation: Succeeded (also without a plan), Failed, hold."""
        self.seen: list[dict[str, Any]] = []
        """Every pod there ever was, each once, by uid."""
        self.gone: dict[str, float] = {}
        self._ends: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def names(self, image: str | None = None) -> list[str]:
        """Names of the pods so far, one for each uid, in the order of their creation."""
        return [pod["metadata"]["name"] for pod in self.seen if image in {None, image_of(pod)}]

    def left(self) -> list[str]:
        """Names of the pods that are there now."""
        found = self.admin.get(path("pods", self.namespace), labelSelector="component=job")["items"]
        return [pod["metadata"]["name"] for pod in found]

    def running(self, image: str) -> str | None:
        """The name of a pod of this image that was brought to Running and is held there."""
        held = [pod for pod in self.seen if image_of(pod) == image and self._ends.get(uid_of(pod)) == "hold"]
        return held[-1]["metadata"]["name"] if held else None

    def end(self, name: str, phase: str, **status: Any) -> None:
        """A held pod ends."""
        set_phase(self.admin, self.namespace, name, phase, **status)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            found = self.admin.get(path("pods", self.namespace), labelSelector="component=job")["items"]
            for pod in sorted(
                found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"])
            ):
                # A test may delete one meanwhile.
                with suppress(ApiError):
                    self._move(pod)

    def _move(self, pod: dict[str, Any]) -> None:
        name, uid = pod["metadata"]["name"], uid_of(pod)
        if "deletionTimestamp" in pod["metadata"]:
            self.admin.delete(path("pods", self.namespace, name), gracePeriodSeconds=0)
            self.gone[uid] = time.monotonic()
            return
        if uid in self._ends:
            return
        plan = self.plans[image_of(pod)]
        end = plan.pop(0) if plan else "Succeeded"
        self.seen.append(pod)
        if end == "ErrImagePull":
            state = {"waiting": {"reason": end, "message": "no such image"}}
            known = {"name": "brigaderun", "image": "", "imageID": "", "ready": False, "restartCount": 0}
            set_phase(self.admin, self.namespace, name, "Pending", containerStatuses=[{**known, "state": state}])
        else:
            target = {"apiVersion": "v1", "kind": "Node", "name": self.kubelet.node}
            self.admin.create(
                path("pods", self.namespace, name, "binding"), {"metadata": {"name": name}, "target": target}
            )
            set_phase(self.admin, self.namespace, name, "Pending")
            log = self.kubelet.log(self.namespace, name, "brigaderun")
            log.write(f"out of {image_of(pod)}")
            set_phase(self.admin, self.namespace, name, "Running")
            if end != "hold":
                log.end()
                set_phase(self.admin, self.namespace, name, end)
        self._ends[uid] = end


class Worker:
    """One build's worker: a process here, a pod and a build Secret there."""

    def __init__(self, world: "World", build: str, body: str, version: str, environment: dict[str, str]) -> None:
        self.world = world
        self.pod = f"brigade-worker-{build}"
        labels = {"heritage": "brigade", "component": "build", "build": build, "project": PROJECT, **world.labels}
        secret = {"metadata": {"name": self.pod, "labels": labels}, "type": "brigade.sh/build"}
        world.admin.create(path("secrets", world.namespace), secret)
        world.kubelet.create_pod(world.admin, world.namespace, self.pod, container="brigade-runner", labels=labels)
        script = world.folder / f"{build}.js"
        known = {"package": json.dumps(str(PACKAGE)), "notes": json.dumps(str(world.folder / "notes"))}
        script.write_text(SCRIPT.format(body=body, **known))
        self._log = world.folder / f"{build}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [node(version), str(TESTS / "v1_worker.js"), str(script)],
                env={**world.environment(build), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self._log.read_text()

    def results(self) -> list[str]:
        return [line.removeprefix("RESULT ") for line in self.log().splitlines() if line.startswith("RESULT ")]

    def ended(self) -> int:
        """The exit code; kubelet says it too."""
        code = self.process.wait(PATIENCE_SECONDS)
        set_phase(
            self.world.admin, self.world.namespace, self.pod, "Failed" if code else "Succeeded", exit_code=code
        )
        return code

    def succeeded(self) -> str:
        assert self.ended() == 0, self.log()
        return self.log()

    def kill(self) -> None:
        """As when its node kills it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)
        set_phase(self.world.admin, self.world.namespace, self.pod, "Failed", exit_code=137)


class World:
    """A namespace with Brigade's worker ServiceAccount, and the workers that a test starts in it."""

    def __init__(self, admin: Client, kubelet: FakeKubelet, namespace: str, access: Any, folder: Path) -> None:
        self.admin, self.kubelet, self.namespace, self.folder = admin, kubelet, namespace, folder
        self.labels = LABELS
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "token").write_text(access.token)
        (self.account / "ca.crt").write_bytes(access.ca_file.read_bytes())
        (self.account / "namespace").write_text(namespace)
        self.url = access.url
        self.workers: list[Worker] = []

    def environment(self, build: str) -> dict[str, str]:
        host, port = re.fullmatch(r"https://([^:/]+):(\d+)", self.url).groups()
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "BRIGADE_SERVICE_ACCOUNT_FOLDER": str(self.account),
            "BRIGADE_DURABLE_POLL_MS": "100",
            "BRIGADE_BUILD_ID": build,
            "BRIGADE_BUILD_NAME": f"brigade-worker-{build}",
            "BRIGADE_PROJECT_ID": PROJECT,
            "BRIGADE_PROJECT_NAMESPACE": self.namespace,
            "BRIGADE_EVENT_TYPE": "push",
            "BRIGADE_EVENT_PROVIDER": "github",
            "BRIGADE_COMMIT_ID": "c0ffee",
            "BRIGADE_COMMIT_REF": "refs/heads/main",
        }

    def start(self, build: str, body: str, version: str = "oldest", **environment: str) -> Worker:
        self.workers.append(Worker(self, build, body, version, environment))
        return self.workers[-1]

    def checkpoints(self) -> list[dict[str, Any]]:
        return self.admin.get(path("secrets", self.namespace), labelSelector="bridge.brigade.sh/checkpoint")[
            "items"
        ]


@pytest.fixture
def world(admin, kubelet, namespace, as_service_account, tmp_path) -> Iterator[World]:
    access = as_service_account("brigade-worker", [*DURABLE_RULES, *WORKER_RULES])
    made = World(admin, kubelet, namespace, access, tmp_path)
    yield made
    for worker in made.workers:
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def pods(world) -> Iterator[Pods]:
    with Pods(world.admin, world.kubelet, world.namespace) as moving:
        yield moving


@pytest.mark.parametrize("version", ["oldest", "newest"])
def test_after_a_killed_worker_two_jobs_are_skipped_the_running_one_is_waited_for_and_one_runs(
    world, pods, version
):
    pods.plans["three"] = ["hold"]
    first = world.start("b1", FOUR, version)
    third = until(lambda: pods.running("three"))
    first.kill()
    second = world.start("b2", FOUR, version)
    until(lambda: "three: waiting for three, begun in build b1" in second.log(), second.log)
    pods.end(third, "Succeeded")
    log = second.succeeded()
    assert second.results() == ["out of one", "out of two", "out of three", "out of four"]
    assert "[durable] two: done already in build b1, skipped" in log
    assert pods.names() == ["one-b1", "two-b1", "three-b1", "four-b2"]


def test_two_workers_with_one_key_run_one_pod_a_job_in_each_of_50_rounds(world, pods):
    body = """
      const lanes = Array.from({ length: 10 }, async (_, lane) => {
        for (let round = 0; round < 5; round += 1) {
          const gate = id => `${NOTES}.${lane}.${round}.${id}`
          fs.writeFileSync(gate(e.buildID), '')
          while (!fs.existsSync(gate('b1')) || !fs.existsSync(gate('b2'))) await new Promise(resolve => setTimeout(resolve, 1))
          await job(`round-${lane}-${round}`).run()
        }
      })
      await Promise.all(lanes)"""
    workers = [world.start(build, body) for build in ("b1", "b2")]
    for worker in workers:
        worker.succeeded()
    jobs = sorted(name.rsplit("-", 1)[0] for name in pods.names())
    assert jobs == sorted(f"round-{lane}-{round_}" for lane in range(10) for round_ in range(5))


def test_a_flaky_job_passes_on_its_third_attempt_under_names_that_kubernetes_takes(world, pods):
    name = "a-name-of-thirty-six-characters-long"
    build = "0" * 26
    pods.plans["flaky"] = ["Failed", "Failed"]
    worker = world.start(
        build, f"console.log('RESULT ' + await job('{name}', {{ image: 'flaky', attempts: 3, backoff: 1 }}).run())"
    )
    worker.succeeded()
    assert worker.results() == ["out of flaky"]
    names = pods.names("flaky")
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"[a-z0-9-]{1,36}-0{26}", each) for each in names)


def test_a_pod_that_is_deleted_mid_run_is_noticed_and_launched_again(world, pods):
    pods.plans["job"] = ["hold"]
    worker = world.start("b1", "console.log('RESULT ' + await job('job').run())")
    name = until(lambda: pods.running("job"))
    until(lambda: "job-b1 phase Running" in worker.log(), worker.log)
    began = time.monotonic()
    world.admin.delete(path("pods", world.namespace, name))
    until(lambda: len(pods.names()) == 2, worker.log)
    assert time.monotonic() - began < PATIENCE_SECONDS
    # Brigade's own waiting, for 15 minutes, does not hold the worker back.
    assert "job is lost: pod job-b1 was deleted" in worker.succeeded()
    assert pods.names() == ["job-b1", "job-try2-b1"]


def test_an_evicted_job_is_launched_again_and_is_no_failure(world, pods):
    pods.plans["job"] = ["hold"]
    worker = world.start("b1", "await job('job').run()")
    pods.end(until(lambda: pods.running("job")), "Failed", reason="Evicted", message="The node was low on memory")
    assert "job-b1 was ended: Evicted" in worker.succeeded()
    assert pods.names() == ["job-b1", "job-try2-b1"]


def test_a_job_over_its_time_has_its_pod_stopped_before_the_next_attempt(world, pods):
    pods.plans["slow"] = ["hold"]
    worker = world.start(
        "b1", "const slow = job('slow', { attempts: 2, backoff: 1 }); slow.timeout = 1500; await slow.run()"
    )
    assert "time limit (1500 ms) exceeded" in worker.succeeded()
    first, second = pods.seen
    assert (first["metadata"]["name"], second["metadata"]["name"]) == ("slow-b1", "slow-try2-b1")
    assert uid_of(first) in pods.gone
    assert pods.left() == ["slow-try2-b1"]


def test_a_job_left_by_a_dead_worker_that_runs_over_its_time_is_stopped_by_the_next(world, pods):
    pods.plans["slow"] = ["hold"]
    body = "const slow = job('slow', { attempts: 2, backoff: 1 }); slow.timeout = 2000; await slow.run()"
    first = world.start("b1", body)
    until(lambda: pods.running("slow"))
    first.kill()
    assert "failed (1 of 2): time limit (2000 ms) exceeded" in world.start("b2", body).succeeded()
    assert pods.names() == ["slow-b1", "slow-b2"]


def test_a_worker_that_dies_between_its_claim_and_its_pod_leaves_nothing_to_wait_for(world, pods):
    first = world.start("b1", "await job('job').run()", DIE_BEFORE_THE_POD="1")
    assert first.ended() == -signal.SIGKILL
    assert "job of build b1 is lost" in world.start("b2", "await job('job').run()").succeeded()
    assert pods.names() == ["job-b2"]


def test_a_job_that_failed_after_its_workers_death_is_tried_again_within_its_attempts(world, pods):
    pods.plans["job"] = ["hold", "Failed"]
    body = "await job('job', { attempts: 2, backoff: 1 }).run()"
    first = world.start("b1", body)
    name = until(lambda: pods.running("job"))
    first.kill()
    second = world.start("b2", body)
    until(lambda: "waiting for job, begun in build b1" in second.log(), second.log)
    pods.end(name, "Failed")
    assert second.ended() == 1
    assert "Pod job-b2 failed to run to completion" in second.log()
    assert pods.names() == ["job-b1", "job-b2"]


def test_an_image_that_cannot_be_pulled_fails_a_job_that_was_left_and_its_pod_is_stopped(world, pods):
    pods.plans["job"] = ["ErrImagePull"]
    first = world.start("b1", "await job('job').run()")
    until(lambda: pods.names() == ["job-b1"])
    first.kill()
    second = world.start("b2", "await job('job').run()")
    assert second.ended() == 1, second.log()
    assert "no such image" in second.log()
    assert pods.left() == []


def test_a_success_whose_worker_died_before_it_knew_is_found_with_its_log(world, pods):
    pods.plans["job"] = ["hold"]
    body = "console.log('RESULT ' + await job('job').run())"
    first = world.start("b1", body)
    name = until(lambda: pods.running("job"))
    first.kill()
    pods.end(name, "Succeeded")
    second = world.start("b2", body)
    second.succeeded()
    assert (second.results(), pods.names()) == (["out of job"], ["job-b1"])


def test_attempts_share_the_cache_that_the_job_has_in_brigade(world, pods):
    pods.plans["job"] = ["Failed"]
    world.start(
        "b1",
        "const cached = job('job', { attempts: 2, backoff: 1 }); cached.cache.enabled = true; await cached.run()",
    ).succeeded()
    claims = [
        [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        for pod in pods.seen
    ]
    assert claims == [["acme-widgets-job"], ["acme-widgets-job"]]


def test_a_changed_job_and_a_rerun_run_again(world, pods):
    world.start("b1", "await job('job').run()").succeeded()
    world.start("b2", "await job('job', { image: 'other' }).run()").succeeded()
    world.labels = {**LABELS, "bridge.brigade.sh/epoch": "2"}
    world.start("b3", "await job('job').run()").succeeded()
    world.start("b4", "await job('job').run()").succeeded()
    assert pods.names() == ["job-b1", "job-b2", "job-b3"]


def test_without_bridge_a_rerun_of_the_same_commit_skips_what_was_finished(world, pods):
    world.labels = {}
    world.start("b1", "await job('job').run()").succeeded()
    world.start("b2", "await job('job').run()").succeeded()
    world.start("b3", "await job('job').run()", BRIGADE_COMMIT_ID="other").succeeded()
    assert pods.names() == ["job-b1", "job-b3"]


def test_a_checkpoint_is_kept_as_a_secret_that_goes_with_its_builds(world):
    body = "console.log('RESULT ' + JSON.stringify(await checkpoint('total', () => ({ build: e.buildID }))))"
    for build in ("b1", "b2"):
        worker = world.start(build, body)
        worker.succeeded()
        assert worker.results() == ['{"build":"b1"}']
    (kept,) = world.checkpoints()
    assert kept["type"] == "bridge.brigade.sh/checkpoint"
    assert kept["metadata"]["annotations"]["bridge.brigade.sh/state"] == "succeeded"
    world.admin.delete(path("secrets", world.namespace, "brigade-worker-b1"))
    until(lambda: not world.checkpoints())


def test_an_event_is_emitted_once_as_a_build_that_brigade_takes(world):
    body = "console.log('RESULT ' + JSON.stringify(await emit('deploy', { to: 'production' })))"
    answers = []
    for build in ("b1", "b2"):
        worker = world.start(build, body)
        worker.succeeded()
        answers.append(json.loads(worker.results()[0]))
    assert [answer["duplicate"] for answer in answers] == [False, True]
    assert answers[0]["id"] == answers[1]["id"]
    made = world.admin.get(path("secrets", world.namespace, f"brigade-worker-{answers[0]['id']}"))
    assert made["type"] == "brigade.sh/build"
    wanted = {"heritage": "brigade", "component": "build", "build": answers[0]["id"], "project": PROJECT}
    assert made["metadata"]["labels"] == wanted
    told = {field: base64.b64decode(value).decode() for field, value in made["data"].items()}
    assert told == {
        "build_id": made["metadata"]["name"],
        "build_name": made["metadata"]["name"],
        "project_id": PROJECT,
        "event_type": "deploy",
        "event_provider": "github",
        "payload": '{"to":"production"}',
        "commit_id": "c0ffee",
        "commit_ref": "refs/heads/main",
        "clone_url": "",
        "log_level": "log",
        "short_title": "",
        "long_title": "",
        "script": "",
        "config": "",
    }


def test_an_event_with_two_payloads_in_one_build_needs_names(world):
    worker = world.start(
        "b1", "await emit('deploy', 'a', { name: 'a' }); await emit('deploy', 'b'); await emit('deploy', 'c')"
    )
    assert worker.ended() == 1
    assert "emit deploy: it was emitted with another payload" in worker.log()
    assert worker.log().count("event deploy: build ") == 2


def test_an_api_server_that_is_away_or_whose_answers_are_lost_costs_time_only(world, pods, control_plane):
    """Each write is done and its answer thrown away, once; each read is refused once."""
    with Flaky(control_plane, world.url) as between:
        world.url = between.url
        worker = world.start("b1", "console.log('RESULT ' + await job('job', { attempts: 1 }).run())")
        worker.succeeded()
    # The lost answers of the stand-in's own calls are not its worker's to bear.
    assert between.lost >= 2
    assert between.refused >= 3
    assert worker.results() == ["out of job"]
    assert pods.names() == ["job-b1"]
    (kept,) = world.checkpoints()
    assert kept["metadata"]["annotations"]["bridge.brigade.sh/state"] == "succeeded"


def test_without_the_rights_it_says_which_call_was_refused(world, as_service_account):
    (world.account / "token").write_text(as_service_account("poor", []).token)
    worker = world.start("b1", "await job('job').run()")
    assert worker.ended() == 1
    assert "cannot read pods brigade-worker-b1: 403" in worker.log()
    assert "README.md lists the rights" in worker.log()


class Flaky:
    """Between a worker and the API server: breaks off one answer to each checkpoint's write, refuses each path once."""

    def __init__(self, control_plane: Any, url: str) -> None:
        self.lost = self.refused = 0
        flaky, met = self, set()
        pool = urllib3.PoolManager(ca_certs=str(control_plane.ca_file), retries=False, timeout=PATIENCE_SECONDS)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                again = (self.command, self.path) in met
                met.add((self.command, self.path))
                if self.command == "GET" and not again:
                    flaky.refused += 1
                    self._answer(503, b"not now", {})
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                answer = pool.request(self.command, f"{url}{self.path}", body=body or None, headers=headers)
                checkpoint = b"bridge.brigade.sh/checkpoint" in body
                if checkpoint and not again:
                    flaky.lost += 1
                    self.close_connection = True
                    return
                self._answer(answer.status, answer.data, {"Date": answer.headers["Date"]})

            def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        certificate = control_plane.folder / "certificates" / "apiserver"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def image_of(pod: dict[str, Any]) -> str:
    return pod["spec"]["containers"][0]["image"]


def uid_of(pod: dict[str, Any]) -> str:
    return pod["metadata"]["uid"]


def until(condition: Callable[[], Any], told: Callable[[], str] = lambda: "") -> Any:
    """Look until it is true; what it was then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s in vain\n{told()}"
        time.sleep(0.02)
    return answer
