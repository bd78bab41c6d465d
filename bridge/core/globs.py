"""Globs over names with segments: projects (`acme/*`), branches (`release/**`), tags (`v?.*`).

`*` is any text within a segment, `?` one character of it, `**` as a whole segment any number of segments (at the
end at least one). Everything else stands for itself, case included. The whole name must match.
"""

import re
from functools import lru_cache

_ANY_SEGMENTS = r"(?:[^/]*+/)"
_WILD = frozenset("*?")


def matches(glob: str, name: str) -> bool:
    """Whether the whole of `name` is described by `glob`."""
    return _compiled(glob).match(f"{name}/") is not None


def matches_any(globs: tuple[str, ...], name: str) -> bool:
    """Whether at least one of `globs` describes `name`."""
    plain, patterns = _sorted_out(globs)
    if name in plain or not patterns:
        return name in plain
    return any(pattern.match(f"{name}/") for pattern in patterns)


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
def _sorted_out(globs: tuple[str, ...]) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """The names among `globs`, and the patterns. Every pipeline is asked about every event, and most of them name
    other projects: that has to be cheap."""
    plain = frozenset(glob for glob in globs if not _WILD.intersection(glob))
    return plain, tuple(_compiled(glob) for glob in globs if glob not in plain)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translated(glob))
