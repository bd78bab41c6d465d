import pytest

from bridge.core.concurrency import Concurrency
from bridge.core.pipelines import Checkout, Exit, Pipeline, Step, Trigger
from bridge.core.workflow_templates import is_pipeline, pipeline_of
from bridge.errors import BadPipeline

PREFIX = "bridge.brigade.sh/"
HAND_WRITTEN = {"projects": "acme/widgets", "on": "pull_request"}


def task(name, **fields):
    return {"name": name, "template": name, **fields}


def container(name, *words, **env):
    variables = [{"name": key, "value": value} for key, value in env.items()]
    return {
        "name": name,
        "container": {"image": "x:1", "command": [words[0]], "args": [*words[1:]], "env": variables},
    }


def a_template(*templates, annotations=HAND_WRITTEN, **spec):
    """A WorkflowTemplate as people write them; its entrypoint is the first of `templates`."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {
            "name": "mine",
            "annotations": {PREFIX + name: text for name, text in annotations.items()},
        },
        "spec": {"entrypoint": templates[0]["name"], "templates": [*templates], **spec},
    }


ONE_STEP = ({"name": "main", "dag": {"tasks": [task("build")]}}, container("build", "make", "all"))


def refusal(template):
    with pytest.raises(BadPipeline) as caught:
        pipeline_of(template)
    return str(caught.value)


def test_a_hand_written_template_with_ordinary_containers_is_a_pipeline():
    template = a_template(
        {
            "name": "main",
            "dag": {
                "tasks": [
                    task("build"),
                    task("unit-test", depends="build.Succeeded || build.Skipped"),
                    task("lint", dependencies=["build"]),
                    task("package", depends="unit-test && (lint.Succeeded || !build.Failed)"),
                ]
            },
        },
        *(container(name, "make", name) for name in ("build", "unit-test", "lint", "package")),
    )
    assert pipeline_of(template) == Pipeline(
        name="mine",
        projects=("acme/widgets",),
        on=(Trigger("pull_request"),),
        steps=(
            Step("build", tries=None, native=True),
            Step("unit-test", needs=("build",), tries=None, native=True),
            Step("lint", needs=("build",), tries=None, native=True),
            Step("package", needs=("unit-test", "lint", "build"), tries=None, native=True),
        ),
    )


def test_annotations_are_lists_of_words_or_what_a_pipeline_file_says():
    annotations = {
        "projects": "acme/widgets, acme/lib-*\n  other/*",
        "on": "push: {branches: [main], tags: v*}\npull_request:opened:\n",
        "exit": "{failed: none, succeeded: done, timeout: 1m}",
        "checkout": "commit",
        "report": "ci: all",
        "concurrency": "{group: pull-request, cancel: true}",
        "notify": "ops, audit",
    }
    pipeline = pipeline_of(a_template(*ONE_STEP, annotations=annotations, activeDeadlineSeconds=60))
    assert pipeline.projects == ("acme/widgets", "acme/lib-*", "other/*")
    assert pipeline.on == (Trigger("push", ("main",), ("v*",)), Trigger("pull_request:opened"))
    assert pipeline.exit == Exit("", "done", 60)
    assert pipeline.checkout is Checkout.COMMIT
    assert pipeline.concurrency is Concurrency.PULL_REQUEST
    assert pipeline.notify == ("ops", "audit")
    assert pipeline.report_context == "ci: all"
    assert pipeline.timeout_seconds == 60


@pytest.mark.parametrize(
    "text", ["push pull_request:opened", "push, pull_request:opened", "[push, 'pull_request:opened']"]
)
def test_events_may_be_listed_in_several_ways(text):
    pipeline = pipeline_of(a_template(*ONE_STEP, annotations={**HAND_WRITTEN, "on": text}))
    assert pipeline.on == (Trigger("push"), Trigger("pull_request:opened"))


@pytest.mark.parametrize(
    "words", [("brig", "run"), ("/usr/bin/brig", "run"), ("bridgectl", "brig", "run"), ("brig", "exec")]
)
def test_an_existing_brig_run_is_a_step_with_its_flags(words):
    template = a_template(
        ONE_STEP[0],
        container(
            "build", *words, "acme/widgets", "--event=x", "-e", "y", "-c", "abc", "--tries", "3", "--timeout=1m"
        ),
    )
    assert pipeline_of(template).steps == (Step("build", events=("x", "y"), tries=3, timeout_seconds=60),)


def test_flags_that_argo_fills_in_are_left_to_the_step():
    words = (
        "brig",
        "run",
        "-e",
        "{{inputs.parameters.event}}",
        "--tries",
        "{{inputs.parameters.tries}}",
        "--lost=1",
    )
    assert pipeline_of(a_template(ONE_STEP[0], container("build", *words))).steps == (
        Step("build", tries=None, lost=1),
    )


def test_native_steps_need_the_group_before():
    groups = [[task("a")], [task("b"), task("c")], [task("d")]]
    template = a_template({"name": "main", "steps": groups}, *(container(name, "x") for name in "abcd"))
    needs = {step.name: step.needs for step in pipeline_of(template).steps}
    assert needs == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def test_an_entrypoint_that_is_a_container_is_the_one_step():
    assert pipeline_of(a_template(container("all", "make"))).steps == (Step("all", tries=None, native=True),)


def test_a_template_of_another_kind_is_a_step_too():
    template = a_template(ONE_STEP[0], {"name": "build", "http": {"url": "https://example.test"}})
    assert pipeline_of(template).steps == (Step("build", tries=None, native=True),)


@pytest.mark.parametrize(
    ("command", "native"),
    [
        (["brig", "run", "-e", "build"], False),
        (["/usr/bin/brig", "exec"], False),
        (["python", "/opt/brig", "run"], False),
        (["run", "-e", "build"], False),
        (["make", "brig"], True),
        (["sh", "-c", "brig run -e build"], True),
        (["make", "test"], True),
    ],
)
def test_a_container_is_native_unless_it_is_a_brig_run(command, native):
    template = a_template(ONE_STEP[0], container("build", *command))
    assert pipeline_of(template).steps[0].native is native


def test_fields_that_are_not_read_here_are_left_to_the_engine():
    template = a_template(*ONE_STEP, hooks={}, volumes=[{"name": "x"}])
    template["status"] = {}
    template["metadata"]["annotations"]["example.test/other"] = "{{x"
    assert pipeline_of(template).name == "mine"


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"on": "push"}, "annotation bridge.brigade.sh/projects: is missing; write for example"),
        ({"projects": "a/b"}, "annotation bridge.brigade.sh/on: is missing; write for example"),
        (
            {"project": "a/b", "on": "push"},
            "annotation bridge.brigade.sh/project: unknown; did you mean `projects`?",
        ),
        ({"projects": " ", "on": "push"}, "annotation bridge.brigade.sh/projects: is empty; name at least one"),
        (
            {**HAND_WRITTEN, "on": "push: {branchs: x}"},
            "annotation bridge.brigade.sh/on.push.branchs: unknown field",
        ),
        (
            {**HAND_WRITTEN, "on": "ping"},
            "annotation bridge.brigade.sh/on.ping: `ping` is an event of Brigade's own",
        ),
        ({**HAND_WRITTEN, "on": "a: 1\na: 2"}, "annotation bridge.brigade.sh/on: line 2, column 1: the key `a`"),
        ({**HAND_WRITTEN, "exit": "none"}, "annotation bridge.brigade.sh/exit: must be a mapping"),
        (
            {**HAND_WRITTEN, "checkout": "head"},
            "annotation bridge.brigade.sh/checkout: should be 'commit' or 'ref'",
        ),
        (
            {**HAND_WRITTEN, "concurrency": "branch"},
            "annotation bridge.brigade.sh/concurrency: must be a mapping",
        ),
    ],
)
def test_a_wrong_annotation_is_named_with_its_template_and_remedy(annotations, said):
    assert refusal(a_template(*ONE_STEP, annotations=annotations)).startswith(f"WorkflowTemplate mine: {said}")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (a_template(*ONE_STEP, entrypoint="x"), "spec.entrypoint: there is no template `x`"),
        (a_template(ONE_STEP[0]), "task build: there is no template `build`; add it"),
        (a_template({"name": "main", "dag": {"tasks": []}}), "template main: it has no tasks; add one"),
        (a_template({"name": "main", "dag": {"tasks": [task("a/b")]}}), "a task's name: `a/b` cannot be a label's value"),
        (a_template({"name": "main", "dag": {"tasks": [task("a" * 64)]}}), "a task's name: "),
        (a_template(*ONE_STEP, activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: should be greater than 0"),
        (a_template(*ONE_STEP, templates=None), "spec.templates: should be a valid list"),
        (a_template(ONE_STEP[0], container("build", "brig", BRIDGE_STEP="b")), "task build: its container has BRIDGE_STEP=b"),
        (a_template(ONE_STEP[0], container("build", "brig", "run", "--tries=x")), "`brig run`: argument --tries: invalid int"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_a_pipeline_says_why(template, said):
    assert refusal(template).startswith(f"WorkflowTemplate mine: {said}")


@pytest.mark.parametrize(
    "template", [{}, {"metadata": {}}, {"metadata": {"name": "x"}, "spec": {}}, {"metadata": None, "spec": 1}]
)
def test_what_is_no_manifest_is_refused(template):
    assert refusal(template).startswith("WorkflowTemplate")


def test_a_template_without_our_annotations_does_not_mean_to_be_a_pipeline():
    assert is_pipeline(a_template(*ONE_STEP))
    assert is_pipeline(a_template(*ONE_STEP, annotations={"on": "push"})), (
        "it means to, and is told what is missing"
    )
    assert not is_pipeline(a_template(*ONE_STEP, annotations={}))
    assert not is_pipeline({"metadata": None})
    assert not is_pipeline({})
