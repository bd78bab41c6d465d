"""Where commit statuses go on one machine. Apart from the other ports, since GitHub's client is slow to import."""

import contextlib

from bridge.core.runs import Report, Run
from bridge.errors import UnknownProject
from bridge.github.statuses import GITHUB, GitHubStatuses
from bridge.local.board import Board
from bridge.local.projects import FolderProjects
from bridge.settings import Settings


class StatusesOrBoard:
    """The port Reports: GitHub where there are credentials for the run's project, else the local board."""

    def __init__(self, github: GitHubStatuses, board: Board) -> None:
        self._github = github
        self._board = board

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a status to GitHub, or to the board if nobody may post there. Raises StatusNotPosted."""
        to = self._github.post(run, report, url=url)
        return to if to == GITHUB else self._board.post(run, report, url=url)


def statuses(settings: Settings, projects: FolderProjects) -> GitHubStatuses:
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
