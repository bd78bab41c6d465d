"""Letting the runs end whose records somebody damaged (core/mending.py), in either world."""

import logging
from collections.abc import Callable, Collection

from bridge.errors import BridgeError, Misconfigured

MEND_SECONDS = 15.0
"""Between two looks."""

log = logging.getLogger(__name__)


class Mending:
    """Mends what can be mended; what cannot is tried once, until it is broken in another way.

    Args:
        broken: the records that cannot be read, each with the reason.
        mend: gives such a record one with which its run ends; whether it did. Raises Misconfigured where nothing
            can be done, another BridgeError where nothing can be done now.

    """

    def __init__(self, broken: Callable[[], Collection[tuple[str, str]]], mend: Callable[[str], bool]) -> None:
        self._broken = broken
        self._mend = mend
        self._beyond: set[tuple[str, str]] = set()

    def pass_once(self) -> None:
        """Look at what is broken now. Doing it twice, or two at once, mends once."""
        broken = set(self._broken())
        self._beyond &= broken
        for run, why in sorted(broken - self._beyond):
            try:
                if self._mend(run):
                    log.warning("run %s ends with an error: its record was damaged: %s", run, why)
                    continue
            except Misconfigured:
                pass  # as said before: a newer bridge's, or none of ours
            except BridgeError as error:
                log.debug("run %s cannot be mended now: %s", run, error)
                continue
            self._beyond.add((run, why))
