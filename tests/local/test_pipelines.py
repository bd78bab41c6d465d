import json
from pathlib import Path

import pytest

from bridge.core.pipelines import Pipeline, Step, Trigger
from bridge.errors import BadPipeline, NotFound
from bridge.local.pipelines import TemplatePipelines

_ROOT = Path(__file__).parents[2]


def _template(name, *, on="push", projects="acme/widgets", **more):
    """A small WorkflowTemplate written by hand, as JSON, which is YAML."""
    annotations = {"bridge.brigade.sh/projects": projects, "bridge.brigade.sh/on": on}
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTemplate",
            "metadata": {"name": name, "annotations": annotations if on else {}},
            "spec": {
                "entrypoint": "main",
                "templates": [
                    {"name": "main", "dag": {"tasks": [{"name": "build", "template": "build"}]}},
                    {"name": "build", "container": {"image": "busybox", "command": ["true"]}},
                ],
                **more,
            },
        }
    )


def _names(pipelines):
    return [pipeline.name for pipeline in pipelines.all()]


def test_the_committed_templates_are_pipelines():
    pipelines = TemplatePipelines(_ROOT / "argo-templates")
    assert pipelines.broken() == []
    assert {"default", "pull-request", "push"} <= set(_names(pipelines))
    assert pipelines.read("push").projects == ("acme/widgets",)


def test_a_template_written_by_hand_is_a_pipeline(tmp_path):
    (tmp_path / "mine.yaml").write_text(_template("mine"))
    pipelines = TemplatePipelines(tmp_path)
    expected = Pipeline(
        name="mine",
        projects=("acme/widgets",),
        on=(Trigger("push"),),
        steps=(Step("build", tries=None, native=True),),
    )
    assert pipelines.read("mine") == expected
    assert pipelines.all() == [expected]
    assert pipelines.template("mine") == json.loads(_template("mine"))


def test_a_template_is_a_copy_that_its_reader_may_change(tmp_path):
    (tmp_path / "mine.yaml").write_text(_template("mine"))
    pipelines = TemplatePipelines(tmp_path)
    pipelines.template("mine")["spec"]["templates"].clear()
    assert pipelines.template("mine") == json.loads(_template("mine"))


def test_a_template_without_annotations_is_a_template_but_no_pipeline(tmp_path):
    (tmp_path / "plain.yaml").write_text(_template("plain", on=""))
    pipelines = TemplatePipelines(tmp_path)
    assert pipelines.template("plain")["metadata"]["name"] == "plain"
    assert pipelines.all() == pipelines.broken() == []
    with pytest.raises(NotFound, match="plain is no pipeline; annotate it"):
        pipelines.read("plain")


def test_a_file_may_hold_several_documents_and_other_kinds(tmp_path):
    documents = [_template("one"), "", "kind: ConfigMap\ndata: {now: 2024-01-01}", _template("two")]
    (tmp_path / "all.yml").write_text("\n---\n".join(documents))
    (tmp_path / "notes.txt").write_text(_template("three"))
    (tmp_path / ".hidden.yaml").write_text(_template("four"))
    pipelines = TemplatePipelines(tmp_path)
    assert _names(pipelines) == ["one", "two"]
    assert pipelines.broken() == []


