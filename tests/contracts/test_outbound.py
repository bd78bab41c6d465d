"""What every implementation of the port Outbound keeps to."""

import base64
import json

import pytest

from bridge.clocks import SystemClock
from bridge.core.notifications import Subscriber
from bridge.errors import NotDelivered
from bridge.outbound.endpoints import endpoints_of
from bridge.outbound.webhooks import Webhooks
from bridge.ports import Message
from tests.flows.test_notifying import FakeOutbound
from tests.outbound.receiving import Hook

FIRST, SECOND = Message("r1:accepted", b"{}"), Message("r1:1:started", b'{"a": 1}')


class OfTheFake:
    def __init__(self):
        self.outbound = FakeOutbound(Subscriber("ops"), Subscriber("audit"))

    def got(self):
        return [f"r1:{what}" for what in self.outbound.got["ops"]]

    def next(self, what):
        error = NotDelivered("it answered", permanent=what == "refuses")
        self.outbound.fail("send", "after" if what == "takes it and says nothing" else "before", error)


class OfHttp:
    def __init__(self, folder, hook):
        (folder / "secret").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
        named = [
            {"name": name, "url": hook.url, "secretFile": "secret", "timeout": "30s"} for name in ("ops", "audit")
        ]
        (folder / "endpoints.yaml").write_text(json.dumps({"endpoints": named}))
        self.outbound = Webhooks(endpoints_of(folder / "endpoints.yaml"), SystemClock())
        self.hook = hook

    def got(self):
        return self.hook.ids()

    def next(self, what):
        self.hook.script.append({"fails": 500, "refuses": 400, "takes it and says nothing": "reset"}[what])


@pytest.fixture(params=["fake", "webhooks"])
def world(request, tmp_path):
    if request.param == "fake":
        yield OfTheFake()
        return
    with Hook() as hook:
        yield OfHttp(tmp_path, hook)


def test_what_is_sent_comes_in_order_and_again_if_it_is_sent_again(world):
    for message in (FIRST, SECOND, FIRST):
        world.outbound.send("ops", message)
    assert world.got() == [FIRST.id, SECOND.id, FIRST.id]


def test_who_is_told_what_is_known_without_asking_anybody(world):
    assert list(world.outbound.subscribers) == [Subscriber("ops"), Subscriber("audit")]


@pytest.mark.parametrize("what", ["fails", "takes it and says nothing"])
def test_without_an_answer_it_is_to_be_sent_again(world, what):
    world.next(what)
    with pytest.raises(NotDelivered) as caught:
        world.outbound.send("ops", FIRST)
    assert not caught.value.permanent
    world.outbound.send("ops", FIRST)
    assert world.got()[-1] == FIRST.id


def test_a_refusal_is_the_end_of_one_message_and_not_of_the_next(world):
    world.next("refuses")
    with pytest.raises(NotDelivered) as caught:
        world.outbound.send("ops", FIRST)
    assert caught.value.permanent
    world.outbound.send("ops", SECOND)
    assert world.got()[-1] == SECOND.id
