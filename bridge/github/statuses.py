"""Commit statuses on GitHub: the port `Reports`.

Traps that this module steps round, each seen in githubkit 0.16.1 or on GitHub (facts/github.md):

- a redirect (a repository that was renamed) counts as a success there, though nothing was stored;
- its rate limit check raises plain ValueError for a Retry-After that is a date;
- every answer of GitHub has x-ratelimit-reset, also the 403 of a token without rights, so it counts
  only when nothing remains;
- texts with characters of four bytes, or over 140 characters, are refused for ever.
"""

import contextvars
import ipaddress
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urlsplit

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestError, RequestFailed
from pydantic import BaseModel, TypeAdapter, ValidationError

from bridge.core.runs import Report, Run
from bridge.errors import BadSettings, StatusNotPosted

GITHUB = "github"
"""What `GitHubStatuses.post` answers when GitHub holds the status."""
NO_CREDENTIALS = "no credentials"
"""What it answers when the project has no token: nothing was posted, somebody else has to take it."""
NO_COMMIT = "no commit"
"""What it answers when the event names no commit: there is nothing on GitHub to put a status on."""

LONGEST_DESCRIPTION = 140

_CREATED = 201
_FORBIDDEN = 403
_TOO_MANY = 429
_CREDENTIALS = frozenset({401, 403})
_MAY_NOT_READ = frozenset({403, 404, 422})
_REDIRECTS = range(300, 400)

# GitHub's rule for a limit without a header: at least a minute.
_LIMITED_SECONDS = 60.0
# A person has to change something; asking more often only wastes the rate limit.
_SLOW_SECONDS = 300.0
# The primary limit is counted by the hour; a host that asks for more is misread.
_LONGEST_WAIT_SECONDS = 2 * 3600.0
_LONGEST_EXCERPT = 200

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_COMMIT = re.compile(r"[0-9A-Fa-f]{7,64}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SPACE = re.compile(r"\s")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]")


class _Posted(BaseModel):
    state: str
    context: str
    description: str | None = None
    target_url: str | None = None


class _Refusal(BaseModel):
    message: str = ""


class _Answer(BaseModel):
    message: str = ""
    errors: list[_Refusal] = []


_POSTED = TypeAdapter(list[_Posted])


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...


