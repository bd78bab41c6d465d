"""The processes of the demo: a bridge that can be killed, and a GitHub that survives it."""

import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.errors import Unavailable
from bridge.local.processes import dies_with_parent

START_SECONDS = 180.0
STOP_SECONDS = 30.0


class Server:
    """A child process that prints a line with its address when it is ready.

    Args:
        argv: what to start.
        log: where its output goes.
        environment: added to this process's.

    """

    def __init__(self, argv: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._argv = list(argv)
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> str:
        """Start it and answer its address. Raises Unavailable with the end of its output if it never says one."""
        self._process = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_parent(),  # noqa: PLW1509
        )
        found: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._copy, args=(self._process, found), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.url = found.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None:
                    break
            else:
                return self.url
        self.kill()
        raise Unavailable(f"{self._argv[-1]} did not start; the end of its output:\n{self._tail()}")

    def kill(self) -> None:
        """SIGKILL, as a crash is."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _copy(self, process: "subprocess.Popen[bytes]", found: "queue.Queue[str]") -> None:
        output = process.stdout
        assert output is not None  # noqa: S101 - it was asked for
        with self._log.open("ab", buffering=0) as log:
            for line in output:
                log.write(line)
                words = line.decode(errors="replace").split()
                address = next((word for word in words if word.startswith("http://")), "")
                if address and not self.url:
                    found.put(address)
        output.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""


def bridge_argv(projects: Path, state: Path) -> list[str]:
    """`bridgectl local` over the demo's folders. BRIDGE_DEMO_SERVER names another program in its place, with which
    the tests see the demo fail."""
    command = shlex.split(os.environ.get("BRIDGE_DEMO_SERVER", "")) or [sys.executable, "-m", "bridge.cli"]
    return [*command, "local", str(projects), "--state-dir", str(state), "--jobs", "host", "--port", "0"]
