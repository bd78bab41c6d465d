"""A receiver of bridge's notifications, with Python's standard library alone.

It checks who sent each (Standard Webhooks), refuses old ones, which somebody may have recorded, and does what is
to be done once, though bridge sends until it has an answer: ids are remembered in a file.

    WEBHOOK_SECRET=whsec_… python receiver.py [PORT] [FILE]
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
LONGEST_BODY = 256 * 1024


def is_genuine(headers, body: bytes, secret: str, now: float) -> bool:
    """Whether somebody who knows the secret sent this, a moment ago."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    sent = headers.get("webhook-timestamp", "")
    if not sent.isdigit() or abs(now - int(sent)) > TOLERANCE_SECONDS:
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
    wanted = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    # While secrets are being changed there are several.
    found = headers.get("webhook-signature", "").encode("latin-1", "replace").split()
    return any(hmac.compare_digest(wanted, one) for one in found)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 once what was told is done, also when it was done before."""

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > LONGEST_BODY:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_genuine(self.headers, body, os.environ["WEBHOOK_SECRET"], time.time()):
            return self.answer(401)
        event = json.loads(body)
        with contextlib.closing(sqlite3.connect(self.server.file, timeout=10)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, at REAL)")
            new = database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (event["id"], time.time())).rowcount
            if new:
                self.handle_event(event)
            # Bridge gives up after days at most, so nothing older comes again.
            database.execute("DELETE FROM seen WHERE at < ?", (time.time() - 30 * 86400,))
        return self.answer(204)

    def handle_event(self, event):
        """Your part. If it fails, bridge gets no answer and sends again."""
        data = event["data"]
        what = event["type"].removeprefix("sh.brigade.bridge.")
        verdict = (data["step"] or data["attempt"] or {}).get("verdict", "")
        print(" ".join(filter(None, [what, event["subject"], verdict])), flush=True)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing but what is told."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8090
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.file = sys.argv[2] if len(sys.argv) > 2 else "seen.sqlite3"
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
