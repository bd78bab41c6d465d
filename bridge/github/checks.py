"""Check runs on GitHub: the port `Reports`, for whoever has an App that may write them.

What an attempt is reported by never changes within it: a commit status and a check run of one name are both looked
at where that name is required, and the one that nobody completes would stay in the way for ever (facts/github.md).
A run that was reported by statuses goes on with statuses.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import BaseModel

from bridge.core.builds import Build
from bridge.core.checks import COMPLETED, IN_PROGRESS, Check, attempt_of, check_of, conclusion_of
from bridge.core.reports import BY_CHECK
from bridge.core.runs import Report, Run
from bridge.errors import BridgeError, StatusNotPosted, StatusPutOff
from bridge.flows.fencing import NotLeading
from bridge.github.app import CHECKS, App, AppRefused, AppUnavailable, NotInstalled
from bridge.github.calls import (
    SLOW_SECONDS,
    TIMEOUT_SECONDS,
    Calls,
    Response,
    is_commit,
    is_link,
    is_repository,
    kind_of,
    wait_seconds,
    words,
)
from bridge.github.limits import Limits
from bridge.github.statuses import TAKEN
from bridge.ports import InstallationToken

GITHUB_CHECK = BY_CHECK
"""What `GitHubChecks.post` answers when GitHub holds the check run."""
NOT_BY_CHECKS = "not by checks"
"""What it answers when nothing was posted, and somebody else has to take the report."""

_OK = 200
_CREATED = 201
_ACCESS = frozenset({401, 403, 404})
_REDIRECTS = range(300, 400)
_UNPROCESSABLE = 422
_BARE = {"title": "see its page", "summary": "GitHub did not take the table of this run: its page has all of it."}
_PER_PAGE = 100
_MOST_PAGES = 10
"""GitHub keeps 1,000 check runs of a commit in reach."""

log = logging.getLogger(__name__)

_Client = GitHub[TokenAuthStrategy]


class _App(BaseModel):
    id: int = 0
    client_id: str | None = None


class _Output(BaseModel):
    title: str | None = None
    summary: str | None = None
    text: str | None = None


class _Found(BaseModel):
    """A check run that GitHub has."""

    id: int
    name: str
    external_id: str | None = None
    status: str
    conclusion: str | None = None
    details_url: str | None = None
    output: _Output = _Output()
    app: _App | None = None


class _Page(BaseModel):
    total_count: int
    check_runs: list[_Found]


@dataclass(frozen=True)
class _Place:
    """Where a check run goes, and with what."""

    repository: str
    commit: str
    made: InstallationToken

    @property
    def limited_as(self) -> str:
        """Whose limits count: an installation's, which an owner has one of."""
        return f"app:{self.repository.partition('/')[0].lower()}"


