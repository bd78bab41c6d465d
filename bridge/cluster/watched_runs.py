"""Lists of a gateway's records, answered from a watch of the records' metadata.

Each process of a gateway has its own watch: pages of 50 out of 10,000 runs take milliseconds, and neither a list
request nor a payload is asked of the API server for them. What somebody writes is in a list a moment later; `read`
stays a consistent read.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from sys import intern
from typing import Any

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.runs import RUN_FIELDS, Place, SecretRuns, place_of
from bridge.cluster.watching import Change, Watching
from bridge.core.events import Revision
from bridge.core.runs import Attempt, Run, State
from bridge.errors import BridgeError, Misconfigured
from bridge.ports import RunFilter

SYNC_SECONDS = 15.0
"""So long a list waits for the first one of the watch, which takes as long as its own; then it makes that."""
_LOOK_SECONDS = 0.1


class WatchedRuns:
    """The lists of a gateway (`Runs.list`); whatever else is done with records is asked_runs.py's.

    While the watch is not well (its first list is not done, or its last request was not answered), each list is
    asked of the API server itself, so what is shown is never old.

    Args:
        api: the API server.
        namespace: of the records.
        runs: what reads them.

    """

    def __init__(self, api: Api, namespace: str, runs: SecretRuns) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Place, Run]] = {}
        self._unread: dict[str, dict[str, Any]] = {}
        """Metadata of records whose event is not in it, and could not be read when it came."""
        self._ordered: list[tuple[Place, Run]] | None = None
        """What is known, by place; None: something changed since it was sorted."""
        self.watching = Watching(api, SECRETS, namespace, self._take, fields=RUN_FIELDS, metadata_only=True)

    def start(self) -> None:
        """Begin to watch."""
        self.watching.start()

    def stop(self) -> None:
        """End watching: lists are asked of the API server from now on."""
        self.watching.stop()

    def damaged(self) -> Sequence[tuple[str, str]]:
        """The records that lists leave out, each with the reason."""
        return self._runs.damaged()

    def list(self, wanted: RunFilter) -> list[Run]:
        """Records without their payloads, the newest first, as they were a moment ago; those that cannot be read
        are left out. See the port."""
        if not self._knows():
            return self._runs.list(wanted)
        self._read_unread()
        end = None
        if wanted.after:
            with self._lock:
                known = self._known.get(wanted.after)
            if known is None:
                # Just stored, or not there: who lists by itself knows.
                return self._runs.list(wanted)
            end = known[0]
        ordered = self._in_order()
        # The oldest come first, so what comes after `end` in the list comes before it here.
        count = len(ordered) if end is None else bisect_right(ordered, end, key=lambda one: one[0])
        older = (run for _, run in islice(reversed(ordered), len(ordered) - count, None))
        found = (run for run in older if run.id != wanted.after and wanted.matches(run))
        return [*islice(found, wanted.limit or None)]

    def _knows(self) -> bool:
        """Whether the watch is well, waited for while it begins."""
        until = time.monotonic() + SYNC_SECONDS
        while not self.watching.synced.wait(_LOOK_SECONDS):
            if self.watching.interrupted or time.monotonic() > until:
                return False
        return self.watching.healthy

    def _in_order(self) -> Sequence[tuple[Place, Run]]:
        with self._lock:
            if self._ordered is None:
                self._ordered = sorted(self._known.values(), key=lambda one: one[0])
            return self._ordered

    def _take(self, change: Change, secret: dict[str, Any]) -> None:
        name = str(secret["metadata"].get("name"))
        if change is Change.DELETED:
            self._keep(name, None)
            return
        try:
            self._keep(name, self._read(name, secret))
        except BridgeError:
            # A change of it may not come for days; whoever lists next tries again.
            with self._lock:
                self._unread[name] = secret

    def _read_unread(self) -> None:
        with self._lock:
            unread = dict(self._unread)
        for name, secret in unread.items():
            found = self._read(name, secret)
            with self._lock:
                still = self._unread.get(name) is secret
            if still:
                self._keep(name, found)

    def _read(self, name: str, secret: Mapping[str, Any]) -> tuple[Place, Run] | None:
        with self._lock:
            known = self._known.get(name)
        # An event never changes: one that is too long for the metadata is read once.
        run = self._runs.run_of(secret, known=known[1] if known else None)
        if run is None:
            return None
        try:
            return place_of(secret), _shared(run)
        except Misconfigured:
            return None

    def _keep(self, name: str, found: tuple[Place, Run] | None) -> None:
        with self._lock:
            self._unread.pop(name, None)
            self._ordered = None
            if found is None:
                self._known.pop(name, None)
            else:
                self._known[name] = found


def _shared(run: Run) -> Run:
    """`run` with one text in memory for all that many runs have alike: a quarter less for each."""
    event, state = run.event, run.state
    return replace(
        run,
        pipeline=intern(run.pipeline),
        context=intern(run.context),
        event=replace(
            event,
            provider=intern(event.provider),
            type=intern(event.type),
            project=intern(event.project),
            revision=Revision(event.revision.commit, intern(event.revision.ref)),
            clone_url=intern(event.clone_url),
            branch=intern(event.branch),
            sender=intern(event.sender),
        ),
        state=_shared_state(state),
    )


def _shared_state(state: State) -> State:
    return replace(
        state,
        attempts=tuple(_shared_attempt(attempt) for attempt in state.attempts),
        steps={(epoch, intern(step)): seen for (epoch, step), seen in state.steps.items()},
        reported_to=intern(state.reported_to),
    )


def _shared_attempt(attempt: Attempt) -> Attempt:
    return replace(
        attempt,
        steps=tuple(map(intern, attempt.steps)),
        on_failure=intern(attempt.on_failure),
        on_success=intern(attempt.on_success),
        reason=intern(attempt.reason),
    )
