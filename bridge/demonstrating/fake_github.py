"""A GitHub that is none: real HTTP, real state, and faults on demand.

It knows commit statuses, commits and refs, Apps (fake_apps.py), check runs (fake_checks.py), pull requests with
their comments (fake_comments.py) and webhooks (fake_deliveries.py), and judges what is posted as GitHub does:
facts/github.md, and for the words of its refusals what users quote in these threads:
openshift/release#6179 (the 1,000 statuses),
zalando/zappr#378 (140 characters), ouzi-dev/commit-status-updater#526 (characters of four bytes),
projectbluefin/lab#690 (the link's scheme), runatlantis/atlantis#2506 (255 characters).

Run alone (`python -m bridge.demonstrating.fake_github --journal FILE`) it outlives a bridge that is killed.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qs, unquote, urlsplit

from bridge.demonstrating.fake_apps import FakeApps, MintedToken
from bridge.demonstrating.fake_checks import FakeChecks
from bridge.demonstrating.fake_comments import FakeComments
from bridge.demonstrating.fake_deliveries import LOST_ANSWER, FakeHooks
from bridge.demonstrating.fake_limits import FakeLimits
from bridge.demonstrating.fake_replies import Reply, message, not_found, time_of
from bridge.errors import BadSettings

STATES = frozenset({"error", "failure", "pending", "success"})
LONGEST_DESCRIPTION = 140
LONGEST_CONTEXT = 255
MOST_STATUSES = 1_000
"""For each sha and context."""

_LARGEST_BODY_BYTES = 1_000_000
_MOST_PER_PAGE = 100
_DEFAULT_PER_PAGE = 30
_LAST_CHARACTER_OF_THREE_BYTES = "\uffff"

# GHES serves the same API below /api/v3.
_STATUSES = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/statuses/(?P<sha>[^/]+)")
_COMMIT_STATUSES = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/commits/(?P<ref>.+)/statuses")
_COMBINED = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/commits/(?P<ref>.+)/status")
_COMMIT = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/commits/(?P<ref>.+)")
_GIT_REF = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/git/ref/(?P<ref>.+)")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredStatus:
    """One status that was taken, as it was posted."""

    id: int
    repository: str
    sha: str
    state: str
    context: str
    description: str | None
    target_url: str | None
    received: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class _Fault:
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_seconds: float = 0.0
    lose_answer: bool = False
    reset: bool = False
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


RESET = Reply(0, None)
"""In place of an answer: the connection is reset."""


class FakeGitHub:
    """The server and what it holds. Thread safe; usable as a context manager.

    Args:
        tokens: whose bearers may do everything; see `allow` for narrower ones.
        port: 0 picks a free one; `stop` and `start` again keep it.
        journal: a file that gets one JSON line a status before the status is answered, and is read at the
            start. Raises BadSettings if it is another program's or no journal.
        now: the clock.

    """

    def __init__(
        self,
        *,
        tokens: Iterable[str] = (),
        port: int = 0,
        journal: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._port = port
        self.now = now
        """Its clock."""
        self.apps = FakeApps(now=now)
        """The Apps that it knows: none until one is added."""
        self.checks = FakeChecks(self.apps, now=now)
        """The check runs that there are: none until an App makes one."""
        self.comments = FakeComments(
            now=now,
            refusal=self._refusal_of_comments,
            account=self._account,
        )
        """Pull requests and what is said below them: none until one is put."""
        self.hooks = FakeHooks(
            now=now,
            app_of=self.apps.app_of,
            refusal=self._refusal_of_hooks,
        )
        """The webhooks that there are: none until one is added."""
        self.limits: Mapping[str, str] = {}
        """Headers of every answer, in place of those that say that nearly all of the rate limit is left."""
        self.quotas = FakeLimits(now=now)
        """The rate limits of each credential: none until one is set."""
        self.most_statuses = MOST_STATUSES
        """For each sha and context."""
        self._changed = threading.Condition()
        self._allowed: dict[str, frozenset[str]] = {token: frozenset() for token in tokens}
        self._faults: deque[_Fault] = deque()
        self._refs: dict[tuple[str, str], str] = {}
        self._commits: set[tuple[str, str]] = set()
        self._posts = 0
        self._requests = 0
        self._offline = False
        self._stopping = False
        self._releases = 0
        self._open = ExitStack()
        self._server: _Server | None = None
        self._history: list[StoredStatus] = []
        self._journal = _opened_journal(journal) if journal else None
        if self._journal:
            self._history.extend(_read_journal(self._journal))

    def start(self) -> Self:
        """Listen on loopback; answers requests when this returns."""
        self._stopping = False
        server = _Server(self, self._port)
        self._port = server.server_address[1]
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="fake GitHub", daemon=True
        )
        thread.start()
        self._open.callback(server.server_close)
        self._open.callback(thread.join)
        self._open.callback(server.hang_up)
        self._open.callback(server.shutdown)
        return self

    def stop(self) -> None:
        """Refuse connections from here on, break the ones there are and forget nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.checks.release()
        self._open.close()
        self.hooks.settle()

    def close(self) -> None:
        """`stop`, and let go of the journal."""
        self.stop()
        if self._journal:
            self._journal.close()
            self._journal = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base of its API, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def history(self) -> tuple[StoredStatus, ...]:
        """Every status that was stored, the oldest first."""
        with self._changed:
            return tuple(self._history)

    @property
    def posts(self) -> int:
        """How often somebody tried to post a status, refused or not."""
        with self._changed:
            return self._posts

    @property
    def requests(self) -> int:
        """How often anybody asked anything, answered or not."""
        with self._changed:
            return self._requests

    def wait_for_posts(self, posts: int, *, timeout_seconds: float = 60.0) -> int:
        """`posts` as soon as it is at least so many, or as it is after `timeout_seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._posts >= posts, timeout_seconds)
            return self._posts

    def wait_until(
        self, wanted: Callable[[tuple[StoredStatus, ...]], bool], *, timeout_seconds: float = 60.0
    ) -> tuple[StoredStatus, ...]:
        """The history as soon as `wanted` says yes to it, or as it is after `timeout_seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(tuple(self._history)), timeout_seconds)
            return tuple(self._history)

    def allow(self, token: str, *repositories: str) -> None:
        """Let a token into these repositories (`owner/name`), or into all if none is named."""
        with self._changed:
            self._allowed[token] = frozenset(repositories)

    def put_commit(self, repository: str, sha: str, *refs: str) -> None:
        """Make a commit known, and let `refs` (`refs/heads/main`, `refs/pull/7/head`) point at it."""
        with self._changed:
            self._commits.add((repository, sha))
            for ref in refs:
                self._refs[repository, ref.removeprefix("refs/")] = sha

    def fail_next(self, times: int, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer the next posts of a status with `status` and `headers`, storing nothing."""
        self._plan(times, _Fault(status=status, headers=dict(headers or {})))

    def hang_next(self, times: int, seconds: float) -> None:
        """Keep the next posts of a status waiting; then they are stored, whether their sender waits or not."""
        self._plan(times, _Fault(hang_seconds=seconds))

    def release(self) -> None:
        """Let go on what hangs now."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def lose_answers(self, times: int) -> None:
        """Store the next statuses, and close the connection instead of answering."""
        self._plan(times, _Fault(lose_answer=True))

    def reset_after_write(self, times: int) -> None:
        """Store the next statuses, and reset the connection instead of answering."""
        self._plan(times, _Fault(reset=True))

    def meanwhile(
        self, *, before: Callable[[], object] = lambda: None, after: Callable[[], object] = lambda: None
    ) -> None:
        """Let something happen right before the next status is stored, or after it and before the answer."""
        self._plan(1, _Fault(before=before, after=after))

    def heal(self) -> None:
        """Forget all faults that were asked for."""
        with self._changed:
            self._faults.clear()

    def put_status(self, repository: str, sha: str, **posted: str) -> None:
        """A status that somebody else posts (`state`, `context`, `description`, `target_url`)."""
        self._kept(repository, sha, posted)

    @property
    def offline(self) -> bool:
        """Whether every request meets a closed connection. `stop` refuses the connection itself."""
        return self._offline

    @offline.setter
    def offline(self, value: bool) -> None:
        self._offline = value

    def _plan(self, times: int, fault: _Fault) -> None:
        with self._changed:
            self._faults.extend([fault] * times)

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Reply | None:
        """What one request is answered with; None closes the connection without an answer, RESET breaks it."""
        with self._changed:
            self._requests += 1
        if self._offline:
            return None
        authorization = headers.get("Authorization", "")
        credential = self._limited_as(authorization)
        refusal = self.quotas.refusal(credential, writes=method != "GET")
        reply = refusal or self._answered(method, target, authorization, body)
        return reply if reply is None or reply is RESET else self.quotas.told(credential, reply)

    def _limited_as(self, authorization: str) -> str:
        """Whose limits count: all tokens of an installation have one together."""
        token = authorization.partition(" ")[2].strip()
        minted = self.apps.find(token)
        return f"installation {minted.installation}" if minted is not None else token

    def _answered(self, method: str, target: str, authorization: str, body: bytes) -> Reply | None:
        address = urlsplit(target)
        path = unquote(address.path)
        of_app = self.apps.answer(method, path, authorization, body)
        if of_app is not None:
            return of_app
        of_hooks = self.hooks.answer(method, path, parse_qs(address.query), authorization, self.url)
        if of_hooks is not None:
            return None if of_hooks is LOST_ANSWER else of_hooks
        of_checks = self.checks.answer(method, path, parse_qs(address.query), authorization, body)
        if of_checks is not None:
            return None if of_checks is LOST_ANSWER else of_checks
        of_comments = self.comments.answer(method, path, parse_qs(address.query), authorization, body)
        if of_comments is not None:
            return None if of_comments is LOST_ANSWER else of_comments
        if method == "POST":
            return self._answer_post(path, authorization, body)
        refusal = self._refusal(path, authorization, anonymous=True)
        return refusal or self._answer_get(path, parse_qs(address.query))

    def _answer_post(self, path: str, authorization: str, body: bytes) -> Reply | None:
        found = _STATUSES.fullmatch(path)
        if found is None:
            return not_found()
        fault, releases = self._next_fault()
        if fault.status:
            return Reply(fault.status, {"message": "A fault that was asked for"}, fault.headers)
        if fault.hang_seconds and self._hung_until_the_end(fault.hang_seconds, releases):
            return None
        fault.before()
        reply = self._refusal(path, authorization, anonymous=False)
        reply = reply or self._stored(found["repository"], found["sha"], body)
        fault.after()
        if fault.reset:
            return RESET
        return None if fault.lose_answer else reply

    def _next_fault(self) -> tuple[_Fault, int]:
        with self._changed:
            self._posts += 1
            self._changed.notify_all()
            # Read together: whoever saw this post counted can release it, though it does not hang yet.
            return self._faults.popleft() if self._faults else _Fault(), self._releases

    def _hung_until_the_end(self, seconds: float, releases: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._releases != releases, seconds)
            return self._stopping

    def _refusal(self, path: str, authorization: str, *, anonymous: bool) -> Reply | None:
        if not authorization:
            return None if anonymous else message(401, "Requires authentication")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        with self._changed:
            repositories = self._allowed.get(token)
        minted = self.apps.find(token)
        if scheme.lower() not in {"bearer", "token"} or (repositories is None and minted is None):
            return message(401, "Bad credentials")
        within = re.match(r"(?:/api/v3)?/repos/([^/]+/[^/]+)/", path)
        repository = within[1] if within else ""
        if minted is not None:
            return self._refusal_of_app(minted, repository, writes=not anonymous)
        return not_found() if repositories and repository not in repositories else None

    def _refusal_of_hooks(self, path: str, authorization: str) -> Reply | None:
        if self.apps.find(authorization.partition(" ")[2].strip()) is not None:
            return message(403, "Resource not accessible by integration")
        # Nobody may see webhooks without a token, and one for another repository meets 404.
        return self._refusal(path, authorization, anonymous=False)

    def _refusal_of_comments(self, path: str, authorization: str, permission: str, level: str) -> Reply | None:
        minted = self.apps.find(authorization.partition(" ")[2].strip())
        if minted is None:
            return self._refusal(path, authorization, anonymous=False)
        if not any(f"/repos/{one}/" in path for one in minted.repositories):
            return not_found()
        granted = {"metadata": "read", **minted.permissions}.get(permission)
        if granted is None or (level == "write" and granted == "read"):
            return message(403, "Resource not accessible by integration")
        return None

    def _account(self, authorization: str) -> str:
        minted = self.apps.find(authorization.partition(" ")[2].strip())
        return "bridge-user" if minted is None else "bridge[bot]"

    def _refusal_of_app(self, minted: MintedToken, repository: str, *, writes: bool) -> Reply | None:
        if repository not in minted.repositories:
            return not_found()
        if "statuses" not in minted.permissions or (writes and minted.permissions["statuses"] == "read"):
            return message(403, "Resource not accessible by integration")
        return None

    def _stored(self, repository: str, sha: str, body: bytes) -> Reply:
        try:
            posted = json.loads(body)
        except ValueError:
            return message(400, "Problems parsing JSON")
        if not isinstance(posted, dict):
            return message(422, "Invalid request.")
        refusals = _refusals(posted)
        if not _SHA.fullmatch(sha):
            refusals.append({"message": f"No commit found for SHA: {sha}"})
        if refusals:
            return _validation_failed(refusals)
        return self._kept(repository, sha, posted)

    def _kept(self, repository: str, sha: str, posted: Mapping[str, Any]) -> Reply:
        context = posted.get("context") or "default"
        with self._changed:
            if len(self._of(repository, sha, context=context)) >= self.most_statuses:
                text = "This SHA and context has reached the maximum number of statuses."
                return _validation_failed([{"message": text}])
            status = StoredStatus(
                id=len(self._history) + 1,
                repository=repository,
                sha=sha,
                state=posted["state"],
                context=context,
                description=posted.get("description"),
                target_url=posted.get("target_url"),
                received=self.now(),
            )
            if self._journal:
                # Before the answer: what was answered is there after a crash.
                self._journal.write(json.dumps(asdict(status)).encode() + b"\n")
                self._journal.flush()
            self._history.append(status)
            self._changed.notify_all()
        return Reply(201, self._shown(status))

    def _answer_get(self, path: str, query: Mapping[str, list[str]]) -> Reply:
        if found := _COMMIT_STATUSES.fullmatch(path):
            return self._page(path, self._newest_first(found["repository"], found["ref"]), query)
        if found := _COMBINED.fullmatch(path):
            return self._combined(found["repository"], found["ref"])
        if found := _COMMIT.fullmatch(path):
            return self._commit(found["repository"], found["ref"])
        if found := _GIT_REF.fullmatch(path):
            return self._ref(found["repository"], found["ref"])
        return not_found()

    def _page(self, path: str, statuses: list[StoredStatus], query: Mapping[str, list[str]]) -> Reply:
        size = min(_number(query, "per_page", _DEFAULT_PER_PAGE), _MOST_PER_PAGE)
        page = _number(query, "page", 1)
        shown = [self._shown(status) for status in statuses[(page - 1) * size : page * size]]
        if page * size >= len(statuses):
            return Reply(200, shown)
        following = f'<{self.url}{path}?per_page={size}&page={page + 1}>; rel="next"'
        return Reply(200, shown, {"Link": following})

    def _combined(self, repository: str, ref: str) -> Reply:
        newest: dict[str, StoredStatus] = {}
        for status in self._newest_first(repository, ref):
            newest.setdefault(status.context.casefold(), status)
        return Reply(
            200,
            {
                "state": _combined_state({status.state for status in newest.values()}),
                "sha": self._resolved(repository, ref),
                "total_count": len(newest),
                "statuses": [self._shown(status) for status in newest.values()],
                "repository": {"full_name": repository},
            },
        )

    def _commit(self, repository: str, ref: str) -> Reply:
        sha = self._resolved(repository, ref)
        if (repository, sha) not in self._commits:
            return _validation_failed([{"message": f"No commit found for SHA: {ref}"}])
        return Reply(200, {"sha": sha, "url": f"{self.url}/repos/{repository}/commits/{sha}", "parents": []})

    def _ref(self, repository: str, ref: str) -> Reply:
        with self._changed:
            sha = self._refs.get((repository, ref))
        if sha is None:
            return not_found()
        url = f"{self.url}/repos/{repository}/git"
        target = {"type": "commit", "sha": sha, "url": f"{url}/commits/{sha}"}
        return Reply(200, {"ref": f"refs/{ref}", "url": f"{url}/refs/{ref}", "object": target})

    def _newest_first(self, repository: str, ref: str) -> list[StoredStatus]:
        return self._of(repository, self._resolved(repository, ref))[::-1]

    def _resolved(self, repository: str, ref: str) -> str:
        with self._changed:
            short = ref.removeprefix("refs/")
            return self._refs.get((repository, short)) or self._refs.get((repository, f"heads/{ref}")) or ref

    def _of(self, repository: str, sha: str, *, context: str | None = None) -> list[StoredStatus]:
        with self._changed:
            return [
                status
                for status in self._history
                if (status.repository, status.sha) == (repository, sha)
                # GitHub tells contexts apart without their case.
                and (context is None or status.context.casefold() == context.casefold())
            ]

    def _shown(self, status: StoredStatus) -> dict[str, Any]:
        at = time_of(status.received)
        return {
            "url": f"{self.url}/repos/{status.repository}/statuses/{status.sha}",
            "id": status.id,
            "state": status.state,
            "description": status.description,
            "target_url": status.target_url,
            "context": status.context,
            "created_at": at,
            "updated_at": at,
            "creator": {"login": "bridge", "type": "Bot"},
        }


class _Server(ThreadingHTTPServer):
    # Threads are joined at the end, and hang_up makes them end: nothing outlives `stop`.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, fake: FakeGitHub, port: int) -> None:
        self.fake = fake
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this host, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Headers and body leave together; two packets would wait for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def _answer(self, method: str) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _LARGEST_BODY_BYTES:
            self.close_connection = True
            return self._send(message(413, "Payload Too Large"))
        reply = self.server.fake.answer(method, self.path, self.headers, self.rfile.read(int(length)))
        if reply is None or reply is RESET:
            self.close_connection = True
            if reply is RESET:
                # With a linger of nothing closing sends RST.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return None
        return self._send(reply)

    def _send(self, reply: Reply) -> None:
        content = json.dumps(reply.content).encode()
        self.send_response(reply.status)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4999",
            "X-RateLimit-Reset": str(int(time.time()) + 3600),
            **self.server.fake.limits,
        }
        # Names of headers are compared without their case, so that a fault's replaces ours.
        asked = {name.lower() for name in reply.headers}
        kept = {name: value for name, value in headers.items() if name.lower() not in asked}
        for name, value in {**kept, **reply.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date of an answer, by the same clock as all that it says."""
        return super().date_time_string(self.server.fake.now() if timestamp is None else timestamp)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, the base class's signature
        """Say nothing: the history tells more."""


def _refusals(posted: Mapping[str, Any]) -> list[dict[str, str]]:
    refusals = []
    if posted.get("state") not in STATES:
        refusals.append({"field": "state", "message": "state is not included in the list"})
    description = posted.get("description")
    refusals += _text_refusals("description", description, longest=LONGEST_DESCRIPTION)
    if isinstance(description, str) and any(one > _LAST_CHARACTER_OF_THREE_BYTES for one in description):
        refusals.append({"field": "description", "message": "description doesn't accept 4-byte Unicode"})
    refusals += _text_refusals("context", posted.get("context"), longest=LONGEST_CONTEXT)
    link = posted.get("target_url")
    if link and not (isinstance(link, str) and link.startswith(("http://", "https://"))):
        refusals.append({"field": "target_url", "message": "Target url must use http(s) scheme"})
    return refusals


def _text_refusals(name: str, value: Any, *, longest: int) -> list[dict[str, str]]:
    if value is not None and not isinstance(value, str):
        return [{"field": name, "message": f"{name} is not a string"}]
    if value is not None and len(value) > longest:
        return [{"field": name, "message": f"{name} is too long (maximum is {longest} characters)"}]
    return []


def _combined_state(states: set[str]) -> str:
    if states & {"error", "failure"}:
        return "failure"
    return "success" if states == {"success"} else "pending"


def _number(query: Mapping[str, list[str]], name: str, default: int) -> int:
    value = query.get(name, [""])[0]
    return max(int(value), 1) if value.isdecimal() else default


def _validation_failed(refusals: list[dict[str, str]]) -> Reply:
    errors = [{"resource": "Status", "code": "custom", **refusal} for refusal in refusals]
    return message(422, "Validation Failed", errors=errors)


def _opened_journal(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = path.open("a+b")
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        journal.close()
        raise BadSettings(f"opening the journal {path}: another fake GitHub writes it; name another") from exc
    return journal


def _read_journal(journal: BinaryIO) -> list[StoredStatus]:
    journal.seek(0)
    whole, _, _ = journal.read().rpartition(b"\n")
    # A last line without its end was never answered; another one may not be glued to it.
    journal.truncate(len(whole) + 1 if whole else 0)
    try:
        return [StoredStatus(**json.loads(line)) for line in whole.splitlines()]
    except (ValueError, TypeError) as exc:
        journal.close()
        raise BadSettings("reading the journal: a line of it is no status; name another file") from exc


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. The first line on standard output is the URL."""
    parser = argparse.ArgumentParser(prog="fake_github", description="A GitHub for demonstrations and tests.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--journal", type=Path, help="keeps the statuses over a restart")
    parser.add_argument("--token", action="append", default=[], help="a token that may post; repeatable")
    parser.add_argument("--app", default="", help="the id of an App that it knows")
    parser.add_argument("--app-key", type=Path, help="the App's public key, PEM")
    parser.add_argument("--install", action="append", default=[], help="a repository that has it; repeatable")
    chosen = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with FakeGitHub(tokens=chosen.token, port=chosen.port, journal=chosen.journal) as fake:
        if chosen.app and chosen.app_key:
            fake.apps.add(chosen.app, chosen.app_key.read_bytes())
            fake.apps.install(chosen.app, *chosen.install)
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        ended.wait()
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
