"""WorkflowTemplates with our annotations: the port Pipelines in a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.cluster.api import WORKFLOW_TEMPLATES, Api
from bridge.cluster.watching import Cache
from bridge.core.pipelines import Pipeline
from bridge.core.workflow_templates import is_pipeline, pipeline_of
from bridge.errors import BadPipeline, NotFound

MISS_PATIENCE_SECONDS = 3.0
"""So long a listing anew may take."""
MISS_SECONDS = 5.0
"""For a pipeline that is not known the cluster is asked so often at most."""


class ClusterPipelines:
    """The pipelines among a namespace's WorkflowTemplates, from a watch.

    Until `cache.watching.synced` is set there are none. What cannot be read is set aside and hinders nothing else.

    Args:
        api: the API server.
        namespace: of the Workflows.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.cache: Cache[_Found] = Cache(api, WORKFLOW_TEMPLATES, namespace, _found)

    def start(self) -> None:
        """Begin to watch."""
        self.cache.start()

    def stop(self) -> None:
        """End watching."""
        self.cache.stop()

    def refresh(self) -> bool:
        """List anew before an event is called unwanted; False if that was done a moment ago.

        Raises Unavailable when there is no answer.
        """
        return self.cache.refresh(not_within_seconds=MISS_SECONDS, timeout_seconds=MISS_PATIENCE_SECONDS)

    def all(self) -> list[Pipeline]:
        """Every pipeline that can be read, by name."""
        found = [one.pipeline for one in self.cache.all().values() if one.pipeline is not None]
        return sorted(found, key=lambda pipeline: pipeline.name)

    def read(self, name: str) -> Pipeline:
        """One of them. Raises NotFound, or BadPipeline with the reason.

        One that is not known is read from the cluster, so that NotFound is the truth of this moment.
        """
        found = self.cache.get(name)
        if found is None:
            found = _found(self._api.get(WORKFLOW_TEMPLATES, self._namespace, name))
        if found.reason:
            raise BadPipeline(found.reason)
        if found.pipeline is None:
            raise NotFound(
                f"the WorkflowTemplate {name[:100]} is no pipeline; "
                "annotate it with bridge.brigade.sh/projects and bridge.brigade.sh/on"
            )
        return found.pipeline

    def broken(self) -> Sequence[tuple[str, str]]:
        """The WorkflowTemplates that were set aside, each with the reason, a line for everything that is wrong."""
        return sorted((name, one.reason) for name, one in self.cache.all().items() if one.reason)


class ListedPipelines:
    """The pipelines of a namespace, listed at each call: for commands.

    Args:
        api: the API server.
        namespace: of the Workflows.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def all(self) -> list[Pipeline]:
        """Every pipeline that can be read, by name."""
        pages = self._api.pages(WORKFLOW_TEMPLATES, self._namespace)
        found = [_found(template).pipeline for page in pages for template in page.items]
        return sorted((one for one in found if one is not None), key=lambda pipeline: pipeline.name)

    def read(self, name: str) -> Pipeline:
        """One of them. Raises NotFound, or BadPipeline with the reason."""
        return ClusterPipelines(self._api, self._namespace).read(name)

    def refresh(self) -> bool:
        """It is listed at each call anyway; see the port."""
        return False


@dataclass(frozen=True)
class _Found:
    pipeline: Pipeline | None = None
    """None: it cannot be read, or means to be none."""
    reason: str = ""


def _found(template: Mapping[str, Any]) -> _Found:
    if not is_pipeline(template):
        return _Found()
    try:
        return _Found(pipeline_of(template))
    except BadPipeline as exc:
        return _Found(reason=str(exc))
    except (RecursionError, ValueError, TypeError, AttributeError, KeyError) as exc:
        # One template that nobody thought of must not hide the others; its author finds it in `broken`.
        name = template["metadata"]["name"]
        return _Found(reason=f"WorkflowTemplate {name}: it cannot be read ({type(exc).__name__}); simplify it")
