import contextlib
import gzip
import hmac
import json

import pytest
from structlog.testing import capture_logs

from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.core.names import project_id
from bridge.errors import BadProject, Conflict, Forbidden, NotFound, Unavailable
from tests.web.worlds import COMMIT, GENERIC, PROJECT, PUSH, SECOND, SECRET, a_pipeline, a_project, a_world

SIMPLE = f"/simpleevents/v1/{project_id(PROJECT)}/{GENERIC}"
CLOUD = f"/cloudevents/v02/{project_id(PROJECT)}/{GENERIC}"
CLOUDEVENT = {"type": "t", "specversion": "0.2", "source": "/here", "id": "1", "data": {"commit": COMMIT}}


def signature(body, secret=SECRET):
    return f"sha256={hmac.new(secret.encode(), body, 'sha256').hexdigest()}"


def padded(size):
    """A push of exactly `size` bytes."""
    document = {**json.loads(PUSH), "padding": ""}
    missing = size - len(json.dumps(document))
    return json.dumps({**document, "padding": "x" * missing}).encode()


def with_member(text):
    """The push with one more member, as it is written."""
    return PUSH[:-1] + b"," + text + b"}"


def test_a_signed_push_is_stored_and_then_answered_with_its_run():
    world = a_world()
    answer = world.deliver()
    assert answer.status_code == 202
    (run,) = world.runs.records.values()
    assert answer.json == {"runs": [{"id": run.id, "url": f"/runs/{run.id}", "duplicate": False}]}
    assert run.event.project == PROJECT
    assert (run.event.revision.commit, run.event.revision.ref) == (COMMIT, "refs/heads/main")
    assert world.runs.payloads[run.id] == PUSH


def test_with_a_public_url_the_answer_links_to_the_page():
    answer = a_world(public_url="https://bridge.example").deliver()
    (run,) = answer.json["runs"]
    assert run["url"] == f"https://bridge.example/runs/{run['id']}"


def test_every_pipeline_that_wants_the_event_is_in_the_answer():
    answer = a_world(a_pipeline("b"), a_pipeline("a"), a_pipeline("c", "release")).deliver()
    assert [run["id"].partition("-")[0] for run in answer.json["runs"]] == ["a", "b"]


def test_a_second_secret_is_active_too():
    assert a_world().deliver(secret=SECOND).status_code == 202


def test_the_default_secret_counts_only_for_projects_without_their_own():
    world = a_world(default_secret="default")
    assert world.deliver(secret="default").status_code == 401
    bare = a_world(projects=[a_project(shared_secret="", second_secret="")], default_secret="default")
    assert bare.deliver(secret="default").status_code == 202


def test_a_project_without_any_secret_takes_nothing():
    world = a_world(projects=[a_project(shared_secret="", second_secret="")])
    for secret in ("", "x"):
        answer = world.deliver(X_Hub_Signature_256=signature(PUSH, secret))
        assert answer.status_code == 401
    assert world.runs.records == {}


def test_a_repeat_is_answered_as_a_duplicate_and_stores_nothing_more():
    world = a_world()
    first = world.deliver().json["runs"][0]
    again = world.deliver()
    assert again.status_code == 202
    assert again.json == {"runs": [{**first, "duplicate": True}]}
    assert len(world.runs.records) == 1


def test_the_same_guid_from_an_apps_hook_with_another_body_is_a_duplicate():
    world = a_world()
    world.deliver()
    answer = world.deliver(with_member(b'"installation": {"id": 7}'))
    assert (answer.status_code, answer.json["runs"][0]["duplicate"]) == (202, True)
    assert list(world.runs.payloads.values()) == [PUSH]


def test_a_ping_is_answered_with_a_reason():
    world = a_world()
    answer = world.deliver(event="ping")
    assert (answer.status_code, answer.json) == (200, {"ignored": "pong"})


