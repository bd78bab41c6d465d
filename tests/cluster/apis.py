"""What the tests' accesses are to bridge itself."""

from typing import Any

from bridge.cluster.api import Api
from bridge.cluster.connections import Connection, FixedToken
from tests.cluster.client import Access


def connection_of(access: Access, **changes: Any) -> Connection:
    """The connection of whoever this is."""
    known = {"server": access.url, "tokens": FixedToken(access.token), "authority": access.ca_file}
    return Connection(**{**known, "namespace": access.namespace, **changes})


def api_of(access: Access, **patience: Any) -> Api:
    """Calls as whoever this is. Patient by default: CI is loaded."""
    return Api(connection_of(access), **{"timeout_seconds": 60.0, "connect_timeout_seconds": 30.0, **patience})
