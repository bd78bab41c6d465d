"""The records as Secrets: the port Runs in a cluster (design.md, The record).

A run is one immutable Secret of its name. `data`, which nobody can change, holds the event, the payload and the
schema; what changes is in labels and annotations, with a copy of the event, so that lists and changes need the
metadata alone. A single read takes the event from `data`: who may only patch Secrets cannot make a run another
repository's.

The step's process uses it too, so nothing heavy is imported here.
"""

import base64
import binascii
import hashlib
import heapq
import math
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge.cluster.api import PAGE, SECRETS, AlreadyExists, Api, Gone
from bridge.core import records
from bridge.core.events import Event
from bridge.core.mending import ended_state, is_of_newer_bridge
from bridge.core.names import LABEL_PREFIX, PIPELINE_LABEL, RUN_LABEL, project_id
from bridge.core.reports import cut
from bridge.core.runs import Phase, Run
from bridge.core.searching import storable
from bridge.errors import Conflict, Misconfigured, NotFound, TooLarge, Unavailable
from bridge.ports import Created, RunFilter

RUN_TYPE = "bridge.brigade.sh/run"
"""The Secrets' type: a field selector finds the records alone."""
RUN_FIELDS = f"type={RUN_TYPE}"

PROJECT_LABEL = f"{LABEL_PREFIX}project"
PHASE_LABEL = f"{LABEL_PREFIX}phase"
VERDICT_LABEL = f"{LABEL_PREFIX}verdict"
SHA_LABEL = f"{LABEL_PREFIX}sha"
CONTEXT_LABEL = f"{LABEL_PREFIX}context"
PULL_REQUEST_LABEL = f"{LABEL_PREFIX}pull-request"

Place = tuple[float, int, str]
"""When it was accepted; of those at the same moment the later created comes first."""

CHANGE_TRIES = 40
"""With the pauses between them about 10 s."""

MAX_ANNOTATIONS_BYTES = 262_144
"""Kubernetes' own limit on all annotations of an object together, keys and values."""

