"""Commit statuses on GitHub: the port `Reports`.

Traps that this module steps round, each seen in githubkit 0.16.1 or on GitHub (facts/github.md):

- a redirect (a repository that was renamed) counts as a success there, though nothing was stored;
- texts with characters of four bytes, or over 140 characters, are refused for ever;
- after 1,000 statuses of a sha and context every one is refused: the last one is kept for the end;
- a post whose answer is lost may be stored later, on top of whatever came meanwhile.
"""

import hashlib
import logging
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestError, RequestFailed
from pydantic import BaseModel, ValidationError

from bridge.core.runs import Report, Run
from bridge.errors import StatusNotPosted, StatusOverwritten, StatusPutOff
from bridge.flows.fencing import NotLeading
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
from bridge.github.contexts import MOST_STATUSES, Contexts, Posted, Shown
from bridge.github.limits import Limits
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

SLOW_POST_SECONDS = 5.0
"""A post that took so long may have been overtaken: this process may even have slept while another one leads."""
COMMIT_SECONDS = 300.0
"""So long after its delivery a commit may still come into sight (home-assistant/service-hub#394)."""

_CREATED = 201
_GATEWAY_TIMEOUT = 504
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
_CREDENTIALS = frozenset({401, 403})
_ACCESS = frozenset({401, 403, 404})
_MAY_NOT_READ = frozenset({403, 404, 422})
_REDIRECTS = range(300, 400)

_COMMIT = re.compile(r"[0-9A-Fa-f]{7,64}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]")

_Client = GitHub[TokenAuthStrategy]
_Found = TypeVar("_Found")

log = logging.getLogger(__name__)


