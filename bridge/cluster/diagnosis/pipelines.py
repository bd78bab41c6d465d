"""The pipelines: whether each can be read, and whether they and the projects find each other."""

from collections.abc import Iterator

from bridge.cluster.api import WORKFLOW_TEMPLATES, Api
from bridge.cluster.diagnosis.places import Places
from bridge.cluster.diagnosis.projects import ProjectSecrets
from bridge.core.checkups import Finding, named, ok, warning, wrong
from bridge.core.globs import matches
from bridge.core.kubernetes import mapping, text
from bridge.core.pipelines import OPTED_IN, Pipeline
from bridge.core.projects import Project
from bridge.core.workflow_templates import is_pipeline, pipeline_of
from bridge.errors import BadPipeline


class PipelinesDiagnosis:
    """The checks of pipelines.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.
        projects: Brigade's.
        falls_back: whether events of projects without a pipeline go to another gateway.

    """

    def __init__(self, api: Api, places: Places, projects: ProjectSecrets, *, falls_back: bool) -> None:
        self._api = api
        self._places = places
        self._projects = projects
        self._falls_back = falls_back

    def pipelines(self) -> Iterator[Finding]:
        """That pipelines can be read, and that they and the projects find each other."""
        runs = self._places.runs
        usable, broken = self._pipelines()
        for reason in broken:
            for line in reason.splitlines():
                yield wrong("pipelines.broken", line, "mend it: docs/pipelines.md")
        if not usable:
            yield warning(
                "pipelines",
                f"no WorkflowTemplate in namespace {runs} is a pipeline",
                "render and apply one (docs/pipelines.md), or let the chart ship the default one",
            )
            return
        yield ok("pipelines", f"{len(usable)} pipelines in namespace {runs} can be read")
        yield from self._without_projects(usable)
        yield from self._without_pipelines(usable)

    def _without_projects(self, pipelines: list[Pipeline]) -> Iterator[Finding]:
        for pipeline in pipelines:
            if any(_is_for(pipeline, project) for project in self._projects.usable):
                continue
            if OPTED_IN in pipeline.projects:
                yield ok("pipelines.projects", f"pipeline {pipeline.name} waits for a project that opts in")
                continue
            yield warning(
                "pipelines.projects",
                f"pipeline {pipeline.name} is for {named(pipeline.projects)}, and there is no such project",
                f"spell it as in `brig project list --namespace {self._places.brigade}`, or make the project",
            )

    def _without_pipelines(self, pipelines: list[Pipeline]) -> Iterator[Finding]:
        check = "projects.pipelines"
        idle = [one.name for one in self._projects.usable if not any(_is_for(it, one) for it in pipelines)]
        if not idle:
            yield ok(check, "every project has a pipeline")
        elif self._falls_back:
            yield ok(check, f"no pipeline, so events go to the gateway behind BRIDGE_FALLBACK_URL: {named(idle)}")
        else:
            yield warning(
                check,
                f"no pipeline, so events start nothing: {named(idle)}",
                "add a pipeline that names them, opt them in to the default one "
                "(kubectl annotate secret PROJECT_ID bridge.brigade.sh/default-pipeline=true), or set fallbackUrl",
            )

    def _pipelines(self) -> tuple[list[Pipeline], list[str]]:
        """The pipelines that can be read, and why others cannot."""
        usable: list[Pipeline] = []
        broken: list[str] = []
        for page in self._api.pages(WORKFLOW_TEMPLATES, self._places.runs):
            for template in filter(is_pipeline, page.items):
                try:
                    usable.append(pipeline_of(template))
                except BadPipeline as exc:
                    broken.append(str(exc))
                except (RecursionError, ValueError, TypeError, AttributeError, KeyError) as exc:
                    # One that nobody thought of must not hide the others.
                    name = text(mapping(template, "metadata"), "name")
                    broken.append(f"WorkflowTemplate {name}: it cannot be read ({type(exc).__name__})")
        return usable, broken


def _is_for(pipeline: Pipeline, project: Project) -> bool:
    return any(
        project.default_pipeline if glob == OPTED_IN else matches(glob, project.name) for glob in pipeline.projects
    )
