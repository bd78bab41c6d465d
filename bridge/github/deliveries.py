"""GitHub's logs of deliveries, of our App's webhook and of repositories' webhooks: the ports of flows.sweeping.

Only hooks that point to our gateway are looked at: a repository has others, and what they lost is not ours to send
again. That a project's token may not see hooks is usual; then it is the App's log alone, or nothing.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from bridge.core.deliveries import Attempt
from bridge.core.projects import Project
from bridge.errors import Forbidden, NotFound, Unavailable
from bridge.flows.sweeping import DeliveryLog, Page, Recorded
from bridge.github.app import App
from bridge.github.calls import Calls, Response, host_time, is_repository, kind_of, wait_seconds, words
from bridge.ports import Clock

APP = "the GitHub App"
"""The source that is the App's own webhook; the others are the names of projects."""
HOOKS_SECONDS = 3600.0
"""So long it is believed which hooks there are."""
LEFT_FOR_OTHERS = 0.2
"""So large a share of a rate limit is never used up here: statuses matter more."""

_OK = range(200, 300)
_FORBIDDEN = frozenset({401, 403})
_GONE = frozenset({400, 404, 410, 422})
_PER_PAGE = 100
_UNDER_WAY = "pending"
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="next"')
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[\x21-\x7e]+")


class _Hooked(BaseModel):
    url: str | None = None


class _Hook(BaseModel):
    id: int
    active: bool = True
    config: _Hooked = _Hooked()


class _Logged(BaseModel):
    id: int
    guid: str
    delivered_at: AwareDatetime
    status: str | None = None
    status_code: int | None = None


class _Sent(BaseModel):
    headers: dict[str, str] | None = None
    payload: dict[str, Any] | None = None


class _Recorded(BaseModel):
    request: _Sent


_HOOKS = TypeAdapter(list[_Hook])
_LOGGED = TypeAdapter(list[_Logged])
_HOOKED = TypeAdapter(_Hooked)
_RECORDED = TypeAdapter(_Recorded)

_Ask = Callable[..., Response]
"""Of method, path and act, with what githubkit's request takes; answers also a refusal."""


class GitHubDeliveries:
    """The port DeliveryLogs. One thread at a time.

    Args:
        projects: answers the projects there are.
        webhook_url: where our webhooks point to; hooks that point elsewhere are none of ours.
        app: our App, if there is one.
        base_url: of the API, from the settings. Raises BadSettings if it is no http(s) URL.
        clock: time.

    """

    def __init__(
        self,
        projects: Callable[[], Sequence[Project]],
        *,
        webhook_url: str,
        app: App | None,
        base_url: str,
        clock: Clock,
    ) -> None:
        self._projects = projects
        self._webhook = _normal(webhook_url)
        self._app = app
        self._calls = Calls(base_url)
        self._clock = clock
        self._found: dict[str, tuple[float, Sequence[DeliveryLog]]] = {}
        self._low_until: dict[str, float] = {}

    def sources(self) -> list[str]:
        """See DeliveryLogs. Of projects with one repository the first is enough."""
        by_repository: dict[str, str] = {}
        for project in self._projects():
            if project.token and is_repository(_repository(project)):
                by_repository.setdefault(_repository(project).lower(), project.name)
        self._found = {name: one for name, one in self._found.items() if name in {APP, *by_repository.values()}}
        return [*([APP] if self._app else []), *by_repository.values()]

    def of(self, source: str) -> Sequence[DeliveryLog]:
        """See DeliveryLogs."""
        now = self._clock.monotonic()
        until, logs = self._found.get(source, (now, ()))
        if now < until:
            return logs
        logs = self._of_app(self._app) if source == APP and self._app else self._of_project(source)
        self._found[source] = (now + HOOKS_SECONDS, logs)
        return logs

    def _of_app(self, app: App) -> Sequence[DeliveryLog]:
        def ask(method: str, path: str, act: str, **sent: Any) -> Response:
            return self._checked(APP, act, lambda: app.ask(method, path, act, **sent))

        hooked = _read(_HOOKED, ask("GET", "/app/hook/config", "reading the App's webhook"))
        if _normal(hooked.url or "") != self._webhook:
            raise Forbidden(
                "the App's webhook points elsewhere than BRIDGE_WEBHOOK_URL says: what it lost is not ours to send"
            )
        return (_Log("the App's webhook", "/app/hook/deliveries", ask, self._clock),)

    def _of_project(self, name: str) -> Sequence[DeliveryLog]:
        project = next((one for one in self._projects() if one.name == name), None)
        if project is None or not _TOKEN.fullmatch(project.token):
            raise Forbidden("the project is gone, or its token has characters that no token has")
        repository = _repository(project)

        def ask(method: str, path: str, act: str, **sent: Any) -> Response:
            return self._checked(
                project.token, act, lambda: self._by_token(project.token, method, path, act, **sent)
            )

        path = f"/repos/{repository}/hooks"
        try:
            answer = ask("GET", path, f"listing the webhooks of {repository}", params={"per_page": _PER_PAGE})
        except NotFound as exc:
            # With 404 GitHub also refuses a token that may not see them.
            raise Forbidden(str(exc)) from None
        return tuple(
            _Log(f"webhook {hook.id} of {repository}", f"{path}/{hook.id}/deliveries", ask, self._clock)
            for hook in _read(_HOOKS, answer)
            if hook.active and _normal(hook.config.url or "") == self._webhook
        )

    def _by_token(self, token: str, method: str, path: str, act: str, **sent: Any) -> Response:
        def request(github: GitHub[TokenAuthStrategy]) -> Response:
            return github.request(method, path, **sent)

        try:
            return self._calls.within(TokenAuthStrategy(token), request)
        except RequestFailed as exc:
            return exc.response
        except Exception as exc:  # noqa: BLE001 - httpx's, and what githubkit makes of odd headers
            # Not its cause: what the client raises may hold the request.
            raise Unavailable(
                f"{act}: no usable answer from GitHub's API ({kind_of(exc)}); it is tried again"
            ) from None

    def _checked(self, credentials: str, act: str, asked: Callable[[], Response]) -> Response:
        """An answer that is none of refusal. `credentials` are those that a rate limit belongs to."""
        left = self._low_until.get(credentials, 0.0) - self._clock.monotonic()
        if left > 0:
            raise Unavailable(f"{act}: little is left of GitHub's rate limit; later", retry_after_seconds=left)
        response = asked()
        self._mind_the_limit(credentials, response)
        status = response.status_code
        if status in _OK:
            return response
        said = f"{act}: GitHub answered {status}{words(response, credentials)}"
        wait = wait_seconds(response, now=self._clock.now())
        if wait is not None:
            raise Unavailable(f"{said}; later", retry_after_seconds=wait)
        if status in _FORBIDDEN:
            raise Forbidden(f"{said}; a project's token needs admin:repo_hook (classic) or `Webhooks: write`")
        if status in _GONE:
            raise NotFound(said)
        raise Unavailable(f"{said}; it is tried again")

    def _mind_the_limit(self, credentials: str, response: Response) -> None:
        limit, remaining, reset = (
            _number(response.headers.get(f"x-ratelimit-{name}", "")) for name in ("limit", "remaining", "reset")
        )
        if limit and remaining < limit * LEFT_FOR_OTHERS:
            seconds = reset - host_time(response, now=self._clock.now())
            self._low_until[credentials] = self._clock.monotonic() + min(max(seconds, 1.0), 3600.0)


