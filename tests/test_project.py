"""The project's own files: locks that fit pyproject.toml and name no host, layers that are written down."""

import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
WEB = "requirements-web.lock"
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-node.lock", "requirements-uv.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text().splitlines()
    pins = [re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line) for line in lines]
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


@pytest.mark.parametrize("lock", [*LOCKS, WEB])
def test_a_lock_names_no_host_and_pins_by_hash(lock):
    text = (ROOT / lock).read_text()
    assert not re.search(r"[a-z]+://", text)
    assert pinned(lock)
    assert text.count("--hash=sha256:") >= len(pinned(lock))


def requirements(lock: str) -> list[str]:
    wanted = list(PROJECT["project"]["dependencies"])
    if lock == "requirements-dev.lock":
        wanted += PROJECT["dependency-groups"]["dev"]
    if lock == "requirements-node.lock":
        wanted += PROJECT["project"]["optional-dependencies"]["node"]
    return wanted


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-node.lock"])
def test_a_lock_holds_what_pyproject_asks_for(lock):
    pins = pinned(lock)
    for wanted in map(Requirement, requirements(lock)):
        version = pins.get(canonicalize_name(wanted.name))
        assert version is not None, f"{lock} lacks {wanted.name}: make lock"
        assert wanted.specifier.contains(version, prereleases=True), f"{lock}: {wanted}: make lock"


def test_the_locks_agree_with_each_other():
    everything = pinned("requirements-dev.lock") | pinned("requirements-node.lock")
    for lock in LOCKS:
        for name, version in pinned(lock).items():
            assert everything[name] == version, f"{name} differs in {lock}: make lock"


def test_the_package_that_htmx_comes_from_is_one_everywhere():
    (wanted,) = PROJECT["dependency-groups"]["web"]
    assert wanted in PROJECT["build-system"]["requires"]
    assert [f"{name}=={version}" for name, version in pinned(WEB).items()] == [wanted]


def test_every_dependency_has_its_reason():
    reasons = (ROOT / "docs/decisions/dependencies.md").read_text()
    named = [
        Requirement(text).name
        for text in (*requirements("requirements-dev.lock"), *PROJECT["dependency-groups"]["web"])
    ]
    assert [name for name in named if f"`{name}`" not in reasons] == []


def test_no_make_target_is_without_a_line_of_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    documented = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(phony) == sorted(documented)


def test_the_worker_of_javascript_is_part_of_the_distribution():
    assert list((ROOT / "bridge/local/worker").glob("*.js"))


def test_the_wheel_holds_htmx(tmp_path):
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=280)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as files:
        script = files.read("bridge/web/static/htmx.min.js")
    assert script.startswith(b"var htmx=")


def test_tests_are_named_alike_in_every_process():
    """pytest-xdist needs it: no name may hold a time, a random number or an address."""

    def collected() -> list[str]:
        argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
        ended = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, timeout=280, check=False)
        assert ended.returncode == 0, ended.stdout[-2000:]
        return ended.stdout.splitlines()[:-1]

    first = collected()
    time.sleep(1.1)  # what is made of the time differs by now
    assert collected() == first
