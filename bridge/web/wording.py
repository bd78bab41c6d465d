"""Words and addresses for templates: times, durations, states, and URLs of whatever strangers called things."""

from datetime import UTC, datetime
from typing import Any

from flask import Flask, url_for

from bridge.core.searching import storable
from bridge.web.gateway import gateway
from bridge.web.run_views import name_of_step

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_JUST_NOW_SECONDS = 10
_DATED_AFTER_DAYS = 7


def install_wording(app: Flask) -> None:
    """Give the templates of `app` the filters below, the function `path(endpoint, …)`, and `clock_now()`."""
    app.jinja_env.filters |= {"took": took, "ago": ago, "absolute": absolute, "state_of": state_of}
    app.jinja_env.filters["step_name"] = name_of_step
    app.jinja_env.globals |= {"path": path, "clock_now": _now}


def took(seconds: float | None) -> str:
    """A duration in its two largest units: `3 min 12 s`; empty for None."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def ago(at: str | None, now: float) -> str:
    """How long a time (a representation's text) has passed at `now`, or its day when that is long ago."""
    if not at:
        return ""
    passed = now - datetime.fromisoformat(at).timestamp()
    if passed < _JUST_NOW_SECONDS:
        return "just now"
    for unit, size, until in (("s", 1, _MINUTE), ("min", _MINUTE, _HOUR), ("h", _HOUR, _DAY)):
        if passed < until:
            return f"{int(passed // size)} {unit} ago"
    days = int(passed // _DAY)
    return f"{days} d ago" if days <= _DATED_AFTER_DAYS else at[:10]


def absolute(at: str | float | None) -> str:
    """A time in full: `2026-11-24 15:04:05 UTC`; empty for None."""
    if at is None or at == "":
        return ""
    text = at if isinstance(at, str) else datetime.fromtimestamp(at, UTC).isoformat()
    return f"{text[:19].replace('T', ' ')} UTC"


def state_of(run: dict[str, Any]) -> str:
    """One word for a run: `held`, its verdict, or its phase."""
    return "held" if run["held"] else str(run["verdict"] or run["phase"])


def path(endpoint: str, **values: Any) -> str:
    """The path of a page, whatever halves of characters strangers put into the names in it."""
    safe: dict[str, Any] = {
        name: storable(value) if isinstance(value, str) else value for name, value in values.items()
    }
    return url_for(endpoint, **safe)


def _now() -> float:
    return gateway().clock.now()
