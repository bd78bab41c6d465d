"""Builds on one machine: a folder each, and a detached supervisor that runs the worker in Node.

A build is made complete in a folder beside its place and renamed there: of many who ask for one id exactly one
succeeds, and what exists is whole. It survives the process that asked for it; only its folder says how it goes.
"""

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import bridge
from bridge.core import names
from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending, Outcome
from bridge.errors import Conflict, Misconfigured, NotFound, Unavailable
from bridge.local import containers, durable, processes
from bridge.local.folders import EMITTED, BuildFolder, Claim, Result, Tombstone
from bridge.local.supervisor import GRACE_SECONDS, Orders

if TYPE_CHECKING:
    from bridge.core.projects import Project
    from bridge.ports import Clock, Projects

Jobs = Literal["container", "host"]

WORKER = Path(__file__).parent / "worker" / "main.js"
POKE_AFTER_SECONDS = 3.0
LOG_BYTES = 4 * 1024 * 1024
"""How much of a log's end is read at most."""

_PIECE_BYTES = 1024 * 1024
_BEYOND_GRACE_SECONDS = 3.0
"""What a supervisor that was told to stop needs besides."""
_LOOKS = 5
_LAST_POKE_SECONDS = 60.0
_USED = ".used"
_NEW = ".new-"
_FORGOTTEN = ".forgotten-"
_PIN = ".revision"
_CHECKPOINTS = ".checkpoints"
_PROJECT_FILE = "project.yaml"
_LOG_LEVEL = "log"
"""With a higher level a worker does not say that it found no handler (facts/brigade.md, Measured)."""

_PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        *("SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "DBUS_SESSION_BUS_ADDRESS"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    }
)
_PASSED_ON_FAMILIES = (
    *("LC_", "XDG_", "GIT_SSL_"),
    *("DOCKER_", "CONTAINER_", "CONTAINERS_", "CONTAINERD_", "NERDCTL_"),
)

_numbers = itertools.count()
_logger = logging.getLogger(__name__)


@dataclass
class _Waiting:
    """When a waiting build is given another supervisor."""

    poke_at: float
    pause_seconds: float


