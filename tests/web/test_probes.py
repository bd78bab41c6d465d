"""The probes and metrics of a process that serves nothing else."""

import socket

import pytest
import urllib3

from bridge.errors import BadSettings
from bridge.web.probes import Probes


class Process:
    """A process that is as well as a test says."""

    def __init__(self):
        self.dead = ""
        self.busy = ""
        self.numbers = {"bridge_leading": 1.0}


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def port(process):
    probes = Probes(
        "127.0.0.1",
        0,
        alive=lambda: process.dead,
        ready=lambda: process.busy,
        values=lambda: process.numbers,
    )
    probes.start()
    yield probes.port
    probes.stop()


@pytest.fixture
def ask(port):
    with urllib3.PoolManager(retries=False) as pool:
        yield lambda path, **more: pool.request("GET", f"http://127.0.0.1:{port}{path}", timeout=60, **more)


def test_a_process_that_is_well_says_so(ask):
    assert [(ask(path).status, ask(path).data) for path in ("/healthz", "/readyz")] == [(200, b"ok\n")] * 2


def test_one_that_is_not_ready_is_alive_and_says_why(ask, process):
    process.busy = "the first lists are not done"
    answer = ask("/readyz")
    assert (answer.status, answer.data) == (503, b"the first lists are not done\n")
    assert ask("/healthz").status == 200


def test_one_that_does_not_work_any_more_is_to_be_restarted(ask, process):
    process.dead = "the loop is silent for 130 s"
    assert ask("/healthz").status == 503
    process.dead = ""
    assert ask("/healthz").status == 200


def test_metrics_are_asked_for_at_each_scrape(ask, process):
    assert "bridge_leading 1.0" in ask("/metrics").data.decode()
    process.numbers = {"bridge_leading": 0.0, "bridge_open_runs": 7.0}
    answer = ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.data.decode().splitlines()
    assert "bridge_leading 0.0" in lines
    assert "bridge_open_runs 7.0" in lines
    assert "# TYPE bridge_open_runs gauge" in lines


@pytest.mark.parametrize("path", ["/", "/healthz/", "/runs", "/metrics/x"])
def test_nothing_else_is_there(ask, path):
    assert ask(path).status == 404


def test_a_query_changes_nothing(ask):
    assert ask("/readyz", fields={"verbose": "1"}).status == 200


def test_a_port_that_is_taken_is_told_by_the_settings_name():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=f"BRIDGE_CONTROLLER_PORT: cannot listen on 127.0.0.1:{port}"):
            Probes("127.0.0.1", port, alive=str, ready=str, values=dict)


def test_a_client_that_says_nothing_holds_up_nobody(ask, port):
    with socket.create_connection(("127.0.0.1", port)):
        assert ask("/readyz").status == 200
