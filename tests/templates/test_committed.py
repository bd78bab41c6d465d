"""argo-templates/ is what rendering the pipeline files gives today."""

from pathlib import Path

import pytest
import yaml

from bridge.core.workflow_templates import pipeline_of
from bridge.rendering import read_file, render

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "argo-templates"
SOURCES = {
    "default": ROOT / "bridge/local/default_pipelines/default.yaml",
    "pull-request": ROOT / "examples/widgets/pipelines/pull-request.yaml",
    "push": ROOT / "examples/widgets/pipelines/push.yaml",
}
HAND_WRITTEN = {"native.yaml"}
"""An example of a template without a pipeline file (test_native.py)."""
REMEDY = "run `make render` and commit argo-templates/"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    out = tmp_path_factory.mktemp("rendered")
    for folder in {path.parent for path in SOURCES.values()}:
        render(folder, out)
    return out


def test_each_committed_template_has_a_source_and_each_source_a_template(fresh):
    committed = {path.name for path in COMMITTED.iterdir()} - HAND_WRITTEN
    assert committed == {path.name for path in fresh.iterdir()} == {f"{name}.yaml" for name in SOURCES}, REMEDY


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_committed_template_equals_a_fresh_render(name, fresh):
    committed = (COMMITTED / f"{name}.yaml").read_text(encoding="utf-8")
    rendered = (fresh / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(committed) == yaml.safe_load(rendered), REMEDY
    assert committed == rendered, REMEDY


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_committed_template_reads_back_as_its_pipeline_file(name):
    template = yaml.safe_load((COMMITTED / f"{name}.yaml").read_text(encoding="utf-8"))
    assert pipeline_of(template) == read_file(SOURCES[name])
