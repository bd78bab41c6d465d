"""What gunicorn loads: `bridge.wsgi:local()` or `bridge.wsgi:cluster()`, set up from the environment."""

from dataclasses import replace
from functools import cache
from typing import Any

from flask import Flask

from bridge.clocks import SystemClock
from bridge.cluster.asked_runs import AskedRuns
from bridge.cluster.patience import patience
from bridge.cluster.readiness import Readiness
from bridge.cluster.tokens import ClusterCallers
from bridge.flows.commenting import Conversations
from bridge.flows.freshening import NoApp
from bridge.flows.sweeping import DeliveryLogs
from bridge.local.shared_values import SharedValues
from bridge.ports import InstallationTokens, Projects
from bridge.settings import Settings, load
from bridge.web.app import create_app
from bridge.web.gateway import Gateway, Proxy
from bridge.web.logs import configure_logging
from bridge.wiring.cluster import ClusterPorts, cluster_ports
from bridge.wiring.local import LocalPorts, local_ports

ANSWER_SECONDS = 3.0
"""How long one call of a gateway to the API server may take."""
DELIVERY_SECONDS = 6.0
"""How long all calls for one delivery may take together: GitHub waits 10 s for an answer."""


def local() -> Flask:
    """The gateway of one machine, over the state folder that controller and engine use too."""
    settings = load()
    configure_logging(settings.log_level)
    return create_app(local_gateway(settings))


def local_gateway(settings: Settings) -> Gateway:
    """The gateway's ports and settings on one machine."""
    ports = local_ports(settings)
    return _gateway(
        settings,
        ports,
        loopback_only=True,
        values=SharedValues(settings.state).read,
    )


def cluster() -> Flask:
    """The gateway of a cluster, of which any number may run. Its watches are this process's own."""
    settings = load()
    configure_logging(settings.log_level)
    ports = cluster_ports(settings, timeout_seconds=ANSWER_SECONDS, connect_timeout_seconds=1.0)
    ports.projects.start()
    ports.pipelines.start()
    return create_app(cluster_gateway(settings, ports))


def cluster_gateway(settings: Settings, ports: ClusterPorts) -> Gateway:
    """The gateway's ports and settings in a cluster."""
    gateway = _gateway(
        settings,
        ports,
        fallback_url=settings.fallback_url,
        patience=lambda: patience(DELIVERY_SECONDS),
        ready=Readiness(
            ports.api, ports.namespace, [ports.projects.cache.watching, ports.pipelines.cache.watching]
        ),
        callers=ClusterCallers(ports.api, ports.namespace),
        tokens=_installation_tokens(settings, ports),
        step_account=f"{ports.namespace}:{settings.step_service_account}",
        loopback_only=False,
    )
    return replace(gateway, runs=AskedRuns(ports.api, ports.namespace, ports.runs))


def _gateway(settings: Settings, ports: LocalPorts | ClusterPorts, **world: Any) -> Gateway:
    """What every gateway takes from ports and settings, and the rest that its world gives it."""
    return Gateway(
        runs=ports.runs,
        pipelines=ports.pipelines,
        projects=ports.projects,
        builds=ports.builds,
        clock=ports.clock,
        default_secret=settings.default_shared_secret.get_secret_value(),
        app_secret=settings.github_app_webhook_secret.get_secret_value(),
        app_id=_app_id(settings),
        public_url=settings.public_url,
        read_tokens=tuple(token.get_secret_value() for token in settings.read_tokens),
        act_tokens=tuple(token.get_secret_value() for token in settings.act_tokens),
        event_tokens=tuple(token.get_secret_value() for token in settings.event_tokens),
        anonymous_read=settings.anonymous_read,
        proxy=_proxy(settings),
        session_seconds=settings.session_hours * 3600,
        badges=settings.badges,
        conversations=cache(lambda: _conversations(settings, ports.projects)),
        logs=cache(lambda: _delivery_logs(settings, ports.projects)) if settings.webhook else None,
        **world,
    )


def _proxy(settings: Settings) -> Proxy | None:
    if not settings.proxy_addresses:
        return None
    return Proxy(
        addresses=settings.proxy_addresses,
        user_header=settings.proxy_user_header,
        groups_header=settings.proxy_groups_header,
        act_users=frozenset(settings.proxy_act_users),
        act_groups=frozenset(settings.proxy_act_groups),
    )


def _installation_tokens(settings: Settings, ports: ClusterPorts) -> InstallationTokens:
    if not settings.github_app_id and settings.github_app_key_file is None:
        return NoApp()
    # GitHub's client is slow to import and large, and without an App no gateway needs it.
    from bridge.wiring.reporting import installation_tokens  # noqa: PLC0415

    return installation_tokens(settings, ports.projects)


def _delivery_logs(settings: Settings, projects: Projects) -> DeliveryLogs:
    from bridge.wiring.sweeping import delivery_logs  # noqa: PLC0415

    return delivery_logs(settings, projects, SystemClock())


def _conversations(settings: Settings, projects: Projects) -> Conversations:
    # At the first comment that asks for something: GitHub's client is slow to import and large.
    from bridge.wiring.reporting import conversations  # noqa: PLC0415

    return conversations(settings, projects)


def _app_id(settings: Settings) -> int | str:
    """The App's id, or its client id, as payloads have them; 0 if there is no App."""
    app_id = settings.github_app_id
    return int(app_id) if app_id.isascii() and app_id.isdecimal() else app_id or 0
