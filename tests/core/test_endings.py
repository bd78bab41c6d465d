"""Why a step did not succeed, in words that people read."""

import pytest

from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.endings import root_end
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.runs import Attempt, Kind
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

SECOND = Attempt(2, Kind.RETRY, 1, begun=0.0, steps=("test",))


def build(number, attempt):
    outcome = Outcome(Ending.FAILED, f"reason {number}", 1.0)
    return Build("b", "push-r1", 1, "test", number, attempt, "test", BuildPhase.FAILED, 0.0, outcome=outcome)


def reason(message, *builds, code=2):
    node = Node("test", NodePhase.FAILED, message=message, exit_code=code)
    execution = Execution(uid="u", root=NodePhase.FAILED, nodes=(node,))
    return root_end(some_run(), SECOND, execution, builds)


SAID = "main: Error (exit code 2): refs/heads/main points at d now"


@pytest.mark.parametrize(
    ("message", "builds", "wanted"),
    [
        (SAID, (build(1, 1),), "step test failed: refs/heads/main points at d now"),
        (SAID, (), "step test failed: refs/heads/main points at d now"),
        (SAID, (build(1, 1), build(2, 2)), "step test failed (build 2): reason 2"),
        ("Error (exit code 2)", (build(1, 1),), "step test failed (build 1): reason 1"),
        ("Error (exit code 2)", (), "step test failed: Error (exit code 2)"),
        ("", (), "step test failed: no reason given"),
    ],
)
def test_a_step_that_made_no_build_in_this_attempt_says_why_itself(message, builds, wanted):
    assert reason(message, *builds) == (Verdict.FAILED, wanted)


def test_what_a_step_says_is_cut():
    assert len(reason(f"main: Error (exit code 75): {'x' * 5000}", code=75)[1]) < 500
