"""Prometheus' own engine and rule parser, built once from the Go module proxy (promql.go): what an expression comes to."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.building import BUILD_SECONDS, CannotBuild, _go, _go_mod, _locked, cache_folder, say

PROMETHEUS = "0.55.1"
"""The module's version; Prometheus 2.55.1."""
SOURCE = Path(__file__).parent / "promql.go"
GO_MOD = _go_mod(f"require github.com/prometheus/prometheus v{PROMETHEUS}")
DEADLINE_SECONDS = 60
AT = 1_700_000_000
"""When everything is asked."""


class Refused(Exception):
    """Prometheus does not take it; the message is what it said."""


def promql_binary(environment: Mapping[str, str] = os.environ) -> Path:
    """The program's path, built if it was not yet; of several processes one builds. Raises CannotBuild."""
    digest = hashlib.sha256(SOURCE.read_bytes() + GO_MOD.encode()).hexdigest()[:8]
    folder = cache_folder(environment) / "promql" / f"v{PROMETHEUS}-{digest}"
    binary = folder / "promql"
    if binary.exists():
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "building.lock"):
        if not binary.exists():
            _build(folder, environment)
    return binary


def _build(folder: Path, environment: Mapping[str, str]) -> None:
    say(f"building the engine of Prometheus v{PROMETHEUS}, once, about 1 minute")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as scratch:
        module = Path(scratch)
        (module / "go.mod").write_text(GO_MOD)
        (module / SOURCE.name).write_bytes(SOURCE.read_bytes())
        building = {
            **environment,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "",
            "GOCACHE": str(module / "compiled"),
        }
        done = subprocess.run(
            [_go(environment), "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", "built", SOURCE.name],
            cwd=module,
            env=building,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            raise CannotBuild(f"go build of {SOURCE.name} ended with {done.returncode}: {done.stderr[-2000:]}")
        (module / "built").replace(folder / "promql")
    say(f"built the engine of Prometheus v{PROMETHEUS} in {time.monotonic() - started:.0f} s")


def series(name: str, values: Sequence[float], *, every_seconds: int = 60, **labels: str) -> dict[str, Any]:
    """A series whose newest value is of now, the others `every_seconds` before each other."""
    first = AT - every_seconds * (len(values) - 1)
    samples = [[first + every_seconds * n, value] for n, value in enumerate(values)]
    return {"Metric": {"__name__": name, **labels}, "Samples": samples}


def asked(queries: Sequence[str], known: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """What each of `queries` answers now over the series `known`: `{metric, value}` each. Raises Refused."""
    return json.loads(_told({"Series": list(known), "Queries": list(queries), "At": AT}))


def check_rules(text: str) -> None:
    """Raise Refused if Prometheus does not read this as a rule file."""
    _told({"Rules": text, "Series": [], "Queries": [], "At": AT})


def _told(task: Mapping[str, Any]) -> str:
    done = subprocess.run(
        [str(promql_binary())], input=json.dumps(task), capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return done.stdout
