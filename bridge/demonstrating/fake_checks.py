"""The check runs of a GitHub that is none: made, changed and listed by installation tokens of Apps alone.

What is sent is judged as GitHub does: facts/github.md (Checks), and for the words of its refusals what users quote
in these threads: zyborg/dotnet-tests-report#9 (65,535 characters), github/docs#35252 (which are bytes),
EnricoMi/publish-unit-test-result-action#53 (a token of no App), gr2m/merge-schedule-action#55 (another App's).
"""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.demonstrating.fake_apps import FakeApps, MintedToken
from bridge.demonstrating.fake_deliveries import LOST_ANSWER
from bridge.demonstrating.fake_replies import Reply, message, not_found, time_of

CONCLUSIONS = frozenset({"action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"})
STATUSES = frozenset({"queued", "in_progress", "completed"})
LONGEST_OUTPUT_BYTES = 65_535
MOST_ACTIONS = 3

_RUNS = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/check-runs")
_RUN = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/check-runs/(?P<id>[0-9]+)")
_OF_COMMIT = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/commits/(?P<ref>.+)/check-runs")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_FIELDS = ("status", "conclusion", "external_id", "details_url", "started_at", "completed_at", "output")
_MOST_PER_PAGE = 100
_DEFAULT_PER_PAGE = 30