def test_dates_stay_text(tmp_path):
    text = "kind: WorkflowTemplate\nmetadata: {name: a, labels: {since: 2024-01-01}}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert TemplatePipelines(tmp_path).template("a")["metadata"]["labels"] == {"since": "2024-01-01"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"kind: [", "it is no YAML: "),
        (b"kind: \xff\xfe", "it is no YAML"),
        (b"- a", "it is no WorkflowTemplate, it has no `kind`; if it is a pipeline file, run `bridgectl render`"),
        (b"steps: [build]\non: push", "run `bridgectl render`"),
        (b"kind: WorkflowTemplate", "metadata.name: the WorkflowTemplate has no name; give it one"),
        (b"kind: WorkflowTemplate\nmetadata: 5", "metadata.name"),
        (b"kind: WorkflowTemplate\nmetadata: {name: 5}", "metadata.name"),
        (b"? [a]\n: b", "it is no YAML"),
        (b"[" * 5000, "it is no YAML"),
        (
            _template("bad", on="pull_requst: {branches: 5}").encode(),
            "WorkflowTemplate bad: annotation bridge.brigade.sh/on",
        ),
        (_template("bad", entrypoint="nowhere").encode(), "spec.entrypoint: there is no template `nowhere`"),
        (b"#" * 5_000_000, "it is longer than"),
    ],
    ids=range(12),
)
def test_what_cannot_be_read_is_set_aside_with_its_reason_and_stops_nothing_else(tmp_path, content, complaint):
    (tmp_path / "bad.yaml").write_bytes(content)
    (tmp_path / "good.yaml").write_text(_template("good"))
    pipelines = TemplatePipelines(tmp_path)
    assert _names(pipelines) == ["good"]
    ((path, reason),) = pipelines.broken()
    assert path == tmp_path / "bad.yaml"
    assert all(line.startswith(f"{path}: ") for line in reason.splitlines())
    assert complaint in reason
    for ask in (pipelines.read, pipelines.template):
        with pytest.raises(BadPipeline) as caught:
            ask("bad")
        assert str(caught.value) == reason


def test_what_is_not_there_is_not_found(tmp_path):
    pipelines = TemplatePipelines(tmp_path, tmp_path / "nowhere")
    assert pipelines.all() == pipelines.broken() == []
    for ask in (pipelines.read, pipelines.template):
        for name in ("nothing", "", "\udcff"):
            with pytest.raises(NotFound):
                ask(name)


def test_a_name_twice_in_one_folder_is_refused_by_both_files(tmp_path):
    (tmp_path / "a.yaml").write_text(_template("same"))
    (tmp_path / "b.yaml").write_text(_template("same", on="pull_request"))
    pipelines = TemplatePipelines(tmp_path)
    assert pipelines.all() == []
    ((path, reason),) = pipelines.broken()
    assert path == tmp_path / "a.yaml"
    assert f"the WorkflowTemplate same is also in {tmp_path / 'b.yaml'}; keep one of them" in reason
    with pytest.raises(BadPipeline, match="keep one of them"):
        pipelines.read("same")
    (tmp_path / "b.yaml").write_text("\n---\n".join([_template("other"), _template("other")]))
    assert _names(pipelines) == ["same"]
    with pytest.raises(BadPipeline, match="twice in this file"):
        pipelines.template("other")


def test_a_name_in_an_earlier_folder_hides_it_in_later_ones(tmp_path):
    for folder, on in (("mine", "pull_request"), ("theirs", "push")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.yaml").write_text(_template("default", on=on))
    (tmp_path / "theirs" / "y.yaml").write_text(_template("more"))
    pipelines = TemplatePipelines(tmp_path / "mine", tmp_path / "theirs")
    assert _names(pipelines) == ["default", "more"]
    assert pipelines.read("default").on == (Trigger("pull_request"),)
    assert pipelines.broken() == []


def test_what_changes_is_seen_at_the_next_question_and_the_rest_is_not_read_again(tmp_path):
    (tmp_path / "a.yaml").write_text(_template("a"))
    (tmp_path / "b.yaml").write_text(_template("b"))
    pipelines = TemplatePipelines(tmp_path)
    a, b = pipelines.all()
    assert (pipelines.read("a"), pipelines.read("b")) == (a, b)
    (tmp_path / "b.yaml").write_text(_template("b", on="pull_request"))
    assert pipelines.read("a") is a
    assert pipelines.read("b").on == (Trigger("pull_request"),)
    (tmp_path / "a.yaml").unlink()
    assert _names(pipelines) == ["b"]
