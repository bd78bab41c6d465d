"""What an engine shows of a Workflow: its root node, its steps' nodes, and whether it lingers."""

from dataclasses import dataclass
from enum import StrEnum


class NodePhase(StrEnum):
    """Argo's node phases."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ERROR = "Error"
    SKIPPED = "Skipped"
    OMITTED = "Omitted"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of the node."""
        return self not in {NodePhase.PENDING, NodePhase.RUNNING}


@dataclass(frozen=True)
class Node:
    """A step's task in a Workflow, its retries taken together."""

    step: str
    phase: NodePhase
    exit_code: int | None = None
    message: str = ""
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class Execution:
    """A Workflow as read just now."""

    uid: str
    root: NodePhase | None
    """The entrypoint's node; the verdict comes from here, never from the Workflow's own phase. None: not begun."""
    message: str = ""
    nodes: tuple[Node, ...] = ()
    finished: bool = False
    """Nothing of it runs any more, its exit handler included."""
    deleting: bool = False
    """It has a deletionTimestamp, which counts as gone."""
    invalid: str = ""
    """Why the engine refuses to run it at all (missing template, bad spec)."""

    @property
    def root_ended(self) -> bool:
        """Whether the entrypoint came to an end."""
        return self.root is not None and self.root.ended
