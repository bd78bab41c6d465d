import pytest

from bridge.web.wording import absolute, ago, took

NOW = 1_700_000_000.0
AT = "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, said):
    assert took(seconds) == said


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (-5, "just now"),
        (9, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (86_400, "1 d ago"),
        (7 * 86_400, "7 d ago"),
        (9 * 86_400, "2023-11-14"),
    ],
)
def test_a_time_is_said_by_how_long_ago_it_was_or_by_its_day(passed, said):
    assert ago(AT, NOW + passed) == said
    assert ago(None, NOW) == ""


def test_a_time_in_full_is_of_utc():
    assert absolute(AT) == absolute(NOW) == "2023-11-14 22:13:20 UTC"
    assert absolute(None) == ""
