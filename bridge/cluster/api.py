"""The Kubernetes API by raw calls on plain dicts: one pool of connections, explicit timeouts, translated errors.

A write is sent again only if it cannot have been done: it was refused before anybody looked at it (401 with an
old token, 429). Everything else that went wrong is for the caller, who knows whether it is idempotent.
"""

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from bridge.cluster.connections import Connection, tls_context
from bridge.cluster.patience import within_patience
from bridge.cluster.whole_requests import WholeHTTPConnectionPool, WholeHTTPSConnectionPool
from bridge.errors import Conflict, EngineError, Forbidden, Misconfigured, NotFound, Unavailable

PAGE = 500
"""Objects asked for at once; a list is fetched page by page."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_WATCH_LINE_BYTES = 16 * 1024 * 1024
"""An object of the API server is at most a few megabytes."""

_METADATA = "as={};g=meta.k8s.io;v=v1"
_CHUNK_BYTES = 64 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 300
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
_MAX_NAME = 253
_BUSY_TRIES = 3
_BUSY_SECONDS = 1.0
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_MAX_RETRY_AFTER_SECONDS = 3600.0


class AlreadyExists(Conflict):
    """A create met an object of that name."""


class Unauthorized(Forbidden):
    """The API server does not know these credentials."""


class Refused(EngineError):
    """The API server or an admission webhook calls the request wrong; sending it again does not help."""


class AskLater(Unavailable):
    """The API server is busy or away and may have said for how long."""


class Gone(Unavailable):
    """410: the resourceVersion or continue token is too old; list again from the start."""


class TooMuch(Unavailable):
    """The answer is longer than anybody wants to hold; ask for less at once."""


@dataclass(frozen=True)
class Resource:
    """A kind of objects, as paths and RBAC rules name it."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"

    def __str__(self) -> str:
        """As `kubectl` and RBAC say it: `workflows.argoproj.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The path of its collection or of one object; without a namespace that of the whole cluster."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, *subresource.split("/")) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


SECRETS = Resource("secrets", "Secret")
PODS = Resource("pods", "Pod")
CLAIMS = Resource("persistentvolumeclaims", "PersistentVolumeClaim")
WORKFLOWS = Resource("workflows", "Workflow", "argoproj.io", "v1alpha1")
WORKFLOW_TEMPLATES = Resource("workflowtemplates", "WorkflowTemplate", "argoproj.io", "v1alpha1")
LEASES = Resource("leases", "Lease", "coordination.k8s.io")


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[dict[str, Any]]
    resource_version: str
    """Of the whole list: where a watch goes on."""


@dataclass(frozen=True)
class _Ask:
    """A request, and how a message calls it."""

    verb: str
    resource: str
    namespace: str
    name: str
    method: str
    url: str
    body: bytes | None = None
    content_type: str = ""
    accept: str = "application/json"
    quotes: bool = True
    """Whether a message may quote the API server's own: not where it could repeat parts of a Secret."""

    def __str__(self) -> str:
        name = f" {self.name[:100]}" if self.name else ""
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{place}"


