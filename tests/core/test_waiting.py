"""What a Workflow waits for, in the words that Argo was recorded with."""

import pytest

from bridge.core.argo import execution_of
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.waiting import PATIENCE_SECONDS, waits_for
from tests import recorded

NOW = 1_700_000_000.0


def waits(execution, *, after=0.0):
    return waits_for(execution, submitted=NOW, now=NOW + after)


def of_recording(name):
    """All that it ever waited for, in order, each once."""
    found = [waits(execution_of(one)) for one in recorded.objects("argo", name)]
    return [one for one in dict.fromkeys(found) if one]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mutex-queued", ["the workflow waits for the lock ci/Mutex/m1"]),
        ("suspended-midway", ["the workflow is suspended: argo resume it"]),
        ("quota-zero-pods", ["step build: the quota nopods allows no more pods"]),
        ("imagepullbackoff", ["step build: the image localhost/nosuch:1 cannot be pulled"]),
        ("step-failed", []),
        ("template-missing", []),
        ("deleted", []),
    ],
)
def test_what_was_recorded_is_told(name, words):
    assert of_recording(name) == words


def test_a_pod_that_fits_nowhere_says_why():
    (told,) = of_recording("unschedulable")
    assert told.startswith("step build: its pod fits on no node: 0/1 nodes are available: 1 node(s) didn't match")
    assert len(told) <= 200


def node(message, *, phase=NodePhase.RUNNING, step="build", started=NOW):
    return Node(step, phase, message=message, started=started)


def going(*nodes, root=NodePhase.RUNNING, message=""):
    return Execution(uid="u", root=root, nodes=nodes, message=message)


@pytest.mark.parametrize(
    ("message", "after", "words"),
    [
        ("", 999, ""),
        ("PodInitializing", PATIENCE_SECONDS - 1, ""),
        ("PodInitializing", PATIENCE_SECONDS, "step build: its pod does not start: PodInitializing"),
        ("CreateContainerConfigError: no key", 0, "step build: its pod does not start: CreateContainerConfigError: no key"),
        ("Unschedulable", 0, "step build: its pod fits on no node: nobody says why"),
        ("ErrImagePull", 0, "step build: the image of its pod cannot be pulled"),
        ('pods "x" is forbidden: violates PodSecurity', 0, "step build: its pod is refused: violates PodSecurity"),
        ("something else", 999, ""),
    ],
)  # fmt: skip
def test_a_step_that_does_not_start_is_told_with_its_reason(message, after, words):
    assert waits(going(node(message)), after=after) == words


def test_a_workflow_of_which_one_step_goes_on_does_not_wait():
    stuck, fine = node("Unschedulable: no"), node("", step="lint")
    assert waits(going(stuck, fine)) == ""
    assert waits(going(stuck, node("", phase=NodePhase.SUCCEEDED, step="lint")))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Workflow processing has been postponed because too many workflows are already running", "parallelism"),
        ("Waiting for ci/Semaphore/limits/main lock. Lock status: 3/3", "ci/Semaphore/limits/main"),
        ("something new", "the workflow does not begin: something new"),
    ],
)
def test_a_workflow_that_does_not_begin_says_why(message, words):
    assert words in waits(going(root=None, message=message))


def test_that_nobody_begins_it_is_told_after_a_while():
    assert waits(going(root=None)) == ""
    assert waits(going(root=None), after=PATIENCE_SECONDS) == "Argo has not begun it: is its controller running?"
    assert waits_for(None, submitted=NOW, now=NOW + 999) == ""
