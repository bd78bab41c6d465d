"""A step on one machine. Its engine sets these variables (`wiring.local`); by hand they are set in the shell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.clocks import SystemClock
from bridge.errors import BadSettings
from bridge.local.builds import ProcessBuilds
from bridge.local.containers import working_engine
from bridge.local.database import FILE_NAME
from bridge.local.node import find_node
from bridge.local.projects import FolderProjects
from bridge.local.runs import SqliteRuns
from bridge.ports import Builds, Runs
from bridge.wiring.steps import Which, path_of

PAUSE_SECONDS = 0.25
"""A look is one read of the database and a few of files."""


@dataclass(frozen=True)
class LocalPlace:
    """Where a step stands on one machine."""

    which: Which
    state: Path
    projects: Path
    jobs: str
    container_command: str
    node: str

    def runs(self) -> Runs:
        """The records."""
        return SqliteRuns(self.state / FILE_NAME, create=False)

    def builds(self) -> Builds:
        """The builds. Raises Misconfigured if what runs them is not there."""
        return local_builds(
            self.state, self.projects, jobs=self.jobs, container_command=self.container_command, node=self.node
        )

    def pause(self, followed_seconds: float) -> float:  # noqa: ARG002 - a look costs little
        """How long to wait for the next look at a build."""
        return PAUSE_SECONDS


def local_place(which: Which, environment: Mapping[str, str]) -> LocalPlace:
    """The place that these variables mean."""
    projects = (path_of(environment.get("BRIDGE_PROJECTS_DIR", "")) or Path()).resolve()
    state = path_of(environment.get("BRIDGE_STATE_DIR", ""))
    return LocalPlace(
        which=which,
        state=state.resolve() if state else projects / ".bridge",
        projects=projects,
        jobs=environment.get("BRIDGE_JOBS", "") or "container",
        container_command=environment.get("BRIDGE_CONTAINER_COMMAND", ""),
        node=environment.get("BRIDGE_NODE", ""),
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
