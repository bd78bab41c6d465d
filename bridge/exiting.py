"""`bridgectl exit`: the exit handler of a Workflow, the fast path to what the controller owes anyway.

It ends the attempt in the record and fires the exit event, by the same pure functions as the controller. That it
did not run, or ran twice, harms nothing. Variables: BRIDGE_RUN and BRIDGE_ATTEMPT.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from bridge import settings as settings_of
from bridge.core.steps import ExitCode
from bridge.errors import BridgeError, EngineError
from bridge.flows.reconciling import Reconciling
from bridge.local.board import Board
from bridge.settings import Settings
from bridge.wiring.local import local_ports, reconciling
from bridge.wiring.steps import place_of

TROUBLES = 10
PAUSE_SECONDS = 2.0


def exit_flow(settings: Settings) -> Reconciling:
    """The controller's flow over this machine's ports; the controller alone posts."""
    ports = local_ports(settings)
    return reconciling(
        settings,
        runs=ports.runs,
        pipelines=ports.pipelines,
        engine=ports.engine,
        builds=ports.builds,
        reports=Board(ports.runs.database),
        clock=ports.clock,
    )


def main(flow_of: Callable[[Settings], Reconciling] = exit_flow) -> None:
    """Pay what the attempt's end owes; exits 0, or 75 if it could not be found out."""
    try:
        place = place_of(needs_step=False)
        if place.run in {"", "none"}:
            sys.exit(ExitCode.SUCCEEDED)
        _pay(flow_of(settings_of.load()), place.run)
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
