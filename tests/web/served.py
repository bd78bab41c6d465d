"""A gateway for gunicorn to load in tests: real records, fixed pipelines and projects."""

import os
from pathlib import Path

from bridge.clocks import SystemClock
from bridge.local.runs import SqliteRuns
from bridge.web.app import create_app
from bridge.web.gateway import Gateway
from bridge.web.logs import configure_logging
from tests.fakes import FakeBuilds, FakePipelines, FakeProjects
from tests.web.worlds import a_pipeline, a_project

DATABASE = "BRIDGE_TEST_DATABASE"


def app():
    configure_logging()
    gateway = Gateway(
        runs=SqliteRuns(Path(os.environ[DATABASE])),
        pipelines=FakePipelines([a_pipeline("one"), a_pipeline("two")]),
        projects=FakeProjects([a_project()]),
        builds=FakeBuilds(),
        clock=SystemClock(),
    )
    return create_app(gateway)
