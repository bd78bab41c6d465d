import pytest

from bridge.core.events import Event
from bridge.core.pipelines import OPTED_IN, Pipeline, Step, Trigger, reported_family, wants, why_not


def a_pipeline(*on, projects=("acme/widgets",)):
    return Pipeline(name="ci", projects=projects, on=on, steps=(Step("build"),))


def an_event(event_type, **fields):
    return Event(
        provider="github", type=event_type, project=fields.pop("project", "acme/widgets"), delivery="d", **fields
    )


def a_push(branch):
    return an_event("push", branch=branch)


def a_tag(tag):
    return an_event("push", tag=tag)


@pytest.mark.parametrize("trigger", ["pull_request", "pull_request:opened"])
def test_an_event_answers_to_both_its_names(trigger):
    assert wants(a_pipeline(Trigger(trigger)), an_event("pull_request:opened"))


def test_an_action_does_not_answer_to_another_action():
    pipeline = a_pipeline(Trigger("pull_request:opened"), Trigger("push"))
    reason = why_not(pipeline, an_event("pull_request:closed"))
    assert reason == "pipeline ci wants pull_request:opened, push, not pull_request:closed"


def test_an_event_without_action_does_not_answer_to_one():
    assert not wants(a_pipeline(Trigger("pull_request:opened")), an_event("pull_request"))


@pytest.mark.parametrize(
    "event", ["status", "check_run:created", "check_suite:requested", "issue_comment:created"]
)
def test_noisy_events_reach_only_pipelines_that_name_them(event):
    family = event.partition(":")[0]
    assert not wants(a_pipeline(Trigger("push"), Trigger("pull_request")), an_event(event))
    assert wants(a_pipeline(Trigger(family)), an_event(event))
    assert wants(a_pipeline(Trigger(event)), an_event(event))


@pytest.mark.parametrize(
    ("glob", "project", "wanted"),
    [
        ("acme/widgets", "acme/widgets", True),
        ("acme/*", "acme/widgets", True),
        ("**", "acme/widgets", True),
        ("Acme/widgets", "acme/widgets", False),
        ("acme", "acme/widgets", False),
        ("*", "acme/widgets", False),
    ],
)
def test_projects_are_globs_by_segment_and_case(glob, project, wanted):
    assert wants(a_pipeline(Trigger("push"), projects=("x/y", glob)), an_event("push", project=project)) is wanted


def test_a_pipeline_for_other_projects_says_so_without_naming_them():
    reason = why_not(a_pipeline(Trigger("push"), projects=("secret/customer",)), a_push("main"))
    assert reason == "pipeline ci is not for this project"


def test_projects_that_opted_in_are_told_by_their_own_setting():
    pipeline = a_pipeline(Trigger("push"), projects=(OPTED_IN,))
    assert wants(pipeline, a_push("main"), opted_in=True)
    assert not wants(pipeline, a_push("main"))
    assert not wants(pipeline, an_event("push", project=OPTED_IN)), "a project of that name has not opted in by it"


def test_opting_in_opens_no_other_pipeline():
    assert not wants(a_pipeline(Trigger("push"), projects=("x/y",)), a_push("main"), opted_in=True)


@pytest.mark.parametrize(
    ("trigger", "branches", "tags"),
    [
        (Trigger("push"), {"main": True, "fix": True}, {"v1": True}),
        (Trigger("push", branches=("main", "release/**")), {"main": True, "release/1": True, "fix": False}, {"v1": False, "main": False}),
        (Trigger("push", tags=("v*",)), {"main": False, "v1": False}, {"v1": True, "x": False}),
        (Trigger("push", branches=("main",), tags=("v*",)), {"main": True, "v1": False}, {"v1": True, "main": False}),
    ],
)  # fmt: skip
def test_branches_and_tags_are_filtered_apart(trigger, branches, tags):
    pipeline = a_pipeline(trigger)
    assert {branch: wants(pipeline, a_push(branch)) for branch in branches} == branches
    assert {tag: wants(pipeline, a_tag(tag)) for tag in tags} == tags


