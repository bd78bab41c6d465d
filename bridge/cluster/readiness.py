"""Whether a process in a cluster has what it needs to do its work now."""

import math
import threading
import time
from collections.abc import Callable, Sequence

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.watching import Watching
from bridge.errors import BridgeError, NotFound

CHECK_SECONDS = 5.0
"""An answer of the API server counts for so long, and below, none."""
CHECK_AGAIN_SECONDS = 1.0
CHECK_PATIENCE_SECONDS = 2.0
"""So long it may take; a probe has to wait for longer."""
ABSENT = "bridge-ready"
"""Nobody makes a Secret of this name: that it is not there is an answer, and that it may be asked is another."""


class Readiness:
    """Says why not, or nothing: the caches are filled, and the API server answers and knows us.

    It may be asked by anybody and often: the API server is asked every few seconds at most, by one of them.

    Args:
        api: the API server.
        namespace: of the records.
        watches: what has to have been listed once.
        monotonic: this process's own time.

    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        watches: Sequence[Watching],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api.within(CHECK_PATIENCE_SECONDS)
        self._namespace = namespace
        self._watches = watches
        self._monotonic = monotonic
        self._asking = threading.Lock()
        self._asked_at = -math.inf
        self._reason = "the API server was not asked yet"

    def __call__(self) -> str:
        """The reason, for a log; empty if ready."""
        for watch in self._watches:
            if not watch.synced.is_set():
                return f"{watch} has not listed anything yet"
        if self._asking.acquire(blocking=False):
            try:
                pause = CHECK_AGAIN_SECONDS if self._reason else CHECK_SECONDS
                if self._monotonic() - self._asked_at >= pause:
                    self._reason = self._checked()
                    self._asked_at = self._monotonic()
            finally:
                self._asking.release()
        return self._reason

    def _checked(self) -> str:
        try:
            self._api.get(SECRETS, self._namespace, ABSENT, metadata_only=True)
        except NotFound:
            return ""
        except BridgeError as exc:
            return str(exc)
        return ""
