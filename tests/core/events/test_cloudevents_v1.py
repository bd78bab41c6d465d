import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Revision, cloudevents
from bridge.errors import TooLarge, UnreadableEvent

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
ENVELOPE = {
    "specversion": "1.0",
    "type": "com.example.built",
    "source": "https://example.test/ci",
    "id": "A 234-1",
    "project": "acme/widgets",
}
BINARY = {
    "Content-Type": "application/json",
    "Ce-Specversion": "1.0",
    "Ce-Type": "com.example.built",
    "Ce-Source": "https://example.test/ci",
    "Ce-Id": "A%20234-1",
    "Ce-Project": "acme/widgets",
}


def structured(**changes) -> bytes:
    return json.dumps({**ENVELOPE, **changes}).encode()


def read(**changes) -> Event:
    return cloudevents.read_v1(STRUCTURED, structured(**changes))


def binary(body=b"", without=(), **changes) -> Event:
    headers = {**BINARY, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return cloudevents.read_v1({name: value for name, value in headers.items() if name not in without}, body)


def test_a_structured_event_is_named_by_its_type_and_its_payload_is_all_of_it():
    body = structured(commit="589e150", ref="refs/heads/topic", data={"ref": 7, "commit": {}})
    assert cloudevents.read_v1(STRUCTURED, body) == Event(
        provider="cloudevents",
        type="com.example.built",
        project="acme/widgets",
        delivery="https://example.test/ci A 234-1",
        revision=Revision(commit="589e150", ref="refs/heads/topic"),
        payload=body,
    )


def test_a_binary_event_is_the_same_event_and_its_payload_is_the_structured_one():
    body = b'{"number": 1.0, "big": 123456789012345678901234567890}'
    found = binary(body, Ce_Commit="589e150", Ce_Subject="Euro%20%E2%82%AC", Ce_Custom="a b")
    same = read(commit="589e150")
    assert (found.type, found.project, found.delivery, found.revision) == (
        same.type,
        same.project,
        same.delivery,
        same.revision,
    )
    assert json.loads(found.payload) == {
        **ENVELOPE,
        "commit": "589e150",
        "subject": "Euro €",
        "custom": "a b",
        "datacontenttype": "application/json",
        "data": json.loads(body),
    }
    assert body in found.payload
    assert cloudevents.read_v1(STRUCTURED, found.payload) == found


def test_the_payload_of_a_binary_event_does_not_depend_on_the_order_of_its_headers():
    backwards = dict(reversed(BINARY.items()))
    assert cloudevents.read_v1(backwards, b"{}") == cloudevents.read_v1(BINARY, b"{}")


@pytest.mark.parametrize("body", [b"1", b"null", b'"text"', b" [1, 2]\n", b"{}"], ids=repr)
def test_data_in_json_may_be_any_value(body):
    assert json.loads(binary(body).payload)["data"] == json.loads(body)
    kept = binary(body, Content_Type="application/vnd.acme+json; charset=UTF-8").payload
    assert json.loads(kept)["data"] == json.loads(body)


def test_other_data_is_kept_in_base64():
    data = bytes(range(256))
    kept = json.loads(binary(data, Content_Type="application/octet-stream").payload)
    assert base64.b64decode(kept["data_base64"]) == data
    assert "data" not in kept


def test_an_event_may_have_no_data():
    assert "data" not in json.loads(binary().payload)
    assert "datacontenttype" not in json.loads(binary(without=("Content-Type",)).payload)


@pytest.mark.parametrize("changes", [{}, {"data": {"commit": "589e150"}}, {"commit": None, "ref": None}], ids=repr)
def test_without_a_revision_in_its_attributes_it_means_master(changes):
    assert read(**changes).revision == Revision(ref="master")


def test_quoted_and_needlessly_encoded_headers_are_read_as_of_older_senders():
    assert binary(Ce_Id='"a \\"b\\" %63"').delivery == 'https://example.test/ci a "b" c'


def test_a_type_with_an_action_answers_to_its_family_too():
    assert read(type="deploy:finished").names == ("deploy:finished", "deploy")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"specversion": "0.2"}, "specversion 1.0 only"),
        ({"specversion": "0.3"}, "specversion 1.0 only"),
        ({"specversion": 1.0}, "specversion is no text"),
        ({"specversion": None}, "specversion is missing"),
        ({"type": None}, "type is missing"),
        ({"type": "has spaces"}, "no name that a pipeline"),
        ({"type": "t" * 129}, "no name that a pipeline"),
        ({"type": "after"}, "no name that a pipeline"),
        ({"id": ""}, "id is empty"),
        ({"id": 7}, "id is no text"),
        ({"id": "x" * 501}, "id is over"),
        ({"source": "a b"}, "source is not"),
        ({"project": None}, "extension attribute `project`"),
        ({"project": 7}, "extension attribute `project`"),
        ({"project": "a b"}, "extension attribute `project`"),
        ({"project": "x" * 201}, "extension attribute `project`"),
        ({"ref": "--upload-pack=x"}, "ref is not"),
        ({"commit": 7}, "commit is no text"),
        ({"subject": ""}, "subject is empty"),
        ({"subject": 7}, "subject is no text"),
        ({"subject": "a\u0000b"}, "subject is empty or not"),
        ({"time": "yesterday"}, "time is empty or not"),
        ({"dataschema": "no-uri"}, "dataschema is empty or not"),
        ({"datacontenttype": "json"}, "datacontenttype is empty or not"),
        ({"Upper": "x"}, "no attribute's name"),
        ({"under_score": "x"}, "no attribute's name"),
        ({"extension": {"a": 1}}, "extension is no text"),
        ({"extension": 1.5}, "extension is no text"),
        ({"extension": 2**31}, "extension is no text"),
        ({"data": 1, "data_base64": "AA=="}, "both data and data_base64"),
        ({"data_base64": "?"}, "no base64"),
        ({"data_base64": 7}, "no base64"),
    ],
)
def test_other_envelopes_are_unreadable(changes, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        read(**changes)


def test_attributes_of_every_type_are_taken():
    read(time="2026-11-24T18:00:00.5+01:00", dataschema="urn:x", number=-1, flag=True, subject="s", nothing=None)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Ce_Id": "%C0%A0"}, "percent-encoded UTF-8"),
        ({"Ce_Id": "%E2%82"}, "percent-encoded UTF-8"),
        ({"Ce_Id": "100%"}, "percent-encoded UTF-8"),
        ({"Ce_Id": "\u00e4"}, "percent-encoded UTF-8"),
        ({"Ce_Id": "a%0Ab"}, "id is empty or not"),
        ({"Ce_Datacontenttype": "text/plain"}, "has no header ce-datacontenttype"),
        ({"Ce_Data": "1"}, "has no header ce-data"),
        ({"Ce_A-b": "1"}, "has no header ce-a-b"),
        ({"Ce_": "1"}, "has no header ce-"),
        ({"Content_Type": "json"}, "datacontenttype is empty or not"),
    ],
)
def test_headers_that_are_none_of_the_standards_are_unreadable(headers, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        binary(**headers)


@pytest.mark.parametrize(
    "body",
    [b'{}, "other": 1', b'1}, {"data": 1', b"{", b'{"a": 1, "a": 2}', b"NaN", b"\xff", b'1, "data": 2'],
    ids=repr,
)
def test_a_binary_body_that_says_it_is_json_is_one_json_value(body):
    with pytest.raises(UnreadableEvent):
        binary(body)


def test_a_binary_body_needs_a_content_type_and_json_needs_utf8():
    with pytest.raises(UnreadableEvent, match="no Content-Type"):
        binary(b"{}", without=("Content-Type",))
    with pytest.raises(UnreadableEvent, match="UTF-8"):
        binary(b"{}", Content_Type="application/json; charset=latin1")
    with pytest.raises(UnreadableEvent, match="UTF-8"):
        cloudevents.read_v1({"content-type": "application/cloudevents+json; charset=utf-16"}, structured())


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("application/cloudevents-batch+json", "batches are not taken"),
        ("application/cloudevents-batch+json; charset=utf-8", "batches are not taken"),
        ("application/cloudevents+avro", "is not read"),
        ("application/cloudevents", "is not read"),
        ("application/json", "no header ce-specversion"),
        (None, "no header ce-specversion"),
    ],
)
def test_what_is_no_single_event_in_json_is_refused_with_what_to_send(content_type, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        cloudevents.read_v1({"Content-Type": content_type} if content_type else {}, structured())


def test_what_grows_over_the_limit_as_an_event_is_too_large():
    with pytest.raises(TooLarge):
        binary(b"x" * 800_000, Content_Type="application/octet-stream")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just({})
NAMES = st.sampled_from([*ENVELOPE, "data", "data_base64", "time", "commit", "ref"]) | st.text(max_size=5)


@given(st.dictionaries(NAMES, VALUES))
def test_whatever_an_envelope_holds_it_is_an_event_or_unreadable(changes):
    try:
        event = read(**changes)
    except UnreadableEvent:
        return
    assert event.revision != Revision()
    assert event.delivery.isprintable()


HEADERS = st.sampled_from([*BINARY, "Ce-Commit", "Ce-Ref", "Ce-Time", "Ce-Data", "Ce-X"])


@given(st.dictionaries(HEADERS, st.text(max_size=12)), st.binary(max_size=20))
def test_whatever_headers_and_body_say_it_is_an_event_that_reads_the_same_when_structured(changes, body):
    try:
        event = cloudevents.read_v1({**BINARY, **changes}, body)
    except UnreadableEvent:
        return
    assert cloudevents.read_v1(STRUCTURED, event.payload) == event
