"""A WSGI app on a real port: the gateway over fakes, or answers that were written down."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(app):
    """The address of `app`, which is served until the block ends."""
    server = make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict
    body: bytes


@dataclass
class Recorded:
    """Answers written down, one after the other for each path; the last one is repeated. All else is 404."""

    answers: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def answer(self, path, content, *, status="200 OK", **headers):
        """Answer `path` with this, after what was told before."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.answers.setdefault(path, []).append((status, body, named))
        return self

    def problem(self, path, status, detail, **headers):
        """Answer `path` with problem details."""
        return self.answer(path, {"title": status, "detail": detail}, status=status, **headers)

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        headers = {
            name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.asked.append(Asked(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], headers, body))
        known = self.answers.get(path, [("404 Not Found", b'{"detail": "there is no such run"}', [])])
        status, content, named = known.pop(0) if len(known) > 1 else known[0]
        start_response(status, list({"Content-Length": str(len(content)), **dict(named)}.items()))
        return [content]
