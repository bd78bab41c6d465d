"""gunicorn before the gateway; `bridgectl serve` becomes it, and its workers load `bridge.wsgi:cluster()`."""

import os
import sys
from typing import NoReturn

from bridge.settings import PREFIX, Settings
from bridge.wiring.cluster import connection

APP = "bridge.wsgi:cluster()"


def gunicorn_arguments(settings: Settings, *, bind: str, app: str) -> list[str]:
    """What Python runs gunicorn with: `bind` is an address or an open descriptor, `app` what its workers load."""
    return [
        "-m",
        "gunicorn",
        "--config",
        "python:bridge.web.gunicorn_settings",
        "--bind",
        bind,
        "--workers",
        str(settings.web_workers),
        "--threads",
        str(settings.web_threads),
        app,
    ]


def serve(settings: Settings) -> NoReturn:
    """Replace this process by gunicorn. Raises Misconfigured, before anything listens, without a cluster."""
    connection(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    argv = [sys.executable, "-P", *gunicorn_arguments(settings, bind=f"{host}:{settings.port}", app=APP)]
    # The workers read the settings anew: what was said on the command line has to be there too.
    environment = {**os.environ, f"{PREFIX}LOG_LEVEL": settings.log_level}
    # gunicorn would take its address from it.
    environment.pop("PORT", None)
    os.execve(sys.executable, argv, environment)  # noqa: S606 - by argv, no shell