def test_the_secret_of_our_app_counts_beside_those_of_the_project_but_makes_no_project():
    world = a_world(app_secret="of-the-app")
    assert world.deliver(secret="of-the-app").status_code == 202
    assert world.deliver(secret=SECRET, delivery="d-2").status_code == 202
    assert world.deliver(secret="").status_code == 401
    assert a_world(app_secret="of-the-app", projects=[]).deliver(secret="of-the-app").status_code == 401
    assert a_world(app_secret="of-the-app").deliver(b'{"zen": "z"}', event="ping", secret="of-the-app").json == {
        "ignored": "pong"
    }


def test_what_became_of_a_check_of_our_own_app_starts_nothing():
    suite = {"app": {"id": 4711}, "head_sha": COMMIT, "head_branch": "main"}
    body = json.dumps({"action": "completed", "check_suite": suite, "repository": {"full_name": PROJECT}}).encode()
    ours, others = (a_world(a_pipeline("checks", "check_suite"), app_id=one) for one in (4711, 4712))
    assert "caused by bridge itself" in ours.deliver(body, event="check_suite").json["ignored"]
    assert others.deliver(body, event="check_suite").status_code == 202


def test_a_ping_of_no_repository_is_answered_when_the_default_secret_signs_it():
    body = b'{"zen": "Design for failure.", "hook_id": 1}'
    world = a_world(default_secret="default")
    assert world.deliver(body, event="ping", secret="default").status_code == 200
    assert world.deliver(body, event="ping", secret=SECRET).status_code == 401
    assert a_world().deliver(body, event="ping", secret="").status_code == 401


def test_an_event_without_a_repository_is_never_an_event():
    body = b'{"ref": "refs/heads/main"}'
    answer = a_world(default_secret="default").deliver(body, secret="default")
    assert answer.status_code == 400


def test_what_nobody_wants_is_ignored_with_the_reason_in_the_answer_and_in_the_log():
    world = a_world(a_pipeline("rel", "release"))
    with capture_logs() as told:
        answer = world.deliver()
    assert (answer.status_code, answer.json) == (200, {"ignored": "pipeline rel wants release, not push"})
    (line,) = [line for line in told if line["event"] == "ignored"]
    assert line["reason"] == answer.json["ignored"]
    assert line["delivery"] == "d-1"
    assert world.runs.records == {}


def test_a_deleted_branch_is_ignored_with_the_reason():
    gone = {**json.loads(PUSH), "after": "0" * 40, "deleted": True}
    answer = a_world().deliver(json.dumps(gone).encode())
    assert answer.status_code == 200
    assert "deleted" in answer.json["ignored"]


GITHUB_REFUSALS = {
    "no signature": (401, {"without": ("X-Hub-Signature", "X-Hub-Signature-256")}),
    "SHA-1 only": (401, {"without": ("X-Hub-Signature-256",)}),
    "SHA-1 in the place of sha256": (401, {"X_Hub_Signature_256": f"sha1={'0' * 40}"}),
    "another secret": (401, {"secret": "wrong"}),
    "signature of another body": (401, {"X_Hub_Signature_256": signature(b"{}")}),
    "an empty secret": (401, {"X_Hub_Signature_256": signature(PUSH, "")}),
    "truncated JSON": (400, {"body": PUSH[:-5]}),
    "an array": (400, {"body": b"[1]"}),
    "a string": (400, {"body": b'"push"'}),
    "null": (400, {"body": b"null"}),
    "nothing": (400, {"body": b""}),
    "NaN": (400, {"body": with_member(b'"x": NaN')}),
    "Infinity": (400, {"body": with_member(b'"x": -Infinity')}),
    "deep nesting": (400, {"body": with_member(b'"x": ' + b"[" * 100_000 + b"]" * 100_000)}),
    "duplicate keys": (400, {"body": with_member(b'"ref": "refs/heads/other"')}),
    "duplicate repository": (400, {"body": with_member(b'"repository": {"full_name": "acme/widgets"}')}),
    "a lone surrogate": (400, {"body": with_member(b'"x": "\\ud800"')}),
    "not UTF-8": (400, {"body": with_member(b'"x": "\xff"')}),
    "a form": (400, {"Content_Type": "application/x-www-form-urlencoded"}),
    "no content type": (400, {"Content_Type": ""}),
    "another charset": (400, {"Content_Type": "application/json; charset=utf-16"}),
    "gzip": (400, {"body": gzip.compress(PUSH), "Content_Encoding": "gzip"}),
    "one byte too many": (413, {"body": padded(LONGEST_BODY_BYTES + 1)}),
    "unknown project": (401, {"body": PUSH.replace(b"acme/widgets", b"acme/unknown")}),
    "no event header": (400, {"without": ("X-GitHub-Event",)}),
    "no delivery header": (400, {"without": ("X-GitHub-Delivery",)}),
    "a delivery id with a path": (400, {"X_GitHub_Delivery": "../1"}),
    "a project that is a path": (400, {"body": PUSH.replace(b"acme/widgets", b"../widgets")}),
}


