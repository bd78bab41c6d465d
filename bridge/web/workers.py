"""gunicorn's threaded worker, with a bound on the time that one request may take, and gone when its server is.

gunicorn 27 waits for a first byte and then reads headers and body without a timeout (facts/operations.md), so
a handful of clients that send a byte now and then would hold all threads for ever. Its main loop calls
`notify` at least once a second; this worker uses that to end what takes too long.
"""

import contextlib
import ctypes
import os
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

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._began: dict[TConn, float] = {}

    def init_process(self) -> None:
        """Begin, tied to the arbiter: when that is killed the kernel ends this process too, so that no left-over
        worker answers from, and keeps, a port that the next server needs."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.ppid:
            os._exit(os.EX_TEMPFAIL)
        super().init_process()

    def handle(self, conn: TConn) -> object:
        """Handle one request of a connection, remembered while it lasts."""
        if not conn.initialized and not conn.wait_for_data(self.first_byte_seconds):
            return _DEFER
        with self._lock:
            self._began[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                del self._began[conn]

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
