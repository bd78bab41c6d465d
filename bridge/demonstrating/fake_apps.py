"""The GitHub Apps of a GitHub that is none: installations, and tokens for them, by JWTs that are really verified.

For the words of its refusals see octokit/rest.js#218 and octokit/auth-app.js#698 (JWTs) and
peter-murray/workflow-application-token-action#48 (permissions).
"""

import json
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
from jwt.types import Options

from bridge.demonstrating.fake_replies import Reply, message, not_found, time_of

_INSTALLATION = re.compile(r"(?:/api/v3)?/repos/(?P<repository>[^/]+/[^/]+)/installation")
_ACCESS_TOKENS = re.compile(r"(?:/api/v3)?/app/installations/(?P<id>[0-9]+)/access_tokens")
_APP = re.compile(r"(?:/api/v3)?/app")

_LEVELS = ("read", "write", "admin")
_LONGEST_JWT_SECONDS = 600
_CLOCKS_APART_SECONDS = 60
"""So much may the beginning of a JWT be ahead of our clock."""
_GRANTED = {"checks": "write", "contents": "read", "metadata": "read", "statuses": "write"}


@dataclass(frozen=True)
class Installation:
    """An App on an account's repositories."""

    id: int
    app: str
    repositories: frozenset[str]
    permissions: Mapping[str, str]
    suspended: bool = False


@dataclass(frozen=True)
class MintedToken:
    """An installation token that was handed out."""

    token: str = field(repr=False)
    installation: int
    repositories: frozenset[str]
    permissions: Mapping[str, str]
    expires: float


