import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Revision, generic
from bridge.errors import UnreadableEvent

PROJECT = "acme/widgets"


def test_a_simple_event_carries_its_body_and_the_revision_in_it():
    body = b'{"ref": "refs/heads/topic", "commit": "589e150", "note": 1}'
    assert generic.read(PROJECT, body, "key-1") == Event(
        provider="GenericWebhook",
        type="simpleevent",
        project=PROJECT,
        delivery="key-1",
        revision=Revision(commit="589e150", ref="refs/heads/topic"),
        payload=body,
    )


@pytest.mark.parametrize(
    ("body", "revision"),
    [
        (b"{}", Revision(ref="master")),
        (b"", Revision(ref="master")),
        (b'{"commit": null, "ref": ""}', Revision(ref="master")),
        (b'{"commit": "589e150"}', Revision(commit="589e150")),
        (b'{"ref": "main"}', Revision(ref="main")),
    ],
)
def test_a_body_that_names_no_revision_means_master(body, revision):
    event = generic.read(PROJECT, body, "key-1")
    assert (event.revision, event.payload) == (revision, body)


@pytest.mark.parametrize(
    "body",
    [b"commit=x", b" ", b"[]", b"null", b'"x"', b'{"ref": 1}', b'{"commit": ["x"]}', b'{"ref": "a b"}', b'{"commit": "--help"}', b'{"ref": "a\\nb"}', b'{"ref": "x", "ref": "y"}'],
)  # fmt: skip
def test_other_bodies_are_unreadable(body):
    with pytest.raises(UnreadableEvent):
        generic.read(PROJECT, body, "key-1")


@pytest.mark.parametrize("delivery", ["", "a b", "a\n", "ü", "x" * 256], ids=repr)
def test_an_unusable_key_is_refused(delivery):
    with pytest.raises(UnreadableEvent, match="Idempotency-Key"):
        generic.read(PROJECT, b"{}", delivery)


VALUES = (
    st.none()
    | st.integers()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=3), max_size=2)
    | st.sampled_from(["main", "v1.0"])
)


@given(st.dictionaries(st.sampled_from(["commit", "ref", "other"]), VALUES))
def test_every_accepted_event_has_a_revision_that_git_allows(members):
    try:
        event = generic.read(PROJECT, json.dumps(members).encode(), "key-1")
    except UnreadableEvent:
        return
    assert event.revision != Revision()
    assert not {"\n", " ", "\x00", ".."} & {*event.revision.ref, *event.revision.commit}
