"""Our GitHub App: installation tokens for one repository each, with few permissions, kept in memory only.

The key signs a JWT, the JWT asks for the repository's installation and then for a token of it. githubkit's own
App authentication is not used: it keeps JWTs of all keys under the App's id in one place of the process, does not
tell when a token ends, and has the key in its repr.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from githubkit import GitHub, UnauthAuthStrategy
from githubkit.exception import RequestFailed
from pydantic import AwareDatetime, BaseModel, ValidationError

from bridge.clocks import SystemClock
from bridge.errors import BadSettings, EngineError, Forbidden, NotFound, Unavailable
from bridge.github.calls import (
    TIMEOUT_SECONDS,
    Calls,
    Response,
    host_time,
    is_repository,
    kind_of,
    wait_seconds,
    words,
)
from bridge.ports import Clock, InstallationToken, NoToken

SMALLEST_KEY_BITS = 2048

_OK = 200
_CREATED = 201
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_FOR_PEOPLE = frozenset({403, 410, 422})
_NO_APP = b"Integration not found"
_REDIRECTS = range(300, 400)

# A JWT of GitHub's lives 10 minutes at most, and its beginning may not be in GitHub's future.
_JWT_BACK_SECONDS = 60
_JWT_SECONDS = 480
# GitHub takes a minute of difference; with more the clocks are what was wrong.
_CLOCKS_APART_SECONDS = 30.0
# So long a refusal is believed: each waiting thread, and each next status, would ask for the same.
_REFUSED_SECONDS = 60.0
_SILENT_SECONDS = 5.0
_LEVELS = ("read", "write", "admin")
_TOKEN_BYTES = 8192
_KEY_BYTES = 64 * 1024

log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)
_Client = GitHub[UnauthAuthStrategy]


class NotInstalled(NotFound):
    """The App is not installed on the repository, or there is no such repository."""


class AppRefused(Forbidden):
    """GitHub refuses the App's key, or what it asks for; a person has to change something."""


class AppUnavailable(Unavailable):
    """GitHub gave no usable answer."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Access:
    """What a token shall be good for."""

    name: str
    permissions: Mapping[str, str]
    """The most of what it may; what the installation was not granted is left out."""
    needed: str = ""
    """Without this one of them a token is of no use."""
    seconds: float = 300.0
    """So long it has to be good for at least."""


STATUSES = Access("statuses", {"statuses": "write"}, needed="statuses")
"""For posting commit statuses."""
CHECKS = Access("checks", {"checks": "write"}, needed="checks")
"""For check runs."""
BUILDS = Access(
    "builds",
    {
        "checks": "write",
        "contents": "read",
        "issues": "write",
        "metadata": "read",
        "pull_requests": "write",
        "statuses": "write",
    },
    seconds=45 * 60.0,
)
"""For a build's payload: what scripts of check and comment events do. Never code, settings or secrets."""


class _Installation(BaseModel):
    id: int
    permissions: dict[str, str] = {}
    suspended_at: str | None = None


class _Made(BaseModel):
    token: str
    expires_at: AwareDatetime


