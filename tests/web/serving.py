"""Real gunicorn, with the settings that are under version control, for the tests of what only it can show."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from bridge.local.runs import SqliteRuns
from bridge.sending import send
from tests.web.served import DATABASE
from tests.web.worlds import PUSH, SECRET

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60


@dataclass
class Served:
    """A running gateway."""

    port: int
    log: Path
    process: subprocess.Popen
    runs: SqliteRuns

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def deliver(self, delivery, body=PUSH):
        return send(
            f"{self.url}/events/github", "push", body, secret=SECRET, delivery=delivery, timeout_seconds=60
        )

    def get(self, path):
        return urllib3.request("GET", f"{self.url}{path}", timeout=60, retries=False)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)


@contextmanager
def served(folder, *options):
    """gunicorn over a new database in `folder`, ready when this is entered and gone when it is left."""
    database, log = folder / "runs.db", folder / "gunicorn.log"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, log.open("wb") as out:
        descriptor = listener.fileno()
        argv = [sys.executable, "-m", "gunicorn", "--config", "python:bridge.web.gunicorn_settings"]
        argv += ["--bind", f"fd://{descriptor}", *options, "tests.web.served:app()"]
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, DATABASE: str(database), "PYTHONPATH": str(ROOT)},
            pass_fds=(descriptor,),
            stderr=out,
        )
        gateway = Served(listener.getsockname()[1], log, process, SqliteRuns(database))
        try:
            _wait_until_ready(gateway)
            yield gateway
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_SECONDS)
            finally:
                process.kill()


def _wait_until_ready(gateway):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert gateway.process.poll() is None, gateway.log.read_text()
        try:
            if gateway.get("/readyz").status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(gateway.log.read_text())
