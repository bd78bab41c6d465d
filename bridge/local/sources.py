"""A build's source: the run's commit of a git repository, or a plain folder as it is."""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bridge.errors import Misconfigured, NotFound, Unavailable
from bridge.local import durable, processes

FETCH_SECONDS = 900.0
"""How long one git command may take."""

_FETCHES = 3
_PAUSE_SECONDS = 2.0
_PROTOCOLS = "file:git:http:https:ssh"
"""Without `ext`, which runs what a URL says."""
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/:]+@?[^/:]*:(?!:)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/@\s]+@")
_CLONE = ("clone", "--quiet", "--local", "--no-checkout", "--no-tags", "--template=", "--")
_LONGEST_COMPLAINT = 300
_NOT_THERE = (
    "couldn't find remote ref",
    "not our ref",
    "unadvertised object",
    "no such remote ref",
    "does not point to a valid object",
)
"""What git says when asking again cannot help."""

_OF_ANOTHER_REPOSITORY = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""`git rev-parse --local-env-vars`: set where a hook started us."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What to build from."""

    source: str
    """A URL, an absolute path of a git repository or of a plain folder, or empty for none."""
    commit: str = ""
    """A full commit, or what git can resolve to one."""
    ref: str = ""
    """Full or bare; followed only where there is no commit."""
    token: str = field(default="", repr=False)
    """For https."""
    withheld: tuple[Path, ...] = ()
    """Absolute paths that no job gets from a plain folder: the project's secrets, and all builds' folders."""


@dataclass(frozen=True)
class Source:
    """What there is to build from."""

    folder: str
    """An absolute path, or empty for none."""
    commit: str = ""
    """The full commit that is checked out there; empty for a plain folder."""


def is_repository(source: str) -> bool:
    """Whether git has to fetch from `source`."""
    if _URL.match(source):
        return True
    path = Path(source)
    return (path / ".git").exists() or all((path / name).exists() for name in ("HEAD", "objects", "refs"))


def make_source(wanted: Wanted, *, target: Path, mirrors: Path, pin: Path, say: Say) -> Source:
    """Check out `wanted` at `target`, an absolute path where nothing is yet, or answer a plain folder as it is;
    one that has something to withhold is copied to `target` without it.

    Where only a ref is wanted, the first build of a run decides which commit that is; `pin` is the file that
    keeps it, and later builds of the run get the same. `mirrors` is the folder of the fetched repositories.

    Raises NotFound if there is no such source or revision, Unavailable if it could not be fetched, and
    Misconfigured without git.
    """
    if not wanted.source:
        return Source("")
    try:
        if not is_repository(wanted.source):
            return _plain_folder(wanted, target, say)
        return _checkout(wanted, target=target, mirrors=mirrors, pin=pin, say=say)
    except OSError as error:
        raise Unavailable(
            f"cannot copy the source {_shown(wanted.source)}: {error.strerror} ({error.filename}); "
            "is the disk full, or something not readable?"
        ) from error


def _checkout(wanted: Wanted, *, target: Path, mirrors: Path, pin: Path, say: Say) -> Source:
    commit = wanted.commit or _pinned(pin)
    mirror = _Mirror(wanted, mirrors / f"{hashlib.sha256(wanted.source.encode()).hexdigest()[:32]}.git", say)
    with mirror.locked():
        mirror.begin()
        found = mirror.commit(commit) if commit else mirror.head_of(wanted.ref)
        if not commit:
            durable.publish(pin, f"{found}\n".encode())
            # Another build of this run may have been first, with what the ref was then.
            found = mirror.commit(_pinned(pin) or found)
        mirror.check_out(found, target)
    say(f"checked out {found} of {_shown(wanted.source)}")
    return Source(str(target), found)


def _plain_folder(wanted: Wanted, target: Path, say: Say) -> Source:
    folder = Path(wanted.source)
    if not folder.is_dir():
        raise NotFound(
            f"the project's source {wanted.source} is not there: correct `repository` in its project.yaml"
        )
    say(f"the source {folder} is a plain folder: built as it is now, whatever the event's revision")
    withheld = {path.resolve() for path in wanted.withheld if path.exists()}
    if not any(path.is_relative_to(folder.resolve()) for path in withheld):
        return Source(str(folder))
    _copy(folder, target, withheld)
    return Source(str(target))


