"""A node on which pods really run, with a control plane of its own, for root on Linux.

All of it lives in namespaces of its own (mounts, processes, network; `node_inside` is its first process there), so whatever
way it ends, the kernel takes its processes, mounts, bridges and firewall rules with it. What is left on the host is little and
is removed at the end, and again before the next start: one veth pair, three iptables rules, a cgroup, the folder.

    host  bn<N> 10.243.<N>.1 ── eth0 10.243.<N>.2  API server, kubelet   cni0 10.244.<N>.1 ── pods
"""

import contextlib
import fcntl
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.building import CONTROL_PLANE, binaries, pause
from tests.cluster.control_plane import CannotStart, ControlPlane, _die_with_parent
from tests.cluster.packages import CannotInstall, need, program

ROOT = Path(__file__).parents[2]
PROGRAMS = (*CONTROL_PLANE, "kubelet", "kube-scheduler")
DEBIAN = ("containerd", "runc", "containernetworking-plugins", "iproute2", "iptables", "util-linux")
LOCKS = Path("/run/lock")
CGROUPS = Path("/sys/fs/cgroup")
MOST_NODES = 16
START_SECONDS = 300
STOP_SECONDS = 60
LONGEST_FOLDER = 70
"""A socket's path has at most 107 bytes."""
MTU = 1400
"""As narrow as machines inside machines have it: what pods send gets out in one piece."""
MOUNT_POINTS = ("/run/containerd", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers")
"""Paths that containerd and kubelet have built in; each node has its own there."""


@dataclass(frozen=True)
class Place:
    """Names and addresses of the node with this number. No two that run have the same."""

    number: int

    @property
    def name(self) -> str:
        """Of its cgroups, and of the host's end of its veth pair."""
        return f"bridge-node-{self.number}"

    @property
    def host_address(self) -> str:
        """Where pods reach the host."""
        return f"10.243.{self.number}.1"

    @property
    def address(self) -> str:
        """Where its API server and kubelet listen."""
        return f"10.243.{self.number}.2"

    @property
    def pods(self) -> str:
        """The network of its pods; the first address is the node's."""
        return f"10.244.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        """The node as its pods see it."""
        return f"10.244.{self.number}.1"


def why_not() -> str | None:
    """Why there can be no node here; None if there can."""
    if platform.system() != "Linux":
        return f"a node needs Linux, and this is {platform.system()}"
    if os.geteuid() != 0:
        return "a node needs root: it makes namespaces, mounts and cgroups (sudo -E make …)"
    try:
        may = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
        subprocess.run(may, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as refused:
        said = getattr(refused, "stderr", b"").decode(errors="replace").strip()
        return f"a node needs namespaces of its own, which this machine refuses to root ({said or refused}): unshare(1)"
    return None


def prepare() -> None:
    """Have what a node is made of: Debian packages and binaries. Raises CannotBuild, CannotStart."""
    if reason := why_not():
        raise CannotStart(reason)
    try:
        need(*DEBIAN)
    except CannotInstall as failure:
        raise CannotStart(str(failure)) from failure
    binaries(*PROGRAMS)
    pause()


class Node:
    """One node and its control plane in one folder: what `control_plane.Processes` is without a node."""

    def __init__(self, folder: Path, *, own_crds: bool = False) -> None:
        self.folder = folder
        self._own_crds = own_crds
        self._inside: subprocess.Popen[bytes] | None = None
        self._place: Place | None = None
        self._locks = contextlib.ExitStack()

    def __enter__(self) -> ControlPlane:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ControlPlane:
        """Start all and wait until the node is Ready. Raises CannotStart, CannotBuild; nothing runs then."""
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise CannotStart(f"the path {self.folder} is too long for sockets below it: choose a shorter folder")
        prepare()
        try:
            self._locks.enter_context(_mount_points())
            self._place = self._locks.enter_context(_free_place())
            _sweep_host(self._place)
            _sweep_folder(self.folder)
            return self._start(self._place)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all that runs and remove all that it made; logs stay."""
        inside, self._inside = self._inside, None
        if inside is not None:
            _end(inside)
        place, self._place = self._place, None
        if place is not None:
            _sweep_host(place)
            _sweep_folder(self.folder)
        self._locks.close()

    def ended(self) -> str | None:
        """Name of a process that ended although nobody stopped it, if there is one."""
        return "the node" if self._inside is None or self._inside.poll() is not None else None

    def _start(self, place: Place) -> ControlPlane:
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_cgroups(place)
        with (self.folder / "node.log").open("wb") as log:
            self._inside = subprocess.Popen(
                [
                    *(
                        program("unshare"),
                        "--mount",
                        "--pid",
                        "--fork",
                        "--kill-child",
                        "--net",
                        "--mount-proc",
                        "--",
                    ),
                    *(sys.executable, "-m", "tests.cluster.node_inside", str(self.folder), str(place.number)),
                    *(["--own-crds"] if self._own_crds else []),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )
        assert self._inside.stdin
        self._line("its namespaces")
        _connect(place, self._inside.pid)
        self._inside.stdin.write(b"connected\n")
        self._inside.stdin.flush()
        said = json.loads(self._line("the node"))
        paths = {key: Path(said[key]) for key in ("folder", "kubeconfig")}
        return ControlPlane(url=said["url"], admin_token=said["admin_token"], strict=said["strict"], **paths)

    def _line(self, what: str) -> bytes:
        """The next line that the inside says."""
        assert self._inside
        assert self._inside.stdout
        readable, _, _ = select.select([self._inside.stdout], [], [], START_SECONDS)
        line = self._inside.stdout.readline() if readable else b""
        if not line:
            log = (self.folder / "node.log").read_text(errors="replace")
            how = "ended" if readable else f"was not there in {START_SECONDS} s"
            raise CannotStart(f"{what} {how}; the end of node.log: {log[-4000:]}")
        return line


def socket_of(folder: Path) -> Path:
    """Where the containerd of the node in this folder listens."""
    return folder / "containerd.sock"


def import_image(folder: Path, archive: Path) -> None:
    """Give the node in this folder the images of this archive (`docker save`'s or OCI's format)."""
    command = [program("ctr"), "--address", str(socket_of(folder)), "--namespace", "k8s.io"]
    done = subprocess.run(
        [*command, "images", "import", str(archive)], capture_output=True, text=True, timeout=600
    )
    if done.returncode != 0:
        raise CannotStart(f"ctr images import {archive} ended with {done.returncode}: {done.stderr[-2000:]}")


@contextlib.contextmanager
def _free_place() -> Iterator[Place]:
    """A number that no other node has, until the process ends."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    for number in range(1, MOST_NODES + 1):
        with (LOCKS / f"brigade-argo-bridge-node-{number}").open("a") as lock:
            if _take(lock):
                yield Place(number)
                return
    raise CannotStart(f"{MOST_NODES} nodes run on this machine already: make node-down stops one")


@contextlib.contextmanager
def _mount_points() -> Iterator[None]:
    """The folders that a node mounts its own over. The last node takes them away: while another runs, that would unmount
    what this one has there."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / "brigade-argo-bridge-nodes").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        for point in MOUNT_POINTS:
            Path(point).mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            if _take(lock):
                for point in MOUNT_POINTS:
                    with contextlib.suppress(OSError):  # somebody else's: it is not empty
                        Path(point).rmdir()


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(inside: subprocess.Popen[bytes]) -> None:
    """End the first process of the namespaces and thereby all in them; it is over when the call returns."""
    assert inside.stdin
    assert inside.stdout
    with contextlib.suppress(OSError):
        inside.stdin.close()  # it is told by this
    try:
        inside.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        inside.kill()
        inside.wait()
    inside.stdout.close()


def _connect(place: Place, pid: int) -> None:
    """Lay the cable between the host and the network of this process."""
    link = place.name
    mtu = ("mtu", str(MTU))
    _ip("link", "add", link, *mtu, "type", "veth", "peer", "name", "eth0", *mtu, "netns", str(pid))
    _ip("addr", "add", f"{place.host_address}/30", "dev", link)
    _ip("link", "set", link, "up")
    _ip("route", "add", place.pods, "via", place.address)
    for table, *rule in _rules(place):
        _iptables(table, "-A", *rule)


def _rules(place: Place) -> list[list[str]]:
    """Let the node go out where the host forwards, as table, chain and rule."""
    ours = ["-m", "comment", "--comment", place.name]
    return [
        ["nat", "POSTROUTING", "-s", place.address, "!", "-o", place.name, *ours, "-j", "MASQUERADE"],
        ["filter", "FORWARD", "-i", place.name, *ours, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-o", place.name, *ours, "-j", "ACCEPT"],
    ]


def _sweep_host(place: Place) -> None:
    """Remove what this node, or one before that was killed, left outside of its folder. Twice is harmless."""
    for table, *rule in _rules(place):
        while _iptables(table, "-C", *rule, check=False) and _iptables(table, "-D", *rule, check=False):
            pass
    _ip("link", "del", place.name, check=False)
    _remove_cgroups(place)


def _sweep_folder(folder: Path) -> None:
    for name in ("containerd", "kubelet", "etcd", "certificates", "cni", "mounts"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for socket in folder.glob("containerd.sock*"):
        socket.unlink()


def _cgroups(place: Place) -> list[Path]:
    """Its cgroup in each hierarchy: one with version 2, one a controller with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / place.name]
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    hierarchies = {Path(where) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")}
    return [hierarchy / place.name for hierarchy in sorted(hierarchies) if hierarchy.is_relative_to(CGROUPS)]


def _make_cgroups(place: Place) -> None:
    for cgroup in _cgroups(place):
        cgroup.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1 gives a new one none
            if (cgroup / file).exists() and (cgroup.parent / file).exists():
                (cgroup / file).write_text((cgroup.parent / file).read_text())


def _remove_cgroups(place: Place) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for top in _cgroups(place):
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # what was killed there is not yet gone
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"the cgroup {top} still has processes {STOP_SECONDS} s after their end: see {top}/tasks"
                )
            time.sleep(0.05)


def _ip(*arguments: str, check: bool = True) -> bool:
    return _run(program("ip"), *arguments, check=check)


def _iptables(table: str, *arguments: str, check: bool = True) -> bool:
    return _run(program("iptables"), "-w", "-t", table, *arguments, check=check)


def _run(*command: str, check: bool) -> bool:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise CannotStart(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.returncode == 0
