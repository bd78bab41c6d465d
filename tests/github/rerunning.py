"""GitHub's Re-run button: the recorded delivery, about a check run that the fake GitHub holds."""

import json

from bridge.demonstrating.fake_checks import StoredCheck
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.demonstrating.payloads import example


def rerequested(fake: FakeGitHub, check: StoredCheck, *, sender: str = "octocat") -> bytes:
    """What GitHub sends to the App that made `check` when somebody presses its Re-run."""
    payload = json.loads(example("check_run", "rerequested").body)
    suite = payload["check_run"]["check_suite"] | {"head_sha": check.head_sha}
    shown = fake.checks.shown(check)
    payload["check_run"] |= shown
    payload["check_run"]["check_suite"] = suite | {"app": shown["app"]}
    payload["repository"]["full_name"] = check.repository
    payload["sender"]["login"] = sender
    return json.dumps(payload).encode()
