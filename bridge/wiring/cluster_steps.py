"""A step in a cluster: its pod's ServiceAccount or a kubeconfig, and two namespaces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bridge.clocks import SystemClock
from bridge.cluster.api import Api
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.connections import Connection, find_connection
from bridge.cluster.gateway import GatewayTokens
from bridge.cluster.nodes import own_node
from bridge.cluster.projects import SecretProjects
from bridge.cluster.runs import SecretRuns
from bridge.cluster.sources import GitSources
from bridge.core.runs import Run
from bridge.errors import BadSettings
from bridge.flows.freshening import Freshening
from bridge.ports import Builds, Runs
from bridge.wiring.places import ClusterFlags, Which, WorkflowNode, brigade_namespace, path_of, told_node

SHORTEST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0
SHARE = 0.1
"""Of the time that a build was followed: its end is seen at most so much later than it came. A look is four
requests, so a long build gets fewer of them."""


@dataclass(frozen=True)
class ClusterPlace:
    """Where a step stands in a cluster."""

    which: Which
    connection: Connection
    namespace: str
    """Of the records."""
    brigade_namespace: str
    workflow_node: WorkflowNode | None
    argo_node: str
    """Argo's own id of the node that this container is; empty outside of a Workflow."""
    pod: str
    takes_files: bool = True
    gateway_url: str = ""
    """Who hands out installation tokens; empty: nobody."""

    @cached_property
    def api(self) -> Api:
        """The API server. Raises Misconfigured if its certificates cannot be used."""
        return Api(self.connection)

    def runs(self) -> Runs:
        """The records."""
        return SecretRuns(self.api, self.namespace)

    def builds(self) -> Builds:
        """The builds."""
        return BrigadeBuilds(self.api, self.brigade_namespace, self.projects(), clock=SystemClock())

    def projects(self) -> SecretProjects:
        """The projects."""
        return SecretProjects(self.api, self.brigade_namespace)

    def sources(self) -> GitSources:
        """What is known of where sources come from."""
        return GitSources(self.projects())

    def node(self) -> WorkflowNode | None:
        """Which node a step by hand is: as its template says, or else as its own pod does, which Argo made."""
        if self.workflow_node is not None or not self.argo_node:
            return self.workflow_node
        return WorkflowNode(*own_node(self.api, self.connection.namespace, self.pod, self.argo_node))

    def freshening(self, say: Callable[[str], None]) -> Callable[[Run, bytes], bytes]:
        """The payload with a fresh installation token from the gateway, where it carries one."""
        return Freshening(GatewayTokens(self.gateway_url), say)

    def pause(self, followed_seconds: float) -> float:
        """How long to wait for the next look at a build that was followed for so long."""
        return min(max(SHORTEST_PAUSE_SECONDS, followed_seconds * SHARE), LONGEST_PAUSE_SECONDS)


def cluster_place(which: Which, flags: ClusterFlags, environment: Mapping[str, str]) -> ClusterPlace:
    """The place that flags and variables mean; flags win. Raises BadSettings and Misconfigured."""
    connection = find_connection(
        environment,
        kubeconfig=path_of(flags.kubeconfig or environment.get("BRIDGE_KUBECONFIG", "")),
        context=flags.context or environment.get("BRIDGE_KUBE_CONTEXT", ""),
    )
    return ClusterPlace(
        which=which,
        connection=connection,
        namespace=environment.get("BRIDGE_NAMESPACE", "") or connection.namespace,
        workflow_node=told_node(which, environment),
        argo_node=environment.get("ARGO_NODE_ID", ""),
        pod=environment.get("HOSTNAME", ""),
        gateway_url=environment.get("BRIDGE_GATEWAY_URL", ""),
        brigade_namespace=_brigade_namespace(which, flags.namespace, environment),
    )


def _brigade_namespace(which: Which, flag: str, environment: Mapping[str, str]) -> str:
    bridges = environment.get("BRIDGE_BRIGADE_NAMESPACE", "")
    if flag and bridges and flag != bridges and not which.by_hand:
        # The controller looks for a run's builds in its own, so one made elsewhere would never be given up.
        raise BadSettings(
            f"-n {flag[:100]}: this run's builds are made in namespace {bridges[:100]} "
            "(BRIDGE_BRIGADE_NAMESPACE); leave -n out"
        )
    return brigade_namespace(flag or bridges, environment)
