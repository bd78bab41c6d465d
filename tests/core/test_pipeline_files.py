import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.concurrency import Concurrency
from bridge.core.names import RESERVED_EVENTS, mapped
from bridge.core.pipeline_files import circle_in, parse
from bridge.core.pipelines import OPTED_IN, Checkout, Exit, Pipeline, Step, Trigger
from bridge.errors import BadPipeline

SMALLEST = {"name": "ci", "projects": "acme/widgets", "on": "push", "steps": "[{name: build}]"}


def a_file(**fields):
    """The smallest pipeline file with some fields changed; None leaves one out."""
    return "".join(f"{name}: {text}\n" for name, text in {**SMALLEST, **fields}.items() if text is not None)


def refusal(text):
    with pytest.raises(BadPipeline) as caught:
        parse(text, source="ci.yaml")
    return str(caught.value)


def test_the_smallest_file_has_the_defaults():
    assert parse(a_file(), source="ci.yaml") == Pipeline(
        name="ci",
        projects=("acme/widgets",),
        on=(Trigger("push"),),
        steps=(Step("build", events=("build",), tries=1, backoff_seconds=5, timeout_seconds=None, lost=5),),
        exit=Exit(on_failure="build_failed", on_success="", timeout_seconds=600),
        timeout_seconds=7200,
        checkout=None,
        report_context=None,
    )


def test_every_field_is_read():
    text = """
name: everything
projects: [acme/widgets, acme/lib-*]
on: {push: {branches: [main, release/**], tags: v*}, pull_request: , simpleevent: {}}
steps:
  - {name: build, event: [build:pr, build], tries: 3, backoff: 90s, timeout: 1h30m, lost: 0}
  - {name: unit_test, needs: build}
  - {name: package, event: same-as-run, needs: [unit_test, build]}
exit: {failed: none, succeeded: build_succeeded, timeout: 250ms}
timeout: 45m
checkout: ref
report: {context: ci/everything}
concurrency: {group: branch, cancel: true}
notify: [ops, audit]
unhandled: ok
"""
    assert parse(text, source="x.yaml") == Pipeline(
        name="everything",
        projects=("acme/widgets", "acme/lib-*"),
        on=(
            Trigger("push", branches=("main", "release/**"), tags=("v*",)),
            Trigger("pull_request"),
            Trigger("simpleevent"),
        ),
        steps=(
            Step("build", ("build:pr", "build"), (), 3, 90, 5400, 0, True),
            Step("unit-test", ("unit_test",), ("build",), unhandled_ok=True),
            Step("package", (), ("unit-test", "build"), unhandled_ok=True),
        ),
        exit=Exit("", "build_succeeded", 0.25),
        timeout_seconds=2700,
        checkout=Checkout.REF,
        report_context="ci/everything",
        concurrency=Concurrency.BRANCH,
        notify=("ops", "audit"),
    )


def test_a_file_without_a_name_is_named_as_its_file():
    assert parse(a_file(name=None), source="d/push.yaml", default_name="push").name == "push"
    assert parse(a_file(), source="d/push.yaml", default_name="push").name == "ci"


def test_the_word_on_is_a_field_and_not_a_boolean():
    assert parse(a_file(on="[push]"), source="ci.yaml").on == (Trigger("push"),)


def test_the_default_pipeline_can_be_said():
    pipeline = parse(a_file(projects="opted-in", steps="[{name: event, event: same-as-run}]"), source="x")
    assert pipeline.projects == (OPTED_IN,)
    assert pipeline.steps[0].events == ()


