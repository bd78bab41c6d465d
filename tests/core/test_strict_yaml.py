import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.strict_yaml import MAX_BYTES, NotStrictYaml, loaded


def test_words_that_yaml_1_1_takes_for_something_else_are_words():
    assert loaded("{on: yes, a: no, b: 1:30, c: 2026-11-24, d: 010, e: 0x10, f: 1e3, g: =}") == {
        "on": "yes",
        "a": "no",
        "b": "1:30",
        "c": "2026-11-24",
        "d": "010",
        "e": "0x10",
        "f": "1e3",
        "g": "=",
    }


def test_the_plain_types_are_read():
    assert loaded("{a: 1, b: -2, c: 1.5, d: true, e: false, f: null, g: ~, h: , i: [x], j: '1'}") == {
        "a": 1,
        "b": -2,
        "c": 1.5,
        "d": True,
        "e": False,
        "f": None,
        "g": None,
        "h": None,
        "i": ["x"],
        "j": "1",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key `a` is there twice"),
        ("x: {a: 1, 'a': 2}", "the key `a` is there twice"),
        ("a: &x 1\nb: *x", "line 1, column 4: anchors and aliases are not read here"),
        ("a: &x {b: *x}", "anchors and aliases"),
        ("a: !!python/object:os.system x", "tags .* are not read here"),
        ("a: ! x", "tags .* are not read here"),
        ("1: a", "a key must be a word"),
        ("true: a", "a key must be a word"),
        ("? [a]\n: b", "a key must be a word"),
        ("a: [", "line 1, column 5: .*expected"),
        ("a: b: c", "line 1, column 5"),
        ("a\n---\nb", "another document"),
        ("a: \x00", "characters that YAML does not allow"),
        ("[" * 10_000, "nested more than"),
        ("- " * 10_000, "nested more than"),
        ("a: '" + "x" * MAX_BYTES, "longer than"),
    ],
)
def test_what_hides_something_is_refused_with_its_place(text, said):
    with pytest.raises(NotStrictYaml, match=said):
        loaded(text)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("ab:-?[]{},&*!|>'\"%@` \n\t#0123.~<=\ud800\x85")) | st.text())
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(NotStrictYaml):
        loaded(text)
