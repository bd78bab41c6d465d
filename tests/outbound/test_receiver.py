"""The example of a receiver, as a process, told by the real sender."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bridge.clocks import SystemClock
from bridge.core.executions import Node, NodePhase
from bridge.core.standard_webhooks import headers, keys_of
from bridge.flows.notifying import Notifying
from bridge.outbound.endpoints import endpoints_of
from bridge.outbound.webhooks import Webhooks
from tests.flows.test_notifying import RUN, World

RECEIVER = Path(__file__).parents[2] / "examples" / "notifications" / "receiver.py"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, str(RECEIVER), "0", str(folder / "seen.sqlite3")],
            env={**os.environ, "WEBHOOK_SECRET": SECRET},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.url = self.process.stdout.readline().split()[-1]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def post(self, body, **more):
        request = urllib.request.Request(self.url, data=body, headers=more)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def until(self, count):
        deadline = time.monotonic() + 60
        while len(self.lines) < count:
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)
        return self.lines

    def stop(self):
        self.process.kill()
        self.process.wait(60)
        self._reader.join(60)
        self.process.stdout.close()


@pytest.fixture
def receiver(tmp_path):
    one = Receiver(tmp_path)
    yield one
    one.stop()


def signed(body, *, at=None, key=SECRET, message_id="m1"):
    return headers(keys=keys_of(key), message_id=message_id, timestamp=int(at or time.time()), body=body)


def test_a_whole_life_is_received_once_though_it_is_sent_twice(receiver, tmp_path):
    (tmp_path / "ops.secret").write_text(SECRET)
    content = {"endpoints": [{"name": "ops", "url": receiver.url, "secretFile": "ops.secret", "timeout": "60s"}]}
    (tmp_path / "endpoints.yaml").write_text(json.dumps(content))
    world = World()

    def tell_all():
        world.notifying = Notifying(
            world.runs,
            Webhooks(endpoints_of(tmp_path / "endpoints.yaml"), SystemClock()),
            world.clock,
            owing=world.runs,
            source="/test",
            url_of=str,
            give_up_seconds=1e9,
        )
        world.notifying.offer(RUN, "ops")
        assert world.notifying.tell_due("ops")

    world.look()
    world.engine.end(RUN, root=NodePhase.SUCCEEDED, nodes=[Node("test", NodePhase.SUCCEEDED, 0)])
    world.look()
    before = world.run
    tell_all()
    lived = [
        f"run.accepted {RUN}",
        f"attempt.started {RUN}",
        f"step.finished {RUN}/test succeeded",
        f"run.closed {RUN} succeeded",
    ]
    assert receiver.until(4) == lived
    # As if the process had died before it could write down what was taken.
    world.runs.records[RUN] = before
    tell_all()
    assert world.runs.owing() == []
    assert receiver.until(4) == lived


def test_what_is_not_signed_or_old_or_somebody_elses_is_refused(receiver):
    body = json.dumps({"id": "x", "type": "t", "subject": "s", "data": {"step": None, "attempt": None}}).encode()
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    assert receiver.post(body) == 401
    assert receiver.post(body, **signed(body, key=other)) == 401
    assert receiver.post(body + b" ", **signed(body)) == 401
    assert receiver.post(body, **signed(body, at=time.time() - 3600)) == 401
    assert receiver.post(body, **signed(body, at=time.time() + 3600)) == 401
    assert receiver.post(body, **{**signed(body), "webhook-id": "m2"}) == 401
    assert receiver.post(body, **signed(body)) == 204
    assert receiver.until(1) == ["t s"]