def test_a_need_may_be_named_as_written_or_as_argo_has_it():
    steps = "[{name: unit_test}, {name: a, needs: unit_test}, {name: b, needs: unit-test}]"
    assert [step.needs for step in parse(a_file(steps=steps), source="x").steps] == [
        (),
        ("unit-test",),
        ("unit-test",),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"projects": None}, "projects: is missing; write for example `projects: acme/widgets`"),
        ({"on": None}, "on: is missing; write for example `on: [push]`"),
        ({"steps": None}, "steps: is missing; write for example `steps: [{name: build}]`"),
        ({"projects": "[]"}, "projects: is empty; name at least one"),
        ({"projects": "5"}, "projects: must be a list"),
        ({"projects": "[5]"}, "projects[0]: must be text; put it in quotes if it looks like something else"),
        ({"projects": "[a/b, a/b]"}, "projects: `a/b` is there twice; keep one"),
        ({"projects": "'a b'"}, "projects[0]: a project is written as its git host does, `acme/widgets`"),
        ({"projects": "'{{x}}'"}, "projects[0]: a project is written"),
        ({"name": "Push"}, "name: must be at most 63 of a-z, 0-9 and `-`"),
        ({"name": "x" * 64}, "name: must be at most 63"),
        ({"name": "5"}, "name: must be text"),
        ({"on": "[]"}, "on: is empty; name at least one"),
        ({"on": "[push, push]"}, "on: `push` is there twice; keep one"),
        ({"on": "[push: {branches: main}]"}, "on: a list here holds event names; to filter, write a mapping"),
        ({"on": "[p u]"}, "on.p u: an event's name is at most 128 of"),
        ({"on": "same-as-run"}, "on.same-as-run: `same-as-run` can only stand alone, as `event: same-as-run`"),
        ({"on": "{push: {branchs: main}}"}, "on.push.branchs: unknown field; did you mean `branches`?"),
        ({"on": "{push: {branches: refs/heads/main}}"}, "on.push.branches[0]: is held against the bare name"),
        ({"on": "{push: {branches: '!x'}}"}, "on.push.branches[0]: negation is not known"),
        ({"on": "{push: {branches: 'a[bc]'}}"}, "on.push.branches[0]: is no glob of git names"),
        ({"on": "{push: {tags: '{{x}}'}}"}, "on.push.tags[0]: is no glob of git names"),
        ({"steps": "[]"}, "steps: is empty; name at least one"),
        ({"steps": "build"}, "steps: must be a list"),
        ({"steps": "[build]"}, "steps[0]: must be a mapping"),
        ({"steps": "[{}]"}, "steps[0].name: is missing; write for example `name:"),
        ({"steps": "[{name: a, neds: b}]"}, "steps[0].neds: unknown field; did you mean `needs`?"),
        ({"steps": "[{name: a, wxyz: b}]"}, "steps[0].wxyz: unknown field; known are name, event, needs"),
        (
            {"steps": "[{name: 1a}]"},
            "steps[0].name: may not begin with a digit, which Argo's `depends` cannot read",
        ),
        ({"steps": "[{name: a-}]"}, "steps[0].name: must be at most 63 of"),
        ({"steps": f"[{{name: {'a' * 64}}}]"}, "steps[0].name: must be at most 63 of"),
        ({"steps": "[{name: 'a b'}]"}, "steps[0].name: must be at most 63 of"),
        (
            {"steps": "[{name: exit}]"},
            "steps[0].name: `exit` is a template of every workflow; choose another name",
        ),
        ({"steps": "[{name: main}]"}, "steps[0].name: `main` is a template of every workflow"),
        ({"steps": "[{name: a}, {name: a}]"}, "steps[1].name: `a` is there twice; rename one and put `event: a`"),
        ({"steps": "[{name: a_b}, {name: a.b}]"}, "steps[1].name: `a.b` and `a_b` are both `a-b` in Argo, where"),
        ({"steps": "[{name: a:b}, {name: a-b}]"}, "steps[1].name: `a-b` and `a:b` are both `a-b` in Argo, where"),
        (
            {"steps": "[{name: build, needs: biuld}]"},
            "steps[0].needs: there is no step `biuld`; did you mean `build`?",
        ),
        ({"steps": "[{name: a}, {name: b, needs: [a, a]}]"}, "steps[1].needs: `a` is there twice; keep one"),
        ({"steps": "[{name: a, needs: a}]"}, "steps: a needs a: none of them could ever begin"),
        (
            {"steps": "[{name: a, needs: b}, {name: b, needs: c}, {name: c, needs: b}]"},
            "steps: b needs c needs b: none of them could ever begin; remove one of these needs",
        ),
        ({"steps": "[{name: a, event: []}]"}, "steps[0].event: name at least one event, or `same-as-run`"),
        ({"steps": "[{name: a, event: ''}]"}, "steps[0].event: name at least one event, or `same-as-run`"),
        (
            {"steps": "[{name: a, event: [x, same-as-run]}]"},
            "steps[0].event[1]: `same-as-run` can only stand alone",
        ),
        ({"steps": "[{name: a, event: [x, x]}]"}, "steps[0].event: `x` is there twice"),
        ({"steps": "[{name: a, event: -x}]"}, "steps[0].event[0]: an event's name is"),
        ({"steps": "[{name: a, tries: 0}]"}, "steps[0].tries: should be greater than or equal to 1"),
        ({"steps": "[{name: a, tries: '3'}]"}, "steps[0].tries: must be a whole number"),
        ({"steps": "[{name: a, tries: true}]"}, "steps[0].tries: must be a whole number"),
        (
            {"steps": "[{name: a, backoff: 5}]"},
            "steps[0].backoff: is no duration; write for example 90s, 15m or 1h30m",
        ),
        (
            {"steps": "[{name: a, timeout: soon}]"},
            "steps[0].timeout: 'soon' is no duration; write for example 90s",
        ),
        ({"steps": "[{name: a, timeout: 0s}]"}, "steps[0].timeout: must be longer than nothing"),
        ({"steps": "[{name: a, timeout: 31d}]"}, "steps[0].timeout: is longer than 720h; write less"),
        ({"steps": "[{name: a, lost: -1}]"}, "steps[0].lost: should be greater than or equal to 0"),
        ({"exit": "{fialed: x}"}, "exit.fialed: unknown field; did you mean `failed`?"),
        ({"exit": "build_failed"}, "exit: must be a mapping"),
        ({"timeout": "1500ms"}, "timeout: Argo counts it in whole seconds; write it without ms"),
        ({"checkout": "head"}, "checkout: should be 'commit' or 'ref'"),
        ({"concurrency": "pull-request"}, "concurrency: must be a mapping"),
        (
            {"concurrency": "{group: commit, cancel: true}"},
            "concurrency.group: should be 'pull-request' or 'branch'",
        ),
        (
            {"concurrency": "{group: branch, cancel: false}"},
            "concurrency.cancel: must be true: cancelling older runs is all that a group is for",
        ),
        ({"concurrency": "{group: branch}"}, "concurrency.cancel: "),
        ({"notify": "https://x.example"}, "notify[0]: is the name of an endpoint in bridge's own configuration"),
        ({"notify": "[ops, ops]"}, "notify: `ops` is there twice; keep one"),
        ({"unhandled": "maybe"}, "unhandled: should be 'ok' or 'fail'"),
        ({"report": "{context: '{{x}}'}"}, "report.context: must be one line of at most 100 characters"),
        ({"report": "{context: ' x'}"}, "report.context: must be one line"),
        ({"chekout": "ref"}, "chekout: unknown field; did you mean `checkout`?"),
    ],
)
def test_a_mistake_is_named_with_its_file_its_field_and_what_to_do(fields, said):
    lines = refusal(a_file(**fields)).split("\n")
    assert lines[0].startswith(f"ci.yaml: {said}")
    assert len(lines) == 1


