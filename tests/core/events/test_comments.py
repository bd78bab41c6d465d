"""Which lines of a comment are commands, and of whose comments."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import comments
from bridge.core.events.comments import COMMANDS, MARK, Command, asked, commands_of
from bridge.core.runs import Kind
from bridge.errors import UnreadableEvent

SHA = "c0ffee0" + "1" * 33
FENCED = "```\n/retry\n```"


def texts(body):
    return [command.text for command in commands_of(body)]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/retry", Command(Kind.RETRY, "/retry")),
        ("/retry checks", Command(Kind.RETRY, "/retry checks", pipeline="checks")),
        ("/retry checks/unit-tests", Command(Kind.RETRY, "/retry checks/unit-tests", pipeline="checks", steps=("unit-tests",))),
        ("/rerun", Command(Kind.RERUN, "/rerun")),
        ("/cancel", Command(Kind.CANCEL, "/cancel")),
        ("/ok-to-test", Command(Kind.APPROVE, "/ok-to-test")),
        ("/ok-to-test C0FFEE0", Command(Kind.APPROVE, "/ok-to-test C0FFEE0", sha="c0ffee0")),
        (f"/ok-to-test {SHA}", Command(Kind.APPROVE, f"/ok-to-test {SHA}", sha=SHA)),
    ],
    ids=range(8),
)  # fmt: skip
@pytest.mark.parametrize(
    "around", ["{}", "  {}  ", "Please.\r\n\r\n{}\r\n\r\nThank you", "\n{}\t", "> quoted\n\n{}"], ids=range(5)
)
def test_a_command_stands_alone_on_a_line(line, command, around):
    assert commands_of(around.format(line)) == (command,)


@pytest.mark.parametrize("line", ["/Retry", "/RETRY", "/Ok-To-Test"])
def test_a_telephone_may_write_capitals(line):
    assert len(commands_of(line)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "please /retry",
        "/retrying",
        "/retry.",
        "`/retry`",
        "- /retry",
        "1. /retry",
        "# /retry",
        "//retry",
        "/ retry",
        "/lgtm",
        "/cc @mona",
        "> /retry",
        "  > > /retry",
        "    /retry",
        "\t/retry",
        FENCED,
        "~~~sh\n/retry\n```\n/retry\n~~~",
        "````\n```\n/retry\n```\n````",
        "```\n/retry",
        "- ```\n  /retry\n  ```",
        "1. item\n\n   ```\n   /retry\n   ```",
        "   ```console\n/retry\n   ```",
        "<!-- /retry -->",
        "<!--\n/retry\n-->",
        "text <!-- begins\n/retry\nends --> text",
        "<!-- a --> <!-- b\n/retry\n-->",
        "<!-- never ends\n/retry",
        "<pre>\n/retry\n</pre>",
        "<PRE lang=sh>\n/retry\n</pre>",
        "/retry <!-- now -->",
    ],
    ids=range(31),
)
def test_what_is_quoted_shown_or_hidden_is_no_command(body):
    assert commands_of(body) == ()


@pytest.mark.parametrize(
    "body",
    [
        f"{FENCED}\n/rerun",
        "> ```\n/rerun",
        "it says `<!--` there\n/rerun",
        "<!-- a -->\n/rerun",
        "<!-->\n/rerun",
        "<!--\n/retry\n-->\n/rerun",
        "<pre>/retry</pre>\n/rerun",
        "``` not ` a fence\n/rerun",
        "<present>\n/rerun",
    ],
    ids=range(9),
)
def test_what_follows_a_block_is_a_command_again(body):
    assert texts(body) == ["/rerun"]


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("/retry checks lint", "/retry [PIPELINE[/STEP]]"),
        ("/retry checks/a/b", "/retry [PIPELINE[/STEP]]"),
        ("/retry ../etc", "/retry [PIPELINE[/STEP]]"),
        ("/rerun checks", "/rerun"),
        ("/cancel it", "/cancel"),
        ("/ok-to-test please", "/ok-to-test [SHA]"),
        ("/ok-to-test c0ffee", "/ok-to-test [SHA]"),
    ],
    ids=range(7),
)
def test_what_begins_as_a_command_and_is_none_says_how_it_is_written(line, usage):
    (command,) = commands_of(line)
    assert command.problem == f"write {usage}, alone on its line"


def test_commands_come_in_their_order_and_none_twice():
    assert texts("/cancel\n/retry a\n/retry\n/cancel\n/retry a") == ["/cancel", "/retry a", "/retry"]


def test_several_steps_of_a_pipeline_are_one_command_as_they_are_one_attempt():
    of_checks, of_docs, all_of_checks = commands_of(
        "/retry checks/a\n/retry docs/a\n/retry checks/b\n/retry checks"
    )
    assert (of_checks.steps, of_checks.text) == (("a", "b"), "/retry checks/a, /retry checks/b")
    assert (of_docs.steps, all_of_checks.steps) == (("a",), ())


def test_too_many_commands_are_none():
    (command,) = commands_of("\n".join(f"/retry p{n}" for n in range(11)))
    assert "more than 10" in command.problem
    assert len(commands_of("\n".join(f"/retry p{n}" for n in range(10)))) == 10


@given(st.text(st.sampled_from("/retry`~<!->\n\r \t1.\x0b\u2028"), max_size=80))
def test_whatever_is_written_is_read(body):
    lines = {line.strip(" \t") for line in body.replace("\r", "\n").split("\n")}
    for command in commands_of(body):
        assert set(command.text.split(", ")) <= lines


def test_a_long_line_of_backticks_takes_no_time():
    assert commands_of("<!--" + "".join("`" * n + "a" for n in range(600)) + "\n/retry") == ()


def delivery(**changes):
    document = {
        "action": "created",
        "repository": {"full_name": "acme/widgets"},
        "sender": {"login": "mona", "type": "User"},
        "issue": {"number": 7, "pull_request": {"url": "https://api.example.com/pulls/7"}},
        "comment": {
            "id": 9,
            "body": "/retry",
            "created_at": "2026-11-24T21:00:00Z",
            "author_association": "MEMBER",
            "user": {"login": "mona", "type": "User"},
        },
    }
    for path, value in changes.items():
        *folders, last = path.split("__")
        part = document
        for folder in folders:
            part = part[folder]
        part[last] = value
    return json.dumps(document).encode()


HEADERS = {"X-GitHub-Event": "issue_comment", "X-GitHub-Delivery": "guid"}


def test_what_a_comment_on_a_pull_request_asks_for():
    found = asked(HEADERS, delivery())
    assert (found.project, found.delivery, found.pull_request) == ("acme/widgets", "guid", 7)
    assert (found.comment, found.author, found.written) == (9, "mona", 1_795_554_000.0)
    assert [command.kind for command in found.commands] == [Kind.RETRY]


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "edited"},
        {"action": "deleted"},
        {"issue": {"number": 7}},
        {"comment__user": {"login": "ci[bot]", "type": "Bot"}},
        {"comment__user": {"login": "ci", "type": "Bot"}},
        {"sender": {"login": "ci[bot]", "type": "Bot"}},
        {"comment__user": None},
        {"comment__user": {"login": "../../user", "type": "User"}},
        {"comment__body": "thank you"},
        {"comment__body": f"/retry\n{MARK} -->"},
    ],
    ids=range(10),
)
def test_other_comments_ask_for_nothing(changes):
    assert asked(HEADERS, delivery(**changes)) is None


def test_other_events_are_not_even_read():
    assert asked({"X-GitHub-Event": "push"}, b"no JSON") is None


def test_a_body_that_is_no_comment_is_unreadable():
    with pytest.raises(UnreadableEvent, match=r"comment\.body"):
        asked(HEADERS, delivery(comment__body=5))


def test_the_words_are_few_and_each_has_a_meaning():
    assert [word.usage for word in COMMANDS] == [
        "/retry [PIPELINE[/STEP]]",
        "/rerun",
        "/cancel",
        "/ok-to-test [SHA]",
    ]
    assert all(word.meaning in comments.commands_table() for word in COMMANDS)


def test_the_documentation_has_the_commands_that_there_are():
    page = (Path(__file__).parents[3] / "docs" / "comments.md").read_text()
    assert comments.commands_table() in page
    assert f"Up to {comments.MOST_COMMANDS} commands" in page
