import json
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.concurrency import Concurrency
from bridge.core.pipelines import OPTED_IN, Checkout, Exit, Pipeline, Step, Trigger
from bridge.core.workflow_templates import pipeline_of
from bridge.core.workflows import RETRY_EXPRESSION, render_yaml, workflow_template

BUILD = Step("build", events=("build",))


def a_pipeline(*steps, **fields):
    known = {"name": "ci", "projects": ("acme/widgets",), "on": (Trigger("push"),), "steps": steps or (BUILD,)}
    return Pipeline(**{**known, **fields})


def templates_of(*steps, **fields):
    rendered = workflow_template(a_pipeline(*steps, **fields))
    return {template["name"]: template for template in rendered["spec"]["templates"]}


def args_of(step):
    return templates_of(step)[step.name]["container"]["args"]


def env_of(template):
    return {variable["name"]: variable["value"] for variable in template["container"]["env"]}


def test_steps_become_tasks_that_wait_for_what_they_need():
    unit = Step("unit-test", events=("unit_test",), needs=("build",))
    package = Step("package", events=("package",), needs=("unit-test", "build"))
    assert templates_of(BUILD, unit, package)["main"]["dag"] == {
        "failFast": False,
        "tasks": [
            {"name": "build", "template": "build"},
            {"name": "unit-test", "template": "unit-test", "depends": "build"},
            {"name": "package", "template": "package", "depends": "unit-test && build"},
        ],
    }


@pytest.mark.parametrize(
    ("step", "args"),
    [
        (BUILD, ["run", "--tries", "1", "-e", "build"]),
        (Step("a", events=()), ["run", "--tries", "1"]),
        (Step("a", events=("x:y", "x"), tries=3), ["run", "--tries", "3", "-e", "x:y", "-e", "x"]),
        (
            Step("a", ("a",), (), 2, 90.0, 5400.0, 0, unhandled_ok=True),
            [
                "run",
                "--tries",
                "2",
                "--backoff",
                "1m30s",
                "--timeout",
                "1h30m",
                "--lost",
                "0",
                "--unhandled=ok",
                "-e",
                "a",
            ],
        ),
    ],
)
def test_a_steps_settings_become_flags_of_brig_run(step, args):
    assert args_of(step) == args


def test_a_step_is_told_where_it_is_and_never_its_event_or_project_by_argo():
    assert env_of(templates_of(projects=("acme/*",))["build"]) == {
        "BRIDGE_RUN": "{{workflow.parameters.run}}",
        "BRIDGE_ATTEMPT": "{{workflow.parameters.attempt}}",
        "BRIDGE_WORKFLOW": "{{workflow.name}}",
        "BRIDGE_WORKFLOW_UID": "{{workflow.uid}}",
        "BRIDGE_STEP": "build",
        "BRIDGE_COMMIT": "{{workflow.parameters.commit}}",
        "BRIDGE_REF": "{{workflow.parameters.ref}}",
    }


@pytest.mark.parametrize(
    ("projects", "told"),
    [(("acme/widgets",), "acme/widgets"), (("a/b", "c/d"), None), (("acme/*",), None), ((OPTED_IN,), None)],
)
def test_a_submission_by_hand_knows_the_project_where_there_is_just_one(projects, told):
    assert env_of(templates_of(projects=projects)["build"]).get("BRIDGE_PROJECT") == told


def test_a_submission_needs_no_argument():
    parameters = workflow_template(a_pipeline())["spec"]["arguments"]["parameters"]
    assert {parameter["name"]: parameter["value"] for parameter in parameters} == {
        "run": "none",
        "attempt": "0",
        "commit": "",
        "ref": "",
    }


def test_a_step_is_started_again_only_when_it_could_not_answer():
    assert templates_of()["build"]["retryStrategy"] == {
        "limit": "10",
        "retryPolicy": "Always",
        "expression": "lastRetry.status == 'Error' || (lastRetry.exitCode in ['75','64','137','143'] "
        "&& not (lastRetry.message contains 'specified deadline'))",
        "backoff": {"duration": "5s", "factor": "2", "cap": "2m"},
    }
    assert templates_of()["build"]["retryStrategy"]["expression"] == RETRY_EXPRESSION


def test_a_step_template_has_no_deadline_of_its_own():
    step = Step("build", events=("build",), timeout_seconds=60.0)
    assert not {"timeout", "activeDeadlineSeconds"} & templates_of(step)["build"].keys()


def test_the_exit_handler_is_one_plain_container_with_a_timeout_and_no_retry():
    template = templates_of()["exit"]
    assert set(template) == {"name", "timeout", "metadata", "container"}
    assert template["timeout"] == "180s"
    assert template["container"]["command"] + template["container"]["args"] == ["bridgectl", "exit"]
    assert workflow_template(a_pipeline())["spec"]["onExit"] == "exit"


