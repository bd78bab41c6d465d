"""The controller's index of the records, from a watch of their metadata: which are open, and which are old.

Of a run it keeps three short values, and of each pull request and branch its newest run, so that 10,000 records
weigh a few megabytes.
What is done about a run begins with a read of its record: this only says where to look.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.runs import RUN_FIELDS, SecretRuns
from bridge.cluster.watching import Cache
from bridge.core.concurrency import Member, group_of, member_of
from bridge.core.metrics import waits
from bridge.core.obligations import final_due, pending_since
from bridge.core.runs import REPEAT_SECONDS, Run


@dataclass(frozen=True, slots=True)
class _Known:
    accepted: float
    pipeline: str
    closed: float | None
    """None: it is open."""
    pending_since: float | None = None
    """Of an open one: since when it has had no final status."""
    final_due: float | None = None
    """When it should have one."""
    owes: bool = False
    """It is closed, and endpoints wait to be told."""


@dataclass(frozen=True, slots=True)
class _Broken:
    reason: str


@dataclass(slots=True)
class _Group:
    newest: Member
    open: set[str] = field(default_factory=set)


class RunIndex:
    """Which runs a controller has to look at (flows.controlling.Index), and when one of them changed; and which is
    the newest of its group (flows.superseding.Groups), at which older ones are woken.

    Until `cache.watching.synced` is set there are none. A record that cannot be read is none of them; `broken`
    says why, and nothing else waits for it.

    Args:
        api: the API server.
        namespace: of the records.
        runs: what reads a record's metadata.
        wake: told the id of each run whose record changed, from the watch's thread.
        keep_runs: so many closed runs of each pipeline are kept; 0: no bound.

    """

    def __init__(
        self, api: Api, namespace: str, runs: SecretRuns, wake: Callable[[str], None], *, keep_runs: int = 0
    ) -> None:
        self._runs = runs
        self._wake = wake
        self._keep_runs = keep_runs
        self.cache: Cache[_Known | _Broken] = Cache(
            api, SECRETS, namespace, self._known, fields=RUN_FIELDS, metadata_only=True
        )
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._ended: set[tuple[str, str, str]] = set()
        """Groups of which nothing seemed to be left at the last look at old runs."""
        self._groups_lock = threading.Lock()

    def start(self) -> None:
        """Begin to watch."""
        self.cache.start()

    def stop(self) -> None:
        """End watching."""
        self.cache.stop()

    def open(self) -> list[str]:
        """The runs that are not closed, the oldest first."""
        found = [
            (known.accepted, run)
            for run, known in self.cache.all().items()
            if isinstance(known, _Known) and known.closed is None
        ]
        return [run for _accepted, run in sorted(found)]

    def owing(self) -> list[str]:
        """The closed runs of which endpoints wait to be told (flows.notifying.Owing)."""
        found = self.cache.all().items()
        return sorted(run for run, known in found if isinstance(known, _Known) and known.owes)

    def newest(self, run: Run) -> Member | None:
        """See Groups."""
        with self._groups_lock:
            group = self._groups.get(_key(run))
            return None if group is None else group.newest

    def waits(self, *, now: float) -> dict[str, float]:
        """For how long runs have been without a final status (core.metrics)."""
        known = (one for one in self.cache.all().values() if isinstance(one, _Known))
        return waits(((one.pending_since, one.final_due) for one in known), now=now)

    def is_closed(self, run: str) -> bool:
        """Whether this run is known to be closed, so that what happens to what is left of it matters to nobody."""
        known = self.cache.get(run)
        return isinstance(known, _Known) and known.closed is not None

    def old(self, *, now: float, retention_seconds: float | None) -> list[str]:
        """The closed runs that were kept long enough: by age, or as their pipeline has plenty of newer ones."""
        self._forget_groups()
        closed = [
            (known.closed, run, known.pipeline)
            for run, known in self.cache.all().items()
            if isinstance(known, _Known) and known.closed is not None
        ]
        aged = {run for at, run, _ in closed if retention_seconds is not None and at <= now - retention_seconds}
        surplus = self._surplus(closed, now) if self._keep_runs else set()
        return sorted(aged | surplus)

    def broken(self) -> list[tuple[str, str]]:
        """The records that are set aside, each with the reason."""
        return sorted(
            (name, known.reason) for name, known in self.cache.all().items() if isinstance(known, _Broken)
        )

    def _surplus(self, closed: list[tuple[float, str, str]], now: float) -> set[str]:
        by_pipeline: dict[str, list[tuple[float, str]]] = {}
        for at, run, pipeline in closed:
            by_pipeline.setdefault(pipeline, []).append((at, run))
        return {
            run
            for runs in by_pipeline.values()
            for at, run in islice(sorted(runs, reverse=True), self._keep_runs, None)
            if at <= now - REPEAT_SECONDS
        }

    def _join(self, run: Run) -> None:
        """Let the group of `run` know of it, and look at those soon that are older than its newest now."""
        if not group_of(run.event):
            return
        member, key = member_of(run), _key(run)
        older: set[str] = set()
        with self._groups_lock:
            group = self._groups.setdefault(key, _Group(member))
            if group.newest.place < member.place:
                group.newest = member
                older = group.open - {run.id}
            if run.closed is None:
                group.open.add(run.id)
            else:
                group.open.discard(run.id)
        for one in older:
            self._wake(one)

    def _forget_groups(self) -> None:
        """Forget groups of which nothing is left at two looks: what was told just now may not be kept yet."""
        kept = self.cache.all()
        with self._groups_lock:
            for group in self._groups.values():
                group.open.intersection_update(kept)
            ended = {key for key, group in self._groups.items() if not group.open and group.newest.run not in kept}
            for key in ended & self._ended:
                del self._groups[key]
            self._ended = ended - self._ended

    def _known(self, secret: Mapping[str, Any]) -> _Known | _Broken | None:
        run = self._runs.run_of(secret)
        if run is None:
            name = str(secret["metadata"].get("name"))
            reason = dict(self._runs.damaged()).get(name)
            return None if reason is None else _Broken(reason)
        # Few pipelines, many runs: one text for all of a pipeline's.
        pipeline = sys.intern(run.pipeline)
        self._join(run)
        if run.closed is None or run.applicable_act is not None:
            self._wake(run.id)
            return _Known(run.accepted, pipeline, None, pending_since(run), final_due(run))
        return _Known(run.accepted, pipeline, run.closed, owes=run.owes_notifications)


def _key(run: Run) -> tuple[str, str, str]:
    return run.pipeline, run.event.project, group_of(run.event)
