import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.builds import (
    NO_HANDLER_LINE,
    TAIL_BYTES,
    Build,
    BuildPhase,
    Ending,
    judged,
    says_no_handler,
    tail_of,
)
from bridge.core.verdicts import Verdict


def build(phase: BuildPhase, **changes) -> Build:
    known = {
        "id": "b1", "run": "r", "epoch": 1, "step": "test", "number": 1, "attempt": 1, "event": "test", "phase": phase,
        "created": 0.0,
    }  # fmt: skip
    return Build(**{**known, **changes})


@pytest.mark.parametrize("phase", [BuildPhase.WAITING, BuildPhase.RUNNING])
def test_what_goes_on_has_no_end(phase):
    assert judged(build(phase), log="anything", at=1.0) is None


def test_a_worker_that_exits_with_0_succeeded_only_if_it_had_a_handler():
    done = build(BuildPhase.SUCCEEDED, exit_code=0, ended=5.0)
    assert judged(done, log="all fine\n", at=9.0).ending is Ending.SUCCEEDED
    assert judged(done, log="all fine\n", at=9.0).ended == 5.0
    assert judged(done, log=f"x\n{NO_HANDLER_LINE}\n", at=9.0).ending is Ending.UNHANDLED
    assert judged(done, log=None, at=9.0).ending is Ending.LOST


def test_a_job_cannot_pretend_that_there_was_no_handler():
    assert not says_no_handler(f"[job] {NO_HANDLER_LINE}\n")
    assert not says_no_handler(f"echo {NO_HANDLER_LINE}")
    assert says_no_handler(f"  {NO_HANDLER_LINE}\r\n")


def test_a_failure_says_the_code():
    failed = judged(build(BuildPhase.FAILED, exit_code=3), log="boom\n", at=9.0)
    assert (failed.ending, failed.reason, failed.tail) == (
        Ending.FAILED,
        "the worker exited with code 3",
        "boom\n",
    )


def test_a_worker_that_is_gone_is_lost():
    assert judged(build(BuildPhase.GONE), log=None, at=9.0).ending is Ending.LOST


@pytest.mark.parametrize("phase", list(BuildPhase))
def test_a_tombstone_wins_over_what_became_of_the_worker(phase):
    given_up = build(phase, given_up="timed out after 60 s", given_up_as=Ending.TIMED_OUT)
    outcome = judged(given_up, log="", at=9.0)
    assert (outcome.ending, outcome.reason) == (Ending.TIMED_OUT, "timed out after 60 s")


@given(st.text(max_size=3 * TAIL_BYTES))
def test_a_tail_is_the_end_of_a_log_and_never_too_long(log):
    tail = tail_of(log)
    assert len(tail.encode()) <= TAIL_BYTES
    assert log.encode("utf-8", "replace").decode().endswith(tail)


def test_every_ending_counts_as_a_verdict():
    assert {ending: ending.verdict for ending in Ending}[Ending.LOST] is Verdict.ERROR
    assert Ending.SUCCEEDED.verdict is Verdict.SUCCEEDED
