"""Names of everything that bridge makes, each a function of its cause, and the labels on it.

A name that is a hash of its cause is what makes a repeat harmless: the second create meets the first.
"""

import hashlib
import json
import re

LABEL_PREFIX = "bridge.brigade.sh/"
RUN_LABEL = f"{LABEL_PREFIX}run"
PIPELINE_LABEL = f"{LABEL_PREFIX}pipeline"
ATTEMPT_LABEL = f"{LABEL_PREFIX}attempt"
STEP_LABEL = f"{LABEL_PREFIX}step"
EPOCH_LABEL = f"{LABEL_PREFIX}epoch"

RESERVED_EVENTS = frozenset({"error", "after", "ping"})
"""Names that Brigade's worker itself uses (facts/brigade.md, 0.9)."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_BUILD_ID_LENGTH = 26
_RUN_HASH_LENGTH = 20
_PIPELINE_PART = 30
_PROJECT_ID = re.compile(r"brigade-[0-9a-f]{54}")
_OUTSIDE_DNS = re.compile(r"[^a-z0-9-]+")


def project_id(project: str) -> str:
    """Brigade's id of a project (facts/brigade.md, 1): its Secret's name and the id in its routes."""
    return f"brigade-{hashlib.sha256(project.encode()).hexdigest()[:54]}"


def is_project_id(text: str) -> bool:
    """Whether this is made by `project_id`; a name may begin like one."""
    return _PROJECT_ID.fullmatch(text) is not None


def run_id(*, project: str, provider: str, pipeline: str, delivery: str) -> str:
    """The run of a delivery: at most 51 characters of DNS label, so that `-<attempt>` fits into 63."""
    part = _OUTSIDE_DNS.sub("-", pipeline.lower())[:_PIPELINE_PART].strip("-") or "run"
    if not part[0].isalpha():
        part = f"r{part}"[:_PIPELINE_PART]
    return f"{part}-{_hash([project, provider, pipeline, delivery], _RUN_HASH_LENGTH)}"


def workflow_name(run: str, attempt: int) -> str:
    """The Workflow of an attempt: `<run>`, then `<run>-2`, `<run>-3` …"""
    return run if attempt == 1 else f"{run}-{attempt}"


def build_id(*, run: str, epoch: int, step: str, number: int) -> str:
    """Brigade's id of a build: 26 characters of lower-case Crockford base 32 (facts/brigade.md, 0.3)."""
    return _hash([run, epoch, step, number], _BUILD_ID_LENGTH)


def exit_step(attempt: int) -> str:
    """The step name under which the exit event's builds of an attempt are kept; no pipeline can use it."""
    return f"exit.{attempt}"


def is_exit_step(step: str) -> bool:
    """Whether `step` was made by `exit_step`."""
    return step.startswith("exit.")


def mapped(name: str) -> str:
    """A Brigade event name as Argo takes a task name: `_`, `:` and `.` become `-` (facts/argo.md)."""
    return re.sub(r"[_:.]", "-", name)


def _hash(parts: list[object], length: int) -> str:
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
    number = int.from_bytes(digest)
    characters = []
    for _ in range(length):
        number, remainder = divmod(number, len(_CROCKFORD))
        characters.append(_CROCKFORD[remainder])
    return "".join(characters)
