"""A step on one machine. Its engine sets these variables (`wiring.local`); by hand they are set in the shell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.clocks import SystemClock
from bridge.core.runs import Run
from bridge.errors import BadSettings
from bridge.local.builds import ProcessBuilds
from bridge.local.containers import working_engine
from bridge.local.database import FILE_NAME
from bridge.local.node import find_node
from bridge.local.projects import FolderProjects
from bridge.local.runs import SqliteRuns
from bridge.ports import Builds, Runs
from bridge.wiring.places import Which, WorkflowNode, path_of, told_node

PAUSE_SECONDS = 0.25
"""A look is one read of the database and a few of files."""


@dataclass(frozen=True)
class LocalPlace:
    """Where a step stands on one machine."""

    which: Which
    workflow_node: WorkflowNode | None
    state: Path
    projects_folder: Path
    jobs: str
    container_command: str
    node_command: str
    takes_files: bool = False

    def runs(self) -> Runs:
        """The records."""
        return SqliteRuns(self.state / FILE_NAME, create=False)

    def builds(self) -> Builds:
        """The builds. Raises Misconfigured if what runs them is not there."""
        return local_builds(
            self.state,
            self.projects_folder,
            jobs=self.jobs,
            container_command=self.container_command,
            node=self.node_command,
        )

    def projects(self) -> FolderProjects:
        """The projects."""
        return FolderProjects(self.projects_folder)

    def sources(self) -> None:
        """Every build checks out the commit."""

    def node(self) -> WorkflowNode | None:
        """Which node a step by hand is."""
        return self.workflow_node

    def freshening(self, say: Callable[[str], None]) -> Callable[[Run, bytes], bytes]:  # noqa: ARG002
        """The payload as it is: nobody hands out tokens here."""
        return lambda _run, payload: payload

    def pause(self, followed_seconds: float) -> float:  # noqa: ARG002 - a look costs little
        """How long to wait for the next look at a build."""
        return PAUSE_SECONDS


def local_place(which: Which, environment: Mapping[str, str]) -> LocalPlace:
    """The place that these variables mean."""
    projects = (path_of(environment.get("BRIDGE_PROJECTS_DIR", "")) or Path()).resolve()
    state = path_of(environment.get("BRIDGE_STATE_DIR", ""))
    return LocalPlace(
        which=which,
        workflow_node=told_node(which, environment),
        state=state.resolve() if state else projects / ".bridge",
        projects_folder=projects,
        jobs=environment.get("BRIDGE_JOBS", "") or "container",
        container_command=environment.get("BRIDGE_CONTAINER_COMMAND", ""),
        node_command=environment.get("BRIDGE_NODE", ""),
    )


def local_builds(state: Path, projects: Path, *, jobs: str, container_command: str, node: str) -> ProcessBuilds:
    """The builds of one machine. What is not named is looked for; raises Misconfigured if it is not there."""
    if jobs not in {"container", "host"}:
        raise BadSettings("BRIDGE_JOBS has to be `container` or `host`")
    engine = () if jobs == "host" else (container_command,) if container_command else working_engine()
    return ProcessBuilds(
        state,
        FolderProjects(projects),
        jobs="host" if jobs == "host" else "container",
        container_command=engine,
        node=node or find_node(),
        clock=SystemClock(),
    )
