"""Pull requests, their comments and reactions, and who may what, of a GitHub that is none.

As GitHub answers (facts/github.md, and the payloads of @octokit/webhooks-examples for the form of a comment): a
second reaction of a kind by one account is answered 200 and kept once, anybody may read a public repository, and
comments are listed the oldest first, those that were changed since.
"""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bridge.demonstrating.fake_deliveries import LOST_ANSWER
from bridge.demonstrating.fake_replies import Reply, message, not_found, time_of

REACTIONS = frozenset({"+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"})
LONGEST_BODY = 65_536

_REPOSITORY = r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)"
_PERMISSION = re.compile(_REPOSITORY + r"/collaborators/(?P<login>[^/]+)/permission")
_PULL = re.compile(_REPOSITORY + r"/pulls/(?P<number>[0-9]+)")
_COMMENTS = re.compile(_REPOSITORY + r"/issues/(?P<number>[0-9]+)/comments")
_COMMENT_REACTIONS = re.compile(_REPOSITORY + r"/issues/comments/(?P<comment>[0-9]+)/reactions")
_MOST_PER_PAGE = 100
_DEFAULT_PER_PAGE = 30
_ROLES = {"maintain": "write", "triage": "read"}
"""What GitHub's older word is for a role."""


@dataclass(frozen=True)
class StoredComment:
    """A comment as it is now."""

    id: int
    repository: str
    number: int
    """Of the pull request or issue."""
    login: str
    body: str = field(repr=False)
    created: float
    """Seconds since the epoch."""
    reactions: tuple[tuple[str, str], ...] = ()
    """Who reacted, and how, the oldest first."""


