"""The project's image does what a step pod and the chart ask of it."""

import pytest

from tests.cluster.client import path
from tests.node.pods import RESTRICTED, logs, make_pod, wait_for_end


@pytest.fixture
def restricted(make_namespace):
    return make_namespace(labels=RESTRICTED)


def output(admin, namespace, image, *command):
    """What this command prints in a pod of its own, after it has ended well."""
    name = make_pod(admin, namespace, image, command)
    ended = wait_for_end(admin, namespace, name)
    said = logs(admin, namespace, name)
    assert ended["exitCode"] == 0, said
    return said


def test_its_commands_run_as_a_user_without_rights_on_a_read_only_file_system(admin, restricted, image):
    script = "id -u && brig run --help && bridgectl --help && ! touch /opt/bridge/x /x /tmp/x"
    said = output(admin, restricted, image, "sh", "-c", script)
    assert said.startswith("65532\n")
    assert "usage: brig run" in said
    assert "Usage: bridgectl" in said
    assert said.count("Read-only file system") == 3


def test_everything_in_it_is_compiled_because_it_cannot_be_later(admin, restricted, image):
    script = (
        "import bridge.step, gunicorn, importlib.util, pathlib, sys, sysconfig\n"
        "paths = [pathlib.Path(sysconfig.get_path(name)) for name in ('purelib', 'stdlib')]\n"
        "files = [*paths[0].rglob('*.py'), *paths[1].glob('*.py'), *paths[1].glob('urllib/*.py')]\n"
        "bare = [f for f in files if not pathlib.Path(importlib.util.cache_from_source(f)).exists()]\n"
        "print(len(files) > 500, bare)\n"
    )
    assert output(admin, restricted, image, "/opt/bridge/bin/python", "-P", "-c", script) == "True []\n"


def test_brig_loads_the_step_and_nothing_of_the_gateway(admin, restricted, image):
    script = (
        "cd /opt/bridge && mkdir -p /nowhere 2>/dev/null; "
        "PYTHONVERBOSE=1 brig run --help 2>&1 | sed -n 's/^import .\\([a-z_]*\\).*/\\1/p' | sort -u"
    )
    loaded = output(admin, restricted, image, "sh", "-c", script).split()
    assert "bridge" in loaded
    assert not {"hera", "flask", "pydantic", "rich", "typer", "githubkit", "kubernetes", "gunicorn"} & set(loaded)


def test_pod_security_restricted_takes_it_with_nothing_said_about_its_user(admin, restricted, image):
    name = make_pod(admin, restricted, image, ["brig", "--help"])
    pod = admin.get(path("pods", restricted, name))
    assert "runAsUser" not in pod["spec"]["containers"][0].get("securityContext", {})
    assert wait_for_end(admin, restricted, name)["exitCode"] == 0
