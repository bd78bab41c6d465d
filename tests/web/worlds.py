"""A gateway over fakes, for the tests of the web."""

import json
from dataclasses import dataclass

from bridge.core.names import project_id
from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.core.projects import Project
from bridge.sending import signed_headers
from bridge.web.app import create_app
from bridge.web.gateway import Gateway
from tests.fakes import FakeBuilds, FakeClock, FakePipelines, FakeProjects, FakeRuns

SECRET = "the-shared-secret"
SECOND = "the-second-secret"
GENERIC = "the-generic-secret"
PROJECT = "acme/widgets"
COMMIT = "c" * 40
PUSH = json.dumps(
    {
        "ref": "refs/heads/main",
        "after": COMMIT,
        "deleted": False,
        "head_commit": {"id": COMMIT},
        "repository": {"full_name": PROJECT, "clone_url": "https://example.com/acme/widgets.git"},
        "sender": {"login": "ada"},
    }
).encode()


def a_project(name=PROJECT, **changes) -> Project:
    known = {
        "name": name,
        "id": project_id(name),
        "shared_secret": SECRET,
        "second_secret": SECOND,
        "generic_secret": GENERIC,
    }
    return Project(**{**known, **changes})


def a_pipeline(name="push", *on, **changes) -> Pipeline:
    triggers = tuple(Trigger(one) for one in on or ("push", "pull_request", "simpleevent", "cloudevent"))
    return Pipeline(
        **{"name": name, "projects": ("acme/*",), "on": triggers, "steps": (Step("build"),), **changes}
    )


@dataclass
class World:
    """The fakes behind a gateway, and a client in front of it."""

    runs: FakeRuns
    pipelines: FakePipelines
    projects: FakeProjects
    builds: FakeBuilds
    clock: FakeClock
    gateway: Gateway

    def __post_init__(self):
        self.app = create_app(self.gateway)
        self.client = self.app.test_client()

    def deliver(self, body=PUSH, *, event="push", secret=SECRET, delivery="d-1", without=(), **headers):
        """POST what GitHub would, with `headers` (`X_Y=…`) changed and those of `without` left out."""
        sent = signed_headers(event, body, secret, delivery)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if name not in without}
        return self.client.post("/events/github", data=body, headers=sent)


def a_world(*pipelines, projects=None, **settings) -> World:
    clock = FakeClock()
    runs = FakeRuns()
    known = FakePipelines(pipelines or [a_pipeline()])
    found = FakeProjects([a_project()] if projects is None else projects)
    builds = FakeBuilds(clock)
    gateway = Gateway(runs=runs, pipelines=known, projects=found, builds=builds, clock=clock, **settings)
    return World(runs, known, found, builds, clock, gateway)
