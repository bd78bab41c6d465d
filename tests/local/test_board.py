import random
import threading

import pytest

from bridge.core.events import Revision
from bridge.core.runs import Report
from bridge.errors import StatusNotPosted
from bridge.local.board import Board, Status
from bridge.local.database import Database
from bridge.local.runs import SqliteRuns
from tests.fakes import FakeClock, some_event, some_run

_SHA = "c" * 40
_PENDING = Report("bridge/push/push", "pending", "accepted", 1)
_FAILED = Report("bridge/push/push", "failure", "lint failed; bridgectl retry push-r1", 1)


@pytest.fixture
def clock():
    return FakeClock(start=1000.0)


@pytest.fixture
def runs(tmp_path):
    store = SqliteRuns(tmp_path / "bridge.db")
    yield store
    store.close()


@pytest.fixture
def board(runs, clock):
    return Board(runs.database, now=clock.now)


def test_a_status_is_shown_until_the_next_one_of_its_context(board, clock):
    run = some_run()
    assert board.post(run, _PENDING, url="http://here/runs/push-r1") == "board"
    assert board.statuses(_SHA) == [
        Status(_SHA, "bridge/push/push", "pending", "accepted", "http://here/runs/push-r1", "push-r1", 1, 1000.0)
    ]
    clock.advance(5)
    board.post(run, _FAILED, url="")
    board.post(run, Report("bridge/other", "success", "3 steps succeeded", 2), url="")
    assert [(one.context, one.state, one.at) for one in board.statuses(_SHA)] == [
        ("bridge/other", "success", 1005.0),
        ("bridge/push/push", "failure", 1005.0),
    ]
    assert [one.state for one in board.history(_SHA)] == ["pending", "failure", "success"]


def test_repeating_a_status_adds_nothing_but_going_back_to_it_does(board, clock):
    run = some_run()
    board.post(run, _PENDING, url="")
    clock.advance(5)
    board.post(run, _PENDING, url="")
    board.post(run, _FAILED, url="")
    board.post(run, _FAILED, url="")
    board.post(run, _PENDING, url="")
    assert [one.state for one in board.history(_SHA)] == ["pending", "failure", "pending"]


def test_commits_are_kept_apart(board):
    board.post(some_run(), _FAILED, url="")
    board.post(some_run("other", event=some_event(revision=Revision("d" * 40))), _PENDING, url="")
    assert [one.state for one in board.statuses("d" * 40)] == ["pending"]
    assert [one.state for one in board.statuses(_SHA)] == ["failure"]
    assert board.statuses("\udcff") == []


def test_many_threads_that_post_the_same_status_add_one(board):
    run = some_run()
    barrier = threading.Barrier(8)

    def post():
        barrier.wait(60)
        board.post(run, _FAILED, url="")

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(board.history(_SHA)) == 1


def test_the_board_forgets_with_the_record(runs, board):
    for run_id in ("r1", "r2"):
        run = runs.create(some_run(run_id), b"{}").run
        board.post(run, Report(f"bridge/{run_id}", "success", "", 1), url="")
    runs.forget("r1")
    assert [one.run for one in board.history(_SHA)] == ["r2"]


def test_a_board_that_takes_nothing_says_that_the_status_is_not_posted(runs, board, tmp_path):
    run = some_run()
    board.post(run, _PENDING, url="")
    with runs.database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
    text = random.Random(1).randbytes(20_000).hex()
    with pytest.raises(StatusNotPosted, match=r"cannot be put on the board: .*the disk is full") as caught:
        board.post(run, Report("bridge/push/push", "error", text, 1), url="")
    assert not caught.value.permanent
    (tmp_path / "diary").write_text("This is a diary. " * 500)
    broken = Database(tmp_path / "diary")
    with pytest.raises(StatusNotPosted, match="it is no SQLite file"):
        Board(broken).post(run, _PENDING, url="")
    broken.close()
