"""Commands in the comments of a pull request: who may, what is meant, which acts are asked for, and the answer.

A command speaks of the world as it was when it was written: runs that were accepted later, and attempts that began
later, were not meant. Its acts are named after the delivery. So a delivery that comes again, however late, finds
its acts on record and moves nothing else; and what dies before GitHub has its answer comes again.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from bridge.core.events.comments import COMMANDS, MARK, Asking, Command
from bridge.core.reports import SHORT_SHA_CHARACTERS
from bridge.core.runs import Kind, Run
from bridge.errors import Conflict, Forbidden, NotFound
from bridge.flows.acting import Acted, act
from bridge.ports import Clock, RunFilter, Runs, writes

DONE, NOT_DONE, REFUSED = "+1", "confused", "-1"
"""The reactions: what was asked for is on record; it cannot be understood, or there is nothing to do; who asked
may not."""
MAY_ACT = frozenset({"admin", "maintain", "write"})
"""GitHub's permissions that are enough."""
SOURCE = "comment"
"""Of the acts that comments ask for."""
CUT_SECONDS = 1.0
"""A comment's time is cut to whole seconds."""
UNCERTAIN_SECONDS = 2.0
"""So much may a comment's time be wrong by our clock: it is cut, as is the time by which clocks are compared."""

_RECENT_RUNS = 200
_HARMLESS = str.maketrans({"`": "'", "<": "&lt;", "[": r"\[", "@": "@\N{ZERO WIDTH SPACE}"})
_SHOWN_NAMES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """Where a pull request stands at this moment."""

    sha: str
    ahead_seconds: float = 0.0
    """How far GitHub's clock is ahead of ours; 0 if it did not say."""


class ConversationRefused(Forbidden):
    """GitHub does not show or take this with these credentials, and asking again does not help."""


class Conversation(Protocol):
    """One repository's pull requests, as GitHub knows them now, for a short while.

    Everything raises Unavailable when GitHub gave no usable answer in time, and ConversationRefused.
    """

    def permission(self, login: str) -> str:
        """What somebody may do there: `admin`, `maintain`, `write`, …, or `none`."""
        ...

    def head(self, pull_request: int) -> Head:
        """Its newest commit."""
        ...

    @writes
    def react(self, comment: int, reaction: str) -> None:
        """React to a comment; done already, or the comment gone, is fine."""
        ...

    @writes
    def answer(self, asking: Asking, text: str, mark: str) -> None:
        """Comment below the one that asks, unless one with this mark is there; the pull request gone is fine."""
        ...


class Conversations(Protocol):
    """Who talks with GitHub about comments."""

    def about(self, project: str, *, seconds: float) -> Conversation | None:
        """A conversation about a project's repository that is over after so many seconds; None if there are no
        credentials for it. Raises as a Conversation does."""
        ...


@dataclass(frozen=True)
class Obeyed:
    """What became of a comment."""

    reaction: str
    """DONE, NOT_DONE or REFUSED; empty if GitHub could not be told."""
    told: tuple[str, ...]
    """A line for each command, for the log and the delivery's answer."""


@dataclass(frozen=True)
class _Answer:
    """What became of one command."""

    done: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Meant:
    """What a comment is about."""

    asking: Asking
    sha: str
    runs: tuple[Run, ...]
    """The newest of each context, of this commit, accepted before the comment was written."""
    recent: tuple[Run, ...]
    """The pull request's newest runs, the newest first."""
    written: float
    """By our clock; up to UNCERTAIN_SECONDS earlier in truth."""

    @property
    def short(self) -> str:
        return self.sha[:SHORT_SHA_CHARACTERS]


