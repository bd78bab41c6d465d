"""What `bridgectl doctor` asks GitHub: that it answers, and that statuses can be posted for each project.

Nothing is stored there: a token is tried with a status for a commit that cannot exist, which GitHub refuses with
422 only to those who may post one.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from githubkit import GitHub, TokenAuthStrategy, UnauthAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import BaseModel, ValidationError

from bridge.core.checkups import Finding, named, ok, unknown, warning, wrong
from bridge.core.projects import Project
from bridge.errors import Forbidden, NotFound, Unavailable
from bridge.github.app import CHECKS, STATUSES, App
from bridge.github.calls import Calls, Response, is_repository, kind_of, wait_seconds, words

NO_COMMIT = "bridge-doctor"
"""In place of a commit's sha, which it can never be."""
LITTLE = 0.1
"""So small a share of the rate limit is little."""

_OK, _UNAUTHORIZED, _NOT_FOUND, _NO_SUCH_COMMIT = 200, 401, 404, 422
_REDIRECTS = range(300, 400)
_BROKEN = 500
_NETWORK = (
    "let pods reach it (networkPolicies.egressPorts of the chart, a proxy), "
    "or set github.apiUrl (BRIDGE_GITHUB_API_URL)"
)
_REMEDY = (
    "make a token with repo:status (classic) or `Commit statuses: write` (fine-grained) the project's github.token"
)


class _Rate(BaseModel):
    limit: int
    remaining: int
    reset: int


class _Rates(BaseModel):
    rate: _Rate


class GitHubDiagnosis:
    """The checks of GitHub.

    Args:
        base_url: of the API. Raises BadSettings if it is no http(s) URL.
        app: the GitHub App, if there is one.
        now: the time.

    """

    def __init__(self, base_url: str, *, app: App | None, now: Callable[[], float] = time.time) -> None:
        self._base_url = base_url
        self._calls = Calls(base_url)
        self._app = app
        self._now = now

    def answers(self) -> Iterator[Finding]:
        """That the API can be reached."""
        response = self._asked("GET", "/rate_limit")
        if isinstance(response, str):
            yield wrong("github.api", f"{self._base_url} gives no usable answer ({response})", _NETWORK)
        elif response.status_code >= _BROKEN or response.status_code in _REDIRECTS:
            yield wrong("github.api", f"{self._base_url} answers {response.status_code}", _NETWORK)
        else:
            yield ok("github.api", f"{self._base_url} answers")

    def projects(self, projects: Sequence[Project]) -> Iterator[Finding]:
        """That a status can be posted for each project, by the App or by its own token; and how much is left."""
        silent: list[str] = []
        by_app: list[str] = []
        by_token: list[str] = []
        limits: dict[str, str] = {}
        for project in projects:
            repository = project.repository or project.name
            token, finding = self._of_app(project.name, repository)
            if token:
                by_app.append(project.name)
                # All repositories of an installation share its limit.
                limits.setdefault(repository.partition("/")[0], token)
                continue
            if not project.token:
                silent += [] if finding else [project.name]
                yield from [finding] if finding else []
                continue
            refusal = self._refusal(project.name, repository, project.token)
            if refusal is not None:
                yield refusal
                continue
            by_token.append(project.name)
            limits.setdefault(project.token, project.token)
        if silent:
            yield warning(
                "github.credentials",
                f"nobody may post statuses for {named(silent)}: they stay on the run's page",
                f"set the GitHub App (docs/install.md), or {_REMEDY}",
            )
        for how, posted in (("the App", by_app), ("their own tokens", by_token)):
            if posted:
                yield ok("github.statuses", f"statuses can be posted by {how} for {named(posted)}")
        with_app = [project for project in projects if project.name in by_app]
        yield from self._checks({project.repository or project.name for project in with_app})
        for token in limits.values():
            yield from self._left(token)

    def _of_app(self, name: str, repository: str) -> tuple[str, Finding | None]:
        """The App's token for a repository; or what is wrong with it."""
        if self._app is None:
            return "", None
        check = "github.app"
        try:
            return self._app.token(repository, STATUSES).token, None
        except (NotFound, Forbidden) as exc:
            told, _, remedy = str(exc).rpartition("; ")
            return "", wrong(check, f"project {name}: {told}", remedy)
        except Unavailable as exc:
            return "", unknown(check, f"project {name}: {exc}", "run this again")

    def _checks(self, repositories: Collection[str]) -> Iterator[Finding]:
        """By what runs are reported where the App is; what an installation may is the same for all of an owner."""
        if self._app is None or not repositories:
            return
        may, may_not = [], []
        for owner, one in {name.partition("/")[0]: name for name in sorted(repositories)}.items():
            try:
                self._app.token(one, CHECKS)
            except (NotFound, Forbidden, Unavailable):
                may_not.append(owner)
            else:
                may.append(owner)
        if may:
            yield ok("github.checks", f"the App may write check runs for repositories of {named(may)}")
        if may_not:
            yield ok(
                "github.checks",
                f"the App may not write check runs for repositories of {named(may_not)}: they have statuses",
            )

    def _refusal(self, name: str, repository: str, token: str) -> Finding | None:
        """Why a project's own token cannot post statuses; None if it can."""
        check, told = "github.token", f"the github.token of project {name}"
        if not is_repository(repository):
            return wrong(
                check, f"project {name}: {repository[:100]!r} is no repository", "set its repository to owner/name"
            )
        response = self._asked("POST", f"/repos/{repository}/statuses/{NO_COMMIT}", token)
        if isinstance(response, str):
            return unknown(check, f"{told}: GitHub gave no usable answer ({response})", "run this again")
        status = response.status_code
        if status == _NO_SUCH_COMMIT:
            return None
        said = f"{status}{words(response, token)}"
        if wait_seconds(response, now=self._now()) is not None or status >= _BROKEN:
            return unknown(check, f"{told}: GitHub answered {said}", "run this again later")
        if status == _UNAUTHORIZED:
            return wrong(check, f"{told} is refused: {said}", _REMEDY)
        if status in _REDIRECTS:
            return wrong(
                check, f"{repository} was renamed or moved", "set the project's repository to its new name"
            )
        return wrong(check, f"{told} may not post statuses to {repository}: {said}", _REMEDY)

    def _left(self, token: str) -> Iterator[Finding]:
        response = self._asked("GET", "/rate_limit", token)
        if isinstance(response, str) or response.status_code != _OK:
            # GitHub Enterprise Server has no limits unless it is told to.
            return
        try:
            rate = _Rates.model_validate_json(response.content).rate
        except ValidationError:
            return
        told = f"{rate.remaining} of {rate.limit} requests are left in this hour"
        if rate.remaining < rate.limit * LITTLE:
            minutes = max(0.0, rate.reset - self._now()) / 60.0
            yield warning(
                "github.limit",
                f"{told}, new ones in {minutes:.0f} min",
                "statuses wait for them; look at who else uses these credentials",
            )
            return
        yield ok("github.limit", told)

    def _asked(self, method: str, path: str, token: str = "") -> Response | str:
        """The answer, also a refusal; or the kind of error that kept one from coming."""
        body = {"state": "success", "context": "bridge/doctor"} if method == "POST" else None
        auth = TokenAuthStrategy(token) if token else UnauthAuthStrategy()

        def ask(github: GitHub[Any]) -> Response:
            return github.request(method, path) if body is None else github.request(method, path, json=body)

        try:
            return self._calls.within(auth, ask)
        except RequestFailed as exc:
            return exc.response
        except Exception as exc:  # noqa: BLE001 - httpx's, and what githubkit makes of odd headers
            return kind_of(exc)