class Api:
    """Calls to one API server, from any thread; after a fork make another one.

    Every method raises NotFound, AlreadyExists, Conflict, Forbidden, Unauthorized, Refused, Gone, AskLater or
    another Unavailable, and Misconfigured when the token or a certificate cannot be read; nothing else.
    Each call keeps to what is left of a `patience.patience` around it.

    Args:
        connection: where it is and who we are.
        connect_timeout_seconds: until a connection stands.
        timeout_seconds: until an answer is complete, however often it was asked for again meanwhile; of a watch
            until it begins.
        pool_size: connections that are kept.

    """

    def __init__(
        self,
        connection: Connection,
        *,
        connect_timeout_seconds: float = 3.0,
        timeout_seconds: float = 10.0,
        pool_size: int = 32,
    ) -> None:
        self.connection = connection
        self._connect_timeout_seconds = connect_timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._prefix = urlsplit(connection.server).path.rstrip("/")
        self._pool = _Pool(connection, pool_size)

    def within(self, timeout_seconds: float) -> "Api":
        """The same connections with another patience."""
        other = object.__new__(Api)
        other.__dict__.update(self.__dict__)
        other._timeout_seconds = timeout_seconds
        other._connect_timeout_seconds = min(timeout_seconds, self._connect_timeout_seconds)
        return other

    def close(self) -> None:
        """Close what is idle."""
        self._pool.close()

    def get(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        subresource: str = "",
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        """One object, on a consistent read. Metadata only: `metadata` is all that it has."""
        ask = self._ask("get", resource, namespace, name, subresource=subresource, metadata_only=metadata_only)
        return self._answer(ask)

    def pages(
        self,
        resource: Resource,
        namespace: str,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        limit: int = PAGE,
    ) -> Iterator[Page]:
        """A list, page by page; every page is of the same moment. Raises Gone when that is too long ago.

        Args:
            resource: what to list.
            namespace: where; empty is the whole cluster.
            labels: a label selector.
            fields: a field selector.
            metadata_only: of each object the metadata alone.
            limit: objects in a page; fewer when they are large.

        """
        token = ""
        while True:
            query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit), "continue": token}
            ask = self._ask("list", resource, namespace, query=query, metadata_only=metadata_only)
            try:
                answer = self._answer(ask)
            except TooMuch:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            metadata, items = answer.get("metadata"), answer.get("items")
            if not isinstance(metadata, dict) or not isinstance(items, list | None):
                raise Unavailable(
                    f"{ask}: the answer is no list; check that {self.connection.server} is Kubernetes"
                )
            version = str(metadata.get("resourceVersion") or "")
            yield Page([item for item in items or [] if isinstance(item, dict)], version)
            token = metadata.get("continue") or ""
            if not token:
                return

    def create(
        self,
        resource: Resource,
        namespace: str,
        body: Mapping[str, Any],
        *,
        subresource_of: tuple[str, str] | None = None,
        metadata_only: bool = False,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create an object; answers it, or its metadata only. Raises AlreadyExists.

        `subresource_of` is (name, subresource), for what is created below another object. After Unavailable it is
        there or not.
        """
        name = str((body.get("metadata") or {}).get("name") or "")
        owner, below = subresource_of or ("", "")
        ask = self._ask(
            "create",
            resource,
            namespace,
            owner,
            subresource=below,
            shown=name,
            method="POST",
            body=body,
            query=query,
            metadata_only=metadata_only,
        )
        return self._answer(ask)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Mapping[str, Any] | list[Mapping[str, Any]],
        *,
        subresource: str = "",
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        """Change an object by a merge patch (a mapping) or a JSON patch (a list); answers it as it is then.

        A merge patch with `metadata.resourceVersion` raises Conflict if the object changed since. After
        Unavailable it is done or not.
        """
        ask = self._ask(
            "patch",
            resource,
            namespace,
            name,
            subresource=subresource,
            method="PATCH",
            body=patch,
            content_type=f"application/{'json' if isinstance(patch, list) else 'merge'}-patch+json",
            metadata_only=metadata_only,
        )
        return self._answer(ask)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> None:
        """Delete an object, if it is still that one (`uid`) in that state (`resource_version`), else Conflict."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {key: value for key, value in preconditions.items() if value},
            **({} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}),
        }
        self._answer(self._ask("delete", resource, namespace, name, method="DELETE", body=body))

    def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        timeout_seconds: float = 300.0,
        silence_seconds: float = 120.0,
    ) -> "Events":
        """What happens after `resource_version`, bookmarks included, until the server ends it.

        Args:
            resource: what to watch.
            namespace: where; empty is the whole cluster.
            resource_version: of a list or of the newest event.
            labels: a label selector.
            fields: a field selector.
            metadata_only: of each object the metadata alone.
            timeout_seconds: when the server ends it.
            silence_seconds: when we do, because nothing came, not even a bookmark.

        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(timeout_seconds)),
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        ask = self._ask("watch", resource, namespace, query=query, metadata_only=metadata_only, listed=False)
        response = self._opened(ask, self._deadline())
        # It has begun; from here on silence means that nothing happens.
        _patient(response, silence_seconds)
        return Events(Stream(response, str(ask)), str(ask))

    def stream(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        subresource: str,
        query: Mapping[str, str] | None = None,
        silence_seconds: float = 60.0,
    ) -> "Stream":
        """The bytes below an object as they come, such as a pod's log."""
        ask = self._ask("get", resource, namespace, name, subresource=subresource, query=query)
        # A log that nobody has written to yet does not even begin.
        return Stream(self._opened(ask, self._deadline(), silence_seconds=silence_seconds), str(ask))

    def at(self, path: str) -> dict[str, Any]:
        """What a path of its own answers, such as `/version`."""
        return self._answer(_Ask("get", path, "", "", "GET", f"{self._prefix}{path}"))

    def _ask(
        self,
        verb: str,
        resource: Resource,
        namespace: str,
        name: str = "",
        *,
        subresource: str = "",
        shown: str = "",
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        metadata_only: bool = False,
        listed: bool | None = None,
    ) -> _Ask:
        called = f"{resource}/{subresource}" if subresource else str(resource)
        named = bool(name) or verb in {"get", "patch", "delete"}
        if named and (len(name) > _MAX_NAME or not _NAME.fullmatch(name)):
            # Without a name a delete would be of the whole collection; dots would leave it.
            raise NotFound(f"{verb} {called}: {name[:100]!r} is no name of an object in a cluster")
        given = urlencode({key: value for key, value in (query or {}).items() if value})
        path = f"{self._prefix}{resource.path(namespace, name, subresource)}"
        kind = "PartialObjectMetadataList" if verb == "list" and listed is not False else "PartialObjectMetadata"
        return _Ask(
            verb=verb,
            resource=called,
            namespace=namespace,
            name=name or shown,
            method=method,
            url=f"{path}?{given}" if given else path,
            body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
            content_type=content_type if body is not None else "",
            accept=f"application/json;{_METADATA.format(kind)}" if metadata_only else "application/json",
            quotes=resource != SECRETS,
        )

    def _answer(self, ask: _Ask) -> dict[str, Any]:
        deadline = self._deadline()
        response = self._opened(ask, deadline)
        try:
            content = _read(response, ask, deadline=deadline)
        except HTTPError as exc:
            raise _broken(ask, exc) from exc
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise Unavailable(f"{ask}: the answer is no JSON; check that the API server answers itself") from exc
        if not isinstance(answer, dict):
            raise Unavailable(f"{ask}: the answer is no object; check that the API server answers itself")
        return answer

    def _deadline(self) -> float:
        return time.monotonic() + within_patience(self._timeout_seconds)

    def _opened(self, ask: _Ask, deadline: float, *, silence_seconds: float | None = None) -> BaseHTTPResponse:
        """The beginning of a good answer; the caller reads it or closes it. It may take until `deadline`, or
        with `silence_seconds` so long from when it was sent."""
        renewed = False
        for tries in range(1, _BUSY_TRIES + 1):
            token = self.connection.tokens.current()
            response = self._sent(ask, token, deadline, silence_seconds)
            if response.status == HTTPStatus.UNAUTHORIZED and not renewed:
                renewed = True
                if self.connection.tokens.renew(token):
                    _translated(response, ask)
                    token = self.connection.tokens.current()
                    response = self._sent(ask, token, deadline, silence_seconds)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            error = _translated(response, ask)
            # Only 429 says that nobody began.
            if response.status != HTTPStatus.TOO_MANY_REQUESTS or tries == _BUSY_TRIES:
                raise error
            pause = _pause(error)
            if time.monotonic() + pause > deadline:
                raise error
            time.sleep(pause)
        raise AssertionError

    def _sent(self, ask: _Ask, token: str, deadline: float, silence_seconds: float | None) -> BaseHTTPResponse:
        headers = {"Accept": ask.accept, "User-Agent": "brigade-argo-bridge"}
        if ask.content_type:
            headers["Content-Type"] = ask.content_type
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            return self._pool.sent(ask, headers, self._timeout(ask, deadline, silence_seconds))
        except SSLError as exc:
            # Nothing was sent. Certificates on both sides are replaced now and then.
            if not self._pool.renewed():
                raise _broken(ask, exc) from exc
        except ProtocolError as exc:
            # A connection that was idle for long is often dead. What is read may be asked for twice.
            if ask.method != "GET":
                raise _broken(ask, exc) from exc
        except HTTPError as exc:
            raise _broken(ask, exc) from exc
        try:
            return self._pool.sent(ask, headers, self._timeout(ask, deadline, silence_seconds))
        except HTTPError as exc:
            raise _broken(ask, exc) from exc

    def _timeout(self, ask: _Ask, deadline: float, silence_seconds: float | None) -> urllib3.Timeout:
        left = deadline - time.monotonic()
        if left <= 0:
            raise AskLater(f"{ask}: there was no time left for it; ask again")
        connect = min(self._connect_timeout_seconds, left)
        if silence_seconds is not None:
            return urllib3.Timeout(connect=connect, read=silence_seconds)
        return urllib3.Timeout(connect=connect, read=left, total=left)


