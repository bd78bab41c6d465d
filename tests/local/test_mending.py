"""Rows of one machine that somebody damaged."""

import pytest

from bridge.core.mending import HELD, REASON
from bridge.core.runs import Phase
from bridge.core.verdicts import Verdict
from bridge.errors import Misconfigured, NotFound
from bridge.local.runs import SqliteRuns
from tests.fakes import some_event, some_run


@pytest.fixture
def runs(tmp_path):
    runs = SqliteRuns(tmp_path / "runs.db")
    runs.create(some_run("r1"), b"{}")
    yield runs
    runs.close()


def damage(runs, **columns):
    with runs.database.writing() as connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE runs SET {name} = ? WHERE id = 'r1'", (value,))  # noqa: S608


@pytest.mark.parametrize(
    "columns",
    [
        {"state": "{no json"},
        {"acts": "[]"},
        {"phase": "nonsense"},
        {"verdict": "nonsense"},
        {"closed": "yesterday"},
        {"accepted": "yesterday"},
        {"version": "new"},
        {"state": "", "acts": "", "phase": ""},
    ],
    ids=" ".join,
)
def test_whatever_part_was_damaged_the_run_has_an_attempt_that_ended(runs, columns):
    damage(runs, **columns)
    with pytest.raises(Misconfigured):
        runs.read("r1")
    assert runs.mend("r1", attempt=3, at=50.0)
    run = runs.read("r1")
    assert (run.phase, run.attempt.n, run.attempt.epoch) == (Phase.RUNNING, 3, 3)
    assert (run.attempt.verdict, run.attempt.reason, run.attempt.ended) == (Verdict.ERROR, REASON, 50.0)
    assert not run.held
    assert not runs.mend("r1", attempt=4, at=60.0)
    assert runs.read("r1") == run
    assert runs.change("r1", lambda now: now) == run


def test_a_strangers_run_is_held_again(runs):
    runs.forget("r1")
    runs.create(some_run("r1", event=some_event(fork_author="NONE", payload=b"")), b"{}")
    damage(runs, state="{")
    assert runs.mend("r1", attempt=1, at=1.0)
    assert runs.read("r1").held == HELD


def test_what_is_no_damage_is_left_alone(runs):
    with pytest.raises(NotFound):
        runs.mend("r2", attempt=1, at=1.0)
    assert not runs.mend("r1", attempt=1, at=1.0)
    damage(runs, state='{"schema": 99}')
    assert not runs.mend("r1", attempt=1, at=1.0)
    with pytest.raises(Misconfigured, match="schema"):
        runs.read("r1")


@pytest.mark.parametrize(
    "columns", [{"event": "{"}, {"state": "{", "pipeline": b"\xff"}], ids=["event", "pipeline"]
)
def test_of_what_not_even_the_event_is_left_nothing_is_written(runs, columns):
    damage(runs, **columns)
    with pytest.raises(Misconfigured):
        runs.mend("r1", attempt=1, at=1.0)
    with pytest.raises(Misconfigured):
        runs.read("r1")
