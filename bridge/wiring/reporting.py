"""Where commit statuses go on one machine. Apart from the other ports, since GitHub's client is slow to import."""

import contextlib

from bridge.core.runs import Report, Run
from bridge.errors import UnknownProject
from bridge.github.statuses import GITHUB, GitHubStatuses
from bridge.local.board import Board
from bridge.ports import Projects, Reports
from bridge.settings import Settings

RECORD = "record"
"""Who acknowledges a status that nobody may post."""


class StatusesOrBoard:
    """The port Reports: GitHub where there are credentials for the run's project, else the local board."""

    def __init__(self, github: GitHubStatuses, board: Board) -> None:
        self._github = github
        self._board = board

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status to GitHub, or to the board if nobody may post there. Raises StatusNotPosted."""
        to = self._github.post(run, report, url=url)
        return to if to == GITHUB else self._board.post(run, report, url=url)


class Unposted:
    """The port Reports where nobody may post: the record itself keeps the status, and its page shows it."""

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Answers `record`; nothing is sent."""
        del run, report, url
        return RECORD


class StatusesOrRecord:
    """The port Reports of a cluster: GitHub where there are credentials for the run's project, else the record."""

    def __init__(self, github: GitHubStatuses) -> None:
        self._github = github
        self._record = Unposted()

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status to GitHub, or keep it in the record. Raises StatusNotPosted."""
        to = self._github.post(run, report, url=url)
        return to if to == GITHUB else self._record.post(run, report, url=url)


def cluster_reports(settings: Settings, projects: Projects) -> Reports:
    """Where the statuses of a cluster's runs go."""
    return StatusesOrRecord(statuses(settings, projects))


def statuses(settings: Settings, projects: Projects) -> GitHubStatuses:
    """GitHub, with the token of each run's project."""

    def token_of(name: str) -> str | None:
        with contextlib.suppress(UnknownProject):
            return projects.read(name).token or None
        return None

    def repository_of(name: str) -> str:
        with contextlib.suppress(UnknownProject):
            return projects.read(name).repository or name
        return name

    return GitHubStatuses(token_of, base_url=settings.github_api_url, repository_of=repository_of)
