"""Argo Workflows: the port Engine in a cluster (facts/argo.md; design.md, How a run ends)."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from bridge.cluster.api import SECRETS, WORKFLOW_TEMPLATES, WORKFLOWS, AlreadyExists, Api, Refused
from bridge.core import argo, names
from bridge.core.executions import Execution
from bridge.core.kubernetes import is_being_deleted, mapping, text
from bridge.core.runs import Run
from bridge.errors import BadPipeline, Conflict, NotFound, Unavailable

TOUCHED_ANNOTATION = f"{names.LABEL_PREFIX}touched"
_STRICT = {"fieldValidation": "Strict"}
"""An older CRD would drop what it does not know, in silence."""


class ArgoEngine:
    """Attempts as Workflows of one namespace, which is the records' too.

    Only Workflows of the run itself are looked at and touched: what others have made under its name, and what is
    left of an earlier record of the same name, is left alone.

    Args:
        api: the API server.
        namespace: of the records and the Workflows.
        instance_id: the `instanceID` of the Argo controller that is to run them; empty if it has none.
        tick: a number that differs each time.

    """

    def __init__(
        self, api: Api, namespace: str, instance_id: str = "", *, tick: Callable[[], int] = time.time_ns
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._instance_id = instance_id
        self._tick = tick

    def submit(self, run: Run, attempt: int) -> str:
        """Create the attempt's Workflow; see the port.

        Raises NotFound when the run's record is gone, and Unavailable while a Workflow of an earlier record of its
        name is still being removed.
        """
        record_uid = self._record_uid(run)
        if not self._has_template(run):
            found = self._found(run, attempt)
            if found is not None and argo.owner_uid(found) == record_uid:
                return _uid(found)
            raise BadPipeline(
                f"there is no WorkflowTemplate {run.pipeline[:100]} in namespace {self._namespace}; apply it again"
            )
        body = argo.workflow(run, attempt, record_uid=record_uid, instance_id=self._instance_id)
        try:
            return _uid(self._api.create(WORKFLOWS, self._namespace, body, query=_STRICT))
        except AlreadyExists:
            return self._known(run, attempt, record_uid)
        except Refused as exc:
            raise BadPipeline(f"pipeline {run.pipeline}: its Workflow was refused: {exc}") from exc
        except NotFound as exc:
            raise self._without_argo() from exc

    def observe(self, run: Run, attempt: int) -> Execution | None:
        """What is there now, on a consistent read; None if nothing of this attempt is."""
        found = self._found(run, attempt)
        if found is None:
            if _known_uid(run, attempt):
                # Without its CRD every Workflow would look gone.
                self._check_argo()
            return None
        return argo.execution_of(found)

    def touch(self, run: Run, attempt: int) -> None:
        """Change an annotation, which makes Argo's controller look at the Workflow again."""
        found = self._found(run, attempt)
        if found is not None:
            patch = {"metadata": {"annotations": {TOUCHED_ANNOTATION: str(self._tick())}}}
            self._patch(run, attempt, found, patch)

    def stop(self, run: Run, attempt: int) -> None:
        """End its steps, run its exit handler; also when it is suspended. Terminate is never taken back."""
        self._shut_down(run, attempt, "Stop")

    def terminate(self, run: Run, attempt: int) -> None:
        """End its steps and its exit handler; also when it is suspended."""
        self._shut_down(run, attempt, "Terminate")

    def delete(self, run: Run, attempt: int) -> None:
        """Remove it. Its pods go with it."""
        found = self._found(run, attempt)
        if found is None:
            return
        try:
            self._api.delete(WORKFLOWS, self._namespace, _name(found), uid=_uid(found))
        except (NotFound, Conflict):
            # Gone, or another one has its name by now.
            return

    def _shut_down(self, run: Run, attempt: int, strategy: str) -> None:
        found = self._found(run, attempt)
        if found is None or argo.execution_of(found).finished:
            return
        before = text(mapping(found, "spec"), "shutdown")
        # A suspended Workflow ignores both until it goes on.
        spec = {"shutdown": before if before == "Terminate" else strategy, "suspend": None}
        self._patch(run, attempt, found, {"spec": spec})

    def _patch(self, run: Run, attempt: int, found: Mapping[str, Any], patch: dict[str, Any]) -> None:
        """Patch the object that was read, and no other one of its name."""
        patch["metadata"] = {**patch.get("metadata", {}), "uid": _uid(found)}
        try:
            self._api.patch(WORKFLOWS, self._namespace, _name(found), patch, metadata_only=True)
        except NotFound:
            return
        except (Conflict, Refused):
            # Another one has its name by now, or there was too much traffic on it: that is worth another try.
            if _uid(self._found(run, attempt) or {}) == _uid(found):
                raise

    def _found(self, run: Run, attempt: int) -> dict[str, Any] | None:
        """The attempt's Workflow, if it is there and its own."""
        try:
            found = self._api.get(WORKFLOWS, self._namespace, names.workflow_name(run.id, attempt))
        except NotFound:
            return None
        known = _known_uid(run, attempt)
        is_ours = _uid(found) == known if known else argo.is_of(found, run.id, attempt)
        return found if is_ours else None

    def _known(self, run: Run, attempt: int, record_uid: str) -> str:
        """The uid of the Workflow that a create met. Raises Unavailable, BadPipeline if it is not this run's."""
        name = names.workflow_name(run.id, attempt)
        try:
            found = self._api.get(WORKFLOWS, self._namespace, name)
        except NotFound as exc:
            raise Unavailable(f"Workflow {name} was there and is gone again; ask again") from exc
        if argo.is_of(found, run.id, attempt):
            if argo.owner_uid(found) == record_uid:
                return _uid(found)
            raise Unavailable(f"Workflow {name} is of an earlier record and has to go first; ask again")
        if is_being_deleted(found):
            raise Unavailable(f"Workflow {name} has to go first; ask again")
        raise BadPipeline(
            f"a Workflow {name} is in namespace {self._namespace} already and is not of this run; delete it"
        )

    def _record_uid(self, run: Run) -> str:
        return _uid(self._api.get(SECRETS, self._namespace, run.id, metadata_only=True))

    def _has_template(self, run: Run) -> bool:
        try:
            self._api.get(WORKFLOW_TEMPLATES, self._namespace, run.pipeline, metadata_only=True)
        except NotFound:
            self._check_argo()
            return False
        return True

    def _check_argo(self) -> None:
        """Raise Unavailable when it is Argo's kinds that are missing, not an object."""
        try:
            for resource in (WORKFLOW_TEMPLATES, WORKFLOWS):
                next(self._api.pages(resource, self._namespace, metadata_only=True, limit=1), None)
        except NotFound as exc:
            raise self._without_argo() from exc

    def _without_argo(self) -> Unavailable:
        return Unavailable(
            f"the API server knows no Workflows, or no namespace {self._namespace}; "
            "install Argo Workflows, `bridgectl doctor` tells what is missing"
        )


def _known_uid(run: Run, attempt: int) -> str:
    begun = run.attempt_numbered(attempt)
    return begun.uid if begun is not None else ""


def _uid(found: Mapping[str, Any]) -> str:
    return text(mapping(found, "metadata"), "uid")


def _name(found: Mapping[str, Any]) -> str:
    return text(mapping(found, "metadata"), "name")
