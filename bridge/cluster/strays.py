"""The Workflows under runs' labels that bridge does not follow: the controller's watch of them, and their end."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bridge.cluster.api import WORKFLOWS, Api, Refused
from bridge.cluster.watching import Change, Watching
from bridge.core.names import RUN_LABEL
from bridge.core.runs import Run
from bridge.core.strays import Labelled, Stray, judged, labelled, suspects
from bridge.errors import Conflict, NotFound

log = logging.getLogger(__name__)


class WatchedStrays:
    """Strays by a watch of the metadata of all Workflows that say they are a run's.

    Only those that Argo has not completed are remembered, and only those that do not look as they should are read.

    Args:
        api: the API server.
        namespace: of the Workflows.
        changed: told the run of each Workflow that changed, once that is known here; from the watch's thread.

    """

    def __init__(self, api: Api, namespace: str, changed: Callable[[str], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._changed = changed
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Labelled]] = {}
        """By run and name."""
        self._runs: dict[str, str] = {}
        """The run of each, by its name."""
        self.watching = Watching(api, WORKFLOWS, namespace, self._take, labels=RUN_LABEL, metadata_only=True)

    def start(self) -> None:
        """Begin to watch."""
        self.watching.start()

    def stop(self) -> None:
        """End watching."""
        self.watching.stop()

    def runs(self) -> list[str]:
        """The runs of which a Workflow goes on, as far as its metadata says."""
        with self._lock:
            return list(self._known)

    def goes_on(self, run: str) -> bool:
        """Whether a Workflow of this run does."""
        with self._lock:
            return run in self._known

    def of(self, run: Run) -> list[Stray]:
        """Those of a run that go on and have to end."""
        with self._lock:
            found = [*self._known.get(run.id, {}).values()]
        strays = []
        for suspect in suspects(run, found):
            try:
                workflow = self._api.get(WORKFLOWS, self._namespace, suspect.name)
            except NotFound:
                continue
            stray = judged(run, suspect, workflow)
            if stray is not None:
                strays.append(stray)
        return strays

    def end(self, stray: Stray) -> None:
        """Terminate it, also when it is suspended."""
        patch = {"metadata": {"uid": stray.uid}, "spec": {"shutdown": "Terminate", "suspend": None}}
        try:
            self._api.patch(WORKFLOWS, self._namespace, stray.name, patch, metadata_only=True)
        except NotFound:
            return
        except (Conflict, Refused):
            # Perhaps another one has its name by now: the next look tells.
            if self._is_there(stray):
                raise
            return
        log.warning(
            "Workflow %s is not for bridge to follow and was terminated: %s",
            stray.name,
            f"attempt {stray.retried} had ended" if stray.retried else "bridge did not submit it",
        )

    def _is_there(self, stray: Stray) -> bool:
        try:
            found = self._api.get(WORKFLOWS, self._namespace, stray.name, metadata_only=True)
        except NotFound:
            return False
        return bool(found["metadata"].get("uid") == stray.uid)

    def _take(self, change: Change, found: Mapping[str, Any]) -> None:
        name = str(found["metadata"].get("name"))
        one = None if change is Change.DELETED else labelled(found)
        with self._lock:
            before = self._runs.pop(name, "")
            if before:
                of_run = self._known[before]
                del of_run[name]
                if not of_run:
                    del self._known[before]
            if one is not None:
                self._runs[name] = one.run
                self._known.setdefault(one.run, {})[name] = one
        run = one.run if one is not None else before or _run_of(found)
        if run:
            self._changed(run)


def _run_of(found: Mapping[str, Any]) -> str:
    return str((found["metadata"].get("labels") or {}).get(RUN_LABEL) or "")
