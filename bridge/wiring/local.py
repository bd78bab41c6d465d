"""The adapters of one machine behind the ports."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.clocks import SystemClock
from bridge.flows.notifying import NoNotices, Notices
from bridge.flows.reconciling import Reconciling
from bridge.flows.superseding import ListedGroups
from bridge.local.builds import ProcessBuilds
from bridge.local.database import FILE_NAME
from bridge.local.engine import EXIT_COMMAND, STEP_COMMAND, LocalEngine
from bridge.local.pipelines import TemplatePipelines
from bridge.local.projects import FolderProjects
from bridge.local.runs import SqliteRuns
from bridge.ports import Builds, Clock, Engine, Pipelines, Reports, Runs
from bridge.settings import PREFIX, Settings
from bridge.wiring.local_steps import local_builds


@dataclass(frozen=True)
class LocalPorts:
    """The adapters of one machine, but for the reports (`wiring.reporting`)."""

    runs: SqliteRuns
    pipelines: TemplatePipelines
    projects: FolderProjects
    engine: LocalEngine
    builds: ProcessBuilds
    clock: SystemClock


def local_ports(
    settings: Settings,
    *,
    step_command: Sequence[str] = STEP_COMMAND,
    exit_command: Sequence[str] = EXIT_COMMAND,
) -> LocalPorts:
    """The adapters over the settings' folders. Nothing is started and no file is made yet."""
    state = settings.state
    templates = TemplatePipelines(state / "templates", settings.projects / "templates")
    engine = LocalEngine(
        state,
        templates.template,
        parallel_steps=settings.parallel_steps,
        environment=child_environment(settings),
        run_on_host=settings.jobs == "host",
        step_command=step_command,
        exit_command=exit_command,
    )
    builds = local_builds(
        state,
        settings.projects,
        jobs=settings.jobs,
        container_command=settings.container_command,
        node=settings.node,
    )
    return LocalPorts(
        runs=SqliteRuns(state / FILE_NAME),
        pipelines=templates,
        projects=FolderProjects(settings.projects),
        engine=engine,
        builds=builds,
        clock=SystemClock(),
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


def reconciling(
    settings: Settings,
    *,
    runs: Runs,
    pipelines: Pipelines,
    engine: Engine,
    builds: Builds,
    reports: Reports,
    clock: Clock,
    url: str = "",
    notices: Notices | None = None,
) -> Reconciling:
    """The controller's flow over these ports; `url` is where the pages are, unless the settings know better."""
    base = settings.public_url or url
    return Reconciling(
        runs,
        pipelines,
        engine,
        builds,
        reports,
        clock,
        url_of=(lambda run: f"{base}/runs/{run}") if base else (lambda _run: ""),
        retention_seconds=settings.retention_seconds,
        notices=notices or NoNotices(),
        groups=ListedGroups(runs),
    )