def test_pods_fit_into_pod_security_restricted_argos_own_containers_included():
    spec = workflow_template(a_pipeline())["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    hard = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert json.loads(spec["podSpecPatch"]) == {
        "initContainers": [{"name": "init", "securityContext": hard}],
        "containers": [{"name": "wait", "securityContext": hard}],
    }
    assert [t["container"]["securityContext"] for t in spec["templates"] if "container" in t] == [hard, hard]


def test_a_finished_workflow_is_kept_for_seven_days_and_its_pods_for_minutes():
    spec = workflow_template(a_pipeline())["spec"]
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 7 * 24 * 3600}
    assert spec["podGC"] == {"strategy": "OnWorkflowCompletion", "deleteDelayDuration": "600s"}


def test_the_runs_timeout_is_the_workflows_deadline():
    assert workflow_template(a_pipeline(timeout_seconds=90.0))["spec"]["activeDeadlineSeconds"] == 90


def test_image_namespace_and_service_account_are_settings():
    rendered = workflow_template(a_pipeline(), image="registry.test/bridge:1", namespace="ci", service_account="s")
    assert rendered["metadata"]["namespace"] == "ci"
    assert rendered["spec"]["serviceAccountName"] == "s"
    images = {t["container"]["image"] for t in rendered["spec"]["templates"] if "container" in t}
    assert images == {"registry.test/bridge:1"}
    assert "namespace" not in workflow_template(a_pipeline())["metadata"]


names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
step_names = st.from_regex(r"[A-Za-z]([-A-Za-z0-9]{0,20}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: name not in {"main", "exit"}
)
events = st.text(string.ascii_letters + string.digits + "_:./-", min_size=1, max_size=12).filter(
    lambda name: (
        name[0].isalnum() and name[-1].isalnum() and name not in {"error", "after", "ping", "none", "same-as-run"}
    )
)
seconds = st.integers(1, 10**9).map(lambda milliseconds: milliseconds / 1000)
projects = st.from_regex(r"[A-Za-z0-9_.*?-]{1,8}(/[A-Za-z0-9_.*?-]{1,8})?", fullmatch=True) | st.just(OPTED_IN)
git_globs = st.text(string.ascii_letters + "0123456789*?/@#%&'\",;é", min_size=1, max_size=8).filter(
    lambda glob: not glob.startswith(("refs/", "!"))
)


def tuples(items, **sizes):
    return st.lists(items, unique=True, **sizes).map(tuple)


@st.composite
def pipelines(draw):
    found = draw(st.lists(step_names, min_size=1, max_size=4, unique=True))
    unhandled_ok = draw(st.booleans())
    steps = tuple(
        Step(
            name,
            events=draw(tuples(events, max_size=2)),
            needs=draw(tuples(st.sampled_from(found[:index]), max_size=3)) if index else (),
            tries=draw(st.integers(1, 100)),
            backoff_seconds=draw(seconds),
            timeout_seconds=draw(st.none() | seconds),
            lost=draw(st.integers(0, 100)),
            unhandled_ok=unhandled_ok,
        )
        for index, name in enumerate(found)
    )
    triggers = st.builds(Trigger, events, tuples(git_globs, max_size=2), tuples(git_globs, max_size=2))
    return Pipeline(
        name=draw(names),
        projects=draw(tuples(projects, min_size=1, max_size=3)),
        on=tuple(draw(st.lists(triggers, min_size=1, max_size=3, unique_by=lambda trigger: trigger.event))),
        steps=steps,
        exit=Exit(draw(st.just("") | events), draw(st.just("") | events), draw(seconds)),
        timeout_seconds=float(draw(st.integers(1, 10**6))),
        checkout=draw(st.none() | st.sampled_from(Checkout)),
        concurrency=draw(st.none() | st.sampled_from(Concurrency)),
        notify=draw(tuples(names, max_size=2)),
        report_context=draw(
            st.none() | st.text(string.ascii_letters + "/ -:é'#", min_size=1).filter(lambda t: t == t.strip())
        ),
    )


@settings(deadline=None, max_examples=50)
@given(pipeline=pipelines())
def test_a_rendered_template_reads_back_as_its_pipeline_also_from_its_yaml(pipeline):
    rendered = workflow_template(pipeline)
    assert pipeline_of(rendered) == pipeline
    text = render_yaml(rendered)
    assert yaml.safe_load(text) == rendered
    assert render_yaml(yaml.safe_load(text)) == text


def test_a_rendered_file_says_where_it_comes_from():
    assert render_yaml(workflow_template(a_pipeline())).startswith("# rendered by bridgectl render; do not edit\n")


@pytest.mark.parametrize("word", ["y", "n", "on", "yes", "1e3", "0o7", "1:30", "true", "null", "x"])
def test_a_word_that_kubernetes_yaml_takes_for_something_else_is_quoted(word):
    step = Step("build", events=(word,))
    line = next(
        line for line in render_yaml(workflow_template(a_pipeline(step))).splitlines() if line.endswith(f"{word}'")
    )
    assert line.strip() == f"- '{word}'"
