"""What bridge makes of every example, as rows of a table that is committed."""

import json
from pathlib import Path

from bridge.core.events import Event, Ignored, github
from bridge.demonstrating.payloads import Example
from bridge.errors import UnreadableEvent

TABLE = Path(__file__).parent / "answers.tsv"
_COLUMNS = (
    "source", "event", "example", "action", "answer", "project", "commit", "ref", "short_title", "long_title", "branch",
    "tag", "pull_request", "fork_author", "payload", "clone_url", "sender",
)  # fmt: skip


def table(examples: tuple[Example, ...]) -> list[str]:
    """The lines of the table: a header, then one for each example. An empty field is a dash."""
    rows = [_COLUMNS, *(_row(example) for example in examples)]
    return ["\t".join(str(cell) if cell not in {"", None} else "-" for cell in row) for row in rows]


def answer(example: Example) -> Event | Ignored:
    headers = {"X-GitHub-Event": example.event, "X-GitHub-Delivery": "d-1", "Content-Type": "application/json"}
    return github.read(headers, example.body)


def _row(example: Example) -> tuple[object, ...]:
    asked = (example.source, example.event, example.number, example.action)
    try:
        answered = answer(example)
    except UnreadableEvent as exc:
        return (*asked, f"unreadable: {exc}")
    if isinstance(answered, Ignored):
        return (*asked, f"ignored: {answered.reason}")
    return (
        *asked, answered.type, answered.project, answered.revision.commit, answered.revision.ref, answered.short_title,
        answered.long_title, answered.branch, answered.tag, answered.pull_request, answered.fork_author,
        _kind_of_payload(answered, example), answered.clone_url, answered.sender,
    )  # fmt: skip


def _kind_of_payload(event: Event, example: Example) -> str:
    if not event.payload:
        return "empty"
    if event.payload == example.body:
        return "raw"
    wrapper = json.loads(event.payload)
    return "wrapped" if wrapper.pop("body") == example.payload else f"unknown: {sorted(wrapper)}"
