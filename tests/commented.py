"""Comments as GitHub delivers them: the recorded payload of one on a pull request, with a test's own words in it."""

import copy
import json
from typing import Any

from bridge.demonstrating import payloads
from bridge.demonstrating.fake_comments import StoredComment
from bridge.demonstrating.fake_replies import time_of

APP_ID = 4711
PULL = 7


def delivery(
    comment: StoredComment, *, action: str = "created", kind: str = "User", on_pull: bool = True
) -> bytes:
    """The body of the delivery that tells of `comment`, by an account of this kind (`User`, `Bot`)."""
    payload = copy.deepcopy(_recorded())
    author = {**payload["comment"]["user"], "login": comment.login, "type": kind}
    payload["action"] = action
    payload["repository"]["full_name"] = comment.repository
    payload["sender"] = author
    payload["issue"]["number"] = comment.number
    if on_pull:
        # The recorded ones are of before, or of issues: this is what tells a pull request apart.
        payload["issue"]["pull_request"] = {"url": f"https://api.github.com/repos/pulls/{comment.number}"}
    else:
        payload["issue"].pop("pull_request", None)
    payload["comment"] |= {
        "id": comment.id,
        "user": author,
        "body": comment.body,
        "created_at": time_of(comment.created),
    }
    return json.dumps(payload).encode()


def by_app(body: bytes, app_id: int = APP_ID) -> bytes:
    """The same, written by way of a GitHub App."""
    payload = json.loads(body)
    payload["comment"]["performed_via_github_app"] = {"id": app_id}
    return json.dumps(payload).encode()


def pull_request(
    sha: str,
    *,
    number: int = PULL,
    action: str = "synchronize",
    author: str = "NONE",
    project: str = "acme/widgets",
) -> bytes:
    """The body of a delivery that tells of a fork's pull request, whose head is now `sha`."""
    payload = copy.deepcopy(payloads.example("pull_request", "synchronize").payload)
    payload["action"] = action
    payload["number"] = payload["pull_request"]["number"] = number
    payload["repository"]["full_name"] = project
    payload["pull_request"]["author_association"] = author
    payload["pull_request"]["head"] |= {"sha": sha, "repo": {"full_name": "stranger/widgets"}}
    payload["pull_request"]["base"]["repo"] = {"full_name": project}
    return json.dumps(payload).encode()


def _recorded() -> dict[str, Any]:
    return payloads.example("issue_comment", "created").payload
