"""Commands without a gateway: runs are read and acts asked for in the cluster, with the caller's own rights.

The records, builds and logs are those that a gateway reads, in the same shapes. Who asks is who the API server
takes the kubeconfig's user for; what they may is what their RBAC says of the record's Secret.
"""

import json
from typing import Any, Self

from bridge.client import MOST_RUNS, Acted, LogPart
from bridge.clocks import SystemClock
from bridge.cluster.api import Api, Resource
from bridge.cluster.builds import BrigadeBuilds
from bridge.cluster.pipelines import ListedPipelines
from bridge.cluster.projects import SecretProjects
from bridge.cluster.runs import SecretRuns
from bridge.core.kubernetes import mapping, text
from bridge.core.representations import run_details, run_summary
from bridge.core.runs import Kind
from bridge.errors import EngineError
from bridge.flows.acting import act
from bridge.flows.explaining import Explaining
from bridge.flows.reading_logs import build_meant, log_left
from bridge.ports import RunFilter
from bridge.settings import Settings
from bridge.wiring.cluster import cluster_api
from bridge.wiring.places import brigade_namespace

WHO_AM_I = Resource("selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io")

_LONGEST_NAME = 100


class DirectClient:
    """The port `client.Asking` over a cluster.

    Args:
        settings: which cluster, its namespaces, and where pages are.
        environment: of the process, for Brigade's namespace.
        api: calls to it, if there are some; None: those of the settings. Raises Misconfigured.

    """

    def __init__(self, settings: Settings, environment: dict[str, str], *, api: Api | None = None) -> None:
        self._settings = settings
        self._api = api or cluster_api(settings, timeout_seconds=30.0)
        namespace = settings.namespace or self._api.connection.namespace
        brigades = brigade_namespace(settings.brigade_namespace, environment)
        self._clock = SystemClock()
        self._runs = SecretRuns(self._api, namespace)
        self._pipelines = ListedPipelines(self._api, namespace)
        self._projects = SecretProjects(self._api, brigades)
        self._builds = BrigadeBuilds(self._api, brigades, self._projects, clock=self._clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def list(
        self,
        *,
        project: str = "",
        pipeline: str = "",
        sha: str = "",
        pull_request: int | None = None,
        branch: str = "",
        verdict: str = "",
        search: str = "",
        open_only: bool = False,
        limit: int = MOST_RUNS,
    ) -> list[dict[str, Any]]:
        """See Asking."""
        wanted = RunFilter(
            project=project,
            pipeline=pipeline,
            sha=sha,
            pull_request=pull_request,
            branch=branch,
            verdict=verdict,
            search=search,
            open_only=open_only,
            limit=limit,
        )
        return [_plain(run_summary(run, url=self._url_of(run.id))) for run in self._runs.list(wanted)]

    def get(self, run_id: str) -> dict[str, Any]:
        """See Asking."""
        run = self._runs.read(run_id)
        return _plain(run_details(run, self._builds.find(run_id), url=self._url_of(run_id)))

    def explain(self, about: str, *, project: str = "") -> dict[str, Any]:
        """See Asking. GitHub's logs are looked through with the projects' tokens, if this user may read those."""
        explaining = Explaining(
            self._runs,
            self._builds,
            self._pipelines,
            self._projects,
            self._clock,
            logs=self._logs if self._settings.webhook else None,
            url_of=self._url_of,
        )
        return _plain(dict(explaining.explain(about, project=project)))

    def log(self, run_id: str, step: str, *, build: int, epoch: int) -> bytes:
        """See Asking."""
        return log_left(self._builds, build_meant(self._builds, run_id, step, number=build, epoch=epoch))

    def log_from(self, run_id: str, step: str, *, build: int, epoch: int, offset: int) -> LogPart:
        """See Asking."""
        meant = build_meant(self._builds, run_id, step, number=build, epoch=epoch)
        return LogPart(*self._builds.follow(meant, offset=offset))

    def act(
        self,
        run_id: str,
        kind: Kind,
        *,
        request: str,
        who: str = "",
        source: str = "cli",
        only: tuple[str, ...] = (),
        follows: int | None = None,
    ) -> Acted:
        """See Asking. `who` is asked of the API server, and what is given counts only where it does not say."""
        acted = act(
            self._runs,
            run_id,
            kind,
            request=request,
            who=self._who() or who,
            source=source,
            now=self._clock.now(),
            follows=follows,
            only=only,
        )
        return Acted(accepted=acted.accepted, message=acted.message)

    def _who(self) -> str:
        review = {"apiVersion": WHO_AM_I.api_version, "kind": WHO_AM_I.kind}
        try:
            answer = self._api.create(WHO_AM_I, "", review)
        except EngineError:
            # Kubernetes before 1.28 does not know it.
            return ""
        name = text(mapping(answer, "status", "userInfo"), "username")
        return "".join(one for one in name if one.isprintable())[:_LONGEST_NAME]

    def _url_of(self, run_id: str) -> str:
        base = self._settings.public_url
        return f"{base}/runs/{run_id}" if base else ""

    def _logs(self) -> Any:
        # GitHub's client is slow to import.
        from bridge.wiring.sweeping import delivery_logs  # noqa: PLC0415

        return delivery_logs(self._settings, self._projects, self._clock)


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """As it comes over HTTP: enumerations are texts."""
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found