def obey(asking: Asking, conversations: Conversations, *, runs: Runs, clock: Clock, seconds: float) -> Obeyed:
    """Ask for what a comment asks for, if its author may, and answer it on GitHub, within about so many seconds.

    Raises Unavailable when GitHub or the records did not answer: then the delivery has to come again, and nothing
    is lost or doubled by that. What GitHub refuses for good is logged and told.
    """
    try:
        conversation = conversations.about(asking.project, seconds=seconds)
        if conversation is None:
            return Obeyed("", (f"there are no credentials to ask GitHub whether {asking.author} may act",))
        if conversation.permission(asking.author) not in MAY_ACT:
            return _answered(asking, conversation, REFUSED, [_Answer(done=False, lines=(_MAY_NOT,))])
        answers = _obeyed(asking, conversation, runs=runs, clock=clock)
    except ConversationRefused as error:
        log.warning("comment %d on %s#%d: %s", asking.comment, asking.project, asking.pull_request, error)
        return Obeyed("", (str(error),))
    done = all(one.done for one in answers)
    return _answered(asking, conversation, DONE if done else NOT_DONE, answers)


def request_of(asking: Asking, command: Command) -> str:
    """The request id of a command's act: the same for every repeat of the delivery."""
    return f"{_prefix(asking)}{command.kind.value}{''.join(f'/{step}' for step in command.steps)}"


_MAY_NOT = "only people who may write to this repository can ask for that"


def _prefix(asking: Asking) -> str:
    return f"{SOURCE}/{asking.delivery}/"


def _answered(asking: Asking, conversation: Conversation, reaction: str, answers: Sequence[_Answer]) -> Obeyed:
    """First the comment, which says why, then the reaction, which is seen to be the last."""
    lines = tuple(dict.fromkeys(line for one in answers for line in one.lines))
    said = tuple(dict.fromkeys(line for one in answers if not one.done for line in one.lines))
    try:
        if said:
            mark = f"{MARK} answers {asking.delivery} -->"
            conversation.answer(asking, "\n".join([*said, "", mark]), mark)
        conversation.react(asking.comment, reaction)
    except ConversationRefused as error:
        # The acts are on record; that this account may not say so will not change by another delivery.
        log.warning(
            "answering comment %d on %s#%d: %s", asking.comment, asking.project, asking.pull_request, error
        )
        return Obeyed("", lines)
    return Obeyed(reaction, lines)


def _obeyed(asking: Asking, conversation: Conversation, *, runs: Runs, clock: Clock) -> list[_Answer]:
    if all(command.problem for command in asking.commands):
        return [_not_understood(command) for command in asking.commands]
    meant = _meant(asking, conversation.head(asking.pull_request), runs)
    answers = []
    for command in asking.commands:
        if command.problem:
            answers.append(_not_understood(command))
        elif command.kind is Kind.APPROVE:
            answers.append(_approved(command, meant, runs, now=clock.now()))
        else:
            answers.append(_acted(command, meant, runs, now=clock.now()))
    return answers


def _meant(asking: Asking, head: Head, runs: Runs) -> _Meant:
    recent = runs.list(RunFilter(project=asking.project, pull_request=asking.pull_request, limit=_RECENT_RUNS))
    # A delivery that comes again is about the commit that it was about: there may have been a push since.
    sha = next((run.event.revision.commit for run in recent if _has_act_of(run, asking)), head.sha)
    written = asking.written - head.ahead_seconds
    found = runs.list(RunFilter(project=asking.project, sha=sha))
    known = (run for run in found if run.accepted <= written + CUT_SECONDS or _has_act_of(run, asking))
    committed = tuple(run for run in recent if run.event.revision.commit)
    return _Meant(asking, sha, tuple(_newest(known)), committed, written)


def _has_act_of(run: Run, asking: Asking) -> bool:
    return any(one.request.startswith(_prefix(asking)) for one in run.acts)


def _not_understood(command: Command) -> _Answer:
    usages = ", ".join(f"`{word.usage}`" for word in COMMANDS)
    return _Answer(
        done=False, lines=(f"{_shown(command.text)} cannot be understood: {command.problem}. There are {usages}.",)
    )


def _acted(command: Command, meant: _Meant, runs: Runs, *, now: float) -> _Answer:
    asked = [run for run in meant.runs if command.pipeline in {"", run.pipeline}]
    if not asked:
        return _nothing_found(command, meant)
    return _answer_of(command, [_act(command, run, meant, runs, now=now) for run in asked])


