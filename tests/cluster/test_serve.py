"""`bridgectl serve` as a process, as the chart's account: gunicorn and its workers, over a real API server that may be away."""

import contextlib
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import urllib3

from bridge.core.permissions import GATEWAY
from tests.cluster.controlled import PROJECT, ROOT
from tests.cluster.faults import Faults
from tests.ports import free_ports

HTTP = urllib3.PoolManager(retries=False, timeout=60)


@contextlib.contextmanager
def serving(realm, access, **variables):
    """A gateway; its URL once it is ready."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    log = realm.folder / "gateway.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridge.cli", "serve", "--port", str(port)],
            env=realm.environment(access, **variables),
            stdout=file,
            stderr=file,
            cwd=ROOT,
        )
    try:
        realm.until(
            lambda: process.poll() is not None or status(f"{url}/readyz") == 200, "the gateway to be ready"
        )
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def status(url):
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return HTTP.request("GET", url).status
    return None


def push(url, delivery, *, project=PROJECT, secret="s", branch="main"):
    commit = hashlib.sha1(delivery.encode(), usedforsecurity=False).hexdigest()
    body = json.dumps(
        {
            "ref": f"refs/heads/{branch}",
            "after": commit,
            "deleted": False,
            "head_commit": {"id": commit},
            "repository": {"full_name": project},
        }
    ).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }
    return body, headers, HTTP.request("POST", f"{url}/events/github", body=body, headers=headers)


@pytest.fixture
def other_gateway():
    """Somebody else's gateway, and what it was sent."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            taken.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"status":"Complete"}')

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_stores_recognises_repeats_and_passes_on_what_is_anothers(realm, other_gateway):
    fallback, taken = other_gateway
    realm.pipeline()
    with serving(realm, realm.access(GATEWAY), BRIDGE_FALLBACK_URL=fallback) as url:
        *_, first = push(url, "delivery-1")
        *_, again = push(url, "delivery-1")
        assert (first.status, again.status) == (202, 202), first.data
        (run,) = first.json()["runs"]
        assert again.json()["runs"] == [{**run, "duplicate": True}]
        assert realm.runs.read(run["id"]).event.project == PROJECT
        assert push(url, "delivery-2", secret="wrong")[2].status == 401

        body, headers, passed = push(url, "delivery-3", project="acme/others", secret="theirs")
        assert (passed.status, passed.data) == (200, b'{"status":"Complete"}')
        ((path, got, sent),) = taken
        assert (path, sent) == ("/events/github", body)
        assert lowered(headers).items() <= lowered(got).items()


def test_while_the_api_server_is_away_it_says_when_to_come_back_and_then_goes_on(realm):
    realm.pipeline()
    with Faults(realm.control_plane) as faults, serving(realm, faults.of(realm.access(GATEWAY))) as url:
        with faults.down():
            *_, refused = push(url, "delivery-1")
            assert refused.status == 503, refused.data
            assert int(refused.headers["Retry-After"]) > 0
            realm.until(lambda: status(f"{url}/readyz") == 503, "it is not ready")
            assert status(f"{url}/healthz") == 200
        realm.until(lambda: push(url, "delivery-1")[2].status == 202, "it is taken")
        assert len(realm.runs.list(wanted())) == 1


def lowered(headers):
    return {name.lower(): value for name, value in headers.items()}


def wanted():
    from bridge.ports import RunFilter

    return RunFilter()
