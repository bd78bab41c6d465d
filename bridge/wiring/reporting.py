"""Where commit statuses go, and the GitHub App. Apart from the other ports: GitHub's client is slow to import."""

import contextlib
from collections.abc import Callable

from bridge.clocks import SystemClock
from bridge.core.runs import Report, Run
from bridge.errors import BadSettings, UnknownProject
from bridge.flows.commenting import Conversations
from bridge.flows.freshening import NoApp
from bridge.github.app import App, AppTokens
from bridge.github.calls import TIMEOUT_SECONDS
from bridge.github.comments import CALL_SECONDS, GitHubConversations
from bridge.github.limits import Limits
from bridge.github.statuses import TAKEN, GitHubStatuses
from bridge.ports import InstallationTokens, Projects, Reports
from bridge.settings import Settings

RECORD = "record"
"""Who acknowledges a status that nobody may post."""


class StatusesOr:
    """The port Reports: GitHub where there are credentials for the run's project, else somebody else.

    Args:
        github: posts where it may.
        otherwise: takes what nobody may post there.

    """

    def __init__(self, github: GitHubStatuses, otherwise: Reports) -> None:
        self._github = github
        self._otherwise = otherwise

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status; answers who took it. Raises StatusNotPosted."""
        to = self._github.post(run, report, url=url)
        return to if to in TAKEN else self._otherwise.post(run, report, url=url)


class Unposted:
    """The port Reports where nobody may post: the record itself keeps the status, and its page shows it."""

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Answers `record`; nothing is sent."""
        del run, report, url
        return RECORD


def cluster_reports(
    settings: Settings,
    projects: Projects,
    *,
    limits: Limits | None = None,
    leads: Callable[[], bool] = lambda: True,
) -> Reports:
    """Where the statuses of a cluster's runs go. `leads` is asked right before each write."""
    return StatusesOr(statuses(settings, projects, limits=limits, leads=leads), Unposted())


def statuses(
    settings: Settings,
    projects: Projects,
    *,
    limits: Limits | None = None,
    leads: Callable[[], bool] = lambda: True,
) -> GitHubStatuses:
    """GitHub, as our App where it is installed, else with the token of each run's project. `limits` are shared by
    all that write there."""
    return GitHubStatuses(
        lambda name: token_of(projects, name),
        app=github_app(settings),
        base_url=settings.github_api_url,
        repository_of=lambda name: repository_of(projects, name),
        limits=limits,
        leads=leads,
    )


def installation_tokens(settings: Settings, projects: Projects) -> InstallationTokens:
    """Our App's tokens for builds, if there is an App. Raises BadSettings."""
    app = github_app(settings)
    return NoApp() if app is None else AppTokens(app, lambda name: repository_of(projects, name))


def conversations(settings: Settings, projects: Projects) -> Conversations:
    """Who asks GitHub about comments and answers them. Raises BadSettings."""
    return GitHubConversations(
        lambda name: token_of(projects, name),
        app=github_app(settings, timeout_seconds=CALL_SECONDS),
        base_url=settings.github_api_url,
        repository_of=lambda name: repository_of(projects, name),
        clock=SystemClock(),
    )


def token_of(projects: Projects, name: str) -> str | None:
    """A project's own token; None if it has none or is gone."""
    with contextlib.suppress(UnknownProject):
        return projects.read(name).token or None
    return None


def repository_of(projects: Projects, name: str) -> str:
    """The repository of a project: its name, unless it says otherwise or is gone."""
    with contextlib.suppress(UnknownProject):
        return projects.read(name).repository or name
    return name


def github_app(settings: Settings, *, timeout_seconds: float = TIMEOUT_SECONDS) -> App | None:
    """Our GitHub App, if the settings name one. Raises BadSettings if they name half of it, or its key is none."""
    if not settings.github_app_id and settings.github_app_key_file is None:
        return None
    if not settings.github_app_id or settings.github_app_key_file is None:
        raise BadSettings("BRIDGE_GITHUB_APP_ID and BRIDGE_GITHUB_APP_KEY_FILE belong together: set both, or none")
    return App(
        settings.github_app_id,
        settings.github_app_key_file,
        base_url=settings.github_api_url,
        timeout_seconds=timeout_seconds,
    )
