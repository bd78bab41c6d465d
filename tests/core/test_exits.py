import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core import names
from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.exits import PAYLOAD_LIMIT, Failure, exit_build, exit_payload, failures_of
from bridge.core.runs import Attempt, Kind
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

ATTEMPT = Attempt(2, Kind.RETRY, 1, 0.0, verdict=Verdict.FAILED, on_failure="build_failed")
TOLD = {"run": "r", "attempt": 1, "verdict": Verdict.FAILED, "failures": (Failure("test", "it broke", "b1"),)}
EXPECTED = {
    "run": "r", "attempt": 1, "verdict": "failed", "failures": [{"step": "test", "message": "it broke", "build": "b1"}]
}  # fmt: skip

json_objects = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(json_objects)
def test_an_object_gets_one_more_key(payload):
    changed = json.loads(exit_payload(json.dumps(payload).encode(), **TOLD))
    assert changed == {**payload, "bridge": EXPECTED}


@pytest.mark.parametrize("payload", [b"[1, 2]", b"plain text", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_is_handed_on_unchanged(payload):
    assert exit_payload(payload, **TOLD) == payload


def test_no_payload_becomes_the_key_alone():
    assert json.loads(exit_payload(b"", **TOLD)) == {"bridge": EXPECTED}


def test_what_no_longer_fits_is_dropped_to_the_key_alone():
    payload = json.dumps({"large": "x" * (PAYLOAD_LIMIT - 20)}).encode()
    assert json.loads(exit_payload(payload, **TOLD)) == {"bridge": EXPECTED}


def build(step: str, number: int, ending: Ending, epoch: int = 1) -> Build:
    return Build(
        f"{step}{number}",
        "r",
        epoch,
        step,
        number,
        1,
        step,
        BuildPhase.FAILED,
        0.0,
        outcome=Outcome(ending, "why"),
    )


def test_failures_are_the_newest_builds_of_steps_that_never_succeeded():
    builds = [
        build("a", 1, Ending.FAILED),
        build("a", 2, Ending.SUCCEEDED),
        build("b", 1, Ending.FAILED),
        build("b", 2, Ending.LOST),
        build("c", 1, Ending.FAILED, epoch=7),
        build(names.exit_step(1), 1, Ending.FAILED),
    ]
    assert failures_of(some_run(), ATTEMPT, builds) == (Failure("b", "why", "b2"),)


def test_the_exit_build_is_the_runs_event_under_another_name():
    run = some_run()
    spec = exit_build(run, ATTEMPT, event="build_failed", number=1, payload=b"{}", failures=())
    assert (spec.event.type, spec.event.provider) == ("build_failed", run.event.provider)
    assert spec.event.revision == run.event.revision
    assert spec.step == "exit.2"
    assert spec.id == names.build_id(run=run.id, epoch=1, step="exit.2", number=1)
