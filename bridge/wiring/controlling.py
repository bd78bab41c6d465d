"""`bridgectl controller`: of several one leads, and pays what runs are owed in a cluster."""

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from bridge.clocks import SystemClock
from bridge.cluster.api import PODS, SECRETS, WORKFLOWS, Api, Resource
from bridge.cluster.leases import MARGIN_SECONDS, Lease
from bridge.cluster.run_index import RunIndex
from bridge.cluster.strays import WatchedStrays
from bridge.cluster.watching import Change, Watching
from bridge.core.mending import next_attempt
from bridge.core.metrics import Value
from bridge.core.names import ATTEMPT_LABEL, RUN_LABEL
from bridge.flows.controlling import Controlling
from bridge.flows.fencing import fenced, fenced_calls
from bridge.flows.freshening import Freshening
from bridge.flows.mending import MEND_SECONDS, Mending
from bridge.flows.reconciling import Reconciling
from bridge.github.limits import Limits
from bridge.ports import Clock, Reports
from bridge.settings import Settings
from bridge.web.logs import log_as_json
from bridge.web.probes import Probes
from bridge.wiring.checking import checks_or
from bridge.wiring.cluster import ClusterPorts, cluster_api, ports_over
from bridge.wiring.notifying import notifying
from bridge.wiring.reporting import cluster_reports, installation_tokens
from bridge.wiring.sweeping import sweeping

WRITES = ("create", "patch", "delete")
"""The calls of an Api that have an effect."""
LEASE_NAME = "bridge-controller"
POLL_SECONDS = 1.0
"""How soon a run is noticed to be due again; what a watch tells is looked at at once."""
BESIDE_STOP_SECONDS = 10.0
MOST_ATTEMPT_DIGITS = 9
STUCK_SECONDS = 120.0
"""A loop that was silent for so long is not alive."""

log = logging.getLogger(__name__)


class Controller:
    """The parts of a controller. All of them watch, so that whoever begins to lead knows what there is; one acts.

    Args:
        settings: where everything is.
        ports: the cluster's adapters, whose writing calls nobody makes who does not hold the Lease.
        lease: the controllers' Lease.
        reports: where statuses go.

    """

    def __init__(self, settings: Settings, ports: ClusterPorts, lease: Lease, reports: Reports) -> None:
        self.ports = ports
        self.lease = lease
        self.index = RunIndex(
            ports.api, ports.namespace, ports.runs, self._wake, keep_runs=settings.retention_runs
        )
        self.strays = WatchedStrays(ports.api, ports.namespace, self._changed)
        self.notifying = notifying(
            settings,
            runs=ports.runs,
            owing=self.index,
            clock=ports.clock,
            leads=lambda: lease.held() and self._synced(),
        )
        base = settings.public_url
        self.flow = Reconciling(
            ports.runs,
            ports.pipelines,
            ports.engine,
            ports.builds,
            fenced(Reports, reports, lease.held),  # type: ignore[type-abstract] # it is asked for its marks alone
            ports.clock,
            url_of=(lambda run: f"{base}/runs/{run}") if base else (lambda _run: ""),
            retention_seconds=settings.retention_seconds,
            strays=self.strays,
            notices=self.notifying,
            groups=self.index,
            freshened=Freshening(installation_tokens(settings, ports.projects), log.warning),
        )
        self.loop = Controlling(
            self.flow,
            poll_seconds=POLL_SECONDS,
            index=_WithStrays(self.index, self.strays),
            resync_seconds=settings.resync_seconds,
            leads=self._may_act,
        )
        self.sweeping = sweeping(
            settings, ports.projects, ports.clock, leads=lambda: lease.held() and self._synced()
        )
        self._watches = [self.strays.watching, *(self._of_builds(resource) for resource in (SECRETS, PODS))]
        self._looked_alive = ports.clock.monotonic()
        self._said: set[tuple[str, str]] = set()
        self._mend_after = 0.0
        self._mending = Mending(self.index.broken, self._mended)

    def run(self, stop: threading.Event) -> None:
        """Watch, lead when it is our turn and act, until `stop`; then let another one lead."""
        ports = self.ports
        for cache in (ports.projects, ports.pipelines, self.index):
            cache.start()
        while not self._synced() and not stop.wait(0.05):
            self._looked_alive = ports.clock.monotonic()
        # After the index: what is left of closed runs wakes nobody.
        for watch in self._watches:
            watch.start()
        self.lease.start()
        beside = [
            threading.Thread(target=part, args=(stop,), name=name, daemon=True)
            for name, part in (("sweeps", self._sweep), ("notifications", self.notifying.run_forever))
        ]
        for thread in beside:
            thread.start()
        try:
            self.loop.run_forever(stop)
        finally:
            self.lease.stop()
            # What they wait for has a timeout, and whatever they asked for may be asked for again.
            for thread in beside:
                thread.join(BESIDE_STOP_SECONDS)
            for watch in self._watches:
                watch.stop()
            for cache in (self.index, ports.pipelines, ports.projects):
                cache.stop()

    def _sweep(self, stop: threading.Event) -> None:
        if self.sweeping is not None:
            self.sweeping.run_forever(stop)

    def alive(self) -> str:
        """Empty while the loop goes round."""
        silent = self.ports.clock.monotonic() - self._looked_alive
        return "" if silent < STUCK_SECONDS else f"the loop is silent for {silent:.0f} s"

    def ready(self) -> str:
        """Empty once it knows everything there is, so that it could lead."""
        return "" if self._synced() else "the first lists of records, projects and pipelines are not done"

    def values(self) -> dict[str, Value]:
        """For the metrics. Nobody is asked for them."""
        return {
            "bridge_leading": float(self.lease.held()),
            "bridge_open_runs": float(len(self.index.open())),
            **self.index.waits(now=self.ports.clock.now()),
            **self.flow.counting.values(),
            "bridge_looks_total": float(self.loop.looks),
            "bridge_broken_records": float(len(self.index.broken())),
            "bridge_broken_pipelines": float(len(self.ports.pipelines.broken())),
            "bridge_broken_projects": float(len(self.ports.projects.broken())),
            **(self.sweeping.values() if self.sweeping else {}),
            **self.notifying.values(),
        }

    def _of_builds(self, resource: Resource) -> Watching:
        ports = self.ports
        return Watching(
            ports.api,
            resource,
            ports.brigade_namespace,
            self._changed_build,
            labels=RUN_LABEL,
            metadata_only=True,
        )

    def _changed_build(self, _change: Change, found: Mapping[str, Any]) -> None:
        run = (found["metadata"].get("labels") or {}).get(RUN_LABEL)
        if run:
            self._changed(run)

    def _changed(self, run: str) -> None:
        if not self.index.is_closed(run) or self.strays.goes_on(run):
            self._wake(run)

    def _wake(self, run: str) -> None:
        self.loop.wake(run)

    def _may_act(self) -> bool:
        self._looked_alive = self.ports.clock.monotonic()
        self._tell_broken()
        leads = self.lease.held() and self._synced()
        if leads:
            self._mend()
        return leads

    def _synced(self) -> bool:
        ports = self.ports
        return all(
            cache.watching.synced.is_set()
            for cache in (ports.projects.cache, ports.pipelines.cache, self.index.cache)
        )

    def _mend(self) -> None:
        """Let the runs end whose records somebody damaged (core.mending)."""
        now = self.ports.clock.monotonic()
        if now < self._mend_after:
            return
        self._mend_after = now + MEND_SECONDS
        self._mending.pass_once()

    def _mended(self, run: str) -> bool:
        return self.ports.runs.mend(run, attempt=self._unused_attempt(run), at=self.ports.clock.now())

    def _unused_attempt(self, run: str) -> int:
        pages = self.ports.api.pages(
            WORKFLOWS, self.ports.namespace, labels=f"{RUN_LABEL}={run}", metadata_only=True
        )
        said = [
            (workflow["metadata"].get("labels") or {}).get(ATTEMPT_LABEL, "")
            for page in pages
            for workflow in page.items
        ]
        numbers = [int(one) for one in said if one.isascii() and one.isdigit() and len(one) <= MOST_ATTEMPT_DIGITS]
        return next_attempt(numbers, self.ports.builds.find(run))

    def _tell_broken(self) -> None:
        """Each thing that is set aside, once."""
        found = {
            *self.index.broken(),
            *self.ports.pipelines.broken(),
            *self.ports.projects.broken(),
        }
        for name, why in sorted(found - self._said):
            log.warning("set aside: %s: %s", name, why)
        self._said = found


