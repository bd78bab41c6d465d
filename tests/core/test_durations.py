import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.durations import seconds_of, written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400), ("250ms", 0.25), ("1m1s500ms", 61.5), ("0s", 0)],
)
def test_a_duration_is_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "-5m", "5m5h", "1.5h", "5min", "m", "1m1m", " 5s", "5s\n", "٣s", "9" * 30 + "s"]
)
def test_what_is_no_duration_is_refused_with_how_to_write_one(text):
    with pytest.raises(ValueError, match="write for example 90s, 15m or 1h30m"):
        seconds_of(text)


@settings(deadline=None)
@given(milliseconds=st.integers(min_value=0, max_value=10**12))
def test_what_was_written_is_read_as_the_same(milliseconds):
    seconds = milliseconds / 1000
    assert seconds_of(written(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (-1, "0s"), (90, "1m30s"), (7200.0, "2h"), (0.2, "200ms")]
)
def test_a_duration_is_written_as_a_person_would(seconds, text):
    assert written(seconds) == text


def test_days_are_written_in_hours_because_go_knows_no_days():
    assert written(2 * 86400) == "48h"
