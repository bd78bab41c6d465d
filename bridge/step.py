"""`brig run [PROJECT] -e EVENT`: the process of a step, and the entry point of the image's `brig`.

It starts in a fraction of a second: only flows.stepping and the adapters that it needs are imported, and it reads
its few variables itself. Flags are those of Brigade's `brig run`, and ours (design.md, A step).

Variables: BRIDGE_RUN, BRIDGE_ATTEMPT and BRIDGE_STEP say which step of which run this is; `wiring.steps` reads
those that say where the world is.
"""

import argparse
import contextlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bridge.clocks import SystemClock
from bridge.core.builds import LOG_LEVEL
from bridge.core.durations import seconds_of
from bridge.core.events import Event
from bridge.core.names import RESERVED_EVENTS, is_project_id
from bridge.core.pipelines import Checkout
from bridge.core.runs import Attempt, Kind, Phase, Run, State
from bridge.core.step_flags import LOG_LEVELS, BuildFlags
from bridge.core.steps import Answer, ExitCode, Options
from bridge.errors import BadSettings, BridgeError, EngineError, NotFound
from bridge.flows.stepping import Interrupted, Key, Records, Stepping
from bridge.wiring.places import ClusterFlags, Place, WorkflowNode
from bridge.wiring.steps import place_of

Where = Callable[[ClusterFlags], Place]
"""Finds out which step it is, and its ports."""
Show = Callable[[bytes], None]

TERMINATION_LOG = Path("/dev/termination-log")
"""What a container writes there, the kubelet puts into its pod's status and Argo into its node's message."""

_MAX_TERMINATION_BYTES = 4096
_DEFAULT_EVENT = "exec"
"""What `brig run` fires without `-e`."""
_GLOBAL_FLAGS = {"-n", "--namespace", "--kubeconfig", "--kube-context"}
"""Those of `brig` itself, which may stand before its subcommand, each with a value."""
_GLOBAL_SWITCHES = {"-v", "--verbose"}
_COMMANDS = (["run"], ["exec"])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Usage errors are 1, as in `brig`; 2 would say that the build failed."""
        print(f"brig: {message}; see `brig run --help`", file=sys.stderr)  # noqa: T201
        sys.exit(ExitCode.USAGE)


def main(arguments: Sequence[str] | None = None, *, where: Where = place_of) -> None:
    """Run the step and exit with its answer's code."""
    words = _without_command(list(sys.argv[1:] if arguments is None else arguments))
    chosen = _parser().parse_args(words)
    try:
        answer = _answer(chosen, where)
    except EngineError as error:
        answer = Answer(ExitCode.ASK_AGAIN, f"could not find out: {error}")
    except BridgeError as error:
        answer = Answer(ExitCode.USAGE, str(error))
    except Interrupted:
        answer = Answer(ExitCode.ASK_AGAIN, "asked to end; the build is left alone")
    _say(answer.message, stream_is_error=answer.code != ExitCode.SUCCEEDED)
    if answer.code != ExitCode.SUCCEEDED:
        _tell_kubelet(answer.message)
    sys.exit(answer.code)


def _without_command(words: list[str]) -> list[str]:
    """As the image's `brig` it is called with its subcommand; `bridgectl brig run` has taken that off."""
    place = 0
    while place < len(words):
        flag, equals, _ = words[place].partition("=")
        if flag not in _GLOBAL_FLAGS | _GLOBAL_SWITCHES:
            break
        place += 2 if flag in _GLOBAL_FLAGS and not equals else 1
    return words[:place] + words[place + 1 :] if words[place : place + 1] in _COMMANDS else words


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="brig run", allow_abbrev=False, description="Run a step of a project, idempotently.")
    parser.add_argument("project", nargs="?", default="", help="the project; else the record's")
    parser.add_argument("-e", "--event", action="append", default=[], help="the event to fire; may be repeated")
    parser.add_argument("--tries", type=_count, help="how many builds of an attempt may fail; else one each call")
    parser.add_argument("--backoff", type=_duration, default=5.0, help="pause after the first failure, doubled")
    parser.add_argument("--timeout", type=_duration, help="how long a build may run")
    parser.add_argument("--start-timeout", type=_duration, default=300.0, help="how long it may wait to start")
    parser.add_argument("--lost", type=_count, default=5, help="how many builds of an attempt may be lost")
    parser.add_argument("--unhandled", choices=["ok", "fail"], default="fail", help="what no handler means")
    parser.add_argument("--checkout", type=Checkout, choices=[*Checkout], help="what to build of a ref that moved")
    parser.add_argument("-c", "--commit", default="", help="the commit; a record's own stands")
    parser.add_argument("-r", "--ref", default="", help="the ref, master without a commit; a record's own stands")
    payload = parser.add_mutually_exclusive_group()
    payload.add_argument("-p", "--payload", type=Path, help="a file with the payload, for that of the record")
    payload.add_argument("-i", "--inline-payload", help="the payload itself, for that of the record")
    parser.add_argument("-f", "--file", type=Path, help="in a cluster: a file with the script, for the project's")
    parser.add_argument("--config", type=Path, help="in a cluster: a file with brigade.json, for the project's")
    parser.add_argument(
        "-l", "--level", type=str.lower, choices=LOG_LEVELS, default=LOG_LEVEL, help="the worker's log level"
    )
    parser.add_argument("-b", "--background", action="store_true", help="do not wait; only without a record")
    parser.add_argument("-n", "--namespace", default="", help="in a cluster: Brigade's namespace")
    parser.add_argument("--kubeconfig", default="", help="in a cluster: the kubeconfig")
    parser.add_argument("--kube-context", default="", help="in a cluster: the kubeconfig's context")
    parser.add_argument("--no-progress", action="store_true", help="accepted, as in brig: progress is never drawn")
    parser.add_argument("--no-color", action="store_true", help="take color codes out of the log")
    parser.add_argument("-v", "--verbose", action="store_true", help="accepted, as in brig")
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
    flags = _flags(chosen, place)
    options = Options(
        events=tuple(chosen.event),
        tries=chosen.tries,
        backoff_seconds=chosen.backoff,
        timeout_seconds=chosen.timeout,
        start_timeout_seconds=chosen.start_timeout,
        lost=chosen.lost,
        unhandled_ok=chosen.unhandled == "ok",
    )
    show = _Colorless(_show) if chosen.no_color else _show
    if place.which.by_hand:
        return _by_hand(flags, options, place, show)
    if flags.background:
        _say("-b: the step waits for its build all the same, for a run ends with its builds")
        flags = replace(flags, background=False)
    key = Key(place.which.run, place.which.attempt, place.which.step)
    return _interruptibly(_stepping(place.runs(), place, show, flags), key, options)


