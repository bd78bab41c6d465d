"""retryStrategy: which ends are tried again, how often, after what pause."""

import pytest

from bridge.core.executions import NodePhase
from bridge.core.workflows import RETRY_EXPRESSION
from bridge.errors import BadPipeline
from bridge.local.retries import DEADLINE_MESSAGE, NEVER, UNKNOWN_CODE, End, Policy, Strategy, codes_of, seconds_of

CODES = codes_of(RETRY_EXPRESSION)
OURS = Strategy(limit=10, policy=Policy.ALWAYS, codes=CODES, pause_seconds=5, factor=2, cap_seconds=120)


def failed(code, message=""):
    return End(NodePhase.FAILED, code, message)


def errored(code=None):
    return End(NodePhase.ERROR, code, "pod deleted")


def test_the_rendered_expression_is_known_by_its_codes():
    assert {"75", "64", "137", "143"} == CODES
    assert codes_of(RETRY_EXPRESSION.replace(" ", "\n  ")) == CODES
    assert codes_of(RETRY_EXPRESSION.replace("','", "', '")) == CODES


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "true",
        "lastRetry.exitCode != '0'",
        "asInt(lastRetry.exitCode) > 1",
        RETRY_EXPRESSION + " || true",
        RETRY_EXPRESSION.replace("'75'", "75"),
        RETRY_EXPRESSION.replace("Error", "Failed"),
        RETRY_EXPRESSION.replace("specified", "any"),
    ],
)
def test_other_expressions_are_refused_with_the_reason(expression):
    with pytest.raises(BadPipeline, match="evaluates no expressions"):
        codes_of(expression)


@pytest.mark.parametrize("code", [75, 64, 137, 143])
def test_a_step_that_could_not_answer_is_asked_again(code):
    assert OURS.why_not(failed(code), 0) is None
    assert OURS.why_not(failed(code), 9) is None
    assert OURS.why_not(failed(code), 10) == "No more retries left"


@pytest.mark.parametrize("code", [1, 2, 3, 69, 124, 127, None])
def test_a_step_that_answered_is_not(code):
    assert OURS.why_not(failed(code), 0) == ""
    assert UNKNOWN_CODE not in CODES


def test_an_end_by_the_templates_own_deadline_is_final():
    assert OURS.why_not(failed(143, DEADLINE_MESSAGE), 0) == ""


def test_an_error_is_tried_again_whatever_its_code():
    assert OURS.why_not(errored(), 0) is None
    assert OURS.why_not(errored(0), 0) is None


@pytest.mark.parametrize(
    ("policy", "end", "again"),
    [
        (Policy.ON_FAILURE, failed(1), True),
        (Policy.ON_FAILURE, errored(), False),
        (Policy.ON_ERROR, failed(1), False),
        (Policy.ON_ERROR, errored(), True),
        (Policy.ALWAYS, failed(1), True),
        (Policy.ALWAYS, errored(), True),
    ],
)
def test_the_policy_says_which_ends_are_tried_again(policy, end, again):
    assert (Strategy(limit=1, policy=policy).why_not(end, 0) is None) is again


def test_without_a_limit_there_is_no_end_but_always_a_pause():
    endless = Strategy(limit=None)
    assert endless.why_not(failed(1), 10**6) is None
    assert endless.pause_after(0) == 1.0
    assert endless.pause_after(10**6) == 1.0


def test_without_a_strategy_nothing_is_tried_again():
    assert NEVER.why_not(failed(75), 0) == ""
    assert NEVER.why_not(errored(), 0) == ""


def test_the_pause_grows_up_to_its_cap():
    assert [OURS.pause_after(n) for n in (0, 1, 2, 3, 4, 5, 100, 10**6)] == [5, 10, 20, 40, 80, 120, 120, 120]
    assert Strategy(limit=3, pause_seconds=2).pause_after(2) == 2
    assert Strategy(limit=3).pause_after(2) == 0


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("90s", 90.0), ("1h30m", 5400.0), ("250ms", 0.25)])
def test_a_duration_is_read_as_argo_does(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-5", "soon", "1.5h", "٣"])
def test_a_duration_that_is_none_is_refused(text):
    with pytest.raises(BadPipeline, match="is no duration"):
        seconds_of(text)
