import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Revision, cloudevents
from bridge.errors import UnreadableEvent

ENVELOPE = {
    "specversion": "0.2",
    "type": "com.example.built",
    "source": "https://example.test/ci",
    "id": "A 234-1",
}


def sent(**changes) -> bytes:
    return json.dumps(ENVELOPE | changes).encode()


def test_a_cloudevent_carries_its_envelope_and_the_revision_in_its_data():
    body = sent(data={"ref": "refs/heads/topic", "commit": "589e150"})
    assert cloudevents.read_v02("acme/widgets", body) == Event(
        provider="GenericWebhook",
        type="cloudevent",
        project="acme/widgets",
        delivery="https://example.test/ci A 234-1",
        revision=Revision(commit="589e150", ref="refs/heads/topic"),
        payload=body,
    )


@pytest.mark.parametrize("changes", [{}, {"data": None}, {"data": {}}, {"data": {"other": 1}}], ids=repr)
def test_data_without_a_revision_means_master(changes):
    assert cloudevents.read_v02("acme/widgets", sent(**changes)).revision == Revision(ref="master")


def test_events_of_two_sources_never_share_a_delivery():
    one = cloudevents.read_v02("acme/widgets", sent(source="a", id="b c"))
    with pytest.raises(UnreadableEvent, match="source"):
        cloudevents.read_v02("acme/widgets", sent(source="a b", id="c"))
    assert one.delivery == "a b c"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"specversion": "1.0"}, "specversion 0.2"),
        ({"specversion": None}, "specversion is missing"),
        ({"type": ""}, "type is missing"),
        ({"id": 7}, "id is missing"),
        ({"id": "a\nb"}, "id is over"),
        ({"id": "x" * 501}, "id is over"),
        ({"source": "x" * 501}, "source is not"),
        ({"data": "text"}, "data is not an object"),
        ({"data": [1]}, "data is not an object"),
        ({"data": 0}, "data is not an object"),
        ({"data": {"ref": "a b"}}, "ref is not"),
    ],
)
def test_other_envelopes_are_unreadable(changes, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        cloudevents.read_v02("acme/widgets", sent(**changes))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"id": NaN}'])
def test_a_body_that_is_no_json_object_is_unreadable(body):
    with pytest.raises(UnreadableEvent):
        cloudevents.read_v02("acme/widgets", body)


VALUES = (
    st.none()
    | st.integers()
    | st.text(max_size=12)
    | st.dictionaries(st.sampled_from(["ref", "commit"]), st.text(max_size=5) | st.integers())
)


@given(st.dictionaries(st.sampled_from(["specversion", "type", "source", "id", "data"]), VALUES))
def test_whatever_an_envelope_holds_it_is_an_event_or_unreadable(changes):
    try:
        event = cloudevents.read_v02("acme/widgets", sent(**changes))
    except UnreadableEvent:
        return
    assert event.revision != Revision()
    assert event.delivery.isprintable()
