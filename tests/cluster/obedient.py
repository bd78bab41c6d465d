"""As much of Argo's controller as obeys: a Workflow that is told to end comes to its end."""

import threading

from bridge.cluster.api import WORKFLOWS, Api
from bridge.errors import EngineError


class ObedientArgo:
    """Gives each Workflow of a namespace a root node that runs, and ends it when `spec.shutdown` says so and it is not
    suspended. Use as a context manager."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(60)

    def _run(self):
        while not self._stopping.wait(0.05):
            try:
                for page in self._api.pages(WORKFLOWS, self._namespace):
                    for workflow in page.items:
                        self._look(workflow)
            except EngineError:
                continue  # a Workflow that is gone meanwhile, and the like

    def _look(self, workflow):
        spec, status, name = workflow["spec"], workflow.get("status") or {}, workflow["metadata"]["name"]
        phase = "Failed" if spec.get("shutdown") and not spec.get("suspend") else "Running"
        if status.get("phase") in {phase, "Failed"}:
            return
        node = {"id": name, "name": name, "displayName": name, "type": "DAG", "phase": phase}
        nodes = {
            name: {**node, "templateName": "main", "templateScope": "", "startedAt": None, "finishedAt": None}
        }
        message = f"Stopped with strategy '{spec['shutdown']}'" if phase == "Failed" else None
        said = {"phase": phase, "message": message, "nodes": nodes, "startedAt": None, "finishedAt": None}
        self._api.patch(WORKFLOWS, self._namespace, name, {"status": said})
