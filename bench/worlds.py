"""What a measurement needs on the API server: namespaces, an account, projects, pipelines; and processes of ours."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridge.core.names import project_id
from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.workflows import workflow_template
from tests.cluster.accounts import create_account, grant, token_of
from tests.cluster.client import Client, path
from tests.cluster.control_plane import ControlPlane

SECRET = "a-shared-secret-of-the-benchmark"
PATIENCE_SECONDS = 120
RULES = [
    {"apiGroups": [""], "resources": ["secrets", "pods", "pods/log", "persistentvolumeclaims"], "verbs": ["*"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflows", "workflowtemplates"], "verbs": ["*"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
]


@dataclass(frozen=True)
class World:
    """An API server with a namespace for records and one for Brigade, and who we are there."""

    control_plane: ControlPlane
    admin: Client
    namespace: str
    brigade: str
    kubeconfig: Path
    token: str

    def environment(self, **more: str) -> dict[str, str]:
        """For a process of ours."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "BRIGADE_"))
        }
        return {
            **inherited,
            "KUBECONFIG": str(self.kubeconfig),
            "BRIDGE_NAMESPACE": self.namespace,
            "BRIDGE_BRIGADE_NAMESPACE": self.brigade,
            "BRIDGE_LEASE_NAMESPACE": self.namespace,
            **more,
        }


@contextlib.contextmanager
def world(control_plane: ControlPlane, folder: Path, *, projects: int, pipelines: int) -> Iterator[World]:
    """A fresh world with so many projects and pipelines. The first pipeline is for every project's pull requests."""
    namespace, brigade = "bench-runs", "bench-brigade"
    with control_plane.admin.client() as admin:
        for name in (namespace, brigade):
            admin.create(path("namespaces"), {"metadata": {"name": name}})
        create_account(admin, namespace, "bench")
        for where in (namespace, brigade):
            grant(admin, where, namespace, "bench", RULES)
        token = token_of(admin, namespace, "bench", seconds=7200)
        for number in range(projects):
            admin.create(path("secrets", brigade), _project(project_name(number)))
        for number in range(pipelines):
            admin.create(path("workflowtemplates", namespace), workflow_template(_pipeline(number)))
        kubeconfig = folder / "bench.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(control_plane, token, namespace)))
        yield World(control_plane, admin, namespace, brigade, kubeconfig, token)


def project_name(number: int) -> str:
    """The name of a world's project."""
    return f"acme/widgets-{number}"


@contextlib.contextmanager
def running(
    world: World, *command: str, ready: str, log: Path, **settings: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of `bridgectl` that answers 200 at the URL `ready`, ended afterwards."""
    with log.open("ab") as file:
        argv = [sys.executable, "-P", "-m", "bridge.cli", *command]
        process = subprocess.Popen(argv, env=world.environment(**settings), stdout=file, stderr=file)
        try:
            _await(ready, process, log)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.05)
    raise SystemExit(f"bench: {url} does not answer; its log ends with:\n{log.read_text()[-2000:]}")


def _project(name: str) -> dict[str, Any]:
    return {
        "type": "brigade.sh/project",
        "metadata": {
            "name": project_id(name),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
            "annotations": {"projectName": name},
        },
        "stringData": {"sharedSecret": SECRET, "repository": f"github.com/{name}"},
    }


def _pipeline(number: int) -> Pipeline:
    first = number == 0
    return Pipeline(
        name="pull-request" if first else f"of-others-{number}",
        projects=("acme/*",) if first else (f"others/project-{number}",),
        on=(Trigger("pull_request"),),
        steps=(Step("test", events=("test",), tries=2), Step("deploy", events=("deploy",), needs=("test",))),
        exit=Exit(),
    )


def _kubeconfig(control_plane: ControlPlane, token: str, namespace: str) -> dict[str, Any]:
    cluster = {"server": control_plane.url, "certificate-authority": str(control_plane.ca_file)}
    context = {"cluster": "bench", "user": "bench", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": cluster}],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": context}],
    }
