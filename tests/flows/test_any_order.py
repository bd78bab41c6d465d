"""Random histories over fakes: steps, controllers, people, deaths and lost answers in any order.

Whatever happened, once the world is left in peace the run closes, its commit says how, and nothing was doubled.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.core import names
from bridge.core.builds import BuildPhase, Ending
from bridge.core.executions import Node, NodePhase
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.runs import Act, Kind, Phase, with_act
from bridge.core.steps import Options
from bridge.core.verdicts import Verdict
from bridge.errors import StatusNotPosted, Unavailable
from bridge.flows.reconciling import Reconciling
from bridge.flows.stepping import Interrupted, Key, Stepping
from tests.fakes import FakeBuilds, FakeClock, FakeEngine, FakePipelines, FakeReports, FakeRuns, some_run

RUN = "push-r1"
PIPELINE = Pipeline(
    "push",
    ("acme/widgets",),
    (Trigger("push"),),
    (Step("build", ("build",)), Step("test", ("test",), needs=("build",))),
    timeout_seconds=3600,
)
OPTIONS = {"build": Options(("build",), tries=1), "test": Options(("test",), tries=2, timeout_seconds=120)}
FAULTS = [
    ("runs", "change"),
    ("runs", "read"),
    ("engine", "submit"),
    ("engine", "terminate"),
    ("builds", "create"),
    ("builds", "give_up"),
    ("builds", "record"),
    ("builds", "find"),
    ("reports", "post"),
]


class Killed(BaseException):
    """The process died here."""


class AnyOrder(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.clock = FakeClock()
        self.runs = FakeRuns()
        self.engine = FakeEngine()
        self.builds = FakeBuilds(self.clock)
        self.reports = FakeReports()
        self.controller = Reconciling(
            self.runs, FakePipelines([PIPELINE]), self.engine, self.builds, self.reports, self.clock
        )
        self.runs.add(some_run(accepted=self.clock.now()))
        self.ends: list[str] = []
        self.builds.on_create.append(self._play)
        self.requests = 0
        self.finals: dict[int, str] = {}

    def _play(self, spec):
        end = self.ends.pop(0) if self.ends else "succeed"
        if end == "succeed":
            self.builds.succeed(spec.id)
        elif end == "fail":
            self.builds.break_down(spec.id)
        elif end == "lose":
            self.builds.lose(spec.id)
        elif end == "run":
            self.builds.start(spec.id)

    # What happens

    @rule()
    def the_controller_looks(self):
        self._survive(lambda: self.controller.reconcile(RUN))

    @rule()
    def the_exit_handler_looks(self):
        self._survive(lambda: self.controller.exit(RUN))

    @rule(step=st.sampled_from(["build", "test"]), attempt=st.integers(1, 3))
    def a_steps_process_runs(self, step, attempt):
        """Also of an attempt that is over, as a pod that outlives its Workflow does."""
        if attempt > len(self.runs.records[RUN].state.attempts) or (step == "test" and not self._done("build")):
            return
        stepping = Stepping(self.runs, self.builds, self.clock, lambda _: None, lambda _: None)
        self.patience = 40

        def impatient():
            self.patience -= 1
            if self.patience < 0:
                raise Interrupted

        self.clock.on_sleep.append(impatient)
        try:
            answer = self._survive(lambda: stepping.answer(Key(RUN, attempt, step), OPTIONS[step]))
        finally:
            self.clock.on_sleep.remove(impatient)
        if answer is not None and answer.code in {0, 2, 69, 124}:
            self._node(step, attempt, answer.code)

    @rule(end=st.sampled_from(["succeed", "fail", "lose", "run", "wait"]))
    def the_next_build_will(self, end):
        self.ends.append(end)

    @rule(end=st.sampled_from(["succeed", "fail", "lose"]))
    def a_running_build_ends(self, end):
        going = [b for b in self.builds.builds if b.phase in {BuildPhase.RUNNING, BuildPhase.WAITING}]
        for build in going[:1]:
            {"succeed": self.builds.succeed, "fail": self.builds.break_down, "lose": self.builds.lose}[end](
                build.id
            )

    @rule(seconds=st.sampled_from([1, 30, 200, 4000]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(kind=st.sampled_from([Kind.RETRY, Kind.RERUN, Kind.CANCEL]), back=st.integers(0, 1))
    def a_person_asks(self, kind, back):
        newest = len(self.runs.records[RUN].state.attempts)
        if newest >= 3 and kind is not Kind.CANCEL:
            return
        self.requests += 1
        asked = Act(kind, f"q{self.requests}", max(1, newest - back), "ann")
        self._survive(lambda: self.runs.change(RUN, lambda run: with_act(run, asked)))

    @rule(fault=st.sampled_from(FAULTS), when=st.sampled_from(["before", "after"]), deadly=st.booleans())
    def something_is_about_to_fail(self, fault, when, deadly):
        port, method = fault
        error = Killed() if deadly else StatusNotPosted("lost") if port == "reports" else Unavailable("lost")
        getattr(self, port).fail(method, when, error)

    @rule()
    def somebody_deletes_the_workflow(self):
        self.engine.vanish(RUN, max(1, len(self.runs.records[RUN].state.attempts)))

    # What holds at every moment

    @invariant()
    def no_build_id_is_used_twice(self):
        assert self.builds.used_twice == []

    @invariant()
    def a_step_never_has_two_builds_that_go_on(self):
        going = [
            (b.epoch, b.step)
            for b in self.builds.builds
            if b.open and b.given_up_as is None and b.phase in {BuildPhase.RUNNING, BuildPhase.WAITING}
        ]
        assert len(going) == len(set(going))

    @invariant()
    def nothing_that_succeeded_is_built_again(self):
        """Within an epoch: the builds after a success must have been there before it was known."""
        for build in self.builds.builds:
            later = [
                b
                for b in self.builds.builds
                if (b.epoch, b.step) == (build.epoch, build.step) and b.number > build.number
            ]
            if build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED:
                assert later == []

    @invariant()
    def only_the_newest_attempt_has_no_verdict(self):
        verdicts = [a.verdict for a in self.runs.records[RUN].state.attempts]
        assert all(verdict is not None for verdict in verdicts[:-1])

    @invariant()
    def a_verdict_stands(self):
        for attempt in self.runs.records[RUN].state.attempts:
            if attempt.verdict is not None:
                assert self.finals.setdefault(attempt.n, attempt.verdict) == attempt.verdict

    @invariant()
    def one_attempt_never_says_two_different_ends(self):
        said: dict[int, set[str]] = {}
        for posted in self.reports.posts:
            if posted.report.state != "pending":
                said.setdefault(posted.report.attempt, set()).add(posted.report.state)
        assert all(len(states) == 1 for states in said.values())

    # The end

    def teardown(self):
        for port in (self.runs, self.engine, self.builds, self.reports):
            port.heal()
        self.ends.clear()
        for _ in range(200):
            self._peace()
            if self.runs.records[RUN].phase is Phase.CLOSED and not self._waits():
                break
        run = self.runs.records[RUN]
        assert run.phase is Phase.CLOSED
        assert run.verdict is not None
        assert not [b for b in self.builds.builds if b.open]
        last = self.reports.posts[-1].report
        assert (last.state, last.attempt) == (run.verdict.commit_state, run.attempt.n)
        for attempt in run.state.attempts:
            fired = [b for b in self.builds.builds if b.step == names.exit_step(attempt.n)]
            kept = [b for b in fired if b.outcome.ending is not Ending.LOST]
            assert len(kept) <= 1
            if attempt is run.attempt:
                assert bool(fired) == (attempt.verdict is not Verdict.SUCCEEDED)
        self.no_build_id_is_used_twice()
        self.nothing_that_succeeded_is_built_again()

    def _waits(self):
        run = self.runs.records[RUN]
        act = run.waiting_act
        return act is not None and not (act.kind is Kind.RETRY and run.verdict is Verdict.SUCCEEDED)

    def _peace(self):
        self.controller.reconcile(RUN)
        attempt = self.runs.records[RUN].attempt
        if attempt is not None and attempt.verdict is None:
            for step in ("build", "test"):
                if step == "build" or self._done("build"):
                    self.a_steps_process_runs(step, attempt.n)
        for build in self.builds.builds:
            if build.open and names.is_exit_step(build.step) and build.phase is not BuildPhase.SUCCEEDED:
                self.builds.succeed(build.id)
        self.clock.advance(60)

    def _done(self, step):
        run = self.runs.records[RUN]
        epoch = run.attempt.epoch if run.attempt else 1
        succeeded = [
            b
            for b in self.builds.builds
            if (b.epoch, b.step) == (epoch, step) and b.outcome and b.outcome.ending is Ending.SUCCEEDED
        ]
        return bool(succeeded) or run.step(epoch, step).succeeded is not None

    def _node(self, step, attempt, code):
        """The engine sees a step's process end, and ends the root node when there is nothing left to do."""
        execution = self.engine.executions.get(names.workflow_name(RUN, attempt))
        if execution is None or execution.root_ended:
            return
        phase = NodePhase.SUCCEEDED if code == 0 else NodePhase.FAILED
        nodes = {node.step: node for node in execution.nodes} | {step: Node(step, phase, code)}
        self.engine.set(RUN, attempt, nodes=tuple(nodes.values()))
        if code != 0:
            self.engine.set(RUN, attempt, root=NodePhase.FAILED, finished=True)
        elif all(name in nodes and nodes[name].exit_code == 0 for name in OPTIONS):
            self.engine.set(RUN, attempt, root=NodePhase.SUCCEEDED, finished=True)

    def _survive(self, act):
        try:
            return act()
        except (Killed, Unavailable):
            return None


AnyOrder.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAnyOrder = AnyOrder.TestCase
