"""Tables and logs on a terminal, and that nothing foreign gets there unclean."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.representations import run_details, run_summary
from bridge.showing import (
    LogLines,
    age,
    clean,
    clean_log_line,
    next_lines,
    run_table,
    runs_table,
    show,
    steps_table,
    timeline_table,
    where,
)
from tests.core.test_timelines import FAILED_BUILDS, T, failed_run, going_run
from tests.fakes import some_event, some_run

NOW = T + 300


def printed(table, **how):
    file = io.StringIO()
    show(table, file, **how)
    return file.getvalue()


def test_a_list_is_a_table_with_one_line_for_each_run():
    lines = printed(runs_table([run_summary(failed_run()), run_summary(going_run())], now=NOW)).splitlines()
    assert lines[0].split() == ["RUN", "PROJECT", "PIPELINE", "EVENT", "REF", "COMMIT", "STATUS", "ATTEMPT", "AGE"]
    assert lines[1].split() == [
        "push-r1",
        "acme/widgets",
        "push",
        "push",
        "main",
        "cccccccccc",
        "failed",
        "1",
        "5m",
    ]
    assert lines[2].split()[6] == "running"
    assert len(lines) == 3


def test_a_wide_list_says_who_why_and_who_took_the_status():
    line = printed(runs_table([run_summary(failed_run())], now=NOW, wide=True)).splitlines()[1]
    assert "bridge/push/push" in line
    assert "github" in line
    assert "step test failed (build 2): exit 1" in line


def test_a_line_is_never_cut_nor_filled_up_whatever_the_terminals_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    runs = [run_summary(some_run(event=some_event(branch="b" * 500), reason="r" * 300)), run_summary(going_run())]
    for coloured in (False, True):
        out = printed(runs_table(runs, now=NOW, wide=True), coloured=coloured)
        assert "b" * 500 in out
        assert "r" * 300 in out
        assert len(out.splitlines()) == 3
        assert not [line for line in out.splitlines() if line.endswith(" ")]


def test_what_is_no_terminal_gets_no_colours(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    # A dumb one never gets any, whatever is asked for.
    monkeypatch.setenv("TERM", "xterm")
    run = run_summary(failed_run())
    assert "\x1b" not in printed(runs_table([run], now=NOW))
    assert "\x1b" in printed(runs_table([run], now=NOW), coloured=True)


def test_one_run_is_shown_with_its_steps_builds_and_next_commands():
    details = run_details(failed_run(), FAILED_BUILDS, url="http://here/runs/push-r1")
    facts = printed(run_table(details, now=NOW))
    assert "http://here/runs/push-r1" in facts
    assert "failure (bridge/push/push), taken by github: step test failed" in facts
    assert "Not told" not in facts
    details["notified"] = [{"endpoint": "ops", "told": 3, "given_up": 2, "error": "it answered 410"}]
    assert "ops, 2 notifications: it answered 410" in printed(run_table(details, now=NOW))
    rows = [line.split() for line in printed(steps_table(details, now=NOW)).splitlines()]
    assert [row[:3] for row in rows[1:]] == [
        ["build", "succeeded", "1"],
        ["test", "failed", "1"],
        ["test", "failed", "2"],
        ["exit.1", "succeeded", "1"],
    ]
    assert next_lines(details)[0] == "  bridgectl logs push-r1 test"


def test_a_step_without_builds_has_its_line_too():
    assert "pending" in printed(steps_table(run_details(going_run(), []), now=NOW))


def test_a_timeline_is_a_table_of_when_and_what():
    out = printed(timeline_table(run_details(failed_run(), FAILED_BUILDS)["timeline"]))
    assert out.splitlines()[1].startswith("2023-11-14T22:13:20.000Z  accepted push of acme/widgets")


@pytest.mark.parametrize(
    "tables",
    [
        lambda run: runs_table([run], now=NOW, wide=True),
        lambda run: run_table(run, now=NOW),
        lambda run: steps_table(run, now=NOW),
        lambda run: timeline_table(run["timeline"]),
    ],
    ids=["list", "run", "steps", "timeline"],
)
def test_foreign_text_is_neither_markup_nor_terminal_sequence(tables):
    evil = "[bold red]x[/] [link=file:///etc] :smile: \x1b]0;title\x07\x1b[2J\x1b[31mred\r\nfake line\u202e\x9b1m"
    event = some_event(short_title=evil, sender=evil, branch=evil, delivery=evil)
    details = run_details(some_run(event=event, context=evil, reason=evil), [])
    changed = {**details, "timeline": [{"at": None, "what": evil}], "steps": [{"name": evil, "state": evil}]}
    shown = printed(tables(changed), coloured=True)
    for sequence in ("\x1b]0", "\x1b[2J", "\x1b[31m", "\r", "\u202e", "\x9b"):
        assert sequence not in shown
    assert "[bold red]x[/]" in shown


@given(st.text())
def test_clean_text_is_one_printable_line_whatever_comes(text):
    assert clean(text).isprintable()
    assert clean_log_line(text).replace("\t", "").isprintable()


def test_a_missing_or_odd_field_of_a_newer_server_is_shown_empty_not_as_a_traceback():
    odd = {
        "id": "r",
        "status": None,
        "steps": [None, {"builds": "x"}],
        "exit_builds": 3,
        "accepted": "soon",
        "next": 1,
    }
    for table in (runs_table([odd, {}], now=NOW, wide=True), run_table(odd, now=NOW), steps_table(odd, now=NOW)):
        assert printed(table)
    assert next_lines(odd) == []


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (86400 * 9, "9d"), (-5, "0s")]
)
def test_an_age_is_told_as_kubectl_does(seconds, told):
    assert age("2023-11-14T22:13:20.000Z", now=T + seconds) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"pull_request": 7, "branch": "main"}, "#7"),
        ({"tag": "v1", "ref": "refs/tags/v1"}, "v1"),
        ({"branch": "main", "ref": "refs/heads/main"}, "main"),
        ({"ref": "refs/x"}, "refs/x"),
        ({}, ""),
    ],
    ids=["pull-request", "tag", "branch", "ref", "nothing"],
)
def test_a_ref_is_as_short_as_people_say_it(fields, told):
    assert where(fields) == told


def test_a_log_becomes_the_same_lines_however_it_is_cut():
    log = "one\r\ntwo\n\n\x1b[32mgreen\x1b[0m\tände\rprogress 1\rprogress 2\nlast".encode()
    whole = LogLines()
    expected = [*whole.fed(log), *whole.rest()]
    assert expected == ["one", "two", "", "green\tände", "progress 1", "progress 2", "last"]
    for size in (1, 2, 3, 7):
        lines = LogLines()
        pieces = [log[at : at + size] for at in range(0, len(log), size)]
        assert [line for piece in pieces for line in lines.fed(piece)] + lines.rest() == expected


def test_a_line_without_an_end_is_shown_in_pieces():
    lines = LogLines()
    shown = [line for _ in range(4) for line in lines.fed(b"x" * 40_000)]
    assert sum(map(len, shown + lines.rest())) == 160_000
    assert len(shown) >= 1
