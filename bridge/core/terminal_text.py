"""What programs write for terminals, as text for a page: without colours, written-over lines as they ended."""

import codecs
import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursors
    r"|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # titles, links
    r"|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"  # strings that no terminal shows
    r"|\x1b[ -/]*[0-~]"
)
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\n])", re.MULTILINE)
"""A progress bar: what stood in the line before the last carriage return."""


def plain(text: str) -> str:
    """`text` as a terminal without colours would show it in the end. Other control characters stay as they are."""
    unescaped = _SEQUENCE.sub("", text).replace("\r\n", "\n")
    return _OVERWRITTEN.sub("", unescaped).replace("\r", "")


def whole_lines(piece: bytes, *, longest_line: int) -> bytes:
    """The beginning of `piece` up to its last whole line.

    If it has none and is longer than `longest_line` bytes: up to its last whole character (UTF-8).
    """
    end = piece.rfind(b"\n") + 1
    if end or len(piece) <= longest_line:
        return piece[:end]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(piece)
    begun, _ = decoder.getstate()
    return piece[: len(piece) - len(begun)]


def last_lines(text: str, *, lines: int, characters: int) -> str:
    """The end of `text`: at most so many lines and characters, from a whole line on if possible."""
    end = text[-characters:]
    if len(end) < len(text):
        end = end.partition("\n")[2] or end
    return "\n".join(end.splitlines()[-lines:])
