"""Commit statuses on GitHub: the port `Reports`.

Traps that this module steps round, each seen in githubkit 0.16.1 or on GitHub (facts/github.md):

- a redirect (a repository that was renamed) counts as a success there, though nothing was stored;
- texts with characters of four bytes, or over 140 characters, are refused for ever.
"""

import logging
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import BaseModel, TypeAdapter, ValidationError

from bridge.core.runs import Report, Run
from bridge.errors import StatusNotPosted
from bridge.github.app import STATUSES, App, AppRefused, AppUnavailable, NotInstalled
from bridge.github.calls import (
    SLOW_SECONDS,
    TIMEOUT_SECONDS,
    Calls,
    Response,
    is_link,
    is_repository,
    kind_of,
    wait_seconds,
    words,
)
from bridge.ports import InstallationToken

GITHUB = "github"
"""What `GitHubStatuses.post` answers when GitHub holds the status, posted with the project's token."""
GITHUB_APP = "github app"
"""What it answers when GitHub holds the status, posted by our App."""
TAKEN = frozenset({GITHUB, GITHUB_APP})
"""With these GitHub holds it; with the others nothing was posted, and somebody else has to take it."""
NO_CREDENTIALS = "no credentials"
"""What it answers when neither the App nor a token of the project may post there."""
NO_COMMIT = "no commit"
"""What it answers when the event names no commit: there is nothing on GitHub to put a status on."""

LONGEST_DESCRIPTION = 140

_CREATED = 201
_CREDENTIALS = frozenset({401, 403})
_ACCESS = frozenset({401, 403, 404})
_MAY_NOT_READ = frozenset({403, 404, 422})
_REDIRECTS = range(300, 400)

_COMMIT = re.compile(r"[0-9A-Fa-f]{7,64}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]")

log = logging.getLogger(__name__)


class _Posted(BaseModel):
    state: str
    context: str
    description: str | None = None
    target_url: str | None = None


_POSTED = TypeAdapter(list[_Posted])


@dataclass(frozen=True)
class _Credentials:
    """With what a status is posted."""

    to: str
    token: str = field(repr=False)
    made: InstallationToken | None = None
    """The App's, if it is one of that."""


