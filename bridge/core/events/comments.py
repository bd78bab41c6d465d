"""Comments on pull requests as commands: which lines of a comment ask for something, and of whose comments.

`COMMANDS` is the one list of them: the parser, the answers and docs/comments.md are made from it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bridge.core.events import github_payloads as payloads
from bridge.core.events import json_bodies
from bridge.core.runs import Kind

EVENT = "issue_comment"
"""GitHub's name of the event: also for comments on pull requests."""
MARK = "<!-- brigade-argo-bridge"
"""Begins what bridge itself writes into its comments, unseen by people."""
MOST_COMMANDS = 10
"""In one comment."""
LONGEST_TEXT = 200
"""Of what is shown of a command."""

_CREATED = "created"
_BOT = "Bot"

# In a longer line backticks are not matched, which may take long.
_LONGEST_PROSE = 1000

_LINE_ENDS = re.compile(r"\r\n|\n|\r")
_LINE = re.compile(r" {0,3}/([a-z-]+)(?:[ \t]+(.*))?", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)*(`{3,}(?=[^`]*$)|~{3,})")
_QUOTE = re.compile(r"[ \t]*>")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_PREFORMATTED = re.compile(r" {0,3}<(pre|textarea|script|style)(?=[\s>]|$)", re.IGNORECASE)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"
_TARGET = re.compile(f"(?P<pipeline>{_NAME})(?:/(?P<step>{_NAME}))?")
_SHA = re.compile(r"[0-9a-fA-F]{7,64}")
# As logins are, those of managed users too. It becomes part of a path.
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Command:
    """One line that asks for something."""

    kind: Kind
    text: str
    """As it was written, at most LONGEST_TEXT characters."""
    pipeline: str = ""
    """Of runs of this pipeline alone."""
    steps: tuple[str, ...] = ()
    """These steps of it alone; empty: all that did not succeed."""
    sha: str = ""
    """What is approved: a commit's digits in small letters, at least 7; empty: the head."""
    problem: str = ""
    """Why it cannot be understood, for whoever wrote it; empty if it can."""


@dataclass(frozen=True)
class Word:
    """One command that there is."""

    word: str
    kind: Kind
    argument: str
    """What may follow it, as people read it; empty: nothing."""
    read: Callable[[str], dict[str, Any] | None]
    """Fields of the Command that an argument means; None: it means nothing."""
    meaning: str
    """For docs/comments.md and answers."""

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"/{self.word} [{self.argument}]" if self.argument else f"/{self.word}"


@dataclass(frozen=True)
class Asking:
    """A comment that asks for something, by whom nobody has checked yet."""

    project: str
    """The repository that it was written in."""
    delivery: str
    pull_request: int
    comment: int
    """GitHub's id of it."""
    author: str
    """A login."""
    written: float
    """By GitHub's clock, in seconds since the epoch, cut to whole ones."""
    commands: tuple[Command, ...]
    """At least one, none twice."""


def _nothing(argument: str) -> dict[str, Any] | None:
    return None if argument else {}


def _target(argument: str) -> dict[str, Any] | None:
    found = _TARGET.fullmatch(argument)
    if found is None:
        return None if argument else {}
    return {"pipeline": found["pipeline"], "steps": (found["step"],) if found["step"] else ()}


def _sha(argument: str) -> dict[str, Any] | None:
    if not argument:
        return {}
    return {"sha": argument.lower()} if _SHA.fullmatch(argument) else None


COMMANDS: tuple[Word, ...] = (
    Word(
        "retry",
        Kind.RETRY,
        "PIPELINE[/STEP]",
        _target,
        "run again what did not succeed: of all pipelines, of one, or one step of it",
    ),
    Word("rerun", Kind.RERUN, "", _nothing, "run everything again"),
    Word("cancel", Kind.CANCEL, "", _nothing, "end what runs"),
    Word(
        "ok-to-test",
        Kind.APPROVE,
        "SHA",
        _sha,
        "let the waiting runs of a fork's pull request begin, for this one commit",
    ),
)


