"""Explaining: from a delivery, a commit or a run to all that came of it, with times and reasons.

What somebody wanted has records. What nobody wanted leaves none: it is read in GitHub's own log of deliveries and
matched again, with the pipelines as they are now.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bridge.core.answers import (
    EventAnswer,
    ExplainedEvent,
    Explanation,
    MatchAnswer,
    ReceivedAnswer,
    RunDetails,
)
from bridge.core.deliveries import Answer, Attempt
from bridge.core.events import Event, Ignored, github
from bridge.core.events.wrappers import PROVIDER
from bridge.core.pipelines import OPTED_IN, is_for, why_not
from bridge.core.projects import Project
from bridge.core.representations import details, moment_text
from bridge.core.runs import Run
from bridge.errors import BadProject, EngineError, EventRejected, NotFound, Unavailable, UnknownProject
from bridge.flows.sweeping import MOST_PAGES, DeliveryLog, DeliveryLogs
from bridge.ports import Builds, Clock, Pipelines, Projects, RunFilter, Runs

MOST_RUNS = 20
"""So many runs are explained at once, the newest."""
LOOK_SECONDS = 15.0
"""So long GitHub's logs are looked through; then the answer says what was not looked at."""
SHOWN_NOTES = 10
LEAST_DIGITS = 7

NO_WEBHOOK = (
    "GitHub's logs were not looked at: set BRIDGE_WEBHOOK_URL (or BRIDGE_PUBLIC_URL), which says which webhooks "
    "are ours"
)

_LOOKING = threading.Lock()
"""Held by whoever looks through GitHub's logs: their rate limit is everybody's, and they are for one thread."""
_GUID = re.compile(r"[A-Za-z0-9-]{8,100}")
_COMMIT = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},64}}")
_SAID = {
    Answer.TAKEN: "taken",
    Answer.REFUSED: "refused",
    Answer.LOST: "lost: it can be delivered again",
    Answer.UNDER_WAY: "under way",
}


@dataclass(frozen=True)
class Found:
    """A delivery in a log."""

    log: DeliveryLog
    attempts: tuple[Attempt, ...]
    """The newest first."""


