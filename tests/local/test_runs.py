import contextlib
import gc
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.records import MAX_RECORD_BYTES
from bridge.errors import BridgeError, Misconfigured, NotFound, TooLarge, Unavailable
from bridge.local.runs import SqliteRuns
from bridge.ports import RunFilter
from tests.fakes import some_event, some_run

_ROOT = Path(__file__).parents[2]

_PRELUDE = """
import ctypes, functools, os, resource, sys
from pathlib import Path
from bridge.core.runs import Act, Kind, with_act
from bridge.errors import BridgeError, Unavailable
from bridge.local.runs import SqliteRuns
from bridge.ports import RunFilter
from tests.fakes import some_run

def say(*words):
    print(*words, flush=True)

runs = SqliteRuns(Path(sys.argv[1]))
"""


def _started(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + code, *map(str, arguments)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _lines_of(code, *arguments):
    with _started(code, *arguments) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return said.splitlines()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bridge.db"


@pytest.fixture
def runs(path):
    store = SqliteRuns(path)
    yield store
    store.close()


def _execute(path, statement, *values):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_processes_that_make_the_file_and_change_one_record_at_once_lose_nothing(runs, path):
    code = """
say("ready")
sys.stdin.readline()
worker = sys.argv[2]
say(runs.create(some_run("shared"), worker.encode()).duplicate)
for n in range(15):
    runs.change("shared", functools.partial(with_act, act=Act(Kind.RETRY, f"{worker}-{n}", 1)))
    runs.create(some_run(f"own-{worker}-{n}"), b"{}")
"""
    processes = [_started(code, path, worker) for worker in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    assert not path.exists()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(answers) == ["False", "True", "True", "True"]
    expected = {f"{worker}-{n}" for worker in range(4) for n in range(15)}
    assert {act.request for act in runs.read("shared").acts} == expected
    assert {run.id for run in runs.list(RunFilter())} == {"shared"} | {f"own-{one}" for one in expected}
    assert runs.payload("shared").decode() == str(answers.index("False"))


def test_what_was_answered_is_there_after_sigkill(runs, path):
    code = """
for n in range(100_000):
    run = runs.create(some_run(f"{sys.argv[2]}-{n}"), os.urandom(3000)).run
    say(run.id)
    runs.change(run.id, functools.partial(with_act, act=Act(Kind.RETRY, "r", 1)))
"""
    for turn in range(3):
        process = _started(code, path, turn)
        answered = [process.stdout.readline().strip() for _ in range(20 + turn)]
        process.kill()
        answered += process.stdout.read().splitlines()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        for run_id in answered:
            assert runs.read(run_id).id == run_id
            assert len(runs.payload(run_id)) == 3000
    stored = runs.list(RunFilter())
    assert all(len(runs.payload(run.id)) == 3000 for run in stored)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_disk_that_takes_no_more_is_unavailable_and_what_was_answered_stays(runs, path):
    code = """
runs.create(some_run("first"), b"{}")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for n in range(10_000):
    try:
        runs.create(some_run(f"r{n}"), os.urandom(20_000))
    except Unavailable as exc:
        say("refused", exc)
        break
    say(f"r{n}")
try:
    runs.change("first", functools.partial(with_act, act=Act(Kind.RETRY, "x" * 200_000, 1)))
    runs.change("first", functools.partial(with_act, act=Act(Kind.RETRY, "y" * 200_000, 1)))
    say("changed")
except Unavailable as exc:
    say("unchanged")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
say("again", runs.create(some_run("later"), b"{}").duplicate)
"""
    *answered, refusal, changed, again = _lines_of(code, path)
    assert refusal.startswith(f"refused the database {path} cannot be used: the disk")
    assert changed == "unchanged"
    assert again == "again False"
    assert answered
    for run_id in answered:
        assert len(runs.payload(run_id)) == 20_000
    with pytest.raises(NotFound):
        runs.read(f"r{len(answered)}")


def test_a_full_disk_is_unavailable_and_says_so(runs):
    runs.create(some_run("r1"), b"{}")
    with runs.database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(Unavailable, match="the disk is full; make room on it"):
        runs.create(some_run("r2"), random.Random(1).randbytes(50_000))
    assert [run.id for run in runs.list(RunFilter())] == ["r1"]
    with runs.database.reading() as connection:
        connection.execute("PRAGMA max_page_count=100000")
    assert not runs.create(some_run("r2"), b"{}").duplicate


def test_a_file_that_may_not_be_written_is_unavailable_but_can_be_read(runs, path):
    runs.create(some_run("r1"), b"{}")
    code = """
# Root may write everywhere as long as it has its capabilities.
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0
for act in (
    lambda: runs.create(some_run("r2"), b"{}"),
    lambda: runs.change("r1", functools.partial(with_act, act=Act(Kind.RETRY, "r", 1))),
    lambda: runs.forget("r1"),
):
    try:
        act()
        say("done")
    except Unavailable as exc:
        say(exc)
say([run.id for run in runs.list(RunFilter())])
"""
    path.chmod(0o400)
    try:
        *refusals, seen = _lines_of(code, path)
    finally:
        path.chmod(0o600)
    for refusal in refusals:
        assert refusal.startswith(f"the database {path} cannot be used: it may not be written; give this user")
    assert len(refusals) == 3
    assert seen == "['r1']"


def test_a_folder_that_may_not_be_written_is_unavailable(tmp_path):
    code = """
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0
try:
    runs.create(some_run("r2"), b"{}")
except Unavailable as exc:
    say(exc)
"""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    for path in (folder / "bridge.db", folder / "deep" / "bridge.db"):
        (refusal,) = _lines_of(code, path)
        assert "cannot be used: it cannot be made; check that this user may write there" in refusal
    folder.chmod(0o700)


@pytest.mark.parametrize("use", ["read", "list", "create", "change", "forget"])
@pytest.mark.parametrize("what", ["folder", "text", "cut", "nowhere"])
def test_a_file_that_is_no_database_is_unavailable(tmp_path, what, use):
    path = tmp_path / "bridge.db"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("This is a diary. " * 500)
    elif what == "cut":
        store = SqliteRuns(path)
        store.create(some_run("r1"), random.Random(1).randbytes(60_000))
        store.close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 20_000)
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "bridge.db"
    store = SqliteRuns(path)
    uses = {
        "read": lambda: store.read("r1"),
        "list": lambda: store.list(RunFilter()),
        "create": lambda: store.create(some_run("r1"), b"{}"),
        "change": lambda: store.change("r1", lambda run: run),
        "forget": lambda: store.forget("r1"),
    }
    with pytest.raises(Unavailable, match="cannot be used: ") as caught:
        uses[use]()
    assert "sqlite3" not in str(caught.value)
    store.close()


def test_a_file_that_is_locked_for_too_long_is_unavailable(runs, path):
    runs.create(some_run("r1"), b"{}")
    impatient = SqliteRuns(path, busy_timeout_seconds=0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process holds it for too long"):
            impatient.create(some_run("r2"), b"{}")
        assert impatient.read("r1").id == "r1"
        other.execute("ROLLBACK")
    assert not impatient.create(some_run("r2"), b"{}").duplicate
    impatient.close()


def test_a_thread_that_holds_its_turn_for_too_long_is_unavailable_to_others(path):
    impatient = SqliteRuns(path, busy_timeout_seconds=0.05)
    impatient.create(some_run("r1"), b"{}")
    refused = []

    def create():
        with pytest.raises(Unavailable, match="another thread holds it") as caught:
            impatient.create(some_run("r2"), b"{}")
        refused.append(caught.value)

    def change(run):
        thread = threading.Thread(target=create)
        thread.start()
        thread.join(60)
        return run

    impatient.change("r1", change)
    assert len(refused) == 1
    impatient.close()


def test_a_step_does_not_make_a_file_where_there_is_none(path):
    with pytest.raises(Unavailable, match="it is not there"):
        SqliteRuns(path, create=False).read("r1")
    assert not path.exists()


def test_opening_touches_nothing_and_the_file_is_for_its_owner_only(runs, path):
    assert not path.exists()
    runs.create(some_run("r1"), b"{}")
    assert {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {
        "bridge.db": 0o600,
        "bridge.db-wal": 0o600,
        "bridge.db-shm": 0o600,
    }


def test_what_is_committed_is_on_the_disk(runs):
    with runs.database.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)


@pytest.mark.parametrize(
    ("column", "damage", "reason"),
    [
        ("event", "{", "event: it is no JSON"),
        ("event", b"\xff\xfe", "event: it is no JSON"),
        ("state", '{"schema":1,"steps":3}', "state.steps: it is no list"),
        ("acts", b"\x00\x01", "acts: it is no JSON"),
        ("acts", '{"schema":3}', "acts was written by a newer bridge: left alone"),
        ("phase", "asleep", "phase: it is none of"),
        ("verdict", 7, "verdict: it is none of"),
        ("accepted", "yesterday", "accepted: it is no number"),
        ("version", "x", "version: it is no whole number"),
    ],
    ids=range(9),
)
def test_a_damaged_record_is_set_aside_by_lists_and_refused_by_reads(runs, path, column, damage, reason):
    before = runs.create(some_run("bad"), b"{}").run
    runs.create(some_run("good"), b"{}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (whole,) = connection.execute(f"SELECT {column} FROM runs WHERE id = 'bad'").fetchone()  # noqa: S608
    if isinstance(damage, bytes):
        _execute(path, f"UPDATE runs SET {column} = CAST(? AS TEXT) WHERE id = 'bad'", damage)  # noqa: S608
    else:
        _execute(path, f"UPDATE runs SET {column} = ? WHERE id = 'bad'", damage)  # noqa: S608

    assert [run.id for run in runs.list(RunFilter())] == ["good"]
    assert [run.id for run in runs.list(RunFilter(limit=1))] == ["good"]
    ((run_id, why),) = runs.damaged()
    assert run_id == "bad"
    assert reason in why
    for use in (
        lambda: runs.read("bad"),
        lambda: runs.change("bad", lambda run: replace(run, reason="x")),
        lambda: runs.create(some_run("bad"), b"{}"),
    ):
        with pytest.raises(Misconfigured, match="run bad: ") as caught:
            use()
        assert reason in str(caught.value)
    assert runs.payload("bad") == b"{}"

    _execute(path, f"UPDATE runs SET {column} = ? WHERE id = 'bad'", whole)  # noqa: S608
    assert runs.read("bad") == before
    assert len(runs.list(RunFilter())) == 2
    assert runs.damaged() == []


def test_a_damaged_record_can_be_forgotten(runs, path):
    runs.create(some_run("bad"), b"{}")
    _execute(path, "UPDATE runs SET state = 'x'")
    runs.list(RunFilter())
    runs.forget("bad")
    assert runs.damaged() == []
    assert not runs.create(some_run("bad"), b"{}").duplicate


@pytest.mark.parametrize("damage", [b"", b"plain", "text", 7], ids=["none", "plain", "text", "number"])
def test_a_damaged_payload_is_refused(runs, path, damage):
    runs.create(some_run("r1"), b"{}")
    _execute(path, "UPDATE payloads SET packed = ?", damage)
    with pytest.raises(Misconfigured, match="run r1: the record is damaged: payload"):
        runs.payload("r1")


def test_a_file_of_a_newer_bridge_is_left_alone(runs, path):
    runs.create(some_run("r1"), b"{}")
    runs.close()
    _execute(path, "PRAGMA user_version = 99")
    with pytest.raises(Misconfigured, match="written by a newer bridge: left alone"):
        runs.read("r1")


def test_lists_filter_the_runs_of_a_file_that_an_older_bridge_wrote(runs, path):
    event = some_event(branch="next", delivery="d9", short_title="The Größe", payload=b"")
    runs.create(some_run("r1", event=event), b"{}")
    runs.create(some_run("bad"), b"{}")
    runs.close()
    _execute(path, "UPDATE runs SET event = 'nonsense' WHERE id = 'bad'")
    for index in ("runs_by_branch", "runs_by_delivery", "runs_by_verdict", "runs_owing"):
        _execute(path, f"DROP INDEX {index}")
    for column in ("branch", "delivery", "searched", "owes"):
        _execute(path, f"ALTER TABLE runs DROP COLUMN {column}")
    _execute(path, "PRAGMA user_version = 1")
    for wanted in (RunFilter(branch="next"), RunFilter(delivery="d9"), RunFilter(search="größe")):
        assert [run.id for run in runs.list(wanted)] == ["r1"]
    assert [run_id for run_id, _ in runs.damaged()] == []
    assert [run.id for run in runs.list(RunFilter())] == ["r1"]
    assert [run_id for run_id, _ in runs.damaged()] == ["bad"]


def test_a_payload_that_no_world_could_keep_is_too_large_and_not_stored(runs):
    payload = random.Random(1).randbytes(MAX_RECORD_BYTES)
    with pytest.raises(TooLarge):
        runs.create(some_run("r1"), payload)
    assert runs.list(RunFilter()) == []
    assert not runs.create(some_run("r1"), b"x" * 1_000_000).duplicate


def test_a_file_that_was_replaced_is_opened_anew(runs, path, tmp_path):
    runs.create(some_run("r1"), b"{}")
    for one in list(tmp_path.iterdir()):
        one.unlink()
    assert runs.list(RunFilter()) == []
    assert not runs.create(some_run("r2"), b"{}").duplicate
    with contextlib.closing(SqliteRuns(path)) as other:
        assert [run.id for run in other.list(RunFilter())] == ["r2"]


def test_a_fork_has_connections_of_its_own(path):
    code = """
runs.create(some_run("r1"), b"{}")
ours = runs.database._here
child = os.fork()
if child == 0:
    runs.change("r1", functools.partial(with_act, act=Act(Kind.RETRY, "child", 1)))
    os._exit(0 if runs.database._here is not ours else 1)
runs.change("r1", functools.partial(with_act, act=Act(Kind.RETRY, "parent", 1)))
_, status = os.waitpid(child, 0)
say(status, sorted(act.request for act in runs.read("r1").acts))
"""
    assert _lines_of(code, path) == ["0 ['child', 'parent']"]


def test_the_connection_of_a_thread_ends_with_it(runs):
    runs.create(some_run("r1"), b"{}")
    for _ in range(20):
        thread = threading.Thread(target=runs.read, args=("r1",))
        thread.start()
        thread.join(60)
    gc.collect()
    ours = [
        one
        for one in Path("/proc/self/fd").iterdir()
        if one.is_symlink() and _target(one) == str(runs.database.path)
    ]
    assert len(ours) <= 2


def _target(link):
    try:
        return str(link.readlink())
    except OSError:
        return ""


@pytest.mark.parametrize(
    "run_id", ["", "no\x00thing", "\udcff", "x" * 10_000, "'; DROP TABLE runs; --"], ids=range(5)
)
def test_whatever_the_id_only_bridge_errors_are_raised(runs, run_id):
    for use in (runs.read, runs.payload, lambda one: runs.change(one, lambda run: run)):
        with pytest.raises(NotFound):
            use(run_id)
    with contextlib.suppress(BridgeError):
        runs.create(some_run(run_id), b"{}")
        runs.forget(run_id)


def test_opening_the_records_imports_nothing_heavy():
    heavy = "hera flask pydantic pydantic_settings rich typer yaml structlog"
    code = f"import sys, bridge.local.runs; print([m for m in '{heavy}'.split() if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
