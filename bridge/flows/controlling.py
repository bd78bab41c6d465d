"""The controller's loop over all runs: look at every open one, again and again, and at old ones now and then."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from bridge.errors import BridgeError
from bridge.flows.reconciling import Reconciling
from bridge.ports import RunFilter

log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
"""Between two looks at closed runs that may be forgotten."""
WORKERS = 4
"""Runs looked at together, so that a git host that hangs does not hold up the others."""
TROUBLE_SECONDS = 5.0
"""A run that meets trouble is left alone for so long; it doubles each time, up to the cap."""
TROUBLE_CAP_SECONDS = 60.0


class Controlling:
    """Reconciles all open runs until told to stop. One poisonous run never stops the others."""

    def __init__(self, reconciling: Reconciling, *, poll_seconds: float) -> None:
        self._reconciling = reconciling
        self._poll_seconds = poll_seconds
        self._in_flight: dict[str, Future[None]] = {}
        self._troubles: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._swept: float | None = None

    def run_forever(self, stop: threading.Event) -> None:
        """Loop until `stop` is set, then wait for what is under way."""
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="controller") as pool:
            while not stop.is_set():
                self.look(pool)
                stop.wait(self._poll_seconds)

    def look(self, pool: ThreadPoolExecutor) -> None:
        """Start one look at each run that is due and is not being looked at."""
        self._in_flight = {run: future for run, future in self._in_flight.items() if not future.done()}
        now = self._reconciling.clock.monotonic()
        for run in self._due(now):
            if run not in self._in_flight and self._not_before.get(run, now) <= now:
                self._in_flight[run] = pool.submit(self._one, run)

    def _due(self, now: float) -> list[str]:
        runs = self._reconciling.runs
        try:
            due = [run.id for run in runs.list(RunFilter(open_only=True))]
            if self._swept is None or now - self._swept >= SWEEP_SECONDS:
                self._swept = now
                due += self._old()
        except BridgeError as error:
            log.warning("the runs cannot be listed: %s", error)
            return []
        return due

    def _old(self) -> list[str]:
        retention = self._reconciling.retention_seconds
        if retention is None:
            return []
        oldest = self._reconciling.clock.now() - retention
        return [
            run.id
            for run in self._reconciling.runs.list(RunFilter())
            if run.closed is not None and run.closed <= oldest
        ]

    def _one(self, run: str) -> None:
        try:
            self._reconciling.reconcile(run)
        except BridgeError as error:
            self._troubled(run, str(error))
        except Exception:
            # A defect met by one run; all others must go on.
            log.exception("run %s could not be looked at", run)
            self._troubled(run, "a defect, see the log")
        else:
            self._troubles.pop(run, None)
            self._not_before.pop(run, None)

    def _troubled(self, run: str, why: str) -> None:
        count = self._troubles.get(run, 0) + 1
        self._troubles[run] = count
        pause = min(TROUBLE_SECONDS * 2.0 ** (count - 1), TROUBLE_CAP_SECONDS)
        self._not_before[run] = self._reconciling.clock.monotonic() + pause
        log.warning("run %s: %s (looking again in %.0f s)", run, why, pause)
