"""gunicorn's threaded worker, with a bound on the time that one request may take, and gone when its server is.

gunicorn 27 waits for a first byte and then reads headers and body without a timeout (facts/operations.md), so
a handful of clients that send a byte now and then would hold all threads for ever. Its main loop calls
`notify` at least once a second; this worker uses that to end what takes too long.

It also lets a thread wait a moment for the next request of a kept connection, as proxies have them: handing it to
the main loop and back costs half as much time of the CPU as accepting an event.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import threading
import time

from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker  # type: ignore[import-untyped]

_PR_SET_PDEATHSIG = 1


class BoundedThreadWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A ThreadWorker on which no request lasts for ever."""

    first_byte_seconds = 0.2
    """So long a new connection may keep a thread before it has sent anything; then the main loop watches it."""
    request_seconds = 10.0
    """Until a request has been read whole. GitHub waits 10 s for an answer."""
    pressed_seconds = 1.0
    """The same while all threads are taken: who has sent everything loses nothing by it."""
    answer_seconds = 60.0
    """Until its answer has been taken."""
    linger_seconds = 0.02
    """So long a thread waits for a kept connection's next request, if no other connection waits for a thread."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._began: dict[TConn, float] = {}
        self._queued = 0
        """Connections that wait for a thread."""

    def init_process(self) -> None:
        """Begin, tied to the arbiter: when that is killed the kernel ends this process too, so that no left-over
        worker answers from, and keeps, a port that the next server needs."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.ppid:
            os._exit(os.EX_TEMPFAIL)
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Let a thread handle a connection that has, or soon has, a request."""
        with self._lock:
            self._queued += 1
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> object:
        """Handle a connection's requests, as long as they follow each other closely and nobody else waits."""
        with self._lock:
            self._queued -= 1
        if not conn.initialized and not conn.wait_for_data(self.first_byte_seconds):
            return _DEFER
        while True:
            kept = self._handle_one(conn)
            if kept is not True or not self._follows(conn):
                return kept

    def _handle_one(self, conn: TConn) -> object:
        """Handle one request of a connection, remembered while it lasts."""
        with self._lock:
            self._began[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                del self._began[conn]

    def _follows(self, conn: TConn) -> bool:
        """Whether a kept connection's next request begins within a moment. The main loop knows what else to do."""
        if self._queued or not self.alive or conn.parser.unreader.buf.getvalue():
            return False
        poll = select.poll()
        try:
            poll.register(conn.sock, select.POLLIN)
        except (OSError, ValueError):
            return False
        return bool(poll.poll(self.linger_seconds * 1000))

    def notify(self) -> None:
        """Tell the arbiter that we live, and end what takes too long."""
        super().notify()
        now = time.monotonic()
        with self._lock:
            pressed = len(self._began) >= self.cfg.threads
            patience = min(self.request_seconds, self.pressed_seconds) if pressed else self.request_seconds
            # Under the lock: a connection that is not handled any more may be another one's by now.
            for conn, began in self._began.items():
                if now - began > self.answer_seconds:
                    _shut(conn, socket.SHUT_RDWR)
                elif now - began > patience:
                    # Whoever reads meets the end of the body, and can still answer.
                    _shut(conn, socket.SHUT_RD)


class ServerLog(Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's own log without one of accesses, which collects its words for each request, read or not."""

    access_log_enabled = False


def _shut(conn: TConn, how: int) -> None:
    with contextlib.suppress(OSError):
        conn.sock.shutdown(how)
