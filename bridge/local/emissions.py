"""The outbox of scripts that emit events (js/, `emit`): how one pipeline of a machine starts the next.

A file `<id>` in `<state>/emitted`, made by a worker whole or not at all, is an event of its project. Once there is
an answer to it the file has a suffix that says which, and stays: a script that emits it again learns that it was.
"""

import base64
import binascii
import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.core.events import Event, Ignored, Revision
from bridge.core.projects import Project
from bridge.errors import BridgeError, EngineError
from bridge.flows.accepting import Accepted
from bridge.local.folders import EMITTED
from bridge.ports import Projects

POLL_SECONDS = 1.0
TAKEN, IGNORED, REFUSED = "taken", "ignored", "refused"
MAX_BYTES = 4 * 1024 * 1024

_ID = re.compile(r"[0-9a-z]{26}")

log = logging.getLogger(__name__)


class Emissions:
    """Takes what scripts have emitted, once each, whoever dies when.

    Args:
        state: the state folder.
        projects: the projects.
        accept: makes runs of an event (flows.accepting); a repeat of one is harmless.

    """

    def __init__(
        self, state: Path, projects: Projects, accept: Callable[[Event, Project], Accepted | Ignored]
    ) -> None:
        self._folder = state / EMITTED
        self._projects = projects
        self._accept = accept

    def run_forever(self, stop: threading.Event) -> None:
        """Take what there is, and what comes, until `stop`."""
        while not stop.is_set():
            self.take()
            stop.wait(POLL_SECONDS)

    def take(self) -> None:
        """Take what there is. What cannot be stored now is left for the next time."""
        try:
            found = sorted(path for path in self._folder.iterdir() if _ID.fullmatch(path.name))
        except FileNotFoundError:
            return
        for path in found:
            try:
                became, why = self._taken(path)
            except EngineError as error:
                log.warning("the emitted event %s is not stored yet: %s", path.name, error)
                continue
            log.info("the emitted event %s is %s: %s", path.name, became, why)
            path.rename(path.with_name(f"{path.name}.{became}"))

    def _taken(self, path: Path) -> tuple[str, str]:
        try:
            event = self._event(path)
            accepted = self._accept(event, self._projects.read(event.project))
        except EngineError:
            raise
        except (BridgeError, ValueError, TypeError, KeyError) as error:
            return REFUSED, str(error)[:300]
        if isinstance(accepted, Ignored):
            return IGNORED, accepted.reason
        return TAKEN, ", ".join(created.run.id for created in accepted.created)

    def _event(self, path: Path) -> Event:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        told = json.loads(path.read_bytes())
        texts = {name: str(told.get(name) or "") for name in ("event", "provider", "project", "commit", "ref")}
        try:
            payload = base64.b64decode(told["payload"], validate=True)
        except binascii.Error:
            raise ValueError("its payload is no base64") from None
        return Event(
            provider=texts["provider"] or "brigade",
            type=texts["event"],
            project=self._projects.read_by_id(texts["project"]).name,
            delivery=path.name,
            revision=Revision(texts["commit"], texts["ref"]),
            payload=payload,
            short_title=f"emitted: {texts['event']}"[:200],
        )
