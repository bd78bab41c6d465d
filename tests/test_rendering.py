import pytest
import yaml

from bridge.core.workflow_templates import pipeline_of
from bridge.errors import BadPipeline
from bridge.rendering import read, render

PUSH = "projects: acme/widgets\non: push\nsteps: [{name: build}]\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "push.yaml").write_text(PUSH, encoding="utf-8")
    return folder


def test_each_file_becomes_a_template_named_as_its_pipeline(source, tmp_path):
    (source / "b.yaml").write_text(f"name: another\n{PUSH}", encoding="utf-8")
    (source / "README.md").write_text("not read", encoding="utf-8")
    out = tmp_path / "a" / "templates"
    assert render(source, out, image="x:1") == [out / "another.yaml", out / "push.yaml"]
    rendered = [pipeline_of(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(out.iterdir())]
    assert rendered == read(source)


def test_what_else_is_in_the_folder_stays(source, tmp_path):
    (tmp_path / "old.yaml").write_text("a: b", encoding="utf-8")
    render(source, tmp_path)
    render(source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.yaml", "pipelines", "push.yaml"]


def test_all_mistakes_of_all_files_are_told_at_once_and_nothing_is_written(source, tmp_path):
    (source / "a.yaml").write_text("projects: a/b", encoding="utf-8")
    (source / "b.yaml").write_bytes(b"\xff")
    (source / "c.yaml").write_text(f"name: push\n{PUSH}", encoding="utf-8")
    out = tmp_path / "templates"
    with pytest.raises(BadPipeline) as caught:
        render(source, out)
    assert str(caught.value).split("\n") == [
        f"{source / 'a.yaml'}: on: is missing; write for example `on: [push]`",
        f"{source / 'a.yaml'}: steps: is missing; write for example `steps: [{{name: build}}]`",
        f"{source / 'b.yaml'}: is not UTF-8; save it as that",
        f"{source / 'push.yaml'}: name: `push` is also the name in {source / 'c.yaml'}; rename one",
    ]
    assert not out.exists()


def test_a_file_that_would_be_overlooked_is_told(source, tmp_path):
    (source / "more.yml").write_text(PUSH, encoding="utf-8")
    with pytest.raises(BadPipeline, match=r"more.yml: would not be read; rename it to more.yaml"):
        render(source, tmp_path / "out")


def test_pipeline_files_are_not_rendered_over(source):
    with pytest.raises(BadPipeline, match="choose another folder to render into"):
        render(source, source / ".")
    assert (source / "push.yaml").read_text(encoding="utf-8") == PUSH


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_a_folder_that_cannot_be_read_is_named(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadPipeline, match=rf"{name}: .*; name a folder of pipeline files"):
        render(tmp_path / name, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadPipeline, match=r"file: cannot be written to: .*; choose another folder"):
        render(source, tmp_path / "file")