@dataclass
class _Slot:
    """What is known of one repository and access."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: InstallationToken | None = None
    good_until: float = 0.0
    refusal: Callable[[], EngineError] | None = None
    refused_until: float = 0.0


class App:
    """A GitHub App, from any thread. Nothing secret is in a repr, message or log.

    Args:
        app_id: its id, or its client id.
        key_file: its private key, PEM. Read each time one is needed, so that it may be replaced. Raises
            BadSettings if it is no RSA key of at least 2048 bits.
        base_url: of the API, from the settings, never from an event. Raises BadSettings if it is no http(s) URL.
        timeout_seconds: for connecting, and again for each silence of GitHub.
        clock: time.

    """

    def __init__(
        self,
        app_id: str,
        key_file: Path,
        *,
        base_url: str = "https://api.github.com",
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._app_id = app_id
        self._key_file = key_file
        self._calls = Calls(base_url, timeout_seconds=timeout_seconds)
        self._clock = clock or SystemClock()
        self._ahead_seconds = 0.0
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, str], _Slot] = {}
        try:
            self._jwt("reading the GitHub App's key")
        except AppRefused as exc:
            raise BadSettings(str(exc)) from None

    @property
    def app_id(self) -> str:
        """Its id, or its client id."""
        return self._app_id

    def token(self, repository: str, access: Access) -> InstallationToken:
        """A token for one repository (`owner/name`) that is good for at least `access.seconds` more.

        Raises NotInstalled, AppRefused or AppUnavailable; the same answer for a while, without asking again.
        """
        act = f"getting a token of the GitHub App for {repository[:100]!r}"
        if not is_repository(repository):
            raise NotInstalled(f"{act}: that is no repository's owner/name; set the project's repository")
        slot = self._slot(repository, access)
        with slot.lock:
            now = self._clock.monotonic()
            if slot.token is not None and now + access.seconds < slot.good_until:
                return slot.token
            if slot.refusal is not None and now < slot.refused_until:
                raise slot.refusal()
            return self._renewed(slot, repository, access, act)

    def drop(self, repository: str, access: Access, refused: InstallationToken) -> None:
        """Forget a token that GitHub refused before its time was over."""
        slot = self._slot(repository, access)
        with slot.lock:
            if slot.token == refused:
                slot.token = None

    def ask(self, method: str, path: str, act: str, **sent: Any) -> Response:
        """What GitHub answers the App itself, with its JWT, also when it refuses.

        `sent` is what githubkit's request takes besides. Raises AppRefused without a usable key, AppUnavailable
        without an answer.
        """
        return self._calls.within(
            UnauthAuthStrategy(), lambda github: self._asked(github, method, path, act, **sent)
        )

    def _slot(self, repository: str, access: Access) -> _Slot:
        with self._lock:
            return self._slots.setdefault((repository.lower(), access.name), _Slot())

    def _renewed(self, slot: _Slot, repository: str, access: Access, act: str) -> InstallationToken:
        slot.token = slot.refusal = None
        try:
            slot.token, seconds = self._calls.within(
                UnauthAuthStrategy(), lambda github: self._made(github, repository, access, act)
            )
        except (NotInstalled, AppRefused, AppUnavailable) as exc:
            slot.refusal = _again(exc)
            waits = _SILENT_SECONDS if isinstance(exc, AppUnavailable) else _REFUSED_SECONDS
            slot.refused_until = self._clock.monotonic() + waits
            raise
        slot.good_until = self._clock.monotonic() + seconds
        return slot.token

    def _made(self, github: _Client, repository: str, access: Access, act: str) -> tuple[InstallationToken, float]:
        """A new token, and for how many seconds it is good."""
        installation = self._installation(github, repository, act)
        if installation.suspended_at:
            raise AppRefused(f"{act}: its installation is suspended; unsuspend it in the owner's settings")
        permissions = _within(access.permissions, installation.permissions)
        if access.needed and permissions.get(access.needed) != access.permissions[access.needed]:
            wanted = f"{access.needed}: {access.permissions[access.needed]}"
            raise AppRefused(
                f"{act}: its installation was not granted {wanted}; set it in the App's permissions "
                "and let the owner accept them"
            )
        body = {"repositories": [repository.partition("/")[2]], "permissions": permissions}
        path = f"/app/installations/{installation.id}/access_tokens"
        response = self._asked(github, "POST", path, act, json=body)
        if response.status_code != _CREATED:
            raise self._refusal(response, act)
        made = _read(_Made, response, act)
        if not made.token.isascii() or not made.token.isprintable() or not 0 < len(made.token) < _TOKEN_BYTES:
            raise AppUnavailable(f"{act}: what GitHub's API answered is no token; it is tried again")
        expires = made.expires_at.timestamp()
        return InstallationToken(made.token, expires), expires - host_time(response, now=self._clock.now())

    def _installation(self, github: _Client, repository: str, act: str) -> _Installation:
        response = self._asked(github, "GET", f"/repos/{repository}/installation", act)
        if response.status_code != _OK:
            raise self._refusal(response, act)
        return _read(_Installation, response, act)

    def _asked(self, github: _Client, method: str, path: str, act: str, **sent: Any) -> Response:
        """The answer, also one that refuses; asked again when it was the clocks."""
        response = self._sent(github, method, path, act, **sent)
        now = self._clock.now()
        ahead = now - host_time(response, now=now)
        if response.status_code != _UNAUTHORIZED or abs(ahead - self._ahead_seconds) < _CLOCKS_APART_SECONDS:
            return response
        log.warning("this machine's clock is %d seconds ahead of GitHub's", ahead)
        self._ahead_seconds = ahead
        return self._sent(github, method, path, act, **sent)

    def _sent(self, github: _Client, method: str, path: str, act: str, **sent: Any) -> Response:
        headers = {"Authorization": f"Bearer {self._jwt(act)}"}
        try:
            return github.request(method, path, headers=headers, **sent)
        except RequestFailed as exc:
            return exc.response
        except Exception as exc:  # noqa: BLE001 - httpx's, and what githubkit makes of odd headers
            # Not its cause: what the client raises may hold the request.
            raise AppUnavailable(
                f"{act}: no usable answer from GitHub's API ({kind_of(exc)}); it is tried again"
            ) from None

    def _jwt(self, act: str) -> str:
        now = int(self._clock.now() - self._ahead_seconds)
        claims = {"iat": now - _JWT_BACK_SECONDS, "exp": now + _JWT_SECONDS, "iss": self._app_id}
        return jwt.encode(claims, self._key(act), algorithm="RS256")

    def _key(self, act: str) -> RSAPrivateKey:
        file = f"{act}: BRIDGE_GITHUB_APP_KEY_FILE {self._key_file}"
        remedy = "put the private key there that GitHub made for the App"
        try:
            with self._key_file.open("rb") as opened:
                key = serialization.load_pem_private_key(opened.read(_KEY_BYTES), password=None)
        except OSError as exc:
            raise AppRefused(f"{file} cannot be read ({exc.strerror}); {remedy}") from None
        except Exception:  # noqa: BLE001 - what the parser says may quote the key
            raise AppRefused(f"{file} is no private key in PEM; {remedy}") from None
        if not isinstance(key, RSAPrivateKey) or key.key_size < SMALLEST_KEY_BITS:
            raise AppRefused(f"{file} is no RSA key of {SMALLEST_KEY_BITS} bits; {remedy}")
        return key

    def _refusal(self, response: Response, act: str) -> EngineError:
        status = response.status_code
        said = f"{act}: GitHub answered {status}{words(response)}"
        wait = wait_seconds(response, now=self._clock.now())
        if wait is not None:
            return AppUnavailable(f"{said}; it is tried again", retry_after_seconds=wait)
        if status == _UNAUTHORIZED or (status == _NOT_FOUND and _NO_APP in response.content):
            return AppRefused(
                f"{said}; check BRIDGE_GITHUB_APP_ID, that BRIDGE_GITHUB_APP_KEY_FILE is a key of this App, "
                "and this machine's clock"
            )
        if status in _REDIRECTS:
            return AppRefused(f"{said}; the repository was renamed or moved: set the project's to its new name")
        if status == _NOT_FOUND:
            return NotInstalled(f"{said}; install the App on the repository")
        if status in _FOR_PEOPLE:
            return AppRefused(f"{said}; look at the App's installation and its permissions")
        return AppUnavailable(f"{said}; it is tried again")


class AppTokens:
    """The port InstallationTokens of who has the App itself.

    Args:
        app: our App.
        repository_of: the repository of a project's name.

    """

    def __init__(self, app: App, repository_of: Callable[[str], str]) -> None:
        self._app = app
        self._repository_of = repository_of

    def fresh(self, run_id: str, project: str) -> InstallationToken | NoToken:  # noqa: ARG002 - the port's
        """A token for the project's repository. Raises AppRefused or AppUnavailable."""
        try:
            return self._app.token(self._repository_of(project), BUILDS)
        except NotInstalled as exc:
            return NoToken(str(exc))


def _read(model: type[_Model], response: Response, act: str) -> _Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        # Not its cause: it quotes what came, a token.
        raise AppUnavailable(
            f"{act}: the answer cannot be read; check that BRIDGE_GITHUB_API_URL is GitHub's API"
        ) from None


def _within(wanted: Mapping[str, str], granted: Mapping[str, str]) -> dict[str, str]:
    """As much of `wanted` as was granted: GitHub refuses to make a token that may more."""
    both = {name: (level, granted[name]) for name, level in wanted.items() if granted.get(name) in _LEVELS}
    return {name: min(levels, key=_LEVELS.index) for name, levels in both.items()}


def _again(error: NotInstalled | AppRefused | AppUnavailable) -> Callable[[], EngineError]:
    """Makes the error anew: one that is raised again and again gathers the frames of all who met it."""
    message = str(error)
    if isinstance(error, AppUnavailable):
        seconds = error.retry_after_seconds
        return lambda: AppUnavailable(message, retry_after_seconds=seconds)
    kind = type(error)
    return lambda: kind(message)