class _Refused(Exception):
    """An answer that is no error for githubkit and yet stored nothing."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered without storing")
        self.response = response


class _Unanswered(Exception):
    """Something was written and nobody knows what became of it: it may be taken, even later."""

    def __init__(self, kind: str) -> None:
        super().__init__("written without an answer")
        self.kind = kind


class GitHubChecks:
    """Reports runs by check runs where our App may write them. From any thread.

    Args:
        app: our App.
        builds_of: the builds of a run, for the table of steps.
        secrets_of: what must not be shown, for a project's name.
        log_of: a build's whole log, None where it is gone.
        base_url: of the API, from the settings. Raises BadSettings if it is no http(s) URL.
        repository_of: the repository (`owner/name`) of a project's name.
        timeout_seconds: for connecting, and again for each silence of GitHub.
        now: the clock, for an answer that has no Date.
        limits: what is known of GitHub's limits; shared by all that write there.
        leads: whether this process may still write, asked right before it does.
        monotonic: seconds of this process's own time, by which a refusal is believed for a while.

    """

    def __init__(
        self,
        app: App,
        *,
        builds_of: Callable[[str], Sequence[Build]] = lambda _run: (),
        secrets_of: Callable[[str], Iterable[str]] = lambda _project: (),
        log_of: Callable[[Build], str | None] = lambda _build: None,
        base_url: str = "https://api.github.com",
        repository_of: Callable[[str], str] = str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
        leads: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = Calls(base_url, timeout_seconds=timeout_seconds)
        self._app = app
        self._builds_of = builds_of
        self._secrets_of = secrets_of
        self._log_of = log_of
        self._repository_of = repository_of
        self._now = now
        self._limits = limits or Limits(now=now)
        self._leads = leads
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._refused_until: dict[str, float] = {}

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Let GitHub hold the check run of the report's attempt, one whatever happens.

        Answers GITHUB_CHECK; or NOT_BY_CHECKS, with which nothing was posted, where the App may not, there is no
        commit, or the run is reported by statuses. Once a check run stands for an attempt no other answer comes
        for it: what is refused then is tried again. Raises StatusNotPosted, and StatusPutOff while a limit leaves
        no room, without a token in their text or cause; and NotLeading, with nothing written.
        """
        started = _started(run, report)
        if not run.event.revision.commit or (_by_statuses(run) and not started):
            return NOT_BY_CHECKS
        repository = self._repository_of(run.event.project) or run.event.project
        if not started and self._is_refused(repository):
            return NOT_BY_CHECKS
        return self._post(run, report, repository, url=url, started=started, again=True)

    def _post(self, run: Run, report: Report, repository: str, *, url: str, started: bool, again: bool) -> str:
        act = f"posting the check {report.context[:100]!r} of run {run.id}"
        place = self._place(run, repository, act, started=started)
        if place is None:
            return NOT_BY_CHECKS
        self._wait_for_room(place, run, report, act)
        held = False
        try:
            check = self._check(run, report, url=url, token=place.made.token)
            self._calls.within(
                TokenAuthStrategy(place.made.token),
                lambda github: self._deliver(github, place, run, check, url=url),
            )
        except NotLeading:
            raise
        except (RequestFailed, _Refused) as exc:
            if again and self._dropped(place, exc.response):
                return self._post(run, report, repository, url=url, started=started, again=False)
            if not started and self._is_for_others(repository, act, exc.response, place):
                return NOT_BY_CHECKS
            held = wait_seconds(exc.response, now=self._now()) is not None
            raise self._refusal(exc.response, act, place) from exc
        except Exception as exc:
            self._limits.silent()
            kind = exc.kind if isinstance(exc, _Unanswered) else kind_of(exc)
            raise StatusNotPosted(
                f"{act}: no usable answer from GitHub's API ({kind}); it is tried again",
                unsure=isinstance(exc, _Unanswered),
            ) from exc
        finally:
            self._tell_limits(place, run, report, held=held)
        return GITHUB_CHECK

    def _wait_for_room(self, place: _Place, run: Run, report: Report, act: str) -> None:
        wait = self._limits.wait(place.limited_as, run.id, final=report.is_final)
        if wait is not None:
            raise StatusPutOff(
                f"{act}: put off for {wait.seconds:.0f} s: {wait.why}",
                retry_after_seconds=wait.seconds,
                turn=wait.turn,
            )

    def _tell_limits(self, place: _Place, run: Run, report: Report, *, held: bool) -> None:
        if held and report.is_final:
            self._limits.hold(place.limited_as, run.id)
        else:
            self._limits.leave(place.limited_as, run.id)

    def _is_for_others(self, repository: str, act: str, response: Response, place: _Place) -> bool:
        """Whether a refusal means that statuses may do where checks do not."""
        if response.status_code == _UNPROCESSABLE:
            return True
        if response.status_code not in _ACCESS or wait_seconds(response, now=self._now()) is not None:
            return False
        self._refuse(repository, act, response, place)
        return True

    def _place(self, run: Run, repository: str, act: str, *, started: bool) -> _Place | None:
        """Where the check run goes; None where the App may not write any and none was begun."""
        commit = run.event.revision.commit
        if not is_repository(repository) or not is_commit(commit):
            # Whoever posts statuses says what is wrong with it.
            return None
        try:
            return _Place(repository, commit, self._app.token(repository, CHECKS))
        except (AppRefused, NotInstalled) as exc:
            if not started:
                return None
            raise StatusNotPosted(
                f"{act}: a check run was begun and cannot be completed: {exc}", retry_after_seconds=SLOW_SECONDS
            ) from None
        except AppUnavailable as exc:
            raise StatusNotPosted(f"{act}: {exc}", retry_after_seconds=exc.retry_after_seconds) from None

    def _check(self, run: Run, report: Report, *, url: str, token: str) -> Check:
        """What the check run says. The builds and their logs are a table and an excerpt: without them it is told
        all the same how the run ended."""
        try:
            # While it goes on the table is what the record remembers.
            builds = self._builds_of(run.id) if report.is_final else ()
        except BridgeError as exc:
            log.warning("the check of run %s has no table: %s", run.id, exc)
            builds = ()
        secrets = (*self._secrets_of(run.event.project), token)
        return check_of(run, report, builds, url=url, secrets=secrets, log_of=self._log)

    def _log(self, build: Build) -> str | None:
        try:
            return self._log_of(build)
        except BridgeError as exc:
            log.warning("the log of build %s is not shown: %s", build.id, exc)
            return None

    def _deliver(self, github: _Client, place: _Place, run: Run, check: Check, *, url: str) -> None:
        found = self._found(github, place, check.name)
        ours = sorted((one for one in found if one.external_id == check.external_id), key=lambda one: one.id)
        # Before the new one begins: of one name the newest counts.
        self._leave_none_open(github, place, run, [one for one in found if one not in ours])
        body = _body(check, url)
        if not ours:
            self._send(github, "POST", place, "", {"head_sha": place.commit, **body})
            return
        for one in ours:
            # Two of one attempt are there when GitHub's list came too late to show the first.
            if not _is_done(one, check, body):
                self._send(github, "PATCH", place, f"/{one.id}", body)

    def _leave_none_open(self, github: _Client, place: _Place, run: Run, others: list[_Found]) -> None:
        """Complete what an earlier attempt, or a run that this one took over from, left in progress."""
        for one in others:
            named = attempt_of(one.external_id or "") if one.external_id else None
            if one.status != COMPLETED and named is not None:
                self._send(github, "PATCH", place, f"/{one.id}", _left_behind(run, *named))

    def _found(self, github: _Client, place: _Place, name: str) -> list[_Found]:
        """Our App's check runs of this name on the commit."""
        path = f"/repos/{place.repository}/commits/{place.commit}/check-runs"
        found: list[_Found] = []
        for page in range(1, _MOST_PAGES + 1):
            params: dict[str, Any] = {"check_name": name, "filter": "all", "per_page": _PER_PAGE, "page": page}
            if self._app.app_id.isdecimal():
                params["app_id"] = int(self._app.app_id)
            response = self._ask(github, place, "GET", path, params=params)
            if response.status_code != _OK:
                raise _Refused(response)
            answer = _Page.model_validate_json(response.content)
            found += answer.check_runs
            if len(answer.check_runs) < _PER_PAGE or len(found) >= answer.total_count:
                break
        return [one for one in found if one.name == name and self._is_ours(one)]

    def _is_ours(self, one: _Found) -> bool:
        return one.app is None or self._app.app_id in {str(one.app.id), one.app.client_id}

    def _send(self, github: _Client, method: str, place: _Place, path: str, body: dict[str, Any]) -> None:
        to = f"/repos/{place.repository}/check-runs{path}"
        try:
            response = self._write(github, place, method, to, body)
        except RequestFailed as exc:
            if exc.response.status_code != _UNPROCESSABLE:
                raise
            # Whatever it is that GitHub does not take, how it ended has to be told.
            log.warning("GitHub did not take a check's output%s", words(exc.response, place.made.token))
            response = self._write(github, place, method, to, {**body, "output": _BARE})
        if response.status_code not in {_OK, _CREATED}:
            raise _Refused(response)

    def _write(self, github: _Client, place: _Place, method: str, path: str, body: dict[str, Any]) -> Response:
        if not self._leads():
            raise NotLeading(f"writing a check of {place.repository}: left to the controller that leads")
        try:
            return self._ask(github, place, method, path, wrote=True, json=body)
        except RequestFailed:
            raise
        except Exception as exc:
            raise _Unanswered(kind_of(exc)) from exc

    def _ask(
        self, github: _Client, place: _Place, method: str, path: str, *, wrote: bool = False, **sent: Any
    ) -> Response:
        try:
            response = github.request(method, path, **sent)
        except RequestFailed as exc:
            self._limits.saw(place.limited_as, exc.response, wrote=wrote)
            raise
        self._limits.saw(place.limited_as, response, wrote=wrote)
        return response

    def _dropped(self, place: _Place, response: Response) -> bool:
        """Whether the token was refused and is forgotten now: what the App may do may have been changed."""
        if response.status_code not in _ACCESS or wait_seconds(response, now=self._now()) is not None:
            return False
        self._app.drop(place.repository, CHECKS, place.made)
        return True

    def _is_refused(self, repository: str) -> bool:
        with self._lock:
            return self._monotonic() < self._refused_until.get(repository.lower(), 0.0)

    def _refuse(self, repository: str, act: str, response: Response, place: _Place) -> None:
        """Believe for a while that the App may not write checks there."""
        said = words(response, place.made.token)
        log.warning("%s: GitHub answered %d%s; statuses are posted instead", act, response.status_code, said)
        with self._lock:
            self._refused_until[repository.lower()] = self._monotonic() + SLOW_SECONDS

    def _refusal(self, response: Response, act: str, place: _Place) -> StatusNotPosted:
        status = response.status_code
        said = f"{act}: GitHub answered {status}{words(response, place.made.token)}"
        if status == _UNPROCESSABLE:
            return StatusNotPosted(f"{said}; it will not take this check for this commit", permanent=True)
        if status in _REDIRECTS:
            return StatusNotPosted(
                f"{said}; the repository was renamed or moved: set the project's repository to its new name",
                retry_after_seconds=SLOW_SECONDS,
            )
        wait = wait_seconds(response, now=self._now())
        if wait is None and status in _ACCESS:
            remedy = "let the GitHub App's installation write checks again: a check run of this attempt was begun"
            return StatusNotPosted(f"{said}; {remedy}", retry_after_seconds=SLOW_SECONDS)
        return StatusNotPosted(f"{said}; it is tried again", retry_after_seconds=wait)


