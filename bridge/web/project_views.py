"""Projects as pages show them: their pipelines, and how long the last runs took and how they ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bridge.core.pipelines import Pipeline, is_for
from bridge.core.projects import Project
from bridge.core.runs import Run
from bridge.core.searching import storable
from bridge.ports import RunFilter, Runs
from bridge.web.listing import seconds_of, summary_of

BARS = 40
RECENT_RUNS = 10
LOOKED_AT = 500
"""So many of the newest runs tell when something last ran in the list of projects."""
BAR_WIDTH, BAR_GAP, CHART_HEIGHT, LEAST_HEIGHT = 9, 4, 64, 4
CHART_WIDTH = BARS * (BAR_WIDTH + BAR_GAP)

Json = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """One run in a chart."""

    run: Json
    seconds: float
    x: int
    y: int
    height: int


@dataclass(frozen=True)
class Chart:
    """The last runs of a pipeline, the newest at the right; a bar is as high as its run was long."""

    bars: tuple[Bar, ...]
    longest: float
    """How many seconds the highest bar is."""
    succeeded: int
    ended: int


@dataclass(frozen=True)
class PipelineView:
    """One pipeline of a project."""

    name: str
    events: tuple[str, ...]
    steps: tuple[str, ...]
    chart: Chart | None
    """None: nothing has run yet."""
    badge: str
    """The path of its badge."""


@dataclass(frozen=True)
class ProjectView:
    """A project."""

    name: str
    pipelines: tuple[PipelineView, ...]
    runs: tuple[Json, ...]


@dataclass(frozen=True)
class ProjectRow:
    """A project in the list of them."""

    name: str
    pipelines: int
    newest: Json | None
    """Its newest run, if it is among the newest of all."""


def project_rows(projects: Sequence[Project], pipelines: Sequence[Pipeline], runs: Runs) -> list[ProjectRow]:
    """All projects, also those that are gone and of which runs are left, by name."""
    newest: dict[str, Run] = {}
    for run in runs.list(RunFilter(limit=LOOKED_AT)):
        newest.setdefault(run.event.project, run)
    counts = {project.name: len(pipelines_of(project, pipelines)) for project in projects}
    return [
        ProjectRow(name, counts.get(name, 0), summary_of(newest[name]) if name in newest else None)
        for name in sorted({*counts, *newest})
    ]


def pipelines_of(project: Project, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """The pipelines that are for a project."""
    return [one for one in pipelines if is_for(one, project.name, opted_in=project.default_pipeline)]


def project_view(name: str, pipelines: Sequence[Pipeline], runs: Runs, *, now: float) -> ProjectView:
    """A project with `pipelines`, and others that ran for it."""
    known = {pipeline.name: pipeline for pipeline in pipelines}
    recent = runs.list(RunFilter(project=name, limit=BARS * max(1, len(known))))
    others = {run.pipeline for run in recent} - set(known)
    return ProjectView(
        name,
        tuple(_pipeline(name, one, known.get(one), runs, now) for one in (*known, *sorted(others))),
        tuple({**summary_of(run), "seconds": seconds_of(run, now)} for run in recent[:RECENT_RUNS]),
    )


def _pipeline(project: str, name: str, pipeline: Pipeline | None, runs: Runs, now: float) -> PipelineView:
    recent = runs.list(RunFilter(project=project, pipeline=name, limit=BARS))
    return PipelineView(
        name=name,
        events=tuple(trigger.event for trigger in pipeline.on) if pipeline else (),
        steps=tuple(step.name for step in pipeline.steps) if pipeline else (),
        chart=_chart(recent, now) if recent else None,
        badge=f"/badge/{quote(storable(project))}/{quote(storable(name), safe='')}.svg",
    )


def _chart(newest_first: Sequence[Run], now: float) -> Chart:
    took = [(run, seconds_of(run, now)) for run in reversed(newest_first)]
    longest = max(seconds for _, seconds in took)
    ended = [run.verdict for run, _ in took if run.verdict is not None]
    return Chart(
        tuple(_bar(run, seconds, BARS - len(took) + index, longest) for index, (run, seconds) in enumerate(took)),
        longest,
        sum(verdict == "succeeded" for verdict in ended),
        len(ended),
    )


def _bar(run: Run, seconds: float, index: int, longest: float) -> Bar:
    height = max(LEAST_HEIGHT, round(CHART_HEIGHT * seconds / longest)) if longest else LEAST_HEIGHT
    return Bar(summary_of(run), seconds, index * (BAR_WIDTH + BAR_GAP), CHART_HEIGHT - height, height)
