"""A disk that is full and a database that may not be written, with real records behind the gateway."""

import json

import pytest

from bridge.clocks import SystemClock
from bridge.local.runs import SqliteRuns
from bridge.ports import RunFilter
from bridge.sending import signed_headers
from bridge.web.app import create_app
from bridge.web.gateway import Gateway
from tests.fakes import FakeBuilds, FakePipelines, FakeProjects
from tests.web.worlds import PUSH, SECRET, a_pipeline, a_project

TROUBLES = {
    "a full disk": ("PRAGMA max_page_count={pages}", "PRAGMA max_page_count=100000"),
    "a read-only database": ("PRAGMA query_only=1", "PRAGMA query_only=0"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_cannot_be_stored_is_never_answered_with_success(tmp_path, name):
    begin, end = TROUBLES[name]
    runs = SqliteRuns(tmp_path / "runs.db")
    gateway = Gateway(
        runs=runs,
        pipelines=FakePipelines([a_pipeline("one"), a_pipeline("two")]),
        projects=FakeProjects([a_project()]),
        builds=FakeBuilds(),
        clock=SystemClock(),
    )
    client = create_app(gateway).test_client()
    # Too much for the pages that are left, and nothing that gzip could make small.
    body = json.dumps({**json.loads(PUSH), "noise": [f"{n * 7919 % 100_003:x}" for n in range(9_000)]}).encode()

    def deliver(delivery):
        return client.post("/events/github", data=body, headers=signed_headers("push", body, SECRET, delivery))

    assert deliver("before").status_code == 202
    with runs.database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(begin.format(pages=pages + 1))
    refused = deliver("during")
    assert refused.status_code == 503
    assert "Retry-After" in refused.headers
    assert [run.event.delivery for run in runs.list(RunFilter())] == ["before", "before"]
    assert client.get("/healthz").status_code == 200
    with runs.database.reading() as connection:
        connection.execute(end)
    again = deliver("during")
    assert again.status_code == 202
    assert [run["duplicate"] for run in again.json["runs"]] == [False, False]
