"""The controller's loop over one run: observe, ask what is owed, apply it, until nothing is owed."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

from bridge.core import obligations as ob
from bridge.core.builds import Build
from bridge.core.concurrency import is_asked_for, superseded_by
from bridge.core.exits import exit_build, failures_of
from bridge.core.pipelines import Pipeline
from bridge.core.reports import cut
from bridge.core.runs import (
    REPEAT_SECONDS,
    Attempt,
    Report,
    Run,
    closed,
    with_act,
    with_attempt,
    with_end,
    with_exit_given_up,
    with_report,
    with_report_given_up,
    with_report_overwritten,
    with_report_put_off,
    with_report_unsure,
    with_rung,
    with_step,
    with_step_ends,
    with_submission,
    with_waits,
)
from bridge.core.strays import Stray
from bridge.core.verdicts import Verdict
from bridge.errors import (
    BadPipeline,
    BridgeError,
    Conflict,
    EngineError,
    Misconfigured,
    NotFound,
    StatusNotPosted,
    StatusOverwritten,
    StatusPutOff,
    Unavailable,
)
from bridge.flows.counting import Counting, Posting
from bridge.flows.notifying import NoNotices, Notices
from bridge.flows.settling import settled
from bridge.flows.superseding import Groups
from bridge.ports import Builds, Clock, Engine, Pipelines, Reports, RunFilter, Runs, writes

PASSES = 25
"""A run comes to rest in a few passes; more means that two actions undo each other."""
REPORT_BACKOFF_SECONDS = 2.0
REPORT_BACKOFF_CAP_SECONDS = 60.0
UNSURE_SECONDS = 60.0
"""A post without an answer may be taken for so long."""
MOST_OVERWRITTEN = 5
"""So often a final status is delivered again because another one was on top of it; then somebody else wants to."""
TOKEN_SECONDS = 300.0
"""So long an exit event waits for its installation token; it may not keep a run open for ever."""

log = logging.getLogger(__name__)


class Strays(Protocol):
    """The Workflows under a run's labels that bridge does not follow: where people have Argo's own commands."""

    def of(self, run: Run) -> Sequence[Stray]:
        """Those that go on and have to end, on a consistent read of each."""
        ...

    @writes
    def end(self, stray: Stray) -> None:
        """Make it end, without its exit handler; gone already is fine."""
        ...


class NoStrays:
    """Strays where nobody but bridge makes Workflows."""

    def of(self, run: Run) -> Sequence[Stray]:
        """None."""
        del run
        return ()

    def end(self, stray: Stray) -> None:
        """There is none."""


@dataclass(frozen=True)
class Reconciling:
    """The ports that paying what is owed takes."""

    runs: Runs
    pipelines: Pipelines
    engine: Engine
    builds: Builds
    reports: Reports
    clock: Clock
    url_of: Callable[[str], str] = lambda _run: ""
    """The page of a run, for its status; empty without a public URL."""
    retention_seconds: float | None = None
    strays: Strays = field(default_factory=NoStrays)
    notices: Notices = field(default_factory=NoNotices)
    groups: Groups | None = None
    """Where newer commits of a pull request are known; None: no run is superseded here."""
    freshened: Callable[[Run, bytes], bytes] = lambda _run, payload: payload
    """The record's payload as the exit event's build gets it, its installation token a fresh one."""
    counting: Counting = field(default_factory=Counting)

    def reconcile(self, run_id: str) -> Run | None:
        """Pay what is owed to a run until nothing is; answers it as it is then, None if it is forgotten.

        Raises EngineError when the world does not answer; calling again later goes on from there.
        """
        run = self._pay(run_id, lambda _action: True)
        # A status that waits is owed as well.
        waits = run is not None and run.state.report_error and ob.undelivered(run)
        self.counting.owes(run_id, (ob.Post(waits),) if waits else ())
        return run

    def forget_old(self, run_id: str) -> None:
        """Forget a closed run that has been kept long enough, by age or since newer ones are plenty; who calls has
        decided that. One that is asked about again, or is younger than all repeats, is kept."""
        try:
            run = self.runs.read(run_id)
        except NotFound:
            return
        if run.closed is None or run.applicable_act is not None:
            return
        floor = REPEAT_SECONDS if self.retention_seconds is None else min(REPEAT_SECONDS, self.retention_seconds)
        if self.clock.now() >= run.closed + floor:
            self._forget(run)

    def exit(self, run_id: str) -> Run | None:
        """What the exit handler of a Workflow does: the same acts, as far as an attempt's end and its exit event
        go. Its status is left to the controller, so that one commit never shows two final ones."""
        return self._pay(run_id, lambda action: isinstance(action, ob.Settle | ob.Mirror | ob.End | ob.Fire))

    def _pay(self, run_id: str, allowed: Callable[[ob.Action], bool]) -> Run | None:
        before: tuple[ob.Action, ...] = ()
        try:
            run = self.runs.read(run_id)
            for _ in range(PASSES):
                actions = self._handed_over(run, self._owed(run, allowed))
                if not actions or actions == before:
                    return run
                changed = None
                self.counting.owes(run_id, actions)
                for action in actions:
                    written = self._apply(changed or run, action)
                    self.counting.did(run_id, action)
                    # A change answers by a copy of the event, which whoever may patch a record could have written.
                    changed = changed if written is None else replace(written, event=run.event)
                before = actions
                if isinstance(actions[-1], ob.Forget):
                    return None
                run = changed or self.runs.read(run_id)
        except NotFound:
            return None
        return run

    def _handed_over(self, run: Run, actions: tuple[ob.Action, ...]) -> tuple[ob.Action, ...]:
        """The actions without those that others take from here on, for as long as that may last."""
        for action in actions:
            if isinstance(action, ob.Notify):
                self.notices.offer(run.id, action.endpoint)
        return tuple(action for action in actions if not isinstance(action, ob.Notify))

    def _owed(self, run: Run, allowed: Callable[[ob.Action], bool]) -> tuple[ob.Action, ...]:
        seen = self.observe(run)
        actions = tuple(filter(allowed, ob.owed(run, seen)))
        # Whether a newer run took over its status is a list of records: asked only before it would speak. An exit
        # handler never does, and its account may not list them.
        if any(isinstance(action, ob.Post) for action in actions) and not self._speaks(run):
            return tuple(filter(allowed, ob.owed(run, replace(seen, speaks=False))))
        return actions

    def observe(self, run: Run) -> ob.Seen:
        """What surrounds `run`, read just now, as if no newer run took over its status. Of a run that was not
        begun, and of a closed one nobody asked about, little needs to be read."""
        now = self.clock.now()
        strays = tuple(self.strays.of(run))
        if run.closed is not None and run.applicable_act is None:
            return ob.Seen(
                now,
                None,
                None,
                (),
                retention_seconds=self.retention_seconds,
                strays=strays,
                subscribers=self.notices.subscribers,
            )
        attempt = run.attempt
        pipeline, trouble = None, ""
        try:
            pipeline = self.pipelines.read(run.pipeline)
        except NotFound:
            trouble = f"pipeline {run.pipeline} is not there any more"
        except BadPipeline as error:
            trouble = f"pipeline {run.pipeline} cannot be read: {error}"
        execution = self.engine.observe(run, attempt.n) if attempt is not None else None
        # While its first attempt waits to be submitted a run has no builds.
        waits = attempt is None or (attempt.n == 1 and not attempt.uid and attempt.verdict is None)
        return ob.Seen(
            now=now,
            pipeline=pipeline,
            execution=execution,
            builds=() if waits and execution is None else tuple(self.builds.find(run.id)),
            retention_seconds=self.retention_seconds,
            pipeline_error=trouble,
            strays=strays,
            subscribers=self.notices.subscribers,
            superseded_by=self._superseded_by(run, pipeline),
        )

    def _superseded_by(self, run: Run, pipeline: Pipeline | None) -> str:
        attempt = run.attempt
        if self.groups is None or pipeline is None or attempt is None or attempt.verdict is not None:
            return ""
        if not is_asked_for(run.event, pipeline.concurrency):
            return ""
        return superseded_by(run, self.groups.newest(run))

    def _speaks(self, run: Run) -> bool:
        """Of several runs with one sha and context only the most recently accepted posts."""
        if not run.event.revision.commit:
            return True
        alike = RunFilter(commit=run.event.revision.commit, context=run.context, limit=1)
        return all(newest.id == run.id for newest in self.runs.list(alike))

    def _apply(self, run: Run, action: ob.Action) -> Run | None:  # noqa: C901, PLR0912 - a line an action
        """Answers the record as it is then, None if nothing was written into it."""
        match action:
            case ob.Begin(attempt):
                return self.runs.change(run.id, lambda now: with_attempt(now, attempt))
            case ob.Submit(n):
                return self._submit(run, n)
            case ob.Escalate(n, rung):
                return self._escalate(run, n, rung)
            case ob.Note(n, waits):
                return self.runs.change(run.id, lambda now: with_waits(now, n, waits))
            case ob.Mirror(epoch, step, seen):
                return self.runs.change(run.id, lambda now: with_step(now, epoch, step, seen))
            case ob.End(n, verdict, reason):
                return self._end(run, n, verdict, reason)
            case ob.Fire(n, event, number):
                return self._fire(run, n, event, number)
            case ob.Post(report):
                return self._post(run, report)
            case ob.Close(tell):
                at = self.clock.now()
                return self.runs.change(run.id, lambda now: closed(now, at=at, tell=tell))
            case ob.Finish(n, ends):
                return self.runs.change(run.id, lambda now: with_step_ends(now, n, ends))
            case ob.Notify(endpoint):
                self.notices.offer(run.id, endpoint)
            case ob.Ask(act):
                return self.runs.change(run.id, lambda now: with_act(now, act))
            case ob.Settle(build):
                settled(build, self.builds, now=self.clock.now())
            case ob.GiveUp(build, ending, reason):
                self.builds.give_up(build, reason=reason, ending=ending)
            case ob.EndStray(stray):
                self.strays.end(stray)
            case ob.Forget():
                self._forget(run)
            case _:
                assert_never(action)
        return None

    def _submit(self, run: Run, n: int) -> Run:
        attempt = run.attempt_numbered(n)
        try:
            uid = self.engine.submit(run, n)
        except (NotFound, Unavailable):
            raise
        except BridgeError as error:
            # A refusal may be lifted, as long as the run has time.
            if attempt is not None and not isinstance(error, Misconfigured):
                self._raise_before(attempt.begun + attempt.timeout_seconds, error)
            return self._end(run, n, Verdict.ERROR, f"could not be submitted: {error}")
        at = self.clock.now()
        return self.runs.change(run.id, lambda now: with_submission(now, n, uid=uid, at=at))

    def _escalate(self, run: Run, n: int, rung: int) -> Run:
        """Take the rung, then write that it was taken: taken twice it is harmless, skipped it costs a minute."""
        acts = {
            ob.TOUCH: self.engine.touch,
            ob.STOP: self.engine.stop,
            ob.TERMINATE: self.engine.terminate,
            ob.DELETE: self.engine.delete,
        }
        acts[rung](run, n)
        return self.runs.change(run.id, lambda now: with_rung(now, n, rung))

    def _end(self, run: Run, n: int, verdict: Verdict, reason: str) -> Run:
        at = self.clock.now()
        line = cut(reason, 400)
        return self.runs.change(run.id, lambda now: with_end(now, n, verdict=verdict, reason=line, at=at))

    def _fire(self, run: Run, n: int, event: str, number: int) -> Run | None:
        attempt = run.attempt_numbered(n)
        if attempt is None:
            return None
        try:
            self._make_exit_build(run, attempt, event, number)
        except Conflict:
            pass  # the exit handler, or another controller, was faster
        except (NotFound, Unavailable):
            raise
        except BridgeError as error:
            # Its project is gone, or may not be built: that may be mended, as long as the event has time.
            self._raise_before((attempt.ended or 0.0) + attempt.exit_timeout_seconds, error)
            line = cut(str(error), 400)
            return self.runs.change(run.id, lambda now: with_exit_given_up(now, n, error=line))
        return None

    def _make_exit_build(self, run: Run, attempt: Attempt, event: str, number: int) -> None:
        payload = self._exit_payload(run, attempt)
        if payload is None:
            return  # still owed: the next look asks again, and what else is owed need not wait
        found: list[Build] = self.builds.find(run.id, epoch=attempt.epoch)
        self.builds.create(
            exit_build(
                run,
                attempt,
                event=event,
                number=number,
                payload=payload,
                failures=failures_of(run, attempt, found),
            )
        )

    def _raise_before(self, until: float, error: BridgeError) -> None:
        if self.clock.now() < until:
            raise error

    def _exit_payload(self, run: Run, attempt: Attempt) -> bytes | None:
        """The payload that an exit event brings, before its own key; None if its token has to be waited for."""
        payload = self.runs.payload(run.id)
        try:
            return self.freshened(run, payload)
        except EngineError as error:
            waits = attempt.ended is None or self.clock.now() < attempt.ended + TOKEN_SECONDS
            log.warning("the exit event of run %s %s: %s", run.id, "waits" if waits else "goes without", error)
            return None if waits else payload

    def _post(self, run: Run, report: Report) -> Run:
        try:
            to = self.reports.post(run, report, url=self.url_of(run.id))
        except StatusNotPosted as error:
            return self._not_posted(run, report, error)
        self.counting.came(Posting.TAKEN)
        at = self.clock.now()
        return self.runs.change(run.id, lambda now: with_report(now, report, to=to, at=at))

    def _not_posted(self, run: Run, report: Report, error: StatusNotPosted) -> Run:
        message = cut(str(error), 400)
        overwritten = isinstance(error, StatusOverwritten)
        if error.permanent or (overwritten and run.state.report_overwritten + 1 >= MOST_OVERWRITTEN):
            self.counting.came(Posting.GIVEN_UP)
            return self.runs.change(run.id, lambda now: with_report_given_up(now, report, error=message))
        put_off = isinstance(error, StatusPutOff)
        self.counting.came(Posting.OVERWRITTEN if overwritten else Posting.PUT_OFF if put_off else Posting.FAILED)
        failures = run.state.report_overwritten if overwritten else run.state.report_failures
        backoff = 0.0 if put_off else min(REPORT_BACKOFF_SECONDS * 2.0**failures, REPORT_BACKOFF_CAP_SECONDS)
        until = self.clock.now() + max(backoff, error.retry_after_seconds or 0.0)
        if overwritten:
            return self.runs.change(run.id, lambda now: with_report_overwritten(now, error=message, until=until))
        # What a pending one met by itself keeps no final one waiting; what the host asked for does.
        its_own = error.turn if isinstance(error, StatusPutOff) else error.retry_after_seconds is None
        pending_only = its_own and not report.is_final
        unsure_until = self.clock.now() + UNSURE_SECONDS if error.unsure else 0.0

        def change(now: Run) -> Run:
            changed = with_report_put_off(
                now, error=message, until=until, pending_only=pending_only, failed=not put_off
            )
            return with_report_unsure(changed, until=unsure_until)

        return self.runs.change(run.id, change)

    def _forget(self, run: Run) -> None:
        """The record goes last: until then somebody can come back and finish this."""
        for attempt in run.state.attempts:
            self.engine.delete(run, attempt.n)
        self.builds.forget(run.id)
        self.runs.forget(run.id)