class Stream:
    """Bytes as they come. Close it, or use it in a `with` block.

    Iterating ends when the server ended it properly or `interrupt` was called; otherwise it raises Unavailable.
    """

    def __init__(self, response: BaseHTTPResponse, called: str) -> None:
        self._response = response
        self._called = called
        self._interrupted = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        while not self._interrupted.is_set():
            try:
                chunk = self._response.read1(_CHUNK_BYTES)
            except (HTTPError, OSError, ValueError) as exc:
                if self._interrupted.is_set():
                    return
                raise AskLater(f"{self._called}: the stream broke ({_words(exc)}); ask again") from exc
            if not chunk:
                return
            yield chunk

    def interrupt(self) -> None:
        """End it from another thread, also while that one waits for bytes."""
        self._interrupted.set()
        # Closing would not wake up who reads; that it has ended by itself already is fine.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()

    def close(self) -> None:
        """Give the connection up, in the thread that reads."""
        self._interrupted.set()
        with contextlib.suppress(HTTPError, OSError, ValueError):
            self._response.close()


class Events:
    """A watch's events, as `{"type": …, "object": …}`; like Stream otherwise.

    An ERROR event is raised: Gone, or AskLater.
    """

    def __init__(self, stream: Stream, called: str) -> None:
        self._stream = stream
        self._called = called

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise AskLater(f"{self._called}: a line is no JSON; ask again") from exc
            if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
                raise AskLater(f"{self._called}: a line is no event; ask again")
            if event.get("type") == "ERROR":
                raise self._error(event["object"])
            yield event

    def interrupt(self) -> None:
        """End it from another thread."""
        self._stream.interrupt()

    def _lines(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        held = 0
        for chunk in self._stream:
            first, *others = chunk.split(b"\n")
            parts.append(first)
            held += len(first)
            if held > MAX_WATCH_LINE_BYTES:
                raise TooMuch(f"{self._called}: an event is longer than {MAX_WATCH_LINE_BYTES} bytes")
            for other in others:
                line = b"".join(parts)
                parts, held = [other], len(other)
                if line.strip():
                    yield line

    def _error(self, status: Mapping[str, Any]) -> Unavailable:
        if status.get("code") == HTTPStatus.GONE or status.get("reason") in {"Gone", "Expired"}:
            return Gone(f"{self._called}: that was too long ago; list again")
        return AskLater(f"{self._called}: the API server ended it ({_shown(status.get('message'))}); ask again")


class _Pool:
    """The connections of an Api and of those made by its `within`."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._size = size
        self._lock = threading.Lock()
        self._material = _material(connection)
        self._pool = self._made()

    def sent(self, ask: _Ask, headers: Mapping[str, str], timeout: urllib3.Timeout) -> BaseHTTPResponse:
        return self._pool.urlopen(
            ask.method,
            ask.url,
            body=ask.body,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=timeout,
            preload_content=False,
            assert_same_host=False,
        )

    def renewed(self) -> bool:
        """Whether the certificates' files hold something else than before; then they are in use now."""
        with self._lock:
            material = _material(self._connection)
            if material == self._material:
                return False
            self._material = material
            before, self._pool = self._pool, self._made()
        before.close()
        return True

    def close(self) -> None:
        self._pool.close()

    def _made(self) -> HTTPConnectionPool:
        parts = urlsplit(self._connection.server)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in {"http", "https"} or not host:
            raise Misconfigured(
                f"{self._connection.origin or 'the connection'}: the server has to be an https:// address"
            )
        options: dict[str, Any] = {"maxsize": self._size, "block": False, "socket_options": _socket_options()}
        if parts.scheme == "http":
            if self._connection.tokens.current():
                raise Misconfigured(
                    f"{self._connection.origin or 'the connection'}: a token is not sent over http://; use https://"
                )
            return WholeHTTPConnectionPool(host, port or 80, **options)
        if self._connection.server_name:
            options["server_hostname"] = self._connection.server_name
        if not self._connection.verified:
            options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
            urllib3.disable_warnings(InsecureRequestWarning)
        return WholeHTTPSConnectionPool(host, port or 443, ssl_context=tls_context(self._connection), **options)


def _material(connection: Connection) -> tuple[bytes, ...]:
    files = (connection.authority, connection.certificate, connection.key)
    try:
        return tuple(b"" if one is None else one if isinstance(one, bytes) else one.read_bytes() for one in files)
    except OSError as exc:
        raise Misconfigured(
            f"{connection.origin or connection.server}: a certificate's file cannot be read "
            f"({exc.strerror}); check its path"
        ) from exc


def _socket_options() -> list[tuple[int, int, int]]:
    """A peer that vanished without a word is noticed within a minute, also below a silent watch."""
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _read(response: BaseHTTPResponse, ask: _Ask, *, deadline: float) -> bytes:
    """The whole answer, its connection free again; given up when it is too long or takes too long."""
    parts: list[bytes] = []
    length = 0
    whole = False
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            parts.append(chunk)
            length += len(chunk)
            if length > MAX_ANSWER_BYTES:
                raise TooMuch(f"{ask}: the answer is longer than {MAX_ANSWER_BYTES} bytes; ask for less at once")
            left = deadline - time.monotonic()
            if left <= 0:
                raise AskLater(f"{ask}: the answer was not complete in time; ask again")
            _patient(response, left)
        whole = True
    finally:
        if whole:
            response.release_conn()
        else:
            response.close()
    return b"".join(parts)


def _patient(response: BaseHTTPResponse, seconds: float) -> None:
    """Wait so long for the next bytes of an answer that has begun."""
    sock = getattr(response.connection, "sock", None)
    # There is none any more when the server closes after this answer; the time that it began with stays.
    if sock is not None:
        sock.settimeout(seconds)


def _translated(response: BaseHTTPResponse, ask: _Ask) -> EngineError:
    """What an answer that is none means; its connection is free again."""
    status = _status(response)
    code = response.status
    reason = _shown(status.get("reason")) or str(code)
    said = f"{code} {reason}{_quoted(status, ask)}"
    if code == HTTPStatus.NOT_FOUND:
        return NotFound(f"{ask}: it is not there ({said}); look at its name and namespace{_crd(ask)}")
    if code == HTTPStatus.CONFLICT and status.get("reason") == "AlreadyExists":
        return AlreadyExists(f"{ask}: it is there already ({said})")
    if code == HTTPStatus.CONFLICT:
        return Conflict(f"{ask}: it changed since it was read ({said}); read it again")
    if code == HTTPStatus.UNAUTHORIZED:
        return Unauthorized(f"{ask}: the API server does not know these credentials ({said}); log in again")
    if code == HTTPStatus.FORBIDDEN:
        return Forbidden(f"{ask}: not allowed ({said}); give this account the verb {ask.verb} on {ask.resource}")
    if code == HTTPStatus.GONE:
        return Gone(f"{ask}: that was too long ago ({said}); list again")
    if code in _BUSY or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AskLater(
            f"{ask}: the API server is busy or away ({said}); ask again",
            retry_after_seconds=_retry_after(response, status),
            busy=code == HTTPStatus.TOO_MANY_REQUESTS,
        )
    if code >= HTTPStatus.BAD_REQUEST:
        return Refused(f"{ask}: the API server refused it ({said}); this is no use to repeat")
    return Unavailable(f"{ask}: the answer is {code}; check that {ask.url[:100]} is answered by Kubernetes itself")


def _status(response: BaseHTTPResponse) -> Mapping[str, Any]:
    """The answer as the API server's own Status; empty if it is none."""
    content = b""
    try:
        while len(content) < _MAX_ERROR_BYTES and (chunk := response.read1(_CHUNK_BYTES)):
            content += chunk
        if len(content) < _MAX_ERROR_BYTES:
            response.release_conn()
        else:
            response.close()
        status = json.loads(content)
    except (HTTPError, ValueError, RecursionError, OSError):
        response.close()
        return {}
    return status if isinstance(status, dict) else {}


def _quoted(status: Mapping[str, Any], ask: _Ask) -> str:
    """What the API server says; of Secrets only which fields it speaks of, since it may repeat what is in them."""
    if ask.quotes:
        message = _shown(status.get("message"))
        return f": {message}" if message else ""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    fields = [_shown(cause.get("field")) for cause in causes or [] if isinstance(cause, dict)]
    return f": {', '.join(fields[:5])}" if any(fields) else ""


def _crd(ask: _Ask) -> str:
    return ", and that its CRD is installed" if "." in ask.resource and ask.verb != "get" else ""


def _shown(text: object) -> str:
    if not isinstance(text, str):
        return ""
    cut = text[:_SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in cut)


def _retry_after(response: BaseHTTPResponse, status: Mapping[str, Any]) -> float | None:
    said: object = response.headers.get("Retry-After")
    details = status.get("details")
    if said is None and isinstance(details, dict):
        said = details.get("retryAfterSeconds")
    try:
        seconds = float(str(said))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _MAX_RETRY_AFTER_SECONDS else None


def _pause(error: EngineError) -> float:
    asked = error.retry_after_seconds if isinstance(error, AskLater) else None
    seconds = _BUSY_SECONDS if asked is None else asked
    return seconds * (1 + random.random() / 2)  # noqa: S311 - only spreads who asks again


def _broken(ask: _Ask, exc: HTTPError) -> Unavailable:
    if isinstance(exc, SSLError):
        return AskLater(
            f"{ask}: the API server's certificate was not accepted, or ours ({_words(exc)}); "
            "check the cluster's certificate authority"
        )
    if isinstance(exc, NewConnectionError | ConnectTimeoutError):
        return AskLater(f"{ask}: the API server cannot be reached ({_words(exc)}); ask again")
    if isinstance(exc, ReadTimeoutError):
        return AskLater(f"{ask}: the API server did not answer in time; ask again")
    return AskLater(f"{ask}: the connection broke ({_words(exc)}); ask again")


def _words(exc: BaseException) -> str:
    """The innermost reason of an exception in plain words."""
    cause: BaseException = exc
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, OSError) and cause.strerror:
        return _shown(cause.strerror)
    return type(cause).__name__
