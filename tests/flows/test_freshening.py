import json

import pytest

from bridge.core.events.wrappers import wrapped
from bridge.errors import Forbidden, Unavailable
from bridge.flows.freshening import Freshening
from bridge.ports import InstallationToken, NoToken
from tests.fakes import some_event, some_run

PAYLOAD = wrapped("check_run", b'{"action":"created"}', commit="", branch="")
CHECK = some_run(event=some_event(type="check_run:created", payload=b""))


class Tokens:
    """The port InstallationTokens with one answer."""

    def __init__(self, answer):
        self._answer = answer
        self.asked = []

    def fresh(self, run_id, project):
        self.asked.append((run_id, project))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _freshened(tokens, run=CHECK, payload=PAYLOAD):
    said = []
    return Freshening(tokens, said.append)(run, payload), said


def test_a_payload_that_carries_a_token_gets_a_fresh_one():
    tokens = Tokens(InstallationToken("ghs_fresh", 1_800_000_000.0))
    payload, said = _freshened(tokens)
    assert json.loads(payload)["token"] == "ghs_fresh"
    assert tokens.asked == [(CHECK.id, "acme/widgets")]
    assert said == []


def test_for_any_other_payload_nobody_is_asked():
    tokens = Tokens(Unavailable("away"))
    assert _freshened(tokens, run=some_run(), payload=b'{"ref":1}') == (b'{"ref":1}', [])
    assert tokens.asked == []


def test_without_an_app_the_build_goes_on_and_says_so():
    payload, said = _freshened(Tokens(NoToken("no GitHub App is configured")))
    assert payload == PAYLOAD
    assert said == [f"the token in the payload of run {CHECK.id} stays empty: no GitHub App is configured"]


def test_what_cannot_be_found_out_is_an_error():
    with pytest.raises(Unavailable, match="away"):
        _freshened(Tokens(Unavailable("away")))
    with pytest.raises(Forbidden, match="refused"):
        _freshened(Tokens(Forbidden("refused")))
