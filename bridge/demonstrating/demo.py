"""`make demo`: the main job on one machine, shown live and judged.

It judges only by what anybody can see from outside: the HTTP API, the history of the (fake) GitHub, and the builds
that there were. It succeeds only if all of that is as promised.
"""

import json
import secrets
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.demonstrating.payloads import example
from bridge.demonstrating.servers import Server, bridge_argv
from bridge.errors import BridgeError
from bridge.sending import send

PROJECT = "acme/widgets"
WIDGETS = Path(__file__).parents[2] / "examples" / "widgets"
RECORDED = "Codertocat/Hello-World"
"""The repository that the recorded payloads are about."""
CONTEXT = "bridge/pull-request/pull_request"
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.2
STYLES = {
    "succeeded": "green", "success": "green", "failed": "red", "failure": "red", "error": "red", "lost": "yellow",
    "running": "cyan", "pending": "cyan", "waiting": "dim", "cancelled": "yellow", "timed_out": "red",
}  # fmt: skip


class NotAsPromised(Exception):
    """What was observed is not what bridge promises."""


@dataclass
class Delivery:
    """A signed pull_request webhook, as GitHub would send it."""

    branch: str
    number: int
    sha: str = field(default_factory=lambda: secrets.token_hex(20))
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def body(self) -> bytes:
        """The recorded payload, about our project, this branch and this commit."""
        payload = json.loads(example("pull_request", "opened").body.replace(RECORDED.encode(), PROJECT.encode()))
        pull = payload["pull_request"]
        payload["number"] = pull["number"] = self.number
        pull["title"] = f"Widgets on {self.branch}"
        pull["head"]["ref"], pull["head"]["sha"] = self.branch, self.sha
        return json.dumps(payload, separators=(",", ":")).encode()


