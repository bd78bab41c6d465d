"""The file that names the endpoints of notifications: the only place from which a URL comes.

Secrets and tokens are in files of their own, named relative to it, and read again for each message: they can be
changed while bridge runs.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bridge.core import durations, standard_webhooks, strict_yaml
from bridge.core.complaints import complaints
from bridge.core.notifications import Lifecycle, Subscriber
from bridge.core.pipeline_files import EndpointName
from bridge.errors import BadSettings, Misconfigured

MAX_ENDPOINTS = 20
"""Each has a thread of its own."""
_LONGEST_FILE = 64 * 1024
_LONGEST_TIMEOUT = 60.0


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("is no URL; write https://HOST/PATH") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or not port_is_one:
        raise ValueError("is no URL; write https://HOST/PATH")
    if "@" in parts.netloc or parts.fragment or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("has a password, a fragment or odd characters; put a token into a file, as `tokenFile`")
    return value


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is no duration; write for example 5s")  # noqa: TRY004 - pydantic's way
    seconds = durations.seconds_of(value)
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError("must be more than nothing and at most 60s")
    return seconds


class EndpointFile(BaseModel):
    """One endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: EndpointName
    url: Annotated[str, AfterValidator(_url)]
    secretFile: Annotated[str, Field(min_length=1)] | None = None  # noqa: N815 - as it is written
    tokenFile: Annotated[str, Field(min_length=1)] | None = None  # noqa: N815
    runs: Literal["all", "named"] = "all"
    events: Annotated[tuple[Lifecycle, ...], Field(min_length=1)] = tuple(Lifecycle)
    project: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")] = ""
    timeout: Annotated[float, BeforeValidator(_seconds)] = 5.0


class EndpointsFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoints: Annotated[tuple[EndpointFile, ...], Field(max_length=MAX_ENDPOINTS)]


class Endpoint:
    """An endpoint, and how it is let known that we are who we are. Nothing secret is kept here.

    Args:
        content: what the file says of it.
        folder: where its other files are.

    """

    def __init__(self, content: EndpointFile, folder: Path) -> None:
        self.url = content.url
        self.timeout_seconds = content.timeout
        self.subscriber = Subscriber(
            content.name,
            wants=frozenset(content.events),
            of_all=content.runs == "all",
            project=content.project,
        )
        self._secret_file = folder / content.secretFile if content.secretFile else None
        self._token_file = folder / content.tokenFile if content.tokenFile else None

    def keys(self) -> tuple[bytes, ...]:
        """What signs its messages; none if only a token says who we are. Raises Misconfigured."""
        if self._secret_file is None:
            return ()
        try:
            return standard_webhooks.keys_of(_text(self._secret_file))
        except Misconfigured as error:
            raise Misconfigured(
                f"endpoint {self.subscriber.name}: secretFile {self._secret_file}: {error}"
            ) from None

    def token(self) -> str:
        """Its Bearer token; empty: it has none. Raises Misconfigured."""
        if self._token_file is None:
            return ""
        try:
            return _token_of(_text(self._token_file))
        except Misconfigured as error:
            raise Misconfigured(
                f"endpoint {self.subscriber.name}: tokenFile {self._token_file}: {error}"
            ) from None


def endpoints_of(path: Path) -> tuple[Endpoint, ...]:
    """The endpoints of a file, their secrets looked at once. Raises BadSettings with all that is wrong."""
    try:
        content = strict_yaml.loaded(_text(path))
        if not isinstance(content, dict):
            raise BadSettings(f"{path}: write `endpoints:` and under it a list")
        found = EndpointsFile.model_validate(content)
    except (strict_yaml.NotStrictYaml, Misconfigured) as error:
        raise BadSettings(f"{path}: {error}") from None
    except ValidationError as error:
        lines = complaints(error, model=EndpointsFile, sections={"endpoints": EndpointFile}, examples={})
        raise BadSettings("\n".join(f"{path}: {line}" for line in lines)) from None
    endpoints = tuple(Endpoint(one, path.parent) for one in found.endpoints)
    wrong = [*_doubled(found), *_unproven(found)]
    for endpoint in endpoints:
        for look in (endpoint.keys, endpoint.token):
            try:
                look()
            except Misconfigured as error:
                wrong.append(str(error))
    if wrong:
        raise BadSettings("\n".join(f"{path}: {line}" for line in wrong))
    return endpoints


def _doubled(found: EndpointsFile) -> list[str]:
    counts = Counter(one.name for one in found.endpoints)
    return [f"endpoint {name} is there {count} times; keep one" for name, count in counts.items() if count > 1]


def _unproven(found: EndpointsFile) -> list[str]:
    return [
        f"endpoint {one.name}: name a secretFile (what signs), a tokenFile (a Bearer token) or both, by which it "
        "knows who we are"
        for one in found.endpoints
        if one.secretFile is None and one.tokenFile is None
    ]


def _token_of(text: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Misconfigured("it holds no token: write it on one line")
    return token


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise Misconfigured(f"it cannot be read ({error.strerror}); check that it is there") from None
