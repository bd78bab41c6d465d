"""A git host of the tests: bare repositories over HTTP, by git's own CGI program, for whoever knows the password."""

import base64
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *arguments: str) -> str:
    """Run git there; what it printed."""
    argv = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    told = {"PATH": os.environ["PATH"], "HOME": os.devnull, **IDENTITY}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=told, timeout=60).stdout.strip()


def commit(folder: Path, text: str) -> str:
    """A new commit of a work tree, on top of what it stands at; its id."""
    (folder / "file").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


class GitHost:
    """Bare repositories in a folder. With a password nobody reads without it; `asked` are the requests so far."""

    def __init__(self, folder: Path, *, password: str = "", protocols: bool = True) -> None:
        program = Path(git(folder, "--exec-path")) / "git-http-backend"
        if not program.exists():
            pytest.skip("git's http-backend is not installed here")
        self.folder = folder
        self.password = password
        self.protocols = protocols
        """Whether it knows the newer protocol."""
        self.program = program
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self.away = 0
        """So many requests it answers with 503."""
        self.redirect: tuple[str, str] | None = None
        """A prefix of paths, and where it has moved to."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.host = self
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self, name: str) -> Path:
        """A new bare repository, `<url>/<name>`."""
        path = self.folder / name
        path.mkdir(parents=True)
        git(path, "init", "-q", "--bare", "-b", "main")
        return path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def git_host(folder: Path, **options) -> Iterator[GitHost]:
    """A host for a `with` block."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed here")
    folder.mkdir(parents=True, exist_ok=True)
    host = GitHost(folder, **options)
    try:
        yield host
    finally:
        host.close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_arguments):
        """Tests print nothing."""

    def do_GET(self):
        host: GitHost = self.server.host
        path, _, query = self.path.partition("?")
        host.asked.append(f"{self.command} {self.path}")
        said = self.headers.get("Authorization", "")
        host.authorizations.append(said)
        if host.away > 0:
            host.away -= 1
            self._answer(503, {})
            return
        if host.redirect and path.startswith(host.redirect[0]):
            self._answer(301, {"Location": self.path.replace(*host.redirect, 1)})
            return
        password = base64.b64decode(said.removeprefix("Basic ") or b"").decode().partition(":")[2]
        if host.password and password != host.password:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="tests"'})
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(host.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            **IDENTITY,
        }
        if host.protocols:
            told["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        argv = [str(host.program)]
        done = subprocess.run(argv, input=body, capture_output=True, env=told, timeout=60)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self._answer(int(headers.pop("Status", "200").split()[0]), headers, content)

    do_POST = do_GET  # noqa: N815 - the server's way

    def _answer(self, status, headers, content=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