class ProcessBuilds:
    """`ports.Builds` under the folder `state`.

    Args:
        state: this machine's state; the builds are under `builds`, fetched repositories under `mirrors`.
        projects: read anew for each build.
        jobs: whether jobs run in containers or, isolated from nothing, as processes of this machine.
        container_command: the engine's command (`containers.working_engine`); only for jobs in containers.
        node: the command that runs the worker (`node.find_node`).
        worker_command: instead of Node and our worker: the build's folder is its last argument.
        clock: only for the times that are written down; processes are waited for in real time.
        grace_seconds: how long a worker that is told to stop has to stop its jobs.
        poke_after_seconds: how long a build may be seen waiting before it is given another supervisor.

    """

    def __init__(
        self,
        state: Path,
        projects: "Projects",
        *,
        jobs: Jobs,
        clock: "Clock",
        container_command: Sequence[str] = (),
        node: str = "node",
        worker_command: Sequence[str] = (),
        grace_seconds: float = GRACE_SECONDS,
        poke_after_seconds: float = POKE_AFTER_SECONDS,
    ) -> None:
        processes.require_linux()
        self._state = Path(os.path.abspath(state))  # noqa: PTH100 - resolve() would follow links that may change
        self._projects = projects
        self._jobs = jobs
        self._clock = clock
        self._engine = tuple(container_command)
        self._worker = tuple(worker_command) or (node, str(WORKER))
        self._grace_seconds = grace_seconds
        self._poke_after_seconds = poke_after_seconds
        self._waiting: dict[Path, _Waiting] = {}
        self._lock = threading.Lock()

    def find(self, run_id: str, *, epoch: int | None = None, step: str | None = None) -> list[Build]:
        """The builds of a run (or of one epoch, one step), by step and number.

        One that waits for longer than a start takes is given another supervisor: whoever made it may have died
        before it started one. Of many supervisors one claims the build.
        """
        with _told("read the builds of", run_id):
            found = [build for folder in self._folders(run_id) if (build := self._read(folder)) is not None]
        wanted = [build for build in found if epoch in {None, build.epoch} and step in {None, build.step}]
        return sorted(wanted, key=lambda build: (build.step, build.epoch, build.number))

    def highest(self, run_id: str, *, epoch: int, step: str) -> int:
        """The highest number that was used, also if its build's folder was swept away; 0 if none was."""
        with _told("read the builds of", run_id):
            used = self._run_folder(run_id) / _USED
            marks = [path.name.split(".", 2) for path in used.iterdir()] if used.is_dir() else []
            key = _segment(step)
            numbers = [int(number) for of, number, name in marks if (int(of), name) == (epoch, key)]
            specs = [spec for folder in self._folders(run_id) if (spec := folder.spec()) is not None]
            here = [_integer(spec, "number") for spec in specs if (spec["epoch"], spec["step"]) == (epoch, step)]
        return max([0, *numbers, *here])

    def create(self, spec: BuildSpec) -> None:
        """Ask for a build; it is on the disk before this answers, and its supervisor starts at once.

        Raises Conflict if the id was ever used, Unavailable, and Misconfigured, all with nothing created.
        """
        run = self._run_folder(spec.run)
        folder = BuildFolder(run / _segment(spec.id))
        used = run / _USED / f"{spec.epoch}.{spec.number}.{_segment(spec.step)}"
        orders = self._orders(spec, self._projects.read(spec.event.project))
        with _told("create", spec.id):
            if folder.path.exists() or used.exists():
                raise Conflict(f"build {spec.id} (number {spec.number} of {spec.step}) was created before")
            durable.make_folder(run)
            if not self._moved_in(spec, orders, folder):
                raise Conflict(f"build {spec.id} (number {spec.number} of {spec.step}) is there already")
            # It exists. Dying here leaves the folder itself as the mark; `find` starts what nobody started.
            with suppress(OSError):
                durable.make_folder(used.parent)
                durable.write_new(used, b"")
                durable.sync_folder(used.parent)
        self._start_supervisor(folder)

    def give_up(self, build: Build, *, reason: str, ending: Ending) -> None:
        """End a build for good: the tombstone, then a claim so that nobody starts it, then what runs of it.

        Repeat it if it fails: each part is harmless twice. A build with a result or an outcome keeps it.
        Raises Unavailable if something of it could not be ended.
        """
        folder = self._folder(build)
        if not folder.path.is_dir():
            return
        with _told("give up", build.id):
            if folder.result() is not None:
                return
            if folder.outcome() is None:
                folder.write_tombstone(Tombstone(reason, ending, self._clock.now()))
            self._stop(folder)
            with suppress(OSError):
                folder.sweep()

    def record(self, build: Build, outcome: Outcome) -> Outcome:
        """Write what a build came to; answers what stands, which is the first writing. Raises NotFound.

        One that was given up is ended first, should whoever gave it up have died before that: nobody counts a
        build as ended while its worker goes on. Raises Unavailable if it could not be ended.
        """
        folder = self._folder(build)
        with _told("write the outcome of", build.id):
            try:
                if folder.outcome() is None and folder.result() is None and folder.tombstone() is not None:
                    self._stop(folder)
                folder.write_outcome(outcome)
                stands = folder.outcome()
            except FileNotFoundError:
                stands = None
        if stands is None:
            raise NotFound(f"build {build.id} is not there: its run was forgotten")
        return stands

    def log(self, build: Build) -> str | None:
        """The last 4 MiB of what supervisor and worker said so far; None if there is no log."""
        with _told("read the log of", build.id):
            try:
                with self._folder(build).log.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - LOG_BYTES))
                    return file.read(LOG_BYTES).decode("utf-8", "replace")
            except FileNotFoundError:
                return None

    def follow(self, build: Build, *, offset: int) -> tuple[bytes, int]:
        """At most 1 MiB of the log from `offset` on, and the offset to ask from next."""
        with _told("read the log of", build.id):
            try:
                with self._folder(build).log.open("rb") as file:
                    file.seek(offset)
                    piece = file.read(_PIECE_BYTES)
            except FileNotFoundError:
                piece = b""
        return piece, offset + len(piece)

    def forget(self, run_id: str) -> None:
        """End what runs of a run's builds and remove them; gone already is fine."""
        run = self._run_folder(run_id)
        with _told("forget the builds of", run_id):
            for folder in self._folders(run_id):
                if folder.result() is None:
                    self._stop(folder)
            with suppress(FileNotFoundError):
                run.rename(run.with_name(f"{_FORGOTTEN}{run.name}-{os.getpid()}-{next(_numbers)}"))
            forgotten = list(run.parent.glob(f"{_FORGOTTEN}*"))
        for leftover in forgotten:
            try:
                durable.remove_tree(leftover)
            except OSError as error:
                # Files that a container wrote as root. They are in nobody's way but the disk's.
                _logger.warning("cannot remove %s (%s): remove it by hand", leftover, error.strerror)

    def _read(self, folder: BuildFolder) -> Build | None:
        spec = folder.spec()
        if spec is None:
            return None
        claim = folder.claim()
        phase, result = _seen(folder, claim)
        # After the look at the processes: a tombstone is written before they are ended.
        tombstone = folder.tombstone()
        if phase is BuildPhase.WAITING and tombstone is None:
            self._poke(folder)
        else:
            self._waiting.pop(folder.path, None)
        return Build(
            id=str(spec["id"]),
            run=str(spec["run"]),
            epoch=_integer(spec, "epoch"),
            step=str(spec["step"]),
            number=_integer(spec, "number"),
            attempt=_integer(spec, "attempt"),
            event=str(spec["event"]),
            phase=phase,
            created=float(str(spec["created"])),
            started=claim.at if claim and claim.supervisor else None,
            ended=result.ended if result else None,
            exit_code=result.exit_code if result else None,
            given_up=tombstone.reason if tombstone else "",
            given_up_as=tombstone.ending if tombstone else None,
            outcome=folder.outcome(),
        )

    def _poke(self, folder: BuildFolder) -> None:
        now = time.monotonic()
        with self._lock:
            first = _Waiting(now + self._poke_after_seconds, self._poke_after_seconds)
            waiting = self._waiting.setdefault(folder.path, first)
            if now < waiting.poke_at:
                return
            # On a machine that is slow to start processes, more of them do not help.
            waiting.pause_seconds = min(2 * waiting.pause_seconds, _LAST_POKE_SECONDS)
            waiting.poke_at = now + waiting.pause_seconds
        self._start_supervisor(folder)

    def _start_supervisor(self, folder: BuildFolder) -> None:
        argv = [sys.executable, "-P", "-m", "bridge.local.supervisor", str(folder.path)]
        env = {**passed_on(os.environ), "PYTHONPATH": str(Path(bridge.__file__).parents[1])}
        try:
            processes.spawn_detached(argv, env=env)
        except OSError as error:
            # The build exists; `find` tries again.
            _logger.warning("cannot start the supervisor of %s: %s", folder.path.name, error.strerror)

    def _moved_in(self, spec: BuildSpec, orders: Orders, folder: BuildFolder) -> bool:
        """Make the folder complete beside its place and rename it there; False if that is taken."""
        new = BuildFolder(folder.path.with_name(f"{_NEW}{folder.path.name}-{os.getpid()}-{next(_numbers)}"))
        try:
            # One that was left by a dead process of this number.
            durable.remove_tree(new.path)
            durable.make_folder(new.path)
            durable.write_new(new.path / "spec.json", durable.as_json(_described(spec, self._clock.now())))
            durable.write_new(new.path / "orders.json", durable.as_json(orders.as_dict()))
            durable.write_new(new.payload, spec.event.payload)
            durable.write_new(new.log, b"")
            durable.sync_folder(new.path)
            return durable.move_new(new.path, folder.path)
        finally:
            with suppress(OSError):
                durable.remove_tree(new.path)

    def _orders(self, spec: BuildSpec, project: "Project") -> Orders:
        if self._jobs == "container" and not self._engine:
            raise Misconfigured("jobs are to run in containers, but no engine is set: start docker or podman, "
                                "or run jobs as processes of this machine with --jobs=host")  # fmt: skip
        return Orders(
            worker=self._worker,
            engine=self._engine if self._jobs == "container" else (),
            mirrors=str(self._state / "mirrors"),
            pin=str(self._run_folder(spec.run) / _PIN),
            source=project.source,
            script=project.script,
            project_folder=project.folder,
            commit=spec.event.revision.commit,
            ref=spec.event.revision.ref,
            token=project.token,
            withheld=(str(self._state), *([str(Path(project.folder, _PROJECT_FILE))] if project.folder else [])),
            grace_seconds=self._grace_seconds,
            build=self._worker_orders(spec, project),
        )

    def _worker_orders(self, spec: BuildSpec, project: "Project") -> dict[str, object]:
        """What the worker reads in `build.json`."""
        event = spec.event
        clone_url = event.clone_url or project.clone_url
        return {
            "id": spec.id,
            "number": spec.number,
            "event": {
                "buildID": spec.id,
                "workerID": f"brigade-worker-{spec.id}",
                "type": event.type,
                "provider": event.provider,
                "revision": {"commit": event.revision.commit, "ref": event.revision.ref},
                "cloneURL": clone_url,
                "logLevel": _LOG_LEVEL,
            },
            "project": {
                "id": project.id,
                "name": project.name,
                "repo": {
                    "name": project.repository or project.name,
                    "cloneURL": clone_url,
                    "token": project.token,
                },
                "secrets": dict(project.secrets),
                "allowPrivilegedJobs": project.allow_privileged_jobs,
                "allowHostMounts": project.allow_host_mounts,
            },
            "jobs": self._jobs,
            "container": {"command": list(self._engine)},
            "labels": {
                names.RUN_LABEL: spec.run,
                names.PIPELINE_LABEL: spec.pipeline,
                names.ATTEMPT_LABEL: str(spec.attempt),
                names.STEP_LABEL: spec.step,
                names.EPOCH_LABEL: str(spec.epoch),
            },
            "cacheRoot": str(self._state / "caches"),
            # Forgotten with the run whose steps they belong to.
            "checkpoints": str(self._run_folder(spec.run) / _CHECKPOINTS),
            "emitted": str(self._state / EMITTED),
        }

    def _stop(self, folder: BuildFolder) -> None:
        """Let nobody start a build, and end what runs of it. Raises Unavailable if something stays."""
        if folder.claim() is None:
            folder.make_claim(Claim(self._clock.now(), None))
        claim = folder.claim()
        orders = folder.orders()
        if claim and claim.supervisor:
            processes.end([claim.supervisor], grace_seconds=self._grace_seconds + _BEYOND_GRACE_SECONDS)
        # Its jobs end by themselves when their worker is gone; this is for what did not.
        engine = Orders.from_dict(orders).engine if orders and (folder.path / "jobs").is_dir() else ()
        if engine:
            containers.remove_containers(engine, folder.path.name)
        for look in range(_LOOKS):
            left = _left_of(folder)
            if claim and claim.supervisor and processes.is_alive(claim.supervisor):
                left.append(claim.supervisor)
            if not left:
                if engine and look:
                    # A client that was killed may have started its container before it died.
                    containers.remove_containers(engine, folder.path.name)
                return
            processes.kill(left)
            processes.wait_until_gone(left, seconds=1.0)
        raise Unavailable(f"build {folder.path.name} still has {len(left)} processes after SIGKILL: ask again")

    def _folders(self, run_id: str) -> list[BuildFolder]:
        run = self._run_folder(run_id)
        try:
            return [BuildFolder(path) for path in sorted(run.iterdir()) if not path.name.startswith(".")]
        except FileNotFoundError:
            return []

    def _folder(self, build: Build) -> BuildFolder:
        return BuildFolder(self._run_folder(build.run) / _segment(build.id))

    def _run_folder(self, run_id: str) -> Path:
        return self._state / "builds" / _segment(run_id)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What a build's processes get of the environment: bridge's settings and other secrets are not for scripts."""
    return {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_FAMILIES)
    }


def _seen(folder: BuildFolder, claim: Claim | None) -> tuple[BuildPhase, Result | None]:
    if claim is None:
        return BuildPhase.WAITING, None
    alive = claim.supervisor is not None and processes.is_alive(claim.supervisor)
    # After the look at the process: its result is the last that it writes.
    result = folder.result()
    if result is not None:
        return (BuildPhase.SUCCEEDED if result.exit_code == 0 else BuildPhase.FAILED), result
    return (BuildPhase.RUNNING if alive else BuildPhase.GONE), None


def _left_of(folder: BuildFolder) -> list[processes.Identity]:
    """The processes of a build whose supervisor is gone."""
    left = set(processes.marked(folder.marks))
    worker = folder.worker()
    if worker is not None:
        left.update(processes.group_of(worker))
    for path in folder.job_files():
        job = durable.read_json(path) or {}
        pid, start = job.get("pid"), job.get("pidStart")
        if isinstance(pid, int) and isinstance(start, int) and worker is not None:
            left.update(processes.group_of(processes.Identity(pid, start, worker.boot)))
    return sorted(left, key=lambda one: one.pid)


def _described(spec: BuildSpec, created: float) -> dict[str, object]:
    return {
        "id": spec.id,
        "run": spec.run,
        "pipeline": spec.pipeline,
        "epoch": spec.epoch,
        "step": spec.step,
        "number": spec.number,
        "attempt": spec.attempt,
        "event": spec.event.type,
        "created": created,
    }


def _segment(name: str) -> str:
    """A name as one part of a path, whatever it is."""
    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _integer(found: Mapping[str, object], key: str) -> int:
    value = found[key]
    if not isinstance(value, int):
        raise ValueError(f"{key} is no number")  # noqa: TRY004 - a file is wrong
    return value


@contextmanager
def _told(act: str, what: str) -> Iterator[None]:
    """Translate what the operating system says."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot {act} {what}: {error.strerror}; is the disk full or read-only?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"cannot {act} {what}: a file in its folder is damaged ({str(error)[:80]})") from error
