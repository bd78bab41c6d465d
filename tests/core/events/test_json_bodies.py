import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import json_bodies
from bridge.errors import TooLarge, UnreadableEvent

NESTED = json_bodies.DEEPEST_NESTING


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    inner = levels - 1
    return ('{"a":' + opening * inner + "1" + closing * inner + "}").encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": "b', "not JSON"),
        (b'{"a": 1}}', "not JSON"),
        (b"}{", "not JSON"),
        (b"payload=%7B%7D", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (b"1", "not an object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": 1, "a": 1}', "same key twice"),
        (b'{"b": [{"a": 1, "\\u0061": 2}]}', "same key twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\uDFFF": 1}', "surrogate"),
        (b'{"a": "\\udc00\\ud800"}', "surrogate"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": "\u00fc"}'.encode("latin-1"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\n"}', "not JSON"),
        (nested(NESTED + 1), "nested deeper"),
        (b'{"a":' * (NESTED + 1) + b"1" + b"}" * (NESTED + 1), "nested deeper"),
        (b"[" * 900_000, "nested deeper"),
        (b'{"a":' * 150_000, "nested deeper"),
        (b'{"\\"":' + b"[" * 100_000, "nested deeper"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:24]),
)  # fmt: skip
def test_a_body_that_is_no_strict_json_object_is_refused_with_the_reason(body, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        json_bodies.json_object(body)


@pytest.mark.parametrize(
    "body",
    [
        nested(NESTED),
        b'{"a":' * NESTED + b"1" + b"}" * NESTED,
        b'{"a": "' + b"[" * 5000 + b'"}',
        b'{"a": "\\\\", "b": "' + b"{" * 5000 + b'"}',
        b'{"a": "\\\\\\"' + b"{" * 5000 + b'"}',
        b' \n{"a": "\\ud83d\\ude00", "b": "\\\\ud800"} ',
        '{"größe": "😀"}'.encode(),
        b"{}",
        b'{"a": [' + b"{}," * 5000 + b"{}]}",
        b'{"a": 12345678901234567890, "b": 1.5e300}',
    ],
    ids=["deep arrays", "deep objects", "brackets in a text", "after a backslash", "after a quote", "surrogate pair", "UTF-8", "empty", "wide", "numbers"],
)  # fmt: skip
def test_a_strict_object_is_read_as_json_reads_it(body):
    assert json_bodies.json_object(body) == json.loads(body)


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_too_large():
    body = b'{"a": 1}'.ljust(json_bodies.LONGEST_BODY_BYTES)
    assert json_bodies.json_object(body) == {"a": 1}
    assert json_bodies.claimed_text(body, "b") == ""
    for read in (json_bodies.json_object, json_bodies.claimed_text):
        with pytest.raises(TooLarge):
            read(body + b" ")


def test_a_message_never_shows_the_body():
    with pytest.raises(UnreadableEvent) as refused:
        json_bodies.json_object(b'{"token": "ghs_secret", "token": "ghs_secret"')
    assert "ghs_secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        (b'{"repository": {"full_name": "acme/widgets"}}', "acme/widgets"),
        (b'{"repository": {}}', ""),
        (b'{"repository": null}', ""),
        (b'{"repository": "acme/widgets"}', ""),
        (b'{"repository": {"full_name": null}}', ""),
        (b"{}", ""),
    ],
)
def test_a_claim_is_the_text_at_its_path_or_empty(body, claim):
    assert json_bodies.claimed_text(body, "repository", "full_name") == claim


@pytest.mark.parametrize("body", [b'{"repository": {"full_name": 7}}', b"[" * 900_000, b"[]", b"\xff", b'{"a":'], ids=["number", "deep", "list", "bytes", "cut off"])  # fmt: skip
def test_a_claim_that_is_none_is_refused(body):
    with pytest.raises(UnreadableEvent):
        json_bodies.claimed_text(body, "repository", "full_name")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_content_types_are_taken(content_type):
    json_bodies.must_be_json(content_type)


@pytest.mark.parametrize("content_type", [None, "", "application/x-www-form-urlencoded", "text/plain", "application/jsonp", "application/json; charset=latin-1"])  # fmt: skip
def test_other_content_types_are_refused(content_type):
    with pytest.raises(UnreadableEvent, match=r"UTF-8|application/json"):
        json_bodies.must_be_json(content_type)


def test_only_a_plain_body_is_taken():
    json_bodies.must_be_unencoded(None)
    json_bodies.must_be_unencoded("identity")
    for encoding in ("gzip", "br", "identity, gzip", "x"):
        with pytest.raises(UnreadableEvent, match="Content-Encoding"):
            json_bodies.must_be_unencoded(encoding)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=4), st.booleans())
def test_whatever_object_is_written_as_json_is_read_back(document, ascii_only):
    assert json_bodies.json_object(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:\\u0d8eN1. ', max_size=80).map(str.encode))
def test_no_bytes_raise_anything_but_unreadable(body):
    try:
        document = json_bodies.json_object(body)
    except UnreadableEvent:
        return
    assert document == json.loads(body)
