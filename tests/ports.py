"""Ports for servers that are started later, or again: the kernel hands out none of these to those who ask for any."""

import contextlib
import random
import socket

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Linux takes 32768 and above for who binds port 0 and for outgoing connections."""


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on now, and that other tests are unlikely to choose."""
    chooser = random.SystemRandom()
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port = chooser.choice(BELOW_EPHEMERAL)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found