@dataclass(frozen=True)
class _Log:
    """The port DeliveryLog over one hook's."""

    name: str
    path: str
    ask: _Ask
    clock: Clock

    def page(self, cursor: str) -> Page:
        """See DeliveryLog."""
        params: Mapping[str, Any] = {"per_page": _PER_PAGE, **({"cursor": cursor} if cursor else {})}
        answer = self.ask("GET", self.path, f"reading the deliveries of {self.name}", params=params)
        attempts = tuple(
            Attempt(
                id=one.id,
                guid=one.guid,
                delivered=one.delivered_at.timestamp(),
                status_code=one.status_code or 0,
                under_way=not one.status_code and (one.status or "").lower() == _UNDER_WAY,
            )
            for one in _read(_LOGGED, answer)
        )
        following = _cursor(answer.headers.get("link", ""))
        if following == cursor:
            # Of no use, and it would go round.
            following = ""
        return Page(attempts, following, host_time(answer, now=self.clock.now()))

    def recorded(self, attempt: Attempt) -> Recorded:
        """See DeliveryLog."""
        act = f"reading a delivery of {self.name}"
        sent = _read(_RECORDED, self.ask("GET", f"{self.path}/{attempt.id}", act)).request
        if sent.payload is None:
            raise NotFound(f"{act}: GitHub has no payload of it any more")
        return Recorded(sent.headers or {}, json.dumps(sent.payload).encode())

    def redeliver(self, attempt: Attempt) -> None:
        """See DeliveryLog."""
        self.ask("POST", f"{self.path}/{attempt.id}/attempts", f"asking for a delivery of {self.name} again")


def _read(kind: TypeAdapter[Any], response: Response) -> Any:
    try:
        return kind.validate_json(response.content)
    except ValidationError:
        raise Unavailable(
            "reading webhooks: GitHub's answer cannot be read; check that BRIDGE_GITHUB_API_URL is GitHub's API"
        ) from None


def _cursor(link: str) -> str:
    """The cursor of the next page. Of its URL nothing else is used: whom we ask is ours to say."""
    found = _NEXT.search(link)
    return parse_qs(urlsplit(found[1]).query).get("cursor", [""])[0] if found else ""


def _repository(project: Project) -> str:
    return project.repository or project.name


def _normal(url: str) -> tuple[str, str, int | None, str, str]:
    """A URL so that two that mean the same are equal."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ("", "", None, url, "")
    return (parts.scheme, (parts.hostname or "").lower(), port, parts.path.rstrip("/"), parts.query)


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= len("9999999999999") else 0.0
