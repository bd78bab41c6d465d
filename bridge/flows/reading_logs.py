"""Which build's log is meant, and what is left of it."""

from bridge.core.builds import Build
from bridge.errors import NotFound
from bridge.ports import Builds


def build_meant(
    builds: Builds, run_id: str, step: str, *, number: int | None = None, epoch: int | None = None
) -> Build:
    """The newest build of a step, or that of this number, epoch, or both. Raises NotFound."""
    found = [
        build for build in builds.find(run_id, epoch=epoch, step=step) if number is None or build.number == number
    ]
    if not found:
        raise NotFound(f"step {step[:100]} of run {run_id[:100]} has no such build")
    return max(found, key=lambda build: (build.epoch, build.number))


def log_left(builds: Builds, build: Build) -> bytes:
    """The log of a build; of one that cannot be read any more the end that its outcome kept."""
    text = builds.log(build)
    if text is None:
        text = build.outcome.tail if build.outcome else ""
    return text.encode("utf-8", "replace")
