"""A request goes out in one piece, and one that cannot be sent leaves nothing of itself behind."""

import socket
import threading

import pytest
import urllib3

from bridge.cluster.whole_requests import WholeHTTPConnectionPool

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LARGE = b"x" * 300_000


@pytest.fixture
def server():
    """Answers each connection's requests; keeps what the first read of each brought."""
    pieces = []
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listening.accept()
        with connection:
            while piece := connection.recv(1 << 20):
                pieces.append(piece)
                head, _, body = piece.partition(b"\r\n\r\n")
                length = next(
                    (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0
                )
                while len(body) < length:
                    body += connection.recv(1 << 20)
                connection.sendall(ANSWER)

    thread = threading.Thread(target=answer)
    thread.start()
    yield listening.getsockname()[1], pieces
    thread.join(60)
    listening.close()


def ask(pool, **request):
    return pool.urlopen("POST", "/", retries=False, timeout=urllib3.Timeout(60), **request)


def test_headers_and_body_arrive_together_also_on_a_kept_connection(server):
    port, pieces = server
    with WholeHTTPConnectionPool("127.0.0.1", port, maxsize=1) as pool:
        for number in range(3):
            assert ask(pool, body=b"number %d" % number).data == b"{}"
        assert ask(pool, body=None).data == b"{}"
        assert ask(pool, body=LARGE).data == b"{}"
    assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces[:4]] == [
        b"number 0",
        b"number 1",
        b"number 2",
        b"",
    ]
    assert pieces[4].partition(b"\r\n\r\n")[2]


def test_a_request_that_cannot_be_written_down_sends_nothing_and_spoils_none_after_it(server):
    port, pieces = server
    with WholeHTTPConnectionPool("127.0.0.1", port, maxsize=1) as pool:
        with pytest.raises(ValueError, match="Invalid header value"):
            ask(pool, body=b"first", headers={"X-Broken": "a\nb"})
        assert ask(pool, body=b"second").data == b"{}"
    assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces] == [b"second"]
