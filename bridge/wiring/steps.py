"""The ports of a step's process, from its few variables. Light: nothing heavy is imported here.

The engine gives them to every container that it starts (`wiring.local`); by hand they are set in the shell.
"""

import os
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


@dataclass(frozen=True)
class Place:
    """Where a step stands: which step of which run, and where the world is."""

    run: str
    attempt: int
    step: str
    state: Path
    projects: Path
    jobs: str
    container_command: str
    node: str

    def runs(self) -> Runs:
        """The records."""
        return SqliteRuns(self.state / FILE_NAME, create=False)

    def builds(self) -> Builds:
        """The builds."""
        return local_builds(
            self.state, self.projects, jobs=self.jobs, container_command=self.container_command, node=self.node
        )


def place_of(environment: Mapping[str, str] | None = None, *, needs_step: bool = True) -> Place:
    """Read the variables; an exit handler has no BRIDGE_STEP. Raises BadSettings naming the one that is missing or
    wrong."""
    given = os.environ if environment is None else environment
    attempt = given.get("BRIDGE_ATTEMPT", "") or "0"
    if not attempt.isascii() or not attempt.isdigit():
        raise BadSettings("BRIDGE_ATTEMPT has to be a whole number: the attempt that this step belongs to")
    run = given.get("BRIDGE_RUN", "")
    step = given.get("BRIDGE_STEP", "")
    if run not in {"", "none"} and needs_step and not step:
        raise BadSettings("BRIDGE_STEP has to name the step of the run; the template sets it")
    projects = Path(given.get("BRIDGE_PROJECTS_DIR", "") or ".").resolve()
    state = given.get("BRIDGE_STATE_DIR", "")
    return Place(
        run=run,
        attempt=int(attempt),
        step=step,
        state=Path(state).resolve() if state else projects / ".bridge",
        projects=projects,
        jobs=given.get("BRIDGE_JOBS", "") or "container",
        container_command=given.get("BRIDGE_CONTAINER_COMMAND", ""),
        node=given.get("BRIDGE_NODE", ""),
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