@pytest.mark.parametrize("event", sorted(RESERVED_EVENTS))
def test_events_of_brigade_itself_can_be_used_nowhere(event):
    assert f"ci.yaml: on.{event}: `{event}` is" in refusal(a_file(on=f"[{event}]"))
    assert f"ci.yaml: steps[0].event[0]: `{event}` is" in refusal(a_file(steps=f"[{{name: a, event: {event}}}]"))
    assert f"ci.yaml: steps[0].name: `{event}` is" in refusal(a_file(steps=f"[{{name: {event}}}]"))
    assert f"ci.yaml: exit.failed: `{event}` is" in refusal(a_file(exit=f"{{failed: {event}}}"))


def test_a_step_may_have_such_a_name_if_its_event_has_another():
    assert parse(a_file(steps="[{name: ping, event: x}]"), source="x").steps[0].events == ("x",)


def test_all_mistakes_of_a_file_are_told_at_once():
    lines = refusal(a_file(name="X", projects="[]", steps="[{name: 1}, {name: exit}]", chekout="x")).split("\n")
    assert [re.sub(r"ci.yaml: ([^:]*): .*", r"\1", line) for line in lines] == [
        "projects",
        "name",
        "steps[0].name",
        "steps[1].name",
        "chekout",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "a pipeline is a mapping with `projects`, `on` and `steps`"),
        ("", "a pipeline is a mapping"),
        ("a: 1\na: 2", "line 2, column 1: the key `a` is there twice; keep one"),
        ("a: [", "line 1, column 5:"),
        ("name: &x a\nprojects: *x", "line 1, column 7: anchors and aliases are not read here"),
    ],
)
def test_what_is_no_yaml_of_ours_is_told_with_its_place(text, said):
    assert refusal(text).startswith(f"ci.yaml: {said}")


def test_a_value_is_not_quoted_so_that_a_misplaced_secret_stays_out_of_logs():
    assert "hunter2" not in refusal(a_file(checkout="hunter2", unhandled="hunter2", timeout="[hunter2]"))


def test_a_message_stays_short_and_printable_whatever_a_key_is_called():
    said = refusal(a_file(**{'"' + "x" * 5000 + r'\e[31m"': "1"}))
    assert len(said) < 400
    assert said.isprintable()


names = st.text("abcXYZ019_:.-", max_size=6)


@settings(deadline=None)
@given(steps=st.lists(st.tuples(names, st.lists(names, max_size=3)), max_size=5))
def test_steps_are_refused_or_safe_for_argo(steps):
    text = (
        "["
        + ", ".join(f"{{name: '{name}', needs: {[str(need) for need in needs]}}}" for name, needs in steps)
        + "]"
    )
    try:
        pipeline = parse(a_file(steps=text), source="ci.yaml")
    except BadPipeline:
        return
    found = [step.name for step in pipeline.steps]
    assert found == [mapped(name) for name, _ in steps]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?", name) for name in found)
    done = set()
    while waiting := [step for step in pipeline.steps if step.name not in done]:
        ready = {step.name for step in waiting if set(step.needs) <= done}
        assert ready
        done |= ready


letters = st.sampled_from("abcdef")


@settings(deadline=None)
@given(needs=st.dictionaries(letters, st.lists(letters, max_size=3).map(tuple), max_size=6))
def test_a_circle_is_found_exactly_where_there_is_one(needs):
    def reaches(start, goal, seen=frozenset()):
        return any(
            other == goal or (other not in seen and reaches(other, goal, seen | {other}))
            for other in needs.get(start, ())
        )

    circle = circle_in(needs)
    assert bool(circle) == any(reaches(name, name) for name in needs)
    assert all(later in needs[earlier] for earlier, later in itertools.pairwise(circle))
    assert not circle or circle[0] == circle[-1]