class _Made(BaseModel):
    id: int = 0


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
        limits: what is known of GitHub's limits; shared by all that write there.
        leads: whether this process may still write, asked right before it does.
        monotonic: seconds of this process's own time.

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
        limits: Limits | None = None,
        leads: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = Calls(base_url, timeout_seconds=timeout_seconds)
        self._token_of = token_of
        self._app = app
        self._repository_of = repository_of
        self._now = now
        self._limits = limits or Limits(now=now)
        self._leads = leads
        self._monotonic = monotonic
        self._contexts = Contexts()

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Let GitHub hold `report` for the run's commit, with a link to `url` if that is http(s).

        Answers GITHUB_APP or GITHUB, or NO_CREDENTIALS or NO_COMMIT, with which nothing was posted. A status that
        is the newest of its context already is not posted again, so that a post whose answer was lost, or after
        which the process died, stays one. After a final one the context is read once. Raises StatusNotPosted,
        StatusPutOff while a limit leaves no room, and StatusOverwritten when another one is on top of a final one,
        all without a token in their text or cause; and NotLeading, with nothing written. What `token_of` raises
        passes.
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
        post = _Post(
            run.id, report, _body(report, url), path, act, credentials, self._limited_as(run, credentials)
        )
        self._wait_for_room(post)
        held = False
        try:
            self._calls.within(TokenAuthStrategy(credentials.token), lambda github: self._deliver(github, post))
        except (StatusNotPosted, NotLeading):
            raise
        except (RequestFailed, _Redirected) as exc:
            if again and self._dropped(run, credentials, exc.response):
                return self._post(run, report, url, again=False)
            held = wait_seconds(exc.response, now=self._now()) is not None
            if self._may_come(run, exc.response):
                raise StatusNotPosted(
                    f"{act}: GitHub does not know the commit yet{words(exc.response, credentials.token)}; "
                    "it is tried again"
                ) from exc
            raise self._refused(exc.response, act, credentials) from exc
        except Exception as exc:
            raise StatusNotPosted(
                f"{act}: no usable answer from GitHub's API ({kind_of(exc)}); it is tried again",
                unsure=isinstance(exc, _Unanswered),
            ) from exc
        finally:
            self._tell_limits(post, held=held)
        return credentials.to

    def _may_come(self, run: Run, response: Response) -> bool:
        """Whether a fork's commit only cannot be seen from the repository yet, as right after a push."""
        return _NO_COMMIT_YET in response.content.lower() and self._now() < run.accepted + COMMIT_SECONDS

    def _limited_as(self, run: Run, credentials: _Credentials) -> str:
        """Whose limits count: an App's are its installation's, which an owner has one of."""
        if credentials.made is not None:
            return f"app:{self._repository(run).partition('/')[0].lower()}"
        return f"token:{hashlib.sha256(credentials.token.encode()).hexdigest()[:16]}"

    def _wait_for_room(self, post: "_Post") -> None:
        wait = self._limits.wait(post.limited_as, post.run, final=post.report.is_final)
        if wait is not None:
            raise StatusPutOff(
                f"{post.act}: put off for {wait.seconds:.0f} s: {wait.why}",
                retry_after_seconds=wait.seconds,
                turn=wait.turn,
            )

    def _tell_limits(self, post: "_Post", *, held: bool) -> None:
        if held and post.report.is_final:
            self._limits.hold(post.limited_as, post.run)
        else:
            self._limits.leave(post.limited_as, post.run)

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

    def _deliver(self, github: _Client, post: "_Post") -> None:
        before = self._shown(github, post)
        if before is not None and before.newest is not None and before.newest.says(post.body):
            return
        _check_budget(before, post)
        if not self._leads():
            raise NotLeading(f"{post.act}: left to the controller that leads")
        began = self._monotonic()
        made = self._made_status(github, post, post.body)
        slow = self._monotonic() - began > SLOW_POST_SECONDS or not self._leads()
        if post.report.is_final or slow:
            self._look_again(github, post, made, before)

    def _made_status(self, github: _Client, post: "_Post", body: Mapping[str, str]) -> int:
        """Post `body`; answers the id of the status that GitHub made of it, 0 if it does not say."""
        try:
            response = self._ask(github, post, "POST", post.path.format("statuses/"), json=dict(body))
        except RequestFailed:
            raise
        except Exception as exc:
            if kind_of(exc) in _NEVER_SENT:
                raise
            raise _Unanswered(exc) from exc
        if response.status_code != _CREATED:
            raise _Redirected(response)
        try:
            return _Made.model_validate_json(response.content).id
        except ValidationError:
            return 0

    def _look_again(self, github: _Client, post: "_Post", made: int, before: Shown | None) -> None:
        """Read the context once: what is there must be what was posted."""
        shown = self._recent(github, post)
        if shown is None:
            return
        newest = shown[0] if shown else None
        if newest is None or not (newest.id == made or newest.says(post.body)):
            # A read may be behind a write (dpb587/github-status-resource#3); then the next look finds it.
            on_top = "nothing" if newest is None else f"a status {newest.state[:20]!r}"
            raise StatusOverwritten(
                f"{post.act}: GitHub took it and shows {on_top} on top of this context; it is looked at again"
            )
        overtaken = _between(shown, before, made)
        if overtaken is not None and not overtaken.says(post.body):
            # What was decided before must not cover what was decided since; whose turn it is the next look tells.
            self._made_status(github, post, overtaken.as_body())
            raise StatusOverwritten(
                f"{post.act}: while it was on its way a newer status was written, which was put back on top"
            )

    def _shown(self, github: _Client, post: "_Post") -> Shown | None:
        """What the context shows; None where it may not be asked, and the post decides."""
        return self._read(
            lambda: self._contexts.read(
                post.path, post.report.context, lambda page: self._page(github, post, page)
            )
        )

    def _recent(self, github: _Client, post: "_Post") -> tuple[Posted, ...] | None:
        return self._read(
            lambda: self._contexts.recent(post.report.context, lambda page: self._page(github, post, page))
        )

    def _read(self, read: Callable[[], _Found]) -> _Found | None:
        try:
            return read()
        except RequestFailed as exc:
            limited = wait_seconds(exc.response, now=self._now()) is not None
            if exc.response.status_code in _MAY_NOT_READ and not limited:
                return None
            raise

    def _page(self, github: _Client, post: "_Post", page: int) -> Response:
        params = {"per_page": 100} | ({"page": page} if page > 1 else {})
        return self._ask(github, post, "GET", f"{post.path.format('commits/')}/statuses", params=params)

    def _ask(self, github: _Client, post: "_Post", method: str, path: str, **sent: Any) -> Response:
        """An answer, of which the limits are noted."""
        try:
            response: Response = github.request(method, path, **sent)
        except RequestFailed as exc:
            self._limits.saw(post.limited_as, exc.response, wrote=method == "POST")
            raise
        except Exception:
            self._limits.silent(wrote=method == "POST")
            raise
        self._limits.saw(post.limited_as, response, wrote=method == "POST")
        return response

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

    def _refused(self, response: Response, act: str, credentials: _Credentials) -> StatusNotPosted:
        status = response.status_code
        said = f"{act}: GitHub answered {status}{words(response, credentials.token)}"
        if status in _REMEDIES:
            remedy = _BUDGET_REMEDY if _NO_MORE in response.content.lower() else _REMEDIES[status]
            return StatusNotPosted(f"{said}; {remedy}", permanent=True)
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
        unsure = status == _GATEWAY_TIMEOUT
        return StatusNotPosted(f"{said}; it is tried again", retry_after_seconds=wait, unsure=unsure)


@dataclass(frozen=True)
class _Post:
    """One status on its way."""

    run: str
    report: Report
    body: dict[str, str]
    path: str
    """Of the commit's objects, with a place for which."""
    act: str
    credentials: _Credentials
    limited_as: str


class _Unanswered(Exception):
    """A post was sent and nobody knows what became of it."""

    def __init__(self, exc: Exception) -> None:
        super().__init__("sent without an answer")
        self.exc = exc.exc if isinstance(exc, RequestError) else exc


class _Redirected(Exception):
    """An answer that is no error for githubkit and yet stored nothing."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered without storing")
        self.response = response


_NO_COMMIT_YET = b"no commit found"
_NO_MORE = b"maximum number of statuses"
_BUDGET_REMEDY = f"it takes no more than {MOST_STATUSES:,} of a commit and context; push another commit"
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


def _check_budget(shown: Shown | None, post: _Post) -> None:
    """Raise rather than use up the last status of a commit and context for one that is not final."""
    if shown is not None and not post.report.is_final and shown.used >= MOST_STATUSES - 1:
        raise StatusNotPosted(
            f"{post.act}: {shown.used} of the {MOST_STATUSES:,} statuses that GitHub takes for a commit and "
            "context are used up, and the last one is kept for the end; push another commit",
            permanent=True,
        )


def _between(shown: Sequence[Posted], before: Shown | None, made: int) -> Posted | None:
    """The newest status that was written after `before` was read and before the one that was `made`."""
    if before is None or not made:
        return None
    return next((status for status in shown if before.highest < status.id < made), None)