class FakeApps:
    """Apps, where they are installed, and the tokens that they got. Thread safe.

    Args:
        now: the clock, by which JWTs and tokens are judged.
        token_seconds: how long a token lives.

    """

    def __init__(self, *, now: Callable[[], float], token_seconds: float = 3600.0) -> None:
        self._now = now
        self._token_seconds = token_seconds
        self._lock = threading.RLock()
        self._keys: dict[str, bytes] = {}
        self._installations: dict[int, Installation] = {}
        self._installed = 0
        self._minted: dict[str, MintedToken] = {}
        self._faults: deque[Reply] = deque()
        self._requests = 0

    def add(self, app_id: str, public_key: bytes) -> None:
        """Make an App known by the PEM of its public key, or give it another key."""
        with self._lock:
            self._keys[app_id] = public_key

    def install(self, app_id: str, *repositories: str, permissions: Mapping[str, str] | None = None) -> int:
        """Install an App on repositories (`owner/name`); answers the installation's id."""
        granted = dict(_GRANTED if permissions is None else permissions)
        with self._lock:
            self._installed += 1
            number = 1000 + self._installed
            self._installations[number] = Installation(number, app_id, frozenset(repositories), granted)
            return number

    def change(self, installation: int, **changes: Any) -> None:
        """Change fields of an installation: `repositories`, `permissions`, `suspended`. Its tokens follow."""
        with self._lock:
            self._installations[installation] = replace(self._installations[installation], **changes)

    def uninstall(self, installation: int) -> None:
        """Remove an installation; its tokens are of no use from here on."""
        with self._lock:
            del self._installations[installation]

    def revoke_tokens(self) -> None:
        """Forget every token there is."""
        with self._lock:
            self._minted = {token: replace(one, expires=0.0) for token, one in self._minted.items()}

    def fail_next(self, times: int, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer the next requests of Apps with `status` and `headers`, minting nothing."""
        fault = Reply(status, {"message": "A fault that was asked for"}, dict(headers or {}))
        with self._lock:
            self._faults.extend([fault] * times)

    @property
    def minted(self) -> tuple[MintedToken, ...]:
        """Every token that was handed out, the oldest first."""
        with self._lock:
            return tuple(self._minted.values())

    @property
    def requests(self) -> int:
        """How often somebody asked something as an App, refused or not."""
        with self._lock:
            return self._requests

    def find(self, token: str) -> MintedToken | None:
        """What an installation token is good for now, None if it is none, or none any more."""
        with self._lock:
            found = self._minted.get(token)
            installation = self._installations.get(found.installation) if found else None
        if found is None or installation is None or installation.suspended or self._now() >= found.expires:
            return None
        return replace(
            found,
            repositories=found.repositories & installation.repositories,
            permissions=_least(found.permissions, installation.permissions),
        )

    def owner_of(self, minted: MintedToken) -> str:
        """The id of the App that got a token."""
        with self._lock:
            return self._installations[minted.installation].app

    def app_of(self, authorization: str) -> str | Reply:
        """Whose JWT this is, its signature really verified; else the refusal."""
        unreadable = message(401, "A JSON web token could not be decoded")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return unreadable
        unjudged: Options = {
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
            "require": ["exp", "iat", "iss"],
        }
        try:
            issuer = str(jwt.decode(token, options={"verify_signature": False})["iss"])
            with self._lock:
                key = self._keys.get(issuer)
            if key is None:
                return message(404, "Integration not found")
            claims = jwt.decode(token, key, algorithms=["RS256"], options=unjudged)
        except (jwt.PyJWTError, KeyError):
            return unreadable
        return self._out_of_time(claims) or issuer

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> Reply | None:
        """What a request of an App is answered with; None if this is no path of Apps."""
        on_repository, tokens = _INSTALLATION.fullmatch(path), _ACCESS_TOKENS.fullmatch(path)
        if not on_repository and not tokens and not _APP.fullmatch(path):
            return None
        with self._lock:
            self._requests += 1
            if self._faults:
                return self._faults.popleft()
        app = self.app_of(authorization)
        if isinstance(app, Reply):
            return app
        if tokens:
            return self._made(app, int(tokens["id"]), body) if method == "POST" else not_found()
        if method != "GET":
            return not_found()
        return self._on(app, on_repository["repository"]) if on_repository else Reply(200, {"id": app})

    def _out_of_time(self, claims: Mapping[str, Any]) -> Reply | None:
        now = self._now()
        if claims["exp"] > now + _LONGEST_JWT_SECONDS:
            return message(401, "'Expiration time' claim ('exp') is too far in the future")
        if claims["exp"] <= now:
            return message(401, "'Expiration time' claim ('exp') must be a time in the future")
        if claims["iat"] > now + _CLOCKS_APART_SECONDS:
            return message(401, "'Issued at' claim ('iat') must be a time in the past")
        return None

    def _on(self, app: str, repository: str) -> Reply:
        with self._lock:
            all_of_app = [one for one in self._installations.values() if one.app == app]
        found = next((one for one in all_of_app if repository in one.repositories), None)
        if found is None:
            return not_found()
        suspended = time_of(self._now()) if found.suspended else None
        return Reply(200, {"id": found.id, "permissions": dict(found.permissions), "suspended_at": suspended})

    def _made(self, app: str, number: int, body: bytes) -> Reply:
        with self._lock:
            found = self._installations.get(number)
        if found is None or found.app != app:
            return not_found()
        if found.suspended:
            return message(403, "This installation has been suspended")
        try:
            asked = json.loads(body or b"{}")
            names = asked.get("repositories")
            permissions = dict(asked.get("permissions", found.permissions))
        except (ValueError, AttributeError, TypeError):
            return message(400, "Problems parsing JSON")
        chosen = frozenset(one for one in found.repositories if names is None or one.partition("/")[2] in names)
        if names is not None and len(chosen) < len(names):
            return message(422, "There is at least one repository that is not accessible to the installation.")
        if _least(permissions, found.permissions) != permissions:
            return message(422, "The permissions requested are not granted to this installation.")
        return self._handed_out(found, chosen, permissions)

    def _handed_out(self, found: Installation, chosen: frozenset[str], permissions: dict[str, str]) -> Reply:
        # GitHub counts in whole seconds.
        expires = float(int(self._now() + self._token_seconds))
        made = MintedToken(f"ghs_{secrets.token_urlsafe(24)}", found.id, chosen, permissions, expires)
        with self._lock:
            self._minted[made.token] = made
        shown = {
            "token": made.token,
            "expires_at": time_of(expires),
            "permissions": permissions,
            "repository_selection": "selected",
            "repositories": [{"full_name": one} for one in sorted(chosen)],
        }
        return Reply(201, shown)


def _least(wanted: Mapping[str, str], granted: Mapping[str, str]) -> dict[str, str]:
    """Of the permissions `wanted` as much as was granted."""
    both = {name: (level, granted[name]) for name, level in wanted.items() if name in granted and level in _LEVELS}
    return {name: min(levels, key=_LEVELS.index) for name, levels in both.items()}
