"""The controller's numbers for the gateway's /metrics: on one machine they are two processes over one folder."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from bridge.core.metrics import Value

FILE_NAME = "controller-metrics.json"
EVERY_SECONDS = 5.0
"""So often they are written."""
STALE_SECONDS = 60.0
"""Older ones tell of a process that is gone or stands still, and are left out."""


class SharedValues:
    """A small file in the state folder, replaced as a whole. Losing it loses nothing.

    Args:
        state: the folder.

    """

    def __init__(self, state: Path) -> None:
        self._file = state / FILE_NAME

    def write(self, values: Mapping[str, Value]) -> None:
        """Put these in place of the last ones; on a full disk those stay, until they are stale."""
        beside = self._file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(values))
            beside.replace(self._file)

    def read(self) -> Mapping[str, Value]:
        """The last ones; empty if there are none, or they are old or cannot be read."""
        try:
            if time.time() - self._file.stat().st_mtime > STALE_SECONDS:
                return {}
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
