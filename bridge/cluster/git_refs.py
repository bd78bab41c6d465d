"""What a ref is at a git host now, asked by git's own protocol over HTTP, as Brigade's sidecar is about to.

Protocol version 2 tells the refs that are asked for; a host that only knows the older one tells all of them.
"""

import base64
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from bridge.errors import Unavailable

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A repository with a hundred thousand pull requests, in the older protocol."""

_SERVICE = "git-upload-pack"
_LENGTH = 4
_FLUSH = b"0000"
_DELIMITER = b"0001"


def https_url(clone_url: str) -> str:
    """Where a repository is over HTTP, of the form of URL that `git clone` takes; empty if that cannot be told.

    User and password stay in it.
    """
    url = clone_url.strip()
    if "://" not in url:
        host, _, path = url.partition(":")
        return f"https://{host.rpartition('@')[2]}/{path.lstrip('/')}" if path and "/" not in host else ""
    parts = urlsplit(url)
    if parts.scheme in {"http", "https"} and parts.hostname:
        return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    if parts.scheme in {"ssh", "git+ssh"} and parts.hostname:
        return f"https://{parts.hostname}{parts.path.rstrip('/')}"
    return ""


def heads_of(url: str, ref: str, *, token: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> frozenset[str]:
    """The objects that `ref`, full or bare, is in the repository at `url` (from `https_url`): of an annotated tag
    itself and its commit. None: it is not there. Raises Unavailable.

    `token` is sent to that host unless the URL has a user of its own.
    """
    names = {ref} if ref.startswith("refs/") else {f"refs/heads/{ref}", f"refs/tags/{ref}"}
    parts = urlsplit(url)
    place = f"{parts.hostname}{parts.path}"[:200]
    base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    pool = urllib3.PoolManager(headers=_headers(url, token), timeout=timeout_seconds, retries=_retries())
    try:
        with pool:
            lines = _asked(pool, base, names)
            return frozenset(oid for oid, name in lines if name in names)
    except (HTTPError, OSError, ValueError) as exc:
        raise Unavailable(
            f"asking {place} what {ref[:200]} is: {_why(exc)}; check the project's clone URL and token"
        ) from exc


def _retries() -> urllib3.Retry:
    # A renamed repository redirects; to another host the token does not go along.
    return urllib3.Retry(total=3, connect=0, read=0, other=0, status=0)


def _headers(url: str, token: str) -> dict[str, str]:
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user and token:
        user, password = "x-access-token", token
    headers = {"Git-Protocol": "version=2", "User-Agent": "git/brigade-argo-bridge", "Accept": "*/*"}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    return headers


def _asked(pool: urllib3.PoolManager, base: str, names: set[str]) -> list[tuple[str, str]]:
    answer = pool.request("GET", f"{base}/info/refs?service={_SERVICE}", preload_content=False)
    with answer:
        packets = [packet for packet in _packets(_body(answer)) if not packet.startswith(b"# service=")]
        found = _place_of(answer, base).partition("/info/refs")[0]
    if packets[:1] != [b"version 2"]:
        return [ref for packet in packets for ref in _refs(packet)]
    question = [_packet(b"command=ls-refs\n"), _DELIMITER, _packet(b"peel\n")]
    question += [_packet(f"ref-prefix {name}\n".encode()) for name in sorted(names)]
    headers = {**pool.headers, "Content-Type": f"application/x-{_SERVICE}-request"}
    if urlsplit(found).netloc != urlsplit(base).netloc:
        headers.pop("Authorization", None)
    answer = pool.request(
        "POST",
        f"{found}/{_SERVICE}",
        body=b"".join([*question, _FLUSH]),
        headers=headers,
        redirect=False,
        preload_content=False,
    )
    with answer:
        return [ref for packet in _packets(_body(answer)) for ref in _refs(packet)]


def _place_of(answer: BaseHTTPResponse, base: str) -> str:
    """Where an answer came from in the end."""
    place = f"{base}/info/refs"
    for one in answer.retries.history if answer.retries else ():
        place = urljoin(place, one.redirect_location or "")
    return place


def _body(answer: BaseHTTPResponse) -> bytes:
    if answer.status != HTTPStatus.OK:
        raise ValueError(f"it answered {answer.status}")
    body = answer.read(MAX_ANSWER_BYTES + 1, decode_content=True)
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError("it answered more than anybody wants to read")
    return body


def _packet(line: bytes) -> bytes:
    return b"%04x%s" % (len(line) + _LENGTH, line)


def _packets(body: bytes) -> Iterator[bytes]:
    """The lines of git's framing, without their ends."""
    place = 0
    while place + _LENGTH <= len(body):
        length = int(body[place : place + _LENGTH], 16)
        if length > _LENGTH:
            yield body[place + _LENGTH : place + length].rstrip(b"\n")
        place += max(length, _LENGTH)
    if place != len(body):
        raise ValueError("its answer was cut short, or is none of git's")


def _refs(packet: bytes) -> Iterator[tuple[str, str]]:
    """The objects that a line tells of, each with its ref."""
    line = packet.partition(b"\0")[0].decode("utf-8", "replace")
    oid, _, rest = line.partition(" ")
    name, *attributes = rest.split(" ")
    if not name:
        return
    yield oid, name.removesuffix("^{}")
    for attribute in attributes:
        if attribute.startswith("peeled:"):
            yield attribute.removeprefix("peeled:"), name


def _why(exc: BaseException) -> str:
    """What went wrong, without the URL, which may hold a password."""
    if isinstance(exc, ValueError) and not isinstance(exc, HTTPError):
        return str(exc)[:200]
    return type(exc).__name__
