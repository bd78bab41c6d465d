"""Objects of the Kubernetes API as they may be."""

import pytest

from bridge.core.kubernetes import is_being_deleted, mapping, mappings, seconds, text


@pytest.mark.parametrize(
    ("said", "expected"),
    [("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T00:00:00.5+00:00", 0.5), ("", None), (None, None), (7, None)],
)
def test_times_are_read(said, expected):
    assert seconds({"at": said}, "at") == expected


def test_what_is_not_there_or_something_else_is_empty():
    assert mapping({"a": {"b": {"c": 1}}}, "a", "b") == {"c": 1}
    assert mapping({"a": [1]}, "a", "b") == {}
    assert mapping({"a": {"b": "c"}}, "a", "b") == {}
    assert mappings({"a": [{"b": 1}, 2]}, "a") == [{"b": 1}]
    assert mappings({"a": {"b": 1}}, "a") == []
    assert text({"a": 1}, "a") == ""
    assert text({"a": "x"}, "a") == "x"


def test_an_object_that_is_held_up_is_being_deleted():
    assert is_being_deleted({"metadata": {"deletionTimestamp": "1970-01-01T00:01:00Z"}})
    assert not is_being_deleted({"metadata": {}})
    assert not is_being_deleted({})
