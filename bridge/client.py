"""The client of bridge's API that `bridgectl` uses: GET runs and logs, POST acts; answers become values or errors.

What comes back is JSON as core/representations.py makes it, checked no further than that it is an object: a newer
server may say more.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import urlencode

import urllib3
from urllib3.util import Retry, Timeout, parse_url

from bridge.core.runs import Kind
from bridge.errors import BridgeError, Conflict, Forbidden, Misconfigured, NotFound, Unavailable

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
LONGEST_ANSWER_BYTES = 64 * 1024 * 1024
NEXT_OFFSET_HEADER = "Bridge-Next-Offset"
MOST_RUNS = 1000
"""The highest limit that the API takes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}")
_EXCERPT_CHARACTERS = 300
_ASK_AGAIN = {429, 502, 503, 504}
# Every request may be repeated: reading is harmless, and an act carries the same request id again.
_RETRIES = Retry(
    total=3,
    connect=1,
    redirect=0,
    status_forcelist=_ASK_AGAIN,
    allowed_methods=None,
    backoff_factor=0.2,
    backoff_max=3,
    backoff_jitter=0.2,
    retry_after_max=2,
    raise_on_status=False,
    raise_on_redirect=False,
)


@dataclass(frozen=True)
class LogPart:
    """A piece of a build's log."""

    content: bytes
    next_offset: int
    """Where the next piece begins."""


@dataclass(frozen=True)
class Acted:
    """The answer to an act."""

    accepted: bool
    """It is on record; otherwise there is nothing to do."""
    message: str
    """What happens now, or why nothing does."""


class Asking(Protocol):
    """Where commands read runs and ask for acts: a gateway (Client), or a cluster itself (wiring/direct.py).

    Methods raise NotFound, Conflict, Forbidden, Misconfigured (the request or the address cannot be right) or
    Unavailable (asking again later may help). Answers have the shapes of core/answers.py.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def list(
        self,
        *,
        project: str = "",
        pipeline: str = "",
        sha: str = "",
        pull_request: int | None = None,
        branch: str = "",
        verdict: str = "",
        search: str = "",
        open_only: bool = False,
        limit: int = MOST_RUNS,
    ) -> list[dict[str, Any]]:
        """Summaries of runs, the newest first; an empty filter filters nothing."""
        ...

    def get(self, run_id: str) -> dict[str, Any]:
        """All details of a run."""
        ...

    def explain(self, about: str, *, project: str = "") -> dict[str, Any]:
        """What is known of a run, a commit or a delivery."""
        ...

    def log(self, run_id: str, step: str, *, build: int, epoch: int) -> bytes:
        """The log of a step's build, or its end if it is very long."""
        ...

    def log_from(self, run_id: str, step: str, *, build: int, epoch: int, offset: int) -> LogPart:
        """What was written to the log from byte `offset` on, maybe nothing yet, maybe not all there is."""
        ...

    def act(
        self,
        run_id: str,
        kind: Kind,
        *,
        request: str,
        who: str = "",
        source: str = "cli",
        only: tuple[str, ...] = (),
        follows: int | None = None,
    ) -> Acted:
        """Ask for an act; `request` is the same for every repeat of this very wish."""
        ...


