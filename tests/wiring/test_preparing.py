"""What `bridgectl local` says before it starts, and what it refuses."""

import pytest

from bridge.errors import BadPipeline, Misconfigured
from bridge.settings import load
from bridge.wiring.serving import prepare


def project(folder, name="acme/widgets", more=""):
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(f"name: {name}\nsharedSecret: x\n{more}")
    return folder


def settings(tmp_path):
    return load(projects_dir=tmp_path / "projects", state_dir=tmp_path / "state")


def test_each_project_is_named_with_its_id(tmp_path):
    project(tmp_path / "projects" / "one", more="defaultPipeline: true\n")
    (line,) = prepare(settings(tmp_path))
    assert line.startswith("project acme/widgets (brigade-")
    assert (tmp_path / "state" / "templates" / "default.yaml").is_file()


def test_a_project_for_which_nothing_would_run_is_told_so(tmp_path):
    project(tmp_path / "projects" / "one")
    assert "defaultPipeline: true" in prepare(settings(tmp_path))[1]


def test_a_broken_project_hinders_no_other_and_is_named_once(tmp_path):
    project(tmp_path / "projects" / "one", more="defaultPipeline: true\n")
    bad = project(tmp_path / "projects" / "two", name="acme/gadgets", more="sharedSecrt: x\n")
    line = prepare(settings(tmp_path))[-1]
    assert line.startswith("left out: ")
    assert line.count(str(bad)) == 1


def test_without_any_project_it_does_not_start(tmp_path):
    (tmp_path / "projects").mkdir()
    with pytest.raises(Misconfigured, match=r"has no project: give the folder that holds project\.yaml"):
        prepare(settings(tmp_path))


def test_a_broken_pipeline_file_stops_the_start_with_file_and_field(tmp_path):
    folder = project(tmp_path / "projects" / "one") / "pipelines"
    folder.mkdir()
    (folder / "x.yaml").write_text("projects: acme/widgets\non: push\nsteps: [{name: a, trys: 3}]\n")
    with pytest.raises(BadPipeline, match=r"x\.yaml: steps\[0\]\.trys"):
        prepare(settings(tmp_path))


def test_two_pipelines_of_one_name_stop_the_start(tmp_path):
    for name in ("one", "two"):
        folder = project(tmp_path / "projects" / name, name=f"acme/{name}") / "pipelines"
        folder.mkdir()
        (folder / "ci.yaml").write_text("projects: acme/*\non: push\nsteps: [{name: a}]\n")
    with pytest.raises(Misconfigured, match="the pipeline ci is there twice"):
        prepare(settings(tmp_path))


def test_a_pipeline_that_is_gone_leaves_no_template(tmp_path):
    folder = project(tmp_path / "projects" / "one") / "pipelines"
    folder.mkdir()
    for name in ("ci", "other"):
        (folder / f"{name}.yaml").write_text("projects: acme/*\non: push\nsteps: [{name: a}]\n")
    prepare(settings(tmp_path))
    templates = tmp_path / "state" / "templates"
    assert (templates / "ci.yaml").is_file()
    (folder / "ci.yaml").unlink()
    prepare(settings(tmp_path))
    assert sorted(path.name for path in templates.iterdir()) == ["default.yaml", "other.yaml"]
