"""Brigade v1's builds: the port Builds in a cluster (facts/brigade.md; design.md, A step).

A build is a Secret that Brigade's controller starts a worker pod for. Its id is a hash of what it is for, so a
repeated create meets the first. What becomes of it is read from the pod while that is there, and from the Secret's
annotations afterwards: pods are collected, and Brigade tells nothing about one that is gone.

The step's process uses it too, so nothing heavy is imported here.
"""

import base64
import contextlib
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bridge.cluster.api import CLAIMS, PODS, SECRETS, Api, Gone, Refused, Resource
from bridge.cluster.logs import READS, ContainerLogs, LogCursor
from bridge.cluster.runs import label_value
from bridge.core import brigade
from bridge.core.builds import Build, BuildPhase, BuildSpec, Ending, Outcome, tail_of
from bridge.core.kubernetes import is_being_deleted, mapping, text
from bridge.core.names import ATTEMPT_LABEL, EPOCH_LABEL, PIPELINE_LABEL, RUN_LABEL, STEP_LABEL, build_id
from bridge.core.projects import Project
from bridge.errors import BadProject, Conflict, EngineError, Misconfigured, NotFound, Unavailable
from bridge.ports import Clock, Projects

LOOKAHEAD = 64
"""Beyond the highest number that Secrets tell of, what is left of so many later builds is looked for."""

_BUILDS = "component=build,heritage=brigade"
_WORKER_GRACE_SECONDS = 1
"""Node as process 1 ignores SIGTERM: a worker would go on starting jobs for all of its 30 s."""
_GOING_SECONDS = 5.0
_LOOK_SECONDS = 0.25
_LATE_LOOK_SECONDS = 1.0
_LATE_LOOKS = 2
"""Brigade's controller may be starting the worker of a build that it had not accepted when it was given up."""
_CHANGES = 20
_LISTINGS = 3
_CURSORS = 64
_WAITED_FOR = 4096


log = logging.getLogger(__name__)


