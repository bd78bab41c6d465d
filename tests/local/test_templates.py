"""WorkflowTemplates as plans: what one machine runs, and why it refuses the rest."""

import copy
from pathlib import Path

import pytest
import yaml

from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.workflows import workflow_template
from bridge.errors import BadPipeline
from bridge.local.templates import EXIT_NODE, Program, plan_of

ARGUMENTS = {"run": "pr-1", "attempt": "2"}
COMMITTED = sorted((Path(__file__).parents[2] / "argo-templates").glob("*.yaml"))


def planned(template, *, run_on_host=True, arguments=ARGUMENTS):
    return plan_of(template, name="pr-1-2", uid="u-1", arguments=arguments, run_on_host=run_on_host)


def container(*command, **fields):
    return {"command": list(command or ("true",)), **fields}


def some_template(*tasks, spec=None, **templates):
    """A DAG of `tasks`; each is a mapping, or a name for a task of the template `a`."""
    listed = [task if isinstance(task, dict) else {"name": task, "template": "a"} for task in tasks or ("a",)]
    given = {"a": {"container": container()}, "main": {"dag": {"tasks": listed}}, **templates}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "pr"},
        "spec": {
            "entrypoint": "main",
            "templates": [{"name": name, **template} for name, template in given.items()],
            **(spec or {}),
        },
    }


