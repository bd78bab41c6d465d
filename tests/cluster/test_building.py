"""The control plane's binaries: where they come from, and what is said when they are not to be had."""

from dataclasses import replace

import pytest

from tests.cluster import building
from tests.cluster.building import CONTROL_PLANE, ETCD, GO_AT_LEAST, PROGRAMS, CannotBuild, binaries, key


def executable(file, text="#!/bin/sh\n"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_kubebuilder_assets_are_taken_as_they_are(tmp_path):
    expected = {name: executable(tmp_path / name) for name in CONTROL_PLANE}
    assert binaries(environment={"KUBEBUILDER_ASSETS": str(tmp_path)}) == expected


def test_what_kubebuilder_assets_lack_is_named_and_not_built(tmp_path):
    executable(tmp_path / "etcd")
    with pytest.raises(CannotBuild, match="has no kube-apiserver, kube-controller-manager: add"):
        binaries(environment={"KUBEBUILDER_ASSETS": str(tmp_path)})


def test_what_kubebuilder_assets_never_hold_is_built_beside_them(tmp_path):
    given = {name: executable(tmp_path / "assets" / name) for name in CONTROL_PLANE}
    kubelet = executable(tmp_path / "cache" / "kubernetes" / key() / "kubelet")
    environment = {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "BRIDGE_CACHE_DIR": str(tmp_path / "cache")}
    assert binaries(*CONTROL_PLANE, "kubelet", environment=environment) == {**given, "kubelet": kubelet}


def test_what_was_built_once_is_not_built_again(tmp_path):
    expected = {name: executable(tmp_path / "kubernetes" / key() / name) for name in CONTROL_PLANE}
    assert binaries(environment={"BRIDGE_CACHE_DIR": str(tmp_path), "PATH": ""}) == expected


def test_another_version_has_another_folder():
    newer = {**PROGRAMS, "etcd": replace(PROGRAMS["etcd"], go_mod=PROGRAMS["etcd"].go_mod.replace(ETCD, "9.9.9"))}
    assert key(newer) != key()


def test_a_go_that_is_new_enough_builds_and_what_it_built_is_kept(tmp_path, capsys):
    go = (
        'if [ "$1" = env ]; then echo go1.99.0; exit; fi\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'printf "%s %s %s" "$GOPROXY" "$GOFLAGS" "$CGO_ENABLED" > "$2"\n'
    )
    executable(tmp_path / "bin" / "go", "#!/bin/sh\n" + go)
    environment = {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "BRIDGE_CACHE_DIR": str(tmp_path / "cache"),
        "GOPROXY": "proxy",
        "GOFLAGS": "-buildvcs=false",
    }
    built = binaries("etcd", environment=environment)["etcd"]
    assert built.read_text() == "proxy -buildvcs=false 0"
    assert sorted(p.name for p in built.parent.iterdir()) == ["building.lock", "etcd"]
    assert "building etcd v3.6.16, once, about 45 seconds" in capsys.readouterr().err


def test_a_build_that_fails_says_what_go_said_and_leaves_no_binary(tmp_path):
    go = 'if [ "$1" = env ]; then echo go1.99.0; exit; fi\necho "no route to proxy" >&2\nexit 1\n'
    executable(tmp_path / "bin" / "go", "#!/bin/sh\n" + go)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "BRIDGE_CACHE_DIR": str(tmp_path / "cache")}
    with pytest.raises(CannotBuild, match=r"etcd.*ended with 1.*no route to proxy"):
        binaries("etcd", environment=environment)
    assert not (tmp_path / "cache" / "kubernetes" / key() / "etcd").exists()


@pytest.mark.parametrize("version", ["go1.22.1", "go1.25", "", "devel"])
def test_a_go_that_is_too_old_is_not_taken(tmp_path, version):
    old = executable(tmp_path / "go", f"#!/bin/sh\necho {version}\n")
    assert building._version(str(old), {}) < GO_AT_LEAST
