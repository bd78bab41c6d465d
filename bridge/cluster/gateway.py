"""A step asks the gateway for the installation token of its run's repository (design.md, On the wire).

The gateway knows the step by its pod's projected token. In the step's process: nothing heavy is imported here.
"""

import json
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from bridge.cluster.connections import TokenFile
from bridge.errors import Forbidden, Misconfigured, Unavailable
from bridge.ports import NO_APP, InstallationToken, NoToken

TOKEN_FILE = Path("/var/run/secrets/bridge/token")
"""Where a step's pod has its projected token, of the audience `bridge`."""

_CONNECT_SECONDS = 5.0
# The gateway may have to ask GitHub twice.
_ANSWER_SECONDS = 40.0
_MAX_ANSWER_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 300


class GatewayTokens:
    """The port InstallationTokens of a step.

    Args:
        url: the gateway's; empty: none is known, and there are no tokens.
        token_file: the pod's projected token.
        answer_seconds: until the gateway has answered.

    """

    def __init__(
        self, url: str, *, token_file: Path = TOKEN_FILE, answer_seconds: float = _ANSWER_SECONDS
    ) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_SECONDS, answer_seconds), read=answer_seconds)

    def fresh(self, run_id: str, project: str) -> InstallationToken | NoToken:
        """A token for the run's repository.

        Raises Unavailable, and Forbidden if the gateway does not take this pod for a step of the run.
        """
        if not self._url:
            return NoToken("BRIDGE_GATEWAY_URL is not set")
        act = f"asking the gateway for the installation token of {project[:100]}"
        if urlsplit(self._url).scheme not in {"http", "https"}:
            raise Unavailable(f"{act}: BRIDGE_GATEWAY_URL has to be an http(s) address")
        try:
            bearer = TokenFile(self._token_file).current()
        except Misconfigured as exc:
            raise Unavailable(f"{act}: {exc}") from exc
        status, answer = self._answered(run_id, bearer, act)
        if status == HTTPStatus.OK:
            return _token(answer, act)
        said = f"{act}: it answered {status}{_words(answer)}"
        if status == HTTPStatus.NOT_FOUND and answer.get("reason") == NO_APP:
            return NoToken(_shown(answer.get("detail")) or "the gateway has no GitHub App for it")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise Forbidden(f"{said}; let the step run as the ServiceAccount that the gateway expects")
        raise Unavailable(f"{said}; ask again")

    def _answered(self, run_id: str, bearer: str, act: str) -> tuple[int, dict[str, Any]]:
        url = f"{self._url}/internal/v1/runs/{quote(run_id, safe='')}/token"
        headers = {"Authorization": f"Bearer {bearer}", "User-Agent": "brigade-argo-bridge"}
        try:
            with urllib3.PoolManager(retries=False, timeout=self._timeout) as pool:
                response = pool.request("POST", url, headers=headers, redirect=False, preload_content=False)
                content = response.read(_MAX_ANSWER_BYTES + 1)
                response.close()
        except (HTTPError, ValueError) as exc:
            # Not its cause: some of them hold the request.
            raise Unavailable(f"{act}: no usable answer ({type(exc).__name__}); ask again") from None
        try:
            answer = json.loads(content) if len(content) <= _MAX_ANSWER_BYTES else None
        except (ValueError, RecursionError):
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}


def _token(answer: dict[str, Any], act: str) -> InstallationToken:
    try:
        token, expires = answer["token"], datetime.fromisoformat(answer["expires"])
    except (KeyError, TypeError, ValueError):
        token, expires = None, None
    if not isinstance(token, str) or not token or expires is None or expires.tzinfo is None:
        raise Unavailable(f"{act}: its answer is no token; check that BRIDGE_GATEWAY_URL is the gateway's")
    return InstallationToken(token, expires.timestamp())


def _words(answer: dict[str, Any]) -> str:
    detail = _shown(answer.get("detail"))
    return f" ({detail})" if detail else ""


def _shown(text: object) -> str:
    if not isinstance(text, str):
        return ""
    return "".join(one if one.isprintable() else " " for one in text[:_SHOWN_CHARACTERS])
