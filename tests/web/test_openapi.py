"""The API does what its OpenAPI document says, on whatever the document lets one send, and on what it does not."""

from dataclasses import replace

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.fakes import some_run
from tests.web.test_api import a_build, a_running, bearer
from tests.web.worlds import a_world

READ, ACT = "read-token", "act-token"
EXAMPLES = 50


def a_guarded_world():
    world = a_world(loopback_only=False, read_tokens=(READ,), act_tokens=(ACT,))
    world.runs.add(replace(a_running(), accepted=2.0))
    world.builds.succeed(a_build(world, log="hello\n"))
    world.runs.add(some_run("push-r2", accepted=1.0))
    return world


def document():
    return a_guarded_world().client.get("/api/v1/openapi.json", headers=bearer(READ)).json


def named(part):
    return part.strip("/").replace("/", "-")


OPERATIONS = sorted((path, method) for path, methods in document()["paths"].items() for method in methods)


def test_the_document_needs_the_identity_that_reading_needs():
    assert a_guarded_world().client.get("/api/v1/openapi.json").status_code == 401
    assert document()["openapi"] == "3.1.0"


def test_every_route_of_the_api_is_in_the_document():
    app = a_guarded_world().app
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("api.") and rule.endpoint != "api.openapi"
    }
    assert routes == set(OPERATIONS)


def tried(path, method, mode, *, known):
    """Send what the document lets one send (or not), to runs that are there and to others, and check the answers."""
    world = a_guarded_world()
    api = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", world.app, headers=bearer(ACT))
    there = st.sampled_from([{}, *({"run_id": run, "step": "build"} for run in known)])

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path][method].as_strategy(generation_mode=mode), chosen=there)
    def check(case, chosen):
        for name in case.path_parameters.keys() & chosen.keys():
            case.path_parameters[name] = chosen[name]
        case.call_and_validate(headers=bearer(ACT))

    check()


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=named)
def test_what_the_document_lets_one_send_is_answered_as_it_says(path, method):
    tried(path, method, GenerationMode.POSITIVE, known=("push-r1", "push-r2"))


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=named)
def test_what_the_document_does_not_let_one_send_is_refused_as_it_says(path, method):
    tried(path, method, GenerationMode.NEGATIVE, known=())
