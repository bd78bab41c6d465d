"""The local board: where commit statuses go on a machine that has no credentials for a git host."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.runs import Report, Run
from bridge.core.searching import storable
from bridge.errors import BridgeError, StatusNotPosted
from bridge.local.database import Database

BOARD = "board"
"""Who acknowledges a status that is put here."""

_COLUMNS = "sha, context, state, description, url, run, attempt, at"


@dataclass(frozen=True)
class Status:
    """A commit status on the board."""

    sha: str
    context: str
    state: str
    description: str
    url: str
    run: str
    attempt: int
    at: float
    """When it was put there, seconds since the epoch."""


class Board:
    """The port Reports in the database of the records.

    It keeps a history, as a git host does, until the run is forgotten.

    Args:
        database: where the records are.
        now: the time, seconds since the epoch.

    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Put a status on the board; what its context shows already is not put there again.

        Answers `board`. Raises StatusNotPosted.
        """
        sha = storable(run.event.revision.commit)
        row = (
            sha,
            storable(report.context),
            report.state,
            storable(report.description),
            storable(url),
            storable(run.id),
            report.attempt,
        )
        try:
            with self._database.writing() as connection:
                newest = connection.execute(
                    "SELECT sha, context, state, description, url, run, attempt FROM statuses "
                    "WHERE sha = ? AND context = ? ORDER BY number DESC LIMIT 1",
                    row[:2],
                ).fetchone()
                if newest != row:
                    connection.execute(
                        f"INSERT INTO statuses ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                        (*row, self._now()),
                    )
        except BridgeError as exc:
            raise StatusNotPosted(f"the status of run {run.id} cannot be put on the board: {exc}") from exc
        return BOARD

    def statuses(self, sha: str) -> list[Status]:
        """What a commit shows: the newest status of each context, by context. Raises Unavailable."""
        newest = {status.context: status for status in self.history(sha)}
        return sorted(newest.values(), key=lambda status: status.context)

    def history(self, sha: str) -> list[Status]:
        """Every status of a commit, oldest first. Raises Unavailable."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM statuses WHERE sha = ? ORDER BY number",  # noqa: S608
                (storable(sha),),
            ).fetchall()
        return [Status(*row) for row in rows]
