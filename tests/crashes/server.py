"""`bridgectl local` over dying ports, with an engine that starts dying steps and exit handlers."""

import ctypes
import signal
import sys
from pathlib import Path

from bridge.core import obligations
from bridge.flows.notifying import Notifying
from bridge.local.board import Board
from bridge.outbound.endpoints import endpoints_of
from bridge.outbound.webhooks import Webhooks
from bridge.ports import RunFilter
from bridge.settings import Settings, load
from bridge.wiring.local import local_ports, reconciling
from bridge.wiring.reporting import StatusesOr, statuses
from bridge.wiring.serving import serve
from tests.crashes.dying import dying

PR_SET_PDEATHSIG = 1
RUNG_SECONDS = 1.0
"""In place of a minute."""
STEP_COMMAND = (sys.executable, "-m", "tests.crashes.step")
_AGAIN_WHEN_KILLED = 'while :; do "$@"; code=$?; [ "$code" = 137 ] || exit "$code"; done'
EXIT_COMMAND = ("/bin/sh", "-c", _AGAIN_WHEN_KILLED, "sh", sys.executable, "-m", "tests.crashes.exiting")
"""An exit handler is not tried again by itself; here it is, so that it can die at each of its places."""


class _Away:
    """The records, but for the runs that the controller is kept from (files in `folder`)."""

    def __init__(self, runs, folder: Path):
        self._runs = runs
        self._folder = folder

    def __getattr__(self, name):
        return getattr(self._runs, name)

    def list(self, wanted: RunFilter):
        found = self._runs.list(wanted)
        return [run for run in found if not (wanted.open_only and (self._folder / run.id).exists())]


def flow_of(settings: Settings, url: str, *, role: str = "controller"):
    """The engine and the controller's flow."""
    local = local_ports(settings, step_command=STEP_COMMAND, exit_command=EXIT_COMMAND)
    reports = StatusesOr(statuses(settings, local.projects), Board(local.runs.database))
    runs = dying(_Away(local.runs, settings.state / "away"), "Runs", role=role)
    flow = reconciling(
        settings,
        runs=runs,
        pipelines=local.pipelines,
        engine=dying(local.engine, "Engine", role=role),
        builds=dying(local.builds, "Builds", role=role),
        reports=dying(reports, "Reports", role=role),
        clock=local.clock,
        url=url,
        notices=Notifying(
            runs,
            dying(Webhooks(endpoints_of(settings.notify_file), local.clock), "Outbound", role=role),
            local.clock,
            owing=local.runs,
            source="/crashes",
            url_of=str,
            give_up_seconds=86400.0,
        ),
    )
    return local.engine, flow


def main() -> int:
    # A test that is killed leaves nothing behind: this ends with the thread that started it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    obligations.RUNG_SECONDS = RUNG_SECONDS
    return serve(load(), gateway="tests.crashes.wsgi:app()", flow_of=flow_of)


if __name__ == "__main__":
    sys.exit(main())
