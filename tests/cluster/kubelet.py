"""A Node without a machine: its kubelet endpoint is a TLS server of the tests that serves the logs that a test writes.

`GET /containerLogs/<namespace>/<pod>/<container>` knows `follow`, `timestamps`, `sinceTime` (whole seconds, as the API
server sends it), `tailLines` and `limitBytes`. What goes wrong between API server and kubelet is scripted by connection:
`log.next(Fault(after=3, then="cut"))`.
"""

import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from tests.cluster.client import ApiError, Client, path
from tests.cluster.control_plane import ControlPlane


@dataclass(frozen=True)
class Fault:
    """What happens to one connection that asks for a log.

    The answer begins `repeat` lines before the place asked for; with `status` it is only that and `message`. After `after`
    lines: `cut` breaks the connection, in the middle of the next line if `torn` and there is one; `close` ends it in good
    order though the container runs on; `stall` sends no more until `resume` or `cut` is called on the log.
    """

    after: int | None = None
    then: Literal["cut", "close", "stall"] = "cut"
    torn: bool = False
    repeat: int = 0
    status: int = 200
    message: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a container's output: when (seconds since the epoch), and the text without its end of line."""

    at: float
    text: str

    def sent(self, *, timestamps: bool) -> bytes:
        """As kubelet sends it."""
        stamp = f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z " if timestamps else ""
        return f"{stamp}{self.text}\n".encode()


class ContainerLog:
    """The output of one container, which grows as the test writes it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._ended = False
        self._faults: deque[Fault] = deque()
        self._cuts = 0
        self._resumes = 0
        self.asked: list[dict[str, str]] = []
        """The query of each connection so far."""
        self.followers = 0
        """Connections that are open now."""

    def write(self, *texts: str, at: float | None = None) -> None:
        """The container prints these lines (`at`: seconds since the epoch; now, unless said)."""
        self._tell(lambda: self._lines.extend(Line(time.time() if at is None else at, text) for text in texts))

    def end(self) -> None:
        """The container has ended: those who follow come to the end of the log."""
        self._tell(lambda: setattr(self, "_ended", True))

    def next(self, *faults: Fault) -> None:
        """What the next connections meet, one each. Without a fault a connection is served well."""
        self._tell(lambda: self._faults.extend(faults))

    def cut(self) -> None:
        """Break all connections that are open now."""
        self._tell(lambda: setattr(self, "_cuts", self._cuts + 1))

    def resume(self) -> None:
        """Stalled connections go on."""
        self._tell(lambda: setattr(self, "_resumes", self._resumes + 1))

    def _tell(self, change: Any) -> None:
        with self._changed:
            change()
            self._changed.notify_all()


class FakeKubelet:
    """A Node object and the server behind it; `node` is its name. Use as a context manager."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.node = f"node-{uuid.uuid4().hex[:8]}"
        self._admin = control_plane.admin.client()
        self._logs: dict[str, ContainerLog] = {}
        self._logs_lock = threading.Lock()
        certificate = control_plane.folder / "certificates" / "apiserver"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        self._server = _Server(context, self.log)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test"}],
        }
        self._admin.create(path("nodes"), {"metadata": {"name": self.node}, "status": status})
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shut()
        self._thread.join()
        on_this_node = f"spec.nodeName={self.node}"
        for pod in self._admin.get(path("pods"), fieldSelector=on_this_node)["items"]:
            self._remove(pod["metadata"])
        self._admin.delete(path("nodes", name=self.node))
        self._admin.close()

    def log(self, namespace: str, pod: str, container: str) -> ContainerLog:
        """The log of this container, made when first asked for; one that nobody asked for or wrote is empty."""
        with self._logs_lock:
            return self._logs.setdefault(f"/containerLogs/{namespace}/{pod}/{container}", ContainerLog())

    def create_pod(
        self,
        client: Client,
        namespace: str,
        name: str,
        *,
        container: str = "main",
        phase: str = "Running",
        **metadata: Any,
    ) -> dict[str, Any]:
        """A Pod on this node whose status says that it runs (or another phase); the stored object."""
        pod = {
            "metadata": {"name": name, **metadata},
            "spec": {
                "nodeName": self.node,
                "containers": [{"name": container, "image": "none"}],
                "tolerations": EVERY,
            },
        }
        client.create(path("pods", namespace), pod)
        return set_phase(client, namespace, name, phase)

    def _remove(self, pod: dict[str, Any]) -> None:
        # At once: nobody will say that its containers have ended, and its namespace would wait for that for ever.
        with suppress(ApiError):
            self._admin.delete(path("pods", pod["namespace"], pod["name"]), gracePeriodSeconds=0)


EVERY = [{"operator": "Exists"}]


