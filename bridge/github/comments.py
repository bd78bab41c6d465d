"""Comments on GitHub: may somebody write there, where a pull request stands, reactions and answers.

The port flows.commenting.Conversations. Who calls has little time, so each call gets what is left of it, and none
begins when nearly nothing is. What pull requests' comments need of a token is `pull_requests: write`; permissions
come with `metadata: read`, which every token has (docs/install.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from githubkit import TokenAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import BaseModel, TypeAdapter, ValidationError

from bridge.core.events.comments import Asking
from bridge.errors import Unavailable
from bridge.flows.commenting import ConversationRefused, Head
from bridge.github.app import Access, App, AppRefused, NotInstalled
from bridge.github.calls import Calls, Response, host_time, is_repository, kind_of, wait_seconds, words
from bridge.ports import Clock, InstallationToken

COMMENTS = Access("comments", {"metadata": "read", "pull_requests": "write"}, needed="pull_requests")
"""For commands in comments: reading pull requests and permissions, reactions and answers."""

CALL_SECONDS = 2.5
"""So long one call may take."""
LEAST_SECONDS = 0.5
"""With less than this left no call begins."""

_UNAUTHORIZED = 401
_NOT_FOUND = 404
_REFUSALS = frozenset({403, 410, 422})
_OK = range(200, 300)
_REDIRECTS = range(300, 400)
_LOOKED_AT = 100

_Model = TypeVar("_Model")


class _Permission(BaseModel):
    permission: str


class _Commit(BaseModel):
    sha: str


class _PullRequest(BaseModel):
    head: _Commit


class _Comment(BaseModel):
    body: str | None = None


_PERMISSION = TypeAdapter(_Permission)
_PULL_REQUEST = TypeAdapter(_PullRequest)
_COMMENTS = TypeAdapter(list[_Comment])


@dataclass(frozen=True)
class _Credentials:
    token: str = field(repr=False)
    made: InstallationToken | None = None
    """The App's, if it is one of that."""


class GitHubConversations:
    """Talks as our App where it is installed and may, else with each project's own token.

    Args:
        token_of: the token for a project's name, or None.
        app: our App, if there is one; its own timeout should be short.
        base_url: of the API, from the settings, never from an event. Raises BadSettings if it is no http(s) URL.
        repository_of: the repository (`owner/name`) of a project's name.
        clock: time.

    """

    def __init__(
        self,
        token_of: Callable[[str], str | None],
        *,
        app: App | None = None,
        base_url: str = "https://api.github.com",
        repository_of: Callable[[str], str] = str,
        clock: Clock,
    ) -> None:
        Calls(base_url)
        self._base_url = base_url
        self._token_of = token_of
        self._app = app
        self._repository_of = repository_of
        self._clock = clock

    def about(self, project: str, *, seconds: float) -> "GitHubConversation | None":
        """See the port."""
        until = self._clock.monotonic() + seconds
        repository = self._repository_of(project) or project
        if not is_repository(repository):
            raise ConversationRefused(
                f"{repository[:100]!r} is no repository's owner/name; set the project's repository"
            )
        if seconds < LEAST_SECONDS:
            raise _too_late(f"asking GitHub about a comment on {repository}")
        credentials = self._credentials(project, repository)
        if credentials is None:
            return None
        return GitHubConversation(
            repository, credentials, app=self._app, base_url=self._base_url, clock=self._clock, until=until
        )

    def _credentials(self, project: str, repository: str) -> _Credentials | None:
        refused: AppRefused | None = None
        if self._app is not None:
            try:
                made = self._app.token(repository, COMMENTS)
            except NotInstalled:
                pass
            except AppRefused as exc:
                refused = exc
            else:
                return _Credentials(made.token, made)
        token = (self._token_of(project) or "").strip()
        if token and token.isascii() and token.isprintable() and " " not in token:
            return _Credentials(token)
        if refused is not None:
            raise ConversationRefused(str(refused)) from None
        return None


