"""What real controllers did: recordings of watch events (facts in tests/recordings/README.md)."""

import gzip
import json
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


def names(of: str) -> list[str]:
    """The names of all recordings of `argo` or `brigade`."""
    return sorted(file.name.removesuffix(".jsonl.gz") for file in (RECORDINGS / of).glob("*.jsonl.gz"))


def recorded(of: str, name: str) -> list[dict[str, Any]]:
    """The watch events of a recording, in order, each `{"type", "object"}`; Brigade's with `seen`, in seconds."""
    lines = gzip.decompress((RECORDINGS / of / f"{name}.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def objects(of: str, name: str) -> list[dict[str, Any]]:
    """The objects of a recording's events, in order."""
    return [event["object"] for event in recorded(of, name)]
