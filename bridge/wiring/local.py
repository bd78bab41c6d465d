"""Everything on one machine: the adapters, and the process that `bridgectl local` is.

That process runs the controller and the engine in threads, and gunicorn as a child that serves the gateway. All of
them meet at the files of the state folder, so each may die at any moment and be started again.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.clocks import SystemClock
from bridge.core.names import project_id
from bridge.core.runs import Report, Run
from bridge.errors import BadSettings, BridgeError, Misconfigured, UnknownProject
from bridge.flows.controlling import Controlling
from bridge.flows.reconciling import Reconciling
from bridge.github.statuses import GITHUB, GitHubStatuses
from bridge.local.board import Board
from bridge.local.builds import ProcessBuilds
from bridge.local.containers import working_engine
from bridge.local.engine import LocalEngine
from bridge.local.node import find_node
from bridge.local.pipelines import TemplatePipelines
from bridge.local.processes import dies_with_parent
from bridge.local.projects import FolderProjects
from bridge.local.runs import SqliteRuns
from bridge.rendering import render
from bridge.settings import PREFIX, Settings
from bridge.wiring.steps import DATABASE, local_builds

DEFAULT_PIPELINES = Path(__file__).parents[1] / "local" / "default_pipelines"
STOP_SECONDS = 15.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class LocalPorts:
    """The adapters of one machine."""

    runs: SqliteRuns
    pipelines: TemplatePipelines
    projects: FolderProjects
    engine: LocalEngine
    builds: ProcessBuilds
    reports: "StatusesOrBoard"
    board: Board
    clock: SystemClock


class StatusesOrBoard:
    """The port Reports: GitHub where there are credentials for the run's project, else the local board."""

    def __init__(self, github: GitHubStatuses, board: Board) -> None:
        self._github = github
        self._board = board

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status to GitHub, or to the board if nobody may post there. Raises StatusNotPosted."""
        to = self._github.post(run, report, url=url)
        return to if to == GITHUB else self._board.post(run, report, url=url)


def local_ports(settings: Settings) -> LocalPorts:
    """The adapters over the settings' folders. Nothing is started and no file is made yet."""
    state = settings.state
    projects = FolderProjects(settings.projects)
    runs = SqliteRuns(state / DATABASE)
    board = Board(runs.database)
    templates = TemplatePipelines(state / "templates", settings.projects / "templates")
    return LocalPorts(
        runs=runs,
        pipelines=templates,
        projects=projects,
        engine=_engine(settings, templates),
        builds=local_builds(
            state,
            settings.projects,
            jobs=settings.jobs,
            container_command=settings.container_command,
            node=settings.node,
        ),
        reports=StatusesOrBoard(_statuses(settings, projects), board),
        board=board,
        clock=SystemClock(),
    )


def _statuses(settings: Settings, projects: FolderProjects) -> GitHubStatuses:
    def token_of(name: str) -> str | None:
        with contextlib.suppress(UnknownProject):
            return projects.read(name).token or None
        return None

    def repository_of(name: str) -> str:
        with contextlib.suppress(UnknownProject):
            return projects.read(name).repository or name
        return name

    return GitHubStatuses(token_of, base_url=settings.github_api_url, repository_of=repository_of)


def _engine(settings: Settings, templates: TemplatePipelines) -> LocalEngine:
    return LocalEngine(
        settings.state,
        templates.template,
        parallel_steps=settings.parallel_steps,
        environment=child_environment(settings),
        run_on_host=settings.jobs == "host",
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """The variables by which step, exit handler and gateway find the same world."""
    return {
        f"{PREFIX}STATE_DIR": str(settings.state),
        f"{PREFIX}PROJECTS_DIR": str(settings.projects),
        f"{PREFIX}JOBS": settings.jobs,
        f"{PREFIX}CONTAINER_COMMAND": settings.container_command,
        f"{PREFIX}NODE": settings.node,
    }


def reconciling(ports: LocalPorts, settings: Settings, *, url: str = "") -> Reconciling:
    """The controller's flow over these ports."""
    base = settings.public_url or url
    return Reconciling(
        ports.runs,
        ports.pipelines,
        ports.engine,
        ports.builds,
        ports.reports,
        ports.clock,
        url_of=(lambda run: f"{base}/runs/{run}") if base else (lambda _run: ""),
        retention_seconds=settings.retention_seconds,
    )


def prepare(settings: Settings) -> list[str]:
    """Make the state folder and render every project's pipelines into it; answers what to tell the person.

    Raises Misconfigured if nothing could ever run: no project, a broken project or pipeline file.
    """
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = FolderProjects(settings.projects)
    projects = known.all()
    broken = [f"{path}: {reason}" for path, reason in known.broken()]
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
    return [*usable, *(f"left out: {line}" for line in broken)]


def with_commands(settings: Settings) -> Settings:
    """The settings with Node and the container engine found once, so that no step has to look for them again."""
    engine = settings.container_command
    if settings.jobs == "container" and not engine:
        (engine,) = working_engine()
    return settings.model_copy(update={"node": find_node(settings.node), "container_command": engine})


def serve(settings: Settings) -> int:
    """Run gateway, controller and engine until SIGINT or SIGTERM; answers the exit code."""
    if settings.host not in LOOPBACK:
        raise BadSettings(
            f"{PREFIX}HOST: one machine listens on loopback only, where reading needs no identity; "
            "put a proxy that knows people before it"
        )
    for line in prepare(settings):
        _say(line)
    settings = with_commands(settings)
    listener = _listener(settings)
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    ports = local_ports(settings)
    return _Server(settings, ports, listener, url).run()


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

    def __init__(self, settings: Settings, ports: LocalPorts, listener: socket.socket, url: str) -> None:
        self._settings = settings
        self._ports = ports
        self._listener = listener
        self._url = url
        self._stop = threading.Event()
        self._failed: list[str] = []

    def run(self) -> int:
        """Until a signal, or until a part ends that must not."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: self._stop.set())
        controller = Controlling(
            reconciling(self._ports, self._settings, url=self._url), poll_seconds=self._settings.poll_seconds
        )
        threads = [
            threading.Thread(target=self._part, args=(name, run), name=name)
            for name, run in (
                ("engine", self._ports.engine.run_forever),
                ("controller", controller.run_forever),
            )
        ]
        for thread in threads:
            thread.start()
        gateway = self._start_gateway()
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

    def _part(self, name: str, run: "object") -> None:
        try:
            run(self._stop)  # type: ignore[operator]
        except BridgeError as error:
            self._failed.append(f"the {name} ended: {error}")
        finally:
            self._stop.set()

    def _start_gateway(self) -> "subprocess.Popen[bytes]":
        """Gunicorn on the socket that is open already, so that no other process can take the port."""
        descriptor = self._listener.fileno()
        os.set_inheritable(descriptor, True)
        environment = _gateway_environment(self._settings, self._url)
        argv = [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            "python:bridge.web.gunicorn_settings",
            "--bind",
            f"fd://{descriptor}",
            "--workers",
            str(self._settings.web_workers),
            "--threads",
            str(self._settings.web_threads),
            "bridge.wsgi:local()",
        ]
        return subprocess.Popen(argv, env=environment, pass_fds=(descriptor,), preexec_fn=dies_with_parent())  # noqa: PLW1509


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
