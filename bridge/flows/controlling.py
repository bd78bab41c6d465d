"""The controller's loop over all runs: look at a run when something of it changed, and now and then anyway."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from bridge.core.obligations import report_due
from bridge.core.runs import Phase, Run
from bridge.errors import BridgeError, Forbidden, Unavailable
from bridge.flows.fencing import NotLeading
from bridge.flows.reconciling import Reconciling
from bridge.ports import RunFilter, Runs

log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
"""Between two looks at closed runs that may be forgotten."""
WORKERS = 4
"""Runs looked at together, so that a git host that hangs does not hold up the others."""
TROUBLE_SECONDS = 5.0
"""A run that meets trouble is left alone for so long; it doubles each time, up to the cap."""
TROUBLE_CAP_SECONDS = 60.0
SETTLE_SECONDS = 0.05
"""A moment for what comes together: a Workflow, its build and its pod are one look, and a burst is one pass."""
SAY_AGAIN_SECONDS = 30.0
"""While nothing answers, a line in the log so often, however many runs wait."""


class Index(Protocol):
    """Which runs a controller has to look at."""

    def open(self) -> list[str]:
        """The runs that are not closed, or are closed and asked about again; the oldest first."""
        ...

    def old(self, *, now: float, retention_seconds: float | None) -> list[str]:
        """The closed runs that have been kept long enough."""
        ...


class ListedIndex:
    """The index of one machine: a list each time, which its database answers at once."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def open(self) -> list[str]:
        """See Index."""
        return [run.id for run in reversed(self._runs.list(RunFilter(open_only=True)))]

    def old(self, *, now: float, retention_seconds: float | None) -> list[str]:
        """See Index."""
        if retention_seconds is None:
            return []
        oldest = now - retention_seconds
        return [run.id for run in self._runs.list(RunFilter()) if run.closed is not None and run.closed <= oldest]