class Client:
    """A gateway's API: `Asking` over HTTP.

    Methods raise NotFound, Conflict, Forbidden (also for a missing token), Misconfigured (the request or the
    address cannot be right) or Unavailable (asking again later may help), after a few bounded repeats where those
    can help. The token goes to `url` alone: redirects are not followed.

    Args:
        url: the gateway's address, `http://HOST:PORT`.
        token: the Bearer token; empty sends none.

    """

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/")
        self._headers = {"Accept": "application/json, application/problem+json", "User-Agent": "bridgectl"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        timeout = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=_RETRIES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def list(
        self,
        *,
        project: str = "",
        pipeline: str = "",
        sha: str = "",
        pull_request: int | None = None,
        branch: str = "",
        verdict: str = "",
        search: str = "",
        open_only: bool = False,
        limit: int = MOST_RUNS,
    ) -> list[dict[str, Any]]:
        """Summaries of runs, the newest first; an empty filter filters nothing."""
        wanted = {
            "project": project,
            "pipeline": pipeline,
            "sha": sha,
            "pull_request": pull_request,
            "branch": branch,
            "verdict": verdict,
            "search": search,
            "open": "true" if open_only else "",
            "limit": limit,
        }
        query = urlencode({name: value for name, value in wanted.items() if value not in {"", None}})
        answer = self._json("GET", f"/api/v1/runs?{query}" if query else "/api/v1/runs", "listing runs")
        runs = answer.get("runs")
        if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
            raise self._strange("listing runs", "no list of runs")
        return runs

    def get(self, run_id: str) -> dict[str, Any]:
        """All details of a run."""
        return self._json("GET", f"/api/v1/runs/{_part(run_id, 'run')}", f"getting run {run_id}")

    def explain(self, about: str, *, project: str = "") -> dict[str, Any]:
        """What is known of a run, a commit or a delivery. GitHub's logs may have to be looked through."""
        query = urlencode({"about": about, **({"project": project} if project else {})})
        return self._json("GET", f"/api/v1/explain?{query}", f"explaining {about[:100]}")

    def log(self, run_id: str, step: str, *, build: int, epoch: int) -> bytes:
        """The log of a step's build, or its end if it is very long."""
        _, content = self._log(run_id, step, {"build": build, "epoch": epoch})
        return content

    def log_from(self, run_id: str, step: str, *, build: int, epoch: int, offset: int) -> LogPart:
        """What was written to the log from byte `offset` on, maybe nothing yet, maybe not all there is."""
        answer, content = self._log(run_id, step, {"build": build, "epoch": epoch, "offset": offset})
        told = answer.headers.get(NEXT_OFFSET_HEADER, "")
        return LogPart(content, int(told) if told.isdecimal() else offset + len(content))

    def act(
        self,
        run_id: str,
        kind: Kind,
        *,
        request: str,
        who: str = "",
        source: str = "cli",
        only: tuple[str, ...] = (),
        follows: int | None = None,
    ) -> Acted:
        """Ask for a retry, rerun or cancel; `request` is the same for every repeat of this very wish."""
        asked: dict[str, Any] = {"request": request, "who": who, "source": source}
        if only:
            asked["only"] = list(only)
        if follows is not None:
            asked["follows"] = follows
        path = f"/api/v1/runs/{_part(run_id, 'run')}/{kind.value}"
        answer = self._json("POST", path, f"{kind.value} of run {run_id}", body=asked, request=request)
        return Acted(accepted=answer.get("accepted") is True, message=str(answer.get("message") or ""))

    def _log(self, run_id: str, step: str, wanted: Mapping[str, int]) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        path = f"/api/v1/runs/{_part(run_id, 'run')}/steps/{_part(step, 'step')}/log?{urlencode(wanted)}"
        act = f"reading the log of step {step} of run {run_id}"
        return self._asked("GET", path, act, accept="text/plain, application/problem+json;q=0.5")

    def _json(
        self, method: str, path: str, act: str, *, body: Mapping[str, Any] | None = None, request: str = ""
    ) -> dict[str, Any]:
        _, content = self._asked(method, path, act, body=body, request=request)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise self._strange(act, "no JSON") from exc
        if not isinstance(answer, dict):
            raise self._strange(act, "no JSON object")
        return answer

    def _asked(
        self,
        method: str,
        path: str,
        act: str,
        *,
        body: Mapping[str, Any] | None = None,
        request: str = "",
        accept: str = "",
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        headers = dict(self._headers)
        if accept:
            headers["Accept"] = accept
        if request:
            headers["Idempotency-Key"] = request
        try:
            answer = self._pool.request(
                method, f"{self._url}{path}", headers=headers, json=body, redirect=False, preload_content=False
            )
            try:
                content = answer.read(LONGEST_ANSWER_BYTES)
            finally:
                answer.close()
        except (ValueError, urllib3.exceptions.LocationValueError) as exc:
            # Also what a header cannot hold: the message may not repeat it, it could be the token.
            raise Misconfigured(f"{act}: BRIDGE_URL or BRIDGE_TOKEN cannot be used in HTTP; correct it") from exc
        except urllib3.exceptions.HTTPError as exc:
            raise Unavailable(
                f"{act}: no answer from {self._origin()} ({_cause(exc)}); "
                "is bridge running there? BRIDGE_URL or --url says where it is"
            ) from exc
        if answer.status not in {200, 201, 202}:
            raise self._refusal(act, answer.status, content)
        return answer, content

    def _refusal(self, act: str, status: int, content: bytes) -> BridgeError:
        said = _said(content)
        told = f"{act}: {self._origin()} answered {status}{f': {said}' if said else ''}"
        if status in {401, 403}:
            return Forbidden(f"{told}; give a token that may do this in BRIDGE_TOKEN")
        if status in {404, 410}:
            return NotFound(told)
        if status == 409:  # noqa: PLR2004 - Conflict
            return Conflict(told)
        if status == 429 or status >= 500:  # noqa: PLR2004 - the server's own trouble
            return Unavailable(f"{told}; try again later")
        return Misconfigured(told if said else f"{told}; is this bridge's address?")

    def _strange(self, act: str, what: str) -> Misconfigured:
        return Misconfigured(f"{act}: {self._origin()} answered {what}; is this bridge's address?")

    def _origin(self) -> str:
        """The address without what may be secret in it."""
        address = parse_url(self._url)
        return f"{address.scheme}://{address.host}{f':{address.port}' if address.port else ''}"


def _part(name: str, what: str) -> str:
    """`name` as one part of a path. Anything else would be another path: there is no such run or step."""
    if not _NAME.fullmatch(name):
        raise NotFound(f"there is no {what} {name[:80]!r}")
    return name


def _said(content: bytes) -> str:
    """What a problem+json says to people; empty if it is none."""
    try:
        problem = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(problem, dict):
        return ""
    said = problem.get("detail") or problem.get("title") or ""
    line = " ".join(str(said).split())
    return "".join(character for character in line if character.isprintable())[:_EXCERPT_CHARACTERS]


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    reason = getattr(error, "reason", None)
    return type(reason if isinstance(reason, Exception) else error).__name__