class GitHubConversation:
    """One repository's pull requests for a short while; see the port flows.commenting.Conversation."""

    def __init__(
        self,
        repository: str,
        credentials: _Credentials,
        *,
        app: App | None,
        base_url: str,
        clock: Clock,
        until: float,
    ) -> None:
        self._repository = repository
        self._credentials = credentials
        self._app = app
        self._base_url = base_url
        self._clock = clock
        self._until = until

    def permission(self, login: str) -> str:
        """What somebody may do there; whom GitHub does not know may do nothing."""
        act = f"asking what {login} may do on {self._repository}"
        response = self._asked("GET", f"collaborators/{quote(login, safe='')}/permission", act)
        if response.status_code == _NOT_FOUND:
            return "none"
        return _read(_PERMISSION, self._good(response, act), act).permission

    def head(self, pull_request: int) -> Head:
        """The newest commit of a pull request, and how far GitHub's clock is ahead of ours."""
        act = f"asking for the head of {self._repository}#{pull_request}"
        response = self._good(self._asked("GET", f"pulls/{pull_request}", act), act)
        now = self._clock.now()
        sha = _read(_PULL_REQUEST, response, act).head.sha
        return Head(sha.lower(), host_time(response, now=now) - now)

    def react(self, comment: int, reaction: str) -> None:
        """React to a comment: GitHub keeps one reaction of a kind for each account."""
        act = f"reacting to comment {comment} on {self._repository}"
        path = f"issues/comments/{comment}/reactions"
        response = self._asked("POST", path, act, json={"content": reaction})
        if response.status_code != _NOT_FOUND:
            self._good(response, act)

    def answer(self, asking: Asking, text: str, mark: str) -> None:
        """Write a comment, unless one with `mark` was written since the one that asks."""
        path = f"issues/{asking.pull_request}/comments"
        act = f"answering a comment on {self._repository}#{asking.pull_request}"
        since = datetime.fromtimestamp(asking.written, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        response = self._asked("GET", path, act, params={"since": since, "per_page": _LOOKED_AT})
        if response.status_code == _NOT_FOUND:
            return
        written = _read(_COMMENTS, self._good(response, act), act)
        if any(mark in (comment.body or "") for comment in written):
            return
        self._good(self._asked("POST", path, act, json={"body": text}), act)

    def _asked(self, method: str, path: str, act: str, **sent: Any) -> Response:
        """What GitHub answers, also when it refuses. Raises Unavailable without an answer."""
        left = self._until - self._clock.monotonic()
        if left < LEAST_SECONDS:
            raise _too_late(act)
        calls = Calls(self._base_url, timeout_seconds=min(left, CALL_SECONDS))
        url = f"/repos/{self._repository}/{path}"
        try:
            return calls.within(
                TokenAuthStrategy(self._credentials.token), lambda github: github.request(method, url, **sent)
            )
        except RequestFailed as exc:
            return exc.response
        except Exception as exc:
            raise Unavailable(f"{act}: no usable answer from GitHub's API ({kind_of(exc)})") from exc

    def _good(self, response: Response, act: str) -> Response:
        """The answer, if it is no refusal. Raises Unavailable for one that may be lifted, ConversationRefused for
        one that a person has to lift."""
        status = response.status_code
        if status in _OK:
            return response
        said = f"{act}: GitHub answered {status}{words(response, self._credentials.token)}"
        wait = wait_seconds(response, now=self._clock.now())
        if wait is not None:
            raise Unavailable(f"{said}; the delivery has to come again", retry_after_seconds=wait)
        if status == _UNAUTHORIZED and self._app is not None and self._credentials.made is not None:
            # It may have been revoked since it was made: the next delivery gets another.
            self._app.drop(self._repository, COMMENTS, self._credentials.made)
            raise Unavailable(f"{said}; the delivery has to come again")
        if status in _REDIRECTS:
            raise ConversationRefused(f"{said}; the repository was renamed: set the project's to its new name")
        if status in {_UNAUTHORIZED, _NOT_FOUND, *_REFUSALS}:
            raise ConversationRefused(f"{said}; {_remedy(self._credentials)}")
        raise Unavailable(f"{said}; the delivery has to come again")


def _remedy(credentials: _Credentials) -> str:
    if credentials.made is not None:
        return "let the GitHub App's installation read and write pull requests"
    return "give the project a token that is valid and may read and write pull requests"


def _too_late(act: str) -> Unavailable:
    return Unavailable(f"{act}: there is no time left for it; the delivery has to come again")


def _read(model: "TypeAdapter[_Model]", response: Response, act: str) -> _Model:
    try:
        return model.validate_json(response.content)
    except ValidationError:
        raise Unavailable(
            f"{act}: the answer cannot be read; check that BRIDGE_GITHUB_API_URL is GitHub's API"
        ) from None
