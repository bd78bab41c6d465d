import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.signatures import same_secret, verifies

# GitHub's own test vector.
SECRET = "It's a Secret to Everybody"
BODY = b"Hello, World!"
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_githubs_own_vector_verifies():
    assert verifies(BODY, SIGNATURE, [SECRET])


@pytest.mark.parametrize(
    "secrets", [[SECRET, "other"], ["other", SECRET], ["", SECRET]], ids=["first", "second", "after an empty one"]
)
def test_any_of_several_secrets_verifies(secrets):
    assert verifies(BODY, SIGNATURE, secrets)


def test_no_secret_never_verifies():
    assert not verifies(BODY, SIGNATURE, [])


def test_a_signature_made_with_an_empty_secret_never_verifies():
    made = "sha256=" + hmac.new(b"", BODY, "sha256").hexdigest()
    assert not verifies(BODY, made, [""])
    assert not verifies(BODY, made, ["", "other"])


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        SIGNATURE.removeprefix("sha256="),
        "sha1=" + hmac.new(SECRET.encode(), BODY, "sha1").hexdigest(),
        "sha1=" + hmac.new(SECRET.encode(), BODY, "sha256").hexdigest(),
        SIGNATURE.upper(),
        SIGNATURE + "0",
        SIGNATURE[:-1],
        SIGNATURE + "\n",
        "sha256=",
        "sha256=ü" + SIGNATURE[8:],
        SIGNATURE + "," + SIGNATURE,
    ],
    ids=[
        "missing",
        "empty",
        "bare",
        "sha1",
        "sha256 called sha1",
        "capitals",
        "longer",
        "shorter",
        "line feed",
        "no digits",
        "not ASCII",
        "two",
    ],
)
def test_anything_but_one_sha256_signature_is_refused(header):
    assert not verifies(BODY, header, [SECRET])


@given(
    st.binary(max_size=200),
    st.text(min_size=1, max_size=40).filter(str.isascii),
    st.binary(min_size=1, max_size=8),
)
def test_a_signature_is_good_for_its_body_only(body, secret, more):
    header = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    assert verifies(body, header, [secret])
    assert not verifies(body + more, header, [secret])


def test_an_empty_generic_secret_never_matches():
    assert same_secret("abcde", "abcde")
    assert not same_secret("abcde", "abcdf")
    assert not same_secret("", "")
    assert not same_secret("abcde", "")
