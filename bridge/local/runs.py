"""The records in SQLite: the port Runs on one machine.

The step's process opens it too, so nothing heavy is imported here.
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bridge.core import records
from bridge.core.mending import ended_state, is_of_newer_bridge
from bridge.core.records import Fields
from bridge.core.runs import Phase, Run
from bridge.core.searching import search_text, search_words, storable
from bridge.errors import Misconfigured, NotFound
from bridge.local.database import BUSY_TIMEOUT_SECONDS, Database
from bridge.ports import Created, RunFilter

_LAST_CHARACTER = "\U0010ffff"
_COLUMNS = "id, pipeline, context, digest, accepted, phase, verdict, reason, closed, event, acts, state, version"


class SqliteRuns:
    """Runs in one SQLite file, shared by threads and processes.

    Args:
        path: the file; several bridges may open it, and make it, at once.
        create: make the file if it is not there; otherwise that is Unavailable.
        busy_timeout_seconds: how long to wait for other writers.

    """

    def __init__(
        self, path: Path, *, create: bool = True, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self.database = Database(path, create=create, busy_timeout_seconds=busy_timeout_seconds)
        self._damaged: dict[str, str] = {}
        self._damaged_lock = threading.Lock()

    def create(self, run: Run, payload: bytes) -> Created:
        """Store a new record; see the port. Raises TooLarge if no world could keep it."""
        event = records.encode_event(run.event)
        packed = records.pack_payload(payload)
        records.check_size(event, packed)
        stored = replace(run, event=run.event.without_payload(), version="1")
        with self.database.writing() as connection:
            known = _row(connection, run.id)
            if known is None:
                columns = {**_fixed_columns(run, event), **_changing_columns(run), "version": 1}
                _insert(connection, "runs", columns)
                _insert(connection, "payloads", {"run": storable(run.id), "packed": packed})
        if known is not None:
            return Created(_run(known), duplicate=True)
        return Created(stored, duplicate=False)

    def read(self, run_id: str) -> Run:
        """The record. Raises NotFound, and Misconfigured when it is damaged or a newer bridge's."""
        with self.database.reading() as connection:
            row = _row(connection, run_id)
        if row is None:
            raise _not_found(run_id)
        return _run(row)

    def payload(self, run_id: str) -> bytes:
        """The event's payload, whole. Raises NotFound, and Misconfigured when it is damaged."""
        with self.database.reading() as connection:
            row = connection.execute("SELECT packed FROM payloads WHERE run = ?", (storable(run_id),)).fetchone()
        if row is None:
            raise _not_found(run_id)
        packed = row[0]
        try:
            return records.unpack_payload(packed if isinstance(packed, bytes) else b"")
        except Misconfigured as exc:
            raise Misconfigured(f"run {run_id}: {exc}") from exc

    def list(self, wanted: RunFilter) -> list[Run]:
        """Records without their payloads, the newest first; those that cannot be read are left out.

        What was left out is in `damaged` from then on, until it can be read again or is gone.
        """
        condition, values = _condition(wanted)
        # The columns are named in this module and the values are bound.
        query = f"SELECT {_COLUMNS} FROM runs WHERE {condition} ORDER BY accepted DESC, number DESC"  # noqa: S608
        found: list[Run] = []
        with self.database.reading() as connection:
            if wanted.after and _row(connection, wanted.after) is None:
                raise _not_found(wanted.after)
            for row in connection.execute(query, values):
                run = self._readable(_named(row))
                if run is not None:
                    found.append(run)
                if wanted.limit and len(found) == wanted.limit:
                    break
        return found

    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """Apply a change to the record as it is now, while nobody else writes; see the port.

        An exception of `change` leaves the record as it was. `change` must not write to the database itself.
        """
        with self.database.writing() as connection:
            row = _row(connection, run_id)
            if row is None:
                raise _not_found(run_id)
            known = _run(row)
            changed = change(known)
            if changed == known:
                return known
            version = int(known.version) + 1
            columns = {**_changing_columns(changed), "version": version}
            _update(connection, run_id, columns)
        return replace(changed, version=str(version))

    def mend(self, run_id: str, *, attempt: int, at: float) -> bool:
        """Give a row whose changing part is damaged one with which its run ends (core.mending); whether it did.

        One that can be read is left alone, and a newer bridge's. Raises NotFound, and Misconfigured for one of
        which not even the event is left.
        """
        with self.database.writing() as connection:
            row = _row(connection, run_id)
            if row is None:
                raise _not_found(run_id)
            if _is_readable(row) or any(is_of_newer_bridge(str(row[part])) for part in ("event", "acts", "state")):
                return False
            event = records.decode_event(str(row["event"]))
            columns: dict[str, object] = {
                "phase": Phase.RUNNING.value,
                "verdict": "",
                "reason": "",
                "closed": None,
                "acts": records.encode_acts(()),
                "state": records.encode_state(ended_state(event, attempt=attempt, at=at)),
                "owes": False,
                "accepted": row["accepted"] if isinstance(row["accepted"], int | float) else at,
                "version": 1 + (row["version"] if isinstance(row["version"], int) else 0),
            }
            # Whatever else is wrong with it cannot be mended: nothing is written then.
            _run({**row, **columns})
            _update(connection, run_id, columns)
        return True

    def forget(self, run_id: str) -> None:
        """Remove the record, its payload and what the board shows of it; gone already is fine."""
        with self.database.writing() as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (storable(run_id),))
        with self._damaged_lock:
            self._damaged.pop(run_id, None)

    def owing(self) -> Sequence[str]:
        """The closed runs of which endpoints wait to be told (flows.notifying.Owing)."""
        with self.database.reading() as connection:
            rows = connection.execute("SELECT id FROM runs WHERE owes ORDER BY number").fetchall()
        return [str(run_id) for (run_id,) in rows]

    def damaged(self) -> Sequence[tuple[str, str]]:
        """The records that `list` left out so far, each with the reason."""
        with self._damaged_lock:
            return sorted(self._damaged.items())

    def close(self) -> None:
        """Close this process's connections."""
        self.database.close()

    def _readable(self, row: Mapping[str, object]) -> Run | None:
        run_id = str(row["id"])
        try:
            run = _run(row)
        except Misconfigured as exc:
            with self._damaged_lock:
                self._damaged[run_id] = str(exc)
            return None
        if self._damaged:
            with self._damaged_lock:
                self._damaged.pop(run_id, None)
        return run


