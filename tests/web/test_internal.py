import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from structlog.testing import capture_logs
from werkzeug.serving import make_server

from bridge.cluster.gateway import GatewayTokens
from bridge.core.runs import Phase
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import Forbidden, Unavailable
from bridge.flows.freshening import NoApp
from bridge.github.app import App, AppTokens
from bridge.ports import Caller, InstallationToken, NoToken
from tests.fakes import some_run
from tests.github.apps import APP_ID, key_file, with_app
from tests.web.worlds import PROJECT, a_world

ACCOUNT = "workflows:bridge-step"
BEARER = "a-projected-token"
RUN = some_run("push-r1")
EXPIRES = 1_800_000_000.0


class Callers:
    """The port Callers: who bears which token."""

    def __init__(self, **known):
        self._known = known

    def caller(self, token):
        if token == "trouble":
            raise Forbidden("create tokenreviews: not allowed")
        return self._known.get(token.replace("-", "_"))


class Tokens:
    """The port InstallationTokens with one answer."""

    def __init__(self, answer):
        self.answer = answer

    def fresh(self, run_id, project):
        assert (run_id, project) == (RUN.id, PROJECT)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


CALLERS = Callers(
    a_projected_token=Caller(ACCOUNT, RUN.id),
    others=Caller("workflows:bridge-native", RUN.id),
    elsewhere=Caller("other:bridge-step", RUN.id),
    unbound=Caller(ACCOUNT, ""),
    of_another_run=Caller(ACCOUNT, "push-r2"),
)


def _world(answer=None, *, run=RUN, **settings):
    tokens = Tokens(InstallationToken("ghs_fresh", EXPIRES) if answer is None else answer)
    world = a_world(
        **{"callers": CALLERS, "tokens": tokens, "step_account": ACCOUNT, "loopback_only": False, **settings}
    )
    world.runs.create(run, b"{}")
    return world


def _ask(world, bearer=BEARER, *, run=RUN.id, scheme="Bearer"):
    headers = {"Authorization": f"{scheme} {bearer}"} if bearer is not None else {}
    return world.client.post(f"/internal/v1/runs/{run}/token", headers=headers)


