"""The webhooks of a GitHub that is none: it really sends, logs each attempt, and sends again when asked to.

As GitHub does it (facts/github.md, Webhooks): nothing is sent again by itself, a redelivery has the GUID of what
it repeats, is answered 202 before it is made and is refused after 3 days, and a log has the newest attempt first,
in pages that a cursor leads through.
"""

import json
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.core.deliveries import REDELIVERABLE_SECONDS
from bridge.demonstrating.fake_replies import Reply, message, not_found, time_of
from bridge.errors import Unavailable
from bridge.sending import send, signed_headers

NO_ANSWER = (0, "failed to connect to host")
"""Status code and status of an attempt that nobody answered."""

LOST_ANSWER = Reply(0, None)
"""In place of an answer: the connection is closed."""

_BASE = r"(?:/api/v3)?(?P<base>/app/hook|/repos/(?P<repository>[^/]+/[^/]+)/hooks/(?P<hook>[0-9]+))"
_HOOKS = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/hooks")
_CONFIG = re.compile(r"(?:/api/v3)?/app/hook/config")
_LOG = re.compile(_BASE + r"/deliveries")
_ONE = re.compile(_BASE + r"/deliveries/(?P<id>[0-9]+)")
_ATTEMPTS = re.compile(_BASE + r"/deliveries/(?P<id>[0-9]+)/attempts")
_PATHS = (_HOOKS, _CONFIG, _LOG, _ONE, _ATTEMPTS)
_CURSOR = re.compile(r"v1_([0-9]+)")
_MOST_PER_PAGE = 100
_DEFAULT_PER_PAGE = 30
_ACCEPTED = range(200, 300)


@dataclass(frozen=True)
class Hook:
    """A webhook: an App's own, or a repository's."""

    id: int
    owner: str
    """The App's id, or the repository's `owner/name`."""
    url: str = field(repr=False)
    secret: str = field(repr=False)
    of_app: bool = False
    active: bool = True


@dataclass(frozen=True)
class SentDelivery:
    """One attempt, as it was logged."""

    id: int
    guid: str
    hook: int
    event: str
    body: bytes = field(repr=False)
    delivered: float
    """Seconds since the epoch."""
    status: str
    status_code: int
    redelivery: bool


