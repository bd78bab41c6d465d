"""Telling endpoints of what happens to runs: at least once, in a run's own order, and nothing ever waits for it.

The controller hands over which run has something to tell to whom; what that is each endpoint's own thread reads
from the record, sends, and writes into it. What is in memory here only spares looks: whoever begins to lead finds
the open runs by looking at them, and the closed ones in the index. An endpoint that does not answer is left alone
for longer each time, and so is a run that it does not take; what is too old by then is given up, with the reason
in the record.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.core.notifications import Notification, Subscriber, cloud_event, implied, pending
from bridge.core.reports import cut
from bridge.core.runs import Phase, Run, Told, with_told
from bridge.errors import BridgeError, NotDelivered, NotFound
from bridge.flows.fencing import NotLeading
from bridge.ports import Clock, Message, Outbound, Runs

BACKOFF_SECONDS = 2.0
BACKOFF_CAP_SECONDS = 300.0
SWEEP_SECONDS = 30.0
"""Between two looks at the closed runs that owe something."""
LONGEST_WAIT_SECONDS = 3600.0
"""An endpoint that asks for more is asked again after this."""
STOP_SECONDS = 5.0
"""What is under way is waited for, together, before the process ends."""

_POLL_SECONDS = 1.0
_REASON_CHARACTERS = 300

log = logging.getLogger(__name__)


class Owing(Protocol):
    """Where closed runs are found that owe notifications."""

    def owing(self) -> Sequence[str]:
        """The closed runs with endpoints that wait to be told. Raises EngineError."""
        ...


class Notices(Protocol):
    """Whom the controller hands over to."""

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """The endpoints that are told of some run's life."""
        ...

    def offer(self, run_id: str, endpoint: str) -> None:
        """This run has something to tell to this endpoint: at once, and as often as one likes."""
        ...

    def run_forever(self, stop: threading.Event) -> None:
        """Tell, until `stop` is set."""
        ...


class NoNotices:
    """Where nobody is told of anything, as in an exit handler."""

    subscribers: tuple[Subscriber, ...] = ()

    def offer(self, run_id: str, endpoint: str) -> None:
        """It is left to the controller."""

    def run_forever(self, stop: threading.Event) -> None:
        """Nothing happens until `stop`."""
        stop.wait()


@dataclass
class _Due:
    at: float
    failures: int = 0


