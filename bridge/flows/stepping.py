"""One `brig run`: ask what is known of the key, do the next move, until there is an answer (design.md, A step)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from bridge.core import checkouts, names, step_flags
from bridge.core.builds import Build, BuildPhase, BuildSpec
from bridge.core.events import Event, Revision
from bridge.core.runs import Phase, Run
from bridge.core.step_flags import BuildFlags
from bridge.core.steps import Answer, Create, ExitCode, Follow, GiveUp, Known, Options, Pause, next_move
from bridge.errors import Conflict, EngineError, NotFound
from bridge.flows.settling import settled
from bridge.ports import Builds, Clock

LOOK_SECONDS = 0.25
PAUSE_STEP_SECONDS = 1.0
"""A backoff is waited in pieces, so that a cancel or a newer attempt is seen."""
TROUBLES = 8
"""How many times in a row the world may not answer before the step says: ask again."""


class Records(Protocol):
    """As much of `Runs` as a step reads."""

    def read(self, run_id: str) -> Run:
        """The record. Raises NotFound."""
        ...

    def payload(self, run_id: str) -> bytes:
        """The event's payload. Raises NotFound."""
        ...


class Sources(Protocol):
    """Where projects' sources come from, in a world whose builds may fetch the head of a ref, not the commit."""

    def sidecar(self, event: Event) -> str:
        """The image that fetches the source for builds of this event's project; empty: none does.

        Raises UnknownProject.
        """
        ...

    def heads(self, event: Event) -> frozenset[str]:
        """What the event's ref is at the git host now, a tag also as what it stands for; none if it is not there.

        Raises EngineError.
        """
        ...


class Interrupted(Exception):
    """The process was asked to end (SIGTERM); its build is left alone."""


@dataclass(frozen=True)
class Key:
    """What one step of one attempt is known by."""

    run: str
    attempt: int
    step: str


