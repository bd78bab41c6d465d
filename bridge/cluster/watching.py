"""List and watch, on plain dicts: what there is of a resource, and from then on what happens to it.

One thread for each resource lists page by page, watches from there with bookmarks, and lists again: when the
server has forgotten where we were, when asked to, and every so often anyway, because nothing that was missed may
stay missed. While the server is away it tries with growing pauses and says so once. Of the objects it remembers
names and versions only.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from bridge.cluster.api import Api, Events, Gone, Resource
from bridge.cluster.patience import within_patience
from bridge.errors import BridgeError, Unavailable

RELIST_SECONDS = 900.0
WATCH_SECONDS = 300.0
"""The server ends a watch after so long, and it goes on where it was."""
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
STEADY_SECONDS = 30.0
"""A watch that lived so long was no failure: the pauses begin anew."""
SILENCE_SECONDS = 120.0
"""The server sends a bookmark about every minute."""
SAY_AGAIN_SECONDS = 300.0
"""While it goes on not working, a line in the log so often."""
SAY_NEW_SECONDS = 30.0
"""When it breaks again and again, a line so often."""
BRIEF_SECONDS = 1.0
FAILURES_BEFORE_LIST = 3
FAILED_SECONDS = 1.0
"""That a list failed is told for so long to all who ask, before another one is made."""
TRIES_OF_A_LIST = 2
"""A list that somebody waits for fails so often before they are told."""

log = logging.getLogger(__name__)

_Kept = TypeVar("_Kept")


class Change(StrEnum):
    """What happened to an object. A list tells ADDED of each that was unknown, MODIFIED of each that changed."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Watching:
    """Tells `on_change` of each change to the objects of a resource, in one thread.

    An object may be told twice and a state between two others may never be; the last one always is. Of an object
    that went while nobody watched, DELETED comes with `metadata` alone, as it was last known. An exception of
    `on_change` is logged and stops nothing.

    Args:
        api: the API server.
        resource: what to watch.
        namespace: where; empty is the whole cluster.
        on_change: told of each change, with the object, which it may keep or change.
        labels: a label selector.
        fields: a field selector.
        metadata_only: of each object the metadata alone.
        relist_seconds: list again so often.
        watch_seconds: how long one watch lasts.

    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str,
        on_change: Callable[[Change, dict[str, Any]], None],
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        relist_seconds: float = RELIST_SECONDS,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._on_change = on_change
        self._select: dict[str, Any] = {"labels": labels, "fields": fields, "metadata_only": metadata_only}
        self._relist_seconds = relist_seconds
        self._watch_seconds = watch_seconds
        self.synced = threading.Event()
        """Set once everything there was has been told; stays set."""
        self._stopping = threading.Event()
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        """(namespace, name) → (uid, resourceVersion)."""
        self._version = ""
        self._listed_at = 0.0
        self._lock = threading.Lock()
        self._events: Events | None = None
        self._asked = 0
        """How many lists were asked for, and below, how many of those are done."""
        self._done = 0
        self._failed = 0
        """How many lists failed, and below, how the last one did."""
        self._failed_with: BridgeError | None = None
        self._done_changed = threading.Condition(self._lock)
        self._trouble = _Trouble(f"watching {resource} in {namespace or 'all namespaces'}")
        self._thread = threading.Thread(target=self._run, name=f"watch-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """End; when it returns in time nothing is told any more."""
        self._stopping.set()
        self._trouble.wake.set()
        with self._lock:
            self._done_changed.notify_all()
        self._interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def __str__(self) -> str:
        """What it does, for messages."""
        return self._trouble.what

    @property
    def interrupted(self) -> bool:
        """Its last request was not answered."""
        return self._trouble.lasting

    @property
    def healthy(self) -> bool:
        """It is synced, and its last request was answered."""
        return self.synced.is_set() and not self._trouble.lasting and self._thread.is_alive()

    def relist(self, *, timeout_seconds: float = 5.0) -> None:
        """List anew, now; when this returns, what there was at the call has been told.

        Raises Unavailable when that did not work within `timeout_seconds` (and the patience around it), or was
        tried in vain.
        """
        with self._lock:
            self._asked += 1
            mine = self._asked
            # A list that was under way fails too. Where it has not worked for a while, one more try tells enough.
            vain = self._failed + (1 if self._trouble.lasting else TRIES_OF_A_LIST)
        self._trouble.wake.set()
        self._interrupt()
        with self._lock:
            self._done_changed.wait_for(
                lambda: self._done >= mine or self._failed >= vain or self._stopping.is_set(),
                within_patience(timeout_seconds),
            )
            if self._done < mine:
                raise self._not_done(self._failed_with if self._failed >= vain else None)

    def _not_done(self, why: BridgeError | None) -> Unavailable:
        said = str(why) if why else self._trouble.said or "it takes too long; ask again"
        message = f"listing {self._resource} in {self._namespace or 'all namespaces'} anew was not done: {said}"
        if isinstance(why, Unavailable):
            return Unavailable(message, retry_after_seconds=why.retry_after_seconds, busy=why.busy)
        return Unavailable(message)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if self._look() or time.monotonic() - began > BRIEF_SECONDS:
                    continue
                # Not a failure, but a server that always ends it at once must not be asked without a pause.
            except Gone:
                self._version = ""
            except BridgeError as exc:
                self._trouble.met(str(exc))
            except Exception:
                # Nobody restarts this thread: whatever it met, the next list begins from nothing.
                log.exception("%s met what it does not know", self._trouble.what)
                self._trouble.met("an error in bridge; see the log")
                self._version = ""
            failures = self._trouble.pause(lived=time.monotonic() - began)
            if failures % FAILURES_BEFORE_LIST == 0:
                # A version that the server never heard of (it was restored from a backup) is refused for ever.
                self._version = ""

    def _look(self) -> bool:
        """One list if it is due, and one watch; whether that was ended by us."""
        due = time.monotonic() - self._listed_at > self._relist_seconds
        with self._lock:
            asked = self._asked
            due = due or asked > self._done
        if due or not self._version:
            try:
                self._list()
            except BridgeError as exc:
                with self._lock:
                    self._failed += 1
                    self._failed_with = exc
                    self._done_changed.notify_all()
                raise
            with self._lock:
                self._done = max(self._done, asked)
                self._done_changed.notify_all()
        return self._watch()

    def _list(self) -> None:
        seen: set[tuple[str, str]] = set()
        version = ""
        for page in self._api.pages(self._resource, self._namespace, **self._select):
            for found in page.items:
                key = _key(found)
                seen.add(key)
                known = self._known.get(key)
                if known is not None and known[0] != _state(found)[0]:
                    self._tell(Change.DELETED, _remembered(key, known))
                    known = None
                if known != _state(found):
                    self._tell(Change.MODIFIED if known else Change.ADDED, found)
            version = page.resource_version
            if self._stopping.is_set():
                return
        for key in [key for key in self._known if key not in seen]:
            self._tell(Change.DELETED, _remembered(key, self._known[key]))
        self._version = version
        self._listed_at = time.monotonic()
        self._trouble.over()
        self.synced.set()

    def _watch(self) -> bool:
        left = self._relist_seconds - (time.monotonic() - self._listed_at)
        seconds = max(1.0, min(left, self._watch_seconds * random.uniform(0.8, 1.0)))  # noqa: S311 - spreads them
        events = self._api.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            timeout_seconds=seconds,
            silence_seconds=SILENCE_SECONDS,
            **self._select,
        )
        with events:
            self._trouble.over()
            with self._lock:
                self._events = events
                interrupted = self._is_wanted_elsewhere
            try:
                for event in events if not interrupted else ():
                    self._take(event)
            finally:
                with self._lock:
                    self._events = None
        with self._lock:
            return self._is_wanted_elsewhere

    @property
    def _is_wanted_elsewhere(self) -> bool:
        return self._asked > self._done or self._stopping.is_set()

    def _take(self, event: Mapping[str, Any]) -> None:
        found = event["object"]
        kind = str(event.get("type"))
        version = str((found.get("metadata") or {}).get("resourceVersion") or "")
        if kind in set(Change):
            self._tell(Change(kind), found)
        self._version = version or self._version

    def _tell(self, change: Change, found: dict[str, Any]) -> None:
        key, state = _key(found), _state(found)
        if change is Change.DELETED:
            self._known.pop(key, None)
        else:
            self._known[key] = state
        try:
            self._on_change(change, found)
        except Exception:
            # One poisonous object stops nothing else.
            log.exception("%s: %s of %s could not be taken in", self._trouble.what, change, key[1][:100])

    def _interrupt(self) -> None:
        with self._lock:
            events = self._events
        if events is not None:
            events.interrupt()


class Cache(Generic[_Kept]):
    """What `keep` makes of each object of a resource, kept up to date by a watch.

    Args:
        keep: what to remember of an object; None: nothing. What it raises is a bug.

    All other arguments are those of Watching.

    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str,
        keep: Callable[[dict[str, Any]], _Kept | None],
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self._keep = keep
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._refreshed_at = -math.inf
        self._refresh_failed: Unavailable | None = None
        self.watching = Watching(
            api,
            resource,
            namespace,
            self._take,
            labels=labels,
            fields=fields,
            metadata_only=metadata_only,
            relist_seconds=relist_seconds,
        )

    def start(self) -> None:
        """Begin to fill."""
        self.watching.start()

    def stop(self) -> None:
        """End; what is kept stays as it is."""
        self.watching.stop()

    def get(self, name: str) -> _Kept | None:
        """What is kept of the object of this name."""
        with self._lock:
            return self._kept.get(name)

    def all(self) -> dict[str, _Kept]:
        """Everything that is kept, by the objects' names."""
        with self._lock:
            return dict(self._kept)

    def refresh(self, *, not_within_seconds: float = 5.0, timeout_seconds: float = 5.0) -> bool:
        """List anew, unless that was done less than `not_within_seconds` ago; whether it was.

        However many ask at once, one list is made. False says that what is kept is as good as that. Raises
        Unavailable when there is no answer in time, or it is not.
        """
        came = time.monotonic()
        if not self._refreshing.acquire(timeout=within_patience(timeout_seconds)):
            raise Unavailable("somebody else's listing anew was not done in time; ask again")
        try:
            fresh = self._refreshed_at >= came
            pause = not_within_seconds if self._refresh_failed is None else min(not_within_seconds, FAILED_SECONDS)
            if not fresh and came - self._refreshed_at >= pause:
                self._relist(max(0.0, timeout_seconds - (time.monotonic() - came)))
                return True
            if self._refresh_failed is not None:
                raise self._refresh_failed.with_traceback(None)
            if not fresh and not self.watching.healthy:
                # What happened since the last list may not have been told.
                raise Unavailable(f"{self.watching} is interrupted; ask again")
            return fresh
        finally:
            self._refreshing.release()

    def _relist(self, timeout_seconds: float) -> None:
        try:
            self.watching.relist(timeout_seconds=timeout_seconds)
            self._refresh_failed = None
        except Unavailable as exc:
            # Whoever waits meanwhile gets the same answer, instead of waiting as long once more.
            self._refresh_failed = exc
            raise
        finally:
            self._refreshed_at = time.monotonic()

    def _take(self, change: Change, found: dict[str, Any]) -> None:
        name = str(found["metadata"].get("name"))
        kept = None if change is Change.DELETED else self._keep(found)
        with self._lock:
            if kept is None:
                self._kept.pop(name, None)
            else:
                self._kept[name] = kept