class FakeComments:
    """What is said below pull requests. Thread safe.

    Args:
        now: the clock.
        refusal: the refusal that an Authorization header gets on a path, for which a permission of this name and
            level is needed; None if it is let in.
        account: whose an Authorization header is, a login.

    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        refusal: Callable[[str, str, str, str], Reply | None],
        account: Callable[[str], str],
    ) -> None:
        self._now = now
        self._refusal = refusal
        self._account = account
        self._changed = threading.Condition()
        self._roles: dict[tuple[str, str], str] = {}
        self._heads: dict[tuple[str, int], str] = {}
        self._comments: dict[int, StoredComment] = {}
        self._faults: deque[tuple[str, Reply]] = deque()
        self._asked: list[tuple[str, str]] = []

    def permit(self, repository: str, login: str, role: str) -> None:
        """Give somebody a role: `admin`, `maintain`, `write`, `triage`, `read` or `none`. Others may read."""
        with self._changed:
            self._roles[repository, login] = role

    def put_pull_request(self, repository: str, number: int, sha: str) -> None:
        """Make a pull request, or let its head be another commit."""
        with self._changed:
            self._heads[repository, number] = sha

    def write(self, repository: str, number: int, login: str, body: str) -> StoredComment:
        """A comment that a person writes."""
        with self._changed:
            return self._written(repository, number, login, body)

    def remove(self, comment: int) -> None:
        """Delete a comment."""
        with self._changed:
            del self._comments[comment]

    def fail_next(
        self, times: int, status: int, headers: Mapping[str, str] | None = None, *, on: str = ""
    ) -> None:
        """Answer the next requests that have `on` in method and path with `status`, doing nothing."""
        fault = Reply(status, {"message": "A fault that was asked for"}, dict(headers or {}))
        with self._changed:
            self._faults.extend([(on, fault)] * times)

    def lose_answers(self, times: int, *, on: str = "POST ") -> None:
        """Do what the next of those requests ask for, and close the connection instead of answering."""
        with self._changed:
            self._faults.extend([(on, LOST_ANSWER)] * times)

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """Method and path of each request so far."""
        with self._changed:
            return tuple(self._asked)

    def comment(self, comment: int) -> StoredComment:
        """A comment as it is now."""
        with self._changed:
            return self._comments[comment]

    def of(self, repository: str, number: int) -> tuple[StoredComment, ...]:
        """What is said below a pull request, the oldest first."""
        with self._changed:
            return tuple(self._below(repository, number))

    def reactions(self, comment: int) -> tuple[str, ...]:
        """How a comment was reacted to, the oldest first."""
        return tuple(how for _who, how in self.comment(comment).reactions)

    def wait_for_reaction(self, comment: int, *, timeout_seconds: float = 60.0) -> tuple[str, ...]:
        """The reactions as soon as there are any, or as they are after `timeout_seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._comments[comment].reactions, timeout_seconds)
        return self.reactions(comment)

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], authorization: str, body: bytes
    ) -> Reply | None:
        """What a request is answered with; None if this is no path of comments, LOST_ANSWER in place of none."""
        found, act, level = self._meant(method, path)
        if found is None:
            return None
        with self._changed:
            self._asked.append((method, path))
            fault = self._fault(f"{method} {path}")
            if fault is not None and fault is not LOST_ANSWER:
                return fault
            permission = "metadata" if act == self._permission else "pull_requests"
            refusal = self._refusal(path, authorization, permission, level)
            reply = refusal or act(found, query, self._account(authorization), body)
            self._changed.notify_all()
            return reply if fault is None else fault

    def _meant(self, method: str, path: str) -> tuple[re.Match[str] | None, Callable[..., Reply], str]:
        routes: tuple[tuple[str, re.Pattern[str], Callable[..., Reply], str], ...] = (
            ("GET", _PERMISSION, self._permission, "read"),
            ("GET", _PULL, self._pull, "read"),
            ("GET", _COMMENTS, self._listed, "read"),
            ("POST", _COMMENTS, self._commented, "write"),
            ("POST", _COMMENT_REACTIONS, self._reacted, "write"),
        )
        for wanted, pattern, act, level in routes:
            found = pattern.fullmatch(path) if method == wanted else None
            if found is not None:
                return found, act, level
        return None, self._pull, ""

    def _fault(self, asked: str) -> Reply | None:
        due = next((one for one in self._faults if one[0] in asked), None)
        if due is None:
            return None
        self._faults.remove(due)
        return due[1]

    def _permission(self, found: re.Match[str], _query: object, _login: str, _body: bytes) -> Reply:
        role = self._roles.get((found["repository"], found["login"]), "read")
        user = {"login": found["login"], "type": "User"}
        return Reply(200, {"permission": _ROLES.get(role, role), "role_name": role, "user": user})

    def _pull(self, found: re.Match[str], _query: object, _login: str, _body: bytes) -> Reply:
        number = int(found["number"])
        sha = self._heads.get((found["repository"], number))
        if sha is None:
            return not_found()
        return Reply(200, {"number": number, "state": "open", "head": {"sha": sha, "ref": "change"}})

    def _listed(self, found: re.Match[str], query: Mapping[str, list[str]], _login: str, _body: bytes) -> Reply:
        since = query.get("since", [""])[0]
        after = datetime.fromisoformat(since).timestamp() if since else 0.0
        size = min(int(query.get("per_page", [str(_DEFAULT_PER_PAGE)])[0]), _MOST_PER_PAGE)
        page = int(query.get("page", ["1"])[0])
        below = [
            one for one in self._below(found["repository"], int(found["number"])) if int(one.created) >= after
        ]
        return Reply(200, [_shown(one) for one in below[(page - 1) * size : page * size]])

    def _commented(self, found: re.Match[str], _query: object, login: str, body: bytes) -> Reply:
        text = _field(body, "body")
        if not text or len(text) > LONGEST_BODY:
            return message(422, "Validation Failed", errors=[{"field": "body", "code": "invalid"}])
        return Reply(201, _shown(self._written(found["repository"], int(found["number"]), login, text)))

    def _reacted(self, found: re.Match[str], _query: object, login: str, body: bytes) -> Reply:
        comment = self._comments.get(int(found["comment"]))
        how = _field(body, "content")
        if comment is None or comment.repository != found["repository"]:
            return not_found()
        if how not in REACTIONS:
            return message(422, "Validation Failed", errors=[{"field": "content", "code": "invalid"}])
        shown = {"content": how, "user": {"login": login}}
        if (login, how) in comment.reactions:
            return Reply(200, shown)
        self._comments[comment.id] = replace(comment, reactions=(*comment.reactions, (login, how)))
        return Reply(201, shown)

    def _written(self, repository: str, number: int, login: str, body: str) -> StoredComment:
        # Ids of comments are long, and more than those of pull requests.
        made = StoredComment(700_000_000 + len(self._comments), repository, number, login, body, self._now())
        self._comments[made.id] = made
        return made

    def _below(self, repository: str, number: int) -> list[StoredComment]:
        return [one for one in self._comments.values() if (one.repository, one.number) == (repository, number)]


def _shown(comment: StoredComment) -> dict[str, Any]:
    at = time_of(comment.created)
    return {
        "id": comment.id,
        "body": comment.body,
        "user": {"login": comment.login},
        "created_at": at,
        "updated_at": at,
    }


def _field(body: bytes, name: str) -> str:
    try:
        value = json.loads(body)[name]
    except (ValueError, TypeError, KeyError):
        return ""
    return value if isinstance(value, str) else ""