class _WithStrays:
    """The runs that are open, and the closed ones of which a Workflow goes on."""

    def __init__(self, index: RunIndex, strays: WatchedStrays) -> None:
        self._index = index
        self._strays = strays

    def open(self) -> list[str]:
        """See flows.controlling.Index."""
        return [*self._index.open(), *(run for run in self._strays.runs() if self._index.is_closed(run))]

    def old(self, *, now: float, retention_seconds: float | None) -> list[str]:
        """See flows.controlling.Index."""
        return self._index.old(now=now, retention_seconds=retention_seconds)


def controller_of(
    settings: Settings,
    api: Api,
    *,
    identity: str = "",
    clock: Clock | None = None,
    reports_of: Callable[[Settings, ClusterPorts, Callable[[], bool]], Reports] | None = None,
) -> Controller:
    """A controller over these calls, known by `identity` in the Lease; `clock` is what runs are judged by."""
    lease = Lease(
        api,
        settings.lease_namespace or api.connection.namespace,
        LEASE_NAME,
        identity or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
        clock=SystemClock(),
    )
    # An effect that takes longer on its way than the margin is given up before anybody else may lead.
    writing = api.within(MARGIN_SECONDS)
    ports = ports_over(fenced_calls(api, WRITES, lease.held, through=writing), settings, clock=clock)
    reports = (reports_of or _reports)(settings, ports, lease.held)
    return Controller(settings, ports, lease, reports)


def _reports(settings: Settings, ports: ClusterPorts, leads: Callable[[], bool]) -> Reports:
    """Where the reports of a cluster's runs go."""
    limits = Limits()
    otherwise = cluster_reports(settings, ports.projects, limits=limits, leads=leads)
    return checks_or(otherwise, settings, ports.projects, ports.builds, limits=limits, leads=leads)


def control(settings: Settings, *, on_ready: Callable[[Probes], None] = lambda _probes: None) -> int:
    """Run a controller until SIGINT or SIGTERM; answers the exit code. Raises Misconfigured."""
    log_as_json(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    controller = controller_of(settings, cluster_api(settings))
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
