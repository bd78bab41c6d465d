"""What gunicorn loads: `bridge.wsgi:local()`. The settings come from the environment."""

from flask import Flask

from bridge.settings import Settings, load
from bridge.web.app import create_app
from bridge.web.gateway import Gateway
from bridge.web.logs import configure_logging
from bridge.wiring.local import local_ports


def local() -> Flask:
    """The gateway of one machine, over the state folder that controller and engine use too."""
    settings = load()
    configure_logging(settings.log_level)
    return create_app(local_gateway(settings))


def local_gateway(settings: Settings) -> Gateway:
    """The gateway's ports and settings on one machine."""
    ports = local_ports(settings)
    return Gateway(
        runs=ports.runs,
        pipelines=ports.pipelines,
        projects=ports.projects,
        builds=ports.builds,
        clock=ports.clock,
        default_secret=settings.default_shared_secret.get_secret_value(),
        public_url=settings.public_url,
        loopback_only=True,
        read_tokens=tuple(token.get_secret_value() for token in settings.read_tokens),
        act_tokens=tuple(token.get_secret_value() for token in settings.act_tokens),
        anonymous_read=settings.anonymous_read,
    )
