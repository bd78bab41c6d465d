"""What `RUN|SHA|PR` means, and which runs of a commit or pull request an act is for."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.choosing import chosen, wanted
from bridge.core.names import run_id
from bridge.core.runs import Kind
from bridge.errors import Misconfigured, NotFound

OLD, NEW = "a" * 40, "b" * 40


def a_run(name, **changes):
    known = {
        "id": name,
        "project": "acme/widgets",
        "sha": NEW,
        "pull_request": 7,
        "phase": "closed",
        "verdict": "failed",
    }
    return {**known, "status": {"context": changes.pop("context", name)}, **changes}


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("push-0abc", "run", "push-0abc"),
        ("abcdef0", "commit", "abcdef0"),
        ("ABCDEF0", "commit", "abcdef0"),
        (OLD, "commit", OLD),
        ("1234567", "commit", "1234567"),
        ("7", "pull_request", 7),
        ("#7", "pull_request", 7),
        ("acme/widgets#12", "pull_request", 12),
        ("acme/widgets#12", "project", "acme/widgets"),
    ],
)  # fmt: skip
def test_what_is_written_is_a_run_a_commit_or_a_pull_request(text, field, value):
    assert getattr(wanted(text), field) == value


@pytest.mark.parametrize(
    "text", ["", "#0", "acme/widgets", "abc", "../x-y", "Push-1", "#", "7#7", "push-a b", "-x"]
)
def test_what_is_none_of_them_is_refused_with_examples(text):
    with pytest.raises(Misconfigured, match="acme/widgets#7"):
        wanted(text)


@given(st.text(max_size=40), st.text(max_size=20))
@example("a--b", "d")
@example("1234567", "d")
def test_every_run_id_is_taken_for_a_run(pipeline, delivery):
    name = run_id(project="acme/widgets", provider="github", pipeline=pipeline, delivery=delivery)
    assert wanted(name).run == name


def test_a_retry_of_a_commit_is_for_its_failed_runs_alone():
    runs = [
        a_run("one"),
        a_run("two", verdict="succeeded"),
        a_run("three", phase="running", verdict=None),
        a_run("four", verdict="error"),
        a_run("five", sha=OLD),
    ]
    assert chosen(wanted(NEW[:7]), Kind.RETRY, runs) == ("one", "four")
    assert chosen(wanted(NEW), Kind.CANCEL, runs) == ("three",)
    assert chosen(wanted(NEW), Kind.RERUN, runs) == ("one", "two", "three", "four")


def test_only_the_newest_run_of_a_status_context_counts():
    runs = [a_run("newer", context="c", verdict="succeeded"), a_run("older", context="c")]
    with pytest.raises(NotFound, match="nothing to retry"):
        chosen(wanted(NEW), Kind.RETRY, runs)


def test_of_a_pull_request_its_newest_commit_counts():
    runs = [a_run("new"), a_run("old", sha=OLD), a_run("other", pull_request=8)]
    assert chosen(wanted("#7"), Kind.RETRY, runs) == ("new",)


def test_a_pull_request_of_two_projects_has_to_be_named_with_its_project():
    runs = [a_run("one"), a_run("two", project="acme/other")]
    with pytest.raises(Misconfigured, match="acme/other#7, acme/widgets#7"):
        chosen(wanted("7"), Kind.RETRY, runs)
    assert chosen(wanted("acme/other#7"), Kind.RETRY, runs) == ("two",)


def test_the_beginning_of_two_commits_is_refused():
    runs = [a_run("one", sha="abcdef0" + "1" * 33), a_run("two", sha="abcdef0" + "2" * 33)]
    with pytest.raises(Misconfigured, match="2 commits begin with abcdef0"):
        chosen(wanted("abcdef0"), Kind.RETRY, runs)


def test_a_commit_without_runs_is_not_found():
    with pytest.raises(NotFound, match="there is no run of"):
        chosen(wanted("abcdef0"), Kind.RETRY, [a_run("one")])
