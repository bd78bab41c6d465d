"""Helm, built once from the Go module proxy and kept with the control plane's binaries; and what it makes of the chart."""

import copy
import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.building import BUILD_SECONDS, KUBERNETES, CannotBuild, _go, _locked, cache_folder, say

HELM = "3.22.0"
CHART = Path(__file__).parents[2] / "charts" / "bridge"
KUBE_VERSION = ".".join(KUBERNETES.split(".")[:2])
RELEASE = "bridge"
HOME = "bridge-home"
"""The release's namespace."""
DEADLINE_SECONDS = 120


class Refused(Exception):
    """Helm said no; the message is what it said."""


def helm_binary(environment: Mapping[str, str] = os.environ) -> Path:
    """Helm's path, built if it was not yet; of several processes one builds. Raises CannotBuild."""
    system = f"{platform.system().lower()}-{platform.machine()}"
    folder = cache_folder(environment) / "helm" / f"v{HELM}-{system}"
    binary = folder / "helm"
    if binary.exists():
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "building.lock"):
        if not binary.exists():
            _build(folder, environment)
    return binary


def _build(folder: Path, environment: Mapping[str, str]) -> None:
    say(f"building helm v{HELM}, once, about 2 minutes")
    started = time.monotonic()
    # What is compiled stays until it is done, so that a build that was interrupted goes on where it was.
    compiled = folder / "compiled"
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as scratch:
        building = {
            **environment,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "",
            "GOBIN": scratch,
            "GOCACHE": str(compiled),
        }
        # `install` takes the versions from Helm's own go.mod.
        command = [
            _go(environment),
            "install",
            "-trimpath",
            "-ldflags",
            "-s -w",
            f"helm.sh/helm/v3/cmd/helm@v{HELM}",
        ]
        done = subprocess.run(
            command,
            env=building,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            raise CannotBuild(f"go install of helm v{HELM} ended with {done.returncode}: {done.stderr[-2000:]}")
        (Path(scratch) / "helm").replace(folder / "helm")
    shutil.rmtree(compiled, ignore_errors=True)
    say(f"built helm v{HELM} in {time.monotonic() - started:.0f} s")


def helm(*arguments: str, values: Mapping[str, Any] | None = None, kubeconfig: Path | None = None) -> str:
    """What `helm ARGUMENTS` prints; without a kubeconfig it knows no cluster. Raises Refused."""
    with tempfile.TemporaryDirectory(prefix="bridge-helm-") as scratch:
        file = Path(scratch) / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values or {})), encoding="utf-8")
        given = [] if values is None else ["--values", str(file)]
        # Nothing of this machine's own configuration.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": scratch,
            "KUBECONFIG": str(kubeconfig or Path(scratch) / "none"),
        }
        done = subprocess.run(
            [str(helm_binary()), *arguments, *given],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
    if done.returncode != 0:
        raise Refused(f"{done.stdout}{done.stderr}")
    return done.stdout


def rendered(values: Mapping[str, Any] | None = None, *, namespace: str = HOME) -> list[dict[str, Any]]:
    """The objects of the chart with these values. Raises Refused."""
    return copy.deepcopy(_rendered(json.dumps(values or {}, sort_keys=True), namespace))


@functools.cache
def _rendered(values: str, namespace: str) -> list[dict[str, Any]]:
    command = ["template", RELEASE, str(CHART), "--namespace", namespace, "--kube-version", KUBE_VERSION]
    text = helm(*command, values=json.loads(values))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for one in yaml.load_all(text, Loader=loader) if one]


def by_default() -> list[dict[str, Any]]:
    """The objects of the chart with its own values."""
    return rendered()


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def the(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one of this kind and name."""
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def everything() -> dict[str, Any]:
    """Values that switch on all there is and fill in every field."""
    placed = {
        "podAnnotations": {"example.com/note": "one"},
        "podLabels": {"example.com/team": "builds"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "builds", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}},
                    }
                ]
            }
        },
        "priorityClassName": "builds",
    }
    return {
        "image": {
            "repository": "images.example.com:5000/ci/bridge",
            "digest": f"sha256:{'a' * 64}",
            "pullPolicy": "Always",
            "pullSecrets": ["pull-one", "pull-two"],
        },
        "workflows": {"namespace": "runs", "argoInstanceID": "team-a"},
        "brigade": {"namespace": "brigade"},
        "publicUrl": "https://bridge.example.com",
        "fallbackUrl": "http://brigade-github-app.brigade.svc:7746",
        "github": {
            "apiUrl": "https://git.example.com/api/v3",
            "webhookUrl": "https://hooks.example.com/events/github",
            "sweepMinutes": 2.5,
            "app": {
                "id": 12345678,
                "privateKey": "-----BEGIN RSA PRIVATE KEY-----\nsecret-of-the-app\n-----END RSA PRIVATE KEY-----\n",
                "webhookSecret": "secret-of-the-hook",
            },
        },
        "tokens": {
            "read": ["secret-token-to-read"],
            "act": ["secret-token-to-act-1", "ada=secret-token-to-act-2"],
            "events": ["secret-token-to-send-events"],
            "defaultSharedSecret": "secret-of-all-projects",
        },
        "anonymousRead": True,
        "badges": False,
        "signIn": {
            "sessionHours": 8.5,
            "proxy": {
                "addresses": ["10.1.2.3", "fd00::/64"],
                "userHeader": "X-Auth-Request-Email",
                "groupsHeader": "X-Auth-Request-Groups",
                "actUsers": ["ada@example.com", "grace@example.com"],
                "actGroups": ["acme:builders", "night shift"],
            },
        },
        "retention": {"days": 14.5, "runs": 1000000},
        "notifications": {"existingSecret": "endpoints", "days": 1.5},
        "logLevel": "debug",
        "gateway": {**placed, "replicas": 3, "workers": 4, "threads": 16},
        "controller": {**placed, "replicas": 3},
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"example.com/internal": "true"}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"example.com/size": "1m"},
            "host": "bridge.example.com",
            "tlsSecret": "bridge-tls",
            "pages": True,
        },
        "networkPolicies": {
            "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "controllerFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
            "extraEgress": [{"ports": [{"port": 3128, "protocol": "TCP"}]}],
        },
        "durableJobs": {"enabled": True},
        "metrics": {
            "podMonitor": True,
            "rules": True,
            "rulesFile": True,
            "pendingHours": 1.5,
            "labels": {"release": "prometheus"},
        },
    }


def bare() -> dict[str, Any]:
    """Values that switch off all that can be."""
    return {
        "gateway": {"replicas": 1},
        "controller": {"replicas": 1},
        "networkPolicies": {"enabled": False},
        "podDisruptionBudgets": {"enabled": False},
        "rbac": {"create": False},
        "defaultPipeline": {"enabled": False},
        "tokens": {"existingSecret": "my-tokens"},
        "github": {"app": {"id": "Iv1abc", "existingSecret": "my-app"}},
    }
