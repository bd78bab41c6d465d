"""What only real gunicorn can show: its settings, its limits, and that nobody can hold its threads."""

import contextlib
import http.client
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.core.names import project_id
from bridge.ports import RunFilter
from tests.web.serving import PATIENCE_SECONDS, served
from tests.web.test_hooks import padded
from tests.web.worlds import GENERIC, PROJECT

THREADS = 2


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gunicorn")
    options = (
        "--workers",
        "2",
        "--threads",
        str(THREADS),
        "--keep-alive",
        "1",
        "--worker-class",
        "tests.web.quick.QuickWorker",
    )
    with served(folder, *options) as running:
        yield running


def answer_to(connection, request):
    """What the server answers to raw bytes until it closes; nothing if it only closes."""
    connection.sendall(request)
    return until_closed(connection)


def until_closed(connection):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            answer += piece
    return answer


def headers(length, path="/events/github"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def counted(text):
    found = re.search(r'bridge_events_total\{answer="accepted",route="github"\} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_whichever_worker_is_asked_counts_for_all(gateway):
    before = counted(gateway.get("/metrics").data.decode())
    for number in range(12):
        assert gateway.deliver(f"count-{number}")[0] == 202
    for _ in range(12):
        assert counted(gateway.get("/metrics").data.decode()) == before + 12


@pytest.mark.parametrize("chunked", [False, True])
def test_one_byte_too_many_is_answered_so_that_its_sender_can_read_it(gateway, chunked):
    body = padded(LONGEST_BODY_BYTES + 1)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    content = iter([body[:500_000], body[500_000:]]) if chunked else body
    connection.request(
        "POST",
        "/events/github",
        content,
        encode_chunked=chunked,
        headers={"Host": "localhost"} | ({"Transfer-Encoding": "chunked"} if chunked else {}),
    )
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["status"]) == (413, 413)
    connection.close()


def test_a_body_in_chunks_that_are_none_is_unreadable(gateway):
    request = b"POST /events/github HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n"
    with gateway.connect() as connection:
        assert answer_to(connection, request).startswith(b"HTTP/1.1 400")


def test_a_body_that_stops_in_the_middle_is_unreadable(gateway):
    with gateway.connect() as connection:
        connection.sendall(headers(100) + b"{")
        connection.shutdown(1)
        assert until_closed(connection).startswith(b"HTTP/1.1 400")


STARTS = [b"", b"POST /events/github HTTP/1.1\r\nHost: loc", headers(1000) + b"{"]


@pytest.mark.parametrize("start", STARTS, ids=["nothing", "half of the headers", "half of the body"])
def test_clients_that_never_finish_do_not_keep_others_out(gateway, start):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(gateway.connect()) for _ in range(2 * 2 * THREADS)]
        for connection in slow:
            connection.sendall(start)
        status, _ = gateway.deliver(f"beside-{len(start)}")
        assert status == 202
        # All of them are let go in the end, with an answer if their headers were whole.
        for connection in slow:
            answer = until_closed(connection)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_a_client_that_sends_a_byte_now_and_then_is_let_go_too(gateway):
    with gateway.connect() as connection:
        connection.sendall(headers(100_000))
        connection.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        answer = None
        while answer is None and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                connection.sendall(b" ")
                answer = connection.recv(100)
        assert answer is not None
        assert answer.startswith(b"HTTP/1.1 400")


def test_the_log_is_lines_of_json_without_the_secrets_of_paths(gateway):
    path = f"/simpleevents/v1/{project_id(PROJECT)}/{GENERIC}"
    requests = [
        headers(2, path) + b"{}",
        headers(1, path) + b"{",
        f"POST {path} HTTP/9.9\r\n\r\n".encode(),
        f"POST {path}?{'x' * 9000} HTTP/1.1\r\n\r\n".encode(),
        f"PO(ST {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET {path} HTTP/1.1\r\nbad header\r\n\r\n".encode(),
    ]
    for request in requests:
        with gateway.connect() as connection:
            answer_to(connection, request)
    lines = gateway.log.read_text().splitlines()
    assert [json.loads(line) for line in lines]
    assert GENERIC not in "\n".join(lines)


def test_a_worker_that_is_killed_is_replaced_and_what_it_stored_is_there(gateway):
    assert gateway.deliver("kept")[0] == 202
    children = [int(pid) for pid in _children(gateway.process.pid)]
    os.kill(children[0], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and len(_children(gateway.process.pid)) < 2:
        time.sleep(0.05)
    status, answer = gateway.deliver("kept")
    assert (status, [run["duplicate"] for run in answer["runs"]]) == (202, [True, True])
    assert [run.event.delivery for run in gateway.runs.list(RunFilter())].count("kept") == 2


def test_when_the_server_is_killed_its_port_is_free_at_once(tmp_path):
    with served(tmp_path) as gateway:
        workers = _children(gateway.process.pid)
        for pid in workers:  # so that none can notice by itself
            os.kill(int(pid), signal.SIGSTOP)
        gateway.process.kill()
        gateway.process.wait(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}/cwd").exists() for pid in workers):
            time.sleep(0.02)
        assert not [pid for pid in workers if Path(f"/proc/{pid}/cwd").exists()]


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
