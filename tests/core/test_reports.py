from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.reports import context_of, cut, final_report, pending_report
from bridge.core.runs import Attempt, Kind, State
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

ATTEMPT = Attempt(1, Kind.FIRST, 1, 0.0, steps=("a", "b"))


@given(st.text(max_size=400), st.sampled_from(list(Verdict)))
def test_a_description_always_fits(reason, verdict):
    report = final_report(some_run(), replace(ATTEMPT, reason=reason), verdict)
    assert 0 < len(report.description) <= 140
    assert "\n" not in report.description


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("succeeded", "success"),
        ("failed", "failure"),
        ("timed_out", "failure"),
        ("error", "error"),
        ("cancelled", "error"),
    ],
)
def test_verdicts_as_github_knows_them(verdict, state):
    assert final_report(some_run(), ATTEMPT, Verdict(verdict)).state == state


def test_what_failed_says_what_to_do():
    report = final_report(
        some_run(), replace(ATTEMPT, reason="step test failed (build 3): " + "x" * 200), Verdict.FAILED
    )
    assert report.description.startswith("step test failed (build 3): x")
    assert report.description.endswith("…; bridgectl retry push-r1")


def test_a_success_says_what_succeeded():
    assert final_report(some_run(), ATTEMPT, Verdict.SUCCEEDED).description == "2 steps succeeded"


def test_pending_is_of_the_newest_attempt():
    second = replace(ATTEMPT, n=2)
    assert pending_report(some_run(state=State(attempts=(ATTEMPT, second)))).attempt == 2
    assert pending_report(some_run()).attempt == 1


def test_a_context_is_the_pipelines_or_made_of_pipeline_and_event():
    assert context_of(pipeline="pr", event_family="pull_request", wanted=None) == "bridge/pr/pull_request"
    assert context_of(pipeline="pr", event_family="pull_request", wanted="ci") == "ci"


def test_text_is_cut_with_an_ellipsis():
    assert cut("a\n b", 140) == "a b"
    assert cut("abcdef", 4) == "abc…"
