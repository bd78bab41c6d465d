"""The file of endpoints: all that is wrong with it is said at once, and nothing of a secret."""

import base64
import json

import pytest

from bridge.core.notifications import Lifecycle, Subscriber
from bridge.errors import BadSettings
from bridge.outbound.endpoints import endpoints_of

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
URL = "https://ops.example/hooks"


@pytest.fixture
def file_of(tmp_path):
    (tmp_path / "s").write_text(SECRET)

    def made(*endpoints, text=None):
        path = tmp_path / "endpoints.yaml"
        path.write_text(text if text is not None else json.dumps({"endpoints": list(endpoints)}))
        return path

    return made


def refusal(path):
    with pytest.raises(BadSettings) as caught:
        endpoints_of(path)
    return str(caught.value)


def test_what_an_endpoint_can_say(file_of):
    text = """
endpoints:
  - name: ops
    url: https://ops.example/hooks
    secretFile: s
  - name: deploy
    url: http://bridge.deploy.svc/events/cloudevents
    tokenFile: s
    runs: named
    events: [run.closed]
    project: acme/deploy
    timeout: 500ms
"""
    ops, deploy = endpoints_of(file_of(text=text))
    assert ops.subscriber == Subscriber("ops")
    assert deploy.subscriber == Subscriber(
        "deploy", wants=frozenset({Lifecycle.RUN_CLOSED}), of_all=False, project="acme/deploy"
    )
    assert (ops.timeout_seconds, deploy.timeout_seconds) == (5.0, 0.5)
    assert (ops.keys(), ops.token(), deploy.keys(), deploy.token()) == ((b"k" * 32,), "", (), SECRET)


def test_no_endpoints_are_fine(file_of):
    assert endpoints_of(file_of()) == ()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "ftp://x.example/"}, "endpoints[0].url: is no URL; write https://HOST/PATH"),
        ({"url": "https:///x"}, "endpoints[0].url: is no URL"),
        ({"url": "https://x.example:99999/"}, "endpoints[0].url: is no URL"),
        ({"url": "https://me:hunter2@x.example/"}, "endpoints[0].url: has a password"),
        ({"url": "https://x.example/#hunter2"}, "endpoints[0].url: has a password, a fragment"),
        ({"name": "Ops"}, "endpoints[0].name: is the name of an endpoint"),
        ({"runs": "some"}, "endpoints[0].runs: should be 'all' or 'named'"),
        ({"events": ["run.opened"]}, "endpoints[0].events[0]: should be 'run.accepted'"),
        ({"events": []}, "endpoints[0].events: is empty"),
        ({"timeout": "2m"}, "endpoints[0].timeout: must be more than nothing and at most 60s"),
        ({"timeout": 5}, "endpoints[0].timeout: is no duration"),
        ({"secret": "hunter2"}, "endpoints[0].secret: unknown field; did you mean `secretFile`?"),
        ({"secretFile": None}, "endpoint ops: name a secretFile"),
        ({"secretFile": "missing"}, "endpoint ops: secretFile "),
        ({"secretFile": "bad"}, "endpoint ops: secretFile "),
        ({"tokenFile": "missing"}, "endpoint ops: tokenFile "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_named_with_what_to_do(file_of, tmp_path, fields, said):
    (tmp_path / "bad").write_text("hunter2")
    message = refusal(file_of({"name": "ops", "url": URL, "secretFile": "s", **fields}))
    assert said in message
    assert "hunter2" not in message


def test_all_mistakes_are_said_at_once(file_of):
    message = refusal(file_of({"name": "ops", "url": URL}, {"name": "ops", "url": URL, "secretFile": "missing"}))
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "[]", "endpoints: [", "endpoints: 1", "other: 1"])
def test_what_is_no_such_file(file_of, text):
    assert "endpoints.yaml" in refusal(file_of(text=text))


def test_a_file_that_is_not_there(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.yaml")
