"""Accepting events: signed deliveries to a real gateway, beside plain Secret creates of the same bodies.

Both go to the same API server in the same run, in the order creates, deliveries, creates (A-B-A), and the ratio is that of
the deliveries to the mean of both creates.
"""

import base64
import gzip
import hashlib
import hmac
import json
import random
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.worlds import SECRET, World, free_port, project_name, running, world
from tests.cluster.control_plane import ControlPlane

PROJECTS, PIPELINES = 200, 50
SECONDS = 12
CASES = ((16, 2), (16, 25), (1, 2), (1, 25))
"""Connections, and kilobytes of a body."""
LEAST_CREATES_PER_S = 800.0
"""Of the baseline at 16 connections and 2 kB; below it the machine is too busy for the figures to say anything."""
_SCRIPTS = Path(__file__).parent


def figures(control_plane: ControlPlane, folder: Path) -> Iterator[tuple[str, str]]:
    """The figures, as they are measured."""
    if shutil.which("wrk") is None:
        raise SystemExit("bench: it needs wrk: apt-get install --no-install-recommends wrk")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with world(control_plane, folder, projects=PROJECTS, pipelines=PIPELINES) as made:
        command = ("serve", "--port", str(port), "--log-level", "warning")
        with running(made, *command, ready=f"{url}/readyz", log=folder / "serve.log"):
            for connections, kilobytes in CASES:
                name = f"accept.c{connections}.{kilobytes}kB"
                for figure, value in _case(made, url, folder, connections=connections, kilobytes=kilobytes):
                    yield f"{name}.{figure}", value


def _case(made: World, url: str, folder: Path, *, connections: int, kilobytes: int) -> Iterator[tuple[str, str]]:
    bodies = [_body(project_name(number), kilobytes * 1000) for number in range(PROJECTS)]
    deliveries = folder / "deliveries.lua"
    deliveries.write_text(_lua([(body, _signature(body)) for body in bodies]))
    creates = folder / "creates.lua"
    creates.write_text(_lua([(_secret(body), b"") for body in bodies]))
    before = _creates(made, creates, f"a-{connections}-{kilobytes}", connections)
    found = _wrk(
        f"{url}/events/github",
        _SCRIPTS / "accept.lua",
        {"BODIES": str(deliveries), "UNIQUE": f"b-{connections}-{kilobytes}"},
        connections,
    )
    after = _creates(made, creates, f"c-{connections}-{kilobytes}", connections)
    baseline = (before + after) / 2
    if found["refused"] or not found["answered"]:
        raise SystemExit(f"bench: {found['refused']:.0f} deliveries were not answered by 2xx")
    yield "events_per_s", f"{found['per_s']:.1f}"
    yield "p50_ms", f"{found['p50_ms']:.1f}"
    yield "p99_ms", f"{found['p99_ms']:.1f}"
    yield "creates_per_s", f"{baseline:.1f}"
    yield "ratio", f"{found['per_s'] / baseline:.3f}"
    if (connections, kilobytes) == CASES[0] and min(before, after) < LEAST_CREATES_PER_S:
        yield (
            "invalid",
            f"the baseline made {min(before, after):.0f} Secrets a second, under {LEAST_CREATES_PER_S:.0f}",
        )


def _creates(made: World, bodies: Path, unique: str, connections: int) -> float:
    environment = {"BODIES": str(bodies), "UNIQUE": unique, "TOKEN": made.token}
    url = f"{made.control_plane.url}/api/v1/namespaces/{made.namespace}/secrets"
    found = _wrk(url, _SCRIPTS / "create.lua", environment, connections)
    if found["refused"]:
        raise SystemExit(f"bench: {found['refused']:.0f} plain creates were refused")
    return found["per_s"]


def _wrk(url: str, script: Path, environment: dict[str, str], connections: int) -> dict[str, float]:
    argv = [
        "wrk",
        "-t",
        str(min(2, connections)),
        "-c",
        str(connections),
        "-d",
        f"{SECONDS}s",
        "-s",
        str(script),
        url,
    ]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: wrk failed: {done.stderr[-500:]}")
    figures = json.loads(done.stdout.rpartition("FIGURES ")[2])
    return {name: float(value) for name, value in figures.items()}


def _body(project: str, size: int) -> bytes:
    """A pull request's payload of this size, about as compressible as GitHub's are."""
    event = {
        "action": "synchronize",
        "number": 7,
        "repository": {"full_name": project, "clone_url": f"https://github.com/{project}.git"},
        "sender": {"login": "octocat"},
        "pull_request": {
            "number": 7,
            "title": "Make widgets rounder",
            "author_association": "MEMBER",
            "head": {
                "sha": hashlib.sha1(project.encode()).hexdigest(),
                "ref": "round",
                "repo": {"full_name": project},
            },
            "base": {"ref": "main", "repo": {"full_name": project}},
            "body": "",
        },
    }
    words = random.Random(project)
    missing = size - len(json.dumps(event))
    text = "".join(words.choices(string.ascii_lowercase + "      ", k=missing // 3))
    event["pull_request"]["body"] = (text * 3 + "x" * missing)[:missing]
    return json.dumps(event).encode()


def _signature(body: bytes) -> bytes:
    return b"sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest().encode()


def _secret(body: bytes) -> bytes:
    """What a record needs at least: one Secret with the body, packed as a record's is. Its name is put in by wrk."""
    packed = base64.b64encode(gzip.compress(body, 1)).decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "immutable": True,
        "metadata": {"name": "@NAME@"},
        "data": {"payload": packed},
    }
    return json.dumps(secret).encode()


def _lua(pairs: list[tuple[bytes, bytes]]) -> str:
    lines = [f"{{{_quoted(body)}, {_quoted(signature)}}}," for body, signature in pairs]
    return "return {\n" + "\n".join(lines) + "\n}\n"


def _quoted(text: bytes) -> str:
    return json.dumps(text.decode())
