"""Argo's `depends`: what it means, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.executions import NodePhase
from bridge.errors import BadPipeline
from bridge.local.depends import after, holds, parsed, tasks_in

S, F, E, K, O = NodePhase.SUCCEEDED, NodePhase.FAILED, NodePhase.ERROR, NodePhase.SKIPPED, NodePhase.OMITTED  # noqa: E741


@pytest.mark.parametrize(
    ("text", "phases", "expected"),
    [
        ("a", {"a": S}, True),
        ("a", {"a": K}, True),
        ("a", {"a": F}, False),
        ("a", {"a": E}, False),
        ("a", {"a": O}, False),
        ("a.Succeeded", {"a": K}, False),
        ("a.Failed", {"a": F}, True),
        ("a.Failed", {"a": E}, False),
        ("a.Errored", {"a": E}, True),
        ("a.Skipped", {"a": K}, True),
        ("a.Omitted", {"a": O}, True),
        ("a.Daemoned", {"a": S}, False),
        ("a.AnySucceeded", {"a": S}, False),
        ("a.AllFailed", {"a": F}, False),
        ("!a", {"a": F}, True),
        ("!a.Failed && b", {"a": S, "b": S}, True),
        ("a || b && c", {"a": S, "b": F, "c": F}, True),
        ("(a || b) && c", {"a": S, "b": F, "c": F}, False),
        ("!(a || b)", {"a": F, "b": F}, True),
        ("!!a", {"a": S}, True),
        ("unit-test&&lint", {"unit-test": S, "lint": S}, True),
        (" unit-test \n&& (lint.Succeeded||lint.Failed) ", {"unit-test": S, "lint": F}, True),
        ("2-build", {"2-build": S}, True),
    ],
)
def test_an_expression_means_what_it_means_in_argo(text, phases, expected):
    condition = parsed(text)
    assert holds(condition, phases) is expected
    assert tasks_in(condition) == set(phases)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a task's name"),
        ("a &&", "at its end"),
        ("a & b", "expected `&&`, `||` or the end before `& b`"),
        ("a b", "before `b`"),
        ("(a", "expected `)`"),
        ("a)", "before `)`"),
        ("a.Done", "a task's result is one of Succeeded"),
        ("a.", "before `.`"),
        ("a == 'b'", "before `== 'b'`"),
        ("not a", "before `a`"),
        ("{{a}}", "expected a task's name"),
        ("\x07", "before `?`"),
        ("(" * 60 + "a" + ")" * 60, "nested more than 50"),
        ("!" * 60 + "a", "nested more than 50"),
        ("a && " * 3000 + "a", "longer than"),
    ],
    ids=range(15),
)
def test_what_cannot_be_read_is_refused_with_the_place(text, said):
    with pytest.raises(BadPipeline, match=r"^depends: ") as caught:
        parsed(text)
    assert said in str(caught.value)


def test_a_long_row_is_no_depth():
    text = " && ".join(f"(t{n} || !u{n})" for n in range(200))
    phases = {f"t{n}": S for n in range(200)} | {f"u{n}": S for n in range(200)}
    assert holds(parsed(text), phases)


def test_dependencies_are_a_conjunction():
    assert holds(after([]), {})
    assert holds(after(["a", "b"]), {"a": S, "b": K})
    assert not holds(after(["a", "b"]), {"a": S, "b": F})
    assert after(["a", "b"]) == parsed("a && b")


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["a", "b.Failed", "(", ")", "&&", "||", "!", " "])).map("".join)
)
def test_any_text_is_read_or_refused(text):
    try:
        condition = parsed(text)
    except BadPipeline:
        return
    holds(condition, dict.fromkeys(tasks_in(condition), S))
