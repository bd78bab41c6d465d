"""Runs for people on a terminal: tables as kubectl's, and logs. Nothing foreign reaches the terminal unclean.

Titles, logs and reasons were written by whoever pushed. Text is put into the tables as text, never as markup, and
without control characters, so that it can neither move the cursor nor look like a line of ours.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

WIDE = 100_000
"""Columns for tables to be laid out in: more than any line has."""
LONGEST_LINE_BYTES = 64 * 1024
"""A log's line that is longer is shown in pieces."""

_STYLES = {
    "succeeded": "green",
    "nothing_to_do": "green",
    "failed": "red",
    "unhandled": "red",
    "timed_out": "red",
    "error": "magenta",
    "lost": "magenta",
    "cancelled": "yellow",
    "running": "cyan",
}
# Whole terminal sequences go (colours, titles, links), not only the byte that begins them.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")


def show(table: Table, file: IO[str], *, coloured: bool | None = None) -> None:
    """Write a table: in colours on a terminal, unless told. No line is ever cut or filled up with spaces: what is
    longer than a terminal is wide is the terminal's to wrap, as with kubectl."""
    console = Console(
        file=file,
        width=WIDE,
        force_terminal=coloured,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for line in console.render_lines(table, pad=False):
        console.print(Segments([*_without_end(line), Segment.line()]), end="", soft_wrap=True)


def clean(text: object) -> str:
    """Foreign text as one visible line."""
    return "".join(_visible(character) for character in _SEQUENCE.sub("", str(text))).strip()


def clean_log_line(text: str) -> str:
    """A line of a log: as `clean`, but its spaces and tabs stay."""
    without = _SEQUENCE.sub("", text)
    return "".join(one if one == "\t" else _visible(one) for one in without)


class LogLines:
    """The bytes of a log, as they come, made into clean lines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def fed(self, content: bytes) -> list[str]:
        """The lines that `content` completed."""
        whole = self._rest + self._decoder.decode(content)
        *lines, self._rest = re.split(r"\r\n|\n|\r(?!\Z)", whole)
        if len(self._rest) > LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = ""
        return [clean_log_line(line) for line in lines]

    def rest(self) -> list[str]:
        """What is left of a log that has ended."""
        left, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [clean_log_line(left.rstrip("\r"))] if left.strip("\r") else []


def runs_table(runs: Sequence[Json], *, now: float, wide: bool = False) -> Table:
    """One line a run, the newest first. `now` is in seconds since the epoch, for the ages."""
    columns = ["RUN", "PROJECT", "PIPELINE", "EVENT", "REF", "COMMIT", "STATUS", "ATTEMPT", "AGE"]
    table = _table([*columns, "BY", "CONTEXT", "TAKEN-BY", "REASON"] if wide else columns)
    for run in runs:
        cells: list[object] = [
            run.get("id"),
            run.get("project"),
            run.get("pipeline"),
            run.get("event"),
            where(run),
            short(run.get("sha")),
            _state(state_of(run)),
            run.get("attempt"),
            age(run.get("accepted"), now=now),
        ]
        if wide:
            status = _part(run, "status")
            cells += [run.get("sender"), status.get("context"), status.get("taken_by"), run.get("reason")]
        table.add_row(*map(_cell, cells))
    return table


def run_table(run: Json, *, now: float) -> Table:
    """What is known of one run, one fact a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    status = _part(run, "status")
    told = f"{status.get('state') or 'none yet'} ({status.get('context')})"
    if status.get("taken_by"):
        told += f", taken by {status['taken_by']}: {status.get('description')}"
    facts: list[tuple[str, object]] = [
        ("Run", run.get("id")),
        ("Page", run.get("url")),
        ("Project", run.get("project")),
        ("Pipeline", run.get("pipeline")),
        ("Event", f"{run.get('event')} ({run.get('provider')}), delivery {run.get('delivery')}"),
        ("Title", run.get("title")),
        ("By", run.get("sender")),
        ("Ref", where(run)),
        ("Commit", run.get("sha")),
        ("Accepted", f"{run.get('accepted')} ({age(run.get('accepted'), now=now)} ago)"),
        ("Closed", run.get("closed")),
        ("State", _state(state_of(run))),
        ("Reason", run.get("reason")),
        ("Attempt", run.get("attempt")),
        ("Status", told),
        ("Not taken", status.get("error")),
        ("Waits for", run.get("waits_for")),
        *(
            ("Not told", f"{one.get('endpoint')}, {one.get('given_up')} notifications: {one.get('error')}")
            for one in _list(run, "notified")
            if one.get("given_up")
        ),
    ]
    for name, value in facts:
        cell = _cell(value)
        if cell.plain:
            table.add_row(f"{name}:", cell)
    return table


def steps_table(run: Json, *, now: float) -> Table:
    """The builds of each step, and the exit event's."""
    table = _table(["STEP", "STATE", "BUILD", "ATTEMPT", "EVENT", "ENDED", "TOOK", "AGE", "REASON"])
    for step in _list(run, "steps"):
        builds = _list(step, "builds")
        if not builds:
            table.add_row(*map(_cell, [step.get("name"), _state(step.get("state")), *[""] * 7]))
        for build in builds:
            _add_build(table, step.get("name"), build, now=now)
    for build in _list(run, "exit_builds"):
        _add_build(table, build.get("step"), build, now=now)
    return table


def timeline_table(moments: Sequence[Json]) -> Table:
    """What happened, in order; what the record has no time of stands where it belongs."""
    table = _table(["WHEN", "WHAT"])
    for moment in moments:
        table.add_row(_cell(moment.get("at") or ""), _cell(moment.get("what")))
    return table


def received_table(attempts: Sequence[Json]) -> Table:
    """The attempts at a delivery, as GitHub's log has them."""
    table = _table(["WHEN", "ANSWERED", "WHAT", "LOG"])
    for one in attempts:
        status = one.get("status") or "nothing"
        table.add_row(*map(_cell, [one.get("at"), status, one.get("what"), one.get("log")]))
    return table


def matched_lines(pipelines: Sequence[Json]) -> list[str]:
    """Whether each pipeline wants an event, a line each, with the reason if not."""
    return [
        f"  pipeline {clean(one.get('pipeline'))} wants it" if one.get("wants") else f"  {clean(one.get('why'))}"
        for one in pipelines
    ]


def next_lines(run: Json) -> list[str]:
    """The commands that a person may type next, a line each."""
    commands = run.get("next")
    return [f"  {clean(command)}" for command in commands] if isinstance(commands, list) else []


def state_of(run: Json) -> str:
    """One word for where a run is: its verdict when it has one."""
    return str(run.get("verdict") or run.get("phase") or "unknown")


def where(run: Json) -> str:
    """The pull request, tag, branch or ref, as short as people say it."""
    if run.get("pull_request") is not None:
        return f"#{run['pull_request']}"
    return str(run.get("tag") or run.get("branch") or run.get("ref") or "")


def short(sha: object) -> str:
    """The beginning of a commit's name."""
    return str(sha or "")[:10]


def age(moment: object, *, now: float) -> str:
    """How long ago an API's time text was, as kubectl says it (`5s`, `3m`, `2h`, `9d`); empty for none."""
    at = seconds_of(moment)
    return "" if at is None else _span(now - at)


def seconds_of(moment: object) -> float | None:
    """An API's time text as seconds since the epoch; None for none, or for what is no such text."""
    if not isinstance(moment, str):
        return None
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _add_build(table: Table, step: object, build: Json, *, now: float) -> None:
    started, ended = seconds_of(build.get("started")), seconds_of(build.get("ended"))
    took = "" if started is None or ended is None else _took(ended - started)
    table.add_row(
        *map(
            _cell,
            [
                step,
                _state(build.get("state")),
                build.get("number"),
                build.get("attempt"),
                build.get("event"),
                age(build.get("ended"), now=now) and f"{age(build.get('ended'), now=now)} ago",
                took,
                age(build.get("created"), now=now),
                build.get("reason"),
            ],
        )
    )


def _table(columns: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else clean(value))


def _state(word: object) -> Text:
    text = clean(word or "")
    return Text(text, style=_STYLES.get(text, ""))


def _visible(character: str) -> str:
    """The character, a space for what only separates, and nothing for controls, direction marks and the like."""
    if character.isprintable():
        return character
    return " " if character.isspace() else ""


def _without_end(line: list[Segment]) -> list[Segment]:
    """`line` without the spaces at its end, which would wrap into empty lines."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else []


def _part(values: Json, key: str) -> Json:
    part = values.get(key)
    return part if isinstance(part, Mapping) else {}


def _list(values: Json, key: str) -> list[Json]:
    found = values.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _took(seconds: float) -> str:
    return f"{max(0.0, seconds):.1f}s" if seconds < 10 else _span(seconds)  # noqa: PLR2004


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
