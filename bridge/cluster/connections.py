"""Where the API server is and who we are: from a pod's ServiceAccount, or from a kubeconfig.

Tokens are asked for at every request and read again when their file changes, because the kubelet replaces a
ServiceAccount's about every hour. Nothing of a token or key is in a message or a repr.
"""

import base64
import binascii
import json
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from bridge.errors import Misconfigured

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_EXEC_TIMEOUT_SECONDS = 60.0
_EXPIRES_EARLY_SECONDS = 30.0
_MAX_FILE_BYTES = 4 * 1024 * 1024
_SUPPORTED_USER_KEYS = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "exec",
    }
)

Pem = Path | bytes
"""A file, or what would be in it."""


class Tokens(Protocol):
    """Who hands out the bearer token."""

    def current(self) -> str:
        """The token for a request now; empty: none is sent. Raises Misconfigured."""
        ...

    def renew(self, refused: str) -> bool:
        """The server refused this token: whether there is another one now. Raises Misconfigured."""
        ...


class FixedToken:
    """One token for ever; an empty one is none."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    def current(self) -> str:
        """The token."""
        return self._token

    def renew(self, refused: str) -> bool:
        """There never is another one."""
        return refused != self._token


class TokenFile:
    """A token in a file that somebody replaces now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[object, str] | None = None

    def current(self) -> str:
        """What the file holds; it is looked at each time and read when it changed. Raises Misconfigured."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            known = self._known
            if known is not None and known[0] == stamp:
                return known[1]
            token = self._path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as exc:
            raise Misconfigured(
                f"the token {self._path} cannot be read ({_why(exc)}); mount the ServiceAccount's token there"
            ) from exc
        self._known = (stamp, token)
        return token

    def renew(self, refused: str) -> bool:
        """Whether the file holds another one by now."""
        self._known = None
        return self.current() != refused


class ExecTokens:
    """Tokens from a kubeconfig's `exec` plugin (`aws eks get-token`, `gke-gcloud-auth-plugin`, …).

    Args:
        argv: the command.
        environment: the plugin's whole environment.
        api_version: the version of ExecCredential that the kubeconfig names.

    """

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], api_version: str) -> None:
        self._argv = list(argv)
        info = {"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        self._environment = {**environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        self._lock = threading.Lock()
        self._token = ""
        self._expires: float | None = 0.0

    def current(self) -> str:
        """A token that has not expired; the plugin runs when one is needed. Raises Misconfigured."""
        with self._lock:
            expired = self._expires is not None and time.time() > self._expires - _EXPIRES_EARLY_SECONDS
            if not self._token or expired:
                self._token, self._expires = self._asked()
            return self._token

    def renew(self, refused: str) -> bool:
        """Run the plugin again."""
        with self._lock:
            if self._token == refused:
                self._token = ""
        return self.current() != refused

    def _asked(self) -> tuple[str, float | None]:
        plugin = self._argv[0]
        try:
            done = subprocess.run(
                self._argv,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None,
                timeout=_EXEC_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Misconfigured(
                f"the kubeconfig's exec plugin {plugin} did not run ({_why(exc)}); run it by hand to see why"
            ) from exc
        if done.returncode != 0:
            raise Misconfigured(
                f"the kubeconfig's exec plugin {plugin} ended with {done.returncode}; log in with it again"
            )
        try:
            status = json.loads(done.stdout)["status"]
            token, expires = status["token"], status.get("expirationTimestamp")
            return str(token), None if expires is None else datetime.fromisoformat(expires).timestamp()
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Misconfigured(
                f"the kubeconfig's exec plugin {plugin} answered no token; "
                "use a kubeconfig with a token or a client certificate"
            ) from exc


@dataclass(frozen=True)
class Connection:
    """An API server and who we are there. Nothing secret is in its repr."""

    server: str
    """`https://host:port`, maybe with a path; `http://` only for a proxy on this machine."""
    tokens: Tokens = field(default_factory=FixedToken, repr=False)
    namespace: str = "default"
    """The one to use when none is said."""
    authority: Pem | None = field(default=None, repr=False)
    """Who signs the server's certificate; None: whom this machine trusts."""
    certificate: Pem | None = field(default=None, repr=False)
    key: Pem | None = field(default=None, repr=False)
    server_name: str = ""
    """The name in the server's certificate, if it is not the host's."""
    verified: bool = True
    """False: the server's certificate is not looked at."""
    origin: str = ""
    """Where all this was read, for messages."""