def test_a_pull_request_is_filtered_by_its_base_branch():
    pipeline = a_pipeline(Trigger("pull_request", branches=("main",)))
    assert wants(pipeline, an_event("pull_request:opened", branch="main", pull_request=7))
    assert not wants(pipeline, an_event("pull_request:opened", branch="next", pull_request=7))


def test_an_event_without_a_branch_is_not_of_any_branch():
    pipeline = a_pipeline(Trigger("simpleevent", branches=("**",)))
    assert why_not(pipeline, an_event("simpleevent")) == (
        "pipeline ci wants simpleevent of branch **, not one that has neither"
    )


def test_one_trigger_that_lets_an_event_pass_is_enough():
    pipeline = a_pipeline(Trigger("pull_request", branches=("main",)), Trigger("pull_request:opened"))
    assert wants(pipeline, an_event("pull_request:opened", branch="next"))


def test_the_reason_names_what_was_wanted_and_what_came():
    pipeline = a_pipeline(Trigger("push", branches=("main", "release/**"), tags=("v*",)))
    assert (
        why_not(pipeline, a_push("fix"))
        == "pipeline ci wants push of branch main, release/** or tag v*, not of branch fix"
    )
    assert why_not(pipeline, a_tag("x")).endswith("not of tag x")


def test_a_branch_name_from_outside_is_cut_in_the_reason():
    assert len(why_not(a_pipeline(Trigger("push", branches=("main",))), a_push("x" * 5000))) < 200


QUEUE_BRANCH = "gh-readonly-queue/main/pr-7-abc"


@pytest.mark.parametrize(
    ("on", "wanted"),
    [
        ((Trigger("push"),), False),
        ((Trigger("push", branches=("**",)),), False),
        ((Trigger("push", branches=("gh-readonly-queue/**",)),), True),
        ((Trigger("push", branches=("gh-readonly-queue/release/**",)),), False),
        ((Trigger("push", branches=("gh-readonly-queue/**",)), Trigger("merge_group")), False),
        ((Trigger("push", branches=("gh-readonly-queue/**",)), Trigger("merge_group:checks_requested")), False),
    ],
)
def test_a_push_of_the_merge_queue_is_for_who_names_its_branches_and_not_its_groups(on, wanted):
    pipeline = Pipeline("ci", ("acme/*",), on, (Step("build"),))
    pushed = Event("github", "push", "acme/widgets", "d", branch=QUEUE_BRANCH)
    assert wants(pipeline, pushed) is wanted
    if not wanted:
        assert "merge" in why_not(pipeline, pushed) or "gh-readonly-queue" in why_not(pipeline, pushed)


def test_a_merge_group_is_for_who_names_it_and_its_base_branch():
    group = Event("github", "merge_group:checks_requested", "acme/widgets", "d", branch="main")
    for trigger, wanted in (
        (Trigger("merge_group"), True),
        (Trigger("merge_group", branches=("main",)), True),
        (Trigger("merge_group", branches=("release/*",)), False),
        (Trigger("push"), False),
    ):
        assert wants(Pipeline("ci", ("acme/*",), (trigger,), (Step("build"),)), group) is wanted


def test_a_group_is_reported_under_the_name_that_its_pull_requests_are():
    group = Event("github", "merge_group:checks_requested", "acme/widgets", "d")
    both = Pipeline("ci", ("*/*",), (Trigger("pull_request:opened"), Trigger("merge_group")), (Step("build"),))
    alone = Pipeline("ci", ("*/*",), (Trigger("push"), Trigger("merge_group")), (Step("build"),))
    assert (reported_family(both, group), reported_family(alone, group)) == ("pull_request", "merge_group")
    assert reported_family(both, Event("github", "push", "acme/widgets", "d")) == "push"
