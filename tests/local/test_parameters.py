"""`{{…}}`: looked up once, never evaluated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadPipeline
from bridge.local.parameters import filled, names_in

VALUES = {"workflow.name": "wf-1", "workflow.parameters.run": "r1", "retries": "0"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain {text} }}", "plain {text} }}"),
        ("{{workflow.name}}", "wf-1"),
        ("{{ workflow.name }}-{{retries}}", "wf-1-0"),
        ("--run={{workflow.parameters.run}}.", "--run=r1."),
    ],
)
def test_names_are_replaced_by_their_values(text, expected):
    assert filled(text, VALUES) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{workflow.failures}}", "{{workflow.failures}} stands for nothing in this place; known are retries"),
        ("{{tasks.a.outputs.result}}", "stands for nothing"),
        ("{{}}", "stands for nothing"),
        ("{{=1+1}}", "is an expression"),
        ("{{ = workflow.name }}", "is an expression"),
        ("{{workflow.name", "without its }}"),
        ("{{workflow.name}} {{", "without its }}"),
        ("{{a{{workflow.name}}", "stands for nothing"),
    ],
)
def test_anything_else_is_refused(text, said):
    with pytest.raises(BadPipeline) as caught:
        filled(text, VALUES)
    assert said in str(caught.value)


def test_what_was_put_in_is_not_read_again():
    values = {"a": "{{b}} {{=evil}} {{", "b": "secret"}
    assert filled("{{a}}|{{b}}", values) == "{{b}} {{=evil}} {{|secret"


def test_names_are_found_in_a_text():
    assert names_in("{{a}} and {{ b.c }} and {{a}}") == {"a", "b.c"}


@given(st.text(alphabet="{}=ab. \n\x00é", max_size=30), st.text())
def test_any_text_is_filled_in_or_refused(text, value):
    try:
        found = filled(text, {"a": value, "b": value})
    except BadPipeline:
        return
    if "{{" not in text:
        assert found == text
