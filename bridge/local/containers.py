"""The container engine that jobs run in: one that works, and removing what a build left in it."""

import re
from collections.abc import Sequence

from bridge.errors import Misconfigured, Unavailable
from bridge.local import processes

ENGINES = ("docker", "podman", "nerdctl")

_PROBE_SECONDS = 15.0
_REMOVAL_SECONDS = 60.0
_LONGEST_COMPLAINT = 120
_ID_LINE = re.compile(r"^[0-9a-f]{12,64}$", re.MULTILINE)
"""Warnings may stand between the lines that have a container's id."""


def working_engine(
    candidates: Sequence[str] = ENGINES, *, timeout_seconds: float = _PROBE_SECONDS
) -> tuple[str, ...]:
    """The command of the first engine that answers; being on the PATH is not enough.

    Raises Misconfigured with what each one said, and what to do.
    """
    complaints = []
    for command in candidates:
        complaint = _complaint(command, timeout_seconds)
        if complaint is None:
            return (command,)
        complaints.append(f"{command}: {complaint}")
    raise Misconfigured(
        f"no container engine to run jobs in ({'; '.join(complaints)}): start one, or run jobs as processes of "
        "this machine, isolated from nothing, with --jobs=host"
    )


def remove_containers(command: Sequence[str], build_id: str) -> int:
    """Remove all containers of a build, running or not, by the label that the worker gives them; how many.

    Raises Unavailable if the engine does not answer or something stays.
    """
    listed = _asked([*command, "ps", "--all", "--quiet", "--filter", f"label=build={build_id}"])
    found = _ID_LINE.findall(listed)
    for container in found:
        # Podman's `rm` forgets one that somebody else has begun to stop, and lets it run if that one is killed.
        _run([*command, "kill", container])
    if found:
        _asked([*command, "rm", "--force", *found])
    return len(found)


def _complaint(command: str, timeout_seconds: float) -> str | None:
    try:
        ended = processes.run([command, "info"], timeout_seconds=timeout_seconds)
    except FileNotFoundError:
        return "not installed"
    except OSError as error:
        return f"cannot be started ({error.strerror})"
    if ended.code is None:
        return f"no answer within {timeout_seconds:g} s"
    return None if ended.code == 0 else _last_line(ended.output) or f"exit code {ended.code}"


def _asked(argv: Sequence[str]) -> str:
    ended = _run(argv)
    if ended.code != 0 and "no such container" not in ended.output.lower():
        raise Unavailable(f"{argv[0]} did not remove a build's containers: {_last_line(ended.output)}")
    return ended.output


def _run(argv: Sequence[str]) -> processes.Ended:
    try:
        ended = processes.run(argv, timeout_seconds=_REMOVAL_SECONDS)
    except OSError as error:
        raise Unavailable(f"cannot start {argv[0]} to remove a build's containers: {error.strerror}") from error
    if ended.code is None:
        raise Unavailable(
            f"{argv[0]} did not remove a build's containers within {_REMOVAL_SECONDS:g} s: is it stuck?"
        )
    return ended


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()[:_LONGEST_COMPLAINT]