class BrigadeBuilds:
    """Builds in Brigade's namespace.

    Of jobs that run in another namespace (a project's `kubernetes.namespace`) it knows nothing.

    Args:
        api: the API server.
        namespace: Brigade's.
        projects: the projects, which builds are made for.
        clock: time.
        takes_volumes: a build that is given up loses its volume, too, which its worker would have removed; a step
            may not do that, and leaves it until the run is forgotten.

    """

    def __init__(
        self, api: Api, namespace: str, projects: Projects, *, clock: Clock, takes_volumes: bool = False
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._projects = projects
        self._clock = clock
        self._takes_volumes = takes_volumes
        self._logs = ContainerLogs(api, namespace)
        self._lock = threading.Lock()
        self._cursors: OrderedDict[str, LogCursor] = OrderedDict()
        self._waited_for: OrderedDict[str, float] = OrderedDict()
        """By a pod's uid: since when, by our own time, its deletion is being waited for."""

    def find(self, run_id: str, *, epoch: int | None = None, step: str | None = None) -> list[Build]:
        """The builds of a run, by step and number. One that cannot be read is left out, with a line in the log."""
        selector = _selector(run_id, epoch, step)
        # The Secrets first: an accepted build whose pod is not there afterwards has lost it.
        secrets = self._listed(SECRETS, selector, metadata_only=True)
        pods = {_name(pod): pod for pod in self._listed(PODS, selector)}
        found = [self._build(secret, pods.get(_name(secret))) for secret in secrets]
        wanted = [build for build in found if build is not None and build.run == run_id]
        if step is not None:
            wanted = [build for build in wanted if build.step == step]
        return sorted(wanted, key=lambda build: (build.step, build.epoch, build.number))

    def highest(self, run_id: str, *, epoch: int, step: str) -> int:
        """The highest number of which a Secret, pod or volume is left, also those of jobs; 0 if nothing."""
        numbers = [0]
        for secret in self._listed(SECRETS, _selector(run_id, epoch, step), metadata_only=True):
            with contextlib.suppress(Misconfigured):
                numbers.append(brigade.build_of(secret, None).number)
        highest = max(numbers)
        while True:
            ids = {
                build_id(run=run_id, epoch=epoch, step=step, number=number): number
                for number in range(highest + 1, highest + 1 + LOOKAHEAD)
            }
            left = self._left_of(ids, SECRETS, PODS, CLAIMS)
            if not left:
                return highest
            highest = max(ids[one] for one in left)

    def create(self, spec: BuildSpec) -> None:
        """Ask for a build. Raises Conflict if the id was ever used and something of it is left.

        Raises UnknownProject: Brigade would drop the build and start it at some later restart. Raises BadProject
        if Brigade's worker would not take the spec's script or config.
        """
        project = self._projects.read(spec.event.project)
        _check_files(spec, project)
        left = self._left_of([spec.id], SECRETS, PODS)
        if left or self._get(CLAIMS, brigade.worker_name(spec.id)) is not None:
            raise Conflict(
                f"build {spec.id} (number {spec.number} of {spec.step[:100]}) was created before, "
                f"and something of it is left in namespace {self._namespace}"
            )
        self._api.create(SECRETS, self._namespace, _secret(spec, project), metadata_only=True)

    def give_up(self, build: Build, *, reason: str, ending: Ending) -> None:
        """End a build for good: the tombstone, then its worker, jobs and volume; repeat it if it fails.

        A worker that has ended by itself keeps its end. The end of the log is kept on the Secret.
        """
        secret = self._changed(build.id, lambda found: self._tombstone(found, build, reason, ending))
        if secret is None:
            self._end(build.id)
        elif brigade.tombstone_of(secret) is not None or _was_ended_by_us(secret):
            self._keep_tail(build, secret)
            self._end(build.id, looks=1 if build.phase is not BuildPhase.WAITING else 1 + _LATE_LOOKS)

    def record(self, build: Build, outcome: Outcome) -> Outcome:
        """Write what a build came to; answers what stands, which is the first writing. Raises NotFound.

        One that was given up is ended first, should whoever gave it up have died before that.
        """
        secret = self._get(SECRETS, brigade.worker_name(build.id), metadata_only=True)
        if secret is not None and brigade.outcome_of(secret) is None and brigade.tombstone_of(secret) is not None:
            self._end(build.id)
        patch = {brigade.OUTCOME_ANNOTATION: brigade.encode_outcome(outcome)}
        stored = self._changed(
            build.id,
            lambda found: None if brigade.outcome_of(found) is not None else {"annotations": patch},
        )
        stands = None if stored is None else brigade.outcome_of(stored)
        if stands is None:
            raise NotFound(f"build {build.id} is not there any more: its Secret was removed")
        return stands

    def log(self, build: Build) -> str | None:
        """The worker's log so far, or its last megabytes; None if it cannot be read any more.

        Of a worker that has ended it is whole, or Unavailable is raised. Of a build that was given up it is
        what was kept.
        """
        if build.given_up_as is not None:
            return self._kept_tail(build)
        try:
            return self._read_log(build)
        except NotFound:
            return None

    def follow(self, build: Build, *, offset: int) -> tuple[bytes, int]:
        """About 1 MiB at most of the log's bytes from `offset` on, and the offset to ask from next.

        Nothing is raised when it cannot be read now: that may be over when it is asked for again.
        """
        cursor = self._cursor(build.id, offset)
        more = b""
        try:
            more = self._more(build, cursor, offset)
        except EngineError as exc:
            log.debug("the log of build %s cannot be read now: %s", build.id, exc)
        finally:
            self._keep_cursor(build.id, cursor)
        return more, offset + len(more)

    def forget(self, run_id: str) -> None:
        """Remove all builds of a run with their pods, volumes and jobs; gone already is fine."""
        selector = _selector(run_id, None, None)
        for _ in range(2):
            # Twice: Brigade's controller may have started one that was not looked at yet.
            found = [*self._listed(SECRETS, selector, metadata_only=True), *self._listed(PODS, selector)]
            for one in dict.fromkeys(text(mapping(each, "metadata", "labels"), "build") for each in found):
                if one:
                    self._remove(one)

    def _build(self, secret: Mapping[str, Any], pod: Mapping[str, Any] | None) -> Build | None:
        if (
            pod is None
            and brigade.is_accepted(secret)
            and not brigade.annotation(secret, brigade.OUTCOME_ANNOTATION)
        ):
            # It may have lost the labels by which it was listed.
            pod = self._get(PODS, _name(secret))
        try:
            return brigade.build_of(secret, pod, overdue=pod is not None and self._is_overdue(pod))
        except Misconfigured as exc:
            log.warning("the build %s is left out: %s", _name(secret), exc)
            return None

    def _is_overdue(self, pod: Mapping[str, Any]) -> bool:
        patience = brigade.deletion_seconds(pod)
        if patience is None:
            return False
        now = self._clock.monotonic()
        with self._lock:
            since = self._waited_for.setdefault(_uid(pod), now)
            if len(self._waited_for) > _WAITED_FOR:
                self._waited_for.popitem(last=False)
        return now - since > patience

    def _left_of(self, ids: Iterable[str], *resources: Resource) -> set[str]:
        """Which of these builds left something of these kinds, their jobs' included."""
        selector = f"build in ({','.join(ids)})"
        return {
            text(mapping(found, "metadata", "labels"), "build")
            for resource in resources
            for found in self._listed(resource, selector, metadata_only=True)
        }

    def _tombstone(
        self, found: Mapping[str, Any], build: Build, reason: str, ending: Ending
    ) -> dict[str, Any] | None:
        """What sets the tombstone, None if it stands or the build has ended otherwise."""
        if brigade.tombstone_of(found) is not None or brigade.outcome_of(found) is not None:
            return None
        pod = self._get(PODS, brigade.worker_name(build.id))
        if pod is not None and brigade.worker_of(pod).phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED}:
            return None
        tombstone = {brigade.TOMBSTONE_ANNOTATION: brigade.encode_tombstone(reason, ending)}
        return {"labels": {"status": brigade.ACCEPTED}, "annotations": tombstone}

    def _keep_tail(self, build: Build, secret: Mapping[str, Any]) -> None:
        """Keep the end of the log while there is one. It is for people only, so nothing waits for it."""
        if brigade.annotation(secret, brigade.TAIL_ANNOTATION):
            return
        with contextlib.suppress(EngineError):
            said = self._logs.so_far(brigade.worker_name(build.id), brigade.WORKER_CONTAINER)
            tail = tail_of(said.decode("utf-8", "replace"))
            if tail:
                patch = {"metadata": {"annotations": {brigade.TAIL_ANNOTATION: tail}}}
                self._api.patch(SECRETS, self._namespace, _name(secret), patch, metadata_only=True)

    def _kept_tail(self, build: Build) -> str | None:
        secret = self._get(SECRETS, brigade.worker_name(build.id), metadata_only=True)
        return brigade.annotation(secret or {}, brigade.TAIL_ANNOTATION) or None

    def _end(self, one: str, *, looks: int = 1, waits: bool = True) -> None:
        """Delete a build's worker, then its jobs and its volume; `looks` more times what came up meanwhile."""
        worker = brigade.worker_name(one)
        for look in range(1 + looks):
            if look > 1:
                self._clock.sleep(_LATE_LOOK_SECONDS)
            if self._delete(PODS, worker, grace_seconds=_WORKER_GRACE_SECONDS) and waits:
                self._wait_until_gone(worker)
            for pod in self._listed(PODS, f"build={one}", metadata_only=True):
                if not is_being_deleted(pod):
                    self._delete(PODS, _name(pod), uid=_uid(pod))
        if self._takes_volumes:
            # Kubernetes keeps it for as long as a pod that is going uses it.
            self._delete(CLAIMS, worker)

    def _wait_until_gone(self, worker: str) -> None:
        """Until it cannot start any more jobs; a dead node's never ends, and nobody waits for that."""
        deadline = self._clock.monotonic() + _GOING_SECONDS
        while self._get(PODS, worker, metadata_only=True) is not None and self._clock.monotonic() < deadline:
            self._clock.sleep(_LOOK_SECONDS)

    def _remove(self, one: str) -> None:
        """The Secret last: while it is there, what else is left can be found again."""
        self._end(one, looks=0, waits=False)
        for secret in self._listed(SECRETS, f"build={one},component=job", metadata_only=True):
            self._delete(SECRETS, _name(secret), uid=_uid(secret))
        self._delete(CLAIMS, brigade.worker_name(one))
        self._delete(SECRETS, brigade.worker_name(one))

    def _read_log(self, build: Build) -> str | None:
        pod = brigade.worker_name(build.id)
        if build.phase is BuildPhase.RUNNING:
            try:
                return self._logs.so_far(pod, brigade.WORKER_CONTAINER).decode("utf-8", "replace")
            except Refused:
                return ""  # it has not begun to say anything
        for container in (brigade.WORKER_CONTAINER, brigade.SIDECAR_CONTAINER):
            with contextlib.suppress(Refused):
                said = self._logs.whole(pod, container)
                return None if said is None else said.decode("utf-8", "replace")
        return None

    def _more(self, build: Build, cursor: LogCursor, offset: int) -> bytes:
        """What is new behind `offset`; of a worker that never began, what its sidecar said."""
        try:
            return self._more_of(build, brigade.WORKER_CONTAINER, cursor, offset)
        except Refused:
            if build.phase is not BuildPhase.FAILED or cursor.position:
                raise
            return self._more_of(build, brigade.SIDECAR_CONTAINER, cursor, offset)

    def _more_of(self, build: Build, container: str, cursor: LogCursor, offset: int) -> bytes:
        """Of a log that does not grow any more, the end may not be missed."""
        pod = brigade.worker_name(build.id)
        ended = build.phase is not BuildPhase.RUNNING
        tries = READS if ended else 1
        while tries:
            before = cursor.position
            found = b""
            try:
                found = self._logs.piece(pod, container, cursor).text
                if not found and ended and self._logs.is_whole(pod, container, cursor):
                    return cursor.finish()[max(0, offset - before) :]
            except Unavailable:
                if tries == 1:
                    raise
            wanted = found[max(0, offset - before) :]
            if wanted:
                return wanted
            tries -= 0 if found else 1
        return b""

    def _cursor(self, one: str, offset: int) -> LogCursor:
        """The place where this log was left, or its beginning; taken, so that no other thread uses it."""
        with self._lock:
            cursor = self._cursors.pop(one, None)
        return cursor if cursor is not None and cursor.position <= offset else LogCursor()

    def _keep_cursor(self, one: str, cursor: LogCursor) -> None:
        with self._lock:
            self._cursors[one] = cursor
            self._cursors.move_to_end(one)
            if len(self._cursors) > _CURSORS:
                self._cursors.popitem(last=False)

    def _changed(
        self, one: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> dict[str, Any] | None:
        """A build's Secret after a change of its metadata, None if it is gone.

        `change` answers what to patch, or None if it is fine as it is; it is asked again if somebody else was
        faster.
        """
        name = brigade.worker_name(one)
        for tried in range(_CHANGES):
            secret = self._get(SECRETS, name, metadata_only=True)
            if secret is None:
                return None
            patch = change(secret)
            if patch is None:
                return secret
            version = {"resourceVersion": text(mapping(secret, "metadata"), "resourceVersion")}
            try:
                return self._api.patch(
                    SECRETS, self._namespace, name, {"metadata": {**version, **patch}}, metadata_only=True
                )
            except NotFound:
                return None
            except Conflict:
                self._clock.sleep(random.uniform(0, 0.01 * 2 ** min(tried, 5)))  # noqa: S311 - only spreads the writers
        raise Unavailable(f"build {one} was changed by others {_CHANGES} times in a row; ask again")

    def _get(self, resource: Resource, name: str, *, metadata_only: bool = False) -> dict[str, Any] | None:
        try:
            return self._api.get(resource, self._namespace, name, metadata_only=metadata_only)
        except NotFound:
            return None

    def _delete(self, resource: Resource, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        """Whether there was something to delete."""
        try:
            self._api.delete(resource, self._namespace, name, uid=uid, grace_seconds=grace_seconds)
        except (NotFound, Conflict):
            return False
        return True

    def _listed(
        self, resource: Resource, selector: str, *, metadata_only: bool = False
    ) -> Sequence[dict[str, Any]]:
        """All objects that have these labels, as they are at one moment that is not before the call."""
        for tries_left in reversed(range(_LISTINGS)):
            try:
                return [*self._pages(resource, selector, metadata_only=metadata_only)]
            except Gone:
                if not tries_left:
                    raise
        raise AssertionError

    def _pages(self, resource: Resource, selector: str, *, metadata_only: bool) -> Iterator[dict[str, Any]]:
        for page in self._api.pages(resource, self._namespace, labels=selector, metadata_only=metadata_only):
            yield from page.items


def _check_files(spec: BuildSpec, project: Project) -> None:
    """A file that the project names in its source wins in the worker (facts/brigade.md, 3)."""
    for given, named, key in (
        (spec.script, project.script_path, "brigadejsPath"),
        (spec.config, project.config_path, "brigadeConfigPath"),
    ):
        if given and named and not named.startswith("/"):
            raise BadProject(
                f"project {project.name[:200]}: its {key} is {named[:200]}, which wins over a file that "
                f"a build brings; remove {key}, or give the step no file"
            )


def _secret(spec: BuildSpec, project: Project) -> dict[str, Any]:
    event = spec.event
    name = brigade.worker_name(spec.id)
    fields = {
        "build_id": name,
        "build_name": name,
        "clone_url": event.clone_url,
        "commit_id": event.revision.commit,
        "commit_ref": event.revision.ref,
        "config": spec.config,
        "event_provider": event.provider,
        "event_type": event.type,
        "log_level": spec.log_level,
        "long_title": event.long_title,
        "project_id": project.id,
        "script": spec.script,
        "short_title": event.short_title,
    }
    data = {key: value.encode("utf-8", "replace") for key, value in fields.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {
                "build": spec.id,
                "component": "build",
                "heritage": "brigade",
                "project": project.id,
                RUN_LABEL: label_value(spec.run),
                PIPELINE_LABEL: label_value(spec.pipeline),
                EPOCH_LABEL: str(spec.epoch),
                STEP_LABEL: label_value(spec.step),
                ATTEMPT_LABEL: str(spec.attempt),
            },
            "annotations": {brigade.BUILD_ANNOTATION: brigade.described(spec)},
        },
        "type": brigade.BUILD_TYPE,
        "data": {
            key: base64.b64encode(value).decode() for key, value in {**data, "payload": event.payload}.items()
        },
    }


def _selector(run_id: str, epoch: int | None, step: str | None) -> str:
    conditions = [_BUILDS, f"{RUN_LABEL}={label_value(run_id)}"]
    conditions += [] if epoch is None else [f"{EPOCH_LABEL}={epoch}"]
    conditions += [] if step is None else [f"{STEP_LABEL}={label_value(step)}"]
    return ",".join(conditions)


def _was_ended_by_us(secret: Mapping[str, Any]) -> bool:
    outcome = brigade.outcome_of(secret)
    return outcome is not None and outcome.ending in {Ending.LOST, Ending.CANCELLED, Ending.TIMED_OUT}


def _name(found: Mapping[str, Any]) -> str:
    return text(mapping(found, "metadata"), "name")


def _uid(found: Mapping[str, Any]) -> str:
    return text(mapping(found, "metadata"), "uid")
