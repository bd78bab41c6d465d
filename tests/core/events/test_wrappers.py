import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Ignored, github
from bridge.core.events.wrappers import lacks_token, with_token, wrapped

COMMIT = "c" * 40
SUITE = {
    "action": "requested",
    "check_suite": {"head_sha": COMMIT, "head_branch": "main"},
    "repository": {"full_name": "acme/widgets"},
}


def _event(kind, document) -> Event:
    headers = {"X-GitHub-Event": kind, "X-GitHub-Delivery": "d-1", "Content-Type": "application/json"}
    event = github.read(headers, json.dumps(document).encode())
    assert not isinstance(event, Ignored)
    return event


def test_a_check_is_recorded_with_an_empty_token_and_gets_one():
    event = _event("check_suite", SUITE)
    before = json.loads(event.payload)
    assert (before["token"], before["tokenExpires"]) == ("", "0001-01-01T00:00:00Z")
    assert lacks_token(event, event.payload)
    payload = with_token(event, event.payload, token='ghs_"x', expires=1_800_000_000.0)
    after = json.loads(payload)
    assert after == {**before, "token": 'ghs_"x', "tokenExpires": "2027-01-15T08:00:00Z"}
    assert list(after) == list(before)
    assert not lacks_token(event, payload)


def test_an_event_whose_payload_is_githubs_own_gets_none():
    document = {
        "ref": "refs/heads/main",
        "after": COMMIT,
        "head_commit": {"id": COMMIT},
        "repository": {"full_name": "acme/widgets"},
    }
    event = _event("push", document)
    assert not lacks_token(event, event.payload)
    assert with_token(event, event.payload, token="t", expires=1.0) == event.payload


def test_a_comment_that_may_not_start_anything_has_no_payload_to_put_a_token_in():
    document = {
        "action": "created",
        "issue": {"number": 7, "title": "t", "pull_request": {"url": "u"}},
        "comment": {"author_association": "NONE"},
        "repository": {"full_name": "acme/widgets"},
    }
    event = _event("issue_comment", document)
    assert event.payload == b""
    assert not lacks_token(event, event.payload)


def test_only_github_events_of_the_kind_that_the_wrapper_says_get_a_token():
    payload = wrapped("check_run", b"{}", commit="", branch="")
    assert lacks_token(Event("github", "check_run:completed", "acme/widgets", "d"), payload)
    assert not lacks_token(Event("github", "check_suite", "acme/widgets", "d"), payload)
    assert not lacks_token(Event("GenericWebhook", "check_run", "acme/widgets", "d"), payload)


@given(st.binary(max_size=60))
def test_the_body_stays_byte_for_byte(body):
    event = Event("github", "check_run", "acme/widgets", "d")
    payload = with_token(event, wrapped("check_run", body, commit=COMMIT, branch="b"), token="t", expires=0.0)
    assert payload == (
        b'{"type":"check_run","token":"t","tokenExpires":"1970-01-01T00:00:00Z","body":'
        + body.strip()
        + b',"commit":"'
        + COMMIT.encode()
        + b'","branch":"b"}'
    )