_MAX_EVENT_COPY_BYTES = 32 * 1024
"""A longer event is in `data` alone, and a list reads it there."""
_MOST_RECENT = 64
_KEPT_CHARACTERS = 2000
"""Of what stood in a record that was mended."""
_SHORT_PAGE = 100
"""Where few are wanted, few are held at once: several threads list at a time."""
_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.5
_LISTINGS = 3
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class SecretRuns:
    """Runs as Secrets of one namespace, shared by any number of gateways, controllers and steps.

    Args:
        api: the API server.
        namespace: where the records are.
        tick: a number that grows; of two runs accepted at the same moment, it tells which was created later.
        change_tries: how often a change may find that somebody else was faster.

    """

    def __init__(
        self, api: Api, namespace: str, *, tick: Callable[[], int] = time.time_ns, change_tries: int = CHANGE_TRIES
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._tick = tick
        self._change_tries = change_tries
        self._damaged: dict[str, str] = {}
        self._damaged_lock = threading.Lock()
        self._recent = _Recent()

    def create(self, run: Run, payload: bytes) -> Created:
        """Store a new record; see the port. Raises TooLarge if no world could keep it.

        When the answer is lost it is Unavailable, stored or not: a repeat meets what is stored.
        """
        event = records.encode_event(run.event)
        packed = records.pack_payload(payload)
        records.check_size(event, packed)
        secret = self._secret(run, event, packed)
        try:
            stored = self._api.create(SECRETS, self._namespace, secret, metadata_only=True)
        except AlreadyExists:
            return self._known(run.id)
        except Conflict as exc:
            raise Unavailable(f"run {run.id} was not stored: {exc}") from exc
        except NotFound as exc:
            raise Unavailable(
                f"run {run.id} was not stored: there is no namespace {self._namespace}; make it"
            ) from exc
        return Created(replace(run, event=run.event.without_payload(), version=_version(stored)), duplicate=False)

    def read(self, run_id: str) -> Run:
        """The record. Raises NotFound, and Misconfigured when it is damaged, a newer bridge's or none of ours."""
        return self._run(self._whole(run_id))

    def payload(self, run_id: str) -> bytes:
        """The event's payload, whole. Raises NotFound, and Misconfigured when it is damaged."""
        secret = self._whole(run_id)
        try:
            return records.unpack_payload(_data(secret, "payload"))
        except Misconfigured as exc:
            raise Misconfigured(f"run {run_id[:100]}: {exc}") from exc

    def list(self, wanted: RunFilter) -> list[Run]:
        """Records without their payloads, the newest first; those that cannot be read are left out.

        What was left out is in `damaged` from then on, until it can be read again or is gone.
        """
        for tries_left in reversed(range(_LISTINGS)):
            try:
                return [*self._listed(wanted)]
            except Gone:
                # Its pages took longer than the API server remembers.
                if not tries_left:
                    raise
        raise AssertionError

    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """Apply a change to the record as it is now, again if somebody else was faster; see the port.

        Raises TooLarge if the record's metadata cannot hold it.
        """
        for tried in range(self._change_tries):
            # What was read or written last is mostly what is there still: if not, the patch meets a conflict.
            recent = self._recent.take(run_id)
            secret = recent or self._metadata(run_id)
            known = self._run(secret)
            changed = change(known)
            if changed == known:
                if recent is None:
                    return known
                continue
            try:
                stored = self._api.patch(
                    SECRETS, self._namespace, run_id, _patch(secret, known, changed), metadata_only=True
                )
            except Conflict:
                if recent is not None:
                    continue
                longest = min(_PAUSE_SECONDS * 2.0**tried, _LONGEST_PAUSE_SECONDS)
                time.sleep(random.uniform(0, longest))  # noqa: S311 - only spreads the writers
                continue
            except NotFound:
                raise self._not_found(run_id) from None
            self._recent.keep(run_id, stored)
            return replace(changed, version=_version(stored))
        raise Unavailable(
            f"run {run_id[:100]} was changed by others {self._change_tries} times in a row; ask again"
        )

    def forget(self, run_id: str) -> None:
        """Remove the record with its payload, if it is one; gone already is fine."""
        with self._damaged_lock:
            self._damaged.pop(run_id, None)
        try:
            metadata = self._metadata(run_id)["metadata"]
            self._api.delete(SECRETS, self._namespace, run_id, uid=str(metadata.get("uid") or ""))
        except (NotFound, Conflict):
            # Conflict: another one was made meanwhile under its name, by a delivery that came again.
            return

    def mend(self, run_id: str, *, attempt: int, at: float) -> bool:
        """Give a record whose changing part is damaged one with which its run ends (core.mending); whether it did.

        One that can be read is left alone, and a newer bridge's, and one of which not even the event is left.
        The beginning of what stood there is kept in an annotation. Raises NotFound, Conflict, Misconfigured.
        """
        secret = self._whole(run_id)
        try:
            self._run(secret)
        except Misconfigured:
            _check_schema(secret)
        else:
            return False
        found = {key: _annotation(secret, key) for key in ("acts", "state")}
        if any(map(is_of_newer_bridge, found.values())) or not _annotation(secret, "pipeline"):
            return False
        event = records.decode_event(_data(secret, "event").decode("utf-8", "replace"))
        state = records.encode_state(ended_state(event, attempt=attempt, at=at))
        changing = {
            "acts": records.encode_acts(()),
            "state": state,
            "reason": None,
            "closed": None,
            "accepted": _accepted(secret, at),
            "damaged": cut(f"{found['state']} {found['acts']}", _KEPT_CHARACTERS).strip() or None,
        }
        body = {
            "resourceVersion": _version(secret),
            "labels": {PHASE_LABEL: Phase.RUNNING.value, VERDICT_LABEL: None},
            "annotations": {f"{LABEL_PREFIX}{key}": value for key, value in changing.items()},
        }
        self._api.patch(SECRETS, self._namespace, run_id, {"metadata": body}, metadata_only=True)
        return True

    def damaged(self) -> Sequence[tuple[str, str]]:
        """The records that `list` left out so far, each with the reason."""
        with self._damaged_lock:
            return sorted(self._damaged.items())

    def run_of(self, secret: Mapping[str, Any], *, known: Run | None = None) -> Run | None:
        """The run of a record's metadata, as a list or watch brings it; None if it cannot be read, and then
        `damaged` says why.

        An event that is too long for the metadata is read, unless it is `known` from before.
        """
        run_id = str(secret["metadata"].get("name"))
        try:
            run = self._run(secret, known)
        except NotFound:
            return None
        except Misconfigured as exc:
            with self._damaged_lock:
                self._damaged[run_id] = str(exc)
            return None
        if self._damaged:
            with self._damaged_lock:
                self._damaged.pop(run_id, None)
        return run

    def _secret(self, run: Run, event: str, packed: bytes) -> dict[str, Any]:
        annotations = {
            "pipeline": storable(run.pipeline),
            "context": storable(run.context),
            "digest": run.digest,
            "accepted": repr(float(run.accepted)),
            "order": str(self._tick()),
            "schema": str(records.SCHEMA_VERSION),
            "event": event if len(event) <= _MAX_EVENT_COPY_BYTES else "",
            **_changing_annotations(run),
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": run.id,
                "labels": {
                    key: value for key, value in {**_labels(run), **_changing_labels(run)}.items() if value
                },
                "annotations": {f"{LABEL_PREFIX}{key}": value for key, value in annotations.items() if value},
            },
            "type": RUN_TYPE,
            "immutable": True,
            "data": {
                "event": _encoded(event.encode()),
                "payload": _encoded(packed),
                "schema": _encoded(str(records.SCHEMA_VERSION).encode()),
            },
        }

    def _known(self, run_id: str) -> Created:
        try:
            return Created(self.read(run_id), duplicate=True)
        except NotFound as exc:
            raise Unavailable(f"run {run_id} was there and is gone again; ask again") from exc

    def _whole(self, run_id: str) -> dict[str, Any]:
        try:
            secret = self._api.get(SECRETS, self._namespace, run_id)
        except NotFound:
            raise self._not_found(run_id) from None
        if secret.get("type") != RUN_TYPE:
            raise self._not_ours(run_id)
        self._recent.keep(run_id, secret)
        return secret

    def _metadata(self, run_id: str) -> dict[str, Any]:
        try:
            secret = self._api.get(SECRETS, self._namespace, run_id, metadata_only=True)
        except NotFound:
            raise self._not_found(run_id) from None
        labels = _mapping(secret, "labels")
        if labels.get(RUN_LABEL) != label_value(run_id) or not _annotation(secret, "digest"):
            # Metadata says no type. If it is a record all the same, somebody damaged it.
            self._whole(run_id)
        return secret

    def _listed(self, wanted: RunFilter) -> Sequence[Run]:
        complete = wanted == RunFilter()
        names: set[str] = set()
        last = place_of(self._metadata(wanted.after)) if wanted.after else None
        runs = (item for item in self._matching(wanted, names) if last is None or item[0] < last)
        if wanted.limit:
            found = [run for _, run in heapq.nlargest(wanted.limit, runs, key=lambda item: item[0])]
        else:
            found = [run for _, run in sorted(runs, key=lambda item: item[0], reverse=True)]
        if complete:
            with self._damaged_lock:
                self._damaged = {name: why for name, why in self._damaged.items() if name in names}
        return found

    def _matching(self, wanted: RunFilter, names: set[str]) -> Iterator[tuple[Place, Run]]:
        pages = self._api.pages(
            SECRETS,
            self._namespace,
            labels=_selector(wanted),
            fields=RUN_FIELDS,
            metadata_only=True,
            limit=min(PAGE, max(_SHORT_PAGE, wanted.limit)) if wanted.limit else PAGE,
        )
        for page in pages:
            for secret in page.items:
                run = self.run_of(secret)
                names.add(str(secret["metadata"].get("name")))
                if run is not None and wanted.matches(run):
                    yield place_of(secret), run

    def _run(self, secret: Mapping[str, Any], known: Run | None = None) -> Run:
        run_id = str(secret["metadata"].get("name"))
        try:
            _check_schema(secret)
            return Run(
                id=run_id,
                pipeline=_annotation(secret, "pipeline"),
                event=self._event(secret, run_id, known),
                context=_annotation(secret, "context"),
                digest=_annotation(secret, "digest"),
                accepted=_number(secret, "accepted"),
                phase=records.decode_phase(_mapping(secret, "labels").get(PHASE_LABEL, "")),
                verdict=records.decode_verdict(_mapping(secret, "labels").get(VERDICT_LABEL, "")),
                reason=_annotation(secret, "reason"),
                closed=_number(secret, "closed") if _annotation(secret, "closed") else None,
                acts=records.decode_acts(_annotation(secret, "acts")),
                state=records.decode_state(_annotation(secret, "state")),
                version=_version(secret),
            )
        except Misconfigured as exc:
            raise Misconfigured(f"run {run_id}: {exc}") from exc

    def _event(self, secret: Mapping[str, Any], run_id: str, known: Run | None) -> Event:
        copy = _annotation(secret, "event")
        if "data" not in secret and copy:
            return records.decode_event(copy)
        if known is not None and known.digest == _annotation(secret, "digest"):
            return known.event
        whole = secret if "data" in secret else self._whole(run_id)
        return records.decode_event(_data(whole, "event").decode("utf-8", "replace"))

    def _not_found(self, run_id: str) -> NotFound:
        return NotFound(
            f"run {run_id[:100]} is not there, in namespace {self._namespace}; "
            "`bridgectl list` shows those that are"
        )

    def _not_ours(self, run_id: str) -> Misconfigured:
        return Misconfigured(
            f"the Secret {run_id[:100]} in namespace {self._namespace} is no record of bridge (its type is not "
            f"{RUN_TYPE}) and has the name of one; give it another name"
        )