def _started(run: Run, report: Report) -> bool:
    """Whether a check run of the report's attempt is known to be there."""
    reported = run.state.reported
    return run.state.reported_to == GITHUB_CHECK and reported is not None and reported.attempt == report.attempt


def _by_statuses(run: Run) -> bool:
    return run.state.reported is not None and run.state.reported_to in TAKEN


def _is_done(one: _Found, check: Check, body: dict[str, Any]) -> bool:
    """Whether nothing more is to be told of it: a completed one is never in progress again."""
    if one.status != COMPLETED:
        return check.status == IN_PROGRESS and one.status == IN_PROGRESS
    if check.status == IN_PROGRESS:
        return True
    shown = {name: text or "" for name, text in one.output.model_dump().items()}
    sent = {"title": "", "summary": "", "text": "", **body["output"]}
    return one.conclusion == check.conclusion and shown == sent


def _body(check: Check, url: str) -> dict[str, Any]:
    output = {"title": check.title, "summary": check.summary, "text": check.text}
    body: dict[str, Any] = {
        "name": check.name,
        "external_id": check.external_id,
        "status": check.status,
        "started_at": _time(check.started),
        "output": {name: text for name, text in output.items() if text},
    }
    if check.conclusion:
        body["conclusion"] = check.conclusion
    if check.completed is not None:
        body["completed_at"] = _time(check.completed)
    return body | {"details_url": url} if is_link(url) else body


def _left_behind(run: Run, named: str, n: int) -> dict[str, Any]:
    """The end of a check run that will not be told of any more."""
    attempt = run.attempt_numbered(n) if named == run.id else None
    ended = attempt is not None and attempt.verdict is not None
    newest = f"attempt {run.attempt.n} of it" if run.attempt and named == run.id else f"run {run.id}"
    return {
        "status": COMPLETED,
        "conclusion": conclusion_of(run, attempt) if ended else "cancelled",
        "output": {"title": "goes on in a newer check", "summary": f"{newest} goes on from here."},
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
