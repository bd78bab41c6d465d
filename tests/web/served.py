"""A gateway for gunicorn to load in tests: real records, fixed pipelines and projects."""

import os
from ipaddress import ip_network
from pathlib import Path

from bridge.clocks import SystemClock
from bridge.local.runs import SqliteRuns
from bridge.web.app import create_app
from bridge.web.gateway import Gateway, Proxy
from bridge.web.logs import configure_logging
from tests.fakes import FakeBuilds, FakePipelines, FakeProjects
from tests.web.worlds import a_pipeline, a_project

DATABASE = "BRIDGE_TEST_DATABASE"
PROXY = "127.0.0.9"
"""Where a test's authenticating proxy connects from; all of 127.0.0.0/8 is this machine."""


def app():
    configure_logging()
    gateway = Gateway(
        runs=SqliteRuns(Path(os.environ[DATABASE])),
        pipelines=FakePipelines([a_pipeline("one"), a_pipeline("two")]),
        projects=FakeProjects([a_project()]),
        builds=FakeBuilds(),
        clock=SystemClock(),
        proxy=Proxy((ip_network(PROXY),), act_users=frozenset({"ada"})),
    )
    return create_app(gateway)
