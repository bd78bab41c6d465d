"""The picture of a run's steps: which needs which, in columns from left to right. Geometry alone, in pixels.

Whatever is said to be needed is drawn as well as it can be: needs of unknown steps and those that close a circle
(hand-written templates may have both until Argo refuses them) are left out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_STEPS = 150
"""With more a picture tells nothing, and a list is better."""

BOX_HEIGHT = 54
_NARROWEST, _WIDEST = 184, 268
"""The narrowest has room for `succeeded · 59 min 59 s` in the broad fonts that some machines have."""
_CHARACTER_WIDTH = 8
_BESIDE_NAME = 46
"""The room in a box that its name does not get: the sign of its state, and space."""
_GAP_X, _GAP_Y, _MARGIN = 52, 18, 6
_BOXES_IN_ROW = 4
_SWEEPS = 4

Needs = Mapping[str, Sequence[str]]
"""The steps, in their order, each with those that must succeed before it."""


@dataclass(frozen=True)
class Box:
    """A step's place: its upper left corner."""

    name: str
    label: str
    """The name, cut to what fits."""
    x: int
    y: int


@dataclass(frozen=True)
class Edge:
    """That `target` needs `source`."""

    source: str
    target: str
    path: str
    """The `d` of an SVG path."""


@dataclass(frozen=True)
class Picture:
    """Boxes and the lines between them. All boxes are `box_width` × `BOX_HEIGHT`."""

    width: int
    height: int
    box_width: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def picture(needs: Needs) -> Picture | None:
    """The steps in columns, each to the right of what it needs; None for no steps, or too many.

    Lines that follow from others (a → c beside a → b → c) are left out.
    """
    if not 0 < len(needs) <= MOST_STEPS:
        return None
    kept = _reduced(_without_circles(needs))
    columns = _columns(kept)
    lanes = _ordered(_lanes(kept, columns), kept, columns)
    width = _box_width(needs)
    places = _places(lanes, width)
    boxes = tuple(Box(name, _label(name, width), *places[(name,), column]) for name, column in columns.items())
    edges = tuple(
        Edge(source, target, _path(source, target, columns, places, width))
        for target, sources in kept.items()
        for source in sources
    )
    return _framed(places.values(), boxes, edges, width)


def row(names: Sequence[str]) -> Picture | None:
    """The steps side by side, in rows, when nobody knows what they need; None for no steps, or too many."""
    if not 0 < len(names) <= MOST_STEPS:
        return None
    width = _box_width(dict.fromkeys(names, ()))
    boxes = []
    for index, name in enumerate(dict.fromkeys(names)):
        line, place = divmod(index, _BOXES_IN_ROW)
        x, y = _MARGIN + place * (width + _GAP_Y), _MARGIN + line * (BOX_HEIGHT + _GAP_Y)
        boxes.append(Box(name, _label(name, width), x, y))
    return _framed([(box.x, box.y) for box in boxes], tuple(boxes), (), width)


_Cell = tuple[str, ...]
"""What stands in a column: (step,), or (source, target) where a line passes by."""

_Places = dict[tuple[_Cell, int], tuple[int, int]]
"""The upper left corner of each cell, by the cell and its column."""


def _without_circles(needs: Needs) -> dict[str, tuple[str, ...]]:
    kept: dict[str, tuple[str, ...]] = {}
    for name, wanted in needs.items():
        known = [one for one in dict.fromkeys(wanted) if one in needs and one != name]
        kept[name] = tuple(one for one in known if not _reaches(kept, one, name))
    return kept


def _reaches(needs: Needs, start: str, goal: str) -> bool:
    """Whether `start` needs `goal`, also by way of others."""
    seen, left = {start}, [start]
    while left:
        for one in needs.get(left.pop(), ()):
            if one == goal:
                return True
            if one not in seen:
                seen.add(one)
                left.append(one)
    return False


def _reduced(needs: Needs) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(
            one for one in wanted if not any(_reaches(needs, other, one) for other in wanted if other != one)
        )
        for name, wanted in needs.items()
    }


def _columns(needs: Needs) -> dict[str, int]:
    """Each step one column to the right of the last that it needs; what needs nothing just before who needs it."""
    columns: dict[str, int] = {}
    left = list(needs)
    while left:
        ready = [name for name in left if all(one in columns for one in needs[name])]
        for name in ready:
            columns[name] = 1 + max((columns[one] for one in needs[name]), default=-1)
        left = [name for name in left if name not in columns]
    for name, wanted in needs.items():
        users = [columns[user] for user, wants in needs.items() if name in wants]
        if users and not wanted:
            columns[name] = min(users) - 1
    return {name: columns[name] for name in needs}