@dataclass(frozen=True)
class StoredCheck:
    """A check run as it is now. Times are as they were sent."""

    id: int
    repository: str
    app: str
    """The id of the App that made it."""
    name: str
    head_sha: str
    status: str = "queued"
    conclusion: str | None = None
    external_id: str = ""
    details_url: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    output: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Of its output."""
        return self.output.get("title", "")

    @property
    def summary(self) -> str:
        """Of its output."""
        return self.output.get("summary", "")

    @property
    def text(self) -> str:
        """Of its output."""
        return self.output.get("text", "")


@dataclass(frozen=True)
class _Fault:
    reply: Reply | None = None
    """In place of doing anything."""
    lose: bool = False
    hold: bool = False
    method: str = ""


class FakeChecks:
    """Check runs and who may write them. Thread safe.

    Args:
        apps: whose installation tokens are good for them.
        now: the clock.

    """

    def __init__(self, apps: FakeApps, *, now: Callable[[], float]) -> None:
        self._apps = apps
        self._now = now
        self._changed = threading.Condition(threading.RLock())
        self._checks: dict[int, StoredCheck] = {}
        self._written: list[StoredCheck] = []
        self._faults: deque[_Fault] = deque()
        self._releases = 0
        self._requests = 0

    @property
    def all(self) -> tuple[StoredCheck, ...]:
        """Every check run as it is now, the oldest first."""
        with self._changed:
            return tuple(self._checks.values())

    @property
    def written(self) -> tuple[StoredCheck, ...]:
        """Every check run as it was after each create and each change, the oldest first."""
        with self._changed:
            return tuple(self._written)

    @property
    def requests(self) -> int:
        """How often somebody asked something of check runs, refused or not."""
        with self._changed:
            return self._requests

    def wait_until(
        self, wanted: Callable[[tuple[StoredCheck, ...]], bool], *, timeout_seconds: float = 60.0
    ) -> tuple[StoredCheck, ...]:
        """`all` as soon as `wanted` says yes to it, or as it is after `timeout_seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(tuple(self._checks.values())), timeout_seconds)
            return tuple(self._checks.values())

    def fail_next(
        self, times: int, status: int, text: str = "A fault that was asked for", *, method: str = ""
    ) -> None:
        """Refuse the next requests, those of `method` alone if it is given, doing nothing."""
        self._plan(times, _Fault(reply=message(status, text), method=method))

    def lose_answers(self, times: int, *, method: str = "POST") -> None:
        """Do what the next requests of `method` ask for, and close the connection instead of answering."""
        self._plan(times, _Fault(lose=True, method=method))

    def hold_answers(self, times: int, *, method: str = "POST") -> None:
        """Do what the next requests of `method` ask for, and answer when `release` is called."""
        self._plan(times, _Fault(hold=True, method=method))

    def release(self) -> None:
        """Answer what is held now."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def put(self, repository: str, app: str, name: str, head_sha: str, **fields: Any) -> StoredCheck:
        """Make a check run as `app` did it."""
        with self._changed:
            check = StoredCheck(9000 + len(self._checks), repository, app, name, head_sha, **fields)
            return self._kept(check)

    def _plan(self, times: int, fault: _Fault) -> None:
        with self._changed:
            self._faults.extend([fault] * times)

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], authorization: str, body: bytes
    ) -> Reply | None:
        """What a request about check runs is answered with; None if this is no path of them."""
        if not any(one.fullmatch(path) for one in (_RUNS, _RUN, _OF_COMMIT)):
            return None
        fault, releases = self._next_fault(method)
        if fault.reply is not None:
            return fault.reply
        reply = self._replied(method, path, query, authorization, body)
        if fault.hold:
            with self._changed:
                self._changed.wait_for(lambda: self._releases != releases, 600.0)
        return LOST_ANSWER if fault.lose else reply

    def _next_fault(self, method: str) -> tuple[_Fault, int]:
        with self._changed:
            self._requests += 1
            due = next((one for one in self._faults if one.method in {"", method}), None)
            if due is not None:
                self._faults.remove(due)
            return due or _Fault(), self._releases

    def _replied(
        self, method: str, path: str, query: Mapping[str, list[str]], authorization: str, body: bytes
    ) -> Reply:
        minted = self._apps.find(authorization.partition(" ")[2].strip())
        if minted is None:
            known = "You must authenticate via a GitHub App." if authorization else "Requires authentication"
            return message(403 if authorization else 401, known)
        repository = "/".join(path.removeprefix("/api/v3").removeprefix("/repos/").split("/")[:2])
        refusal = _refusal(minted, repository, writes=method != "GET")
        if refusal is not None:
            return refusal
        if method == "GET":
            return self._read(path, query)
        try:
            sent = json.loads(body)
        except ValueError:
            return message(400, "Problems parsing JSON")
        if not isinstance(sent, dict):
            return message(422, "Invalid request.")
        if method == "POST" and _RUNS.fullmatch(path):
            return self._made(repository, self._apps.owner_of(minted), sent)
        found = _RUN.fullmatch(path)
        return (
            self._patched(int(found["id"]), repository, self._apps.owner_of(minted), sent)
            if method == "PATCH" and found
            else not_found()
        )

    def _made(self, repository: str, app: str, sent: dict[str, Any]) -> Reply:
        wrong = [f'"{name}" wasn\'t supplied.' for name in ("name", "head_sha") if not sent.get(name)]
        wrong += _wrong(sent)
        if not wrong and (refusal := _too_many_bytes(sent.get("output"))):
            return refusal
        if not wrong and not _SHA.fullmatch(str(sent["head_sha"])):
            return message(422, f"No commit found for SHA: {sent['head_sha']}")
        if wrong:
            return message(422, "Invalid request.\n\n" + "\n".join(wrong))
        with self._changed:
            check = StoredCheck(9000 + len(self._checks), repository, app, sent["name"], sent["head_sha"])
            return Reply(201, self.shown(self._kept(_with(check, sent, now=self._now()))))

    def _patched(self, number: int, repository: str, app: str, sent: dict[str, Any]) -> Reply:
        with self._changed:
            check = self._checks.get(number)
            if check is None or check.repository != repository:
                return not_found()
            if check.app != app:
                text = "check run can only be modified by the GitHub App that created it."
                return message(403, f"Invalid app_id `{app}` - {text}")
            wrong = _wrong(sent)
            if wrong:
                return message(422, "Invalid request.\n\n" + "\n".join(wrong))
            if refusal := _too_many_bytes(sent.get("output")):
                return refusal
            return Reply(200, self.shown(self._kept(_with(check, sent, now=self._now()))))

    def _kept(self, check: StoredCheck) -> StoredCheck:
        self._checks[check.id] = check
        self._written.append(check)
        self._changed.notify_all()
        return check

    def _read(self, path: str, query: Mapping[str, list[str]]) -> Reply:
        with self._changed:
            checks = list(self._checks.values())
        if one := _RUN.fullmatch(path):
            found = next((check for check in checks if check.id == int(one["id"])), None)
            return Reply(200, self.shown(found)) if found else not_found()
        of_commit = _OF_COMMIT.fullmatch(path)
        if of_commit is None:
            return not_found()
        chosen = [
            check
            for check in reversed(checks)
            if (check.repository, check.head_sha) == (of_commit["repository"], of_commit["ref"])
            and _asked(query, "check_name", check.name)
            and _asked(query, "app_id", check.app)
            and _asked(query, "status", check.status)
        ]
        if query.get("filter", ["latest"])[0] == "latest":
            chosen = list({(check.app, check.name): check for check in reversed(chosen)}.values())
        size = min(int(query.get("per_page", [str(_DEFAULT_PER_PAGE)])[0]), _MOST_PER_PAGE)
        page = int(query.get("page", ["1"])[0])
        shown = [self.shown(check) for check in chosen[(page - 1) * size : page * size]]
        return Reply(200, {"total_count": len(chosen), "check_runs": shown})

    def shown(self, check: StoredCheck) -> dict[str, Any]:
        """A check run in GitHub's own form, as answers and deliveries have it."""
        return {
            "id": check.id,
            "name": check.name,
            "head_sha": check.head_sha,
            "external_id": check.external_id,
            "status": check.status,
            "conclusion": check.conclusion,
            "started_at": check.started_at,
            "completed_at": check.completed_at,
            "details_url": check.details_url,
            "output": {"title": None, "summary": None, "text": None, "annotations_count": 0, **check.output},
            "app": {"id": int(check.app) if check.app.isdecimal() else 0, "client_id": f"Iv1.{check.app}"},
            "check_suite": {"id": 7000},
            "pull_requests": [],
        }


def _refusal(minted: MintedToken, repository: str, *, writes: bool) -> Reply | None:
    if repository not in minted.repositories:
        return not_found()
    level = minted.permissions.get("checks", "")
    if not level or (writes and level == "read"):
        return message(403, "Resource not accessible by integration")
    return None


def _with(check: StoredCheck, sent: Mapping[str, Any], *, now: float) -> StoredCheck:
    fields = {name: sent[name] for name in _FIELDS if name in sent}
    if fields.get("conclusion"):
        # GitHub: a conclusion completes it.
        fields["status"] = "completed"
        fields.setdefault("completed_at", time_of(now))
    elif fields.get("status") in {"queued", "in_progress"}:
        fields |= {"conclusion": None, "completed_at": None}
    return replace(check, **fields)


def _wrong(sent: Mapping[str, Any]) -> list[str]:
    status, conclusion = sent.get("status"), sent.get("conclusion")
    wrong = []
    if status is not None and status not in STATUSES:
        wrong.append(f"{status} is not a member of {sorted(STATUSES)}.")
    if conclusion is not None and conclusion not in CONCLUSIONS:
        wrong.append(f"{conclusion} is not a member of {sorted(CONCLUSIONS)}.")
    if status == "completed" and conclusion is None:
        wrong.append('"conclusion" wasn\'t supplied.')
    times = [sent[name] for name in ("started_at", "completed_at") if sent.get(name) is not None]
    wrong += [f"{time} is not a valid date-time." for time in times if not _TIME.fullmatch(str(time))]
    link = sent.get("details_url")
    if link is not None and not str(link).startswith(("http://", "https://")):
        wrong.append("details_url must use http(s) scheme")
    if len(sent.get("actions") or ()) > MOST_ACTIONS:
        wrong.append(f"No more than {MOST_ACTIONS} items are allowed; {len(sent['actions'])} were supplied.")
    return wrong + _wrong_output(sent.get("output"))


def _wrong_output(output: Any) -> list[str]:
    if output is None:
        return []
    wrong = [f'"{name}" wasn\'t supplied.' for name in ("title", "summary") if not output.get(name)]
    sizes = [len(str(output.get(name) or "")) for name in ("summary", "text")]
    return wrong + [
        f"Only {LONGEST_OUTPUT_BYTES} characters are allowed; {size} were supplied."
        for size in sizes
        if size > LONGEST_OUTPUT_BYTES
    ]


def _too_many_bytes(output: Any) -> Reply | None:
    """GitHub counts characters first and then bytes, and says so in different words."""
    errors = [
        {
            "resource": "CheckRun",
            "code": "custom",
            "field": name,
            "message": f"{name} exceeds a maximum bytesize of {LONGEST_OUTPUT_BYTES}",
        }
        for name in ("summary", "text")
        if len(str((output or {}).get(name) or "").encode()) > LONGEST_OUTPUT_BYTES
    ]
    return message(422, "Validation Failed", errors=errors) if errors else None


def _asked(query: Mapping[str, list[str]], name: str, value: str) -> bool:
    return query.get(name, [value])[0] == value
