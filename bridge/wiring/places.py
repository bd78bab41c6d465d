"""Where a step stands: which step of which run a process is, and which world its variables and flags mean.

A state or projects folder means one machine; its engine sets them for every container that it starts. Otherwise
a kubeconfig, a namespace of Brigade's or a pod's own ServiceAccount means a cluster. With none of them it is one
machine, whose projects are in the folder where one stands.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge.core.runs import Run
from bridge.errors import BadSettings
from bridge.flows.stepping import Sources
from bridge.ports import Builds, Projects, Runs

NO_RUN = frozenset({"", "none"})
"""Values of BRIDGE_RUN that mean: started by hand, without a record."""

_FOLDERS = ("BRIDGE_STATE_DIR", "BRIDGE_PROJECTS_DIR")
_CLUSTERS = ("BRIDGE_KUBECONFIG", "BRIDGE_KUBE_CONTEXT", "KUBECONFIG", "KUBERNETES_SERVICE_HOST")


@dataclass(frozen=True)
class ClusterFlags:
    """The flags of `brig` that say which cluster; empty if not given. On one machine they say nothing."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    """Brigade's."""


NO_FLAGS = ClusterFlags()


@dataclass(frozen=True)
class Which:
    """Which step of which run; an exit handler has no step."""

    run: str = ""
    attempt: int = 0
    step: str = ""

    @property
    def by_hand(self) -> bool:
        """There is no record."""
        return self.run in NO_RUN


@dataclass(frozen=True)
class WorkflowNode:
    """A step that somebody submitted without a record: the same whenever Argo tries it again."""

    workflow_uid: str
    step: str


class Place(Protocol):
    """Where a step stands."""

    @property
    def which(self) -> Which:
        """Which step of which run it is."""
        ...

    def runs(self) -> Runs:
        """The records."""
        ...

    def builds(self) -> Builds:
        """The builds."""
        ...

    def projects(self) -> Projects:
        """The projects."""
        ...

    def sources(self) -> Sources | None:
        """What is known of where sources come from; None if every build checks out the commit."""
        ...

    @property
    def takes_files(self) -> bool:
        """Whether a build may bring its script."""
        ...

    def node(self) -> WorkflowNode | None:
        """Of a step by hand: which one of which Workflow it is; None in a plain shell.

        Raises BadSettings and EngineError if it cannot be told.
        """
        ...

    def freshening(self, say: Callable[[str], None]) -> Callable[[Run, bytes], bytes]:
        """Makes of a run and its payload what a build gets; see Stepping. `say` takes lines for people."""
        ...

    def pause(self, followed_seconds: float) -> float:
        """How long to wait for the next look at a build that was followed for so long."""
        ...


def which_of(environment: Mapping[str, str]) -> Which:
    """Which step of which run. Raises BadSettings naming the variable."""
    attempt = environment.get("BRIDGE_ATTEMPT", "") or "0"
    if not attempt.isascii() or not attempt.isdigit():
        raise BadSettings("BRIDGE_ATTEMPT has to be a whole number: the attempt that this step belongs to")
    return Which(environment.get("BRIDGE_RUN", ""), int(attempt), environment.get("BRIDGE_STEP", ""))


def told_node(which: Which, environment: Mapping[str, str]) -> WorkflowNode | None:
    """The node that its template tells by variables, None if it tells none."""
    uid = environment.get("BRIDGE_WORKFLOW_UID", "")
    return WorkflowNode(uid, which.step) if uid and which.step else None


def in_cluster(environment: Mapping[str, str], flags: ClusterFlags = NO_FLAGS) -> bool:
    """Whether a cluster is meant, not one machine."""
    if any(environment.get(name) for name in _FOLDERS):
        return False
    return flags != NO_FLAGS or any(environment.get(name) for name in _CLUSTERS)


def brigade_namespace(said: str, environment: Mapping[str, str]) -> str:
    """Brigade's namespace: what was said, else what `brig` itself goes by."""
    return said or environment.get("BRIGADE_NAMESPACE", "") or "default"


def path_of(said: str) -> Path | None:
    """The path that a variable or flag holds, None if it is empty."""
    return Path(said) if said else None
