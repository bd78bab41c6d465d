import pytest

from bridge.errors import Misconfigured, Unavailable
from bridge.local.containers import remove_containers, working_engine


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Makes commands on the PATH out of shell scripts."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        return name

    return make


def test_an_engine_without_its_daemon_is_passed_over(engine):
    engine("first", "echo 'Cannot connect to the daemon' >&2; exit 1")
    engine("second", '[ "$1" = info ] && exit 0')
    assert working_engine(("first", "second")) == ("second",)


def test_the_order_decides(engine):
    engine("first", "exit 0")
    engine("second", "exit 0")
    assert working_engine(("second", "first")) == ("second",)


def test_without_a_working_engine_all_complaints_and_the_remedy_are_told(engine):
    engine("dead", "echo some banner; echo 'Cannot connect to the daemon' >&2; exit 1")
    engine("mute", "exit 3")
    with pytest.raises(Misconfigured) as raised:
        working_engine(("dead", "mute", "not-there-at-all"))
    assert str(raised.value) == (
        "no container engine to run jobs in (dead: Cannot connect to the daemon; mute: exit code 3; "
        "not-there-at-all: not installed): start one, or run jobs as processes of this machine, isolated from "
        "nothing, with --jobs=host"
    )


def test_an_engine_that_hangs_is_not_waited_for(engine):
    engine("stuck", "sleep 1000 & sleep 1000")
    with pytest.raises(Misconfigured, match=r"stuck: no answer within 0\.3 s"):
        working_engine(("stuck",), timeout_seconds=0.3)


def test_containers_are_removed_by_their_builds_label(engine, tmp_path):
    asked = tmp_path / "asked"
    engine("box", f'echo "$@" >>{asked}; [ "$1" = ps ] && echo "WARNING: old" >&2 && echo 0123456789ab; exit 0')
    assert remove_containers(("box",), "b1") == 1
    assert asked.read_text().splitlines() == [
        "ps --all --quiet --filter label=build=b1",
        "kill 0123456789ab",
        "rm --force 0123456789ab",
    ]


def test_a_container_that_cannot_be_killed_since_it_has_ended_is_removed(engine):
    engine("box", '[ "$1" = ps ] && echo 0123456789ab; [ "$1" != kill ]')
    assert remove_containers(("box",), "b1") == 1


def test_no_containers_is_nothing_to_remove(engine, tmp_path):
    engine("box", f"echo $1 >>{tmp_path}/asked")
    assert remove_containers(("box",), "b1") == 0
    assert (tmp_path / "asked").read_text() == "ps\n"


def test_a_container_that_went_by_itself_is_removed(engine):
    engine("box", '[ "$1" = ps ] && echo 0123456789ab && exit 0; echo "Error: No such container: 01" >&2; exit 1')
    assert remove_containers(("box",), "b1") == 1


@pytest.mark.parametrize("script", ["exit 1", '[ "$1" = ps ] && echo 0123456789ab && exit 0; exit 1'])
def test_an_engine_that_does_not_remove_is_unavailable(engine, script):
    engine("box", script)
    with pytest.raises(Unavailable, match="box did not remove a build's containers"):
        remove_containers(("box",), "b1")


def test_an_engine_that_is_gone_is_unavailable():
    with pytest.raises(Unavailable, match="cannot start not-there-at-all"):
        remove_containers(("not-there-at-all",), "b1")
