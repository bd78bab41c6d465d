"""`bridgectl doctor`: every check of a cluster, each on its own, and what came of them."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bridge import settings as settings_of
from bridge.cluster.api import Api, Unauthorized
from bridge.cluster.diagnosis.argo import ArgoDiagnosis
from bridge.cluster.diagnosis.brigade import BrigadeDiagnosis
from bridge.cluster.diagnosis.kubernetes import KubernetesDiagnosis
from bridge.cluster.diagnosis.ours import OwnDiagnosis
from bridge.cluster.diagnosis.pipelines import PipelinesDiagnosis
from bridge.cluster.diagnosis.places import Places
from bridge.cluster.diagnosis.projects import ProjectsDiagnosis, ProjectSecrets
from bridge.cluster.diagnosis.rights import RightsDiagnosis
from bridge.core.checkups import Finding, Status, ok, unknown, warning, worst, wrong
from bridge.core.permissions import ACCOUNTS
from bridge.core.projects import Project
from bridge.errors import BadSettings, BridgeError, Forbidden, Unavailable
from bridge.github.app import App
from bridge.github.diagnosis import GitHubDiagnosis
from bridge.settings import PREFIX, Settings
from bridge.showing import clean
from bridge.wiring.cluster import connection
from bridge.wiring.places import brigade_namespace

ALL_WELL, SOMETHING_WRONG = os.EX_OK, 2
_FROM_RELEASE = (
    "namespace",
    "brigade_namespace",
    "argo_instance_id",
    "public_url",
    "fallback_url",
    "github_api_url",
    "github_app_id",
    "github_app_key_file",
)
"""What the chart's ConfigMaps say of the cluster, for whoever looks from outside of it."""

_Check = tuple[str, Callable[[], Iterator[Finding]]]


@dataclass(frozen=True)
class Examination:
    """Everything that was found."""

    findings: tuple[Finding, ...]
    away: bool
    """The API server gave no usable answer, at once or in between."""

    @property
    def code(self) -> int:
        """0 all is well, warnings and unknowns allowed; 2 something is wrong; 75 the API server is away."""
        if worst(self.findings) is Status.WRONG and not self._only_away:
            return SOMETHING_WRONG
        return os.EX_TEMPFAIL if self.away else ALL_WELL

    @property
    def _only_away(self) -> bool:
        """It was away from the beginning, so that nothing else was looked at."""
        return self.away and len(self.findings) == 1

    def lines(self, paint: Callable[[str, str], str] = lambda text, _status: text) -> Iterator[str]:
        """For people: a line a finding, the remedy below it; what was counted at the end."""
        width = max((len(finding.check) for finding in self.findings), default=0)
        for finding in self.findings:
            status = paint(f"{finding.status:7}", finding.status)
            yield f"{status}  {finding.check:{width}}  {clean(finding.told)}"
            if finding.remedy:
                yield f"{'':7}  {'':{width}}  -> {clean(finding.remedy)}"
        counts = {status: sum(1 for one in self.findings if one.status is status) for status in Status}
        yield ""
        yield ", ".join(f"{count} {status}" for status, count in counts.items())

    @property
    def content(self) -> dict[str, Any]:
        """For machines."""
        return {
            "status": worst(self.findings).value,
            "away": self.away,
            "checks": [finding.content for finding in self.findings],
        }


def examine(settings: Settings, *, argo_namespace: str = "", now: Callable[[], float] = time.time) -> Examination:
    """Look at the settings' cluster. Raises Misconfigured if they lead to none.

    Args:
        settings: as given; what they leave out is taken from the release's ConfigMaps, where those may be read.
        argo_namespace: of Argo's controller; empty: wherever one is found.
        now: the time.

    """
    found = connection(settings)
    api = Api(found)
    try:
        return _Doctor(settings, api, found.namespace, argo_namespace, now).examination()
    finally:
        api.close()