def _flags(chosen: argparse.Namespace, place: Place) -> BuildFlags:
    """What its builds are made of. Raises BadSettings for what cannot be read, and UnknownProject."""
    script, config = _read(chosen.file, "the script"), _read(chosen.config, "the config")
    if (script or config) and not place.takes_files:
        raise BadSettings("-f and --config are for clusters; on one machine the project's folder has the script")
    inline = chosen.inline_payload
    payload = _read(chosen.payload, "the payload") if inline is None else inline.encode("utf-8", "surrogateescape")
    project = chosen.project
    if is_project_id(project):
        project = place.projects().read_by_id(project).name
    return BuildFlags(
        project=project,
        commit=chosen.commit,
        ref=chosen.ref,
        payload=payload,
        script=_text(script, chosen.file),
        config=_text(config, chosen.config),
        log_level=chosen.level,
        checkout=chosen.checkout,
        background=chosen.background,
    )


def _read(path: Path | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{what} {path} cannot be read: {error.strerror}") from error


def _text(content: bytes | None, path: Path | None) -> str:
    try:
        return (content or b"").decode()
    except UnicodeDecodeError:
        raise BadSettings(f"{path} is no text in UTF-8") from None


def _by_hand(flags: BuildFlags, options: Options, place: Place, show: Show) -> Answer:
    """Without a record: the flags, or the variables of a template that was submitted by hand, say what to build.

    Within a Workflow the key is its uid and the step, so that Argo retrying it attaches; in a plain shell it is
    new each time.
    """
    project = flags.project or os.environ.get("BRIDGE_PROJECT", "")
    if not project:
        return Answer(ExitCode.USAGE, "without a run (BRIDGE_RUN), PROJECT has to be given")
    flags = replace(
        flags,
        project=project,
        commit=flags.commit or os.environ.get("BRIDGE_COMMIT", ""),
        ref=flags.ref or os.environ.get("BRIDGE_REF", ""),
    )
    options = replace(options, events=options.events or (_DEFAULT_EVENT,))
    node = place.node() or WorkflowNode(secrets.token_hex(8), "step")
    run_id = f"hand-{node.workflow_uid}"
    event = Event("brigade-cli", options.events[0], project, run_id, flags.revision)
    begun = Attempt(1, Kind.FIRST, 1, time.time(), steps=(node.step,))
    run = Run(run_id, "by-hand", event, "", "", begun.begun, phase=Phase.RUNNING, state=State(attempts=(begun,)))
    stepping = _stepping(_OneRun(run, flags.payload or b""), place, show, flags)
    return _interruptibly(stepping, Key(run_id, 1, node.step), options)


def _stepping(records: Records, place: Place, show: Show, flags: BuildFlags) -> Stepping:
    return Stepping(
        records,
        place.builds(),
        SystemClock(),
        show,
        _say,
        flags=flags,
        pause=place.pause,
        sources=place.sources(),
        freshened=place.freshening(_say),
    )


def _interruptibly(stepping: Stepping, key: Key, options: Options) -> Answer:
    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        stepping.interrupted = True
        raise Interrupted

    signal.signal(signal.SIGTERM, interrupt)
    return stepping.answer(key, options)


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


class _Colorless:
    """Passes a log on without its colors. An escape sequence may come in two pieces."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._held = b""

    def __call__(self, chunk: bytes) -> None:
        text = self._held + chunk
        begun = _BEGUN_COLOR.search(text)
        self._held = text[begun.start() :] if begun else b""
        self._show(_COLOR.sub(b"", text.removesuffix(self._held)))


_COLOR = re.compile(rb"\x1b\[[0-9;]*m")
_BEGUN_COLOR = re.compile(rb"\x1b(?:\[[0-9;]*)?\Z")


def _show(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _say(line: str, *, stream_is_error: bool = False) -> None:
    print(f"brig: {line}", file=sys.stderr if stream_is_error else sys.stdout, flush=True)


def _tell_kubelet(message: str) -> None:
    """So that the reason stands in the Workflow, and not in a log alone that is gone with its pod."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and TERMINATION_LOG.is_file():
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_bytes(message.encode("utf-8", "replace")[:_MAX_TERMINATION_BYTES])


if __name__ == "__main__":
    main()
