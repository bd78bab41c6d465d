import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.redaction import REDACTED, beginning, ending, plain, redacted

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nq83vEjRWeJ\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + "a1B2" * 9,
        "ghs_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 20,
        "glpat-" + "a1B2" * 5,
        "AKIA" + "A1B2" * 4,
        "xoxb-1234567890-abcdef",
        "npm_" + "a1B2" * 9,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiI0NzExIn0.c2lnbmF0dXJl",
        KEY,
    ],
    ids=lambda token: token[:8],
)
def test_what_looks_like_a_token_is_redacted(token):
    shown = redacted(f"before\nuses {token} here\nafter")
    assert token not in shown
    assert shown == f"before\nuses {REDACTED} here\nafter"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [redacted]"),
        ("authorization: basic eDp5", "authorization: basic [redacted]"),
        (
            "git clone https://x-access-token:abcdef@example.com/a.git",
            "git clone https://[redacted]@example.com/a.git",
        ),
        ("DB_PASSWORD=hunter2hunter2 make", "DB_PASSWORD=[redacted] make"),
        ('{"api_key": "0123456789"}', '{"api_key": "[redacted]"}'),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/[redacted]"),
    ],
)
def test_what_is_named_as_a_secret_is_redacted(said, shown):
    assert redacted(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "3 of 4 tests passed",
        "https://example.com/a?b=c",
        "token=",
        "exit code 1 at build.sh:12",
        "sha256:" + "ab" * 32,
    ],
)
def test_what_is_no_secret_stays(said):
    assert redacted(said) == said


def test_secrets_of_the_project_are_redacted_longest_first_and_line_by_line():
    secrets = ["s3cr3t", "s3cr3t-and-more", "line one of it\nline two of it\n", "true", ""]
    said = "true: s3cr3t-and-more, then s3cr3t\n  line two of it!"
    assert redacted(said, secrets) == f"true: {REDACTED}, then {REDACTED}\n  {REDACTED}!"


def test_a_secret_that_a_cut_left_the_end_of_is_redacted():
    assert redacted("y-long-secret and more", ["a-very-long-secret"]) == f"{REDACTED} and more"
    assert redacted(KEY.partition("\n")[2] + "\ngo on") == f"{REDACTED}\ngo on"


def test_a_colour_in_the_middle_of_a_secret_does_not_hide_it():
    assert redacted(plain("\x1b[31mhunter\x1b[0m2hunter2\x07"), ["hunter2hunter2"]) == REDACTED + "�"


def test_a_log_is_plain_text():
    raw = b"\x1b]0;title\x07\x1b[1;32mok\x1b[0m\r\n10%\r20%\r\n\x00\xff\xfe\x1b(B\t|".decode("utf-8", "replace")
    assert plain(raw) == "ok\n20%\n���\t|"
    assert plain("a\u202eb\u2028c\ud800") == "a�b�c�"


@given(st.text(), st.integers(0, 60))
def test_a_cut_text_is_whole_characters_within_its_bytes(text, most):
    text = plain(text)
    for cut in (ending(text, most), beginning(text, most)):
        assert len(cut.encode()) <= most
        assert cut in text


def test_an_ending_begins_at_a_whole_line():
    assert ending("one\ntwo\nthree", 9) == "two\nthree"
    assert ending("one\ntwo\nthree", 7) == "three"
    assert ending("one\ntwo\nthree", 4) == "hree"


@given(st.text(max_size=300), st.lists(st.text(min_size=6, max_size=20), max_size=3))
def test_no_secret_is_left_in_what_is_shown(text, secrets):
    shown = redacted(plain(text + "".join(secrets)), secrets)
    for secret in secrets:
        looked_for = plain(secret).strip()
        if len(looked_for) >= 6 and looked_for not in REDACTED:
            assert looked_for not in shown.replace(REDACTED, "\x00")


@pytest.mark.parametrize(
    "piece", ["a.", "eyJaaaaaaaa.", "token=abc ", "-----BEGIN A PRIVATE KEY-----\n", "x://u:", "\x1b["]
)
def test_no_log_takes_long(piece):
    """A pattern that tries again at each character would take minutes, so this needs no clock."""
    assert redacted(plain(piece * 400_000), ["a-secret"]) is not None
