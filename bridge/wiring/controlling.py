"""`bridgectl controller`: of several one leads, and pays what runs are owed in a cluster."""

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from bridge.cluster.api import PODS, SECRETS, WORKFLOWS
from bridge.cluster.leases import Lease
from bridge.cluster.run_index import RunIndex
from bridge.cluster.watching import Change, Watching
from bridge.core.names import RUN_LABEL
from bridge.flows.controlling import Controlling
from bridge.flows.fencing import fenced
from bridge.flows.reconciling import Reconciling
from bridge.ports import Builds, Engine, Reports, Runs
from bridge.settings import Settings
from bridge.web.logs import JsonFormatter
from bridge.web.probes import Probes
from bridge.wiring.cluster import ClusterPorts, cluster_ports
from bridge.wiring.reporting import cluster_reports

LEASE_NAME = "bridge-controller"
POLL_SECONDS = 1.0
"""How soon a run is noticed to be due again; what a watch tells is looked at at once."""
STUCK_SECONDS = 120.0
"""A loop that was silent for so long is not alive."""

log = logging.getLogger(__name__)


class Controller:
    """The parts of a controller. All of them watch, so that whoever begins to lead knows what there is; one acts.

    Args:
        settings: where everything is.
        ports: the cluster's adapters.
        reports: where statuses go.
        identity: who we are in the Lease.

    """

    def __init__(self, settings: Settings, ports: ClusterPorts, reports: Reports, *, identity: str = "") -> None:
        self._settings = settings
        self._ports = ports
        own = ports.api.connection.namespace
        self.lease = Lease(
            ports.api,
            settings.lease_namespace or own,
            LEASE_NAME,
            identity or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
            clock=ports.clock,
            on_change=self._on_lead,
        )
        self.flow = self._flow(reports)
        self.index = RunIndex(
            ports.api, ports.namespace, ports.runs, self._wake, keep_runs=settings.retention_runs
        )
        self.loop = Controlling(
            self.flow,
            poll_seconds=POLL_SECONDS,
            index=self.index,
            resync_seconds=settings.resync_seconds,
            leads=self._may_act,
        )
        self._watches = self._of_what_runs_have()
        self._looked_alive = ports.clock.monotonic()
        self._said: set[tuple[str, str]] = set()

    def run(self, stop: threading.Event) -> None:
        """Watch, lead when it is our turn and act, until `stop`; then let another one lead."""
        ports = self._ports
        for cache in (ports.projects, ports.pipelines, self.index):
            cache.start()
        while not self._synced() and not stop.wait(0.05):
            self._looked_alive = ports.clock.monotonic()
        # After the index: what is left of closed runs wakes nobody.
        for watch in self._watches:
            watch.start()
        self.lease.start()
        try:
            self.loop.run_forever(stop)
        finally:
            self.lease.stop()
            for watch in self._watches:
                watch.stop()
            for cache in (self.index, ports.pipelines, ports.projects):
                cache.stop()

    def alive(self) -> str:
        """Empty while the loop goes round."""
        silent = self._ports.clock.monotonic() - self._looked_alive
        return "" if silent < STUCK_SECONDS else f"the loop is silent for {silent:.0f} s"

    def ready(self) -> str:
        """Empty once it knows everything there is, so that it could lead."""
        return "" if self._synced() else "the first lists of records, projects and pipelines are not done"

    def values(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "bridge_leading": float(self.lease.held()),
            "bridge_open_runs": float(len(self.index.open())),
            "bridge_looks_total": float(self.loop.looks),
            "bridge_broken_records": float(len(self.index.broken())),
            "bridge_broken_pipelines": float(len(self._ports.pipelines.broken())),
            "bridge_broken_projects": float(len(self._ports.projects.broken())),
        }

    def _flow(self, reports: Reports) -> Reconciling:
        ports, settings, leads = self._ports, self._settings, self.lease.held
        base = settings.public_url
        return Reconciling(
            fenced(Runs, ports.runs, leads),  # type: ignore[type-abstract] # it is asked for its marks alone
            ports.pipelines,
            fenced(Engine, ports.engine, leads),  # type: ignore[type-abstract]
            fenced(Builds, ports.builds, leads),  # type: ignore[type-abstract]
            fenced(Reports, reports, leads),  # type: ignore[type-abstract]
            ports.clock,
            url_of=(lambda run: f"{base}/runs/{run}") if base else (lambda _run: ""),
            retention_seconds=settings.retention_seconds,
        )

    def _of_what_runs_have(self) -> list[Watching]:
        """Watches of what changes when something happens to a run: Workflows, builds, worker pods."""
        api, brigades = self._ports.api, self._ports.brigade_namespace
        watched: tuple[tuple[Any, str], ...] = (
            (WORKFLOWS, self._ports.namespace),
            (SECRETS, brigades),
            (PODS, brigades),
        )
        return [
            Watching(api, resource, namespace, self._changed, labels=RUN_LABEL, metadata_only=True)
            for resource, namespace in watched
        ]

    def _changed(self, _change: Change, found: Mapping[str, Any]) -> None:
        run = (found["metadata"].get("labels") or {}).get(RUN_LABEL)
        if run and not self.index.is_closed(run):
            self._wake(run)

    def _wake(self, run: str) -> None:
        self.loop.wake(run)

    def _on_lead(self, leads: bool) -> None:
        log.info("this controller %s", "leads" if leads else "does not lead any more")

    def _may_act(self) -> bool:
        self._looked_alive = self._ports.clock.monotonic()
        self._tell_broken()
        return self.lease.held() and self._synced()

    def _synced(self) -> bool:
        ports = self._ports
        return all(
            cache.watching.synced.is_set()
            for cache in (ports.projects.cache, ports.pipelines.cache, self.index.cache)
        )

    def _tell_broken(self) -> None:
        """Each thing that is set aside, once."""
        found = {
            *self.index.broken(),
            *self._ports.pipelines.broken(),
            *self._ports.projects.broken(),
        }
        for name, why in sorted(found - self._said):
            log.warning("set aside: %s: %s", name, why)
        self._said = found


def control(settings: Settings, *, on_ready: Callable[[Probes], None] = lambda _probes: None) -> int:
    """Run a controller until SIGINT or SIGTERM; answers the exit code. Raises Misconfigured."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    ports = cluster_ports(settings)
    controller = Controller(settings, ports, cluster_reports(settings, ports.projects))
    probes = Probes(
        settings.controller_host,
        settings.controller_port,
        alive=controller.alive,
        ready=controller.ready,
        values=controller.values,
    )
    probes.start()
    log.info("probes and metrics on port %d", probes.port)
    on_ready(probes)
    try:
        controller.run(stop)
    finally:
        probes.stop()
    return os.EX_OK
