"""The project's image as a file, built from the Dockerfile on a base made of Debian packages: no registry is asked.

What was built is kept, named after the content of all that went into it. For root on Debian.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.building import cache_folder, say
from tests.cluster.node import socket_of
from tests.cluster.packages import need, program

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
UNWANTED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The machine's own, so that pip in the build trusts whom the machine trusts."""
BASE = "localhost/bridge-base:1"
SOURCES = ("Dockerfile", ".dockerignore", "LICENSE", "requirements.lock", "requirements-web.lock", "bridge")
BUILD_SECONDS = 1200


class CannotBuildImage(Exception):
    """A program that builds the image failed; the message says which, and the end of what it said."""


@dataclass(frozen=True)
class Image:
    """An image in a file (`docker save`'s format) under the name that pods give."""

    name: str
    archive: Path

    def under(self, node: Path, name: str) -> "Image":
        """The same image under another name too, on the node in this folder, which has it already."""
        command = [program("ctr"), "--address", str(socket_of(node)), "--namespace", "k8s.io"]
        _do(*command, "images", "tag", "--force", self.name, name)
        return replace(self, name=name)


def project_image() -> Image:
    """The image of this working tree, built if it was not yet. Raises CannotBuildImage, CannotInstall."""
    digest = _digest(*sorted(_sources(ROOT)))
    name = f"localhost/brigade-argo-bridge:{digest}"
    archive = cache_folder() / "images" / f"bridge-{digest}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with (archive.parent / "building.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                _build(name, archive)
    return Image(name, archive)


def _build(name: str, archive: Path) -> None:
    need("buildah", "mmdebstrap")
    base = _base_root()
    say(f"building the image {name}, about 1 minute")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="building-") as scratch:
        store = _Store(Path(scratch))
        _make_base(store, base)
        build = ["build", "--quiet", "--isolation", "chroot", "--layers=false", "--build-arg", f"BASE={BASE}"]
        store.do(*build, "--tag", name, str(ROOT))
        fresh = Path(scratch) / archive.name
        store.do("push", "--quiet", name, f"docker-archive:{fresh}:{name}")
        store.empty()
        _forget_older(archive)
        fresh.replace(archive)
    say(f"built it in {time.monotonic() - started:.0f} s, {archive.stat().st_size // 1_000_000} MB")


class _Store:
    """buildah with a store of its own, which goes with its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # vfs copies everything for each step, and works everywhere.
        self._driver = "overlay" if self._works("overlay") else "vfs"

    def do(self, *arguments: str) -> str:
        """What this buildah command prints."""
        return _do(*self._command(self._driver), *arguments)

    def empty(self) -> None:
        """Let go of mounts too, so that the folder can be removed."""
        self.do("rmi", "--all", "--force")

    def _command(self, driver: str) -> list[str]:
        places = ["--root", str(self._folder / driver), "--runroot", str(self._folder / f"{driver}-run")]
        return [program("buildah"), "--storage-driver", driver, *places]

    def _works(self, driver: str) -> bool:
        try:
            container = _do(*self._command(driver), "from", "scratch")
            _do(*self._command(driver), "mount", container)
            _do(*self._command(driver), "rm", container)
        except CannotBuildImage:
            return False
        return True


def _make_base(store: _Store, root: Path) -> None:
    container = store.do("from", "scratch")
    store.do("add", "--quiet", container, str(root), "/")
    store.do("copy", "--quiet", container, str(CERTIFICATES), str(CERTIFICATES))
    store.do("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
    store.do("commit", "--quiet", "--rm", container, BASE)


def _base_root() -> Path:
    """A root file system with Python, as a tar."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, UNWANTED)).encode()).hexdigest()[:8]
    root = cache_folder() / "images" / f"{SUITE}-{recipe}.tar"
    if root.exists():
        return root
    say("making the base of the image from Debian packages, once, about 40 seconds")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="base-") as scratch:
        fresh = Path(scratch) / root.name
        options = [f"--dpkgopt=path-exclude={path}" for path in UNWANTED]
        made = [
            "--variant=essential",
            f"--include={','.join(PACKAGES)}",
            *options,
            '--aptopt=Acquire::Retries "5"',
        ]
        _do(program("mmdebstrap"), "--quiet", *made, SUITE, str(fresh))
        fresh.replace(root)
    say(f"made it in {time.monotonic() - started:.0f} s, {root.stat().st_size // 1_000_000} MB")
    return root


def _sources(root: Path) -> list[Path]:
    found = []
    for name in SOURCES:
        path = root / name
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    unused = {"__pycache__", "htmx.min.js"}  # The build makes these itself.
    return [file for file in found if not unused & set(file.parts) and file.suffix != ".pyc"]


def _digest(*files: Path) -> str:
    digest = hashlib.sha256(repr((SUITE, PACKAGES, UNWANTED)).encode())
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _forget_older(archive: Path) -> None:
    """Keep a few, for those who go to and fro between two states of the tree."""
    older = sorted(archive.parent.glob("bridge-*.tar"), key=lambda file: file.stat().st_mtime)
    for file in older[:-3]:
        file.unlink(missing_ok=True)


def _do(*command: str) -> str:
    quiet = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        raise CannotBuildImage(
            f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout.strip()
