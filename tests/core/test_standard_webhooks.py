"""The signature of Standard Webhooks, with the example of its own documentation."""

import base64

import pytest

from bridge.core.standard_webhooks import headers, keys_of
from bridge.errors import Misconfigured

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_example_of_the_standard():
    found = headers(
        keys=keys_of(SECRET),
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_secrets_are_changed_both_sign():
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    keys = keys_of(f"{SECRET}\n\n{other}\n")
    both = headers(keys=keys, message_id="m", timestamp=1, body=b"")["webhook-signature"]
    (first,) = headers(keys=keys[:1], message_id="m", timestamp=1, body=b"")["webhook-signature"].split()
    assert both.split()[0] == first
    assert len(both.split()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_hunter2", "whsec_" + "A" * 28, "whsec_" + "A" * 200,
        f"{SECRET}\nhunter2", "whsec_ÄÄÄÄ",
    ],
    ids=["empty", "lines", "no prefix", "nothing", "no base64", "short", "long", "second", "no ascii"],
)  # fmt: skip
def test_what_is_no_secret_is_refused_and_never_shown(text):
    with pytest.raises(Misconfigured) as caught:
        keys_of(text)
    assert "whsec_" in str(caught.value)
    assert "hunter2" not in str(caught.value)
