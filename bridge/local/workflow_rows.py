"""Workflows of the one-machine engine in SQLite, beside the runs.

Who asks (the controller, the exit handler, a command) writes what is asked for; the engine alone writes what
became of it. A name is used once: a removed Workflow leaves its row behind, empty.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bridge.core.executions import NodePhase
from bridge.errors import Unavailable
from bridge.local.database import Database
from bridge.local.scheduling import STOP, TERMINATE, NodeState, Progress

_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS workflows (
        name TEXT PRIMARY KEY,
        uid TEXT NOT NULL,
        run TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        accepted REAL NOT NULL,
        template TEXT NOT NULL,
        arguments TEXT NOT NULL,
        created REAL NOT NULL,
        started REAL,
        finished REAL,
        root TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        broken TEXT NOT NULL DEFAULT '',
        shutdown TEXT NOT NULL DEFAULT '',
        touched REAL,
        deleted INTEGER NOT NULL DEFAULT 0,
        due INTEGER NOT NULL DEFAULT 1
    )
    """,
    "CREATE INDEX IF NOT EXISTS workflows_due ON workflows (created, name) WHERE due = 1",
    """
    CREATE TABLE IF NOT EXISTS nodes (
        workflow TEXT NOT NULL REFERENCES workflows (name),
        name TEXT NOT NULL,
        phase TEXT NOT NULL,
        exit_code INTEGER,
        message TEXT NOT NULL,
        tried INTEGER NOT NULL,
        started REAL,
        ended REAL,
        next_at REAL NOT NULL,
        process TEXT NOT NULL,
        PRIMARY KEY (workflow, name)
    )
    """,
)
_NODE_COLUMNS = "name, phase, exit_code, message, tried, started, ended, next_at, process"


@dataclass(frozen=True)
class Submission:
    """What a Workflow is made of; it never changes."""

    name: str
    uid: str
    run: str
    attempt: int
    accepted: float
    """When its run was: a run that was forgotten and came again is another one."""
    template: Mapping[str, Any]
    arguments: Mapping[str, str]
    created: float


@dataclass(frozen=True)
class Row:
    """A Workflow as it is now."""

    name: str
    uid: str
    progress: Progress
    broken: str = ""
    """Why the engine gave it up."""
    deleted: bool = False


