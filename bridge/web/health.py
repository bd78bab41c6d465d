"""Whether the gateway lives and can store, and what it has counted."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

import structlog
from flask import Blueprint, Flask, Response, current_app, jsonify
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry, Counter, Histogram, exposition, multiprocess
from prometheus_client import values as prometheus_values

from bridge.core.metrics import Value
from bridge.ports import RunFilter
from bridge.web.families import Families
from bridge.web.gateway import gateway

health = Blueprint("health", __name__)

_log = structlog.get_logger("bridge.web")

_EXTENSION = "bridge_metrics"


class Metrics:
    """The counters of one app, in a registry of their own.

    Under gunicorn with several workers they live in files that prometheus_client shares between processes
    (gunicorn_settings.py), so that whichever worker is asked answers for all.

    Args:
        values: of other parts of bridge, by the names of core.metrics; asked at each scrape.

    """

    def __init__(self, values: Callable[[], Mapping[str, Value]] = dict) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "bridge_events",
            "Deliveries by route and answer.",
            ("route", "answer"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "bridge_event_seconds", "From the request to its answer.", ("route",), registry=self._registry
        )
        if getattr(prometheus_values.ValueClass, "_multiprocess", False):
            self._registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._registry.register(Families(values))

    def count(self, *, route: str, answer: str, seconds: float) -> None:
        """One delivery was answered."""
        self._events.labels(route, answer).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return exposition.generate_latest(self._registry)

    def install(self, app: Flask) -> None:
        """Make these the metrics of `app`."""
        app.extensions[_EXTENSION] = self


def metrics() -> Metrics:
    """The metrics of the app that handles this request."""
    found = current_app.extensions[_EXTENSION]
    assert isinstance(found, Metrics)  # noqa: S101 - for mypy; only `Metrics.install` writes it
    return found


@health.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process answers."""
    return jsonify(status="ok")


@health.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Records, pipelines and projects can be read: deliveries may come. Raises EngineError, which answers 503."""
    ready = gateway().ready
    if ready is not None:
        reason = ready()
        if reason:
            _log.warning("not_ready", reason=reason)
            return jsonify(status="not ready"), HTTPStatus.SERVICE_UNAVAILABLE
        return jsonify(status="ready")
    gateway().runs.list(RunFilter(limit=1))
    gateway().pipelines.all()
    gateway().projects.all()
    return jsonify(status="ready")


@health.get("/metrics")
def counted() -> ResponseReturnValue:
    """What was counted, for Prometheus."""
    return Response(metrics().text(), content_type="text/plain; version=0.0.4; charset=utf-8")
