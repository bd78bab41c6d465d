"""The one SQLite file of one machine, as several processes and threads use it at once.

The server, its controller, every step and the CLI open it. Each thread of each process has its own connection;
writers take turns. What is committed is on the disk (WAL, synchronous=FULL).
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.core import records
from bridge.core.searching import search_text, storable
from bridge.errors import Misconfigured, Unavailable

FILE_NAME = "bridge.sqlite3"
"""The one file of all runs and workflows, in the state folder."""
BUSY_TIMEOUT_SECONDS = 10.0


def _fill_what_lists_filter(sqlite: sqlite3.Connection) -> None:
    for number, run, pipeline, event in sqlite.execute("SELECT number, id, pipeline, event FROM runs").fetchall():
        try:
            found = records.decode_event(str(event))
        except Misconfigured:
            # A list leaves it out, and says why.
            continue
        columns = (
            storable(found.branch),
            storable(found.delivery),
            search_text(str(run), str(pipeline), found),
            number,
        )
        sqlite.execute("UPDATE runs SET branch = ?, delivery = ?, searched = ? WHERE number = ?", columns)


_MIGRATIONS: tuple[tuple[str | Callable[[sqlite3.Connection], None], ...], ...] = (
    (
        """
        CREATE TABLE runs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            project TEXT NOT NULL,
            pipeline TEXT NOT NULL,
            context TEXT NOT NULL,
            sha TEXT NOT NULL,
            pull_request TEXT NOT NULL,
            digest TEXT NOT NULL,
            accepted REAL NOT NULL,
            phase TEXT NOT NULL,
            verdict TEXT NOT NULL,
            reason TEXT NOT NULL,
            closed REAL,
            event TEXT NOT NULL,
            acts TEXT NOT NULL,
            state TEXT NOT NULL,
            version INTEGER NOT NULL
        )
        """,
        "CREATE INDEX runs_by_time ON runs (accepted, number)",
        "CREATE INDEX runs_open ON runs (accepted, number) WHERE phase <> 'closed'",
        "CREATE INDEX runs_by_project ON runs (project, accepted, number)",
        "CREATE INDEX runs_by_pipeline ON runs (pipeline, accepted, number)",
        "CREATE INDEX runs_by_commit ON runs (sha, context)",
        "CREATE INDEX runs_by_pull_request ON runs (pull_request, accepted, number)",
        """
        CREATE TABLE payloads (
            run TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
            packed BLOB NOT NULL
        )
        """,
        """
        CREATE TABLE statuses (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            sha TEXT NOT NULL,
            context TEXT NOT NULL,
            state TEXT NOT NULL,
            description TEXT NOT NULL,
            url TEXT NOT NULL,
            run TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            at REAL NOT NULL
        )
        """,
        "CREATE INDEX statuses_by_commit ON statuses (sha, context, number)",
        "CREATE INDEX statuses_by_run ON statuses (run)",
        """
        CREATE TRIGGER statuses_go_with_their_run AFTER DELETE ON runs
        BEGIN
            DELETE FROM statuses WHERE run = OLD.id;
        END
        """,
    ),
    (
        "ALTER TABLE runs ADD COLUMN branch TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN delivery TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN searched TEXT NOT NULL DEFAULT ''",
        _fill_what_lists_filter,
        "CREATE INDEX runs_by_branch ON runs (branch, accepted, number)",
        "CREATE INDEX runs_by_delivery ON runs (delivery, accepted, number)",
        "CREATE INDEX runs_by_verdict ON runs (verdict, accepted, number)",
    ),
    (
        "ALTER TABLE runs ADD COLUMN owes INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX runs_owing ON runs (number) WHERE owes",
    ),
)
"""What each schema version adds to the one before; the file's user_version says how many it has."""

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process holds it for too long; try again, and look for one that hangs",
    sqlite3.SQLITE_LOCKED: "another process holds it for too long; try again, and look for one that hangs",
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_READONLY: "it may not be written; give this user write access to the file and its folder",
    sqlite3.SQLITE_PERM: "it may not be used; give this user access to the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check its folder, and that this user may write there",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop bridge and restore it from a backup, or move it away",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file; move it away or name another one",
    sqlite3.SQLITE_IOERR: "the disk did not do it; check its space, quota and health",
}

_inherited: list[sqlite3.Connection] = []
"""Connections of the process that this one was forked from: neither used nor closed here, since closing one
would touch the locks and the log of a file that the other process still has open."""