class _Trouble:
    """How it goes: the pauses between tries and the few lines about it in the log."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.said = ""
        """The last thing that went wrong, while it lasts."""
        self.wake = threading.Event()
        """Cuts a pause short."""
        self._failures = 0
        self._logged = False
        self._logged_at = -math.inf
        self._since = 0.0

    @property
    def lasting(self) -> bool:
        return bool(self.said)

    def met(self, why: str) -> None:
        now = time.monotonic()
        if not self.said:
            self._since = now
        pause = SAY_AGAIN_SECONDS if self.said else SAY_NEW_SECONDS
        if now - self._logged_at > pause:
            log.warning("%s is interrupted, for %d s so far: %s", self.what, now - self._since, why)
            self._logged_at = now
            self._logged = True
        self.said = why

    def over(self) -> None:
        if self.said and self._logged:
            log.warning("%s goes on after %d s", self.what, time.monotonic() - self._since)
            self._logged = False
        self.said = ""

    def pause(self, *, lived: float) -> int:
        """Wait before the next try, for longer each time; how many there were in a row."""
        self._failures = 1 if lived > STEADY_SECONDS else self._failures + 1
        longest = min(PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        self.wake.wait(random.uniform(longest / 2, longest))  # noqa: S311 - spreads them
        self.wake.clear()
        return self._failures


def _key(found: Mapping[str, Any]) -> tuple[str, str]:
    metadata = found.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _state(found: Mapping[str, Any]) -> tuple[str, str]:
    metadata = found.get("metadata") or {}
    return str(metadata.get("uid") or ""), str(metadata.get("resourceVersion") or "")


def _remembered(key: tuple[str, str], state: tuple[str, str]) -> dict[str, Any]:
    return {"metadata": {"namespace": key[0], "name": key[1], "uid": state[0], "resourceVersion": state[1]}}