class _Line:
    """The runs that wait for an endpoint, and how long it is left alone. From any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._runs: dict[str, _Due] = {}
        self._failures = 0
        self._rests_until = 0.0
        self._something = threading.Condition()

    def __len__(self) -> int:
        with self._something:
            return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        with self._something:
            return run_id in self._runs

    def offer(self, run_id: str) -> None:
        with self._something:
            if run_id not in self._runs:
                self._runs[run_id] = _Due(self._clock.monotonic())
                self._something.notify_all()

    def take(self) -> tuple[str, int] | None:
        """A run whose time has come, and how often it was not taken; None: wait. It waits no more until it is
        offered or put off, so what comes meanwhile is not lost."""
        with self._something:
            now = self._clock.monotonic()
            if now < self._rests_until:
                return None
            due = [(item.at, run_id) for run_id, item in self._runs.items() if item.at <= now]
            if not due:
                return None
            run_id = min(due)[1]
            return run_id, self._runs.pop(run_id).failures

    def put_off(self, run_id: str, failures: int, *, endpoint_failed: bool, wanted: float = 0.0) -> None:
        """The run was not taken, and is due again after a pause; so is all else if the endpoint failed."""
        with self._something:
            now = self._clock.monotonic()
            self._runs[run_id] = _Due(now + max(_backoff(failures), wanted), failures + 1)
            if endpoint_failed:
                self._rests_until = now + max(_backoff(self._failures), wanted)
                self._failures += 1

    def worked(self) -> None:
        """The endpoint took something."""
        with self._something:
            self._failures = 0

    def clear(self) -> None:
        with self._something:
            self._runs.clear()

    def wait(self) -> None:
        """Until something is offered, at most for a moment."""
        with self._something:
            self._something.wait(_POLL_SECONDS)

    def wake(self) -> None:
        with self._something:
            self._something.notify_all()


def _backoff(failures: int) -> float:
    return min(BACKOFF_SECONDS * 2.0 ** min(failures, 20), BACKOFF_CAP_SECONDS)


class Notifying:
    """Tells the endpoints of an `Outbound`.

    Args:
        runs: the records.
        outbound: how endpoints are reached.
        clock: time.
        owing: finds closed runs that owe something.
        source: the source of the CloudEvents: who we are among those that send to an endpoint.
        url_of: the page of a run; empty without a public URL.
        give_up_seconds: what is older than this is not sent any more.
        leads: whether this process may act now; asked before each send.

    """

    def __init__(
        self,
        runs: Runs,
        outbound: Outbound,
        clock: Clock,
        *,
        owing: Owing,
        source: str,
        url_of: Callable[[str], str],
        give_up_seconds: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self.subscribers = tuple(outbound.subscribers)
        self._runs = runs
        self._outbound = outbound
        self._clock = clock
        self._owing = owing
        self._source = source
        self._url_of = url_of
        self._give_up_seconds = give_up_seconds
        self._leads = leads
        self._by_name = {one.name: one for one in self.subscribers}
        self._lines = {one.name: _Line(clock) for one in self.subscribers}
        self._lines[""] = _Line(clock)
        """Of runs that owe something to endpoints which are not configured any more."""
        self._counts_lock = threading.Lock()
        self._counts = dict.fromkeys(("delivered", "failed", "given_up"), 0)

    def offer(self, run_id: str, endpoint: str) -> None:
        """See Notices."""
        self._lines.get(endpoint, self._lines[""]).offer(run_id)

    def run_forever(self, stop: threading.Event) -> None:
        """See Notices; what is being sent then may be sent again by whoever comes next."""
        threads = [
            threading.Thread(target=self._serve, args=(name, stop), name=f"notify-{name}", daemon=True)
            for name in self._lines
        ]
        for thread in threads:
            thread.start()
        swept: float | None = None
        while not stop.wait(_POLL_SECONDS):
            now = self._clock.monotonic()
            if not self._leads():
                swept = None
                continue
            if swept is None or now - swept >= SWEEP_SECONDS:
                swept = now
                self.sweep()
        for line in self._lines.values():
            line.wake()
        for thread in threads:
            thread.join(STOP_SECONDS / len(threads))

    def sweep(self) -> None:
        """Find the closed runs that owe something and are not in hand."""
        try:
            for run_id in self._owing.owing():
                if not any(run_id in line for line in self._lines.values()):
                    self._offer_waiting(run_id)
        except BridgeError as error:
            log.warning("the runs that owe notifications cannot be found now: %s", error)

    def tell_due(self, endpoint: str) -> bool:
        """Tell an endpoint of one run whose time has come (empty: give up what no endpoint takes), if there is."""
        line = self._lines[endpoint]
        found = line.take() if self._leads() else None
        if found is None:
            return False
        run_id, failures = found
        try:
            self._tell(endpoint, run_id, failures)
        except (NotFound, NotLeading):
            # Forgotten meanwhile; or another one leads now, and finds it.
            return True
        except BridgeError as error:
            line.put_off(run_id, failures, endpoint_failed=False)
            log.warning("run %s cannot be told of now: %s", run_id, error)
        return True

    def values(self) -> dict[str, float]:
        """For the metrics."""
        with self._counts_lock:
            counts = {f"bridge_notifications_{what}_total": float(n) for what, n in self._counts.items()}
        return {**counts, "bridge_notifications_waiting": float(sum(len(line) for line in self._lines.values()))}

    def _serve(self, endpoint: str, stop: threading.Event) -> None:
        line = self._lines[endpoint]
        while not stop.is_set():
            if not self._leads():
                # Whoever leads looks at everything anew.
                line.clear()
                line.wait()
                continue
            try:
                worked = self.tell_due(endpoint)
            except Exception:
                # A defect met by one run; all others must go on.
                log.exception("telling %s met a defect", endpoint)
                worked = False
            if not worked:
                line.wait()

    def _offer_waiting(self, run_id: str) -> None:
        try:
            run = self._runs.read(run_id)
        except NotFound:
            return
        for name, told in run.state.notified.items():
            if told.waits:
                self.offer(run_id, name)

    def _tell(self, endpoint: str, run_id: str, failures: int) -> None:
        run = self._runs.read(run_id)
        subscriber = self._by_name.get(endpoint)
        if subscriber is None:
            self._give_up_unknown(run)
            return
        told = run.state.notified.get(endpoint, Told())
        try:
            for place, one in pending(run, subscriber):
                if not self._leads():
                    return
                told = self._told_of(run, subscriber, told, place, one)
            self._lines[endpoint].worked()
        except NotDelivered as error:
            self._count("failed")
            self._lines[endpoint].put_off(
                run_id,
                failures,
                endpoint_failed=True,
                wanted=min(error.retry_after_seconds or 0.0, LONGEST_WAIT_SECONDS),
            )
            log.warning("endpoint %s was not told of run %s: %s", endpoint, run_id, error)
        finally:
            self._acknowledge(run, subscriber, told)

    def _told_of(self, run: Run, subscriber: Subscriber, told: Told, place: int, one: Notification) -> Told:
        """What the endpoint was told after this one. Raises NotDelivered if it has to be sent again."""
        body = cloud_event(run, one, source=self._source, url=self._url_of(run.id), project=subscriber.project)
        try:
            self._outbound.send(subscriber.name, Message(one.id_of(run.id), body))
        except NotDelivered as error:
            too_old = self._clock.now() - one.at > self._give_up_seconds
            if not error.permanent and not too_old:
                raise
            self._count("given_up")
            why = cut(str(error), _REASON_CHARACTERS)
            log.warning("endpoint %s will not be told of %s: %s", subscriber.name, one.id_of(run.id), why)
            return Told(upto=place, given_up=told.given_up + 1, error=why)
        self._count("delivered")
        self._lines[subscriber.name].worked()
        return replace(told, upto=place)

    def _acknowledge(self, run: Run, subscriber: Subscriber, told: Told) -> None:
        name = subscriber.name

        def change(now: Run) -> Run:
            known = now.state.notified.get(name, Told())
            newer = told if told.upto >= known.upto else known
            changed = with_told(now, name, newer)
            waits = now.phase is Phase.CLOSED and bool(pending(changed, subscriber))
            return with_told(changed, name, replace(newer, waits=waits))

        if change(run) != run:
            self._runs.change(run.id, change)

    def _give_up_unknown(self, run: Run) -> None:
        """No endpoint of these names is configured: nobody will ever take what is owed to them."""
        for name, told in run.state.notified.items():
            if not told.waits or name in self._by_name:
                continue
            rest = len(implied(run)) - told.upto
            error = f"no endpoint {name[:100]} is configured any more"
            given_up = Told(upto=told.upto + rest, given_up=told.given_up + rest, error=error)
            self._runs.change(run.id, lambda now, name=name, told=given_up: with_told(now, name, told))  # type: ignore[misc]
            self._count("given_up", rest)
            log.warning("run %s: %s", run.id, error)

    def _count(self, what: str, n: int = 1) -> None:
        with self._counts_lock:
            self._counts[what] += n