@dataclass
class Stage:
    """Where the demo plays."""

    bridge: Server
    github: Server
    secret: str
    journal: Path
    console: Console
    http: urllib3.PoolManager
    patience_seconds: float

    def deliver(self, delivery: Delivery) -> tuple[str, bool]:
        """Send it; answers the run's id and whether it was a duplicate."""
        status, answer = send(
            f"{self.bridge.url}/events/github",
            "pull_request",
            delivery.body,
            secret=self.secret,
            delivery=delivery.guid,
        )
        expect(status == 202 and len(answer["runs"]) == 1, f"202 with one run, not {status}: {answer}")  # noqa: PLR2004
        return answer["runs"][0]["id"], answer["runs"][0]["duplicate"]

    def get(self, path: str) -> Any:
        """An answer of the API."""
        answer = self.http.request("GET", f"{self.bridge.url}/api/v1{path}", timeout=10.0, retries=False)
        expect(answer.status == 200, f"GET {path}: {answer.status}")  # noqa: PLR2004
        return answer.json()

    def run(self, run: str) -> dict[str, Any]:
        """A run as the API shows it."""
        found: dict[str, Any] = self.get(f"/runs/{run}")
        return found

    def statuses(self, sha: str) -> list[dict[str, Any]]:
        """The statuses of a commit that GitHub took, oldest first."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [one for one in map(json.loads, lines) if one["sha"] == sha]


def expect(holds: bool, promise: str) -> None:
    """Raise NotAsPromised unless `holds`."""
    if not holds:
        raise NotAsPromised(promise)


def main(patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Play the demo; answers the exit code: 0 only if everything was as promised."""
    console = Console(highlight=False)
    if not WIDGETS.is_dir():
        console.print(f"bridgectl demo: {WIDGETS} is not there: run it from a clone of bridge, as `make demo`")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="bridge-demo-"))
    began = time.monotonic()
    try:
        with _stage(folder, console, patience_seconds) as stage:
            _play(stage)
    except (NotAsPromised, BridgeError) as error:
        what = "NOT AS PROMISED" if isinstance(error, NotAsPromised) else "bridgectl demo cannot go on"
        console.print(Text(f"{what}: {error}", style="bold red"))
        console.print(f"what was left is in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    console.print(Text(f"All of that was as promised, in {time.monotonic() - began:.0f} s.", style="bold green"))
    return 0


@contextmanager
def _stage(folder: Path, console: Console, patience_seconds: float) -> Iterator[Stage]:
    secret, token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    projects = folder / "projects"
    shutil.copytree(WIDGETS, projects / "widgets")
    (projects / "widgets" / "project.yaml").write_text(
        f"name: {PROJECT}\nsharedSecret: {json.dumps(secret)}\ngithub:\n  token: {json.dumps(token)}\n"
    )
    journal = folder / "github.jsonl"
    fake = [sys.executable, "-m", "bridge.demonstrating.fake_github", "--journal", str(journal), "--token", token]
    github = Server(fake, log=folder / "github.log")
    bridge: Server | None = None
    try:
        environment = {"BRIDGE_GITHUB_API_URL": github.start()}
        bridge = Server(
            bridge_argv(projects, folder / "state"), log=folder / "bridge.log", environment=environment
        )
        console.print(f"bridge listens on {bridge.start()}, and a GitHub stand-in on {github.url}")
        yield Stage(bridge, github, secret, journal, console, urllib3.PoolManager(), patience_seconds)
    finally:
        for server in (bridge, github):
            if server is not None:
                server.stop()


def _play(stage: Stage) -> None:
    first = _flaky(stage)
    second, broken = _broken(stage)
    _repeated(stage, second, broken)
    third = _killed(stage)
    runs = {run["id"] for run in stage.get("/runs")["runs"]}
    expect(runs == {first, broken, third}, f"three deliveries are three runs, not {len(runs)}")


def _flaky(stage: Stage) -> str:
    _headline(stage, "1", "a unit test fails once: it is built again alone, and the pull request becomes green")
    delivery = Delivery("flaky-widgets", 1)
    run, duplicate = stage.deliver(delivery)
    expect(not duplicate, "a new delivery is no duplicate")
    found = _watch(stage, run, delivery, until=_closed)
    expect(found["verdict"] == "succeeded", f"the run succeeds, not {found['verdict']}: {found['reason']}")
    expect(_built(found, "unit-test") == ["failed", "succeeded"], "the unit test failed once and was tried again")
    for step in ("build", "lint", "package"):
        expect(_built(found, step) == ["succeeded"], f"{step} was built once")
    _expect_states(stage, delivery, ["pending", "success"])
    return run


def _broken(stage: Stage) -> tuple[Delivery, str]:
    _headline(stage, "2", "a unit test fails for good: build_failed runs, and the pull request becomes red")
    delivery = Delivery("broken-widgets", 2)
    run, _ = stage.deliver(delivery)
    found = _watch(stage, run, delivery, until=_closed)
    expect(found["verdict"] == "failed", f"the run fails, not {found['verdict']}")
    expect(_built(found, "unit-test") == ["failed"] * 3, "the unit test was tried three times")
    expect(_built(found, "package") == [], "nothing was built after the failure")
    fired = [(build["event"], build["state"]) for build in found["exit_builds"]]
    expect(fired == [("build_failed", "succeeded")], f"build_failed ran once, not {fired}")
    _expect_states(stage, delivery, ["pending", "failure"])
    description = stage.statuses(delivery.sha)[-1]["description"]
    expect("unit-test" in description and run in description, f"the status says what to do: {description}")
    stage.console.print(f"   the status says: {description}", markup=False)
    return delivery, run


def _repeated(stage: Stage, delivery: Delivery, run: str) -> None:
    _headline(stage, "2 again", "GitHub sends the same delivery once more: nothing happens twice")
    before = stage.run(run)
    again, duplicate = stage.deliver(delivery)
    expect((again, duplicate) == (run, True), "a repeat is answered with the run that is there")
    expect(stage.run(run) == before, "a repeat changes nothing")
    count = len(stage.get("/runs")["runs"])
    expect(count == 2, f"there are two runs, not {count}")  # noqa: PLR2004
    stage.console.print("   202, duplicate: true; the same two runs as before")


def _killed(stage: Stage) -> str:
    _headline(stage, "3", "bridge is killed in the middle of the unit test, and started again")
    delivery = Delivery("slow-widgets", 3)
    run, _ = stage.deliver(delivery)
    _watch(stage, run, delivery, until=lambda found: _state(found, "unit-test") == "running")
    stage.bridge.kill()
    stage.console.print("   SIGKILL: gateway, controller and engine are gone; the build goes on alone")
    stage.bridge.url = ""
    stage.bridge.start()
    stage.console.print(f"   started again, on {stage.bridge.url}")
    found = _watch(stage, run, delivery, until=_closed)
    expect(found["verdict"] == "succeeded", f"the run succeeds, not {found['verdict']}: {found['reason']}")
    for step in ("build", "unit-test", "lint", "package"):
        expect(_built(found, step) == ["succeeded"], f"{step} was built once, not {_built(found, step)}")
    _expect_states(stage, delivery, ["pending", "success"])
    return run


def _headline(stage: Stage, number: str, text: str) -> None:
    stage.console.print()
    stage.console.print(Text(f"Run {number}: {text}", style="bold"))


def _closed(found: dict[str, Any]) -> bool:
    return bool(found["phase"] == "closed")


def _state(found: dict[str, Any], step: str) -> str:
    return next((str(one["state"]) for one in found["steps"] if one["name"] == step), "")


def _built(found: dict[str, Any], step: str) -> list[str]:
    return [build["state"] for one in found["steps"] if one["name"] == step for build in one["builds"]]


def _expect_states(stage: Stage, delivery: Delivery, states: list[str]) -> None:
    said = stage.statuses(delivery.sha)
    expect([one["state"] for one in said] == states, f"GitHub saw {states}, not {[one['state'] for one in said]}")
    expect({one["context"] for one in said} == {CONTEXT}, f"the context is {CONTEXT}")


def _watch(
    stage: Stage, run: str, delivery: Delivery, *, until: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Show a run until something holds of it. Raises NotAsPromised if that takes too long."""
    deadline = time.monotonic() + stage.patience_seconds
    with Live(console=stage.console, auto_refresh=False, transient=False) as live:
        while True:
            expect(time.monotonic() < deadline, f"{run} comes to that within {stage.patience_seconds:g} s")
            try:
                found = stage.run(run)
            except urllib3.exceptions.HTTPError:
                time.sleep(POLL_SECONDS)
                continue
            live.update(_table(found, stage.statuses(delivery.sha)), refresh=True)
            if until(found):
                break
            time.sleep(POLL_SECONDS)
    if not stage.console.is_terminal:
        # There rich leaves out the end of the table's last line.
        stage.console.print()
    return found


def _table(found: dict[str, Any], statuses: list[dict[str, Any]]) -> Table:
    table = Table("step", "state", "builds", title=Text(f"{found['id']} ({found['phase']})"), title_justify="left")
    for step in found["steps"]:
        builds = " ".join(f"{build['number']}:{build['state']}" for build in step["builds"])
        table.add_row(Text(step["name"]), _styled(step["state"]), Text(builds))
    for build in found["exit_builds"]:
        table.add_row(Text(build["event"]), _styled(build["state"]), Text(f"{build['number']}:{build['state']}"))
    said = Text(" → ").join([_styled(one["state"]) for one in statuses])
    table.add_section()
    table.add_row(Text("commit status"), said, Text(statuses[-1]["description"] if statuses else ""))
    return table


def _styled(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))
