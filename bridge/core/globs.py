"""Globs over names with segments: projects (`acme/*`), branches (`release/**`), tags (`v?.*`).

`*` is any text within a segment, `?` one character of it, `**` as a whole segment any number of segments (at the
end at least one). Everything else stands for itself, case included. The whole name must match.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

_ANY_SEGMENTS = r"(?:[^/]*+/)"


def matches(glob: str, name: str) -> bool:
    """Whether the whole of `name` is described by `glob`."""
    return _compiled(glob).match(f"{name}/") is not None


def matches_any(globs: Iterable[str], name: str) -> bool:
    """Whether at least one of `globs` describes `name`."""
    return any(matches(glob, name) for glob in globs)


def translated(glob: str) -> str:
    r"""The anchored regular expression of `glob`, to be held against the name with one `/` added.

    Names come from outside, so its cost has to stay low: what lies between two stars is found at its first place
    and never sought again (atomic groups), which loses nothing, because a later star can take up what is left.
    """
    runs = [""]
    previous = ""
    for segment in glob.split("/"):
        if segment != "**":
            runs[-1] += f"{_segment(segment)}/"
        elif previous != "**":
            runs.append("")
        previous = segment
    first, *others = runs
    if not others:
        return rf"\A{first}\Z"
    *middle, last = others
    found = "".join(f"(?>{_ANY_SEGMENTS}*?{run})" for run in middle)
    repeat = "*" if last else "+"
    return rf"\A{first}{found}{_ANY_SEGMENTS}{repeat}{last}\Z"


def _segment(segment: str) -> str:
    pieces = [_literal(piece) for piece in re.split(r"\*+", segment)]
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + f"[^/]*{last}"


def _literal(piece: str) -> str:
    return "[^/]".join(re.escape(part) for part in piece.split("?"))


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translated(glob))