def _lanes(needs: Needs, columns: Mapping[str, int]) -> list[list[_Cell]]:
    lanes: list[list[_Cell]] = [[] for _ in range(1 + max(columns.values()))]
    for name, column in columns.items():
        lanes[column].append((name,))
    for target, sources in needs.items():
        for source in sources:
            for column in range(columns[source] + 1, columns[target]):
                lanes[column].append((source, target))
    return lanes


def _ordered(lanes: list[list[_Cell]], needs: Needs, columns: Mapping[str, int]) -> list[list[_Cell]]:
    """The cells of each column sorted so that few lines cross: each near the middle of those it is joined to."""
    joined = _joined(needs, columns)
    forward = [(column, column - 1) for column in range(1, len(lanes))]
    backward = [(column, column + 1) for column in range(len(lanes) - 2, -1, -1)]
    for sweep in range(_SWEEPS):
        for column, beside in backward if sweep % 2 else forward:
            height = _height_in(lanes[beside])
            own = _height_in(lanes[column])
            lanes[column].sort(
                key=lambda cell: _mean(
                    [height[one] for one in joined.get((cell, column), ()) if one in height], own[cell]
                )
            )
    return lanes


def _joined(needs: Needs, columns: Mapping[str, int]) -> dict[tuple[_Cell, int], list[_Cell]]:
    """By cell and column: the cells of the next and the last column that a line goes to."""
    joined: dict[tuple[_Cell, int], list[_Cell]] = {}
    for target, sources in needs.items():
        for source in sources:
            chain = _chain(source, target, columns)
            for (left, at), (right, then) in pairwise(chain):
                joined.setdefault((left, at), []).append(right)
                joined.setdefault((right, then), []).append(left)
    return joined


def _chain(source: str, target: str, columns: Mapping[str, int]) -> list[tuple[_Cell, int]]:
    """The cells that the line from `source` to `target` goes through, each with its column."""
    between = range(columns[source] + 1, columns[target])
    passed: list[tuple[_Cell, int]] = [((source, target), column) for column in between]
    return [((source,), columns[source]), *passed, ((target,), columns[target])]


def _height_in(lane: Sequence[_Cell]) -> dict[_Cell, float]:
    """Where each cell stands, measured from the middle of its column."""
    return {cell: index - (len(lane) - 1) / 2 for index, cell in enumerate(lane)}


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def _places(lanes: Sequence[Sequence[_Cell]], width: int) -> _Places:
    tallest = max(len(lane) for lane in lanes)
    places: _Places = {}
    for column, lane in enumerate(lanes):
        x = _MARGIN + column * (width + _GAP_X)
        first = _MARGIN + (tallest - len(lane)) * (BOX_HEIGHT + _GAP_Y) // 2
        for index, cell in enumerate(lane):
            places[cell, column] = (x, first + index * (BOX_HEIGHT + _GAP_Y))
    return places


def _path(
    source: str,
    target: str,
    columns: Mapping[str, int],
    places: _Places,
    width: int,
) -> str:
    points = [places[cell, column] for cell, column in _chain(source, target, columns)]
    middle = BOX_HEIGHT // 2
    x, y = points[0][0] + width, points[0][1] + middle
    drawn = [f"M{x} {y}"]
    for left, top in points[1:]:
        half = (x + left) // 2
        drawn.append(f"C{half} {y} {half} {top + middle} {left} {top + middle}")
        x, y = left + width, top + middle
        drawn.append(f"H{x}")
    # The last stretch would run through the target's box.
    return "".join(drawn[:-1])


def _framed(
    corners: Collection[tuple[int, int]], boxes: tuple[Box, ...], edges: tuple[Edge, ...], width: int
) -> Picture:
    """The picture around cells with these upper left corners: lines pass through some that hold no box."""
    right, bottom = (max(corner[axis] for corner in corners) for axis in (0, 1))
    return Picture(right + width + _MARGIN, bottom + BOX_HEIGHT + _MARGIN, width, boxes, edges)


def _box_width(needs: Needs) -> int:
    longest = max(len(name) for name in needs)
    return min(_WIDEST, max(_NARROWEST, longest * _CHARACTER_WIDTH + _BESIDE_NAME))


def _label(name: str, width: int) -> str:
    fitting = (width - _BESIDE_NAME) // _CHARACTER_WIDTH
    return name if len(name) <= fitting else f"{name[: fitting - 1]}…"
