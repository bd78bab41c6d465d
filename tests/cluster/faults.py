"""A proxy before a real API server that makes go wrong what can go wrong, by rules.

::

    with Faults(control_plane) as faults:
        api = api_of(faults.of(control_plane.admin))
        faults.when("create", "secrets", then=reset_after)              # the next one
        faults.when("patch", then=says(500), times=3, skip=1)           # three, after the first
        with faults.when("watch", "workflows", then=silent, times=None):    # all of them, in this block
            ...
        with faults.down():                                             # refused, and all that is open is reset
            ...
        faults.cut("watch")                                             # those that are open now
        faults.asked                                                    # every request, with what became of it

TLS on both sides, with the API server's own certificate: only the port is another one. Requests go through as bytes.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.cluster.client import Access
from tests.cluster.control_plane import ControlPlane

PATIENCE_SECONDS = 60
LONGEST_HOLD_SECONDS = 600
_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Asked:
    """One request, and what became of it."""

    verb: str
    """As RBAC says it: get, list, watch, create, update, patch, delete."""
    resource: str
    """`secrets`, `pods`; empty for a path of its own, such as /version."""
    subresource: str
    namespace: str
    name: str
    """Empty for a list and a create."""
    path: str
    status: int = 0
    """What the API server said; 0: nothing, or it was never asked."""
    fault: str = ""
    """What was done to it; empty: nothing."""


@dataclass
class Rule:
    """What to do to which requests. Use it in a `with` block to have it end there."""

    matches: Callable[[Asked], bool]
    then: "Fault"
    left: float
    skip: int
    used: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """It holds no longer; what it does right now goes on."""
        with self._changed:
            self.left = 0

    def await_use(self, times: int = 1) -> None:
        """Wait until it met so many requests."""
        with self._changed:
            met = self._changed.wait_for(lambda: self.used >= times, PATIENCE_SECONDS)
        assert met, f"{self.then} met {self.used} requests, not {times}, within {PATIENCE_SECONDS} s"

    def takes(self, asked: Asked) -> bool:
        """Whether it is for this one, which it counts then."""
        with self._changed:
            if self.left <= 0 or not self.matches(asked):
                return False
            if self.skip > 0:
                self.skip -= 1
                return False
            self.left -= 1
            self.used += 1
            self._changed.notify_all()
            return True


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """A request on its way. A fault calls some of these; without any the client's connection is closed."""

    def __init__(self, handler: "_Handler", asked: Asked, body: bytes) -> None:
        self._handler = handler
        self._body = body
        self.asked = asked

    def fetch(self) -> Answer:
        """Have the API server do it, and read its answer whole; the client sees nothing of that yet."""
        response = self._handler.forwarded(self._body)
        self.asked.status = response.status
        return Answer(response.status, dict(response.getheaders()), response.read())

    def send(self, answer: Answer, *, only_bytes: int | None = None) -> None:
        """Send an answer to the client, or no more than the beginning of its body."""
        self._handler.head(answer.status, answer.headers, length=len(answer.body))
        self._handler.wfile.write(answer.body if only_bytes is None else answer.body[:only_bytes])

    def stream(self) -> "Streamed":
        """Have the API server begin, and send the client the head of its answer."""
        response = self._handler.forwarded(self._body)
        self.asked.status = response.status
        self._handler.head(response.status, dict(response.getheaders()), length=None)
        return Streamed(self._handler, response)

    def reset(self) -> None:
        """Break the client's connection, as a process does that is killed."""
        self._handler.reset()

    def wait(self, seconds: float = LONGEST_HOLD_SECONDS) -> None:
        """Let time pass, while the client is there and the proxy is not closed."""
        self._handler.wait(seconds)


class Streamed:
    """An answer that is passed on as it comes."""

    def __init__(self, handler: "_Handler", response: http.client.HTTPResponse) -> None:
        self._handler = handler
        self._response = response

    def lines(self) -> Iterator[bytes]:
        """The lines of the API server's answer, each with its end."""
        rest = b""
        while chunk := self._response.read1(65536):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest

    def send(self, data: bytes) -> None:
        """Pass a piece on."""
        if data:
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self._handler.wfile.flush()

    def pass_on(self) -> None:
        """All that comes, as it comes."""
        while chunk := self._response.read1(65536):
            self.send(chunk)
        self.end()

    def end(self) -> None:
        """The proper end of an answer."""
        self._handler.wfile.write(b"0\r\n\r\n")