def _copy(folder: Path, target: Path, withheld: set[Path]) -> None:
    """Copy folders, files and links, with their modes; sockets, pipes and devices are left out."""
    target.mkdir(mode=durable.PRIVATE_FOLDER)
    for entry in list(folder.iterdir()):
        if entry.is_symlink():
            (target / entry.name).symlink_to(entry.readlink())
        elif entry.resolve() in withheld:
            continue
        elif entry.is_dir():
            _copy(entry, target / entry.name, withheld)
        elif entry.is_file():
            shutil.copy2(entry, target / entry.name)
    shutil.copymode(folder, target)


def _pinned(pin: Path) -> str:
    try:
        return pin.read_text("ascii").strip()
    except FileNotFoundError:
        return ""


class _Mirror:
    """A bare repository that keeps what was fetched from one source; all builds of this machine share it."""

    def __init__(self, wanted: Wanted, folder: Path, say: Say) -> None:
        self._wanted = wanted
        self._folder = folder
        self._say = say

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the lock ends with its holder, however that dies."""
        durable.make_folder(self._folder.parent)
        handle = os.open(self._folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("waiting for another build to fetch the same repository")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def begin(self) -> None:
        """Make the repository; harmless when it is there, also half."""
        self._local("init", "--quiet", "--bare", "--template=", str(self._folder))
        # A fetch that was killed leaves its locks; we hold ours, so that nobody else's are among them.
        for name in ("shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock", "FETCH_HEAD.lock"):
            (self._folder / name).unlink(missing_ok=True)
        for lock in (self._folder / "refs").rglob("*.lock"):
            lock.unlink(missing_ok=True)

    def commit(self, name: str) -> str:
        """The full commit of `name`, fetched if need be."""
        full = _FULL_COMMIT.fullmatch(name) is not None
        if full and self._has(name):
            return name
        if full and self._fetched(f"+{name}:refs/bridge/{name}") and self._has(name):
            return name
        self._fetched("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if self._wanted.ref and self._is_ref(self._wanted.ref):
            self._fetched(f"+{self._wanted.ref}:refs/bridge/ref")
        found = self._resolved(name)
        if not found:
            raise NotFound(self._missing(f"commit {name[:80]}"))
        self._keep(found)
        return found

    def head_of(self, ref: str) -> str:
        """The full commit that `ref` points at now; of the default branch if it is empty."""
        if ref and not self._is_ref(ref):
            raise NotFound(self._missing(f"ref {ref[:80]!r}, which is no ref's name"))
        if not self._fetched(f"+{ref or 'HEAD'}:refs/bridge/ref"):
            raise NotFound(self._missing(f"ref {ref[:80] or 'HEAD'}"))
        found = self._resolved("refs/bridge/ref")
        if not found:
            raise NotFound(self._missing(f"commit behind ref {ref[:80] or 'HEAD'}"))
        self._keep(found)
        return found

    def check_out(self, commit: str, target: Path) -> None:
        """Make a whole clone at `target`, on `commit`; it needs the mirror no more."""
        self._must(*_CLONE, str(self._folder), str(target))
        self._must("-C", str(target), "remote", "set-url", "origin", "--", _shown(self._wanted.source))
        self._must("-C", str(target), "checkout", "--quiet", "--force", "--detach", commit, "--")

    def _is_ref(self, ref: str) -> bool:
        return not ref.startswith("-") and self._local("check-ref-format", "--allow-onelevel", ref).code == 0

    def _has(self, commit: str) -> bool:
        return self._resolved(commit) == commit

    def _resolved(self, name: str) -> str:
        if name.startswith("-"):
            return ""
        ended = self._in_mirror("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}")
        # Warnings may stand before it.
        answer = ended.output.rpartition("\n")[2]
        return answer if ended.code == 0 and _FULL_COMMIT.fullmatch(answer) else ""

    def _keep(self, commit: str) -> None:
        """Never let git collect a commit that a retry may ask for."""
        self._must("--git-dir", str(self._folder), "update-ref", f"refs/bridge/{commit}", commit)

    def _fetched(self, *refspecs: str) -> bool:
        """Fetch; False if the other side has no such thing. Raises Unavailable."""
        # A branch `a` that became `a/b` cannot be fetched without --prune; a single commit would be pruned by it.
        prune = ["--prune"] if any("*" in refspec for refspec in refspecs) else []
        argv = ["fetch", "--quiet", "--no-tags", *prune, "--", self._wanted.source, *refspecs]
        ended = self._in_mirror(*argv)
        for number in range(1, _FETCHES):
            if ended.code == 0 or _is_not_there(ended):
                break
            self._say(f"git fetch failed, trying again: {self._complaint(ended)}")
            time.sleep(_PAUSE_SECONDS * number)
            ended = self._in_mirror(*argv)
        if ended.code == 0:
            return True
        if _is_not_there(ended):
            return False
        raise Unavailable(
            f"cannot fetch {_shown(self._wanted.source)}: {self._complaint(ended)}; "
            "check `repository` and the credentials for it, then retry"
        )

    def _in_mirror(self, *argv: str) -> processes.Ended:
        return self._local("--git-dir", str(self._folder), *argv)

    def _must(self, *argv: str) -> None:
        ended = self._local(*argv)
        if ended.code != 0:
            raise Unavailable(
                f"git cannot make the checkout: {self._complaint(ended)}; if this repeats, remove {self._folder}, "
                "which holds only what can be fetched again"
            )

    def _local(self, *argv: str) -> processes.Ended:
        env = git_environment(os.environ, self._wanted)
        try:
            return processes.run(["git", *argv], timeout_seconds=FETCH_SECONDS, env=env, with_parent=True)
        except FileNotFoundError as error:
            raise Misconfigured("git is not installed: install it, or give the project a plain folder") from error
        except OSError as error:
            raise Unavailable(f"cannot start git: {error.strerror}") from error

    def _complaint(self, ended: processes.Ended) -> str:
        if ended.code is None:
            return f"no end within {FETCH_SECONDS:g} s"
        said = _CREDENTIALS.sub("://", " ".join(ended.output.split()))
        if self._wanted.token:
            said = said.replace(self._wanted.token, "***")
        return said[-_LONGEST_COMPLAINT:] or f"exit code {ended.code}"

    def _missing(self, what: str) -> str:
        return (
            f"{_shown(self._wanted.source)} has no {what}: was it pushed there, or rewritten since? "
            "Nothing else is built in its place"
        )


def git_environment(environment: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
    """The environment of git: it asks nobody, is bound to no other repository, and has the token for https.

    A token is in no argument, since every user of the machine can read those.
    """
    env = {name: value for name, value in environment.items() if name not in _OF_ANOTHER_REPOSITORY}
    settings: list[tuple[str, str]] = [
        # While we hold the lock, not behind our back.
        ("gc.autoDetach", "false"),
        ("maintenance.autoDetach", "false"),
        ("core.fsync", "all"),
        ("core.hooksPath", "/dev/null"),
        ("advice.detachedHead", "false"),
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "60"),
        *_login(wanted),
    ]
    env |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_CONFIG_COUNT": str(len(settings)),
        "LC_ALL": "C",
    }
    env.setdefault("GIT_ASKPASS", "true")
    env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    for number, (key, value) in enumerate(settings):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def _login(wanted: Wanted) -> Sequence[tuple[str, str]]:
    url = urlsplit(wanted.source)
    if not wanted.token or url.scheme != "https" or url.username:
        return ()
    basic = base64.b64encode(f"x-access-token:{wanted.token}".encode()).decode()
    return ((f"http.https://{url.netloc}/.extraHeader", f"Authorization: Basic {basic}"),)


def _is_not_there(ended: processes.Ended) -> bool:
    return any(words in ended.output for words in _NOT_THERE)


def _shown(source: str) -> str:
    """A source without the password that it may hold."""
    return _CREDENTIALS.sub("://", source)