def refusal(template, **options):
    with pytest.raises(BadPipeline) as caught:
        planned(template, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", [one for one in COMMITTED if one.stem != "native"], ids=lambda path: path.stem)
def test_the_rendered_templates_can_be_run_without_host_commands(path):
    plan = planned(yaml.safe_load(path.read_text()), run_on_host=False)
    assert plan.tasks
    assert all(task.program is Program.STEP for task in plan.tasks)
    assert plan.exit.program is Program.EXIT
    assert plan.exit.timeout_seconds == 180
    assert plan.deadline_seconds


def test_native_steps_need_a_cluster_or_host_commands():
    (native,) = [one for one in COMMITTED if one.stem == "native"]
    assert "ordinary containers need a cluster or --jobs=host" in refusal(
        yaml.safe_load(native.read_text()), run_on_host=False
    )


def test_there_are_committed_templates():
    assert {path.stem for path in COMMITTED} >= {"default", "pull-request", "push"}


def test_a_rendered_pipeline_becomes_its_plan():
    steps = (
        Step("build", ("build",), tries=3, timeout_seconds=600),
        Step("lint", ("lint",), needs=("build",)),
        Step("ship", ("ship",), needs=("build", "lint")),
    )
    pipeline = Pipeline("pr", ("acme/widgets",), (Trigger("push"),), steps, Exit(), timeout_seconds=90)
    plan = planned(workflow_template(pipeline), run_on_host=False)
    build, lint, ship = plan.tasks
    assert build.command().words == ("--tries", "3", "--timeout", "10m", "-e", "build")
    assert build.command().environment["BRIDGE_RUN"] == "pr-1"
    assert build.command().environment["BRIDGE_ATTEMPT"] == "2"
    assert build.command().environment["BRIDGE_STEP"] == "build"
    assert build.command().environment["BRIDGE_WORKFLOW"] == "pr-1-2"
    assert build.command().environment["BRIDGE_WORKFLOW_UID"] == "u-1"
    assert build.command().environment["BRIDGE_COMMIT"] == ""
    assert build.retry.limit == 10
    assert build.retry.pause_seconds == 5
    assert plan.deadline_seconds == 90
    assert not plan.fail_fast
    assert plan.leaves == (ship,)
    assert (lint.timeout_seconds, plan.exit.timeout_seconds) == (None, 180)
    assert plan.exit.name == EXIT_NODE


@pytest.mark.parametrize(
    ("command", "args", "program", "words"),
    [
        (["brig"], ["run", "-e", "x"], Program.STEP, ("-e", "x")),
        (["/usr/local/bin/brig", "exec"], ["p"], Program.STEP, ("p",)),
        (["bridgectl", "brig", "run", "-e"], ["x"], Program.STEP, ("-e", "x")),
        (["bridgectl"], ["exit"], Program.EXIT, ()),
        (["sh", "-c"], ["brig run"], Program.HOST, ("sh", "-c", "brig run")),
        (["brig", "project"], ["list"], Program.HOST, ("brig", "project", "list")),
    ],
)
def test_a_command_is_known_by_its_words(command, args, program, words):
    template = some_template(a={"container": {"image": "x", "command": command, "args": args}})
    task = planned(template).tasks[0]
    assert (task.program, task.command().words) == (program, words)


def test_ordinary_containers_need_a_cluster_or_a_permission():
    said = refusal(some_template(), run_on_host=False)
    assert said == (
        "WorkflowTemplate pr cannot be run: template a: container: ordinary containers need a cluster or "
        "--jobs=host; without isolation only `brig run` and `bridgectl exit` run here"
    )


def test_arguments_reach_the_container():
    template = some_template(
        {
            "name": "a",
            "template": "a",
            "arguments": {"parameters": [{"name": "x", "value": "{{workflow.name}}!"}]},
        },
        spec={"arguments": {"parameters": [{"name": "commit", "value": "c0ffee"}, {"name": "n", "value": 3}]}},
        a={
            "inputs": {"parameters": [{"name": "x"}, {"name": "y", "default": True}]},
            "retryStrategy": {"limit": 1},
            "container": container(
                "echo",
                "{{inputs.parameters.x}} {{inputs.parameters.y}} {{workflow.parameters.n}} {{retries}}",
                env=[{"name": "C", "value": "{{workflow.parameters.commit}}"}, {"name": "EMPTY"}],
            ),
        },
    )
    command = planned(template).tasks[0].command(tried=1)
    assert command.words == ("echo", "pr-1-2! true 3 1")
    assert command.environment == {"C": "c0ffee", "EMPTY": ""}


def test_the_value_of_an_argument_is_not_read_as_a_template():
    template = some_template(a={"container": container("echo", "{{workflow.parameters.evil}}")})
    plan = planned(template, arguments={**ARGUMENTS, "evil": "{{workflow.uid}} {{="})
    assert plan.tasks[0].command().words == ("echo", "{{workflow.uid}} {{=")


def test_the_exit_handler_knows_the_status_and_nobody_else_does():
    told = {"container": container("echo", "{{workflow.status}}")}
    template = some_template(spec={"onExit": "bye"}, bye=told)
    assert planned(template).exit.command(status="Failed").words == ("echo", "Failed")
    assert "{{workflow.status}} stands for nothing" in refusal(some_template(a=told))


def test_an_entrypoint_of_one_container_is_one_task():
    plan = planned(some_template(spec={"entrypoint": "a"}))
    assert [task.name for task in plan.tasks] == ["a"]
    assert plan.leaves == plan.tasks


def test_the_smaller_parallelism_counts():
    dag = {"dag": {"tasks": [{"name": "a", "template": "a"}]}, "parallelism": 2}
    assert planned(some_template(spec={"parallelism": 3}, main=dag)).parallelism == 2
    assert planned(some_template(spec={"parallelism": 1}, main=dag)).parallelism == 1
    assert planned(some_template()).parallelism is None


def test_the_smaller_timeout_counts():
    template = some_template(a={"container": container(), "timeout": "2m", "activeDeadlineSeconds": 60})
    assert planned(template).tasks[0].timeout_seconds == 60


def test_templates_that_nobody_uses_are_not_judged():
    assert planned(some_template(odd={"suspend": {}}))


def test_what_only_a_cluster_needs_is_passed_over():
    ours = container(
        "brig", "run", image="x", resources={}, securityContext={}, volumeMounts=[{"name": "v", "mountPath": "/v"}]
    )
    template = some_template(
        spec={"serviceAccountName": "s", "volumes": [{"name": "v"}], "podGC": {}, "ttlStrategy": {}, "hooks": {}},
        a={"container": ours, "metadata": {"labels": {"a": "b"}}, "nodeSelector": {"x": "y"}, "daemon": False},
    )
    assert planned(template)


def dag_of(**task):
    return some_template({"name": "a", "template": "a", **task})


def one(**fields):
    return some_template(a={"container": container(), **fields})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (some_template(spec={"suspend": True}), "spec: suspend: the one-machine engine does not know this field"),
        (some_template(spec={"hooks": {"exit": {}}}), "spec: hooks"),
        (some_template(spec={"synchronization": {"mutexes": []}}), "spec: synchronization"),
        (some_template(spec={"retryStrategy": {"limit": 1}}), "spec: retryStrategy"),
        (some_template(spec={"templateDefaults": {"timeout": "1m"}}), "spec: templateDefaults"),
        (some_template(spec={"workflowTemplateRef": {"name": "x"}}), "spec: workflowTemplateRef"),
        (some_template(spec={"onExitt": "a"}), "spec: onExitt"),
        (some_template(spec={"entrypoint": "nowhere"}), "spec.entrypoint: there is no template `nowhere`"),
        (some_template(spec={"onExit": "nowhere"}), "spec.onExit: there is no template `nowhere`"),
        (some_template(spec={"onExit": "main"}), "spec.onExit: the exit handler must be one container"),
        (some_template(spec={"activeDeadlineSeconds": "60"}), "activeDeadlineSeconds: must be a whole number"),
        (some_template(spec={"activeDeadlineSeconds": 0}), "activeDeadlineSeconds"),
        (some_template(spec={"parallelism": 0}), "parallelism"),
        (some_template(spec={"arguments": {"parameters": [{"name": "p"}]}}), "parameter p has no value"),
        (
            some_template(spec={"arguments": {"parameters": [{"name": "p", "valueFrom": {"x": 1}}]}}),
            "spec.arguments: parameters: valueFrom",
        ),
        (some_template(spec={"arguments": {"artifacts": [{"name": "x"}]}}), "spec.arguments: artifacts"),
        (dag_of(when="true"), "task a: when"),
        (dag_of(withItems=[1]), "task a: withItems"),
        (dag_of(withParam="[]"), "task a: withParam"),
        (dag_of(hooks={"x": {}}), "task a: hooks"),
        (dag_of(onExit="a"), "task a: onExit"),
        (dag_of(continueOn={"failed": True}), "task a: continueOn"),
        (dag_of(templateRef={"name": "x"}), "task a: templateRef"),
        (dag_of(template="nowhere"), "task a: there is no template `nowhere`"),
        (dag_of(template="main"), "a dag in a dag"),
        (dag_of(name="../a"), "a name has at most"),
        (some_template(spec={"entrypoint": "x/y"}, **{"x/y": {"container": container()}}), "a name has at most"),
        (dag_of(depends="b"), "it depends on `b`, which is no task"),
        (dag_of(depends="a &"), "task a: depends: expected"),
        (dag_of(depends="a"), "wait for each other"),
        (dag_of(depends="b", dependencies=["b"]), "both depends and dependencies"),
        (some_template("a", "a"), "two tasks have one name"),
        (
            some_template(
                {"name": "a", "template": "a", "depends": "b"},
                {"name": "b", "template": "a", "depends": "a.Failed"},
            ),
            "wait for each other",
        ),
        (some_template(main={"dag": {"tasks": []}}), "it has no tasks"),
        (some_template(main={"dag": {"tasks": [{"name": "a", "template": "a"}], "target": "a"}}), "dag: target"),
        (
            some_template(main={"dag": {"tasks": [{"name": "a", "template": "a"}]}, "timeout": "1m"}),
            "timeout: it is not known here for a whole dag",
        ),
        (some_template(main={"steps": [[{"name": "a", "template": "a"}]]}), "template main: steps"),
        (some_template(main={}), "template main: it must have either"),
        (some_template(a={"script": {"source": "x"}}), "template a: script"),
        (some_template(a={"suspend": {"duration": "1"}}), "template a: suspend"),
        (one(suspend={}), None),
        (one(sidecars=[{"name": "x"}]), "template a: sidecars"),
        (one(initContainers=[{"name": "x"}]), "template a: initContainers"),
        (one(daemon=True), "template a: daemon"),
        (one(memoize={"key": "x"}), "template a: memoize"),
        (one(synchronization={"mutexes": [{"name": "x"}]}), "template a: synchronization"),
        (one(outputs={"parameters": [{"name": "x"}]}), "template a: outputs"),
        (one(inputs={"artifacts": [{"name": "x"}]}), "inputs: artifacts"),
        (one(inputs={"parameters": [{"name": "x"}]}), "wants a parameter `x`"),
        (one(parallelism=1), "template a: parallelism"),
        (one(timeout="soon"), "is no duration"),
        (one(retryStrategy={"limit": "many"}), "is no whole number"),
        (one(retryStrategy={"limit": -1}), "is no whole number"),
        (one(retryStrategy={"limit": "{{inputs.parameters.n}}"}), "stands for nothing"),
        (one(retryStrategy={"retryPolicy": "OnTransientError"}), "known are Always, OnFailure, OnError"),
        (one(retryStrategy={"expression": "true"}), "evaluates no expressions"),
        (one(retryStrategy={"backoff": {"factor": 2}}), "backoff: duration: is missing"),
        (one(retryStrategy={"backoff": {"duration": "1s", "maxDuration": "1m"}}), "backoff: maxDuration"),
        (one(container={"image": "x"}), "it has no command"),
        (one(container=container("echo", "{{workflow.failures}}")), "{{workflow.failures}} stands for nothing"),
        (one(container=container("echo", "{{retries}}")), "{{retries}} stands for nothing"),
        (one(container=container("echo", "{{=1}}")), "is an expression"),
        (
            one(container=container("echo", "$(A)", env=[{"name": "A", "value": "1"}])),
            "filled in by Kubernetes only",
        ),
        (one(container=container(envFrom=[{"secretRef": {}}])), "container: envFrom"),
        (one(container=container(env=[{"name": "A", "valueFrom": {"x": 1}}])), "env: valueFrom"),
        (one(container=container(env=[{"name": "A", "value": 1}])), "must be text"),
        (one(container=container(volumeMounts=[{"name": "x"}])), "container: volumeMounts"),
        (one(container=container(workingDir="/x")), "container: workingDir"),
        (one(container=container(livenessProbe={"exec": 1})), "container: livenessProbe"),
        ({"metadata": {"name": "pr"}}, "spec: is missing"),
        ({"metadata": {"name": "pr"}, "spec": []}, "spec: must be a mapping"),
        ({"spec": {"entrypoint": "a", "templates": [{}]}}, "each needs a name of its own"),
        (
            {"spec": {"entrypoint": "a", "templates": [{"name": "a"}, {"name": "a"}]}},
            "each needs a name of its own",
        ),
    ],
    ids=range(73),
)
def test_what_cannot_be_run_is_refused_with_the_reason(template, said):
    if said is None:
        assert planned(template)
        return
    assert said in refusal(template)


def test_a_field_that_says_nothing_is_no_hindrance():
    template = some_template({"name": "a", "template": "a", "when": "", "withItems": None, "depends": ""})
    before = copy.deepcopy(template)
    assert planned(template)
    assert template == before