@pytest.mark.parametrize("name", GITHUB_REFUSALS)
def test_bad_deliveries_of_github_are_refused_with_the_reason_and_nothing_is_stored(name):
    status, request = GITHUB_REFUSALS[name]
    world = a_world()
    with capture_logs() as told:
        answer = world.deliver(**request)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert world.runs.records == {}
    (line,) = [line for line in told if line["event"] == "refused"]
    assert line["reason"]


def test_the_largest_body_that_is_allowed_is_stored():
    world = a_world()
    assert world.deliver(padded(LONGEST_BODY_BYTES)).status_code == 202


@pytest.mark.parametrize(("size", "status"), [(LONGEST_BODY_BYTES, 202), (LONGEST_BODY_BYTES + 1, 413)])
def test_a_body_in_chunks_has_the_same_limit(size, status):
    world = a_world()
    body = padded(size)
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = world.client.post(
        "/events/github",
        data=body,
        environ_overrides=environ,
        headers={
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "d-1",
            "X-Hub-Signature-256": signature(body),
        },
    )
    assert answer.status_code == status
    assert len(world.runs.records) == (status == 202)


class _Broken:
    """A body whose sender goes away, or is too slow."""

    def __init__(self, error):
        self._error = error

    def read(self, size=-1):
        if self._error is None:
            return b""
        raise self._error


@pytest.mark.parametrize(
    "error", [None, TimeoutError("slow"), ConnectionResetError("gone"), Exception("bad chunk")]
)
def test_a_body_that_breaks_off_is_unreadable_and_no_fault_of_ours(error):
    world = a_world()
    environ = {"wsgi.input": _Broken(error), "CONTENT_LENGTH": "100"}
    answer = world.client.post("/events/github", environ_overrides=environ, headers={"X-GitHub-Event": "push"})
    assert answer.status_code == 400
    assert "broken off" in answer.json["detail"]


def test_an_unknown_project_and_a_bad_signature_are_answered_alike():
    world = a_world()
    unknown = world.deliver(PUSH.replace(b"acme/widgets", b"acme/unknown"))
    wrong = world.deliver(secret="wrong")
    assert (unknown.status_code, unknown.data) == (wrong.status_code, wrong.data)
    assert {*unknown.headers.keys()} == {*wrong.headers.keys()}


