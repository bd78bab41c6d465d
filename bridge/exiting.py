"""`bridgectl exit`: the exit handler of a Workflow, the fast path to what the controller owes anyway.

It ends the attempt in the record and fires the exit event, by the same pure functions as the controller. That it
did not run, or ran twice, harms nothing. Variables: BRIDGE_RUN and BRIDGE_ATTEMPT.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from bridge import settings as settings_of
from bridge.core.runs import Report, Run
from bridge.core.steps import ExitCode
from bridge.errors import BridgeError, EngineError, StatusNotPosted
from bridge.flows.freshening import Freshening
from bridge.flows.reconciling import Reconciling
from bridge.settings import Settings
from bridge.wiring.places import in_cluster, which_of

TROUBLES = 10
PAUSE_SECONDS = 2.0


class Nobody:
    """The port Reports of an exit handler: the controller alone posts, so that a commit has one final status."""

    def post(self, run: Run, report: Report, *, url: str) -> str:  # noqa: ARG002 - the port's
        """Raises StatusNotPosted."""
        raise StatusNotPosted(f"run {run.id}: an exit handler posts no status; the controller will")


def exit_flow(settings: Settings) -> Reconciling:
    """The controller's flow over the ports of the world that is meant. Raises Misconfigured."""
    # Of the two worlds only one is imported: an exit handler has three minutes, and a small pod.
    return _cluster_flow(settings) if in_cluster(os.environ) else _local_flow(settings)


def _local_flow(settings: Settings) -> Reconciling:
    from bridge.wiring.local import local_ports  # noqa: PLC0415 - as above

    ports = local_ports(settings)
    return Reconciling(ports.runs, ports.pipelines, ports.engine, ports.builds, Nobody(), ports.clock)


def _cluster_flow(settings: Settings) -> Reconciling:
    from bridge.cluster.builds import BrigadeBuilds  # noqa: PLC0415 - as above
    from bridge.cluster.gateway import GatewayTokens  # noqa: PLC0415
    from bridge.cluster.projects import SecretProjects  # noqa: PLC0415
    from bridge.wiring.cluster import cluster_ports  # noqa: PLC0415

    ports = cluster_ports(settings)
    # One project is read where the controller watches them all.
    projects = SecretProjects(ports.api, ports.brigade_namespace)
    builds = BrigadeBuilds(ports.api, ports.brigade_namespace, projects, clock=ports.clock)
    tokens = GatewayTokens(os.environ.get("BRIDGE_GATEWAY_URL", ""))
    return Reconciling(
        ports.runs,
        ports.pipelines,
        ports.engine,
        builds,
        Nobody(),
        ports.clock,
        freshened=Freshening(tokens, _say),
    )


def main(flow_of: Callable[[Settings], Reconciling] = exit_flow) -> None:
    """Pay what the attempt's end owes; exits 0, or 75 if it could not be found out."""
    try:
        which = which_of(os.environ)
        if which.by_hand:
            sys.exit(ExitCode.SUCCEEDED)
        _pay(flow_of(settings_of.load()), which.run)
    except BridgeError as error:
        _say(str(error))
        sys.exit(ExitCode.USAGE)


def _pay(flow: Reconciling, run: str) -> NoReturn:
    for trouble in range(TROUBLES):
        try:
            flow.exit(run)
            sys.exit(ExitCode.SUCCEEDED)
        except EngineError as error:
            _say(str(error))
            if trouble + 1 < TROUBLES:
                flow.clock.sleep(PAUSE_SECONDS)
    sys.exit(ExitCode.ASK_AGAIN)


def _say(line: str) -> None:
    print(f"bridgectl exit: {line}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
