import hashlib
import hmac
import json
import socket
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bridge.errors import Misconfigured, Unavailable
from bridge.sending import send, signed_headers


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        status, content, headers = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.received = []
    server.answer = (202, b'{"runs": []}', {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _url(receiver):
    return f"http://127.0.0.1:{receiver.server_address[1]}/events/github"


def test_the_signature_is_the_one_that_github_publishes_for_its_example():
    headers = signed_headers("push", b"Hello, World!", "It's a Secret to Everybody", "d-1")
    assert headers["X-Hub-Signature-256"] == (
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )


def test_a_hook_without_a_secret_sends_no_signature():
    assert not [name for name in signed_headers("push", b"{}", "", "d-1") if "Signature" in name]


def test_a_delivery_arrives_with_githubs_headers_and_its_very_bytes(receiver):
    body = b'{ "zen" :  "Keep it logically awesome." }'
    assert send(_url(receiver), "ping", body, secret="s3cret", delivery="d-1") == (202, {"runs": []})
    [(path, headers, received)] = receiver.received
    assert (path, received) == ("/events/github", body)
    assert headers["X-GitHub-Event"] == "ping"
    assert headers["X-GitHub-Delivery"] == "d-1"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("GitHub-Hookshot/")
    expected = hmac.new(b"s3cret", received, hashlib.sha256).hexdigest()
    assert headers["X-Hub-Signature-256"] == f"sha256={expected}"


def test_a_mapping_is_sent_as_json_under_a_new_guid_each_time(receiver):
    send(_url(receiver), "push", {"ref": "refs/heads/main"}, secret="s")
    send(_url(receiver), "push", {"ref": "refs/heads/main"}, secret="s")
    guids = {uuid.UUID(headers["X-GitHub-Delivery"]) for _, headers, _ in receiver.received}
    assert len(guids) == 2
    assert [json.loads(body) for _, _, body in receiver.received] == [{"ref": "refs/heads/main"}] * 2


def test_a_refusal_is_an_answer_and_so_is_text_that_is_no_json(receiver):
    receiver.answer = (503, b"busy", {"Retry-After": "0"})
    assert send(_url(receiver), "push", b"{}", secret="s") == (503, "busy")
    assert len(receiver.received) == 1


def test_a_redirect_is_not_followed(receiver):
    receiver.answer = (307, b"{}", {"Location": _url(receiver)})
    assert send(_url(receiver), "push", b"{}", secret="s") == (307, {})
    assert len(receiver.received) == 1


def test_nobody_listening_is_unavailable_and_the_message_keeps_the_path_to_itself():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"http://127.0.0.1:{port}: no answer") as caught:
            send(f"http://127.0.0.1:{port}/simpleevents/v1/p/s3cret", "push", b"{}", secret="s")
    assert "s3cret" not in str(caught.value)


def test_a_receiver_that_never_answers_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable):
            send(f"http://127.0.0.1:{port}/", "push", b"{}", secret="s", timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("url", "event"),
    [
        ("ftp://127.0.0.1/hook", "push"),
        ("http://[::1/hook", "push"),
        ("", "push"),
        ("http://127.0.0.1:1/hook", "push\r\nX-Extra: 1"),
        ("http://127.0.0.1:1/hook", "\u2603"),
    ],
)
def test_what_cannot_be_sent_at_all_is_misconfigured(url, event):
    with pytest.raises(Misconfigured):
        send(url, event, b"{}", secret="s")
