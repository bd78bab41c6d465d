import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import fields


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main", "refs/heads/feature/x.y", "refs/pull/7/head", "refs/tags/v1.0", "main", "größe", "a@b", "1.0", "x-", "a{b}",
        "refs/heads/-x", "refs/heads/lock", "refs/heads/a.lockb",
    ],
)  # fmt: skip
def test_names_that_git_allows_are_refs(ref):
    assert fields.ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        "", "@", "/main", "main/", "main.", ".main", "a/.b", "a//b", "a..b", "a@{1}", "a b", "a~1", "a^", "a:b", "a?b", "a*", "a[b", "a\\b",
        "a\nb", "a\x00b", "a\x7fb", "a\x9bb", "x.lock", "x.lock/y", "--upload-pack=touch", "-x", "main\n", "a" * 1001,
    ],
    ids=repr,
)  # fmt: skip
def test_names_that_git_refuses_are_no_refs(ref):
    with pytest.raises(ValueError, match="git allows"):
        fields.ref(ref)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        *(
            (other, 0.0)
            for other in (None, True, "soon", "", -5, 10**400, 1.5, [], {}, "0001-01-01T00:00:00+23:59")
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_moments_are_numbers_and_texts_and_all_else_is_none(value, seconds):
    assert fields.moment(value) == seconds


@pytest.mark.parametrize("sha", ["a" * 40, "0123456789abcdef" * 4])
def test_whole_object_ids_are_commits(sha):
    assert fields.commit(sha) == sha


@pytest.mark.parametrize(
    "sha", ["", "a" * 39, "a" * 41, "A" * 40, "g" * 40, "0" * 40, "a" * 40 + "\n", "main"], ids=repr
)
def test_anything_else_is_no_commit(sha):
    with pytest.raises(ValueError, match="commit"):
        fields.commit(sha)


@pytest.mark.parametrize("name", ["acme/widgets", "A-b_c.d/.github"])
def test_owner_and_name_are_a_full_name(name):
    assert fields.full_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "acme", "acme/", "/x", "a/b/c", "../x", "x/..", "./x", "a b/c", "a/b\n", "ü/x", "a/" + "b" * 200],
    ids=repr,
)
def test_anything_else_is_no_full_name(name):
    with pytest.raises(ValueError, match="full name"):
        fields.full_name(name)


def test_a_title_is_one_line_without_what_terminals_obey():
    assert fields.title("  Fix\r\n\x1b[31mred\x00\u2028and \u202eturned\t ") == "Fix [31mred and turned"


def test_a_long_title_is_cut_and_says_so():
    assert fields.title("x" * 200) == "x" * 200
    assert fields.title("x" * 201) == "x" * 199 + "…"


@given(st.text(max_size=1000))
def test_every_title_is_short_and_visible(text):
    shown = fields.title(text)
    assert len(shown) <= fields.LONGEST_TITLE
    assert not [character for character in shown if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    shown.encode()


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://github.com/acme/widgets.git", True),
        ("https://ghes.example:8443/acme/widgets.git", True),
        ("http://github.com/acme/widgets.git", False),
        ("ssh://git@github.com/acme/widgets.git", False),
        ("file:///etc/passwd", False),
        ("ext::sh -c id", False),
        ("https://user:token@github.com/a/b.git", False),
        ("https:///a/b", False),
        ("https://[::1/a", False),
        ("https://github.com/a b", False),
        ("https://github.com/a\n", False),
        ("https://gıthub.com/a", False),
        ("", False),
    ],
)
def test_only_plain_https_is_cloned_from(url, kept):
    assert fields.https_url(url) == (url if kept else "")