@dataclass
class _Doctor:
    settings: Settings
    api: Api
    own: str
    """The connection's own namespace."""
    argo: str
    now: Callable[[], float]
    findings: list[Finding] = field(default_factory=list)
    away: bool = False

    def examination(self) -> Examination:
        api, now = self.api, self.now
        before = self._places(self.settings)
        self._look("kubernetes", KubernetesDiagnosis(api, before).server)
        if not any(finding.status in {Status.OK, Status.WARNING} for finding in self.findings):
            return self._done()
        settings = _completed(self.settings, OwnDiagnosis(api, before, now=now))
        for name, check in self._checks(settings, self._places(settings)):
            self._look(name, check)
        return self._done()

    def _checks(self, settings: Settings, places: Places) -> Iterator[_Check]:
        api, now = self.api, self.now
        kubernetes = KubernetesDiagnosis(api, places)
        argo = ArgoDiagnosis(api, places, instance_id=settings.argo_instance_id, now=now)
        rights = RightsDiagnosis(api, places)
        ours = OwnDiagnosis(api, places, now=now)
        secrets = ProjectSecrets(api, places.brigade)
        brigade = BrigadeDiagnosis(api, places, secrets, now=now)
        projects = ProjectsDiagnosis(
            places, secrets, signed_otherwise=lambda: _signs(settings) or ours.gateway_signs()
        )
        pipelines = PipelinesDiagnosis(api, places, secrets, falls_back=bool(settings.fallback_url))
        yield "namespaces", kubernetes.namespaces
        yield "namespaces.quota", kubernetes.quotas
        yield "argo.crds", argo.crds
        yield "argo", argo.controllers
        for account in ACCOUNTS:
            yield f"rights.{account.name}", partial(rights.of, account)
        yield "steps.config", ours.step_config
        yield "bridge", ours.deployments
        yield "records", ours.records
        yield "brigade.controller", brigade.controller
        yield "brigade.builds", brigade.builds
        yield "projects", projects.projects
        yield "brigade.accounts", brigade.accounts
        yield "pipelines", pipelines.pipelines
        yield "bridge.url", partial(_public_url, settings)
        yield "github", partial(_github, settings, lambda: secrets.usable, now)

    def _places(self, settings: Settings) -> Places:
        return Places(
            runs=settings.namespace or self.own,
            brigade=brigade_namespace(settings.brigade_namespace, os.environ),
            release=settings.lease_namespace or self.own,
            argo=self.argo,
        )

    def _look(self, name: str, check: Callable[[], Iterator[Finding]]) -> None:
        """One check; what keeps it from being made is a finding, and keeps no other one."""
        try:
            for finding in check():
                self.findings.append(finding)
        except Unauthorized as exc:
            self.findings.append(wrong(name, *_parted(exc)))
        except Forbidden as exc:
            self.findings.append(self._not_allowed(name, exc))
        except Unavailable as exc:
            self.away = True
            self.findings.append(unknown(name, *_parted(exc)))
        except BridgeError as exc:
            self.findings.append(wrong(name, *_parted(exc)))

    def _not_allowed(self, name: str, exc: Forbidden) -> Finding:
        told, remedy = _parted(exc)
        needed = remedy.removeprefix("give this account ")
        release = self._places(self.settings).release
        return unknown(
            name,
            f"not looked at, it needs {needed}: {told.partition(': not allowed')[0]} is not allowed",
            f"run `bridgectl doctor --release-namespace {release}` as somebody who has {needed}",
        )

    def _done(self) -> Examination:
        return Examination(tuple(self.findings), self.away)


def _completed(settings: Settings, ours: OwnDiagnosis) -> Settings:
    """The settings with what the release's ConfigMaps say and nobody else does."""
    told = ours.settings_of_release()
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    added = {
        name: told[variable]
        for name in _FROM_RELEASE
        if name not in given and (variable := f"{PREFIX}{name.upper()}") in told
    }
    return settings_of.load(**given, **added)


def _signs(settings: Settings) -> bool:
    secrets = (settings.default_shared_secret, settings.github_app_webhook_secret)
    return any(secret.get_secret_value() for secret in secrets)


def _public_url(settings: Settings) -> Iterator[Finding]:
    check, remedy = "bridge.url", "set publicUrl of the chart (BRIDGE_PUBLIC_URL) to where people reach the pages"
    if not settings.public_url:
        yield warning(check, "no public URL is set: statuses have no link to their run", remedy)
    elif not settings.public_url.startswith("https://"):
        yield warning(check, f"the public URL is {settings.public_url[:200]}, without TLS", remedy)
    else:
        yield ok(check, f"statuses link to {settings.public_url[:200]}")


def _github(
    settings: Settings, projects: Callable[[], list[Project]], now: Callable[[], float]
) -> Iterator[Finding]:
    app, finding = _app(settings)
    yield from [finding] if finding else []
    github = GitHubDiagnosis(settings.github_api_url, app=app, now=now)
    answers = list(github.answers())
    yield from answers
    if worst(answers) is Status.OK:
        yield from github.projects(projects())


def _app(settings: Settings) -> tuple[App | None, Finding | None]:
    check, key = "github.app", settings.github_app_key_file
    if not settings.github_app_id and key is not None:
        remedy = "set BRIDGE_GITHUB_APP_ID (github.app.id of the chart), or leave the key out"
        return None, wrong(check, "there is the key of a GitHub App, and not its id: nothing starts", remedy)
    if not settings.github_app_id:
        return None, ok(check, "no GitHub App is set: statuses are posted with the projects' own tokens")
    if key is None:
        remedy = "set BRIDGE_GITHUB_APP_KEY_FILE (github.app.existingSecret of the chart)"
        return None, wrong(check, f"GitHub App {settings.github_app_id[:40]} has no key", remedy)
    if not key.exists():
        return None, unknown(
            check,
            f"the key of GitHub App {settings.github_app_id[:40]} is not here: {key}",
            "run this in a pod that has it: kubectl exec deployment/bridge-controller -- bridgectl doctor",
        )
    try:
        return App(settings.github_app_id, key, base_url=settings.github_api_url), None
    except BadSettings as exc:
        return None, wrong(check, *_parted(exc))


def _parted(exc: BridgeError) -> tuple[str, str]:
    """What happened, and the next move: what a message of ours ends with."""
    told, _, remedy = str(exc).rpartition("; ")
    return (told, remedy) if told else (remedy, "run this again")
