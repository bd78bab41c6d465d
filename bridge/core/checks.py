"""What a check run says of a run's attempt: its conclusion, a table of its steps, the end of what failed.

Pure, and careful with what is not ours: names and reasons are written so that they are text in Markdown and HTML,
a log stands in a fence that is longer than any in it, and both are within GitHub's 65,535 bytes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bridge.core import names
from bridge.core.builds import Build, Ending
from bridge.core.durations import written
from bridge.core.endings import did_nothing
from bridge.core.redaction import beginning, ending, plain, redacted
from bridge.core.reports import cut
from bridge.core.representations import build_state, node_of, step_names, step_state
from bridge.core.runs import Attempt, Report, Run
from bridge.core.verdicts import Verdict

LONGEST_OUTPUT_BYTES = 65_535
"""GitHub's limit for `summary` and for `text` (facts/github.md)."""
LONGEST_TITLE = 200
MOST_LOGS = 5
"""So many failed steps show the end of their log."""

IN_PROGRESS, COMPLETED = "in_progress", "completed"

_CONCLUSIONS = {
    Verdict.SUCCEEDED: "success",
    Verdict.FAILED: "failure",
    Verdict.ERROR: "failure",
    Verdict.CANCELLED: "cancelled",
    Verdict.TIMED_OUT: "timed_out",
}
_SHOWS_ITS_LOG = frozenset({Ending.FAILED, Ending.TIMED_OUT, Ending.UNHANDLED, Ending.LOST})
_EXTERNAL_ID = re.compile(r"(?P<run>[a-z][a-z0-9-]{0,29}-[0-9a-hjkmnp-tv-z]{20})/(?P<attempt>0|[1-9][0-9]{0,5})")
_LONGEST_CELL = 300
_LINK = re.compile(r"https?://[^\s<>()\[\]\"'`]{1,2000}")
_MARKUP = re.compile(r"[!-+./:-@\[-`{-~]")


@dataclass(frozen=True)
class Check:
    """A check run as it should be."""

    name: str
    external_id: str
    status: str
    """IN_PROGRESS or COMPLETED."""
    conclusion: str
    """One of GitHub's; empty while it is in progress."""
    title: str
    summary: str
    """Markdown."""
    text: str
    """Markdown: the end of what failed; empty if nothing did."""
    started: float
    """Seconds since the epoch."""
    completed: float | None = None


def external_id(run_id: str, attempt: int) -> str:
    """By what the check run of an attempt is found again."""
    return f"{run_id}/{attempt}"


def attempt_of(external: str) -> tuple[str, int] | None:
    """The run and the attempt that an external id of ours names; None if it is none of ours."""
    found = _EXTERNAL_ID.fullmatch(external)
    return (found["run"], int(found["attempt"])) if found else None


def check_of(
    run: Run,
    report: Report,
    builds: Sequence[Build] = (),
    *,
    url: str = "",
    secrets: Iterable[str] = (),
    log_of: Callable[[Build], str | None] = lambda _build: None,
) -> Check:
    """The check run that stands for `report`.

    Args:
        run: with the attempt that the report is of.
        report: what a commit status would say; pending is in progress.
        builds: of the run, for the table.
        url: the run's page, a link if it is one.
        secrets: none of them is shown, wherever it stands.
        log_of: a failed build's whole log, None where only its outcome's end of it is left.

    """
    attempt = run.attempt_numbered(report.attempt)
    hidden = tuple(secrets)
    going = report.state == "pending"
    shown = _of_epoch(builds, attempt)
    return Check(
        name=report.context,
        external_id=external_id(run.id, report.attempt),
        status=IN_PROGRESS if going else COMPLETED,
        conclusion="" if going else conclusion_of(run, attempt),
        title=_title(run, attempt, report, hidden),
        summary=_summary(run, attempt, report, shown, url=url, secrets=hidden),
        text="" if going else _logs(shown, attempt, hidden, log_of),
        started=attempt.begun if attempt is not None else run.accepted,
        completed=None if going or attempt is None else attempt.ended,
    )


def conclusion_of(run: Run, attempt: Attempt | None) -> str:
    """How an attempt that ended is concluded; what is not known to have ended well is a failure.

    Nothing to do is `neutral`: like a success it lets a pull request be merged, and it does not say that anything
    was tested. A run that nobody has approved is `action_required`. An error is a `failure`, of which its title
    says more: GitHub has no word for it.
    """
    if attempt is None:
        return "action_required" if run.held else "failure"
    if attempt.verdict is None:
        return "failure"
    if attempt.verdict is Verdict.SUCCEEDED and did_nothing(run, attempt):
        return "neutral"
    return _CONCLUSIONS[attempt.verdict]


def _of_epoch(builds: Sequence[Build], attempt: Attempt | None) -> list[Build]:
    return [build for build in builds if attempt is None or build.epoch == attempt.epoch]


def _title(run: Run, attempt: Attempt | None, report: Report, secrets: tuple[str, ...]) -> str:
    if attempt is None or attempt.verdict in {None, Verdict.SUCCEEDED} or report.state == "pending":
        said = report.description
    else:
        said = attempt.reason or attempt.verdict.value.replace("_", " ")
        if attempt.verdict is Verdict.ERROR:
            said = f"error: {said}"
    return cut(_safe(said, secrets), LONGEST_TITLE) or run.id


