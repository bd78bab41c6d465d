"""`bridgectl local`: gateway, controller and engine in one command.

This process runs the controller and the engine in threads, and gunicorn as a child that serves the gateway. All of
them meet at the files of the state folder, so each may die at any moment and be started again.
"""

import contextlib
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from bridge.core.events import Event, Ignored
from bridge.core.mending import next_attempt
from bridge.core.metrics import Value, waits
from bridge.core.names import project_id
from bridge.core.obligations import final_due, pending_since
from bridge.core.projects import Project
from bridge.errors import BadSettings, BridgeError, EngineError, Misconfigured
from bridge.flows.accepting import Accepted, accept
from bridge.flows.controlling import Controlling
from bridge.flows.mending import MEND_SECONDS, Mending
from bridge.flows.reconciling import Reconciling
from bridge.flows.sweeping import Sweeping
from bridge.github.limits import Limits
from bridge.local.board import Board
from bridge.local.containers import ENGINES, working_engine
from bridge.local.database import FILE_NAME
from bridge.local.emissions import Emissions
from bridge.local.engine import LocalEngine
from bridge.local.node import find_node
from bridge.local.processes import dies_with_parent
from bridge.local.projects import FolderProjects
from bridge.local.runs import SqliteRuns
from bridge.local.shared_values import EVERY_SECONDS, SharedValues
from bridge.ports import RunFilter
from bridge.rendering import render
from bridge.settings import PREFIX, Settings
from bridge.web.logs import log_as_json
from bridge.wiring.checking import checks_or
from bridge.wiring.gateways import gunicorn_arguments
from bridge.wiring.local import child_environment, local_ports, reconciling
from bridge.wiring.notifying import notifying
from bridge.wiring.reporting import StatusesOr, statuses
from bridge.wiring.sweeping import sweeping

DEFAULT_PIPELINES = Path(__file__).parents[1] / "local" / "default_pipelines"
STOP_SECONDS = 15.0
READY_SECONDS = 150.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def prepare(settings: Settings) -> list[str]:
    """Make the state folder and render every project's pipelines into it; answers what to tell the person.

    Raises Misconfigured if nothing could ever run: no project, a broken project or pipeline file.
    """
    known = FolderProjects(settings.projects)
    projects = known.all()
    broken = [reason for _path, reason in known.broken()]
    if not projects:
        raise Misconfigured(
            "; ".join(broken)
            or f"{settings.projects} has no project: give the folder that holds project.yaml, or the one above it"
        )
    templates = settings.state / "templates"
    rendered = {path.name for path in render(DEFAULT_PIPELINES, templates)}
    for project in projects:
        folder = Path(project.folder) / "pipelines"
        if folder.is_dir():
            for path in render(folder, templates):
                if path.name in rendered:
                    raise Misconfigured(f"{folder}: the pipeline {path.stem} is there twice: rename one")
                rendered.add(path.name)
    for stale in templates.glob("*.yaml"):
        if stale.name not in rendered:
            stale.unlink()
    usable = [f"project {project.name} ({project_id(project.name)})" for project in projects]
    idle = [
        f"{project.name} has no pipelines/ and does not say `defaultPipeline: true`: only pipelines of others "
        "that name it will run"
        for project in projects
        if not project.default_pipeline and not (Path(project.folder) / "pipelines").is_dir()
    ]
    return [*usable, *idle, *(f"left out: {line}" for line in broken)]


def with_commands(settings: Settings) -> Settings:
    """The settings with Node and the container engine found once, so that no step has to look for them again.

    Raises Misconfigured if one of them is not there or does not work, also one that was named.
    """
    engine = settings.container_command
    if settings.jobs == "container":
        (engine,) = working_engine((engine,) if engine else ENGINES)
    return settings.model_copy(update={"node": find_node(settings.node), "container_command": engine})