class _Recent:
    """The metadata of the records that were read or written last, each for one use. From any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, run_id: str, secret: Mapping[str, Any]) -> None:
        with self._lock:
            self._kept[run_id] = {"metadata": secret["metadata"]}
            self._kept.move_to_end(run_id)
            if len(self._kept) > _MOST_RECENT:
                self._kept.popitem(last=False)

    def take(self, run_id: str) -> dict[str, Any] | None:
        with self._lock:
            return self._kept.pop(run_id, None)


def place_of(secret: Mapping[str, Any]) -> Place:
    """Where a record stands in a list: higher places come first. Raises Misconfigured if its time is damaged."""
    return _number(secret, "accepted"), _order(secret), str(secret["metadata"].get("name"))


def label_value(text: str) -> str:
    """`text` as the value of a label: itself where it can be one, else a hash of it; empty stays empty."""
    if not text or _LABEL_VALUE.fullmatch(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _labels(run: Run) -> dict[str, str]:
    number = run.event.pull_request
    return {
        RUN_LABEL: label_value(run.id),
        PIPELINE_LABEL: label_value(run.pipeline),
        PROJECT_LABEL: _project_label(run.event.project),
        SHA_LABEL: label_value(run.event.revision.commit),
        CONTEXT_LABEL: _context_label(run.context),
        PULL_REQUEST_LABEL: "" if number is None else label_value(str(number)),
    }


def _project_label(project: str) -> str:
    return project_id(storable(project)) if project else ""


def _context_label(context: str) -> str:
    """A hash always: contexts have slashes."""
    return hashlib.sha256(storable(context).encode()).hexdigest()[:40] if context else ""


def _changing_labels(run: Run) -> dict[str, str]:
    return {PHASE_LABEL: run.phase.value, VERDICT_LABEL: run.verdict.value if run.verdict else ""}


def _changing_annotations(run: Run) -> dict[str, str]:
    return {
        "reason": storable(run.reason),
        "closed": "" if run.closed is None else repr(float(run.closed)),
        "acts": records.encode_acts(run.acts),
        "state": records.encode_state(run.state),
    }


def _patch(secret: Mapping[str, Any], known: Run, changed: Run) -> dict[str, Any]:
    """The merge patch from `known` to `changed`: what differs, for the record as `secret` has it only."""
    labels = _differences(_changing_labels(known), _changing_labels(changed))
    annotations = {
        f"{LABEL_PREFIX}{key}": value
        for key, value in _differences(_changing_annotations(known), _changing_annotations(changed)).items()
    }
    _make_room(secret, annotations, changed)
    return {"metadata": {"resourceVersion": known.version, "labels": labels, "annotations": annotations}}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    return {key: value or None for key, value in after.items() if value != before[key]}


def _make_room(secret: Mapping[str, Any], annotations: dict[str, str | None], run: Run) -> None:
    """Leave the event's copy out when all together would be too long; raise TooLarge if they still are."""
    merged: dict[str, str | None] = {**_mapping(secret, "annotations"), **annotations}
    event = f"{LABEL_PREFIX}event"
    if _size(merged) > MAX_ANNOTATIONS_BYTES and merged.get(event):
        annotations[event] = merged[event] = None
    size = _size(merged)
    if size > MAX_ANNOTATIONS_BYTES:
        raise TooLarge(
            f"run {run.id}: its acts and attempts would be {size} bytes, and at most {MAX_ANNOTATIONS_BYTES} "
            "can be stored; send its event anew"
        )