def _answer_of(command: Command, acted: Sequence[tuple[Run, Acted]]) -> _Answer:
    """Done if any run takes it: of the others there is nothing to say, they have ended well or go on."""
    taken = [(run, one) for run, one in acted if one.accepted]
    told = taken or acted
    lines = tuple(
        f"{_shown(command.text)}: {_shown(run.pipeline)} ({run.id}): {_harmless(one.message)}" for run, one in told
    )
    return _Answer(done=bool(taken), lines=lines)


def _act(command: Command, run: Run, meant: _Meant, runs: Runs, *, now: float) -> tuple[Run, Acted]:
    try:
        # A list may be a little behind.
        run = runs.read(run.id)
        # An approval is of the commit, whatever became of the run since.
        follows = None if command.kind is Kind.APPROVE else _attempt_seen(run, meant.written + CUT_SECONDS)
        acted = act(
            runs,
            run.id,
            command.kind,
            request=request_of(meant.asking, command),
            who=meant.asking.author,
            source=SOURCE,
            now=now,
            follows=follows,
            only=command.steps,
        )
    except (Conflict, NotFound) as error:
        # There is no such step, or the run was forgotten meanwhile.
        return run, Acted(run, accepted=False, message=str(error))
    return run, acted


def _attempt_seen(run: Run, until: float) -> int:
    """The newest attempt that had begun: whoever wrote cannot have meant a later one. The first may be meant."""
    return max((one.n for one in run.state.attempts if one.n == 1 or one.begun <= until), default=0)


def _nothing_found(command: Command, meant: _Meant) -> _Answer:
    names = sorted({run.pipeline for run in meant.runs})
    if not names:
        why = f"no run of {meant.short} was there when this was written; look at the pull request and ask again"
    else:
        more = ", …" if len(names) > _SHOWN_NAMES else ""
        there = ", ".join(f"`{name}`" for name in names[:_SHOWN_NAMES])
        why = f"{meant.short} has no run of the pipeline `{command.pipeline}`; there are: {there}{more}"
    return _Answer(done=False, lines=(f"{_shown(command.text)}: {why}",))


def _approved(command: Command, meant: _Meant, runs: Runs, *, now: float) -> _Answer:
    """Let the held runs of one commit begin: the one that is named whole, or else the one that whoever approves
    must have seen, since it was the head for a while before."""
    whole = command.sha == meant.sha
    begun = any(one.request == request_of(meant.asking, command) for run in meant.recent for one in run.acts)
    # What has begun to be done was found to be right, and is finished.
    if not begun and not meant.sha.startswith(command.sha):
        return _unseen(
            command, meant, f"{command.sha[:SHORT_SHA_CHARACTERS]} is not the head of this pull request"
        )
    if not begun and not whole and not _was_seen(meant):
        return _unseen(command, meant, "this pull request was changed just before, or is not known as it is now")
    # Digits name a commit, whenever its runs came; without them those are meant that were there.
    ours = [run for run in meant.recent if run.event.revision.commit == meant.sha]
    held = [run for run in _newest(ours if whole else meant.runs) if run.held]
    if not held:
        return _Answer(done=False, lines=(f"{_shown(command.text)}: no run of {meant.short} waits for approval",))
    return _answer_of(command, [_act(command, run, meant, runs, now=now) for run in held])


def _unseen(command: Command, meant: _Meant, why: str) -> _Answer:
    how = f"look at {meant.sha}, and if it may run, comment `/ok-to-test {meant.sha}`"
    return _Answer(done=False, lines=(f"{_shown(command.text)}: {why}: {how}",))


def _was_seen(meant: _Meant) -> bool:
    """Whether its commit had been the head for a while when the comment was written, by all that is known: nothing
    newer of the pull request was accepted, and its first run since it became the head is old enough."""
    since = [run.accepted for run in takewhile(lambda run: run.event.revision.commit == meant.sha, meant.recent)]
    return bool(since) and min(since) <= meant.written - UNCERTAIN_SECONDS


def _newest(runs: Iterable[Run]) -> list[Run]:
    """The newest of each context; `runs` come the newest first."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.context, run)
    return list(found.values())


def _shown(written: str) -> str:
    """What somebody wrote, as code: it addresses nobody and is no markup."""
    return f"`{written.replace('`', chr(39))}`"


def _harmless(text: str) -> str:
    return text.translate(_HARMLESS)
