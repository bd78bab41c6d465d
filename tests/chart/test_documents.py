"""What docs/install.md tells people to write is taken."""

import re
from pathlib import Path

import yaml

from bridge import rendering
from tests.chart.helming import of_kind, rendered

INSTALL = Path(__file__).parents[2] / "docs" / "install.md"


def blocks(language):
    """The code of this language, without the indentation of the list that it is in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", INSTALL.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def test_the_chart_takes_the_values_of_the_guide():
    [text] = [code for code in blocks("yaml") if code.startswith("# values.yaml")]
    values = yaml.safe_load(text.replace("REGISTRY", "images.example.com").replace("YOUR-HOST", "ci.example.com"))
    objects = rendered(values, namespace="bridge")
    assert of_kind(objects, "Ingress")
    [gateway] = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "bridge-gateway"]
    assert gateway["data"]["BRIDGE_GITHUB_APP_ID"] == "12345"


def test_the_pipeline_of_the_guide_is_one_and_brigade_js_has_its_steps(tmp_path):
    [pipeline] = [code for code in blocks("yaml") if code.startswith("# pipelines/")]
    [script] = blocks("js")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "pull-request.yaml").write_text(pipeline)
    [file] = rendering.render(tmp_path / "pipelines", tmp_path / "out", image="bridge:1", namespace="bridge-runs")
    assert Path(file).exists()
    handled = set(re.findall(r'events\.on\("([^"]+)"', script))
    assert handled == {step["name"] for step in yaml.safe_load(pipeline)["steps"]}
