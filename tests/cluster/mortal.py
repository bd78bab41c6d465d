"""`python -m tests.cluster.mortal`: the controller over ports that die, with a Lease of seconds.

MORTAL_AGAIN: it is started again whenever it was killed, as itself in the Lease, by a process that has all modules already.
"""

import functools
import os
import signal
import sys
import threading
from dataclasses import replace

from bridge.cluster.leases import Lease
from bridge.core import obligations
from bridge.flows.reconciling import Strays
from bridge.settings import load
from bridge.wiring import controlling
from bridge.wiring.cluster import cluster_api
from tests.cluster.control_plane import _die_with_parent
from tests.crashes.dying import FOLDER, dying

AGAIN = "MORTAL_AGAIN"
IDENTITY = "MORTAL_IDENTITY"
RUNG_SECONDS = 1.0
ROLE = "controller"


def live() -> int:
    """One life."""
    settings = load()
    controller = controlling.controller_of(settings, cluster_api(settings), identity=os.environ.get(IDENTITY, ""))
    if os.environ.get(FOLDER):
        flow = controller.flow
        controller.loop._reconciling = replace(
            flow,
            runs=dying(flow.runs, "Runs", role=ROLE),
            engine=dying(flow.engine, "Engine", role=ROLE),
            builds=dying(flow.builds, "Builds", role=ROLE),
            reports=dying(flow.reports, "Reports", role=ROLE),
            strays=dying(flow.strays, "Strays", role=ROLE, kind=Strays),
        )
        # Whoever dies beside somebody's call takes the moment after it away.
        controller.loop._workers = 1
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    controller.run(stop)
    return 0


def main() -> int:
    obligations.RUNG_SECONDS = RUNG_SECONDS
    obligations.LINGER_SECONDS = RUNG_SECONDS
    controlling.Lease = functools.partial(Lease, duration_seconds=4.0, renew_seconds=0.5, margin_seconds=1.0)
    if not os.environ.get(AGAIN):
        return live()
    ended = threading.Event()
    child = 0

    def end(*_: object) -> None:
        ended.set()
        if child:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    while not ended.is_set():
        child = os.fork()
        if not child:
            _die_with_parent()
            os._exit(live())
        if ended.is_set():
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
