"""Check runs: where a GitHub App may write them a run is reported by one, else by what reports otherwise."""

import contextlib
from collections.abc import Callable, Iterator

from pydantic import SecretStr

from bridge.core.runs import Report, Run
from bridge.errors import UnknownProject
from bridge.github.checks import GITHUB_CHECK, GitHubChecks
from bridge.github.limits import Limits
from bridge.ports import Builds, Projects, Reports
from bridge.settings import Settings
from bridge.wiring.reporting import github_app, repository_of


class ChecksOr:
    """The port Reports: a check run where our App may write it, else somebody else.

    Args:
        checks: posts where it may.
        otherwise: takes what it may not.

    """

    def __init__(self, checks: GitHubChecks, otherwise: Reports) -> None:
        self._checks = checks
        self._otherwise = otherwise

    def post(self, run: Run, report: Report, *, url: str) -> str:
        """Deliver a report; answers who took it. Raises StatusNotPosted."""
        to = self._checks.post(run, report, url=url)
        return to if to == GITHUB_CHECK else self._otherwise.post(run, report, url=url)


def checks_or(
    otherwise: Reports,
    settings: Settings,
    projects: Projects,
    builds: Builds,
    *,
    limits: Limits | None = None,
    leads: Callable[[], bool] = lambda: True,
) -> Reports:
    """Check runs where the settings name an App and want them, else what reports otherwise. Raises BadSettings.

    `limits` are shared with what else writes there, and `leads` says whether this process may still write.
    """
    app = github_app(settings)
    if app is None or not settings.github_checks:
        return otherwise
    checks = GitHubChecks(
        app,
        builds_of=builds.find,
        secrets_of=lambda name: secrets_of(settings, projects, name),
        log_of=builds.log,
        base_url=settings.github_api_url,
        repository_of=lambda name: repository_of(projects, name),
        limits=limits,
        leads=leads,
    )
    return ChecksOr(checks, otherwise)


def secrets_of(settings: Settings, projects: Projects, name: str) -> tuple[str, ...]:
    """What must not be shown of a project's builds: its own secrets, and bridge's."""
    return (*_secrets_of_settings(settings), *_secrets_of_project(projects, name))


def _secrets_of_settings(settings: Settings) -> Iterator[str]:
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, SecretStr):
                yield one.get_secret_value()


def _secrets_of_project(projects: Projects, name: str) -> tuple[str, ...]:
    with contextlib.suppress(UnknownProject):
        project = projects.read(name)
        own = (project.shared_secret, project.second_secret, project.generic_secret, project.token)
        return (*own, *project.secrets.values())
    return ()
