"""The first process of a node's namespaces: it starts everything there, and with its end everything there ends.

`node.Node` starts it. It says `{}` when it is there, reads a line when the host has laid the cable, says which control plane
it is when the node is Ready, and ends when its standard input does.
"""

import json
import os
import select
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.cluster import node
from tests.cluster.building import PAUSE_IMAGE, binaries, pause
from tests.cluster.client import path
from tests.cluster.control_plane import CannotStart, ControlPlane, Processes, _found
from tests.cluster.node import Place
from tests.cluster.packages import program

POLL_SECONDS = 0.2
CNI_PLUGINS = "/usr/lib/cni"


class NodeProcesses(Processes):
    """The control plane with a scheduler, a container runtime and a kubelet. `place`: whose addresses it takes."""

    def __init__(self, folder: Path, place: Place, *, own_crds: bool) -> None:
        super().__init__(folder, bind_address=place.address, controllers=["*"], strict=False if own_crds else None)
        self._place = place

    def start(self) -> ControlPlane:
        """Start all and wait until the node is Ready and can run pods."""
        control_plane = super().start()
        self._binaries = {**binaries(*node.PROGRAMS), "containerd": Path(program("containerd"))}
        self._start_containerd()
        self._spawn("kube-scheduler", f"--config={self._scheduler_configuration()}", "--secure-port=0")
        self._spawn(
            "kubelet",
            f"--config={self._kubelet_configuration()}",
            f"--kubeconfig={control_plane.kubeconfig}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet' / 'certificates'}",
            f"--hostname-override={self._place.name}",
            f"--node-ip={self._place.address}",
        )
        self._until("kubelet", self._is_node_ready)
        return control_plane

    def pids(self) -> dict[int, subprocess.Popen[bytes]]:
        """The processes that were started here."""
        return {process.pid: process for process in self._running.values()}

    def _start_containerd(self) -> None:
        self._spawn("containerd", "--config", str(self._containerd_configuration()))
        self._until("containerd", node.socket_of(self.folder).exists)
        node.import_image(self.folder, pause())

    def _is_node_ready(self) -> bool:
        with self.control_plane.admin.client() as admin:
            if not _found(admin, path("nodes", name=self._place.name)):
                return False
            found = admin.get(path("nodes", name=self._place.name))
            conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
            # Taken away by a controller a moment after it is Ready: until then no pod is placed.
            return conditions.get("Ready") == "True" and not found["spec"].get("taints")

    def _scheduler_configuration(self) -> Path:
        return self._written(
            "kube-scheduler.json",
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "clientConnection": {"kubeconfig": str(self.control_plane.kubeconfig)},
                "leaderElection": {"leaderElect": False},
            },
        )

    def _kubelet_configuration(self) -> Path:
        return self._written(
            "kubelet.json",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": self._place.address,
                # The API server has no certificate to show here. Pods cannot reach it, see _protect.
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                "authorization": {"mode": "AlwaysAllow"},
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{self._place.name}",
                "containerRuntimeEndpoint": f"unix://{node.socket_of(self.folder)}",
                "enforceNodeAllocatable": ["pods"],
                # A disk that is nearly full is not what is tested.
                "evictionHard": {"imagefs.available": "0%", "memory.available": "50Mi", "nodefs.available": "0%"},
                "failCgroupV1": False,
                "failSwapOn": False,
                "imageGCHighThresholdPercent": 100,
                "makeIPTablesUtilChains": False,
                "oomScoreAdj": 0,
                "podLogsDir": "/var/log/pods",
                "readOnlyPort": 0,
                "registryPullQPS": 0,
                "resolvConf": "/etc/resolv.conf",
            },
        )

    def _containerd_configuration(self) -> Path:
        cni = self.folder / "cni"
        cni.mkdir(exist_ok=True)
        self._written("cni/10-bridge.conflist", self._cni_configuration())
        file = self.folder / "containerd.toml"
        # TOML's strings are JSON's.
        q = json.dumps
        file.write_text(f"""\
version = 2
root = {q(str(self.folder / "containerd"))}
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = {q(str(node.socket_of(self.folder)))}
[plugins."io.containerd.internal.v1.opt"]
  path = {q(str(self.folder / "containerd" / "opt"))}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {q(PAUSE_IMAGE)}
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {q(CNI_PLUGINS)}
    conf_dir = {q(str(cni))}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = {q(program("runc"))}
""")
        return file

    def _cni_configuration(self) -> dict:
        return {
            "cniVersion": "1.0.0",
            "name": "bridge",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "mtu": node.MTU,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.folder / "cni" / "addresses"),
                        "ranges": [[{"subnet": self._place.pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _written(self, name: str, configuration: dict) -> Path:
        file = self.folder / name
        file.write_text(json.dumps(configuration, indent=2))
        return file


def main(folder: Path, place: Place, *, own_crds: bool) -> int:
    """Start the node, say so, and stay until there is no one to stay for."""
    try:
        _make_mounts(folder)
        _say({})
        if not sys.stdin.readline():
            return 0
        _make_network(place)
        processes = NodeProcesses(folder, place, own_crds=own_crds)
        control_plane = processes.start()
        _protect(place, control_plane)
        _say(asdict(control_plane))
        _stay(processes)
    except CannotStart as failure:
        print(failure, file=sys.stderr, flush=True)
        return 1
    return 0


def _say(what: dict) -> None:
    print(json.dumps(what, default=str), flush=True)


def _make_mounts(folder: Path) -> None:
    # kubelet passes mounts on to containers, for which they must be shared; not with the host, from which unshare parted us.
    _do("mount", "--make-rshared", "/")
    for point in node.MOUNT_POINTS:
        own = folder / "mounts" / point.replace("/", "-").strip("-")
        own.mkdir(parents=True, exist_ok=True)
        if point.startswith("/run/"):
            _do("mount", "-t", "tmpfs", "-o", "mode=0711", "tmpfs", point)
        else:
            _do("mount", "--bind", str(own), point)


def _make_network(place: Place) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "addr", "add", f"{place.address}/30", "dev", "eth0")
    _do("ip", "link", "set", "eth0", "up")
    _do("ip", "route", "add", "default", "via", place.host_address)
    _do("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", place.pods, "-o", "eth0", "-j", "MASQUERADE")


def _protect(place: Place, control_plane: ControlPlane) -> None:
    """What kube-proxy would do for the one Service `kubernetes`, and what a kubelet with certificates would do for itself."""
    port = control_plane.url.rpartition(":")[2]
    to_api = [
        "-d",
        "10.96.0.1",
        "-p",
        "tcp",
        "--dport",
        "443",
        "-j",
        "DNAT",
        "--to-destination",
        f"{place.address}:{port}",
    ]
    _do("iptables", "-w", "-t", "nat", "-A", "PREROUTING", *to_api)
    _do("iptables", "-w", "-A", "INPUT", "-i", "cni0", "-p", "tcp", "--dport", "10250", "-j", "REJECT")


def _do(name: str, *arguments: str) -> None:
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise CannotStart(
            f"{name} {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-1000:]}"
        )


def _stay(processes: NodeProcesses) -> None:
    """Until standard input ends, or one of the processes does; meanwhile be the parent of those who have none."""
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
        if readable and not sys.stdin.readline():
            return
        _reap(processes.pids())
        if name := processes.ended():
            print(f"{name} ended by itself: stopping the others", file=sys.stderr, flush=True)
            return


def _reap(ours: dict[int, subprocess.Popen[bytes]]) -> None:
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if found.si_pid in ours:
            ours[found.si_pid].poll()  # it keeps the exit code
            return
        os.waitpid(found.si_pid, 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Place(int(sys.argv[2])), own_crds="--own-crds" in sys.argv[3:]))
