"""`brig run [PROJECT] -e EVENT`: the process of a step, and the entry point of the image's `brig`.

It starts in a fraction of a second: only flows.stepping and the adapters that it needs are imported, and it reads
its few variables itself. Flags are those of Brigade's `brig run`, and ours (design.md, A step).

Variables: BRIDGE_RUN, BRIDGE_ATTEMPT and BRIDGE_STEP say which step of which run this is.
"""

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bridge.clocks import SystemClock
from bridge.core.durations import seconds_of
from bridge.core.events import Event, Revision
from bridge.core.names import RESERVED_EVENTS
from bridge.core.runs import Attempt, Kind, Phase, Run, State
from bridge.core.steps import Answer, ExitCode, Options
from bridge.errors import BridgeError, NotFound
from bridge.flows.stepping import Interrupted, Key, Records, Stepping
from bridge.wiring.steps import ClusterFlags, Place, place_of


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Usage errors are 1, as in `brig`; 2 would say that the build failed."""
        print(f"brig: {message}; see `brig run --help`", file=sys.stderr)  # noqa: T201
        sys.exit(ExitCode.USAGE)


Where = Callable[[ClusterFlags], Place]
"""Finds out which step it is, and its ports."""


def main(arguments: Sequence[str] | None = None, *, where: Where = place_of) -> None:
    """Run the step and exit with its answer's code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # As the image's `brig` it is called with its subcommand; `bridgectl brig run` has taken it off.
    chosen = _parser().parse_args(words[1:] if words[:1] == ["run"] else words)
    try:
        answer = _answer(chosen, where)
    except BridgeError as error:
        answer = Answer(ExitCode.USAGE, str(error))
    except Interrupted:
        answer = Answer(ExitCode.ASK_AGAIN, "asked to end; the build is left alone")
    _say(answer.message, stream_is_error=answer.code != ExitCode.SUCCEEDED)
    sys.exit(answer.code)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="brig run", allow_abbrev=False, description="Run a step of a project, idempotently.")
    parser.add_argument("project", nargs="?", default="", help="the project; from the record if left out")
    parser.add_argument("-e", "--event", action="append", default=[], help="the event to fire; may be repeated")
    parser.add_argument("--tries", type=_count, help="how many builds of an attempt may fail; else one each call")
    parser.add_argument("--backoff", type=_duration, default=5.0, help="pause after the first failure, doubled")
    parser.add_argument("--timeout", type=_duration, help="how long a build may run")
    parser.add_argument("--start-timeout", type=_duration, default=300.0, help="how long it may wait to start")
    parser.add_argument("--lost", type=_count, default=5, help="how many builds of an attempt may be lost")
    parser.add_argument("--unhandled", choices=["ok", "fail"], default="fail", help="what no handler means")
    parser.add_argument("-c", "--commit", default="", help="without a record: the commit")
    parser.add_argument("-r", "--ref", default="", help="without a record: the ref")
    parser.add_argument("-p", "--payload", type=Path, help="without a record: a file with the payload")
    parser.add_argument("-n", "--namespace", default="", help="in a cluster: Brigade's namespace")
    parser.add_argument("--kubeconfig", default="", help="in a cluster: the kubeconfig")
    parser.add_argument("--kube-context", default="", help="in a cluster: the kubeconfig's context")
    parser.add_argument("--no-progress", action="store_true", help="accepted, as in brig: progress is never drawn")
    parser.add_argument("--no-color", action="store_true", help="accepted, as in brig")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 1000:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 1000")
    return int(text)


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _answer(chosen: argparse.Namespace, where: Where) -> Answer:
    reserved = [name for name in chosen.event if name in RESERVED_EVENTS]
    if reserved:
        return Answer(ExitCode.USAGE, f"{reserved[0]} is one of Brigade's own events: give the step another one")
    place = where(ClusterFlags(chosen.kubeconfig, chosen.kube_context, chosen.namespace))
    options = Options(
        events=tuple(chosen.event),
        tries=chosen.tries,
        backoff_seconds=chosen.backoff,
        timeout_seconds=chosen.timeout,
        start_timeout_seconds=chosen.start_timeout,
        lost=chosen.lost,
        unhandled_ok=chosen.unhandled == "ok",
    )
    if place.which.by_hand:
        return _by_hand(chosen, options, place)
    key = Key(place.which.run, place.which.attempt, place.which.step)
    stepping = Stepping(place.runs(), place.builds(), SystemClock(), _show, _say, place.pause)
    _end_on_sigterm()
    return stepping.answer(key, options)


def _by_hand(chosen: argparse.Namespace, options: Options, place: Place) -> Answer:
    """Without a record: the flags, or the variables of a template that was submitted by hand, say what to build.

    Within a Workflow the key is its uid and the step, so that Argo retrying it attaches; in a plain shell it is
    new each time.
    """
    project = chosen.project or os.environ.get("BRIDGE_PROJECT", "")
    if not project or not chosen.event:
        return Answer(ExitCode.USAGE, "without a run (BRIDGE_RUN), PROJECT and -e EVENT have to be given")
    commit = chosen.commit or os.environ.get("BRIDGE_COMMIT", "")
    ref = chosen.ref or os.environ.get("BRIDGE_REF", "")
    run_id = f"hand-{os.environ.get('BRIDGE_WORKFLOW_UID') or secrets.token_hex(8)}"
    event = Event(
        provider="brigade-cli",
        type=chosen.event[0],
        project=project,
        delivery=run_id,
        revision=Revision(commit, ref or ("" if commit else "master")),
    )
    try:
        payload = chosen.payload.read_bytes() if chosen.payload else b""
    except OSError as error:
        return Answer(ExitCode.USAGE, f"the payload {chosen.payload} cannot be read: {error.strerror}")
    step = place.which.step or "step"
    begun = Attempt(1, Kind.FIRST, 1, time.time(), steps=(step,))
    run = Run(run_id, "by-hand", event, "", "", begun.begun, phase=Phase.RUNNING, state=State(attempts=(begun,)))
    stepping = Stepping(_OneRun(run, payload), place.builds(), SystemClock(), _show, _say, place.pause)
    _end_on_sigterm()
    return stepping.answer(Key(run_id, 1, step), options)


class _OneRun(Records):
    """The records of a step by hand: one, in memory."""

    def __init__(self, run: Run, payload: bytes) -> None:
        self._run = run
        self._payload = payload

    def read(self, run_id: str) -> Run:
        if run_id != self._run.id:
            raise NotFound(f"there is no run {run_id}")
        return self._run

    def payload(self, run_id: str) -> bytes:
        self.read(run_id)
        return self._payload


def _end_on_sigterm() -> None:
    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted

    signal.signal(signal.SIGTERM, interrupt)


def _show(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _say(line: str, *, stream_is_error: bool = False) -> None:
    print(f"brig: {line}", file=sys.stderr if stream_is_error else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