def serve(settings: Settings, *, gateway: str = "bridge.wsgi:local()", flow_of: "FlowOf | None" = None) -> int:
    """Run gateway, controller and engine until SIGINT or SIGTERM; answers the exit code.

    `gateway` names the app that gunicorn loads; `flow_of` makes the engine and the controller's flow.
    """
    if settings.host not in LOOPBACK:
        raise BadSettings(
            f"{PREFIX}HOST: one machine listens on loopback only, where reading needs no identity; "
            "put a proxy that knows people before it"
        )
    log_as_json(settings.log_level)
    lock = _only_one(settings.state)
    for line in prepare(settings):
        _say(line)
    settings = with_commands(settings)
    listener = _listener(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    engine, flow = (flow_of or local_flow)(settings, url)
    try:
        return _Server(settings, engine=engine, flow=flow, listener=listener, url=url, gateway=gateway).run()
    finally:
        os.close(lock)


FlowOf = Callable[[Settings, str], tuple[LocalEngine, Reconciling]]


def local_flow(settings: Settings, url: str) -> tuple[LocalEngine, Reconciling]:
    """The engine that acts, and the controller's flow over the same ports."""
    ports = local_ports(settings)
    limits = Limits()
    otherwise = StatusesOr(statuses(settings, ports.projects, limits=limits), Board(ports.runs.database))
    reports = checks_or(otherwise, settings, ports.projects, ports.builds, limits=limits)
    flow = reconciling(
        settings,
        runs=ports.runs,
        pipelines=ports.pipelines,
        engine=ports.engine,
        builds=ports.builds,
        reports=reports,
        clock=ports.clock,
        url=url,
        notices=notifying(settings, runs=ports.runs, owing=ports.runs, clock=ports.clock, url=url),
    )
    return ports.engine, flow


def _only_one(state: Path) -> int:
    """Hold the state folder for this process; the kernel lets it go however the process ends."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(state / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BadSettings(
            f"{PREFIX}STATE_DIR: another `bridgectl local` serves {state}: stop it, or name another folder"
        ) from None
    return lock


def _listener(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        listener.close()
        raise BadSettings(
            f"{PREFIX}PORT: cannot listen on {settings.host}:{settings.port} ({exc.strerror}); "
            "choose another, 0 takes a free one"
        ) from exc
    listener.listen(512)
    return listener


class _Server:
    """The parts of `bridgectl local` and how they end together."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: LocalEngine,
        flow: Reconciling,
        listener: socket.socket,
        url: str,
        gateway: str,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._flow = flow
        self._listener = listener
        self._url = url
        self._gateway = gateway
        self._stop = threading.Event()
        self._failed: list[str] = []

    def run(self) -> int:
        """Until a signal, or until a part ends that must not."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: self._stop.set())
        controller = Controlling(self._flow, poll_seconds=self._settings.poll_seconds)
        sweeps = sweeping(self._settings, FolderProjects(self._settings.projects), self._flow.clock)
        threads = [
            threading.Thread(target=self._part, args=(name, run), name=name)
            for name, run in (
                ("engine", self._engine.run_forever),
                ("controller", controller.run_forever),
                ("emissions", self._emissions().run_forever),
                ("notifications", self._flow.notices.run_forever),
                ("mending", self._mend_forever),
                ("metrics", _Numbers(self._settings, self._flow, controller, sweeps).run_forever),
                *([("sweeps", sweeps.run_forever)] if sweeps else []),
            )
        ]
        for thread in threads:
            thread.start()
        gateway = self._start_gateway()
        if self._wait_until_ready(gateway):
            _say(f"listening on {self._url}")
        while not self._stop.wait(0.2):
            if gateway.poll() is not None:
                self._failed.append(f"the gateway ended with {gateway.returncode}")
                self._stop.set()
        _end(gateway)
        for thread in threads:
            thread.join(STOP_SECONDS)
        for reason in self._failed:
            _say(reason)
        return 1 if self._failed else 0

    def _mend_forever(self, stop: threading.Event) -> None:
        """Let the runs end whose rows somebody damaged (core.mending)."""
        flow, runs = self._flow, SqliteRuns(self._settings.state / FILE_NAME)

        def broken() -> Sequence[tuple[str, str]]:
            runs.list(RunFilter(open_only=True))
            return runs.damaged()

        def mend(run: str) -> bool:
            attempt = next_attempt(self._engine.end_all(run), flow.builds.find(run))
            return runs.mend(run, attempt=attempt, at=flow.clock.now())

        mending = Mending(broken, mend)
        while not stop.wait(MEND_SECONDS):
            # While the database does not answer everything else waits for it, too.
            with contextlib.suppress(EngineError):
                mending.pass_once()

    def _emissions(self) -> Emissions:
        flow = self._flow

        def accepted(event: Event, project: Project) -> Accepted | Ignored:
            return accept(event, project, runs=flow.runs, pipelines=flow.pipelines, now=flow.clock.now())

        return Emissions(self._settings.state, FolderProjects(self._settings.projects), accepted)

    def _part(self, name: str, run: Callable[[threading.Event], None]) -> None:
        try:
            run(self._stop)
        except BridgeError as error:
            self._failed.append(f"the {name} ended: {error}")
        finally:
            self._stop.set()

    def _wait_until_ready(self, gateway: "subprocess.Popen[bytes]") -> bool:
        """Whether the gateway answers, which takes it a moment; whoever reads that we listen may send at once."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and gateway.poll() is None and not self._stop.wait(0.1):
            with contextlib.suppress(OSError, http.client.HTTPException):
                address, port = self._listener.getsockname()[:2]
                connection = http.client.HTTPConnection(address, port, timeout=READY_SECONDS)
                try:
                    connection.request("GET", "/readyz")
                    if connection.getresponse().status == HTTPStatus.OK:
                        return True
                finally:
                    connection.close()
        return False

    def _start_gateway(self) -> "subprocess.Popen[bytes]":
        """Gunicorn on the socket that is open already, so that no other process can take the port."""
        descriptor = self._listener.fileno()
        os.set_inheritable(descriptor, True)
        environment = _gateway_environment(self._settings, self._url)
        arguments = gunicorn_arguments(self._settings, bind=f"fd://{descriptor}", app=self._gateway)
        argv = [sys.executable, *arguments]
        return subprocess.Popen(argv, env=environment, pass_fds=(descriptor,), preexec_fn=dies_with_parent())  # noqa: PLW1509


class _Numbers:
    """The controller's numbers, handed to the gateway's /metrics every few seconds."""

    def __init__(
        self, settings: Settings, flow: Reconciling, controller: Controlling, sweeps: Sweeping | None
    ) -> None:
        self._shared = SharedValues(settings.state)
        self._projects = FolderProjects(settings.projects)
        self._flow = flow
        self._controller = controller
        self._sweeps = sweeps

    def run_forever(self, stop: threading.Event) -> None:
        """Write them until `stop`; while the database does not answer the last ones stay, until they are stale."""
        while not stop.is_set():
            with contextlib.suppress(BridgeError, OSError):
                self._shared.write(self._values())
            stop.wait(EVERY_SECONDS)

    def _values(self) -> dict[str, Value]:
        open_runs = self._flow.runs.list(RunFilter(open_only=True))
        now = self._flow.clock.now()
        return {
            "bridge_leading": 1.0,
            "bridge_open_runs": float(len(open_runs)),
            **waits(((pending_since(run), final_due(run)) for run in open_runs), now=now),
            **self._flow.counting.values(),
            "bridge_looks_total": float(self._controller.looks),
            "bridge_broken_projects": float(len(self._projects.broken())),
            **(self._sweeps.values() if self._sweeps else {}),
        }


def _gateway_environment(settings: Settings, url: str) -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != f"{PREFIX}PORT"}
    return {
        **inherited,
        **child_environment(settings),
        f"{PREFIX}PUBLIC_URL": settings.public_url or url,
        f"{PREFIX}ANONYMOUS_READ": "true",
        f"{PREFIX}RETENTION_DAYS": str(settings.retention_days),
    }


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _say(line: str) -> None:
    print(f"bridgectl local: {line}", flush=True)  # noqa: T201
