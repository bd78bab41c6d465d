"""The log: one JSON object a line, on which nothing that came from outside can look like another line.

JSON in ASCII escapes line breaks, terminal sequences and what else a reader might obey. The generic routes
hold a secret in their path, so such paths are redacted wherever they turn up.
"""

import contextlib
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

_SECRET_PATH = re.compile(r"((?:simpleevents|cloudevents)/[^/\s]+/[^/\s]+/)[^\s'\"]+", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s'\"]*")
_LONGEST_TEXT = 1000


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Write bridge's own log to `stream` (standard error if None) from `level` on."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _safe,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def log_as_json(level: str = "info") -> None:
    """Let what logs by the standard library write such lines to standard error too, from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # GitHub's client has a line for each request, with its whole address.
    logging.getLogger("httpx").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


class _Lines:
    """Writes lines; a log that cannot be written (a full disk, a closed pipe) fails no request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *_: object) -> "_Lines":
        return self

    def msg(self, line: str) -> None:
        """Write one line at once, so that lines of several processes do not mix."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def redacted(text: str) -> str:
    """`text` without the secrets of generic routes, and cut where it is too long for a log."""
    without = _SECRET_PATH.sub(r"\1[redacted]", text)
    return without if len(without) <= _LONGEST_TEXT else f"{without[:_LONGEST_TEXT]}…"


class JsonFormatter(logging.Formatter):
    """The same lines for gunicorn's own log, which quotes the paths of bad requests."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON. Of an exception the type and the places are told, not its message."""
        line: dict[str, object] = {
            "event": _QUERY.sub("", redacted(record.getMessage())),
            "level": record.levelname.lower(),
            "logger": record.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
        }
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        return json.dumps(line)


def _safe(_logger: object, _method: str, told: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: redacted(value) if isinstance(value, str) else value for key, value in told.items()}
