"""Durations as people write them: `90s`, `15m`, `1h30m`, `1d`, `250ms`."""

import re

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile(
    r"(?:(?P<d>\d{1,9})d)?(?:(?P<h>\d{1,9})h)?(?:(?P<m>\d{1,9})m)?(?:(?P<s>\d{1,9})s)?(?:(?P<ms>\d{1,9})ms)?",
    re.ASCII,
)


def seconds_of(text: str) -> float:
    """The seconds that `text` stands for: whole numbers with d, h, m, s, ms, the larger first.

    Raises ValueError that says how it is written.
    """
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text[:40]!r} is no duration; write for example 90s, 15m or 1h30m")
    parts = found.groupdict(default="0")
    return sum(int(parts[unit]) * size for unit, size in _MILLISECONDS.items()) / 1000


def written(seconds: float) -> str:
    """`seconds`, to the millisecond, in the form that `seconds_of` reads; Go and Argo read it too.

    Days are written as hours, which Go's durations end with.
    """
    left = round(seconds * 1000)
    if left <= 0:
        return "0s"
    text = ""
    for unit, size in list(_MILLISECONDS.items())[1:]:
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text
