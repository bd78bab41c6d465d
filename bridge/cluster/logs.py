"""Containers' logs through the API server, whole and without repeats, although every read may be cut short.

Nothing tells a log that was cut between kubelet and API server from one that has ended, and one cannot ask for the
bytes after some place, only for the lines since a second. So lines are asked for with their timestamps, what was
seen of the last seconds is remembered, and a log is whole when its last line, asked for by itself, is known.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.cluster.api import PODS, Api
from bridge.errors import Unavailable

LOG_BYTES = 4 * 1024 * 1024
"""The end of a log that is kept when all of it is read."""
PIECE_BYTES = 1024 * 1024
READS = 6
"""How often in a row a read may bring nothing until a log is found to be whole."""
SILENCE_SECONDS = 5.0
"""A log that is not followed comes at once."""

_EMPTY_READS = 3
_MARGIN_SECONDS = 1
"""Lines of a container's two streams are written down in an order that may differ a little from their times."""
_LONG_LINE_BYTES = 8 * 1024
"""Runtimes cut lines at 16 KiB."""
_TAIL_BYTES = 1024 * 1024
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)(?: |(?=\n)|\Z)")


class LogCursor:
    """A place in a log: what was passed, in bytes of text, and what of it the next read will bring again.

    `begin` a read, `feed` it what comes; what it answers is new. A line counts once it is whole.
    """

    def __init__(self) -> None:
        self.position = 0
        """Bytes of the log's text that were passed."""
        self.strange = 0
        """Lines in this read that are no container's: the kubelet's own words where a log should be."""
        self._newest: int | None = None
        self._floor: int | None = None
        self._seen: dict[int, Counter[bytes]] = {}
        self._again: Counter[bytes] = Counter()
        self._rest = b""
        self._last = b""

    @property
    def since(self) -> str:
        """From where the next read has to be, for `sinceTime`; empty: from the beginning."""
        first = self._first_second
        return "" if first is None else f"{datetime.fromtimestamp(first, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def ends_with(self, line: bytes) -> bool:
        """Whether this line, with its timestamp and without its end, is the last one of what was read."""
        last = self._rest or self._last
        if line == last:
            return True
        # Of a very long line the runtime keeps parts, and answers the last one when asked for the last line.
        stamp = _STAMP.match(line)
        return stamp is not None and len(line) > _LONG_LINE_BYTES and last.endswith(line[stamp.end() :])

    def begin(self) -> None:
        """A read begins, from `since` or, as some kubelets do, from some earlier place."""
        self._floor = self._first_second
        self._again = Counter()
        for keys in self._seen.values():
            self._again.update(keys)
        self._rest = b""
        self.strange = 0

    def feed(self, chunk: bytes) -> bytes:
        """The text in a chunk that is new."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(self._taken(line + b"\n") for line in lines)

    def finish(self) -> bytes:
        """The container has ended, and its log with this read: the text of a last line that has no end."""
        rest, self._rest = self._rest, b""
        return self._taken(rest) if rest else b""

    @property
    def _first_second(self) -> int | None:
        return None if self._newest is None else self._newest - _MARGIN_SECONDS

    def _taken(self, line: bytes) -> bytes:
        found = _STAMP.match(line)
        if found is None:
            self.strange += 1
            return b""
        second = int(datetime.fromisoformat((found[1] + found[2]).decode()).timestamp())
        key = hashlib.blake2b(line, digest_size=16).digest()
        if (self._floor is not None and second < self._floor) or self._is_known(key):
            return b""
        self._remember(second, key)
        self._last = line.removesuffix(b"\n")
        text = line[found.end() :]
        self.position += len(text)
        return text

    def _is_known(self, key: bytes) -> bool:
        times = self._again[key]
        if times > 1:
            self._again[key] = times - 1
        elif times:
            del self._again[key]
        return times > 0

    def _remember(self, second: int, key: bytes) -> None:
        newest = second if self._newest is None else max(self._newest, second)
        first = newest - _MARGIN_SECONDS
        if newest != self._newest:
            self._newest = newest
            self._seen = {known: keys for known, keys in self._seen.items() if known >= first}
        if second >= first:
            self._seen.setdefault(second, Counter())[key] += 1


@dataclass(frozen=True)
class Piece:
    """What a read brought."""

    text: bytes
    ended: bool
    """The answer came to its end, or what looks like it."""


class ContainerLogs:
    """The logs of a namespace's containers."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def piece(self, pod: str, container: str, cursor: LogCursor, *, most_bytes: int = PIECE_BYTES) -> Piece:
        """What is new after a place, about `most_bytes` of it at most; the cursor is moved behind it.

        Raises NotFound without its pod, Refused without its log, Unavailable if nothing could be read.
        """
        query = {"container": container, "timestamps": "true", "sinceTime": cursor.since}
        cursor.begin()
        found = bytearray()
        stream = self._api.stream(
            PODS, self._namespace, pod, subresource="log", query=query, silence_seconds=SILENCE_SECONDS
        )
        with stream:
            try:
                for chunk in stream:
                    found += cursor.feed(chunk)
                    if len(found) >= most_bytes:
                        return Piece(bytes(found), ended=False)
            except Unavailable:
                # What was read is passed: it must not be lost.
                if not found:
                    raise
                return Piece(bytes(found), ended=False)
        return Piece(bytes(found), ended=True)

    def is_whole(self, pod: str, container: str, cursor: LogCursor) -> bool:
        """Whether nothing of an ended container's log comes after a place; False also if that was not answered.

        Raises as `piece`.
        """
        query = {"container": container, "timestamps": "true", "tailLines": "1"}
        stream = self._api.stream(
            PODS, self._namespace, pod, subresource="log", query=query, silence_seconds=SILENCE_SECONDS
        )
        found = bytearray()
        with stream:
            for chunk in stream:
                found += chunk
                if len(found) > _TAIL_BYTES:
                    return False
        return bool(found) and cursor.ends_with(bytes(found).removesuffix(b"\n").rpartition(b"\n")[2])

    def so_far(self, pod: str, container: str) -> bytes:
        """The end of what a running container has said so far. Raises as `piece`."""
        cursor = LogCursor()
        log = bytearray()
        for _ in range(READS):
            piece = self.piece(pod, container, cursor)
            _extend(log, piece.text)
            if piece.ended:
                break
        return bytes(log)

    def whole(self, pod: str, container: str) -> bytes | None:
        """The end of the log of a container that has ended; None if the kubelet has something else in its place.

        Raises as `piece`, and Unavailable if it was never found to be whole.
        """
        cursor = LogCursor()
        log = bytearray()
        empty = 0
        tries = READS
        while tries:
            piece = self.piece(pod, container, cursor)
            _extend(log, piece.text)
            if piece.ended and self.is_whole(pod, container, cursor):
                _extend(log, cursor.finish())
                return bytes(log)
            # A read that was cut before its first line looks like an empty log.
            empty += piece.ended and not cursor.position
            if empty == _EMPTY_READS:
                return None if cursor.strange else b""
            tries -= 0 if piece.text else 1
        raise Unavailable(
            f"the log of pod {pod[:100]} in namespace {self._namespace} is cut short again and again; ask again"
        )


def _extend(log: bytearray, text: bytes) -> None:
    log += text
    del log[:-LOG_BYTES]