class GitHubStatuses:
    """Posts commit statuses with each project's own token.

    Args:
        token_of: the token for a project's name, or None.
        base_url: of the API, from the settings: `https://api.github.com`, `https://HOST/api/v3`. Never from
            an event. Raises BadSettings if it is no http(s) URL.
        repository_of: the repository (`owner/name`) of a project's name, which is the same by default.
        timeout_seconds: for connecting, and again for each silence of GitHub.
        now: the clock, for an answer that has no Date.

    """

    def __init__(
        self,
        token_of: Callable[[str], str | None],
        *,
        base_url: str = "https://api.github.com",
        repository_of: Callable[[str], str] = str,
        timeout_seconds: float = 8.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = base_url
        self._timeout_seconds = timeout_seconds
        unusable = f"GitHub's API at {base_url[:100]!r} is no usable http(s) URL; set its base URL"
        if not _is_link(base_url):
            raise BadSettings(unusable)
        try:
            self._client("none")
        except Exception as exc:
            raise BadSettings(unusable) from exc
        self._token_of = token_of
        self._repository_of = repository_of
        self._now = now

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Let GitHub hold `report` for the run's commit, with a link to `url` if that is http(s).

        Answers GITHUB, or NO_CREDENTIALS or NO_COMMIT, with which nothing was posted. A status that is the
        newest of its context already is not posted again, so that a post whose answer was lost, or after
        which the process died, stays one. Raises StatusNotPosted, without a token in its text or cause;
        what `token_of` raises passes.
        """
        token = (self._token_of(run.event.project) or "").strip()
        if not token:
            return NO_CREDENTIALS
        if not run.event.revision.commit:
            return NO_COMMIT
        act = f"posting the status {report.context[:100]!r} of run {run.id}"
        path = self._path(run, act)
        _check(report, token, act)
        try:
            # githubkit keeps its open client in a context variable that it makes for each GitHub and that
            # no context forgets; in a copy both go when this returns.
            contextvars.copy_context().run(self._deliver, token, path, _body(report, url))
        except (RequestFailed, _Redirected) as exc:
            raise self._refused(exc.response, act, token) from exc
        except Exception as exc:
            origin = exc.exc if isinstance(exc, RequestError) else exc
            raise StatusNotPosted(
                f"{act}: no usable answer from GitHub's API ({type(origin).__name__}); it is tried again"
            ) from exc
        return GITHUB

    def _deliver(self, token: str, path: str, body: Mapping[str, str]) -> None:
        with self._client(token) as github:
            if self._is_newest(github, path, body):
                return
            response = github.request("POST", path.format("statuses/"), json=dict(body))
            if response.status_code != _CREATED:
                raise _Redirected(response)

    def _path(self, run: Run, act: str) -> str:
        repository = self._repository_of(run.event.project) or run.event.project
        if not _REPOSITORY.fullmatch(repository) or set(repository.split("/")) & {".", ".."}:
            raise StatusNotPosted(
                f"{act}: {repository[:100]!r} is no repository's owner/name; set the project's repository",
                permanent=True,
            )
        commit = run.event.revision.commit
        if not _COMMIT.fullmatch(commit):
            raise StatusNotPosted(
                f"{act}: {commit[:100]!r} is no commit's SHA; send events with the SHA", permanent=True
            )
        return f"/repos/{repository}/{{}}{commit}"

    def _client(self, token: str) -> GitHub[TokenAuthStrategy]:
        return GitHub(
            TokenAuthStrategy(token),
            base_url=self._base_url,
            user_agent="brigade-argo-bridge",
            timeout=self._timeout_seconds,
            follow_redirects=False,
            http_cache=False,
            # Retries live in the reconciler alone.
            auto_retry=False,
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not _is_loopback(self._base_url),
        )

    def _is_newest(self, github: GitHub[TokenAuthStrategy], path: str, body: Mapping[str, str]) -> bool:
        """Whether GitHub shows exactly this status already. Where it may not be asked, the post decides."""
        try:
            response = github.request("GET", f"{path.format('commits/')}/statuses", params={"per_page": 100})
            statuses = _POSTED.validate_json(response.content)
        except RequestFailed as exc:
            if exc.response.status_code in _MAY_NOT_READ and self._wait_seconds(exc.response) is None:
                return False
            raise
        except ValidationError:
            return False
        newest = next((status for status in statuses if status.context == body["context"]), None)
        if newest is None:
            return False
        shown = (newest.state, newest.description or "", newest.target_url or "")
        return shown == (body["state"], body["description"], body.get("target_url", ""))

    def _refused(self, response: _Response, act: str, token: str) -> StatusNotPosted:
        status = response.status_code
        said = f"{act}: GitHub answered {status}{_words(response.content, token)}"
        if status in _REMEDIES:
            return StatusNotPosted(f"{said}; {_REMEDIES[status]}", permanent=True)
        if status in _REDIRECTS:
            return StatusNotPosted(
                f"{said}; the repository was renamed or moved: set the project's repository to its new name",
                retry_after_seconds=_SLOW_SECONDS,
            )
        wait_seconds = self._wait_seconds(response)
        if wait_seconds is None and status in _CREDENTIALS:
            return StatusNotPosted(
                f"{said}; give the project a token that is valid and may write commit statuses",
                retry_after_seconds=_SLOW_SECONDS,
            )
        return StatusNotPosted(f"{said}; it is tried again", retry_after_seconds=wait_seconds)

    def _wait_seconds(self, response: _Response) -> float | None:
        """Seconds that the answer asks to wait, or None if it asks for nothing."""
        headers = response.headers
        if "retry-after" in headers:
            return _bounded(_number(headers["retry-after"]) or _LIMITED_SECONDS)
        if headers.get("x-ratelimit-remaining") == "0":
            reset = _number(headers.get("x-ratelimit-reset", ""))
            return _bounded(reset - self._host_time(headers)) if reset else _LIMITED_SECONDS
        if response.status_code == _TOO_MANY:
            return _LIMITED_SECONDS
        limited = response.status_code == _FORBIDDEN and b"rate limit" in response.content.lower()
        return _LIMITED_SECONDS if limited else None

    def _host_time(self, headers: Mapping[str, str]) -> float:
        """The host's own clock, so that ours may be wrong."""
        at = _seconds(headers.get("date", ""))
        return self._now() if at is None else at


class _Redirected(Exception):
    """An answer that is no error for githubkit and yet stored nothing."""

    def __init__(self, response: _Response) -> None:
        super().__init__("answered without storing")
        self.response = response


_REMEDIES = {
    404: "the repository is not there, or its token may not write commit statuses",
    410: "the repository is gone",
    422: "it will not take this status for this commit",
}


def description(text: str) -> str:
    """`text` as GitHub takes it: one line of at most 140 characters, none of which has four bytes.

    What is too long ends in an ellipsis and keeps every letter together with its accents.
    """
    line = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    if len(line) <= LONGEST_DESCRIPTION:
        return line
    end = LONGEST_DESCRIPTION - 1
    while end > 0 and unicodedata.combining(line[end]):
        end -= 1
    return f"{line[:end].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def _body(report: Report, url: str) -> dict[str, str]:
    body = {
        "state": report.state,
        "context": report.context,
        "description": description(report.description),
    }
    return body | {"target_url": url} if _is_link(url) else body


def _check(report: Report, token: str, act: str) -> None:
    """Refuse what HTTP cannot carry before a client puts it, token included, into an exception's text."""
    if not _TOKEN.fullmatch(token):
        raise StatusNotPosted(
            f"{act}: the project's token has characters that no token has; set it anew",
            retry_after_seconds=_SLOW_SECONDS,
        )
    if _UNFIT.search(report.context):
        raise StatusNotPosted(
            f"{act}: the context has characters that GitHub refuses; give the pipeline another",
            permanent=True,
        )


def _words(content: bytes, token: str) -> str:
    """What an error answer says, for people: cut, on one line, never our token."""
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError:
        return ""
    said = ": ".join(text for text in (answer.message, *(error.message for error in answer.errors)) if text)
    printable = "".join(one if one.isprintable() else " " for one in said.replace(token, "TOKEN"))
    return f" ({printable[:_LONGEST_EXCERPT]})" if printable else ""


def _number(text: str) -> float | None:
    # Bounded, since a header of a thousand digits is a number too.
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= len("9999999999999") else None


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS)


def _is_link(url: str) -> bool:
    try:
        address = urlsplit(url)
        usable = address.port is None or address.port > 0
    except ValueError:
        return False
    return usable and address.scheme in {"http", "https"} and bool(address.hostname) and not _SPACE.search(url)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
