import difflib
import json

from bridge.core.events import Event, github
from bridge.demonstrating import payloads
from tests.octokit import answers


def test_every_example_payload_is_answered_as_the_committed_table_says():
    committed = answers.TABLE.read_text(encoding="utf-8").splitlines()
    now = answers.table(payloads.examples())
    different = list(difflib.unified_diff(committed, now, "answers.tsv", "now", lineterm="", n=0))
    assert not different, "\n".join(["python -m tests.octokit.regenerate writes it anew:", *different[:100]])


def test_no_example_payload_is_unreadable():
    assert not [line for line in answers.table(payloads.examples()) if "\tunreadable: " in line]


def test_the_claim_read_before_verification_is_the_project_of_the_event():
    events = [(example, answers.answer(example)) for example in payloads.examples()]
    differing = [
        (example, event.project)
        for example, event in events
        if isinstance(event, Event) and github.claimed_project(example.body) != event.project
    ]
    assert not differing


def test_every_example_payload_of_a_check_is_wrapped_as_brigade_does():
    for name in ("check_run", "check_suite"):
        example = next(found for found in payloads.examples() if found.event == name)
        wrapper = json.loads(answers.answer(example).payload)
        assert list(wrapper) == ["type", "token", "tokenExpires", "body", "commit", "branch"]
        assert wrapper == {
            "type": name,
            "token": "",
            "tokenExpires": "0001-01-01T00:00:00Z",
            "body": example.payload,
            "commit": "",
            "branch": "",
        }
