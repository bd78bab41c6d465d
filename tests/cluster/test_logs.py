"""A place in a log: whole and without repeats, however the reads are cut."""

import random

import pytest

from bridge.cluster.api import Refused
from bridge.cluster.logs import LOG_BYTES, ContainerLogs, LogCursor
from bridge.errors import NotFound, Unavailable
from tests.cluster.apis import api_of
from tests.cluster.kubelet import Fault

T = 1_800_000_000


def stamped(*lines):
    """Lines as a kubelet sends them: `(seconds, text)`."""
    return b"".join(
        f"{stamp(at)} {text}\n".encode() if isinstance(text, str) else stamp(at).encode() + b" " + text
        for at, text in lines
    )


def stamp(at):
    from datetime import UTC, datetime

    whole, part = divmod(at, 1)
    return f"{datetime.fromtimestamp(T + whole, UTC):%Y-%m-%dT%H:%M:%S}.{round(part * 1e9):09d}Z"


def read(cursor, data, *, sizes=(7,)):
    cursor.begin()
    found = b""
    place, turn = 0, 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        found += cursor.feed(data[place : place + size])
        place, turn = place + size, turn + 1
    return found


def since(cursor, lines):
    """What a kubelet answers from where the cursor wants to go on."""
    if not cursor.since:
        return lines
    return [line for line in lines if f"{stamp(line[0])[:19]}Z" >= cursor.since]


def test_a_log_is_its_text():
    cursor = LogCursor()
    assert read(cursor, stamped((0, "one"), (0.5, ""), (3, "  two "))) == b"one\n\n  two \n"
    assert cursor.position == len(b"one\n\n  two \n")
    assert cursor.ends_with(stamped((3, b"  two ")))
    assert not cursor.ends_with(stamped((4, b"  two ")))
    assert cursor.since == f"{stamp(2)[:19]}Z"


def test_a_second_read_brings_what_is_new():
    cursor = LogCursor()
    lines = [(0, "a"), (0, "a"), (0.1, "b"), (1, "c"), (1, "c")]
    assert read(cursor, stamped(*lines)) == b"a\na\nb\nc\nc\n"
    assert read(cursor, stamped(*since(cursor, lines))) == b""
    lines += [(1, "c"), (2.5, "d")]
    assert read(cursor, stamped(*since(cursor, lines))) == b"c\nd\n"
    assert cursor.ends_with(stamped((2.5, b"d")))


def test_a_read_that_begins_too_early_repeats_nothing():
    cursor = LogCursor()
    lines = [(0, "a"), (5, "b"), (9, "c")]
    read(cursor, stamped(*lines))
    assert read(cursor, stamped(*lines, (9.5, "d"))) == b"d\n"


def test_a_read_that_was_cut_before_what_is_known_forgets_nothing():
    cursor = LogCursor()
    lines = [(0, "a"), (0.1, "b")]
    read(cursor, stamped(*lines))
    assert read(cursor, stamped(lines[0])) == b""
    assert read(cursor, stamped(*lines, (0.2, "c"))) == b"c\n"


def test_of_a_very_long_last_line_its_last_part_is_known():
    cursor = LogCursor()
    read(cursor, stamped((0, b"x" * 20_000 + b"y" * 9_000), (1, b"")))
    assert not cursor.ends_with(stamped((0.5, b"y" * 9_000)))
    cursor = LogCursor()
    read(cursor, stamped((0, b"x" * 20_000 + b"y" * 9_000)) + b"\n")
    assert cursor.ends_with(stamped((0.5, b"y" * 9_000)))
    assert not cursor.ends_with(stamped((0.5, b"y" * 5)))


def test_half_a_line_counts_when_it_is_whole():
    cursor = LogCursor()
    assert read(cursor, stamped((0, "one"), (1, b"tw"))) == b"one\n"
    assert read(cursor, stamped((0, "one"), (1, "two"))) == b"two\n"


def test_a_last_line_without_an_end_is_told_at_the_end():
    cursor = LogCursor()
    assert read(cursor, stamped((0, "one"), (1, b"two"))) == b"one\n"
    assert read(cursor, stamped((0, "one"), (1, b"two"))) == b""
    assert cursor.finish() == b"two"
    assert cursor.finish() == b""
    assert read(cursor, stamped((0, "one"), (1, b"two"))) == b""
    assert cursor.finish() == b""


def test_what_the_kubelet_says_instead_of_a_log_is_no_log():
    cursor = LogCursor()
    words = b"unable to retrieve container logs for containerd://0123"
    assert read(cursor, stamped((0, "one")) + words + b"\n") == b"one\n"
    assert cursor.strange == 1


def test_lines_of_another_time_zone_and_of_two_streams_out_of_order_are_kept():
    cursor = LogCursor()
    lines = stamped((10.0001, "err"), (9.9999, "out"))
    zoned = b"2027-01-15T10:00:11.5+02:00 zoned\n"
    assert read(cursor, lines + zoned) == b"err\nout\nzoned\n"
    assert read(cursor, lines + zoned) == b""