def commands_of(body: str) -> tuple[Command, ...]:
    """The commands in a comment's text: each alone on a line, in their order, none twice. Several steps of a
    pipeline that are to be retried are one command, since they are one attempt.

    Lines in code blocks, quotes, HTML comments and preformatted text are no commands; neither are other lines that
    begin with a slash. What begins as a command and cannot be understood is one with a `problem`.
    """
    found = dict.fromkeys(filter(None, map(_command, _plain_lines(body))))
    if len(found) <= MOST_COMMANDS:
        return _merged(found)
    first = next(iter(found))
    return (Command(first.kind, first.text, problem=f"more than {MOST_COMMANDS} commands are in one comment"),)


def asked(headers: Mapping[str, str], body: bytes) -> Asking | None:
    """What a delivery asks for, whose signature was verified and which `github.read` made an event of; None for
    most: other events, comments that were edited, on issues, by bots or without a command.

    Raises UnreadableEvent for a body that is no JSON object, or no comment's.
    """
    given = {name.lower(): value for name, value in headers.items()}
    if given.get("x-github-event") != EVENT:
        return None
    document = json_bodies.json_object(body)
    if document.get("action") != _CREATED:
        return None
    written = payloads.read_as(payloads.WrittenComment, document, what=f"GitHub's {EVENT} payload")
    comment, issue = written.comment, written.issue
    if issue.pull_request is None or comment.id is None or comment.created_at is None or MARK in comment.body:
        return None
    author = comment.user.login if comment.user is not None else ""
    kinds = {user.type for user in (comment.user, written.sender) if user is not None}
    if _BOT in kinds or not _LOGIN.fullmatch(author):
        return None
    commands = commands_of(comment.body)
    if not commands:
        return None
    return Asking(
        project=written.repository.full_name,
        delivery=given.get("x-github-delivery", ""),
        pull_request=issue.number,
        comment=comment.id,
        author=author,
        written=_seconds(comment.created_at),
        commands=commands,
    )


def commands_table() -> str:
    """The commands as the table that docs/comments.md holds."""
    rows = [f"| `{word.usage}` | {word.meaning} |" for word in COMMANDS]
    return "\n".join(["| comment | what it does |", "|---|---|", *rows]) + "\n"


def _command(line: str) -> Command | None:
    found = _LINE.fullmatch(line.rstrip(" \t"))
    word = next((one for one in COMMANDS if found and one.word == found[1].lower()), None)
    if found is None or word is None:
        return None
    text = line.strip(" \t")[:LONGEST_TEXT]
    fields = word.read((found[2] or "").strip(" \t"))
    if fields is None:
        return Command(word.kind, text, problem=f"write {word.usage}, alone on its line")
    return Command(word.kind, text, **fields)


def _merged(commands: Iterable[Command]) -> tuple[Command, ...]:
    found: dict[tuple[str, ...], Command] = {}
    for command in commands:
        key = (command.kind, command.pipeline) if command.steps else (command.kind, command.pipeline, command.text)
        known = found.setdefault(key, command)
        if known is not command:
            text = f"{known.text}, {command.text}"[:LONGEST_TEXT]
            found[key] = replace(known, text=text, steps=(*known.steps, *command.steps))
    return tuple(found.values())


def _plain_lines(body: str) -> list[str]:
    """The lines that are paragraphs' text, as far as a command could be one."""
    plain: list[str] = []
    ends: Callable[[str], bool] | None = None
    for line in _LINE_ENDS.split(body):
        if ends is not None:
            ends = None if ends(line) else ends
            continue
        if _QUOTE.match(line):
            continue
        ends, is_text = _opened(line)
        if is_text:
            plain.append(line)
    return plain


def _opened(line: str) -> tuple[Callable[[str], bool] | None, bool]:
    """What ends the block that begins in `line`, None if none does or it ends there too; whether it is text."""
    fence = _FENCE.match(line)
    if fence is not None:
        closing = re.compile(rf"[ \t]*{re.escape(fence[1][0])}{{{len(fence[1])},}}[ \t]*")
        return lambda following: bool(closing.fullmatch(following)), False
    raw = _PREFORMATTED.match(line)
    if raw is not None:
        end = f"</{raw[1].lower()}>"
        return (None if end in line.lower() else lambda following: end in following.lower()), False
    spoken = _CODE_SPAN.sub("", line) if len(line) <= _LONGEST_PROSE else line
    begins = spoken.rfind("<!--")
    if begins < 0:
        return None, True
    # `<!-->` is a whole comment.
    return (None if "-->" in spoken[begins + 2 :] else lambda following: "-->" in following), False


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