def find_connection(
    environment: Mapping[str, str],
    *,
    kubeconfig: Path | None = None,
    context: str = "",
    service_account: Path = SERVICE_ACCOUNT,
) -> Connection:
    """The connection that this environment means: a kubeconfig that is named, `KUBECONFIG`, the pod's own
    ServiceAccount, `~/.kube/config`. Raises Misconfigured."""
    named = (
        [kubeconfig] if kubeconfig else [Path(one) for one in environment.get("KUBECONFIG", "").split(":") if one]
    )
    if named:
        return kubeconfig_connection(named, context=context, environment=environment)
    if environment.get("KUBERNETES_SERVICE_HOST") and not context:
        return pod_connection(environment, service_account=service_account)
    home = Path(environment.get("HOME") or "/") / ".kube" / "config"
    if home.is_file():
        return kubeconfig_connection([home], context=context, environment=environment)
    raise Misconfigured("no cluster is known here: set KUBECONFIG, or run in a pod with a ServiceAccount's token")


def pod_connection(environment: Mapping[str, str], *, service_account: Path = SERVICE_ACCOUNT) -> Connection:
    """The connection of a pod. Raises Misconfigured if it was given no token."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Misconfigured("KUBERNETES_SERVICE_HOST is not set: this is no pod; set KUBECONFIG")
    tokens = TokenFile(service_account / "token")
    tokens.current()
    try:
        namespace = (service_account / "namespace").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        namespace = ""
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        tokens=tokens,
        namespace=namespace or "default",
        authority=service_account / "ca.crt",
        origin="the pod's ServiceAccount",
    )


def kubeconfig_connection(
    paths: Sequence[Path], *, context: str = "", environment: Mapping[str, str] | None = None
) -> Connection:
    """The connection of a context, of several files as kubectl merges them: what is named first stands.

    Raises Misconfigured naming file and field. `environment` is what an exec plugin gets.
    """
    files = [_loaded(path) for path in paths if len(paths) == 1 or path.is_file()]
    where = ", ".join(map(str, paths))
    chosen = context or next((name for one in files if (name := one.content.get("current-context"))), "")
    if not isinstance(chosen, str) or not chosen:
        raise Misconfigured(f"{where}: no current-context; run `kubectl config use-context NAME`, or name one")
    _, found = _named(files, "contexts", "context", chosen, where=where)
    cluster_file, cluster = _named(files, "clusters", "cluster", _text(found, "cluster", where), where=where)
    user_name = _text(found, "user", where)
    user_file, user = _named(files, "users", "user", user_name, where=where) if user_name else (cluster_file, {})
    if cluster.get("proxy-url"):
        raise Misconfigured(f"{cluster_file.path}: proxy-url is not supported; forward a port instead")
    return Connection(
        server=_text(cluster, "server", where) or _missing(where, "server"),
        tokens=_tokens(user_file, user, user_name, environment or {}),
        namespace=_text(found, "namespace", where) or "default",
        authority=_pem(cluster_file, cluster, "certificate-authority"),
        certificate=_pem(user_file, user, "client-certificate"),
        key=_pem(user_file, user, "client-key"),
        server_name=_text(cluster, "tls-server-name", where),
        verified=cluster.get("insecure-skip-tls-verify") is not True,
        origin=f"{where}, context {chosen}",
    )


def tls_context(connection: Connection) -> ssl.SSLContext:
    """The TLS side of a connection, its files read now. Raises Misconfigured."""
    try:
        context = ssl.create_default_context(cadata=_text_of(connection.authority))
        # Clusters' own authorities often lack the key identifiers that Python 3.13 began to insist on.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not connection.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if connection.certificate is not None:
            _load_certificate(context, connection.certificate, connection.key)
    except (OSError, ValueError) as exc:
        raise Misconfigured(
            f"{connection.origin or connection.server}: its certificates cannot be used ({_why(exc)}); "
            "check the authority, the client certificate and its key"
        ) from exc
    return context


def _load_certificate(context: ssl.SSLContext, certificate: Pem, key: Pem | None) -> None:
    # OpenSSL takes a client certificate from a file only; this one is our user's alone and gone at once.
    with tempfile.NamedTemporaryFile(prefix="bridge-") as file:
        file.write(_bytes_of(certificate) + b"\n" + (_bytes_of(key) if key is not None else b""))
        file.flush()
        context.load_cert_chain(file.name)


def _text_of(pem: Pem | None) -> str | None:
    return None if pem is None else _bytes_of(pem).decode("ascii", "replace")


def _bytes_of(pem: Pem) -> bytes:
    return pem if isinstance(pem, bytes) else pem.read_bytes()


@dataclass(frozen=True)
class _File:
    path: Path
    content: Mapping[str, Any]


def _loaded(path: Path) -> _File:
    import yaml  # noqa: PLC0415 - a step's process, in its pod, never needs it

    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES)
        content = yaml.safe_load(raw)
    except OSError as exc:
        raise Misconfigured(f"the kubeconfig {path} cannot be read ({_why(exc)}); check KUBECONFIG") from exc
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        # What the parser says would quote the file.
        raise Misconfigured(f"the kubeconfig {path} is no YAML; run `kubectl config view`") from None
    if not isinstance(content, dict):
        raise Misconfigured(f"the kubeconfig {path} is no mapping; run `kubectl config view`")
    return _File(path, content)


def _named(
    files: Sequence[_File], section: str, part: str, name: str, *, where: str
) -> tuple[_File, Mapping[str, Any]]:
    for file in files:
        entries = file.content.get(section)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(part), dict):
                return file, entry[part]
    raise Misconfigured(f"{where}: there is no {part} {name[:100]!r}; `kubectl config view` shows those there are")


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    value = values.get(key) or ""
    if not isinstance(value, str):
        raise Misconfigured(f"{where}: {key} is no text; put it in quotes")
    return value


def _missing(where: str, key: str) -> str:
    raise Misconfigured(f"{where}: {key} is missing; run `kubectl config view`")


def _pem(file: _File, values: Mapping[str, Any], key: str) -> Pem | None:
    encoded = _text(values, f"{key}-data", str(file.path))
    if encoded:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise Misconfigured(f"{file.path}: {key}-data is no base64; make the kubeconfig anew") from None
    named = _text(values, key, str(file.path))
    return file.path.parent / named if named else None


def _tokens(file: _File, user: Mapping[str, Any], name: str, environment: Mapping[str, str]) -> Tokens:
    unknown = sorted(key for key, value in user.items() if value and key not in _SUPPORTED_USER_KEYS)
    if unknown:
        raise Misconfigured(
            f"{file.path}: user {name[:100]!r}: {unknown[0][:100]} is not supported; "
            "use a token, a client certificate or an exec plugin"
        )
    token, token_file = _text(user, "token", str(file.path)), _text(user, "tokenFile", str(file.path))
    # kubectl's order: a token file wins over a token.
    if token_file:
        return TokenFile(file.path.parent / token_file)
    if token:
        return FixedToken(token)
    return _exec_tokens(file, user["exec"], environment) if user.get("exec") else FixedToken()


def _exec_tokens(file: _File, plugin: object, environment: Mapping[str, str]) -> Tokens:
    wrong = Misconfigured(f"{file.path}: the user's exec names no command; run `kubectl config view`")
    if not isinstance(plugin, dict) or not isinstance(plugin.get("command"), str) or not plugin["command"]:
        raise wrong
    command = plugin["command"]
    # As in kubectl: a path with a slash is meant from the kubeconfig's folder.
    argv = [str(file.path.parent / command) if "/" in command else command, *map(str, plugin.get("args") or [])]
    try:
        added = {str(one["name"]): str(one["value"]) for one in plugin.get("env") or []}
    except (KeyError, TypeError) as exc:
        raise wrong from exc
    return ExecTokens(argv, environment={**environment, **added}, api_version=str(plugin.get("apiVersion")))


def _why(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLError):
        return str(exc.reason or "TLS")
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return type(exc).__name__
