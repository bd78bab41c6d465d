"""GitHub's merge queue: its groups, and when one is given up.

A group is a commit that GitHub made of pull requests and their base, on a branch of its own; what is required of a
pull request is required of this commit again, and has to be reported on it (facts/github.md, Merge queue).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.core.events import github_payloads as payloads
from bridge.core.events import json_bodies
from bridge.core.events.github import named

EVENT = "merge_group"
DESTROYED = "destroyed"
MERGED = "merged"
"""Why a group ends that was wanted to the end; others are `invalidated` and `dequeued`."""


@dataclass(frozen=True)
class Destroyed:
    """A merge group is no more."""

    project: str
    delivery: str
    sha: str
    """The group's commit."""
    reason: str
    """`merged`, `invalidated`, `dequeued`, or empty if GitHub does not say."""


def destroyed(headers: Mapping[str, str], body: bytes) -> Destroyed | None:
    """The end of a merge group that a verified delivery tells of, if it does. Raises UnreadableEvent."""
    name, delivery = named(headers)
    if name != EVENT:
        return None
    document = json_bodies.json_object(body)
    if document.get("action") != DESTROYED:
        return None
    read = payloads.read_as(payloads.MergeGroupDelivery, document, what="GitHub's merge_group payload")
    return Destroyed(read.repository.full_name, delivery, read.merge_group.head_sha, read.reason or "")
