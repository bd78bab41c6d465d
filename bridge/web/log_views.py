"""Logs on pages: the text that a page begins with, and the pieces that come while it is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.core.builds import Build
from bridge.core.terminal_text import last_lines, plain, whole_lines
from bridge.ports import Builds

PIECE_CHARACTERS = 256 * 1024
"""Of what came since the last look, so much is shown at most: the end."""
FOLLOWED_BYTES = 8 * 1024 * 1024
"""Beyond this a page does not follow: it would hold all of it. The text alone has the whole."""
LONGEST_LINE_BYTES = 4096
"""So long a line may be that has not ended yet, before its beginning is shown."""
PAGE_LINES = 20_000
PAGE_CHARACTERS = 1024 * 1024


@dataclass(frozen=True)
class Piece:
    """What came since the last look."""

    text: str
    offset: int
    """Where the next look begins, in bytes of the log."""
    left_out: int
    """So many characters before `text` are not shown."""
    ended: bool
    """Nothing more will come."""

    @property
    def too_long(self) -> bool:
        """Whether following ends here, though the log goes on."""
        return self.offset > FOLLOWED_BYTES and not self.ended


def piece_of(logs: Builds, build: Build, *, offset: int) -> Piece:
    """The log of `build` from `offset` on, up to the last whole line while the build goes on."""
    more, following = logs.follow(build, offset=offset)
    ended = build.outcome is not None
    shown = whole_lines(more, longest_line=LONGEST_LINE_BYTES)
    if ended and not shown:
        shown = more
    text = plain(shown.decode("utf-8", "replace"))
    end = _end(text)
    return Piece(end, following - (len(more) - len(shown)), len(text) - len(end), ended=ended and not more)


def whole_log(logs: Builds, build: Build) -> str:
    """All that is left of a build's log, as it was written."""
    text = logs.log(build)
    return text if text is not None else build.outcome.tail if build.outcome else ""


def page_text(text: str) -> tuple[str, bool]:
    """What a page shows of a whole log, and whether that is only its end."""
    shown = last_lines(plain(text), lines=PAGE_LINES, characters=PAGE_CHARACTERS)
    return shown, len(shown) + 1 < len(text) and text.count("\n") > shown.count("\n") + 1


def newest_of(builds: Sequence[Build], *, number: int | None, epoch: int | None) -> Build | None:
    """The newest of a step's builds, or the one that is asked for; None if there is none."""
    wanted = [one for one in builds if number in {None, one.number} and epoch in {None, one.epoch}]
    return max(wanted, key=lambda build: (build.epoch, build.number), default=None)


def _end(text: str) -> str:
    if len(text) <= PIECE_CHARACTERS:
        return text
    end = text[-PIECE_CHARACTERS:]
    return end.partition("\n")[2] or end
