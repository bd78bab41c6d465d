"""A gateway's records: lists come from a watch, which there is only while somebody asks for lists.

A watch costs each process of each gateway a third of the time of the CPU that accepting an event costs, for every
event; and most gateways show no page for most of the day.
"""

import threading
import time
from collections.abc import Callable

from bridge.cluster.api import Api
from bridge.cluster.runs import SecretRuns
from bridge.cluster.watched_runs import WatchedRuns
from bridge.core.runs import Run
from bridge.ports import Created, RunFilter

IDLE_SECONDS = 600.0
"""So long after the last list the watch ends."""


class AskedRuns:
    """The port Runs of a gateway; see WatchedRuns for what a list says.

    Args:
        api: the API server.
        namespace: of the records.
        runs: what reads and writes them.
        idle_seconds: so long after the last list the watch ends, and the next list begins another one.

    """

    def __init__(self, api: Api, namespace: str, runs: SecretRuns, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._api = api
        self._namespace = namespace
        self._runs = runs
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._watched: WatchedRuns | None = None
        self._asked_at = 0.0

    @property
    def watches(self) -> bool:
        """Whether there is a watch."""
        return self._watched is not None

    def create(self, run: Run, payload: bytes) -> Created:
        """See SecretRuns."""
        return self._runs.create(run, payload)

    def read(self, run_id: str) -> Run:
        """See SecretRuns."""
        return self._runs.read(run_id)

    def payload(self, run_id: str) -> bytes:
        """See SecretRuns."""
        return self._runs.payload(run_id)

    def list(self, wanted: RunFilter) -> list[Run]:
        """See WatchedRuns."""
        return self._asked().list(wanted)

    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """See SecretRuns."""
        return self._runs.change(run_id, change)

    def forget(self, run_id: str) -> None:
        """See SecretRuns."""
        self._runs.forget(run_id)

    def _asked(self) -> WatchedRuns:
        with self._lock:
            self._asked_at = time.monotonic()
            if self._watched is None:
                self._watched = WatchedRuns(self._api, self._namespace, self._runs)
                self._watched.start()
                threading.Thread(target=self._end_when_idle, name="lists", daemon=True).start()
            return self._watched

    def _end_when_idle(self) -> None:
        left = self._idle_seconds
        idle = None
        while idle is None:
            time.sleep(left)
            with self._lock:
                left = self._asked_at + self._idle_seconds - time.monotonic()
                if left <= 0:
                    idle, self._watched = self._watched, None
        # Whoever still lists by it is answered by the API server itself.
        idle.stop()