class GitHubStatuses:
    """Posts commit statuses as our App where it is installed, else with each project's own token.

    Args:
        token_of: the token for a project's name, or None.
        app: our App, if there is one.
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
        app: App | None = None,
        base_url: str = "https://api.github.com",
        repository_of: Callable[[str], str] = str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._calls = Calls(base_url, timeout_seconds=timeout_seconds)
        self._token_of = token_of
        self._app = app
        self._repository_of = repository_of
        self._now = now

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Let GitHub hold `report` for the run's commit, with a link to `url` if that is http(s).

        Answers GITHUB_APP or GITHUB, or NO_CREDENTIALS or NO_COMMIT, with which nothing was posted. A status that
        is the newest of its context already is not posted again, so that a post whose answer was lost, or after
        which the process died, stays one. Raises StatusNotPosted, without a token in its text or cause;
        what `token_of` raises passes.
        """
        if not run.event.revision.commit:
            return NO_COMMIT
        return self._post(run, report, url, again=True)

    def _post(self, run: Run, report: Report, url: str, *, again: bool) -> str:
        act = f"posting the status {report.context[:100]!r} of run {run.id}"
        credentials = self._credentials(run, act)
        if credentials is None:
            return NO_CREDENTIALS
        path = self._path(run, act)
        _check(report, credentials.token, act)
        try:
            self._deliver(credentials, path, _body(report, url))
        except (RequestFailed, _Redirected) as exc:
            if again and self._dropped(run, credentials, exc.response):
                return self._post(run, report, url, again=False)
            raise self._refused(exc.response, act, credentials) from exc
        except Exception as exc:
            raise StatusNotPosted(
                f"{act}: no usable answer from GitHub's API ({kind_of(exc)}); it is tried again"
            ) from exc
        return credentials.to

    def _credentials(self, run: Run, act: str) -> _Credentials | None:
        """The App's token, else the project's; None if there is neither."""
        refused: AppRefused | None = None
        try:
            made = self._made(run)
        except AppRefused as exc:
            made, refused = None, exc
        except AppUnavailable as exc:
            raise StatusNotPosted(f"{act}: {exc}", retry_after_seconds=exc.retry_after_seconds) from None
        if made is not None:
            return _Credentials(GITHUB_APP, made.token, made)
        token = (self._token_of(run.event.project) or "").strip()
        if refused is None:
            return _Credentials(GITHUB, token) if token else None
        if not token:
            raise StatusNotPosted(f"{act}: {refused}", retry_after_seconds=SLOW_SECONDS) from None
        log.warning("%s with the project's own token: %s", act, refused)
        return _Credentials(GITHUB, token)

    def _made(self, run: Run) -> InstallationToken | None:
        """The App's token for the run's repository; None where it is not installed."""
        if self._app is None:
            return None
        try:
            return self._app.token(self._repository(run), STATUSES)
        except NotInstalled:
            return None

    def _dropped(self, run: Run, credentials: _Credentials, response: Response) -> bool:
        """Whether a token of the App was refused and is forgotten now: it may have been revoked since it was made,
        or what the App may do was changed, so that a new one, or the project's own, may do."""
        if self._app is None or credentials.made is None or response.status_code not in _ACCESS:
            return False
        if wait_seconds(response, now=self._now()) is not None:
            return False
        self._app.drop(self._repository(run), STATUSES, credentials.made)
        return True

    def _deliver(self, credentials: _Credentials, path: str, body: Mapping[str, str]) -> None:
        def deliver(github: GitHub[TokenAuthStrategy]) -> None:
            if self._is_newest(github, path, body):
                return
            response = github.request("POST", path.format("statuses/"), json=dict(body))
            if response.status_code != _CREATED:
                raise _Redirected(response)

        self._calls.within(TokenAuthStrategy(credentials.token), deliver)

    def _repository(self, run: Run) -> str:
        return self._repository_of(run.event.project) or run.event.project

    def _path(self, run: Run, act: str) -> str:
        repository = self._repository(run)
        if not is_repository(repository):
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

    def _is_newest(self, github: GitHub[TokenAuthStrategy], path: str, body: Mapping[str, str]) -> bool:
        """Whether GitHub shows exactly this status already. Where it may not be asked, the post decides."""
        try:
            response = github.request("GET", f"{path.format('commits/')}/statuses", params={"per_page": 100})
            statuses = _POSTED.validate_json(response.content)
        except RequestFailed as exc:
            limited = wait_seconds(exc.response, now=self._now()) is not None
            if exc.response.status_code in _MAY_NOT_READ and not limited:
                return False
            raise
        except ValidationError:
            return False
        newest = next((status for status in statuses if status.context == body["context"]), None)
        if newest is None:
            return False
        shown = (newest.state, newest.description or "", newest.target_url or "")
        return shown == (body["state"], body["description"], body.get("target_url", ""))

    def _refused(self, response: Response, act: str, credentials: _Credentials) -> StatusNotPosted:
        status = response.status_code
        said = f"{act}: GitHub answered {status}{words(response, credentials.token)}"
        if status in _REMEDIES:
            return StatusNotPosted(f"{said}; {_REMEDIES[status]}", permanent=True)
        if status in _REDIRECTS:
            return StatusNotPosted(
                f"{said}; the repository was renamed or moved: set the project's repository to its new name",
                retry_after_seconds=SLOW_SECONDS,
            )
        wait = wait_seconds(response, now=self._now())
        if wait is None and status in _CREDENTIALS:
            remedy = "give the project a token that is valid and may write commit statuses"
            if credentials.made is not None:
                remedy = "let the GitHub App's installation write commit statuses"
            return StatusNotPosted(f"{said}; {remedy}", retry_after_seconds=SLOW_SECONDS)
        return StatusNotPosted(f"{said}; it is tried again", retry_after_seconds=wait)


class _Redirected(Exception):
    """An answer that is no error for githubkit and yet stored nothing."""

    def __init__(self, response: Response) -> None:
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
    return body | {"target_url": url} if is_link(url) else body


def _check(report: Report, token: str, act: str) -> None:
    """Refuse what HTTP cannot carry before a client puts it, token included, into an exception's text."""
    if not _TOKEN.fullmatch(token):
        raise StatusNotPosted(
            f"{act}: the project's token has characters that no token has; set it anew",
            retry_after_seconds=SLOW_SECONDS,
        )
    if _UNFIT.search(report.context):
        raise StatusNotPosted(
            f"{act}: the context has characters that GitHub refuses; give the pipeline another",
            permanent=True,
        )