class Controlling:
    """Reconciles all open runs until told to stop. One poisonous run never stops the others.

    Args:
        reconciling: what is done with a run.
        poll_seconds: how often it looks for runs that are due.
        index: which runs there are; by default a list of the records each time.
        resync_seconds: an open run that nobody woke is looked at so often; 0: at each poll.
        leads: whether this controller may act now; asked at each poll.
        workers: runs that are looked at together.

    """

    def __init__(
        self,
        reconciling: Reconciling,
        *,
        poll_seconds: float,
        index: Index | None = None,
        resync_seconds: float = 0.0,
        leads: Callable[[], bool] = lambda: True,
        workers: int = WORKERS,
    ) -> None:
        self._reconciling = reconciling
        self._poll_seconds = poll_seconds
        self._index = index or ListedIndex(reconciling.runs)
        self._resync_seconds = resync_seconds
        self._leads = leads
        self._workers = workers
        self._in_flight: dict[str, Future[None]] = {}
        self._looked: dict[str, float] = {}
        """When the last look at an open run began."""
        self._troubles = _Troubles()
        self._later: dict[str, float] = {}
        """When a run is to be looked at again since its status may be posted then."""
        self._swept: float | None = None
        self._woken: set[str] = set()
        self._something = threading.Condition()
        self.looks = 0
        """How many looks were begun, for the metrics."""

    def wake(self, run: str) -> None:
        """Something of this run changed: look at it soon. From any thread."""
        with self._something:
            self._woken.add(run)
            self._something.notify_all()

    def run_forever(self, stop: threading.Event) -> None:
        """Loop until `stop` is set, then wait for what is under way."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="controller") as pool:
            while not stop.is_set():
                if self._leads():
                    self.look(pool)
                else:
                    self._rest()
                self._pause(stop)
            pool.shutdown(wait=True, cancel_futures=True)

    def look(self, pool: ThreadPoolExecutor) -> None:
        """Start one look at each run that is due and is not being looked at."""
        self._in_flight = {run: future for run, future in self._in_flight.items() if not future.done()}
        now = self._reconciling.clock.monotonic()
        with self._something:
            woken, self._woken = self._woken, set()
        busy = woken & self._in_flight.keys()
        for run in self._due(now, woken):
            self._start(pool, run, now, self._reconciling.reconcile)
        for run in self._old(now):
            self._start(pool, run, now, self._reconciling.forget_old)
        if busy:
            # What woke them may have come after they were read.
            with self._something:
                self._woken |= busy

    def _rest(self) -> None:
        """Who does not lead looks at nothing; once it does, at everything."""
        self._looked.clear()
        self._reconciling.counting.keep(())
        with self._something:
            self._woken.clear()

    def _start(self, pool: ThreadPoolExecutor, run: str, now: float, what: Callable[[str], object]) -> None:
        if run in self._in_flight or self._troubles.is_resting(run, now):
            return
        self._looked[run] = now
        self.looks += 1
        future = self._in_flight[run] = pool.submit(self._one, run, what)
        future.add_done_callback(self._done)

    def _done(self, _future: Future[None]) -> None:
        with self._something:
            self._something.notify_all()

    def _due(self, now: float, woken: set[str]) -> list[str]:
        try:
            runs = self._index.open()
        except BridgeError as error:
            self._troubles.tell("the runs cannot be listed", error, now)
            return []
        known = set(runs)
        self._looked = {run: at for run, at in self._looked.items() if run in known}
        self._troubles.forget_others(known)
        self._reconciling.counting.keep(known)
        again = self._troubles.rested(now) | self._waited(known, now)
        never = float("-inf")
        return [
            run
            for run in runs
            if run in woken or run in again or now - self._looked.get(run, never) >= self._resync_seconds
        ]

    def _old(self, now: float) -> list[str]:
        if self._swept is not None and now - self._swept < SWEEP_SECONDS:
            return []
        self._swept = now
        reconciling = self._reconciling
        try:
            return self._index.old(now=reconciling.clock.now(), retention_seconds=reconciling.retention_seconds)
        except BridgeError as error:
            self._troubles.tell("the old runs cannot be listed", error, now)
            return []

    def _pause(self, stop: threading.Event) -> None:
        """Until a run is woken that can be looked at, or the next poll."""
        with self._something:
            news = self._something.wait_for(lambda: stop.is_set() or self._has_news(), self._poll_seconds)
        if news:
            stop.wait(SETTLE_SECONDS)

    def _has_news(self) -> bool:
        return any(run not in self._in_flight or self._in_flight[run].done() for run in self._woken)

    def _come_back(self, found: object) -> None:
        """Look again at a run as soon as its status may be posted."""
        if not isinstance(found, Run) or found.phase is Phase.CLOSED:
            return
        due, clock = report_due(found), self._reconciling.clock
        left = 0.0 if due is None else due - clock.now()
        # What was not posted though it was time waits for something else than time: a newer run speaks.
        if left > 0:
            with self._something:
                self._later[found.id] = clock.monotonic() + left

    def _waited(self, known: set[str], now: float) -> set[str]:
        with self._something:
            due = {run for run, at in self._later.items() if at <= now}
            self._later = {run: at for run, at in self._later.items() if run in known and run not in due}
        return due

    def _one(self, run: str, what: Callable[[str], object]) -> None:
        now = self._reconciling.clock.monotonic
        try:
            self._come_back(what(run))
        except NotLeading:
            return
        except BridgeError as error:
            self._troubles.met(run, error, now())
        except Exception:
            # A defect met by one run; all others must go on.
            log.exception("run %s could not be looked at", run)
            self._troubles.rest(run, now())
        else:
            self._troubles.over(run)


class _Troubles:
    """Which runs met trouble and rest for a while, and the few lines about it in the log. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._told_at: float | None = None
        self._untold = 0

    def met(self, run: str, error: BridgeError, now: float) -> None:
        """A look at `run` ended so."""
        pause = self.rest(run, now)
        if isinstance(error, Unavailable | Forbidden):
            # It is not this run's doing, and all others meet it too.
            self.tell(f"run {run}", error, now)
        else:
            log.warning("run %s: %s (looking again in %.0f s)", run, error, pause)

    def tell(self, what: str, error: BridgeError, now: float) -> None:
        """Say that something does not answer, unless that was said a short while ago."""
        with self._lock:
            if self._told_at is not None and now - self._told_at < SAY_AGAIN_SECONDS:
                self._untold += 1
                return
            self._told_at, others, self._untold = now, self._untold, 0
        more = f" ({others} more of the kind since the last line)" if others else ""
        log.warning("%s: %s%s", what, error, more)

    def rest(self, run: str, now: float) -> float:
        """Leave the run alone for a while, for longer each time; answers how long."""
        with self._lock:
            count = self._counts[run] = self._counts.get(run, 0) + 1
            pause = min(TROUBLE_SECONDS * 2.0 ** min(count - 1, 10), TROUBLE_CAP_SECONDS)
            self._until[run] = now + pause
        return pause

    def over(self, run: str) -> None:
        """A look at `run` ended well."""
        with self._lock:
            self._counts.pop(run, None)
            self._until.pop(run, None)

    def is_resting(self, run: str, now: float) -> bool:
        with self._lock:
            return self._until.get(run, now) > now

    def rested(self, now: float) -> set[str]:
        """The runs that met trouble and may be looked at again."""
        with self._lock:
            return {run for run, until in self._until.items() if until <= now}

    def forget_others(self, known: set[str]) -> None:
        """Forget the runs that are not open any more."""
        with self._lock:
            for run in [run for run in self._counts if run not in known]:
                del self._counts[run], self._until[run]
