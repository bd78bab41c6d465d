"""How bridge calls GitHub's API by githubkit, and what the answers ask for.

Traps that this module steps round, each seen in githubkit 0.16.1 or on GitHub (facts/github.md):

- its rate limit check raises plain ValueError for a Retry-After that is a date;
- every answer of GitHub has x-ratelimit-reset, also the 403 of a token without rights, so it counts
  only when nothing remains;
- it keeps its open client in a context variable that no context forgets.
"""

import contextvars
import ipaddress
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from githubkit import BaseAuthStrategy, GitHub, UnauthAuthStrategy
from githubkit.exception import RequestError
from pydantic import BaseModel, ValidationError

from bridge.errors import BadSettings

TIMEOUT_SECONDS = 8.0
SLOW_SECONDS = 300.0
"""After this a refusal is looked at again that a person has to do something about; more often only wastes the
rate limit."""

_FORBIDDEN = 403
_TOO_MANY = 429
# GitHub's rule for a limit without a header: at least a minute.
_LIMITED_SECONDS = 60.0
# The primary limit is counted by the hour; a host that asks for more is misread.
_LONGEST_WAIT_SECONDS = 2 * 3600.0
_LONGEST_EXCERPT = 200
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_SPACE = re.compile(r"\s")

_Auth = TypeVar("_Auth", bound=BaseAuthStrategy)
_Found = TypeVar("_Found")


class Response(Protocol):
    """As much of an answer as is looked at."""

    @property
    def status_code(self) -> int:
        """HTTP's."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By names without regard to case."""
        ...

    @property
    def content(self) -> bytes:
        """The whole body."""
        ...


class _Refusal(BaseModel):
    message: str = ""


class _Answer(BaseModel):
    message: str = ""
    errors: list[_Refusal] = []


class Calls:
    """Clients of one GitHub: no redirects, no retries of their own, a timeout on everything.

    Args:
        base_url: of the API, from the settings: `https://api.github.com`, `https://HOST/api/v3`. Never from
            an event. Raises BadSettings if it is no http(s) URL.
        timeout_seconds: for connecting, and again for each silence of GitHub.

    """

    def __init__(self, base_url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._base_url = base_url
        self._timeout_seconds = timeout_seconds
        unusable = f"GitHub's API at {base_url[:100]!r} is no usable http(s) URL; set BRIDGE_GITHUB_API_URL"
        if not is_link(base_url):
            raise BadSettings(unusable)
        try:
            self._client(UnauthAuthStrategy())
        except Exception as exc:
            raise BadSettings(unusable) from exc

    def within(self, auth: _Auth, act: Callable[[GitHub[_Auth]], _Found]) -> _Found:
        """What `act` makes of a client that is open while it works. What it raises passes."""
        # In a copy of the context what githubkit puts there goes when this returns.
        return contextvars.copy_context().run(self._within, auth, act)

    def _within(self, auth: _Auth, act: Callable[[GitHub[_Auth]], _Found]) -> _Found:
        with self._client(auth) as github:
            return act(github)

    def _client(self, auth: _Auth) -> GitHub[_Auth]:
        return GitHub(
            auth,
            base_url=self._base_url,
            user_agent="brigade-argo-bridge",
            timeout=self._timeout_seconds,
            follow_redirects=False,
            http_cache=False,
            # Retries live with the callers, who know what may be repeated.
            auto_retry=False,
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not _is_loopback(self._base_url),
        )


def is_repository(name: str) -> bool:
    """Whether this can be a repository's `owner/name`, and go into a path as it is."""
    return bool(_REPOSITORY.fullmatch(name)) and not set(name.split("/")) & {".", ".."}


def is_commit(sha: str) -> bool:
    """Whether this is a commit's whole SHA, which can go into a path as it is."""
    return bool(_COMMIT.fullmatch(sha))


def is_link(url: str) -> bool:
    """Whether this is an http(s) URL."""
    try:
        address = urlsplit(url)
        usable = address.port is None or address.port > 0
    except ValueError:
        return False
    return usable and address.scheme in {"http", "https"} and bool(address.hostname) and not _SPACE.search(url)


def wait_seconds(response: Response, *, now: float) -> float | None:
    """Seconds that an answer asks to wait, or None if it asks for nothing. `now` is for one without a Date."""
    headers = response.headers
    if "retry-after" in headers:
        return _bounded(_number(headers["retry-after"]) or _LIMITED_SECONDS)
    if headers.get("x-ratelimit-remaining") == "0":
        reset = _number(headers.get("x-ratelimit-reset", ""))
        return _bounded(reset - host_time(response, now=now)) if reset else _LIMITED_SECONDS
    if response.status_code == _TOO_MANY:
        return _LIMITED_SECONDS
    limited = response.status_code == _FORBIDDEN and b"rate limit" in response.content.lower()
    return _LIMITED_SECONDS if limited else None


def host_time(response: Response, *, now: float) -> float:
    """The host's own clock when it answered, so that ours may be wrong; `now` if it does not say."""
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError, OSError):
        return now


def words(response: Response, *secrets: str) -> str:
    """What an error answer says, in brackets for a sentence: cut, on one line, never one of our `secrets`."""
    try:
        answer = _Answer.model_validate_json(response.content)
    except ValidationError:
        return ""
    said = ": ".join(text for text in (answer.message, *(error.message for error in answer.errors)) if text)
    for secret in filter(None, secrets):
        said = said.replace(secret, "TOKEN")
    printable = "".join(one if one.isprintable() else " " for one in said)
    return f" ({printable[:_LONGEST_EXCERPT]})" if printable else ""


def kind_of(exc: Exception) -> str:
    """The class of what really went wrong, which is all that is told of it: its text may hold what was sent."""
    origin = exc.exc if isinstance(exc, RequestError) else exc
    return type(origin).__name__


def _number(text: str) -> float | None:
    # Bounded, since a header of a thousand digits is a number too.
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= len("9999999999999") else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
