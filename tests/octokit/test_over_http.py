"""Every example payload through the gateway: what the issue promises of answers, and never a 500."""

from bridge.core.events import Event
from bridge.demonstrating import payloads
from bridge.sending import signed_headers
from tests.octokit import answers
from tests.web.worlds import SECRET, World, a_pipeline, a_project, a_world

SHOULD_RUN = {
    *((source, "push", "") for source in ("api.github.com",)),
    *(
        ("api.github.com", "pull_request", action)
        for action in ("opened", "synchronize", "reopened", "edited", "closed", "labeled")
    ),
}


def world_of(projects: set[str]) -> World:
    events = {example.event for example in payloads.examples()}
    return a_world(
        a_pipeline("all", *sorted(events), projects=("*/*",)),
        projects=[
            a_project(name, allowed_authors=("OWNER", "MEMBER", "COLLABORATOR", "NONE")) for name in projects
        ],
    )


def test_every_example_payload_is_answered_over_http_as_its_event_is():
    examples = payloads.examples()
    events = [answers.answer(example) for example in examples]
    names = {event.project for event in events if isinstance(event, Event)}
    world = world_of(names)
    wrong = []
    for number, (example, event) in enumerate(zip(examples, events, strict=True)):
        headers = signed_headers(example.event, example.body, SECRET, f"delivery-{number}")
        answer = world.client.post("/events/github", data=example.body, headers=headers)
        expected = {202} if isinstance(event, Event) else {200, 401}
        if answer.status_code not in expected:
            wrong.append((example.source, example.event, example.action, answer.status_code, answer.text[:200]))
    assert wrong == []
    stored = len(world.runs.records)
    assert stored == sum(isinstance(event, Event) for event in events)


def test_pushes_and_the_actions_of_pull_requests_are_events():
    seen = {
        (example.source, example.event, example.action)
        for example in payloads.examples()
        if isinstance(answers.answer(example), Event)
    }
    known = {(example.source, example.event, example.action) for example in payloads.examples()}
    assert SHOULD_RUN & known <= seen
