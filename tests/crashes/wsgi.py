"""The gateway over dying ports, for gunicorn."""

from dataclasses import replace

from bridge.settings import load
from bridge.web.app import create_app
from bridge.web.logs import configure_logging
from bridge.wsgi import local_gateway
from tests.crashes.dying import dying


def app():
    settings = load()
    configure_logging(settings.log_level)
    gateway = local_gateway(settings)
    return create_app(
        replace(
            gateway,
            runs=dying(gateway.runs, "Runs", role="gateway"),
            builds=dying(gateway.builds, "Builds", role="gateway"),
        )
    )