def _fixed_columns(run: Run, event: str) -> dict[str, object]:
    number = run.event.pull_request
    return {
        "id": storable(run.id),
        "project": storable(run.event.project),
        "pipeline": storable(run.pipeline),
        "context": storable(run.context),
        "sha": storable(run.event.revision.commit),
        # As text: JSON has whole numbers that no SQLite column holds.
        "pull_request": "" if number is None else str(number),
        "digest": run.digest,
        "accepted": run.accepted,
        "event": event,
        "branch": storable(run.event.branch),
        "delivery": storable(run.event.delivery),
        "searched": search_text(run.id, run.pipeline, run.event),
    }


def _changing_columns(run: Run) -> dict[str, object]:
    return {
        "phase": run.phase.value,
        "verdict": run.verdict.value if run.verdict else "",
        "reason": storable(run.reason),
        "closed": run.closed,
        "acts": records.encode_acts(run.acts),
        "state": records.encode_state(run.state),
        "owes": run.owes_notifications,
    }


def _insert(connection: sqlite3.Connection, table: str, columns: Mapping[str, object]) -> None:
    places = ", ".join(f":{name}" for name in columns)
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", columns)  # noqa: S608


def _update(connection: sqlite3.Connection, run_id: str, columns: Mapping[str, object]) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    connection.execute(
        f"UPDATE runs SET {assignments} WHERE id = :id",  # noqa: S608
        {**columns, "id": storable(run_id)},
    )


def _is_readable(row: Mapping[str, object]) -> bool:
    try:
        _run(row)
    except Misconfigured:
        return False
    return True


def _row(connection: sqlite3.Connection, run_id: str) -> dict[str, object] | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (storable(run_id),)).fetchone()  # noqa: S608
    return None if row is None else _named(row)


def _named(row: tuple[object, ...]) -> dict[str, object]:
    return dict(zip(_COLUMNS.split(", "), row, strict=True))


def _run(row: Mapping[str, object]) -> Run:
    try:
        fields = Fields(row, "record")
        return Run(
            id=fields.text("id"),
            pipeline=fields.text("pipeline"),
            event=records.decode_event(fields.text("event")),
            context=fields.text("context"),
            digest=fields.text("digest"),
            accepted=fields.number("accepted"),
            phase=records.decode_phase(row["phase"]),
            verdict=records.decode_verdict(row["verdict"]),
            reason=fields.text("reason"),
            closed=fields.number_or_none("closed"),
            acts=records.decode_acts(fields.text("acts")),
            state=records.decode_state(fields.text("state")),
            version=str(fields.whole("version")),
        )
    except Misconfigured as exc:
        raise Misconfigured(f"run {row['id']}: {exc}") from exc


def _condition(wanted: RunFilter) -> tuple[str, list[str]]:
    """The WHERE of a list: each part of it, and the values that are bound to its question marks."""
    equal = {
        "project": wanted.project,
        "pipeline": wanted.pipeline,
        "sha": wanted.commit,
        "context": wanted.context,
        "pull_request": "" if wanted.pull_request is None else str(wanted.pull_request),
        "branch": wanted.branch,
        "verdict": wanted.verdict,
        "delivery": wanted.delivery,
    }
    parts: list[tuple[str, tuple[str, ...]]] = [
        (f"{name} = ?", (value,)) for name, value in equal.items() if value
    ]
    if wanted.sha_is_beginning:
        # Not LIKE, nor substr: this one takes the index.
        parts.append(("sha >= ? AND sha < ?", (wanted.sha, wanted.sha + _LAST_CHARACTER)))
    elif wanted.sha:
        parts.append(("sha = ?", (wanted.sha,)))
    parts += [("instr(searched, ?) > 0", (word,)) for word in search_words(wanted.search)]
    if wanted.open_only:
        parts.append(("phase <> 'closed'", ()))
    if wanted.after:
        parts.append(("(accepted, number) < (SELECT accepted, number FROM runs WHERE id = ?)", (wanted.after,)))
    condition = " AND ".join(part for part, _ in parts) or "TRUE"
    return condition, [storable(value) for _, values in parts for value in values]


def _not_found(run_id: str) -> NotFound:
    return NotFound(f"run {run_id[:100]} is not there; `bridgectl list` shows those that are")