class WorkflowRows:
    """The tables, made at the first use. No other exception than Unavailable leaves it, but for Misconfigured
    when a newer bridge wrote the file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = False

    def uid(self, name: str, *, accepted: float) -> str | None:
        """The uid under which the name is taken by this run; None: it is free.

        Raises Unavailable while an earlier run's is still being removed.
        """
        with self._reading() as connection:
            return _uid(connection, name, accepted)

    def insert(self, one: Submission) -> str:
        """Add a Workflow, unless it is there; answers the uid of the one that is. Raises Unavailable."""
        with self._writing() as connection:
            known = _uid(connection, one.name, one.accepted)
            if known is not None:
                return known
            connection.execute(
                "INSERT OR REPLACE INTO workflows "
                "(name, uid, run, attempt, accepted, template, arguments, created) "
                "VALUES (:name, :uid, :run, :attempt, :accepted, :template, :arguments, :created)",
                {**vars(one), "template": json.dumps(one.template), "arguments": json.dumps(one.arguments)},
            )
        return one.uid

    def read(self, name: str) -> Row | None:
        """A Workflow, also a removed one; None: there never was one."""
        with self._reading() as connection, _one_state(connection):
            found = list(_rows(connection, "name = ?", (name,)))
        return found[0] if found else None

    def of_run(self, run: str) -> list[tuple[str, int]]:
        """The Workflows that a run ever had, by name and attempt."""
        with self._reading() as connection:
            found = connection.execute("SELECT name, attempt FROM workflows WHERE run = ?", (run,)).fetchall()
        return [(str(name), int(attempt)) for name, attempt in found]

    def due(self) -> list[Row]:
        """Those that the engine has to do with, the oldest first."""
        with self._reading() as connection, _one_state(connection):
            return list(_rows(connection, "due = 1", ()))

    def contents(self, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The template and the arguments that it was submitted with."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT template, arguments FROM workflows WHERE name = ?", (name,)
            ).fetchone()
        return json.loads(row[0]), json.loads(row[1])

    def touch(self, name: str, at: float) -> None:
        """Note that somebody wants it looked at."""
        with self._writing() as connection:
            connection.execute("UPDATE workflows SET touched = ? WHERE name = ?", (at, name))

    def shut_down(self, name: str, strategy: str) -> None:
        """Ask for its end. A termination is more than a stop and stays."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE workflows SET shutdown = ? WHERE name = ? AND finished IS NULL AND shutdown IN ('', ?)",
                (strategy, name, STOP if strategy == TERMINATE else strategy),
            )

    def delete(self, name: str) -> None:
        """Ask for its removal; from now on nobody sees it."""
        with self._writing() as connection:
            connection.execute("UPDATE workflows SET deleted = 1, due = 1 WHERE name = ? AND deleted = 0", (name,))

    def write(self, name: str, before: Progress, after: Progress) -> None:
        """Write what the engine made of `before`; what is asked for is left as it is."""
        changed = [node for node in after.nodes.values() if before.nodes.get(node.name) != node]
        if not changed and replace(after, nodes={}) == replace(before, nodes={}):
            return
        with self._writing() as connection:
            # Whoever deletes it meanwhile makes it due again.
            connection.execute(
                "UPDATE workflows SET root = ?, message = ?, started = ?, finished = ?, "
                "due = CASE WHEN ? IS NULL THEN 1 ELSE deleted END WHERE name = ?",
                (after.root or "", after.message, after.started, after.finished, after.finished, name),
            )
            connection.executemany(
                f"INSERT OR REPLACE INTO nodes (workflow, {_NODE_COLUMNS}) "  # noqa: S608 - no value is in the text
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(name, *_values(node)) for node in changed],
            )

    def give_up(self, name: str, reason: str) -> None:
        """The engine cannot go on with it: its root node has the phase Error, unless it ended before."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE workflows SET broken = ?, "
                "message = CASE WHEN root IN ('', 'Running') THEN ? ELSE message END, "
                "root = CASE WHEN root IN ('', 'Running') THEN 'Error' ELSE root END WHERE name = ?",
                (reason, reason, name),
            )

    def empty(self, name: str) -> None:
        """A deleted Workflow's processes and files are gone: leave its name alone behind."""
        with self._writing() as connection:
            connection.execute("DELETE FROM nodes WHERE workflow = ?", (name,))
            connection.execute(
                "UPDATE workflows SET template = '', arguments = '', message = '', broken = '', due = 0 "
                "WHERE name = ? AND deleted = 1",
                (name,),
            )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._make()
        with self._database.reading() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._make()
        with self._database.writing() as connection:
            yield connection

    def _make(self) -> None:
        if self._made:
            return
        with self._database.writing() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
        self._made = True


@contextmanager
def _one_state(connection: sqlite3.Connection) -> Iterator[None]:
    """Several SELECTs see one state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _uid(connection: sqlite3.Connection, name: str, accepted: float) -> str | None:
    row = connection.execute(
        "SELECT uid, accepted, deleted, due FROM workflows WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    uid, known, deleted, due = row
    if not deleted or known == accepted:
        return str(uid)
    if due:
        raise Unavailable(f"workflow {name} of an earlier run is still being removed; ask again in a moment")
    return None


def _rows(connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> Iterator[Row]:
    nodes: dict[str, dict[str, NodeState]] = {}
    for workflow, *columns in connection.execute(
        f"SELECT workflow, {_NODE_COLUMNS} FROM nodes "  # noqa: S608 - no value is in the text
        f"WHERE workflow IN (SELECT name FROM workflows WHERE {condition}) "
        "ORDER BY started IS NULL, started, rowid",
        values,
    ):
        node = _node(*columns)
        nodes.setdefault(workflow, {})[node.name] = node
    for name, uid, root, message, started, finished, shutdown, broken, deleted in connection.execute(
        "SELECT name, uid, root, message, started, finished, shutdown, broken, deleted "  # noqa: S608
        f"FROM workflows WHERE {condition} ORDER BY created, name",
        values,
    ):
        phase = NodePhase(root) if root else None
        progress = Progress(phase, message, started, finished, shutdown, nodes.get(name, {}))
        yield Row(name, uid, progress, broken, bool(deleted))


def _node(name: str, phase: str, *rest: Any) -> NodeState:
    return NodeState(name, NodePhase(phase), *rest)


def _values(node: NodeState) -> tuple[object, ...]:
    return (
        node.name,
        node.phase.value,
        node.exit_code,
        node.message,
        node.tried,
        node.started,
        node.ended,
        node.next_at,
        node.process,
    )
