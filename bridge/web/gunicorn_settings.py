"""gunicorn's settings for the gateway: `gunicorn -c python:bridge.web.gunicorn_settings …`.

The address, workers and threads come from bridge's settings, on the command line.
"""

import os

from bridge.web.counter_files import VARIABLE, CounterFiles, open_counter_files

worker_class = "bridge.web.workers.BoundedThreadWorker"
workers = 2
threads = 8
worker_connections = 200
"""Above it new connections wait in the backlog."""
backlog = 1024
timeout = 30
"""A worker whose main loop is silent for so long is replaced. It is no bound of a request: see workers.py."""
graceful_timeout = 15
keepalive = 5
max_requests = 0
"""Never recycled: the files of the shared counters would grow with each worker."""
preload_app = False
"""Each worker opens its own database and connections, after the fork."""
control_socket_disable = True
"""gunicorn 27 opens a control socket by default."""
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""
"""Nobody's X-Forwarded-Proto is believed; the public URL is a setting."""
logger_class = "bridge.web.workers.ServerLog"
accesslog = None
"""Off: the paths of the generic routes hold secrets. hooks.py logs every delivery."""
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "bridge.web.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}

_counters: list[CounterFiles] = []


def on_starting(server: object) -> None:
    """Give the workers a folder in which they share their counters, unless the environment names one."""
    del server
    if VARIABLE not in os.environ:
        _counters.append(open_counter_files())
        os.environ[VARIABLE] = str(_counters[0].folder)


def on_exit(server: object) -> None:
    """Remove it again."""
    del server
    for one in _counters:
        one.remove()
