"""The adapters of a cluster behind the ports."""

import os
from dataclasses import dataclass

from bridge.clocks import SystemClock
from bridge.cluster.api import Api
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.connections import Connection, find_connection
from bridge.cluster.engine import ArgoEngine
from bridge.cluster.pipelines import ClusterPipelines
from bridge.cluster.projects import WatchedProjects
from bridge.cluster.runs import SecretRuns
from bridge.ports import Clock
from bridge.settings import Settings
from bridge.wiring.places import brigade_namespace


@dataclass(frozen=True)
class ClusterPorts:
    """The adapters of a cluster, but for the reports (`wiring.reporting`)."""

    api: Api
    namespace: str
    """Of records, Workflows and WorkflowTemplates."""
    brigade_namespace: str
    runs: SecretRuns
    pipelines: ClusterPipelines
    projects: WatchedProjects
    engine: ArgoEngine
    builds: BrigadeBuilds
    clock: Clock


def connection(settings: Settings) -> Connection:
    """The cluster that settings and environment mean. Raises Misconfigured."""
    return find_connection(os.environ, kubeconfig=settings.kubeconfig, context=settings.kube_context)


def cluster_api(settings: Settings, *, timeout_seconds: float = 10.0, connect_timeout_seconds: float = 3.0) -> Api:
    """Calls to the settings' cluster. Nothing is asked yet. Raises Misconfigured.

    Args:
        settings: where it is.
        timeout_seconds: until an answer of the API server is complete.
        connect_timeout_seconds: until a connection stands.

    """
    found = connection(settings)
    return Api(found, timeout_seconds=timeout_seconds, connect_timeout_seconds=connect_timeout_seconds)


def cluster_ports(
    settings: Settings, *, timeout_seconds: float = 10.0, connect_timeout_seconds: float = 3.0
) -> ClusterPorts:
    """The adapters over the settings' cluster. Nothing is asked and no watch is started yet. Raises Misconfigured.

    Args:
        settings: where everything is.
        timeout_seconds: until an answer of the API server is complete.
        connect_timeout_seconds: until a connection stands.

    """
    api = cluster_api(settings, timeout_seconds=timeout_seconds, connect_timeout_seconds=connect_timeout_seconds)
    return ports_over(api, settings)


def ports_over(api: Api, settings: Settings, *, clock: Clock | None = None) -> ClusterPorts:
    """The adapters over these calls, by the machine's clock or another one."""
    namespace = settings.namespace or api.connection.namespace
    brigades = brigade_namespace(settings.brigade_namespace, os.environ)
    clock = clock or SystemClock()
    projects = WatchedProjects(api, brigades)
    return ClusterPorts(
        api=api,
        namespace=namespace,
        brigade_namespace=brigades,
        runs=SecretRuns(api, namespace),
        pipelines=ClusterPipelines(api, namespace),
        projects=projects,
        engine=ArgoEngine(api, namespace, settings.argo_instance_id),
        builds=BrigadeBuilds(api, brigades, projects, clock=clock, takes_volumes=True),
        clock=clock,
    )
