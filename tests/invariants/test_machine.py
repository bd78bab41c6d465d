"""Anything in any order, over fakes: deliveries, deaths, lost answers, what Workflows do, people, GitHub, time."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.invariants.world import World, apply, operations


class Anything(RuleBasedStateMachine):
    """What holds at every moment is looked at after each operation; what holds in the end, after the last."""

    @initialize()
    def begin(self):
        self.world = World()
        apply(self.world, ("deliver", 0))

    @rule(operation=operations())
    def something_happens(self, operation):
        apply(self.world, operation)

    def teardown(self):
        if hasattr(self, "world"):
            self.world.settle()


Anything.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAnything = Anything.TestCase