def test_a_step_of_the_run_gets_a_token_and_its_end_and_no_log_has_it():
    with capture_logs() as logs:
        answer = _ask(_world())
    assert answer.status_code == 200
    assert answer.json == {"token": "ghs_fresh", "expires": "2027-01-15T08:00:00Z"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ghs_fresh" not in str(logs)
    assert BEARER not in str(logs)
    assert [entry["run"] for entry in logs if entry["event"] == "token"] == [RUN.id]


@pytest.mark.parametrize(
    ("bearer", "scheme"), [(None, ""), ("", "Bearer"), (BEARER, "Basic"), ("garbage", "Bearer")]
)
def test_who_is_nobody_is_asked_for_a_token(bearer, scheme):
    answer = _ask(_world(), bearer, scheme=scheme)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("bearer", ["others", "elsewhere", "unbound", "of-another-run"])
def test_who_is_no_step_of_this_run_gets_nothing(bearer):
    answer = _ask(_world(), bearer)
    assert answer.status_code == 403
    assert "token" not in answer.json
    assert answer.content_type == "application/problem+json"


def test_a_pod_that_claims_no_run_does_not_match_a_run_without_a_name():
    assert _ask(_world(), "unbound", run="%20").status_code == 403


def test_a_closed_run_gets_no_token():
    closed = replace(RUN, phase=Phase.CLOSED, closed=RUN.accepted)
    assert _ask(_world(run=closed)).status_code == 403


def test_a_run_that_is_not_there_is_told_apart_from_a_missing_app():
    world = a_world(callers=CALLERS, tokens=Tokens(None), step_account=ACCOUNT, loopback_only=False)
    answer = _ask(world)
    assert answer.status_code == 404
    assert "reason" not in answer.json


def test_without_an_app_the_answer_says_go_on_without():
    answer = _ask(_world(NoToken("no GitHub App is configured")))
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
    assert (answer.json["reason"], answer.json["detail"]) == ("no-app", "no GitHub App is configured")


@pytest.mark.parametrize("trouble", [Unavailable("GitHub is away"), Forbidden("the App's key is refused")])
def test_what_github_does_not_give_now_is_asked_for_again(trouble):
    with capture_logs() as logs:
        answer = _ask(_world(trouble))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert str(trouble) not in answer.text
    assert str(trouble) in str(logs)


def test_a_gateway_that_may_not_review_tokens_is_no_refusal_of_the_step():
    assert _ask(_world(), "trouble").status_code == 503


def test_one_machine_hands_out_nothing():
    assert _ask(a_world()).status_code == 404


def test_only_a_post_gets_a_token():
    assert _world().client.get(f"/internal/v1/runs/{RUN.id}/token").status_code == 405


@pytest.fixture
def serve():
    """Serve a world's app over real HTTP; answers its URL."""
    ends = []

    def start(world):
        server = make_server("127.0.0.1", 0, world.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ends.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in ends:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def bearer_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(BEARER)
    return file


def test_a_step_gets_the_token_that_github_made(serve, bearer_file, tmp_path):
    with FakeGitHub() as github:
        with_app(github)
        app = App(APP_ID, key_file(tmp_path), base_url=github.url)
        url = serve(_world(tokens=AppTokens(app, str)))
        found = GatewayTokens(url, token_file=bearer_file).fresh(RUN.id, PROJECT)
        assert found.token == github.apps.minted[0].token
        assert found.expires == github.apps.minted[0].expires
        assert found.expires > time.time() + 3000


def test_a_step_goes_on_without_an_app_and_without_a_gateway(serve, bearer_file):
    url = serve(_world(tokens=NoApp()))
    assert GatewayTokens(f"{url}/", token_file=bearer_file).fresh(RUN.id, PROJECT) == NoToken(
        "no GitHub App is configured"
    )
    assert GatewayTokens("").fresh(RUN.id, PROJECT) == NoToken("BRIDGE_GATEWAY_URL is not set")


def test_a_step_asks_again_while_there_is_no_answer(serve, bearer_file, tmp_path):
    def unavailable(url, file=bearer_file, run=RUN.id):
        with pytest.raises(Unavailable) as caught:
            GatewayTokens(url, token_file=file, answer_seconds=10).fresh(run, PROJECT)
        assert BEARER not in str(caught.value)
        return str(caught.value)

    url = serve(_world(Unavailable("GitHub is away")))
    assert "it answered 503 (GitHub gave no token" in unavailable(url)
    assert "404" in unavailable(serve(a_world()))
    assert "404" in unavailable(url, run="../../healthz")
    assert "NewConnectionError" in unavailable("http://127.0.0.1:1")
    assert "http(s)" in unavailable("ftp://gateway")
    assert "cannot be read" in unavailable(url, tmp_path / "missing")


def test_a_step_that_is_refused_says_so(serve, bearer_file):
    url = serve(_world())
    bearer_file.write_text("others")
    with pytest.raises(Forbidden, match="answered 403"):
        GatewayTokens(url, token_file=bearer_file).fresh(RUN.id, PROJECT)


class _Liar(BaseHTTPRequestHandler):
    def do_POST(self):
        status, body = self.server.says
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>sign in</html>"),
        (200, b"[]"),
        (200, b'{"token": 7, "expires": "2027-01-15T08:00:00Z"}'),
        (200, b'{"token": "", "expires": "2027-01-15T08:00:00Z"}'),
        (200, b'{"token": "t", "expires": "soon"}'),
        (200, b'{"token": "t", "expires": "2027-01-15T08:00:00"}'),
        (200, b"[" * 60_000),
        (302, b"{}"),
        (404, b'{"reason": "other"}'),
        (418, b'{"detail": ["x"]}'),
    ],
    ids=str,
)
def test_nothing_but_our_own_errors_comes_of_what_is_no_gateway(bearer_file, status, body):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Liar) as server:
        server.says = status, body
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(Unavailable):
                GatewayTokens(f"http://127.0.0.1:{server.server_port}", token_file=bearer_file).fresh("r", PROJECT)
        finally:
            server.shutdown()
            thread.join()