class Database:
    """A SQLite file with bridge's tables.

    Making one touches nothing; the first use opens the file and brings its schema up to date, also when several
    processes do so at once. No `sqlite3` exception leaves it: what SQLite refuses is Unavailable.

    Args:
        path: the file; made with its folder, readable for its owner only.
        create: make the file if it is not there; otherwise that is Unavailable.
        busy_timeout_seconds: how long to wait for other writers.

    """

    def __init__(
        self, path: Path, *, create: bool = True, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self.path = path.absolute()
        self._create = create
        self._busy_timeout_seconds = busy_timeout_seconds
        self._here = _Here()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; one SELECT on it sees one state of the file. Raises Unavailable."""
        with self._translated() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection in a transaction that nobody else writes beside.

        It is on the disk when the block has ended without an exception, and undone if there was one. Raises
        Unavailable, after which it is on the disk or not.
        """
        here = self._here_now()
        if not here.turn.acquire(timeout=self._busy_timeout_seconds):
            raise self._unavailable("another thread holds it for too long; try again")
        try:
            with self._translated() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    _undo(connection)
                    raise
        finally:
            here.turn.release()

    def close(self) -> None:
        """Close this process's connections. Using the database again opens it anew."""
        here, self._here = self._here_now(), _Here()
        for connection in list(here.connections):
            connection.close()

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connected()
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            if code not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}:
                self._drop()
            raise self._unavailable(_REMEDIES.get(code, "SQLite refused"), said=str(exc)) from exc

    def _connected(self) -> sqlite3.Connection:
        here = self._here_now()
        known = here.local.connection
        if known is not None and known.file == _file_at(self.path):
            return known.sqlite
        # A file that was replaced or removed would take what is written with it.
        self._drop()
        opened = self._opened()
        here.local.connection = opened
        here.connections.add(opened)
        return opened.sqlite

    def _opened(self) -> "_Connection":
        try:
            self._make_file()
        except OSError as exc:
            raise self._unavailable(
                "it cannot be made; check that this user may write there", said=exc.strerror or ""
            ) from exc
        file = _file_at(self.path)
        if file is None:
            raise self._unavailable("it is not there, or this user may not look; start `bridgectl local` first")
        sqlite = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            # Each is used by one thread only, but may be closed by another one.
            check_same_thread=False,
        )
        try:
            self._set_up(sqlite)
        except BaseException:
            sqlite.close()
            raise
        return _Connection(sqlite, file)

    def _make_file(self) -> None:
        if not self._create or self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _set_up(self, sqlite: sqlite3.Connection) -> None:
        # Damaged text is for whoever reads it to judge, one record at a time.
        sqlite.text_factory = _text
        _switch_to_wal(sqlite, self._busy_timeout_seconds)
        sqlite.execute("PRAGMA synchronous=FULL")
        sqlite.execute("PRAGMA foreign_keys=ON")
        if self._version(sqlite) == len(_MIGRATIONS):
            return
        sqlite.execute("BEGIN IMMEDIATE")
        try:
            for migration in _MIGRATIONS[self._version(sqlite) :]:
                for step in migration:
                    if isinstance(step, str):
                        sqlite.execute(step)
                    else:
                        step(sqlite)
            sqlite.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
            sqlite.execute("COMMIT")
        except BaseException:
            _undo(sqlite)
            raise

    def _version(self, sqlite: sqlite3.Connection) -> int:
        (version,) = sqlite.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise Misconfigured(
                f"{self.path} was written by a newer bridge: left alone "
                f"(its schema is {version}, this bridge knows {len(_MIGRATIONS)}); upgrade this bridge"
            )
        return int(version)

    def _here_now(self) -> "_Here":
        if self._here.process != os.getpid():
            self._here = _Here()
        return self._here

    def _drop(self) -> None:
        local = self._here_now().local
        known, local.connection = local.connection, None
        if known is not None:
            known.close()

    def _unavailable(self, remedy: str, *, said: str = "") -> Unavailable:
        return Unavailable(
            f"the database {self.path} cannot be used: {remedy}" + (f" ({said[:200]})" if said else "")
        )


class _Connection:
    """A connection that is closed when its thread has ended."""

    def __init__(self, sqlite: sqlite3.Connection, file: tuple[int, int]) -> None:
        self.sqlite = sqlite
        self.file = file
        self._process = os.getpid()

    def close(self) -> None:
        if self._process == os.getpid():
            with suppress(sqlite3.Error):
                self.sqlite.close()

    def __del__(self) -> None:
        if self._process != os.getpid():
            _inherited.append(self.sqlite)
        self.close()


class _ThisThread(threading.local):
    connection: _Connection | None = None


class _Here:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.local = _ThisThread()
        self.connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        # SQLite lets waiting writers poll, and one may starve; threads of one process queue here instead.
        self.turn = threading.Lock()


def _switch_to_wal(sqlite: sqlite3.Connection, timeout_seconds: float) -> None:
    # The switch does not wait for others that are switching too (SQLite calls no busy handler for it).
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            sqlite.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _undo(sqlite: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        if sqlite.in_transaction:
            sqlite.execute("ROLLBACK")


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")
