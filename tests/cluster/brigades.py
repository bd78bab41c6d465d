"""Brigade v1 by hand: its controller, its workers on a node of the tests, its vacuum."""

import contextlib
import threading
import time

from tests.cluster.client import ApiError, Client, path
from tests.cluster.kubelet import ContainerLog, FakeKubelet, set_phase

RUNNER = "brigade-runner"


class HastyClock:
    """The machine's time, with short sleeps."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, 0.05))


def name_of(build_id: str) -> str:
    return f"brigade-worker-{build_id}"


class HandBrigade:
    """What Brigade and the kubelet would do with the builds of a namespace, one act a call."""

    def __init__(self, admin: Client, kubelet: FakeKubelet, namespace: str) -> None:
        self.admin = admin
        self.kubelet = kubelet
        self.namespace = namespace

    def secret(self, build_id: str) -> dict:
        return self.admin.get(path("secrets", self.namespace, name_of(build_id)))

    def pod(self, build_id: str) -> dict:
        return self.admin.get(path("pods", self.namespace, name_of(build_id)))

    def pods(self) -> list[str]:
        return sorted(found["metadata"]["name"] for found in self.admin.get(path("pods", self.namespace))["items"])

    def log(self, build_id: str) -> ContainerLog:
        """The worker's output."""
        return self.kubelet.log(self.namespace, name_of(build_id), RUNNER)

    def start(self, build_id: str, *, phase: str = "Running") -> None:
        """Brigade's controller makes the worker of a build with the labels of its Secret, and accepts it; the kubelet
        runs it."""
        labels = self.secret(build_id)["metadata"]["labels"]
        name = name_of(build_id)
        self.kubelet.create_pod(self.admin, self.namespace, name, container=RUNNER, phase=phase, labels=labels)
        self.accept(build_id)

    def accept(self, build_id: str) -> None:
        body = {"metadata": {"labels": {"status": "accepted"}}}
        self.admin.patch(path("secrets", self.namespace, name_of(build_id)), body)

    def end(self, build_id: str, code: int, *lines: str) -> None:
        """The worker prints these lines and exits."""
        self.log(build_id).write(*lines)
        self.log(build_id).end()
        self.set(build_id, "Failed" if code else "Succeeded", exit_code=code)

    def set(self, build_id: str, phase: str, **status) -> None:
        set_phase(self.admin, self.namespace, name_of(build_id), phase, **status)

    def make_job(self, build_id: str, name: str = "test") -> None:
        """The worker starts a job: a Secret and a pod."""
        labels = {"heritage": "brigade", "component": "job", "jobname": name, "build": build_id}
        body = {"metadata": {"name": f"{name}-{build_id}", "labels": labels}, "type": "brigade.sh/job"}
        self.admin.create(path("secrets", self.namespace), body)
        self.kubelet.create_pod(self.admin, self.namespace, f"{name}-{build_id}", labels=labels)

    def make_volume(self, build_id: str) -> None:
        labels = {"heritage": "brigade", "component": "buildStorage", "build": build_id}
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Mi"}}}
        body = {"metadata": {"name": name_of(build_id), "labels": labels}, "spec": spec}
        self.admin.create(path("persistentvolumeclaims", self.namespace), body)

    def vacuum(self, build_id: str) -> None:
        """Brigade's vacuum takes pods and Secrets, and leaves the volume."""
        for kind in ("pods", "secrets"):
            for found in self.admin.get(path(kind, self.namespace), labelSelector=f"build={build_id}")["items"]:
                self.remove(kind, found["metadata"]["name"])

    def collect(self, build_id: str) -> None:
        """The worker's pod is gone at once."""
        self.remove("pods", name_of(build_id))

    def remove(self, kind: str, name: str) -> None:
        with contextlib.suppress(ApiError):
            self.admin.delete(path(kind, self.namespace, name), gracePeriodSeconds=0)


class EndingPods:
    """The kubelet's part in a deletion: pods of a namespace that are being deleted are gone soon. A context manager."""

    def __init__(self, brigade: HandBrigade) -> None:
        self._brigade = brigade
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(60)

    def _run(self):
        with self._brigade.admin.access.client() as admin:
            while not self._stopping.wait(0.1):
                with contextlib.suppress(ApiError):
                    for pod in admin.get(path("pods", self._brigade.namespace))["items"]:
                        if pod["metadata"].get("deletionTimestamp"):
                            self._brigade.remove("pods", pod["metadata"]["name"])
