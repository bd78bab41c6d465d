"""The node itself: whatever way it ends, nothing of it is left."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.accounts import eventually
from tests.cluster.building import PAUSE_IMAGE
from tests.cluster.client import path
from tests.cluster.control_plane import CannotStart
from tests.cluster.holding import down, running, up
from tests.cluster.node import MOST_NODES, Node, Place, _cgroups, socket_of
from tests.cluster.packages import program


def place_of(control_plane):
    """Which node this is."""
    address = control_plane.url.removeprefix("https://").rpartition(":")[0]
    (place,) = [place for place in map(Place, range(1, MOST_NODES + 1)) if place.address == address]
    return place


def processes_of(place, folder):
    """Those that name its folder, and those in its pods."""
    found = {pid for cgroup in _cgroups(place) for file in cgroup.rglob("cgroup.procs") for pid in pids_in(file)}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if str(folder) in (entry / "cmdline").read_text():
                found.add(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def pids_in(file):
    try:
        return [int(pid) for pid in file.read_text().split()]
    except OSError:
        return []


def left_of(place, folder):
    """What there is on the host because of it."""
    links = subprocess.run([program("ip"), "-o", "link"], capture_output=True, text=True).stdout
    rules = subprocess.run([program("iptables-save")], capture_output=True, text=True).stdout
    return {
        "link": f" {place.name}@" in links,
        "firewall rules": f'"{place.name}"' in rules or f"--comment {place.name} " in rules,
        "cgroups": any(cgroup.exists() for cgroup in _cgroups(place)),
        "processes": processes_of(place, folder) != set(),
        "mounts": str(folder) in Path("/proc/mounts").read_text(),
        "images and pods": any((folder / name).exists() for name in ("containerd", "kubelet", "mounts")),
        "socket": socket_of(folder).exists(),
    }


def run_a_pod(control_plane):
    spec = {"containers": [{"name": "main", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}]}
    with control_plane.admin.client() as admin:
        admin.create(path("pods", "default"), {"metadata": {"name": "one"}, "spec": spec})
        where = path("pods", "default", "one")
        eventually(lambda: admin.get(where)["status"]["phase"] == "Running", "the pod runs")


@pytest.fixture
def folder(tmp_path, control_plane):
    """Of another node beside that of all tests, which is there to see that it is possible."""
    # A socket's path has to be short, and tmp_path has the test's name in it.
    where = tmp_path.parent / "another"
    yield where
    down(where)


def test_a_node_that_was_killed_takes_everything_with_it_and_is_started_again(folder):
    first = up(folder, node=True, own_crds=True)
    place = place_of(first)
    run_a_pod(first)
    # But for the mounts, which nobody outside sees.
    assert left_of(place, folder) == {name: name != "mounts" for name in left_of(place, folder)}
    assert up(folder, node=True) == first
    os.kill(json.loads((folder / "control-plane.json").read_text())["pid"], signal.SIGKILL)
    eventually(lambda: not processes_of(place, folder), "what ran in its namespaces is dead")
    assert running(folder) is None

    second = up(folder, node=True, own_crds=True)
    run_a_pod(second)
    assert down(folder)
    for one in {place, place_of(second)}:
        assert left_of(one, folder) == dict.fromkeys(left_of(one, folder), False)
    assert down(folder) is False


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused(tmp_path):
    with pytest.raises(CannotStart, match="too long for sockets"):
        Node(tmp_path / ("x" * 80)).start()
