"""`python -m tests.crashes.forgetting RUN`: the controller in ten years, over dying ports; forgets a closed run."""

import sys
from dataclasses import replace

from bridge.clocks import SystemClock
from bridge.settings import load
from tests.crashes.server import flow_of

TEN_YEARS_SECONDS = 10 * 365 * 86400.0


class LaterClock(SystemClock):
    """The machine's time, ten years on."""

    def now(self):
        return super().now() + TEN_YEARS_SECONDS


def main() -> int:
    _, flow = flow_of(load(), "", role="controller in ten years")
    return 0 if replace(flow, clock=LaterClock()).reconcile(sys.argv[1]) is None else 1


if __name__ == "__main__":
    sys.exit(main())