@dataclass
class Stepping:
    """The ports of a step, and what this call has seen so far."""

    runs: Records
    builds: Builds
    clock: Clock
    show: Callable[[bytes], None]
    """Takes the worker's log as it comes, whole and without repeats."""
    say: Callable[[str], None]
    """Takes lines of our own, for people."""
    flags: BuildFlags = field(default_factory=BuildFlags)
    """What builds are made of."""
    pause: Callable[[float], float] = lambda _followed_seconds: LOOK_SECONDS
    """How long to wait for the next look at a build that goes on and was followed for so long."""
    sources: Sources | None = None
    """None: every build checks out the commit."""
    freshened: Callable[[Run, bytes], bytes] = lambda _run, payload: payload
    """The record's payload as a build gets it, its installation token a fresh one. Raises EngineError."""
    interrupted: bool = False
    """Set with each Interrupted that is raised: Python clears an exception that comes in a response's finalizer
    without a word, and the step would go on for as long as its build."""
    _first_waiting: dict[str, float] = field(default_factory=dict)
    _first_running: dict[str, float] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)
    _followed: dict[int, float] = field(default_factory=dict)
    """By number: since when, by our own time."""
    _epoch: int | None = None

    def answer(self, key: Key, options: Options) -> Answer:
        """The answer to "has this step succeeded?", after as many moves as it takes; with `flags.background`, to
        "has its build been asked for?".

        It never raises an EngineError: what cannot be found out is `ExitCode.ASK_AGAIN`. Raises BadSettings if the
        flags contradict the record, and Misconfigured as the ports do.
        """
        troubles = 0
        while not self.interrupted:
            try:
                answer = self._move(key, options)
                troubles = 0
            except Interrupted:
                break
            except NotFound as error:
                return Answer(ExitCode.ASK_AGAIN, str(error))
            except EngineError as error:
                troubles += 1
                if troubles >= TROUBLES:
                    return Answer(ExitCode.ASK_AGAIN, f"could not find out: {error}")
                self.clock.sleep(min(0.25 * 2.0**troubles, 5.0))
                continue
            if answer is not None:
                return answer
        return Answer(ExitCode.ASK_AGAIN, "asked to end; the build is left alone")

    def _move(self, key: Key, options: Options) -> Answer | None:
        epoch = self._epoch_of(key)
        # The builds before the record: one that was swept away in between is remembered by the record, where a
        # record read first would know of neither.
        builds = self.builds.find(key.run, epoch=epoch, step=key.step)
        # Asked only where a build may be made next: in a cluster it is three lists.
        going = any(build.open for build in builds)
        highest = 0 if going else self.builds.highest(key.run, epoch=epoch, step=key.step)
        run = self.runs.read(key.run)
        event = step_flags.built(run.event, self.flags)
        known = self._known(run, key, epoch, builds, highest)
        options = options if options.events else replace(options, events=run.event.names)
        move = next_move(known, options)
        if isinstance(move, Answer):
            self._show_rest(known)
            return move
        if isinstance(move, Create):
            spec = self._spec(run, key, replace(event, type=move.event), move.number, options)
            if isinstance(spec, Answer):
                return spec
            if not self._is_still_so(run, epoch, known):
                return None
            self._say_why(known, move)
            return self._create(spec)
        if isinstance(move, GiveUp):
            self.say(f"giving up build {move.build.number}: {move.reason}")
            self.builds.give_up(move.build, reason=move.reason, ending=move.ending)
        elif isinstance(move, Pause):
            self._show_rest(known)
            self.clock.sleep(min(move.seconds, PAUSE_STEP_SECONDS))
        elif self.flags.background:
            return Answer(ExitCode.SUCCEEDED, f"build {move.build.number} ({move.build.id}) goes on by itself")
        else:
            self._follow(move)
        return None

    def _say_why(self, known: Known, move: Create) -> None:
        """Why there is another build, for whoever reads the step's log."""
        self._show_rest(known)
        before = known.builds[-1] if known.builds else None
        if before is not None and before.outcome is not None:
            why = before.outcome.reason or before.outcome.ending
            self.say(f"build {before.number} {before.outcome.ending}: {why}; next is build {move.number}")

    def _epoch_of(self, key: Key) -> int:
        """The epoch of an attempt, which never changes."""
        if self._epoch is None:
            attempt = self.runs.read(key.run).attempt_numbered(key.attempt)
            if attempt is None:
                return key.attempt
            self._epoch = attempt.epoch
        return self._epoch

    def _known(self, run: Run, key: Key, epoch: int, builds: list[Build], highest: int) -> Known:
        attempt = run.attempt_numbered(key.attempt)
        found = tuple(self._with_end(build) for build in builds)
        newest = run.attempt
        return Known(
            step=key.step,
            attempt=key.attempt,
            recorded=attempt is not None,
            newest_attempt=newest.n if newest is not None else 0,
            attempt_ended=attempt is not None and attempt.verdict is not None,
            closed=run.phase is Phase.CLOSED,
            cancel_waits=run.waiting_cancel is not None,
            only=attempt.only if attempt is not None else (),
            remembered=run.step(epoch, key.step),
            builds=found,
            highest=highest,
            waited_seconds={build.id: self._waited(build) for build in found},
            ran_seconds={build.id: self._ran(build) for build in found},
            followed=frozenset(self._followed),
            now=self.clock.now(),
        )

    def _with_end(self, build: Build) -> Build:
        outcome = settled(build, self.builds, now=self.clock.now())
        return build if outcome is None else replace(build, outcome=outcome)

    def _waited(self, build: Build) -> float:
        now = self.clock.monotonic()
        return now - self._first_waiting.setdefault(build.id, now)

    def _ran(self, build: Build) -> float:
        """How long it has run: by this process's own time, from what the start said when first seen."""
        if build.started is None:
            return 0.0
        now = self.clock.monotonic()
        ran_before = max(0.0, self.clock.now() - build.started)
        return now - self._first_running.setdefault(build.id, now - ran_before)

    def _spec(self, run: Run, key: Key, event: Event, number: int, options: Options) -> BuildSpec | Answer:
        """The build to make, or why it would not be the run's."""
        flags = self.flags
        revision = self._revision(event, key)
        if isinstance(revision, Answer):
            return revision
        epoch = self._epoch_of(key)
        if flags.payload is None:
            event = replace(event, payload=self.freshened(run, self.runs.payload(run.id)))
        return BuildSpec(
            id=names.build_id(run=run.id, epoch=epoch, step=key.step, number=number),
            run=run.id,
            pipeline=run.pipeline,
            epoch=epoch,
            step=key.step,
            number=number,
            attempt=key.attempt,
            event=replace(event, revision=revision),
            script=flags.script,
            config=flags.config,
            log_level=step_flags.log_level(flags, options),
        )

    def _is_still_so(self, run: Run, epoch: int, known: Known) -> bool:
        """Whether record and builds are what the move was chosen by.

        What was read did not all stand at one moment, and took a while: somebody who made a build meanwhile may be
        seen in the highest number or in the record and not among the builds, and the next number would be a second
        build beside it. The builds are read last: one that is made later has the same number, and one of the two
        meets the other.
        """
        if self.runs.read(run.id) != run:
            return False
        now = self.builds.find(run.id, epoch=epoch, step=known.step)
        return {build.id for build in now} == {build.id for build in known.builds}

    def _create(self, spec: BuildSpec) -> Answer | None:
        if spec.log_level != self.flags.log_level:
            self.say(
                f"-l {self.flags.log_level}: built with {spec.log_level}, for else no handler looks like success"
            )
        try:
            self.builds.create(spec)
        except Conflict:
            return None  # somebody else was faster; the next look attaches to it
        self._followed[spec.number] = self.clock.monotonic()
        self.say(f"Build: {spec.id}, Worker: brigade-worker-{spec.id}")
        if self.flags.background:
            return Answer(ExitCode.SUCCEEDED, f"build {spec.number} ({spec.id}) goes on by itself")
        return None

    def _revision(self, event: Event, key: Key) -> Revision | Answer:
        """The revision to tell the build, or why it would not be the run's."""
        if self.sources is None:
            return event.revision
        checkout, sidecar = self.flags.checkout, self.sources.sidecar(event)
        if checkouts.depends_on_head(event.revision, checkout, sidecar=sidecar, attempt=key.attempt):
            reason = checkouts.moved(event.revision, self.sources.heads(event))
            if reason:
                return Answer(ExitCode.FAILED, reason)
        return checkouts.told(event.revision, checkout, sidecar=sidecar)

    def _follow(self, move: Follow) -> None:
        build = move.build
        if build.number not in self._followed:
            self._followed[build.number] = self.clock.monotonic()
            self.say(f"attached to build {build.number} ({build.id})")
        if build.phase is not BuildPhase.WAITING:
            self._show_new(build)
        self.clock.sleep(self.pause(self.clock.monotonic() - self._followed[build.number]))

    def _show_new(self, build: Build) -> None:
        while True:
            chunk, offset = self.builds.follow(build, offset=self._offsets.get(build.id, 0))
            self._offsets[build.id] = offset
            if not chunk:
                return
            self.show(chunk)

    def _show_rest(self, known: Known) -> None:
        """The end of the logs of builds that this call followed."""
        for build in known.builds:
            if build.number in self._followed and build.outcome is not None:
                self._show_new(build)