def test_a_signature_of_one_project_is_none_of_another():
    other = a_project("acme/gadgets", shared_secret="other", second_secret="")
    world = a_world(projects=[a_project(), other])
    assert world.deliver(PUSH.replace(b"acme/widgets", b"acme/gadgets")).status_code == 401
    assert world.runs.records == {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_when_a_record_cannot_be_stored_the_sender_is_told_to_send_again(when):
    world = a_world(a_pipeline("a"), a_pipeline("b"))
    trouble = Unavailable("storing the run in /var/lib/bridge/runs.db: the disk is full")
    world.runs.meanwhile("create", "after", lambda: world.runs.fail("create", when, trouble))
    with capture_logs() as told:
        answer = world.deliver()
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "runs" not in answer.json
    assert "/var/lib" not in answer.text
    assert any("the disk is full" in line.get("reason", "") for line in told)
    again = world.deliver()
    assert again.status_code == 202
    assert len(again.json["runs"]) == len(world.runs.records) == 2


@pytest.mark.parametrize("port", ["projects", "pipelines"])
def test_when_the_world_does_not_answer_nothing_is_stored_and_the_sender_comes_again(port):
    world = a_world()
    getattr(world, port).fail({"projects": "read", "pipelines": "all"}[port], "before", Unavailable("away"))
    assert world.deliver().status_code == 503
    assert world.runs.records == {}


def test_a_pipeline_that_was_just_made_is_found_before_an_event_is_ignored():
    world = a_world(a_pipeline("rel", "release"))
    world.pipelines.unseen.append(a_pipeline("new"))
    assert [run["id"].partition("-")[0] for run in world.deliver().json["runs"]] == ["new"]


def test_when_that_cannot_be_asked_the_event_is_not_called_unwanted():
    world = a_world(a_pipeline("rel", "release"))
    world.pipelines.fail("refresh", "before", Unavailable("away"))
    assert world.deliver().status_code == 503
    assert world.deliver().json == {"ignored": "pipeline rel wants release, not push"}


def test_a_wanted_event_asks_nobody_anew():
    world = a_world()
    world.pipelines.fail("refresh", "before", Unavailable("away"))
    world.projects.fail("fresh", "before", Unavailable("away"))
    assert world.deliver().status_code == 202


@pytest.mark.parametrize("changes", [{"shared_secret": "new"}, {"second_secret": "new"}], ids=str)
def test_a_secret_that_was_just_replaced_counts(changes):
    world = a_world()
    world.projects.unseen.append(a_project(**changes))
    assert world.deliver(secret="new").status_code == 202


def test_the_default_secret_counts_as_soon_as_a_project_has_none_of_its_own():
    world = a_world(default_secret="default")
    world.projects.unseen.append(a_project(shared_secret="", second_secret=""))
    assert world.deliver(secret="default").status_code == 202


def test_a_secret_is_refused_only_after_a_fresh_look_and_not_when_there_is_none():
    world = a_world()
    world.projects.fail("fresh", "before", Unavailable("away"))
    assert world.deliver(secret="wrong").status_code == 503
    assert world.deliver(secret="wrong").status_code == 401
    world.projects.unseen.append(PROJECT)
    assert world.deliver(secret="wrong").status_code == 401
    assert world.runs.records == {}


def test_a_generic_secret_that_was_just_replaced_counts():
    world = a_world()
    world.projects.unseen.append(a_project(generic_secret="new"))
    assert world.client.post(SIMPLE.replace(GENERIC, "new"), data=b"{}").status_code == 202
    assert world.client.post(SIMPLE, data=b"{}").status_code == 401
    world.projects.fail("fresh", "before", Unavailable("away"))
    assert world.client.post(SIMPLE, data=b"{}").status_code == 503
    world.projects.unseen.append(PROJECT)
    assert world.client.post(SIMPLE, data=b"{}").status_code == 401


@pytest.mark.parametrize(
    ("trouble", "status", "wait"),
    [
        (Unavailable("busy", retry_after_seconds=17, busy=True), 429, "17"),
        (Unavailable("busy", busy=True), 429, "5"),
        (Unavailable("away", retry_after_seconds=2.1), 503, "3"),
        (Unavailable("away", retry_after_seconds=0), 503, "1"),
        (Unavailable("away"), 503, "5"),
    ],
    ids=range(5),
)
def test_how_long_to_wait_is_handed_on(trouble, status, wait):
    world = a_world()
    world.runs.fail("create", "before", trouble)
    answer = world.deliver()
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, wait)
    assert world.deliver().status_code == 202


@pytest.mark.parametrize(
    "trouble", [NotFound("/srv/x is gone"), Conflict("/srv/x"), Forbidden("/srv/x")], ids=repr
)
def test_whatever_the_world_says_when_something_was_to_be_stored_the_sender_comes_again(trouble):
    world = a_world()
    world.runs.fail("create", "before", trouble)
    answer = world.deliver()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "/srv" not in answer.text