class FakeHooks:
    """Webhooks and their logs. Thread safe.

    Args:
        now: the clock.
        app_of: whose JWT an Authorization header is, or the refusal.
        refusal: the refusal that a token gets on a path of a repository, None if it is let in.

    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        app_of: Callable[[str], str | Reply],
        refusal: Callable[[str, str], Reply | None],
    ) -> None:
        self._now = now
        self._app_of = app_of
        self._refusal = refusal
        self._lock = threading.RLock()
        self._hooks: dict[int, Hook] = {}
        self._log: list[SentDelivery] = []
        self._first_id = 1
        self._asked: deque[tuple[str, str]] = deque(maxlen=10_000)
        self._faults: deque[tuple[str, Reply]] = deque()
        self._blind: set[str] = set()
        self._sending: list[threading.Thread] = []
        self._free = threading.Event()
        self._free.set()
        self.no_answer = NO_ANSWER
        """What is logged when nobody answers."""
        self.answer_seconds = 10.0
        """So long an answer is waited for."""

    def add(self, repository: str, url: str, *, secret: str = "", active: bool = True) -> int:
        """Make a webhook of a repository; answers its id."""
        return self._added(Hook(0, repository, url, secret, active=active))

    def add_app(self, app_id: str, url: str, *, secret: str = "") -> int:
        """Make the webhook of an App; answers its id."""
        return self._added(Hook(0, app_id, url, secret, of_app=True))

    def change(self, hook: int, **changes: Any) -> None:
        """Change fields of a webhook."""
        with self._lock:
            self._hooks[hook] = replace(self._hooks[hook], **changes)

    def blind(self, token: str) -> None:
        """Let a token see no webhooks, as one that lacks the scope for them."""
        with self._lock:
            self._blind.add(token)

    def fail_next(
        self, times: int, status: int, headers: Mapping[str, str] | None = None, *, method: str = ""
    ) -> None:
        """Answer the next requests about webhooks with `status` and `headers`, doing nothing.

        Those of `method` alone, if it is given.
        """
        fault = Reply(status, {"message": "A fault that was asked for"}, dict(headers or {}))
        with self._lock:
            self._faults.extend([(method, fault)] * times)

    def lose_answers(self, times: int) -> None:
        """Do what the next requests for another attempt ask for, and close the connection instead of answering."""
        with self._lock:
            self._faults.extend([("POST", LOST_ANSWER)] * times)

    @property
    def log(self) -> tuple[SentDelivery, ...]:
        """Every attempt of every webhook, the oldest first."""
        with self._lock:
            return tuple(self._log)

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """Method and path of each request about webhooks, the oldest first."""
        with self._lock:
            return tuple(self._asked)

    def deliver(self, event: str, body: bytes, *hooks: int, guid: str = "") -> str:
        """Send an event to webhooks, once each, and log what they answer; answers the GUID that they share."""
        guid = guid or str(uuid.uuid4())
        for hook in hooks:
            self._sent(hook, guid, event, body, redelivery=False)
        return guid

    def put(self, hook: int, status_code: int, *, guid: str = "", age_seconds: float = 0.0, **told: Any) -> str:
        """Log an attempt that was never made; answers its GUID. `told` are fields of a SentDelivery."""
        guid = guid or str(uuid.uuid4())
        with self._lock:
            made = SentDelivery(
                **{
                    "id": self._first_id + len(self._log),
                    "guid": guid,
                    "hook": hook,
                    "event": "push",
                    "body": b"{}",
                    "delivered": self._now() - age_seconds,
                    "status": "OK" if status_code in _ACCEPTED else "Invalid HTTP Response",
                    "status_code": status_code,
                    "redelivery": False,
                    **told,
                }
            )
            self._log.append(made)
        return guid

    def forget(self) -> None:
        """Empty all logs; cursors into them are of no use from here on."""
        with self._lock:
            self._first_id += len(self._log)
            self._log.clear()

    def hold(self) -> None:
        """Make nothing of what is asked for again from here on, until `settle`: GitHub throttles it."""
        self._free.clear()

    def settle(self, timeout_seconds: float = 60.0) -> None:
        """Wait until everything that was asked for again is sent and logged."""
        self._free.set()
        with self._lock:
            sending, self._sending = self._sending, []
        for thread in sending:
            thread.join(timeout_seconds)

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], authorization: str, base_url: str
    ) -> Reply | None:
        """What a request about webhooks is answered with; None if this is no path of them."""
        if not any(one.fullmatch(path) for one in _PATHS):
            return None
        fault = self._next_fault(method, path)
        if fault is None or fault is LOST_ANSWER:
            reply = self._replied(method, path, query, authorization, base_url)
            return fault or reply
        return fault

    def _next_fault(self, method: str, path: str) -> Reply | None:
        with self._lock:
            self._asked.append((method, path))
            due = next((one for one in self._faults if one[0] in {"", method}), None)
            if due is None:
                return None
            self._faults.remove(due)
            return due[1]

    def _replied(
        self, method: str, path: str, query: Mapping[str, list[str]], authorization: str, base_url: str
    ) -> Reply:
        matches = [one.fullmatch(path) for one in _PATHS]
        hooks = self._of(path, authorization)
        if isinstance(hooks, Reply):
            return hooks
        if (method == "POST") != bool(matches[-1]):
            return not_found()
        all_of, config, log, one, attempts = matches
        if all_of:
            return Reply(200, [_shown_hook(hook) for hook in hooks])
        found = next(iter(hooks), None)
        if found is None:
            return not_found()
        if config:
            return Reply(200, {"url": found.url, "content_type": "json", "secret": "********"})
        if log:
            return self._page(found, f"{base_url}{path}", query)
        chosen = one or attempts
        return self._of_one(found, int(chosen["id"]) if chosen else 0, again=bool(attempts))

    def _added(self, hook: Hook) -> int:
        with self._lock:
            number = 500 + len(self._hooks)
            self._hooks[number] = replace(hook, id=number)
        return number

    def _of(self, path: str, authorization: str) -> list[Hook] | Reply:
        """The webhooks that a path is about, if whoever asks may know of them."""
        within = re.match(r"(?:/api/v3)?/repos/([^/]+/[^/]+)/hooks(?:/([0-9]+))?", path)
        if within is None:
            app = self._app_of(authorization)
            if isinstance(app, Reply):
                return app
            with self._lock:
                return [hook for hook in self._hooks.values() if hook.of_app and hook.owner == app]
        refusal = self._refusal(path, authorization)
        if refusal is not None:
            return refusal
        with self._lock:
            if authorization.partition(" ")[2].strip() in self._blind:
                return not_found()
            mine = [hook for hook in self._hooks.values() if not hook.of_app and hook.owner == within[1]]
        return [hook for hook in mine if not within[2] or hook.id == int(within[2])]

    def _page(self, hook: Hook, url: str, query: Mapping[str, list[str]]) -> Reply:
        asked = query.get("per_page", [""])[0]
        size = min(int(asked) if asked.isdecimal() else _DEFAULT_PER_PAGE, _MOST_PER_PAGE)
        cursor = query.get("cursor", [""])[0]
        below = _CURSOR.fullmatch(cursor)
        if cursor and below is None:
            return message(422, "Invalid cursor")
        with self._lock:
            mine = [one for one in self._log if one.hook == hook.id]
        mine = sorted(mine, key=lambda one: (one.delivered, one.id), reverse=True)
        if below is not None:
            ids = [one.id for one in mine]
            if int(below[1]) not in ids:
                return message(422, "Invalid cursor")
            mine = mine[ids.index(int(below[1])) + 1 :]
        shown = mine[:size]
        page = [_shown(one) for one in shown]
        if len(shown) == len(mine):
            return Reply(200, page)
        following = f'<{url}?per_page={size}&cursor=v1_{shown[-1].id}>; rel="next"'
        return Reply(200, page, {"Link": following})

    def _of_one(self, hook: Hook, number: int, *, again: bool) -> Reply:
        with self._lock:
            found = next((one for one in self._log if one.hook == hook.id and one.id == number), None)
        if found is None:
            return not_found()
        if not again:
            headers = signed_headers(found.event, found.body, hook.secret, found.guid)
            return Reply(200, {**_shown(found), "request": {"headers": headers, "payload": _payload(found)}})
        if self._now() - found.delivered > REDELIVERABLE_SECONDS:
            return message(422, "This delivery is too old to be redelivered.")
        thread = threading.Thread(
            target=self._sent,
            args=(hook.id, found.guid, found.event, found.body),
            kwargs={"redelivery": True},
            name="fake GitHub sends again",
        )
        with self._lock:
            self._sending.append(thread)
            thread.start()
        return Reply(202, {})

    def _sent(self, number: int, guid: str, event: str, body: bytes, *, redelivery: bool) -> None:
        with self._lock:
            hook = self._hooks[number]
        if redelivery:
            self._free.wait()
        try:
            code, _ = send(
                hook.url, event, body, secret=hook.secret, delivery=guid, timeout_seconds=self.answer_seconds
            )
            status = "OK" if code in _ACCEPTED else f"Invalid HTTP Response: {code}"
        except Unavailable:
            code, status = self.no_answer
        self.put(number, code, guid=guid, event=event, body=body, status=status, redelivery=redelivery)


def _shown_hook(hook: Hook) -> dict[str, Any]:
    return {
        "type": "Repository",
        "id": hook.id,
        "name": "web",
        "active": hook.active,
        "events": ["*"],
        "config": {"url": hook.url, "content_type": "json", "insecure_ssl": "0"},
    }


def _shown(one: SentDelivery) -> dict[str, Any]:
    return {
        "id": one.id,
        "guid": one.guid,
        "delivered_at": time_of(one.delivered),
        "redelivery": one.redelivery,
        "duration": 0.1,
        "status": one.status,
        "status_code": one.status_code,
        "event": one.event,
        "action": None,
        "installation_id": None,
        "repository_id": None,
        "throttled_at": None,
    }


def _payload(one: SentDelivery) -> Any:
    try:
        return json.loads(one.body)
    except ValueError:
        return None
