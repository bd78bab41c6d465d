"""Probes and metrics of a process that serves nothing else: `/healthz`, `/readyz`, `/metrics`."""

import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, exposition

from bridge.core.metrics import Value
from bridge.errors import BadSettings
from bridge.web.families import Families

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_REQUEST_SECONDS = 10.0
_Check = Callable[[], str]
"""Empty: it is well; else the reason why not, without anything secret."""


class Probes:
    """An HTTP server in threads of its own.

    Args:
        host: where to listen.
        port: 0 takes a free one; `port` says which. Raises BadSettings if it cannot be had.
        alive: whether the process still does its work; else it is to be restarted.
        ready: whether it can do its work now.
        values: the metrics by their names (core.metrics); asked at each scrape.

    """

    def __init__(
        self, host: str, port: int, *, alive: _Check, ready: _Check, values: Callable[[], Mapping[str, Value]]
    ) -> None:
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._registry = CollectorRegistry()
        self._registry.register(Families(values))
        try:
            self._server = make_server(host, port, self._answer, _Server, _Handler)
        except OSError as exc:
            raise BadSettings(
                f"BRIDGE_CONTROLLER_PORT: cannot listen on {host}:{port} ({exc.strerror}); choose another port"
            ) from exc
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            encode, kind = exposition.choose_encoder(environ.get("HTTP_ACCEPT", ""))
            return _respond(start, HTTPStatus.OK, encode(self._registry), kind)
        check = self._checks.get(path)
        if check is None:
            return _respond(start, HTTPStatus.NOT_FOUND, b"not found\n")
        why = check()
        status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        return _respond(start, status, f"{why or 'ok'}\n".encode())


def _respond(
    start: "StartResponse", status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, *_args: object) -> None:
        """Probes come every few seconds: not a line each."""
