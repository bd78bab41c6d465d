"""Leader election by a Lease: of several controllers one acts, and another one soon when it is gone.

Nobody trusts another machine's clock. Who waits counts from when it saw the Lease change last; who leads counts
from before it sent its last renewal, and stops a margin earlier than anybody may take over. `held()` is a look at
that count and costs nothing: ask it before each effect.
"""

import logging
import random
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.cluster.api import LEASES, AlreadyExists, Api
from bridge.errors import BridgeError, Conflict, NotFound
from bridge.ports import Clock

DURATION_SECONDS = 15.0
RENEW_SECONDS = 4.0
MARGIN_SECONDS = 4.0
"""The leader stops so much before the Lease ends for others: longer than an effect takes on the way."""

log = logging.getLogger(__name__)


class Lease:
    """One candidate for a Lease. Start it, and ask `held()`.

    Args:
        api: the API server.
        namespace: of the Lease.
        name: of the Lease; it is made if it is not there.
        identity: who we are, another one for each process and each of its starts.
        clock: time.
        duration_seconds: after so long without a renewal others take over.
        renew_seconds: between two renewals, or two looks of those who wait.
        margin_seconds: see MARGIN_SECONDS.
        on_change: told True when we begin to lead, False when we have ended; from the election's thread.

    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Clock,
        duration_seconds: float = DURATION_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
        margin_seconds: float = MARGIN_SECONDS,
        on_change: Callable[[bool], None] = lambda _leads: None,
    ) -> None:
        # A renewal that hangs must leave time for another one.
        self._api = api.within(max(0.5, min(renew_seconds, duration_seconds - margin_seconds) / 2.0))
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._duration_seconds = duration_seconds
        self._renew_seconds = renew_seconds
        self._margin_seconds = margin_seconds
        self._on_change = on_change
        self._held_until = 0.0
        self._seen: tuple[object, float] | None = None
        """What others cannot change without leading, and since when it is so, by our own time."""
        self._led = False
        self._said = ""
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"lease-{name}", daemon=True)

    def held(self) -> bool:
        """Whether we lead, and will for the margin to come."""
        return self._clock.monotonic() < self._held_until

    def wait_held(self, *, timeout_seconds: float) -> bool:
        """Wait until we lead; whether we do."""
        with self._changed:
            return (
                self._changed.wait_for(lambda: self.held() or self._stopping.is_set(), timeout_seconds)
                and self.held()
            )

    def start(self) -> None:
        """Begin to want it."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let another one lead at once. Call it when the last effect is done."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._duration_seconds)
        self.release()

    def attempt(self) -> bool:
        """Take the Lease if it is free, renew it if it is ours; whether we lead. Raises EngineError, and then what
        `held` says stands."""
        before = self._clock.monotonic()
        leads = self._tried()
        if leads is None:
            # Somebody touched it between our read and our write, to label it say: that costs no leadership.
            leads = bool(self._tried())
        self._held_until = before + self._duration_seconds - self._margin_seconds if leads else 0.0
        self._tell()
        return leads

    def _tried(self) -> bool | None:
        """Whether we lead; None: it changed meanwhile."""
        lease = self._found()
        if lease is None:
            return self._made()
        if not self._is_takeable(lease, self._clock.monotonic()):
            return False
        return self._taken(lease)

    def release(self) -> None:
        """Let it go if it is ours. That it cannot be told to anybody is fine: it ends by itself."""
        self._held_until = 0.0
        self._tell()
        try:
            lease = self._found()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                self._patch(lease, {"holderIdentity": "", "renewTime": self._now()})
        except BridgeError as exc:
            log.info("the Lease %s could not be let go, it ends by itself: %s", self._name, exc)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.attempt()
                self._said = ""
            except BridgeError as exc:
                self._tell()
                if not self._said:
                    log.warning("the Lease %s cannot be had: %s", self._name, exc)
                self._said = str(exc)
            except Exception:
                # Nobody restarts this thread.
                log.exception("the Lease %s met what it does not know", self._name)
            self._stopping.wait(self._renew_seconds * random.uniform(0.75, 1.0))  # noqa: S311 - spreads them

    def _tell(self) -> None:
        leads = self.held()
        if leads == self._led:
            return
        self._led = leads
        log.info("%s the Lease %s as %s", "holding" if leads else "no longer holding", self._name, self._identity)
        with self._changed:
            self._changed.notify_all()
        self._on_change(leads)

    def _is_takeable(self, lease: Mapping[str, Any], now: float) -> bool:
        spec = lease["spec"]
        if spec.get("holderIdentity") in {None, "", self._identity}:
            return True
        # Whatever a renewal changes changes this; annotations that somebody adds do not prolong it.
        state = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("acquireTime"))
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, now)
            return False
        said = spec.get("leaseDurationSeconds")
        duration = float(said) if isinstance(said, int) and said > 0 else self._duration_seconds
        return now - self._seen[1] > max(duration, self._duration_seconds)

    def _found(self) -> dict[str, Any] | None:
        try:
            lease = self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            return None
        if not isinstance(lease.get("spec"), dict):
            lease["spec"] = {}
        return lease

    def _made(self) -> bool | None:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name},
            "spec": {**self._spec(), "acquireTime": self._now(), "leaseTransitions": 0},
        }
        try:
            self._api.create(LEASES, self._namespace, body)
        except AlreadyExists:
            return None
        return True

    def _taken(self, lease: Mapping[str, Any]) -> bool | None:
        changes = self._spec()
        if lease["spec"].get("holderIdentity") != self._identity:
            transitions = lease["spec"].get("leaseTransitions")
            changes["acquireTime"] = self._now()
            changes["leaseTransitions"] = (transitions if isinstance(transitions, int) else 0) + 1
        try:
            self._patch(lease, changes)
        except (Conflict, NotFound):
            return None
        return True

    def _patch(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        version = lease["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": spec}
        self._api.patch(LEASES, self._namespace, self._name, patch)

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_seconds)),
            "renewTime": self._now(),
        }

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