@pytest.mark.parametrize("seed", range(30))
def test_however_it_is_cut_the_text_comes_once_and_whole(seed):
    chance = random.Random(seed)
    lines, at = [], 0.0
    for number in range(60):
        at += chance.choice([0, 0, 0.000001, 0.3, 1.7])
        lines.append((at, chance.choice(["", "same", f"line {number}"])))
    text = b"".join(f"{line}\n".encode() for _, line in lines)
    cursor, found, shown = LogCursor(), b"", 0
    for _ in range(200):
        shown = min(len(lines), shown + chance.randrange(5))
        data = stamped(*since(cursor, lines[:shown]))
        early = chance.randrange(3) == 0
        data = stamped(*lines[:shown]) if early else data
        cut = data[: chance.randrange(len(data) + 1)] if chance.randrange(2) else data
        found += read(cursor, cut, sizes=(chance.randrange(1, 40),))
        assert text.startswith(found)
    found += read(cursor, stamped(*since(cursor, lines)))
    assert found == text
    assert cursor.position == len(text)


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def logs(api, namespace):
    return ContainerLogs(api, namespace)


@pytest.fixture
def said(admin, kubelet, namespace):
    """A pod's log, which the test writes."""
    kubelet.create_pod(admin, namespace, "worker")
    return kubelet.log(namespace, "worker", "main")


def follow(logs, cursor):
    found = b""
    while True:
        piece = logs.piece("worker", "main", cursor)
        found += piece.text
        if not piece.text and logs.is_whole("worker", "main", cursor):
            return found


def test_a_log_on_a_real_api_server_is_read_on_from_where_one_was(logs, said):
    cursor = LogCursor()
    said.write("one", "two")
    assert logs.piece("worker", "main", cursor).text == b"one\ntwo\n"
    assert logs.piece("worker", "main", cursor).text == b""
    said.write("three")
    assert logs.piece("worker", "main", cursor).text == b"three\n"
    assert "sinceTime" in said.asked[-1]
    assert "sinceTime" not in said.asked[0]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=3, then="cut"),
        Fault(after=3, then="cut", torn=True),
        Fault(after=3, then="close"),
        Fault(after=0, then="close"),
        Fault(after=0, then="cut"),
        Fault(repeat=7),
    ],
    ids=["cut", "torn", "closed", "closed-at-once", "cut-at-once", "repeated"],
)
def test_whatever_breaks_the_log_comes_once_and_whole(logs, said, fault):
    cursor = LogCursor()
    said.write(*(f"line {number}" for number in range(5)))
    first = follow(logs, cursor)
    said.write(*(f"line {number}" for number in range(5, 12)))
    said.end()
    said.next(fault, fault)
    found = first + follow(logs, cursor) + follow(logs, cursor)
    assert found.decode().split("\n") == [*(f"line {number}" for number in range(12)), ""]


@pytest.mark.parametrize("after", range(4))
def test_the_log_of_an_ended_container_is_whole_although_its_end_looked_like_one(logs, said, after):
    """kubelet → API server was cut: what is seen is a good answer, too short."""
    said.write("one", "two", "[brigade:app] no-after: fired")
    said.end()
    said.next(Fault(after=after, then="close"))
    assert logs.whole("worker", "main").endswith(b"no-after: fired\n")


def test_a_log_that_is_always_cut_at_the_same_place_is_not_called_whole(logs, said):
    said.write("one", "two", "three", at=T)
    said.end()
    cut = Fault(after=1, then="cut", torn=True)
    said.next(*(fault for _ in range(20) for fault in (cut, Fault())))
    with pytest.raises(Unavailable, match="cut short"):
        logs.whole("worker", "main")


def test_an_empty_log_of_an_ended_container_is_empty(logs, said):
    said.end()
    assert logs.whole("worker", "main") == b""
    assert len(said.asked) > 2


def test_of_a_long_log_the_end_is_kept(logs, said):
    line = "x" * 9_999
    said.write(*(line for _ in range(LOG_BYTES // 10_000 + 10)), "the end")
    said.end()
    found = logs.whole("worker", "main")
    assert len(found) == LOG_BYTES
    assert found.endswith(b"x\nthe end\n")


def test_no_pod_no_log_and_a_refusal_are_told_apart(logs, said):
    with pytest.raises(NotFound):
        logs.whole("nobody", "main")
    said.next(Fault(status=400, message="container is waiting to start"))
    with pytest.raises(Refused):
        logs.piece("worker", "main", LogCursor())
    said.next(Fault(status=500, message="the kubelet is in trouble"))
    with pytest.raises(Unavailable):
        logs.piece("worker", "main", LogCursor())


def test_the_kubelets_words_in_place_of_a_log_are_none():
    from tests.cluster.scripted import chunked, scripted

    with scripted() as server:
        server.will(chunked(b"unable to retrieve container logs for containerd://0123\n"))
        assert ContainerLogs(server.api(), "default").whole("worker", "main") is None