def _size(annotations: Mapping[str, str | None]) -> int:
    return sum(len(key) + len(value.encode()) for key, value in annotations.items() if value)


def _selector(wanted: RunFilter) -> str:
    values = {
        PROJECT_LABEL: _project_label(wanted.project),
        PIPELINE_LABEL: label_value(wanted.pipeline),
        SHA_LABEL: label_value(wanted.commit or ("" if wanted.sha_is_beginning else wanted.sha)),
        CONTEXT_LABEL: _context_label(wanted.context),
        PULL_REQUEST_LABEL: "" if wanted.pull_request is None else label_value(str(wanted.pull_request)),
        VERDICT_LABEL: label_value(wanted.verdict),
    }
    conditions = [f"{label}={value}" for label, value in values.items() if value]
    if wanted.open_only:
        conditions.append(f"{PHASE_LABEL}!=closed")
    return ",".join(conditions)


def _check_schema(secret: Mapping[str, Any]) -> None:
    said = _annotation(secret, "schema")
    if said.isascii() and said.isdigit() and int(said) > records.SCHEMA_VERSION:
        raise Misconfigured(
            f"the record was written by a newer bridge: left alone (its schema is {said[:20]}, this bridge knows "
            f"{records.SCHEMA_VERSION}); upgrade this bridge"
        )


def _mapping(secret: Mapping[str, Any], key: str) -> dict[str, str]:
    return secret["metadata"].get(key) or {}


def _annotation(secret: Mapping[str, Any], key: str) -> str:
    return _mapping(secret, "annotations").get(f"{LABEL_PREFIX}{key}", "")


def _number(secret: Mapping[str, Any], key: str) -> float:
    try:
        number = float(_annotation(secret, key))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Misconfigured(
            f"the record is damaged: annotation {LABEL_PREFIX}{key}: it is no number; remove the record"
        )
    return number


def _accepted(secret: Mapping[str, Any], otherwise: float) -> str:
    try:
        return repr(_number(secret, "accepted"))
    except Misconfigured:
        return repr(otherwise)


def _order(secret: Mapping[str, Any]) -> int:
    said = _annotation(secret, "order")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 30 else 0  # noqa: PLR2004 - sane digits


def _version(secret: Mapping[str, Any]) -> str:
    return str(secret["metadata"].get("resourceVersion") or "")


def _data(secret: Mapping[str, Any], key: str) -> bytes:
    values = secret.get("data")
    encoded = values.get(key) if isinstance(values, dict) else None
    try:
        return base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