@pytest.mark.parametrize("path", ["/events/github", SIMPLE, CLOUD])
def test_all_that_the_ports_do_for_a_delivery_is_within_one_patience(path):
    spent = []

    @contextlib.contextmanager
    def patience():
        spent.append("began")
        yield
        spent.append("ended")

    world = a_world(patience=patience)
    world.runs.meanwhile("create", "before", lambda: spent.append("created"))
    world.projects.meanwhile("read", "before", lambda: spent.append("read"))
    headers = {"X-Hub-Signature-256": signature(json.dumps(CLOUDEVENT).encode())}
    if path == "/events/github":
        world.deliver()
    else:
        world.client.post(path, data=json.dumps(CLOUDEVENT), headers=headers)
    assert (spent[0], *spent[-2:]) == ("began", "created", "ended")


def test_a_project_that_is_set_up_wrongly_is_our_fault_and_its_details_are_for_the_log():
    world = a_world()
    world.projects.fail("read", "before", BadProject("/srv/acme/project.yaml: sharedSecret: must be text"))
    answer = world.deliver()
    assert answer.status_code == 500
    assert "project.yaml" not in answer.text


def test_pull_requests_of_strangers_forks_are_stored_and_held():
    base = {"ref": "main", "sha": "b" * 40, "repo": {"full_name": PROJECT}}
    head = {"ref": "main", "sha": COMMIT, "repo": {"full_name": "stranger/widgets"}}
    request = {"number": 7, "title": "t", "author_association": "NONE", "base": base, "head": head}
    payload = {**json.loads(PUSH), "action": "opened", "number": 7, "pull_request": request}
    world = a_world()
    answer = world.deliver(json.dumps(payload).encode(), event="pull_request")
    assert answer.status_code == 202
    held = world.runs.read(answer.json["runs"][0]["id"])
    assert held.awaits_approval
    assert "NONE" in held.held


# The generic routes


def test_a_simple_event_is_stored_with_the_revision_of_its_body():
    world = a_world()
    body = json.dumps({"commit": COMMIT, "ref": "refs/heads/main"}).encode()
    answer = world.client.post(SIMPLE, data=body)
    assert answer.status_code == 202
    (run,) = world.runs.records.values()
    assert (run.event.type, run.event.provider) == ("simpleevent", "GenericWebhook")
    assert run.event.revision.commit == COMMIT
    assert world.runs.payloads[run.id] == body


def test_without_a_key_every_simple_event_is_one_of_its_own():
    world = a_world()
    ids = {world.client.post(SIMPLE, data=b"{}").json["runs"][0]["id"] for _ in range(2)}
    assert len(ids) == len(world.runs.records) == 2


def test_with_a_key_a_simple_event_may_be_sent_again_but_not_with_another_body():
    world = a_world()
    key = {"Idempotency-Key": "k-1"}
    assert world.client.post(SIMPLE, data=b"{}", headers=key).json["runs"][0]["duplicate"] is False
    assert world.client.post(SIMPLE, data=b"{}", headers=key).json["runs"][0]["duplicate"] is True
    reused = world.client.post(SIMPLE, data=b'{"other": 1}', headers=key)
    assert reused.status_code == 409
    assert "Idempotency-Key" in reused.json["detail"]
    assert len(world.runs.records) == 1


def test_a_cloudevent_is_recognised_by_its_source_and_id():
    world = a_world()
    first = world.client.post(CLOUD, json=CLOUDEVENT)
    assert (first.status_code, first.json["runs"][0]["duplicate"]) == (202, False)
    assert world.client.post(CLOUD, json=CLOUDEVENT).json["runs"][0]["duplicate"] is True
    assert world.client.post(CLOUD, json={**CLOUDEVENT, "type": "u"}).status_code == 409
    assert world.client.post(CLOUD, json={**CLOUDEVENT, "id": "2"}).json["runs"][0]["duplicate"] is False
    assert len(world.runs.records) == 2


