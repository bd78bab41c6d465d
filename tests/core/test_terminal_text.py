import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.terminal_text import last_lines, plain, whole_lines


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mbroken\x1b[0m\n", "broken\n"),
        ("\x1b[2K\x1b[1;32mok\x1b[m", "ok"),
        ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b(Btext\x1b7", "text"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        (" 10%\r 50%\r100%\nnext", "100%\nnext"),
        ("100%\r\n", "100%\n"),
        ("no end\r", "no end"),
        ("\tindented\n  text", "\tindented\n  text"),
        ("\x1b]never ended", ""),
        ("\x1bPstring\x1b\\after", "after"),
    ],
)
def test_a_log_is_shown_as_a_terminal_without_colours_would_show_it(written, shown):
    assert plain(written) == shown


def test_whole_lines_wait_for_their_end():
    assert whole_lines(b"one\ntw", longest_line=100) == b"one\n"
    assert whole_lines(b"tw", longest_line=100) == b""


def test_a_line_that_is_too_long_does_not_wait_but_its_characters_are_whole():
    assert whole_lines("aé".encode(), longest_line=1) == "aé".encode()
    assert whole_lines("aé".encode()[:-1], longest_line=1) == b"a"
    assert whole_lines("a😀".encode()[:-1], longest_line=1) == b"a"
    assert whole_lines(b"a\xff\x80\x80\x80\x80", longest_line=1).startswith(b"a")


@given(st.text(), st.integers(0, 40))
def test_no_character_is_ever_cut_in_two(text, at):
    piece = text.encode("utf-8", "replace")[:at]
    shown = whole_lines(piece, longest_line=0)
    assert text.encode("utf-8", "replace").startswith(shown)
    assert shown.decode() in text.encode("utf-8", "replace").decode()
    assert len(piece) - len(shown) < 4 or b"\n" in piece


def test_the_end_of_a_text_begins_with_a_whole_line():
    assert last_lines("one\ntwo\nthree\n", lines=2, characters=100) == "two\nthree"
    assert last_lines("one\ntwo\nthree", lines=10, characters=7) == "three"
    assert last_lines("x" * 50, lines=10, characters=7) == "x" * 7