def _summary(
    run: Run, attempt: Attempt | None, report: Report, builds: list[Build], *, url: str, secrets: tuple[str, ...]
) -> str:
    n = attempt.n if attempt is not None else report.attempt
    head = [f"Run {_link(run.id, url)}, attempt {n} of pipeline {_code(run.pipeline)}."]
    if attempt is not None and attempt.reason:
        head += ["", _code(_safe(attempt.reason, secrets))]
    foot = ["", *_advice(run, attempt, report)]
    # Cut here, not at the end of all: half a row, or half a tag, would be shown as something else.
    left = LONGEST_OUTPUT_BYTES - _bytes([*head, *foot]) - _bytes(["", "and 100000 more steps"])
    return "\n".join([*head, *_table(run, attempt, builds, most_bytes=left), *foot])


def _table(run: Run, attempt: Attempt | None, builds: list[Build], *, most_bytes: int) -> list[str]:
    steps = step_names(run, builds)
    if not steps or attempt is None or run.attempt != attempt:
        return []
    rows = ["", "| step | result | builds | took |", "|---|---|---|---|"]
    for index, step in enumerate(steps):
        ours = sorted((build for build in builds if build.step == step), key=lambda build: build.number)
        state = step_state(run, step, builds).replace("_", " ")
        node = node_of(run, step)
        told = "its own container" if node is not None and not ours else _numbers(ours, attempt)
        took = _between(node.started, node.ended) if node is not None and not ours else _took(ours)
        row = f"| {_code(step)} | {state} | {told} | {took} |"
        if _bytes([*rows, row]) > most_bytes:
            return [*rows, "", f"and {len(steps) - index} more steps"]
        rows.append(row)
    return rows


def _numbers(builds: list[Build], attempt: Attempt) -> str:
    """Which builds there were and what they came to; those of an earlier attempt are said to be."""
    told = []
    for build in builds:
        earlier = f" (attempt {build.attempt})" if build.attempt != attempt.n else ""
        told.append(f"{build.number}: {build_state(build).replace('_', ' ')}{earlier}")
    return ", ".join(told[-5:])


def _took(builds: list[Build]) -> str:
    """How long the newest build ran; empty if that is not known."""
    if not builds or builds[-1].started is None:
        return ""
    newest = builds[-1]
    ended = newest.ended if newest.ended is not None else newest.outcome.ended if newest.outcome else None
    return _between(newest.started, ended)


def _between(started: float | None, ended: float | None) -> str:
    return "" if started is None or ended is None else written(max(1.0, round(ended - started)))


def _advice(run: Run, attempt: Attempt | None, report: Report) -> list[str]:
    if report.state == "pending" or attempt is None:
        return []
    if attempt.verdict is Verdict.SUCCEEDED:
        return ["**Re-run** runs every step again."]
    promise = "builds again what did not succeed, of the same commit; finished steps stay as they are"
    return [f"**Re-run** {promise}. So does `bridgectl retry {run.id}`."]


def _logs(
    builds: list[Build],
    attempt: Attempt | None,
    secrets: tuple[str, ...],
    log_of: Callable[[Build], str | None],
) -> str:
    """The ends of the logs of the newest builds that did not succeed, each in its fence."""
    failed = _failed(builds, attempt)[:MOST_LOGS]
    if not failed:
        return ""
    share = LONGEST_OUTPUT_BYTES // len(failed) - 2
    return "\n\n".join(_log(build, secrets, log_of, most_bytes=share) for build in failed)


def _failed(builds: list[Build], attempt: Attempt | None) -> list[Build]:
    newest: dict[str, Build] = {}
    for build in sorted(builds, key=lambda build: build.number):
        if not names.is_exit_step(build.step):
            newest[build.step] = build
    order = attempt.steps if attempt is not None else ()
    found = [one for one in newest.values() if one.outcome is not None and one.outcome.ending in _SHOWS_ITS_LOG]
    return sorted(found, key=lambda one: order.index(one.step) if one.step in order else len(order))


def _log(build: Build, secrets: tuple[str, ...], log_of: Callable[[Build], str | None], *, most_bytes: int) -> str:
    outcome = build.outcome
    reason = _safe(outcome.reason, secrets) if outcome is not None else ""
    heading = f"### {_code(build.step)}, build {build.number}: {_code(reason) or build_state(build)}"
    whole = log_of(build)
    log = _safe(whole if whole is not None else outcome.tail if outcome is not None else "", secrets).strip("\n")
    if not log:
        return beginning(f"{heading}\n\nNothing of its log is left.", most_bytes)
    return f"{heading}\n\n{_fenced(log, most_bytes - len(heading.encode()) - 2)}"


def _fenced(log: str, most_bytes: int) -> str:
    """The end of `log` in a fence that nothing in it can close, of at most so many bytes with the fence."""
    kept = ending(log, most_bytes)
    while True:
        fence = "`" * max(3, _longest_run(kept) + 1)
        fenced = f"{fence}text\n{kept}\n{fence}"
        over = len(fenced.encode()) - most_bytes
        if over <= 0 or not kept:
            return fenced
        kept = ending(kept, len(kept.encode()) - over)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _safe(text: str, secrets: tuple[str, ...]) -> str:
    return redacted(plain(text), secrets)


def _code(text: str) -> str:
    """`text` as text, whatever is in it: on one line, cut, nothing of it markup, a mention or a link."""
    line = cut(plain(text), _LONGEST_CELL)
    if not line:
        return ""
    return f"<code>{_MARKUP.sub(lambda found: f'&#{ord(found[0])};', line)}</code>"


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})" if _LINK.fullmatch(url) else _code(text)


def _bytes(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)
