"""The exit event: what `build_failed` (or `build_succeeded`) of an attempt is fired with."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bridge.core import names
from bridge.core.builds import Build, BuildSpec, Ending
from bridge.core.events import Event
from bridge.core.runs import Attempt, Run
from bridge.core.verdicts import Verdict

BRIDGE_KEY = "bridge"
PAYLOAD_LIMIT = 900 * 1024
"""Brigade keeps a payload uncompressed in a Secret of 1 MiB."""
MESSAGE_CHARACTERS = 500


@dataclass(frozen=True)
class Failure:
    """One step that did not succeed."""

    step: str
    message: str
    build: str
    """The id of its newest build, or empty."""


def exit_event_of(attempt: Attempt, verdict: Verdict) -> str:
    """The event that an attempt with this verdict owes, or empty."""
    return attempt.on_success if verdict is Verdict.SUCCEEDED else attempt.on_failure


def failures_of(run: Run, attempt: Attempt, builds: Iterable[Build]) -> tuple[Failure, ...]:
    """The steps of the attempt's epoch whose builds all failed, and native ones that did not succeed, by name."""
    newest: dict[str, Build] = {}
    succeeded: set[str] = set()
    for build in builds:
        if build.epoch != attempt.epoch or names.is_exit_step(build.step):
            continue
        if build.outcome is not None and build.outcome.ending is Ending.SUCCEEDED:
            succeeded.add(build.step)
        known = newest.get(build.step)
        if known is None or known.number < build.number:
            newest[build.step] = build
    failed = [Failure(step, _message(build), build.id) for step, build in newest.items() if step not in succeeded]
    return tuple(sorted([*failed, *_native_failures(run, attempt)], key=lambda one: one.step))


def _native_failures(run: Run, attempt: Attempt) -> Iterator[Failure]:
    for step in attempt.native:
        node = run.step(attempt.epoch, step).node
        if node is not None and node.attempt == attempt.n and not node.is_done:
            yield Failure(step, node.reason[:MESSAGE_CHARACTERS] or "did not end", "")


def exit_build(
    run: Run, attempt: Attempt, *, event: str, number: int, payload: bytes, failures: tuple[Failure, ...]
) -> BuildSpec:
    """The build that fires `event` for `attempt`: the original revision and provider, and the payload with one
    added key `bridge`."""
    verdict = attempt.verdict or Verdict.ERROR
    step = names.exit_step(attempt.n)
    changed = exit_payload(payload, run=run.id, attempt=attempt.n, verdict=verdict, failures=failures)
    return BuildSpec(
        id=names.build_id(run=run.id, epoch=attempt.epoch, step=step, number=number),
        run=run.id,
        pipeline=run.pipeline,
        epoch=attempt.epoch,
        step=step,
        number=number,
        attempt=attempt.n,
        event=replace(_retyped(run.event, event), payload=changed),
    )


def exit_payload(
    payload: bytes, *, run: str, attempt: int, verdict: Verdict, failures: tuple[Failure, ...]
) -> bytes:
    """`payload` with the key `bridge`; one that is no JSON object is handed on unchanged, and one that would no
    longer fit is dropped to that key alone."""
    told = {
        "run": run,
        "attempt": attempt,
        "verdict": verdict.value,
        "failures": [
            {"step": failure.step, "message": failure.message, "build": failure.build} for failure in failures
        ],
    }
    try:
        parsed = json.loads(payload) if payload else {}
    except (ValueError, RecursionError):
        return payload
    if not isinstance(parsed, dict):
        return payload
    whole = json.dumps({**parsed, BRIDGE_KEY: told}, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if len(whole) <= PAYLOAD_LIMIT:
        return whole
    return json.dumps({BRIDGE_KEY: told}, ensure_ascii=False).encode()


def _retyped(event: Event, name: str) -> Event:
    return replace(event, type=name)


def _message(build: Build) -> str:
    if build.outcome is None:
        return "did not end"
    return build.outcome.reason[:MESSAGE_CHARACTERS]
