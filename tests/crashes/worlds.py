"""A bridge on one machine that dies and is started again, over files of its own, watched from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any

import urllib3

from bridge.core.executions import Execution
from bridge.core.names import project_id, workflow_name
from bridge.errors import NotFound, Unavailable
from bridge.local import processes
from bridge.local.folders import BuildFolder
from bridge.sending import send
from bridge.settings import Settings, load
from bridge.wiring.local import local_ports
from tests.crashes import dying
from tests.outbound.receiving import Hook
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
PROJECT = "acme/widgets"
SECRET = "signs the webhooks"
GENERIC = "in-the-addresses"
TOKEN = "token-for-statuses"
PATIENCE_SECONDS = 120.0
LOOK_AGAIN_SECONDS = 0.05


class World:
    """`tests.crashes.server` over the project of the crash tests, started again whenever it was killed.

    Args:
        folder: for all of it.
        github: a FakeGitHub.
        crash_at: as in CRASH_AT; empty: nothing dies by itself.
        spared: the places at which nobody dies.

    """

    def __init__(self, folder: Path, github, *, crash_at: str = "", spared: Iterable[str] = ()):
        self.folder = folder
        self.ground = folder / "ground"
        self.state = folder / "state"
        self.crashes = folder / "crashes"
        self.github = github
        self.hook = Hook()
        """What is told of runs comes here."""
        self.delivered: dict[str, list[str]] = {}
        """The runs of each branch, and of each simple event."""
        self._trouble = ""
        self._ending = threading.Event()
        self._process: subprocess.Popen | None = None
        self._starts = 0
        self._make()
        dying.spare(self.crashes, spared)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")},
            "PYTHONPATH": str(ROOT),
            "BRIDGE_PROJECTS_DIR": str(folder / "projects"),
            "BRIDGE_STATE_DIR": str(self.state),
            "BRIDGE_JOBS": "host",
            "BRIDGE_PORT": str(port),
            "BRIDGE_GITHUB_API_URL": github.url,
            "BRIDGE_POLL_SECONDS": "0.1",
            "BRIDGE_PARALLEL_STEPS": "16",
            "BRIDGE_WEB_WORKERS": "1",
            "BRIDGE_NOTIFY_FILE": str(folder / "endpoints.yaml"),
            dying.FOLDER: str(self.crashes),
            dying.AT: crash_at,
        }
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def __enter__(self):
        self.hook.__enter__()
        endpoint = {"name": "ops", "url": self.hook.url, "tokenFile": "token", "timeout": "60s"}
        (self.folder / "token").write_text("of-the-crash-tests")
        (self.folder / "endpoints.yaml").write_text(json.dumps({"endpoints": [endpoint]}))
        self._keeper.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self.kill()
        self._keeper.join()
        self.hook.__exit__()
        for folder in self._build_folders():
            processes.kill(processes.marked(folder.marks))

    def settings(self) -> Settings:
        """As the server has them."""
        return load(projects_dir=self.folder / "projects", state_dir=self.state, jobs="host")

    def kill(self) -> bool:
        """SIGKILL for the server, whatever it is doing; False if it was dead. It is started again, unless the
        world ends."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        process.kill()
        process.wait()
        return True

    def changes(self, run: str) -> int:
        """How often a run's record was written so far."""
        with suppress(NotFound):
            return int(local_ports(self.settings()).runs.read(run).version)
        return 0

    def deliver(self, branch: str) -> dict[str, str]:
        """A push to `branch`, sent as often as a person would: until it is taken. Answers the runs by pipeline."""
        commit = commit_of(branch)
        body = {
            "ref": f"refs/heads/{branch}",
            "after": commit,
            "deleted": False,
            "head_commit": {"id": commit},
            "repository": {"full_name": PROJECT, "clone_url": "https://git.example.com/acme/widgets.git"},
            "sender": {"login": "ada"},
        }

        def taken():
            with suppress(Unavailable):
                status, answer = send(
                    f"{self.url}/events/github",
                    "push",
                    json.dumps(body).encode(),
                    secret=SECRET,
                    delivery=f"delivery-{branch}",
                    timeout_seconds=PATIENCE_SECONDS,
                )
                assert status in {202, 503}, (status, answer)
                return [run["id"] for run in answer["runs"]] if status == 202 else None

        runs = self.delivered[branch] = self.until(taken, f"{branch} to be taken")
        return {self.details(run)["pipeline"]: run for run in runs}

    def deliver_simple(self, name: str) -> str:
        """A simple event about a commit that GitHub does not know; answers its run."""
        path = f"/simpleevents/v1/{project_id(PROJECT)}/{GENERIC}"

        def taken():
            found = self._request(
                "POST", path, {"commit": f"commit-of-{name}"}, {"Idempotency-Key": f"delivery-{name}"}
            )
            assert found is None or found.status in {202, 503}, (found.status, found.data)
            return found if found is not None and found.status == 202 else None

        (run,) = json.loads(self.until(taken, f"{name} to be taken").data)["runs"]
        self.delivered[name] = [run["id"]]
        return run["id"]

    def ask(self, run: str, kind: str) -> None:
        """Retry, rerun or cancel."""
        body = {"request": f"{kind} of {run}", "follows": 1}
        accepted = self.until(
            lambda: self._request("POST", f"/api/v1/runs/{run}/{kind}", body), f"{kind} of {run} to be answered"
        )
        assert accepted.status == 202, (accepted.status, accepted.data)

    def details(self, run: str) -> dict[str, Any]:
        """A run as the API shows it."""
        return self._get(f"/api/v1/runs/{run}")

    def runs(self) -> list[dict[str, Any]]:
        """All runs as the API shows them."""
        return self._get("/api/v1/runs")["runs"]

    def is_known(self, run: str) -> bool:
        answer = self.until(lambda: self._request("GET", f"/api/v1/runs/{run}"), "an answer")
        return answer.status == 200

    def until_details(self, run: str, holds: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The run as soon as something holds of it."""

        def held():
            found = self.details(run)
            return found if holds(found) else None

        return self.until(held, f"{run}: {what}")

    def until_closed(self, run: str) -> dict[str, Any]:
        return self.until_details(run, lambda found: found["phase"] == "closed", "to be closed")

    def until_begun(self, run: str, step: str, number: int = 1) -> str:
        """The id of a step's build, as soon as brigade.js has begun with it."""

        def begun():
            found = self.details(run)
            builds = builds_of(found, step)
            if len(builds) < number:
                return None
            build = builds[number - 1]["id"]
            return build if build in self.begun() else None

        return self.until(begun, f"build {number} of {step} of {run} to begin")

    def told(self, run: str) -> list[str]:
        """What came of a run's notifications, by what their ids have behind the run, each once, in order."""
        events = (json.loads(one.body)["id"] for one in list(self.hook.came))
        return list(dict.fromkeys(one.removeprefix(f"{run}:") for one in events if one.startswith(f"{run}:")))

    def begun(self) -> list[str]:
        """The ids of builds in the order in which brigade.js began with them."""
        path = self.ground / "begun"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def tell(self, word: str, branch: str) -> None:
        """Tell the builds of a branch: to `go on`, that it is `mended`, or that its exit event's may end (`exit`)."""
        (self.ground / f"{word} {branch}").touch()

    def send_away(self, run: str) -> None:
        """Keep the controller from a run."""
        (self.state / "away").mkdir(exist_ok=True)
        (self.state / "away" / run).touch()

    def call_back(self, run: str) -> None:
        """Let it look at the run again."""
        (self.state / "away" / run).unlink()

    def kill_build(self, run: str, build: str) -> None:
        """SIGKILL for a build's supervisor, with which its worker dies."""
        claim = self.build_folder(run, build).claim()
        assert claim is not None
        assert claim.supervisor is not None
        processes.send(claim.supervisor, signal.SIGKILL)

    def build_folder(self, run: str, build: str) -> BuildFolder:
        return BuildFolder(self.state / "builds" / run / build)

    def workflow(self, run: str) -> Execution | None:
        """The run's first Workflow; None if there is none yet, or no more."""
        ports = local_ports(self.settings())
        return ports.engine.observe(ports.runs.read(run), 1)

    def forget(self, run: str) -> None:
        """The controller in ten years, as often as it dies."""
        argv = [sys.executable, "-m", "tests.crashes.forgetting", run]
        with (self.folder / "forgetting.log").open("ab") as log:

            def forgotten():
                code = subprocess.run(argv, env=self.environment, stdout=log, stderr=log, cwd=ROOT).returncode
                assert code in {0, -signal.SIGKILL}, f"forgetting ended with {code}"
                return code == 0

            self.until(forgotten, f"{run} to be forgotten")

    def leftovers(self, run: str) -> list[Path]:
        """What is left on the disk of a run that is forgotten."""
        places = (self.state / "builds", self.state / "steps")
        return [path for place in places if place.exists() for path in place.glob(f"*{workflow_name(run, 1)}*")]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Look until it holds; answers what it answered."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (answer := condition()):
            assert not self._trouble, f"{self._trouble}\n{self.log()}"
            assert time.monotonic() < deadline, (
                f"waited {PATIENCE_SECONDS:g} s in vain for {what}; deaths: {dying.deaths(self.crashes)}\n{self.log()}"
            )
            time.sleep(LOOK_AGAIN_SECONDS)
        return answer

    def log(self) -> str:
        """The end of what the servers said."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _get(self, path: str) -> dict[str, Any]:
        answer = self.until(lambda: self._request("GET", path), f"an answer to {path}")
        assert answer.status == 200, (path, answer.status, answer.data)
        return json.loads(answer.data)

    def _request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None):
        """The answer, or None while there is nobody who answers."""
        with suppress(urllib3.exceptions.HTTPError), urllib3.PoolManager(retries=False) as pool:
            return pool.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=PATIENCE_SECONDS)

    def _build_folders(self) -> list[BuildFolder]:
        return [BuildFolder(path) for path in (self.state / "builds").glob("*/*")]

    def _make(self) -> None:
        widgets = self.folder / "projects" / "widgets"
        shutil.copytree(Path(__file__).parent / "project", widgets)
        (self.folder / "projects" / "templates").mkdir()
        (widgets / "stuck.yaml").rename(self.folder / "projects" / "templates" / "stuck.yaml")
        project = {
            "name": PROJECT,
            "sharedSecret": SECRET,
            "genericGatewaySecret": GENERIC,
            "github": {"token": TOKEN},
            "secrets": {"ground": str(self.ground)},
        }
        (widgets / "project.yaml").write_text(json.dumps(project))
        self.ground.mkdir()
        self.crashes.mkdir()

    def _keep(self) -> None:
        """Start the server, and again when it was killed. One thread does it, with which the server ends."""
        with (self.folder / "server.log").open("ab") as log:
            while not self._ending.is_set():
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.crashes.server"],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                )
                code = self._process.wait()
                if code != -signal.SIGKILL:
                    self._trouble = f"the server ended with {code}"
                    return


def commit_of(branch: str) -> str:
    return sha1(branch.encode(), usedforsecurity=False).hexdigest()


def builds_of(found: dict[str, Any], step: str) -> list[dict[str, Any]]:
    """The builds of a step in a run's details."""
    return [build for one in found["steps"] if one["name"] == step for build in one["builds"]]
