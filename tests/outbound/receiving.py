"""A real HTTP server that does with each request what a test says, and remembers what came."""

import io
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Came:
    """One request."""

    headers: dict[str, str]
    body: bytes
    path: str


@dataclass
class Hook:
    """An endpoint on this machine; use it as a context manager.

    `script` says what happens to the next requests, one each: a status, `reset` (it was taken, and the connection is
    cut), `hang` (no answer until the end), `trickle` (an answer that never ends), or a status with headers. Then
    `otherwise`.
    """

    script: list = field(default_factory=list)
    otherwise: object = 204
    came: list[Came] = field(default_factory=list)

    def __enter__(self):
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/bridge"
        return self

    def __exit__(self, *_):
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def ids(self) -> list[str]:
        with self._lock:
            return [one.headers["webhook-id"] for one in self.came]

    def _handler(self):
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with hook._lock:
                    hook.came.append(
                        Came({name.lower(): value for name, value in self.headers.items()}, body, self.path)
                    )
                    what = hook.script.pop(0) if hook.script else hook.otherwise
                hook._answer(self, what)

            def do_GET(self):
                self.do_POST()

            def log_message(self, *_):
                """Nothing."""

        return Handler

    def _answer(self, handler, what):
        if what == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            handler.wfile = handler.rfile = io.BytesIO()
            return
        if what == "hang":
            handler.close_connection = True
            self.over.wait(60)
            return
        status, headers = what if isinstance(what, tuple) else (what, {})
        if status == "trickle":
            handler.send_response(200)
            handler.end_headers()
            handler.close_connection = True
            try:
                while not self.over.wait(0.05):
                    handler.wfile.write(b"x")
            except OSError:
                pass
            return
        handler.send_response(status)
        for name, value in {"content-length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