def set_phase(
    client: Client, namespace: str, name: str, phase: str, *, exit_code: int | None = None, **status: Any
) -> dict[str, Any]:
    """Write a Pod's status as its kubelet would: phase, and the state of its containers that goes with it."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    code = exit_code if exit_code is not None else {"Succeeded": 0, "Failed": 1}.get(phase)
    if code is not None:
        state: dict[str, Any] = {"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now}}
    elif phase == "Running":
        state = {"running": {"startedAt": now}}
    else:
        state = {"waiting": {"reason": "ContainerCreating"}}
    pod = client.get(path("pods", namespace, name))
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    started = {} if phase == "Pending" else {"startTime": pod["status"].get("startTime", now)}
    written = {"phase": phase, "containerStatuses": containers, **started, **status}
    return client.patch(path("pods", namespace, name, "status"), {"status": written})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, log: Any) -> None:
        self._context = context
        self._log = log
        self.closing = False
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # The handshake waits for its turn in the handler's thread: a slow client must not hold up the others.
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def find(self, url_path: str) -> ContainerLog | None:
        match url_path.strip("/").split("/"):
            case ["containerLogs", namespace, pod, container]:
                return self._log(namespace, pod, container)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the other side went away, as it may."""

    def shut(self) -> None:
        self.closing = True
        self.shutdown()
        self.server_close()


@dataclass
class _Serving:
    """How far one connection is."""

    place: int
    fault: Fault
    cuts: int
    resumes: int
    sent: int = 0
    bytes_left: float = field(default=float("inf"))


class _Cut(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Tests print nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        log = self.server.find(url.path)
        if log is None:
            self._refuse(404, f"no such path: {url.path}")
            return
        with _following(log, query) as serving:
            if serving.fault.status != 200:
                self._refuse(serving.fault.status, serving.fault.message)
                return
            try:
                self._serve(log, query, serving)
            except _Cut:
                self._break()

    def _serve(self, log: ContainerLog, query: dict[str, str], serving: _Serving) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in self._data(log, query, serving):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _data(self, log: ContainerLog, query: dict[str, str], serving: _Serving) -> Iterator[bytes]:
        stamped = query.get("timestamps") == "true"
        while serving.bytes_left > 0:
            if serving.sent == serving.fault.after and serving.fault.then == "close":
                return
            line = self._next_line(log, serving, follow=query.get("follow") == "true")
            if line is None:
                return
            data = line.sent(timestamps=stamped)
            if serving.fault.torn and serving.sent == serving.fault.after:
                yield data[: len(data) // 2]
                raise _Cut
            data = data[: int(min(serving.bytes_left, len(data)))]
            serving.bytes_left -= len(data)
            serving.sent += 1
            yield data

    def _next_line(self, log: ContainerLog, serving: _Serving, *, follow: bool) -> Line | None:
        fault = serving.fault
        with log._changed:
            while True:
                if self.server.closing or log._cuts != serving.cuts:
                    raise _Cut
                at_fault = serving.sent == fault.after
                stalled = at_fault and fault.then == "stall" and log._resumes == serving.resumes
                more = serving.place < len(log._lines)
                if at_fault and fault.then == "cut" and not (fault.torn and more):
                    raise _Cut
                if more and not stalled:
                    serving.place += 1
                    return log._lines[serving.place - 1]
                if not stalled and (log._ended or not follow):
                    return None
                log._changed.wait(0.5)
                self._raise_if_gone()

    def _raise_if_gone(self) -> None:
        # The API server sends nothing after its request: a byte or an end that can be read means that it has left.
        self.connection.settimeout(0)
        try:
            if not self.connection.recv(1):
                raise _Cut
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError as gone:
            raise _Cut from gone
        finally:
            self.connection.settimeout(None)

    def _refuse(self, status: int, message: str) -> None:
        body = message.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        # Neither the last chunk nor TLS's farewell; what was sent before does arrive, so that tests can count on it.
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _following(log: ContainerLog, query: dict[str, str]) -> Iterator[_Serving]:
    with log._changed:
        log.asked.append(query)
        log.followers += 1
        fault = log._faults.popleft() if log._faults else Fault()
        place = max(0, _first_line(log._lines, query) - fault.repeat)
        serving = _Serving(place, fault, log._cuts, log._resumes)
    if "limitBytes" in query:
        serving.bytes_left = int(query["limitBytes"])
    try:
        yield serving
    finally:
        with log._changed:
            log.followers -= 1


def _first_line(lines: list[Line], query: dict[str, str]) -> int:
    first = 0
    if "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"]).timestamp()
        first = next((n for n, line in enumerate(lines) if line.at >= since), len(lines))
    elif "sinceSeconds" in query:
        since = time.time() - int(query["sinceSeconds"])
        first = next((n for n, line in enumerate(lines) if line.at >= since), len(lines))
    if "tailLines" in query:
        first = max(first, len(lines) - int(query["tailLines"]))
    return first
