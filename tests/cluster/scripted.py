"""A server that answers what a test tells it to, byte for byte, and counts what it was asked."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bridge.cluster.api import Api
from bridge.cluster.connections import Connection

Answer = bytes | Callable[[socket.socket], object]


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    """A whole answer; a body that is no bytes is sent as JSON. `Retry_After="1"` is a header."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    lines = [f"HTTP/1.1 {status} Said", "Connection: close", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def chunked(*chunks: bytes, complete: bool = True) -> bytes:
    """An answer in chunks; an incomplete one breaks off."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + (b"0\r\n\r\n" if complete else b"")


def trickle(chunk: bytes, *, times: int = 10_000) -> Callable[[socket.socket], None]:
    """The same bytes again and again, with short pauses, until the other side leaves."""

    def send(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(times):
                client.sendall(chunk)
                time.sleep(0.02)

    return send


class Scripted:
    """Give it answers; each request takes the next one, and the last one stays. `asked` holds `VERB path` of each."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def will(self, *answers: Answer) -> "Scripted":
        self.answers = list(answers)
        return self

    def api(self, **patience: Any) -> Api:
        return Api(Connection(server=self.url), **{"timeout_seconds": 30.0, **patience})

    def close(self) -> None:
        # Closing alone does not wake up who accepts.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(30)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            request = _request(client)
            if not request:
                return
            self.asked.append(" ".join(request.split(" ", 2)[:2]))
            said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(said):
                said(client)
                return
            client.sendall(said)


def _request(client: socket.socket) -> str:
    content = b""
    while b"\r\n\r\n" not in content:
        more = client.recv(65536)
        if not more:
            return ""
        content += more
    head, _, body = content.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0:
        missing -= len(client.recv(65536))
    return head.decode()


@contextlib.contextmanager
def scripted() -> Iterator[Scripted]:
    """A server for a `with` block."""
    server = Scripted()
    try:
        yield server
    finally:
        server.close()