@dataclass(frozen=True)
class Explaining:
    """What explains. From any thread; GitHub's logs are looked through by one at a time in this process.

    Args:
        runs: the records.
        builds: their builds.
        pipelines: as they are now.
        projects: as they are now.
        clock: time.
        logs: GitHub's; None, with the reason in `no_logs`: there are none to look in.
        no_logs: why there are none, and what to do about it.
        app_id: of our GitHub App, whose own events start nothing.
        url_of: the page of a run.

    """

    runs: Runs
    builds: Builds
    pipelines: Pipelines
    projects: Projects
    clock: Clock
    logs: Callable[[], DeliveryLogs] | None = None
    no_logs: str = NO_WEBHOOK
    app_id: int | str = 0
    url_of: Callable[[str], str] = lambda _run: ""

    def explain(self, about: str, *, project: str = "") -> Explanation:
        """All that is known of `about`: a run's id, a delivery's, or a commit (7 or more digits of it).

        `project` narrows down where GitHub's logs are looked through. Raises NotFound when nothing is known, with
        what was not looked at, and Unavailable when the records do not answer or another one is looking.
        """
        runs = self._runs_of(about)
        if runs:
            shown = runs[:MOST_RUNS]
            left = [f"only the newest {MOST_RUNS} runs are shown"] if len(runs) > MOST_RUNS else []
            return {"about": about, "events": self._of_runs(shown), "notes": left}
        notes: list[str] = []
        found = self._in_logs(about, project, notes)
        if found is None:
            told = "; ".join([*notes[:SHOWN_NOTES], *(["…"] if len(notes) > SHOWN_NOTES else [])])
            raise NotFound(
                f"nothing is known of {about[:100]}: no run, delivery or commit{f' ({told})' if told else ''}"
            )
        return {"about": about, "events": [self._of_delivery(about, found)], "notes": notes}

    def _runs_of(self, about: str) -> list[Run]:
        try:
            return [self.runs.read(about)]
        except NotFound:
            pass
        found = self.runs.list(RunFilter(delivery=about, limit=MOST_RUNS + 1))
        if found or not _COMMIT.fullmatch(about.lower()):
            return found
        return self.runs.list(RunFilter(sha=about.lower(), limit=MOST_RUNS + 1))

    def _of_runs(self, runs: Sequence[Run]) -> list[ExplainedEvent]:
        by_delivery: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            by_delivery.setdefault((run.event.project, run.event.delivery), []).append(run)
        return [self._of_event(together[0].event, together) for together in by_delivery.values()]

    def _of_event(self, event: Event, runs: Sequence[Run]) -> ExplainedEvent:
        return {
            **_event(event),
            "received": [],
            "matched": self._matched(event, self._project(event.project)),
            "ignored": "",
            "runs": [self._details(run) for run in runs],
        }

    def _details(self, run: Run) -> RunDetails:
        return details(run, self.builds.find(run.id), url=self.url_of(run.id))

    def _project(self, name: str) -> Project | None:
        try:
            return self.projects.read(name)
        except (UnknownProject, BadProject):
            return None

    def _matched(self, event: Event, project: Project | None) -> list[MatchAnswer]:
        """What the pipelines say that are for the event's project, in the order of their names."""
        opted_in = project is not None and project.default_pipeline
        told: list[MatchAnswer] = []
        for pipeline in sorted(self.pipelines.all(), key=lambda one: one.name):
            if is_for(pipeline, event.project, opted_in=opted_in):
                why = why_not(pipeline, event, opted_in=opted_in)
            elif OPTED_IN in pipeline.projects:
                # It may have meant to.
                why = f"pipeline {pipeline.name} is for projects that opt in to it, and this one does not"
            else:
                continue
            told.append({"pipeline": pipeline.name, "wants": not why, "why": why})
        return told

    def _in_logs(self, guid: str, project: str, notes: list[str]) -> Found | None:
        if not _GUID.fullmatch(guid):
            return None
        if self.logs is None:
            notes.append(self.no_logs)
            return None
        if not _LOOKING.acquire(blocking=False):
            raise Unavailable("somebody else has GitHub's logs looked through; ask again", busy=True)
        try:
            return self._looked_up(self.logs(), guid, project, notes)
        finally:
            _LOOKING.release()

    def _looked_up(self, logs: DeliveryLogs, guid: str, project: str, notes: list[str]) -> Found | None:
        until = self.clock.monotonic() + LOOK_SECONDS
        names = {one.name for one in self.projects.all()}
        sources = logs.sources()
        if not sources:
            notes.append("GitHub's logs were not looked at: there is no GitHub App, and no project with a token")
        for source in sources:
            # The App's is of all repositories.
            if project and source in names and source != project:
                continue
            if self.clock.monotonic() > until:
                notes.append(
                    f"not looked at for want of time: the logs of {source} and what follows; name a project"
                )
                return None
            try:
                here = logs.of(source)
                if not here:
                    notes.append(f"{source}: none of its webhooks points to us")
                found = self._in_source(here, guid, until)
            except EngineError as exc:
                notes.append(f"{source}: {exc}")
                continue
            if found is not None:
                return found
        return None

    def _in_source(self, logs: Sequence[DeliveryLog], guid: str, until: float) -> Found | None:
        for log in logs:
            attempts = tuple(self._attempts(log, guid, until))
            if attempts:
                return Found(log, attempts)
        return None

    def _attempts(self, log: DeliveryLog, guid: str, until: float) -> Iterator[Attempt]:
        """The attempts at a delivery on the newest page that has some."""
        cursor = ""
        for _ in range(MOST_PAGES):
            page = log.page(cursor)
            found = [attempt for attempt in page.attempts if attempt.guid == guid]
            yield from found
            cursor = page.following
            if found or not cursor or self.clock.monotonic() > until:
                return

    def _of_delivery(self, guid: str, found: Found) -> ExplainedEvent:
        received: list[ReceivedAnswer] = [
            {
                "at": moment_text(attempt.delivered),
                "log": found.log.name,
                "status": attempt.status_code,
                "what": _SAID[attempt.answer],
            }
            for attempt in sorted(found.attempts, key=lambda one: one.delivered)
        ]
        event, ignored = self._read(found)
        if event is None:
            return {**_nothing(guid), "received": received, "matched": [], "ignored": ignored, "runs": []}
        project = self._project(event.project)
        matched = self._matched(event, project)
        return {
            **_event(event),
            "received": received,
            "matched": matched,
            "ignored": _why_no_run(event, project, matched),
            "runs": [],
        }

    def _read(self, found: Found) -> tuple[Event | None, str]:
        """The event of a delivery, or why it is none."""
        try:
            sent = found.log.recorded(found.attempts[0])
        except EngineError as exc:
            return None, f"what it was cannot be read: {exc}"
        contexts = {one.report_context for one in self.pipelines.all() if one.report_context}
        try:
            event = github.read(sent.headers, sent.body, app_id=self.app_id, own_contexts=contexts)
        except EventRejected as exc:
            return None, str(exc)
        return (None, event.reason) if isinstance(event, Ignored) else (event, "")


def _event(event: Event) -> EventAnswer:
    return {
        "delivery": event.delivery,
        "provider": event.provider,
        "event": event.type,
        "project": event.project,
        "sha": event.revision.commit,
    }


def _nothing(guid: str) -> EventAnswer:
    return {"delivery": guid, "provider": PROVIDER, "event": "", "project": "", "sha": ""}


def _why_no_run(event: Event, project: Project | None, matched: Sequence[MatchAnswer]) -> str:
    if project is None:
        return f"there is no project {event.project}, or it cannot be read"
    wanting = [one["pipeline"] for one in matched if one["wants"]]
    if wanting:
        return (
            f"{', '.join(wanting)} would run for it now, and there is no run: the pipeline came later, the "
            "delivery was not taken, or its run is forgotten; GitHub can deliver it again"
        )
    if matched:
        return "; ".join(one["why"] for one in matched)
    return "no pipeline is for this project: name it in a pipeline's projects, or let it opt in to the default one"
