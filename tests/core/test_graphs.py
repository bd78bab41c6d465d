import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.graphs import BOX_HEIGHT, MOST_STEPS, picture, row

DIAMOND = {"build": (), "lint": ("build",), "test": ("build",), "deploy": ("lint", "test")}


def places(drawn):
    return {box.name: (box.x, box.y) for box in drawn.boxes}


def lines(drawn):
    return {(edge.source, edge.target) for edge in drawn.edges}


def no_box_overlaps(drawn):
    corners = [(box.x, box.y) for box in drawn.boxes]
    apart = [
        abs(x - other_x) >= drawn.box_width or abs(y - other_y) >= BOX_HEIGHT
        for index, (x, y) in enumerate(corners)
        for other_x, other_y in corners[index + 1 :]
    ]
    return all(apart)


def test_a_step_stands_to_the_right_of_what_it_needs_and_siblings_below_each_other():
    at = places(picture(DIAMOND))
    assert at["build"][0] < at["lint"][0] == at["test"][0] < at["deploy"][0]
    assert at["lint"][1] < at["test"][1]
    assert at["build"][1] == at["deploy"][1] == (at["lint"][1] + at["test"][1]) // 2


def test_a_line_begins_at_the_edge_of_the_one_box_and_ends_at_the_edge_of_the_other():
    drawn = picture(DIAMOND)
    at = places(drawn)
    for edge in drawn.edges:
        numbers = [int(number) for number in re.findall(r"-?\d+", edge.path)]
        assert numbers[:2] == [at[edge.source][0] + drawn.box_width, at[edge.source][1] + BOX_HEIGHT // 2]
        assert numbers[-2:] == [at[edge.target][0], at[edge.target][1] + BOX_HEIGHT // 2]


def test_a_line_that_follows_from_others_is_left_out():
    assert lines(picture({"a": (), "b": ("a",), "c": ("a", "b")})) == {("a", "b"), ("b", "c")}


def test_a_long_line_passes_beside_the_boxes_between():
    drawn = picture({"a": (), "b": ("a",), "c": ("b",), "side": ("a",), "end": ("c", "side")})
    (long,) = [edge for edge in drawn.edges if (edge.source, edge.target) == ("side", "end")]
    heights = {y for name, (_, y) in places(drawn).items() if name == "c"}
    passed = re.findall(r"(\d+)H", long.path)
    assert passed
    assert all(abs(int(y) - BOX_HEIGHT // 2 - height) >= BOX_HEIGHT for y in passed for height in heights)


def test_what_needs_nothing_stands_just_before_who_needs_it():
    at = places(picture({"a": (), "b": ("a",), "c": ("b", "late"), "late": ()}))
    assert at["late"][0] == at["b"][0]


@pytest.mark.parametrize(
    "needs",
    [
        {"a": ("b",), "b": ("a",)},
        {"a": ("a",)},
        {"a": ("b",), "b": ("c",), "c": ("a",), "d": ("nobody", "c", "c")},
    ],
)
def test_circles_and_unknown_needs_leave_a_picture(needs):
    drawn = picture(needs)
    assert set(places(drawn)) == set(needs)
    assert all(source in needs for source, _ in lines(drawn))
    assert no_box_overlaps(drawn)


def test_steps_of_which_nobody_knows_the_needs_stand_in_rows_without_lines():
    drawn = row([f"step-{n}" for n in range(6)])
    assert drawn.edges == ()
    assert len({y for _, y in places(drawn).values()}) == 2
    assert no_box_overlaps(drawn)


def test_a_long_name_is_cut_to_its_box():
    drawn = picture({"x" * 63: (), "short": ()})
    labels = {box.name: box.label for box in drawn.boxes}
    assert labels["short"] == "short"
    assert labels["x" * 63].endswith("…")
    assert len(labels["x" * 63]) < 40


def test_there_is_no_picture_of_nothing_and_none_of_very_many_steps():
    assert picture({}) is None
    assert row([]) is None
    assert picture({f"s{n}": () for n in range(MOST_STEPS + 1)}) is None
    assert row([f"s{n}" for n in range(MOST_STEPS + 1)]) is None


@given(
    st.integers(1, 14).flatmap(
        lambda count: st.lists(st.lists(st.integers(0, count), max_size=4), min_size=count, max_size=count)
    )
)
def test_any_steps_have_a_picture_in_which_boxes_are_apart_and_lines_go_right(wanted):
    needs = {f"s{n}": tuple(f"s{one}" for one in ones) for n, ones in enumerate(wanted)}
    drawn = picture(needs)
    at = places(drawn)
    assert list(at) == list(needs)
    assert no_box_overlaps(drawn)
    assert all(
        0 <= x <= drawn.width - drawn.box_width and 0 <= y <= drawn.height - BOX_HEIGHT for x, y in at.values()
    )
    for edge in drawn.edges:
        assert at[edge.source][0] < at[edge.target][0]
        points = re.findall(r"(\d+) (\d+)", edge.path)
        assert all(0 <= int(x) <= drawn.width and 0 <= int(y) <= drawn.height for x, y in points)
