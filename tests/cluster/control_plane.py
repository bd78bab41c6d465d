"""A control plane of real processes on loopback ports: etcd, kube-apiserver, kube-controller-manager. No nodes.

RBAC is on and every request is in an audit log. All that it makes is in one folder; nothing survives `stop`, and the
processes die with the one that started them. kube-apiserver makes its own certificates, so no tool for that is needed.
"""

import contextlib
import ctypes
import json
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import urllib3

from tests.cluster.building import binaries
from tests.cluster.client import Access, ApiError, Client, path
from tests.ports import free_ports

START_SECONDS = 180
"""Far more than it takes (about 6 s): CI may be loaded."""
HERE = Path(__file__).parent
FULL_CRDS = HERE.parents[2] / "shared" / "argo-crds"
"""Argo's CRDs with their schemas; only some machines have them beside the clone."""
SERVICES = "10.96.0.0/16"
CONTROLLERS = [
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
]
"""No controller that would judge the tests' own nodes and pods."""
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager"]},
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata"},
    ],
}


class CannotStart(Exception):
    """A process of the control plane did not come up; the message holds the end of its log."""


@dataclass(frozen=True)
class ControlPlane:
    """A control plane that runs: where it is and how to be its admin. Plain values, so that it can be handed on as JSON."""

    folder: Path
    url: str
    admin_token: str
    kubeconfig: Path
    strict: bool
    """Argo's full schemas are installed: `fieldValidation="Strict"` finds what Argo would drop."""

    @property
    def ca_file(self) -> Path:
        """What the API server's certificate is checked with."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """One JSON event a line; `auditing.audited` reads it."""
        return self.folder / "audit.jsonl"

    @property
    def admin(self) -> Access:
        """May do everything."""
        return self.access(self.admin_token)

    def access(self, token: str, namespace: str = "default") -> Access:
        """Whoever has this token."""
        return Access(self.url, self.ca_file, token, namespace)


class Processes:
    """The processes of one control plane in one folder. Use as a context manager, or call start and stop.

    `fsync=False` lets etcd trust the page cache: right for tests, wrong for measurements. `audit=False` leaves the audit log
    out, for measurements. `bind_address` other than loopback also makes the API server announce itself there, for nodes.
    `controllers`: which of kube-controller-manager's run (`["*"]` for its default). `strict=False`: our own CRDs of a few lines
    also where Argo's are at hand, whose schemas cost 3 s at the start and 450 MB.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = False,
        audit: bool = True,
        bind_address: str = "127.0.0.1",
        controllers: list[str] | None = None,
        strict: bool | None = None,
    ) -> None:
        self.folder = folder
        self._fsync = fsync
        self._audit = audit
        self._address = bind_address
        self._controllers = controllers or CONTROLLERS
        self._strict = FULL_CRDS.is_dir() if strict is None else strict
        self._admin_token = secrets.token_hex(16)
        self._manager_token = secrets.token_hex(16)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: list[int] = []

    def __enter__(self) -> ControlPlane:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ControlPlane:
        """Start all and wait until they answer. Raises CannotStart, CannotBuild; nothing runs then."""
        self._binaries = binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        for tries_left in (4, 3, 2, 1, 0):
            try:
                return self._start()
            except CannotStart as failure:
                self.stop()
                # Somebody else may bind a port between our finding it free and its use.
                if not tries_left or "address already in use" not in str(failure):
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError

    def stop(self) -> None:
        """Kill all and drop the data; logs stay. There is nothing to save, so nobody is asked politely."""
        for name in list(self._running):
            self._kill(name)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def stop_api_server(self) -> None:
        """Kill the API server alone: connections are reset, later ones refused, data stays."""
        self._kill("kube-apiserver")

    def start_api_server(self) -> None:
        """Start it (again) on its port, and wait until it is ready."""
        etcd_port, _, api_port = self._ports
        certificates = self.folder / "certificates"
        audit = [f"--audit-log-path={self.control_plane.audit_log}", "--audit-log-maxsize=4000"]
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--bind-address={self._address}",
            f"--secure-port={api_port}",
            f"--cert-dir={certificates}",
            f"--token-auth-file={self._tokens()}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # The key that it makes for TLS signs the tokens too: it exists by the time it is read.
            f"--service-account-key-file={certificates / 'apiserver.key'}",
            f"--service-account-signing-key-file={certificates / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={self._audit_policy()}",
            *(audit if self._audit else []),
            # Without it the machine's own address is looked for: a sandbox may have none.
            f"--advertise-address={self._address}",
            *(["--endpoint-reconciler-type=none"] if self._address == "127.0.0.1" else []),
        )
        self._until("kube-apiserver", self._is_ready)

    @property
    def control_plane(self) -> ControlPlane:
        """What `start` returned."""
        url = f"https://{self._address}:{self._ports[2]}"
        return ControlPlane(
            self.folder, url, self._admin_token, self.folder / "admin.kubeconfig", FULL_CRDS.is_dir()
        )

    def ended(self) -> str | None:
        """Name of a process that ended although nobody stopped it, if there is one."""
        return next((name for name, process in self._running.items() if process.poll() is not None), None)

    def _start(self) -> ControlPlane:
        self._ports = free_ports(3)
        self._start_etcd()
        self.start_api_server()
        control_plane = self.control_plane
        control_plane.admin.write_kubeconfig(control_plane.kubeconfig)
        with control_plane.admin.client() as admin:
            # Before the controller manager, whose garbage collector looks for new kinds every 30 s only.
            self._install_crds(admin)
            self._start_controller_manager()
            account = path("serviceaccounts", "default", "default")
            self._until("kube-controller-manager", lambda: _found(admin, account))
        return control_plane

    def _start_etcd(self) -> None:
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        port, peer_port, _ = self._ports
        clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--log-level=warn",
            *([] if self._fsync else ["--unsafe-no-fsync"]),
        )
        self._until("etcd", lambda: _answers(clients + "/health"))

    def _start_controller_manager(self) -> None:
        access = self.control_plane.access(self._manager_token)
        kubeconfig = access.write_kubeconfig(self.folder / "kube-controller-manager.kubeconfig")
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(self._controllers)}",
            f"--root-ca-file={access.ca_file}",
            f"--service-account-private-key-file={access.ca_file.with_suffix('.key')}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )

    def _install_crds(self, admin: Client) -> None:
        files = sorted((FULL_CRDS if self._strict else HERE / "crds").glob("*.yaml"))
        for file in files:
            # As the bytes they are: parsing megabytes of YAML here would take longer than the whole start.
            admin.create(path("customresourcedefinitions"), file.read_bytes(), content_type="application/yaml")
        for file in files:
            self._until("kube-apiserver", lambda kind=file.stem: _found(admin, path(kind)))

    def _tokens(self) -> Path:
        file = self.folder / "tokens.csv"
        file.touch(mode=0o600)
        file.write_text(
            f'{self._admin_token},admin,admin,"system:masters"\n'
            f'{self._manager_token},system:kube-controller-manager,manager,"system:masters"\n'
        )
        return file

    def _audit_policy(self) -> Path:
        file = self.folder / "audit-policy.json"
        file.write_text(json.dumps(AUDIT_POLICY))
        return file

    def _is_ready(self) -> bool:
        control_plane = self.control_plane
        if not control_plane.ca_file.exists():
            return False
        with control_plane.admin.client() as admin:
            return _found(admin, "/readyz")

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(self._binaries[name]), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop them
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )

    def _until(self, name: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            code = self._running[name].poll()
            if code is not None or time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                what = f"did not answer in {START_SECONDS} s" if code is None else f"ended with {code}"
                raise CannotStart(f"{name} {what}; the end of its log: {log[-3000:]}")
            time.sleep(0.05)

    def _kill(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    set_parent_death_signal = 1
    with contextlib.suppress(AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _found(client: Client, what: str) -> bool:
    try:
        client.get(what)
    except (ApiError, urllib3.exceptions.HTTPError):
        return False
    return True
