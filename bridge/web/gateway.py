"""What the gateway works with: ports and settings, handed to `create_app` and found again by each request."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import cast

from flask import current_app

from bridge.core.metrics import Value
from bridge.flows.commenting import Conversations
from bridge.flows.sweeping import DeliveryLogs
from bridge.ports import Builds, Callers, Clock, InstallationTokens, Pipelines, Projects, Runs

_EXTENSION = "bridge"


@dataclass(frozen=True)
class Proxy:
    """An authenticating proxy before the gateway: who a request is of, in headers that it sets."""

    addresses: tuple[IPv4Network | IPv6Network, ...]
    """Its own. The headers of everybody else are not believed."""
    user_header: str = "X-Forwarded-User"
    groups_header: str = "X-Forwarded-Groups"
    """Names of groups, separated by commas."""
    act_users: frozenset[str] = frozenset()
    """Who of those that it lets through may act."""
    act_groups: frozenset[str] = frozenset()
    """Whoever is in one of these may act, too."""


@dataclass(frozen=True)
class Gateway:
    """Ports and settings of one gateway. Nothing secret is in its repr."""

    runs: Runs
    pipelines: Pipelines
    projects: Projects
    builds: Builds
    clock: Clock
    default_secret: str = field(default="", repr=False)
    """Signs webhooks of projects that have no secret of their own; empty: nothing does."""
    app_secret: str = field(default="", repr=False)
    """Signs the webhooks of our GitHub App, whatever secrets the repository's project has; empty: nothing does."""
    app_id: int | str = 0
    """Of our GitHub App, or its client id: its own checks and comments start nothing; 0: there is none."""
    public_url: str = ""
    """Where people reach the pages, without a slash at the end; empty: links are paths."""
    loopback_only: bool = True
    """One machine: only its own names are answered to, and reading needs no identity."""
    read_tokens: tuple[str, ...] = field(default=(), repr=False)
    """Bearer tokens that may read; each `token` or `name=token`, here and below."""
    act_tokens: tuple[str, ...] = field(default=(), repr=False)
    """Bearer tokens that may read and act."""
    event_tokens: tuple[str, ...] = field(default=(), repr=False)
    """Bearer tokens that may send CloudEvents, of any project."""
    anonymous_read: bool = False
    """Everybody who reaches the gateway may read."""
    proxy: Proxy | None = None
    """Who else may say who people are; None: nobody."""
    session_seconds: float = 12 * 3600.0
    """How long a browser that signed in with a token stays so."""
    badges: bool = True
    """Everybody may see badges; else whoever may read."""

    fallback_url: str = ""
    """Where deliveries of projects that no pipeline is for are passed on to, unchanged; empty: nowhere."""
    values: Callable[[], Mapping[str, Value]] = dict
    """More metrics, by the names of core.metrics: those of a controller that has no /metrics of its own."""
    ready: Callable[[], str] | None = None
    """Why deliveries had better not come now, empty if they may; asked often. None: the ports are asked."""
    patience: Callable[[], AbstractContextManager[None]] = nullcontext
    """Bounds how long the ports may take for one delivery together; whatever takes longer raises Unavailable."""

    logs: Callable[[], DeliveryLogs] | None = None
    """GitHub's logs of deliveries, for `explain`; None: nobody said which webhooks are ours."""
    conversations: Callable[[], Conversations] | None = None
    """Who asks GitHub about comments and answers them; called when there is one. None: they are events alone."""
    callers: Callers | None = None
    """Finds out which step asks for a token; None: nobody gets any."""
    tokens: InstallationTokens | None = None
    """Hands out our App's tokens to steps; None: nobody does."""
    step_account: str = ""
    """The ServiceAccount of steps, `namespace:name`."""

    def url_of(self, run_id: str) -> str:
        """The page of a run: absolute with a public URL, else a path."""
        return f"{self.public_url}/runs/{run_id}"

    def install(self, extensions: dict[str, object]) -> None:
        """Make this the gateway of a Flask app, given its `extensions`."""
        extensions[_EXTENSION] = self


def gateway() -> Gateway:
    """The gateway of the app that handles this request."""
    return cast("Gateway", current_app.extensions[_EXTENSION])