Fault = Callable[[Exchange], None]


def _named(fault: Fault, name: str) -> Fault:
    fault.__name__ = name
    return fault


def nothing(exchange: Exchange) -> None:
    """Pass it on, as it is."""
    query = parse_qs(urlsplit(exchange.asked.path).query)
    if exchange.asked.verb == "watch" or "true" in query.get("follow", []):
        exchange.stream().pass_on()
    else:
        exchange.send(exchange.fetch())


def reset_before(exchange: Exchange) -> None:
    """The connection breaks, and nothing was done."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """The connection breaks after it was done."""
    exchange.fetch()
    exchange.reset()


def half(exchange: Exchange) -> None:
    """It was done, and the answer breaks off in the middle."""
    answer = exchange.fetch()
    exchange.send(answer, only_bytes=len(answer.body) // 2)
    exchange.reset()


def hangs(exchange: Exchange) -> None:
    """Nothing was done and nothing comes, until the client leaves."""
    exchange.wait()


def hangs_after(exchange: Exchange) -> None:
    """It was done, and nothing comes."""
    exchange.fetch()
    exchange.wait()


def hangs_half(exchange: Exchange) -> None:
    """It was done, and nothing comes after the first half of the answer."""
    answer = exchange.fetch()
    exchange.send(answer, only_bytes=len(answer.body) // 2)
    exchange.wait()


def nonsense(exchange: Exchange) -> None:
    """It was not done, and somebody else answers: a captive portal, a proxy that is set up wrongly."""
    exchange.send(Answer(200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"))


def delayed(seconds: float) -> Fault:
    """All is well, but late."""

    def delay(exchange: Exchange) -> None:
        exchange.wait(seconds)
        nothing(exchange)

    return _named(delay, f"delayed({seconds:g})")


def says(status: int, reason: str = "", *, retry_after: int | None = None, done: bool = False) -> Fault:
    """The API server, or something before it, says no; `done`: after it was done all the same."""

    def say(exchange: Exchange) -> None:
        if done:
            exchange.fetch()
        headers = {"Content-Type": "application/json"}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        exchange.send(Answer(status, headers, json.dumps(_status(status, reason)).encode()))

    return _named(say, f"says({status}{', done' if done else ''})")


def silent(exchange: Exchange) -> None:
    """A watch begins and tells nothing."""
    exchange.stream()
    exchange.wait()


def cut_after(events: int) -> Fault:
    """A watch breaks after so many events."""

    def cut(exchange: Exchange) -> None:
        streamed = exchange.stream()
        lines = streamed.lines()
        for _ in range(events):
            streamed.send(next(lines, b""))
        exchange.reset()

    return _named(cut, f"cut_after({events})")


def error_event(code: int = 410) -> Fault:
    """A watch begins, and its first event is an error."""

    def err(exchange: Exchange) -> None:
        streamed = exchange.stream()
        event = {"type": "ERROR", "object": _status(code, "Expired" if code == http.HTTPStatus.GONE else "")}
        streamed.send(json.dumps(event).encode() + b"\n")
        streamed.end()

    return _named(err, f"error_event({code})")


NOT_DONE: dict[str, Fault] = {
    "reset before": reset_before,
    "hangs": hangs,
    "nonsense": nonsense,
    "409": says(409, "Conflict"),
    "409 AlreadyExists": says(409, "AlreadyExists"),
    "410": says(410, "Expired"),
    "429": says(429, "TooManyRequests", retry_after=1),
    "429 for long": says(429, "TooManyRequests", retry_after=40),
    "500": says(500, "InternalError"),
    "504": says(504, "Timeout"),
}
"""What may happen to any request, nothing of it done."""
DONE: dict[str, Fault] = {
    "late": delayed(0.05),
    "reset after": reset_after,
    "half an answer": half,
    "hangs after": hangs_after,
    "hangs half": hangs_half,
    "500 done": says(500, "InternalError", done=True),
    "504 done": says(504, "Timeout", done=True),
}
"""What may happen to any request after it was done."""


class Faults:
    """The proxy, of which the requests are changed by rules. Use it as a context manager."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._upstream = urlsplit(control_plane.url)
        self._client_context = ssl.create_default_context(cafile=str(control_plane.ca_file))
        self._server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server_context.load_cert_chain(control_plane.ca_file, control_plane.ca_file.with_suffix(".key"))
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._asked: list[Asked] = []
        self._handlers: set[_Handler] = set()
        self.closing = threading.Event()
        self._listening = threading.Event()
        self._listener = _bound()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._refuse()
        self._listening.set()
        self._thread.join(PATIENCE_SECONDS)
        self._listener.close()

    @property
    def url(self) -> str:
        """Where the API server is, by way of this proxy."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def of(self, access: Access) -> Access:
        """The same access, by way of this proxy."""
        return replace(access, url=self.url)

    def when(
        self,
        verb: str = "",
        resource: str = "",
        *,
        then: Fault,
        times: int | None = 1,
        skip: int = 0,
        namespace: str = "",
        name: str = "",
        where: Callable[[Asked], bool] = lambda _: True,
    ) -> Rule:
        """Do this to the next requests of this kind; an empty word fits all. The first rule that fits is taken.

        Args:
            verb: get, list, watch, create, update, patch or delete.
            resource: its plural.
            then: what to do.
            times: to how many; None: to all, until the rule's end.
            skip: so many go through before.
            namespace: in this one alone.
            name: of this object alone.
            where: what else has to hold.

        """

        def matches(asked: Asked) -> bool:
            wanted = (
                (verb, asked.verb),
                (resource, asked.resource),
                (namespace, asked.namespace),
                (name, asked.name),
            )
            return all(word in ("", found) for word, found in wanted) and where(asked)

        rule = Rule(matches, then, float("inf") if times is None else times, skip)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """All rules end."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.end()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """In this block connections are refused; those that are open are reset at its beginning."""
        self._refuse()
        try:
            yield
        finally:
            self._listen()

    def cut(self, verb: str = "", resource: str = "") -> int:
        """Break the connections of the requests of this kind that are under way, or all; how many there were."""
        with self._lock:
            found = [
                handler
                for handler in self._handlers
                if (handler.asked is None and not verb and not resource)
                or (
                    handler.asked is not None
                    and verb in ("", handler.asked.verb)
                    and resource in ("", handler.asked.resource)
                )
            ]
        for handler in found:
            handler.shut()
        return len(found)

    @property
    def asked(self) -> list[Asked]:
        """All requests so far, in the order in which they came."""
        with self._lock:
            return list(self._asked)

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._asked.clear()

    def count(self, verb: str = "", resource: str = "") -> int:
        """How many requests of this kind there were."""
        return sum(1 for one in self.asked if verb in ("", one.verb) and resource in ("", one.resource))

    def take(self, asked: Asked) -> Fault:
        """What to do to a request, which has come."""
        with self._lock:
            self._asked.append(asked)
            rules = list(self._rules)
        for rule in rules:
            if rule.takes(asked):
                asked.fault = getattr(rule.then, "__name__", repr(rule.then))
                return rule.then
        return nothing

    def upstream(self) -> http.client.HTTPSConnection:
        """A connection to the API server itself."""
        host, port = self._upstream.hostname, self._upstream.port
        assert host
        return http.client.HTTPSConnection(host, port, context=self._client_context, timeout=LONGEST_HOLD_SECONDS)

    def _listen(self) -> None:
        if not self.closing.is_set():
            self._listener.listen(512)
            self._listening.set()

    def _refuse(self) -> None:
        self._listening.clear()
        # Linux keeps the port for us meanwhile, and refuses who comes.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._listening.wait(PATIENCE_SECONDS)
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.settimeout(PATIENCE_SECONDS)
            secure = self._server_context.wrap_socket(client, server_side=True)
            secure.settimeout(LONGEST_HOLD_SECONDS)
        except OSError:
            client.close()
            return
        # OSError, HTTPException: either side left; a ValueError is what writing to a closed file raises.
        # A client that is killed right after it came leaves a socket that knows no peer.
        with contextlib.closing(secure), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            _Handler(secure, self)

    @contextlib.contextmanager
    def registered(self, handler: "_Handler") -> Iterator[None]:
        """Known as a connection that is open."""
        with self._lock:
            self._handlers.add(handler)
        try:
            yield
        finally:
            with self._lock:
                self._handlers.discard(handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def __init__(self, client: ssl.SSLSocket, faults: Faults) -> None:
        self.faults = faults
        self.asked: Asked | None = None
        self._upstream: http.client.HTTPSConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        super().__init__(client, client.getpeername(), None)  # type: ignore[arg-type]

    def handle(self) -> None:
        try:
            with self.faults.registered(self):
                super().handle()
        finally:
            if self._upstream is not None:
                self._upstream.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.asked = _asked(self.command, self.path)
        # A fault that answers nothing leaves a connection on which nothing more can be said.
        before = self.close_connection
        self.close_connection = True
        self.answered = False
        self.faults.take(self.asked)(Exchange(self, self.asked, body))
        self.wfile.flush()
        self._drop_what_is_left()
        self.close_connection = before or not self.answered
        self.asked = None

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - http.server looks for these

    def forwarded(self, body: bytes) -> http.client.HTTPResponse:
        """The beginning of the API server's answer to this request."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOPS}
        for _ in range(2):
            fresh = self._upstream is None
            self._upstream = self._upstream or self.faults.upstream()
            try:
                self._upstream.request(self.command, self.path, body or None, headers)
                self._response = self._upstream.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):
                # One that was idle may be closed; nothing was done then.
                self._upstream.close()
                self._upstream = None
                if fresh:
                    raise
            else:
                return self._response
        raise AssertionError

    def _drop_what_is_left(self) -> None:
        """A connection on which an answer was not read to its end takes no other request."""
        if self._response is not None and not self._response.isclosed() and self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        self._response = None

    def head(self, status: int, headers: Mapping[str, str], *, length: int | None) -> None:
        """Write status and headers; without a length the body comes in chunks."""
        self.answered = True
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOPS:
                self.send_header(name, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()

    def reset(self) -> None:
        """Break the connection by RST."""
        self.answered = False
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise ConnectionAbortedError

    def shut(self) -> None:
        """Break it from another thread."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
        upstream = self._upstream.sock if self._upstream else None
        if upstream is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(upstream, socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        """Until so much time has passed, the client has left, or the proxy is closed."""
        deadline = time.monotonic() + seconds
        self.connection.settimeout(0.05)
        while not self.faults.closing.is_set() and time.monotonic() < deadline:
            try:
                # A client that waits for an answer sends nothing: whatever comes is its end.
                self.connection.recv(1)
            except TimeoutError:
                continue
            raise ConnectionAbortedError
        self.connection.settimeout(LONGEST_HOLD_SECONDS)


def _asked(method: str, path: str) -> Asked:
    parts = urlsplit(path)
    words = [word for word in parts.path.split("/") if word]
    below = words[2:] if words[:1] == ["api"] else words[3:] if words[:1] == ["apis"] else []
    namespace = ""
    if below[:1] == ["namespaces"] and len(below) > 2:
        namespace, below = below[1], below[2:]
    resource, name, *sub = [*below, "", ""]
    verb = _VERBS.get(method) or ("get" if name or not resource else "list")
    if verb == "list" and {"1", "true"} & {*parse_qs(parts.query).get("watch", [])}:
        verb = "watch"
    return Asked(verb, resource, "/".join(filter(None, sub)), namespace, name, path)


def _bound() -> socket.socket:
    """A socket that has a port of its own, also while it does not listen."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as found:
            address = found.getsockname()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # By its number: of one that the kernel chose it would let go.
            listener.bind(address)
        except OSError:
            listener.close()
            continue
        return listener
    raise AssertionError("no port is free")


def _status(code: int, reason: str) -> dict[str, Any]:
    message = f"a fault of the tests says {code}"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
