"""Deliveries that are another gateway's, passed on to a real HTTP server."""

import contextlib
import hmac
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from structlog.testing import capture_logs
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from bridge.core.events.json_bodies import LONGEST_BODY_BYTES
from bridge.core.names import project_id
from bridge.core.pipelines import OPTED_IN
from bridge.errors import BadProject, BadSettings, Unavailable
from bridge.web.forwarding import FORWARDED, LONGEST_ANSWER_BYTES, Forwarding, NotForwarded
from tests.web.worlds import GENERIC, PROJECT, PUSH, SECRET, a_pipeline, a_project, a_world

PATIENCE_SECONDS = 60
OTHERS = "others/things"
THEIRS = PUSH.replace(PROJECT.encode(), OTHERS.encode())
SIMPLE = f"/simpleevents/v1/{project_id(OTHERS)}/their-secret"


class Other:
    """Another gateway: keeps what it was sent, and answers what a test tells it to."""

    def __init__(self):
        self.asked = []
        self.status, self.body, self.headers = 200, b'{"status":"Complete"}', {"Content-Type": "application/json"}
        self.hangs = threading.Event()
        self.hanging = threading.Semaphore(0)
        self.go_on = threading.Event()
        other = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                other.asked.append((self.path, list(self.headers.items()), body))
                if other.hangs.is_set():
                    other.hanging.release()
                    other.go_on.wait(PATIENCE_SECONDS)
                self.send_response(other.status)
                for name, value in other.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(other.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(other.body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_SECONDS)

    @property
    def headers_of_the_last(self):
        return {name.lower(): value for name, value in self.asked[-1][1]}


@pytest.fixture
def other():
    one = Other()
    yield one
    one.close()


def nowhere():
    """The address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_delivery_of_an_unknown_project_is_passed_on_byte_for_byte_with_its_signatures(other):
    world = a_world(fallback_url=other.url)
    body = b"  " + THEIRS + b"\n"
    answer = world.deliver(body, secret="not-ours", delivery="d-7")
    assert (answer.status_code, answer.data) == (200, b'{"status":"Complete"}')
    ((path, _, received),) = other.asked
    assert (path, received) == ("/events/github", body)
    got = other.headers_of_the_last
    assert got["x-github-event"] == "push"
    assert got["x-github-delivery"] == "d-7"
    assert got["x-hub-signature"] == f"sha1={hmac.new(b'not-ours', body, 'sha1').hexdigest()}"
    assert got["x-hub-signature-256"] == f"sha256={hmac.new(b'not-ours', body, 'sha256').hexdigest()}"
    assert got["content-type"] == "application/json"
    assert got["user-agent"].startswith("GitHub-Hookshot/")
    assert world.runs.records == {}


def test_a_project_that_no_pipeline_is_for_is_the_other_gateways_whoever_signed(other):
    world = a_world(projects=[a_project(), a_project(OTHERS)], fallback_url=other.url)
    assert world.deliver(THEIRS, secret=SECRET).status_code == 200
    assert world.deliver(THEIRS, secret="only-they-know", delivery="d-2").status_code == 200
    assert len(other.asked) == 2
    assert world.runs.records == {}


def test_a_project_that_a_pipeline_is_for_is_never_passed_on(other):
    world = a_world(a_pipeline("rel", "release"), fallback_url=other.url)
    assert world.deliver().json == {"ignored": "pipeline rel wants release, not push"}
    assert world.deliver(secret="wrong").status_code == 401
    assert world.deliver(event="ping").json == {"ignored": "pong"}
    assert world.deliver(PUSH[:-3]).status_code == 400
    assert other.asked == []


def test_a_project_that_opted_in_is_ours_and_one_that_did_not_is_not(other):
    default = a_pipeline("default", projects=(OPTED_IN,))
    ours = a_world(default, projects=[a_project(default_pipeline=True)], fallback_url=other.url)
    assert ours.deliver().status_code == 202
    theirs = a_world(default, projects=[a_project()], fallback_url=other.url)
    assert theirs.deliver().status_code == 200
    assert len(other.asked) == 1


def test_a_pipeline_that_was_just_made_is_seen_before_a_delivery_is_passed_on(other):
    world = a_world(a_pipeline("x", projects=("nobody/*",)), fallback_url=other.url)
    world.pipelines.unseen.append(a_pipeline("new"))
    assert world.deliver().status_code == 202
    assert other.asked == []


@pytest.mark.parametrize(
    ("port", "method"), [("projects", "read"), ("pipelines", "all"), ("pipelines", "refresh")]
)
def test_when_it_cannot_be_known_whose_it_is_it_is_not_passed_on(other, port, method):
    world = a_world(projects=[a_project(OTHERS)], fallback_url=other.url)
    getattr(world, port).fail(method, "before", Unavailable("away"))
    answer = world.deliver(THEIRS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert other.asked == []


def test_a_project_that_cannot_be_read_is_passed_on_unless_a_pipeline_names_it(other):
    world = a_world(fallback_url=other.url)
    world.projects.fail("read", "before", BadProject("allowHostMounts: write true or false"), times=2)
    assert world.deliver(THEIRS).status_code == 200
    assert world.deliver().status_code == 500
    assert len(other.asked) == 1


def test_a_delivery_of_no_repository_is_ours_if_we_can_verify_it_and_else_the_others(other):
    world = a_world(default_secret="default", fallback_url=other.url)
    body = b'{"zen": "Design for failure."}'
    assert world.deliver(body, event="ping", secret="default").json == {"ignored": "pong"}
    assert other.asked == []
    assert world.deliver(body, event="ping", secret="of-their-app").status_code == 200
    assert len(other.asked) == 1


def test_generic_events_are_passed_on_with_their_path_and_the_secret_in_no_log(other):
    world = a_world(fallback_url=other.url)
    with capture_logs() as told:
        answer = world.client.post(f"{SIMPLE}%20%2B?a=b%20c", data=b"{}", headers={"Idempotency-Key": "k-1"})
        assert answer.status_code == 200
        other.status = 500
        world.client.post(SIMPLE.replace("simpleevents/v1", "cloudevents/v02"), data=b"{}")
    assert [path for path, *_ in other.asked] == [
        f"{SIMPLE}%20+?a=b%20c",
        SIMPLE.replace("simpleevents/v1", "cloudevents/v02"),
    ]
    assert other.asked[0][2] == b"{}"
    assert [line["event"] for line in told] == ["forwarded", "forwarded"]
    assert "their-secret" not in json.dumps(told)


def test_a_generic_event_of_a_project_with_a_pipeline_is_ours(other):
    world = a_world(fallback_url=other.url)
    assert world.client.post(f"/simpleevents/v1/{project_id(PROJECT)}/{GENERIC}", data=b"{}").status_code == 202
    assert world.client.post(f"/simpleevents/v1/{project_id(PROJECT)}/wrong", data=b"{}").status_code == 401
    assert other.asked == []


@pytest.mark.parametrize("path", ["/simpleevents/v1/../..", "/simpleevents/v1/x/..", "/cloudevents/v02/./%2e%2e"])
def test_a_path_that_leads_elsewhere_is_not_passed_on(other, path):
    world = a_world(fallback_url=other.url)
    assert world.client.post(path, data=b"{}").status_code in {401, 404}
    assert other.asked == []


def test_headers_that_are_for_this_gateway_or_for_one_hop_stay_here(other):
    world = a_world(fallback_url=other.url)
    private = {
        "Authorization": "Bearer acts",
        "Cookie": "session=1",
        "Connection": "keep-alive, X-Hop",
        "X_Hop": "1",
        "Proxy_Authorization": "Basic x",
        "Forwarded": "for=10.0.0.1",
        "Te": "trailers",
    }
    world.deliver(THEIRS, **private)
    got = other.headers_of_the_last
    assert got["host"] == other.url.removeprefix("http://")
    assert not {name.lower().replace("_", "-") for name in private} & got.keys()
    assert got[FORWARDED.lower()] == "1"


def test_what_was_passed_on_once_is_not_passed_on_again(other):
    world = a_world(projects=[a_project(), a_project(OTHERS)], fallback_url=other.url)
    again = {FORWARDED.replace("-", "_"): "1"}
    unknown = world.deliver(PUSH.replace(b"acme/widgets", b"x/unknown"), **again)
    assert unknown.status_code == 401
    assert "no pipeline is for this project" in world.deliver(THEIRS, **again).json["ignored"]
    assert other.asked == []


def test_two_gateways_that_fall_back_on_each_other_end_it(other):
    world = a_world(fallback_url=other.url)
    world.deliver(THEIRS)
    path, headers, body = other.asked[0]
    back = world.client.post(path, data=body, headers=headers)
    assert back.status_code == 401
    assert len(other.asked) == 1


def test_an_address_with_a_path_is_put_before_the_path(other):
    world = a_world(fallback_url=f"{other.url}/brigade/gw")
    assert world.deliver(THEIRS).status_code == 200
    assert other.asked[0][0] == "/brigade/gw/events/github"


@pytest.mark.parametrize("status", [200, 202, 400, 401, 404, 429, 500, 503])
def test_whatever_the_other_gateway_says_is_the_answer(other, status):
    other.status, other.body = status, b"said"
    other.headers = {"Content-Type": "text/html", "Retry-After": "17", "Set-Cookie": "a=b", "X-Other": "1"}
    answer = a_world(fallback_url=other.url).deliver(THEIRS)
    assert (answer.status_code, answer.data) == (status, b"said")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["Retry-After"] == "17"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not {"Set-Cookie", "X-Other"} & {*answer.headers.keys()}


def test_a_redirect_is_not_followed_and_is_no_answer(other):
    other.status, other.headers = 307, {"Location": f"{other.url}/elsewhere"}
    answer = a_world(fallback_url=other.url).deliver(THEIRS)
    assert answer.status_code == 502
    assert answer.headers["Retry-After"]
    assert "Location" not in answer.headers
    assert len(other.asked) == 1


def test_an_answer_is_cut_where_it_is_too_long(other):
    other.body = b"x" * (LONGEST_ANSWER_BYTES * 3)
    answer = a_world(fallback_url=other.url).deliver(THEIRS)
    assert answer.data == b"x" * LONGEST_ANSWER_BYTES


def test_a_body_that_is_too_large_for_us_is_not_passed_on(other):
    answer = a_world(fallback_url=other.url).deliver(THEIRS + b" " * LONGEST_BODY_BYTES)
    assert answer.status_code == 413
    assert other.asked == []


def test_without_another_gateway_nothing_changes():
    world = a_world()
    assert world.deliver(THEIRS).status_code == 401
    assert "no pipeline" in a_world(projects=[a_project(OTHERS)]).deliver(THEIRS).json["ignored"]


def test_a_gateway_that_cannot_be_reached_makes_the_sender_come_again():
    world = a_world(fallback_url=nowhere())
    with capture_logs() as told:
        answer = world.deliver(THEIRS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "127.0.0.1" not in answer.text
    assert "BRIDGE_FALLBACK_URL" in told[-1]["reason"]


def test_what_is_passed_on_is_counted(other):
    world = a_world(fallback_url=other.url)
    world.deliver(THEIRS)
    other.status = 500
    world.deliver(THEIRS)
    other.status = 307
    world.deliver(THEIRS)
    world.deliver()
    counted = world.client.get("/metrics").text
    assert 'bridge_events_total{answer="forwarded",route="github"} 2.0' in counted
    assert 'bridge_events_total{answer="not_forwarded",route="github"} 1.0' in counted
    assert 'bridge_events_total{answer="accepted",route="github"} 1.0' in counted


def a_request():
    return Request(EnvironBuilder(path="/events/github", method="POST").get_environ())


def test_a_gateway_that_hangs_is_given_up_and_keeps_one_thread_only(other):
    forwarding = Forwarding(other.url)
    other.hangs.set()
    with pytest.raises(NotForwarded):
        forwarding.forward(a_request(), b"1", within_seconds=0.1)
    waiting = threading.Thread(
        target=lambda: forwarding.forward(a_request(), b"2", within_seconds=PATIENCE_SECONDS), daemon=True
    )
    waiting.start()
    for _ in range(2):
        assert other.hanging.acquire(timeout=PATIENCE_SECONDS)
    with pytest.raises(Unavailable, match="at the moment"):
        forwarding.forward(a_request(), b"3", within_seconds=PATIENCE_SECONDS)
    other.hangs.clear()
    other.go_on.set()
    waiting.join(PATIENCE_SECONDS)
    assert [body for *_, body in other.asked] == [b"1", b"2"]
    assert forwarding.forward(a_request(), b"4", within_seconds=PATIENCE_SECONDS).status == 200


def test_an_answer_that_breaks_off_is_none():
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarding = Forwarding(f"http://127.0.0.1:{server.getsockname()[1]}")

        def half():
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        thread = threading.Thread(target=half)
        thread.start()
        with pytest.raises(NotForwarded):
            forwarding.forward(a_request(), b"", within_seconds=PATIENCE_SECONDS)
        thread.join(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "url",
    [
        "gateway:8000",
        "ftp://x",
        "http://",
        "http://user:password@x",
        "http://x:port",
        "http://x/?a=b",
        "http://x/#a",
    ],
)
def test_what_is_no_address_is_refused_at_the_start(url):
    with pytest.raises(BadSettings, match="BRIDGE_FALLBACK_URL") as caught:
        a_world(fallback_url=url)
    assert "password" not in str(caught.value)