@pytest.mark.parametrize("route", ["/simpleevents/v1", "/cloudevents/v02"])
def test_a_wrong_secret_and_an_unknown_project_of_the_generic_routes_are_answered_alike(route):
    world = a_world()
    wrong = world.client.post(f"{route}/{project_id(PROJECT)}/wrong", json=CLOUDEVENT)
    unknown = world.client.post(f"{route}/{project_id('acme/unknown')}/{GENERIC}", json=CLOUDEVENT)
    shared = world.client.post(f"{route}/{project_id(PROJECT)}/{SECRET}", json=CLOUDEVENT)
    assert wrong.status_code == unknown.status_code == shared.status_code == 401
    assert wrong.data == unknown.data == shared.data
    assert world.runs.records == {}


def test_a_project_without_a_generic_secret_takes_no_generic_event():
    world = a_world(projects=[a_project(generic_secret="")])
    assert world.client.post(f"/simpleevents/v1/{project_id(PROJECT)}/x", data=b"{}").status_code == 401
    assert world.client.post(f"/simpleevents/v1/{project_id(PROJECT)}/", data=b"{}").status_code == 404
    assert world.runs.records == {}


GENERIC_REFUSALS = {
    "no JSON": (SIMPLE, b"hello", {}, 400),
    "truncated JSON": (SIMPLE, b'{"a": ', {}, 400),
    "an array": (SIMPLE, b"[]", {}, 400),
    "NaN": (SIMPLE, b'{"a": NaN}', {}, 400),
    "deep nesting": (SIMPLE, b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, 400),
    "duplicate keys": (SIMPLE, b'{"a": 1, "a": 2}', {}, 400),
    "a lone surrogate": (SIMPLE, b'{"a": "\\udfff"}', {}, 400),
    "gzip": (SIMPLE, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, 400),
    "one byte too many": (SIMPLE, b'"' + b"x" * (LONGEST_BODY_BYTES - 1) + b'"', {}, 413),
    "a key with spaces": (SIMPLE, b"{}", {"Idempotency-Key": "a b"}, 400),
    "a key that is too long": (SIMPLE, b"{}", {"Idempotency-Key": "k" * 256}, 400),
    "a ref that is none": (SIMPLE, b'{"ref": "--upload-pack=x"}', {}, 400),
    "another version": (CLOUD, json.dumps({**CLOUDEVENT, "specversion": "1.0"}).encode(), {}, 400),
    "data that is no object": (CLOUD, json.dumps({**CLOUDEVENT, "data": "x"}).encode(), {}, 400),
    "no id": (CLOUD, json.dumps({**CLOUDEVENT, "id": ""}).encode(), {}, 400),
    "an empty CloudEvent": (CLOUD, b"", {}, 400),
}


@pytest.mark.parametrize("name", GENERIC_REFUSALS)
def test_bad_generic_events_are_refused_with_the_reason_and_nothing_is_stored(name):
    path, body, headers, status = GENERIC_REFUSALS[name]
    world = a_world()
    answer = world.client.post(path, data=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json["detail"]
    assert world.runs.records == {}


def test_no_log_line_ever_holds_a_secret_of_a_path():
    world = a_world()
    with capture_logs() as told:
        world.client.post(SIMPLE, data=b"{}")
        world.client.post(SIMPLE, data=b"nonsense")
        world.client.post(SIMPLE.replace("simple", "cloud"), data=b"{}")
        world.client.post(f"{SIMPLE}/more", data=b"{}")
        world.client.get(SIMPLE)
    assert told
    assert GENERIC not in json.dumps(told)


def test_on_one_machine_other_names_than_its_own_are_not_answered_to():
    world = a_world()
    assert world.deliver(Host="attacker.example").status_code == 421
    assert world.runs.records == {}
    for number, host in enumerate(("localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST")):
        assert world.deliver(Host=host, delivery=f"d-{number}").status_code == 202
    assert a_world(loopback_only=False).deliver(Host="bridge.example").status_code == 202


def test_hooks_take_only_posts():
    assert a_world().client.get("/events/github").status_code == 405
