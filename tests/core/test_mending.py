"""With what a run ends whose record was damaged."""

import pytest

from bridge.core.builds import Build, BuildPhase
from bridge.core.mending import HELD, REASON, ended_state, is_of_newer_bridge, next_attempt
from bridge.core.verdicts import Verdict
from tests.fakes import some_event


def build(attempt, epoch):
    return Build(f"b{attempt}", "push-r1", epoch, "test", 1, attempt, "test", BuildPhase.RUNNING, 0.0)


@pytest.mark.parametrize(
    ("workflows", "builds", "wanted"),
    [([], [], 1), ([1, 3, 2], [], 4), ([1], [build(2, 1)], 3), ([], [build(1, 5)], 6)],
)
def test_its_attempt_has_a_number_that_nothing_had(workflows, builds, wanted):
    assert next_attempt(workflows, builds) == wanted


def test_it_has_ended_as_an_error_and_builds_nothing_of_before():
    state = ended_state(some_event(), attempt=3, at=7.0)
    (attempt,) = state.attempts
    assert (attempt.n, attempt.epoch, attempt.verdict, attempt.ended) == (3, 3, Verdict.ERROR, 7.0)
    assert attempt.reason == REASON
    assert (state.held, state.steps, state.reported) == ("", {}, None)


def test_what_a_stranger_sent_has_to_be_approved_again():
    assert ended_state(some_event(fork_author="NONE"), attempt=1, at=7.0).held == HELD


@pytest.mark.parametrize(
    ("text", "newer"),
    [("{no json", False), ("", False), ('{"schema": 2}', False), ('{"schema": 3}', True), ("[3]", False)],
)
def test_what_a_newer_bridge_wrote_is_no_damage(text, newer):
    assert is_of_newer_bridge(text) is newer
