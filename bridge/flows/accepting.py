"""Accepting an event: one durable record for each pipeline that wants it, and only then an answer.

Nothing here is undone when something fails half way. The sender is told that nothing is certain, sends again,
and a repeat meets the records that are there and creates those that are missing (design.md, idea 1).
"""

from dataclasses import dataclass

from bridge.core.events import Event, Ignored, cloudevents
from bridge.core.globs import matches_any
from bridge.core.names import run_id
from bridge.core.pipelines import OPTED_IN, Pipeline, reported_family, why_not
from bridge.core.projects import Project
from bridge.core.records import digest
from bridge.core.reports import context_of
from bridge.core.runs import Run, State
from bridge.errors import KeyReused, NotFound
from bridge.ports import Created, Pipelines, Runs

GITHUB = "github"
_REASONS = 5
"""So many pipelines say in the answer why they did not want an event; more would not be read."""


@dataclass(frozen=True)
class Accepted:
    """Every pipeline that wants the event has its record, durably."""

    created: tuple[Created, ...]
    """By pipeline name, at least one."""


def accept(
    event: Event, project: Project, *, runs: Runs, pipelines: Pipelines, now: float, keyed: bool = True
) -> Accepted | Ignored:
    """Record one run for each pipeline that wants `event`, or say why none does.

    The sender must be known to be who it says. `event.delivery` alone decides what is a repeat: the runs of a
    repeat are answered as duplicates, and those that an earlier try left out are created now. Raises
    Unavailable when any record cannot be told to be stored: send it again. Raises KeyReused, with nothing
    stored, when a delivery of another provider than GitHub was seen with another body; GitHub's GUID is
    shared by an App's hook and a repository's hook, whose bodies differ. `keyed` is false when the delivery was
    made up just now, so that it cannot have been seen.

    Runs of a fork's pull request by nobody whom the project allows are held until they are approved.
    The usual case is one create for each run and nothing else. Pipelines are looked at anew before an event is
    called unwanted.
    """
    known = pipelines.all()
    wanting = _wanting(known, event, project)
    if not wanting and pipelines.refresh():
        known = pipelines.all()
        wanting = _wanting(known, event, project)
    if not wanting:
        return Ignored(_nobody_wants(known, event, project))
    found = digest(event)
    if keyed and event.provider != GITHUB:
        _check_key(event, found, runs, [one for one in known if _may_have_wanted(one, event, project)])
    created = [
        _created(_run(one, event, digest_of_event=found, held=why_held(event, project), now=now), event, runs)
        for one in sorted(wanting, key=lambda one: one.name)
    ]
    return Accepted(tuple(created))


def is_for_somebody(name: str, project: Project | None, pipelines: Pipelines) -> bool:
    """Whether any pipeline is for the project of this name, which is None if it cannot be read.

    Pipelines are looked at anew before none is. Raises Unavailable when it cannot be known.
    """
    if any(_is_for(one, name, project) for one in pipelines.all()):
        return True
    return pipelines.refresh() and any(_is_for(one, name, project) for one in pipelines.all())


def _wanting(known: list[Pipeline], event: Event, project: Project) -> list[Pipeline]:
    return [one for one in known if not _why_not(one, event, project)]


def _why_not(pipeline: Pipeline, event: Event, project: Project) -> str:
    return why_not(pipeline, event, opted_in=project.default_pipeline)


def _run(pipeline: Pipeline, event: Event, *, digest_of_event: str, held: str, now: float) -> Run:
    return Run(
        id=_run_id(pipeline, event),
        pipeline=pipeline.name,
        event=event.without_payload(),
        context=context_of(
            pipeline=pipeline.name,
            event_family=reported_family(pipeline, event),
            wanted=pipeline.report_context,
        ),
        digest=digest_of_event,
        accepted=now,
        state=State(held=held),
    )


def _run_id(pipeline: Pipeline, event: Event) -> str:
    return run_id(project=event.project, provider=event.provider, pipeline=pipeline.name, delivery=event.delivery)


def _created(run: Run, event: Event, runs: Runs) -> Created:
    created = runs.create(run, event.payload)
    # Two senders with one key at the same time: the check before saw neither, the create lets one through.
    if created.duplicate and event.provider != GITHUB and created.run.digest != run.digest:
        raise _key_reused(created.run.id)
    return created


def _may_have_wanted(pipeline: Pipeline, event: Event, project: Project) -> bool:
    """Also one that does not want this event may have wanted its key's other body, which named another branch."""
    named = any(trigger.event in event.names for trigger in pipeline.on)
    # The other body of a CloudEvent may have had any type.
    return (named or event.provider == cloudevents.PROVIDER) and _is_for(pipeline, project.name, project)


def _check_key(event: Event, found: str, runs: Runs, asked: list[Pipeline]) -> None:
    """Refuse a key that was used for another event before anything of this one is stored."""
    if len(asked) == 1:
        # Its create says the same, and stores nothing either.
        return
    for pipeline in asked:
        try:
            stored = runs.read(_run_id(pipeline, event))
        except NotFound:
            continue
        if stored.digest != found:
            raise _key_reused(stored.id)


def _key_reused(run: str) -> KeyReused:
    return KeyReused(
        f"this Idempotency-Key (of a CloudEvent: source and id) was used before with another body, for run "
        f"{run}; nothing was stored: send a new event with a new key"
    )


def why_held(event: Event, project: Project) -> str:
    """Why the runs of an event have to be approved before they begin; empty if they have not."""
    if not event.fork_author or event.fork_author in project.allowed_authors:
        return ""
    allowed = ", ".join(project.allowed_authors) or "nobody"
    return (
        f"pull request from a fork by an author with the association {event.fork_author[:40]}: "
        f"without approval this project builds those of {allowed}"
    )


def _is_for(pipeline: Pipeline, name: str, project: Project | None) -> bool:
    opted_in = OPTED_IN in pipeline.projects and project is not None and project.default_pipeline
    return opted_in or matches_any(pipeline.projects, name)


def _nobody_wants(known: list[Pipeline], event: Event, project: Project) -> str:
    # A sender learns nothing of pipelines that are for other projects.
    ours = [one for one in known if _is_for(one, project.name, project)]
    if ours:
        reasons = [_why_not(one, event, project) for one in ours[:_REASONS]]
        more = [f"and {len(ours) - _REASONS} more do not either"] if len(ours) > _REASONS else []
        return "; ".join([*reasons, *more])
    return (
        "no pipeline is for this project: name it in the projects of a pipeline, "
        "or let the project opt in to the default pipeline"
    )
