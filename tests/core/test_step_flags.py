"""What the flags of a step may say where there is a record."""

import pytest

from bridge.core.builds import LOG_LEVEL
from bridge.core.events import Revision
from bridge.core.step_flags import BuildFlags, built, log_level
from bridge.core.steps import Options
from bridge.errors import BadSettings
from tests.fakes import some_event

EVENT = some_event(clone_url="https://host/acme/widgets.git", short_title="PR #7")


def test_without_flags_the_record_says_everything():
    assert built(EVENT, BuildFlags()) == EVENT
    assert built(EVENT, BuildFlags(project=EVENT.project)) == EVENT


def test_a_payload_that_is_given_wins_even_an_empty_one():
    assert built(EVENT, BuildFlags(payload=b"{}")).payload == b"{}"
    assert built(EVENT, BuildFlags(payload=b"")).payload == b""


@pytest.mark.parametrize(
    "flags",
    [
        BuildFlags(commit="c" * 40),
        BuildFlags(commit="c" * 7),
        BuildFlags(ref="refs/heads/main"),
        BuildFlags(ref="main"),
    ],
)
def test_a_revision_that_is_the_records_is_fine(flags):
    assert built(EVENT, flags) == EVENT


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (BuildFlags(commit="d" * 40), "-c"),
        (BuildFlags(commit="c" * 6), "-c"),
        (BuildFlags(ref="master"), "-r"),
        (BuildFlags(ref="refs/tags/main"), "-r"),
    ],
)
def test_another_revision_of_the_project_is_refused_with_what_wins_and_the_way_out(flags, flag):
    with pytest.raises(BadSettings, match=rf"{flag} .*this run builds .*BRIDGE_RUN=none"):
        built(EVENT, flags)


def test_another_project_is_built_at_its_own_revision_and_not_at_this_repositorys():
    event = built(EVENT, BuildFlags(project="acme/deploy"))
    assert (event.project, event.revision, event.clone_url) == ("acme/deploy", Revision("", "master"), "")
    assert event.payload == EVENT.payload
    pinned = built(EVENT, BuildFlags(project="acme/deploy", commit="d" * 40, ref="refs/heads/live"))
    assert pinned.revision == Revision("d" * 40, "refs/heads/live")


def test_a_commit_alone_has_no_ref_made_up_for_it():
    assert BuildFlags(commit="c" * 40).revision == Revision("c" * 40, "")
    assert BuildFlags().revision == Revision("", "master")


@pytest.mark.parametrize(
    ("given", "options", "wanted"),
    [
        ("info", Options(("a",)), LOG_LEVEL),
        ("error", Options(("a", "b"), unhandled_ok=True), LOG_LEVEL),
        ("info", Options(("a",), unhandled_ok=True), "info"),
        ("all", Options(("a",)), "all"),
        ("log", Options(("a",)), "log"),
    ],
)
def test_a_log_level_that_hides_a_missing_handler_is_taken_only_where_that_does_not_matter(given, options, wanted):
    assert log_level(BuildFlags(log_level=given), options) == wanted
