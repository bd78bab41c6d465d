"""`bridgectl controller` with a Lease and an escalation of seconds: what chaos, and a test of it, can wait for."""

import functools
import os
import socket
import sys

from bridge import cli
from bridge.cluster.leases import Lease
from bridge.core import obligations
from bridge.wiring import controlling

LEASE_SECONDS = 4.0


def name() -> str:
    """How this process is known in the Lease."""
    return f"controller-{os.getpid()}"


def main() -> None:
    obligations.RUNG_SECONDS = 1.0
    obligations.LINGER_SECONDS = 2.0
    controlling.Lease = functools.partial(
        Lease, duration_seconds=LEASE_SECONDS, renew_seconds=0.5, margin_seconds=1.0
    )
    # The Lease names its holder by the host.
    socket.gethostname = name
    sys.argv = ["bridgectl", "controller"]
    cli.main()


if __name__ == "__main__":
    main()
