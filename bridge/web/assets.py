"""The files that pages load from the gateway itself, under names that change with their content."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Flask, Response, request, url_for

FOLDER = Path(__file__).parent / "static"
_FOR_EVER = "public, max-age=31536000, immutable"


def install_assets(app: Flask) -> None:
    """Give the templates of `app` the function `asset(name)`: a static file's URL, or None if it is not there.

    Under that URL a browser keeps it for ever; without the version in it, it asks each time whether it changed.
    """
    app.jinja_env.globals["asset"] = _asset
    app.after_request(_cached)


def _asset(name: str) -> str | None:
    version = _version(name)
    return url_for("static", filename=name, v=version) if version else None


@cache
def _version(name: str) -> str:
    try:
        return hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _cached(response: Response) -> Response:
    if request.endpoint == "static" and request.args.get("v", "-") == _version(_file_asked_for()):
        response.headers["Cache-Control"] = _FOR_EVER
    return response


def _file_asked_for() -> str:
    name = (request.view_args or {}).get("filename", "")
    return name if name in _names() else ""


@cache
def _names() -> frozenset[str]:
    return frozenset(one.name for one in FOLDER.iterdir()) if FOLDER.is_dir() else frozenset()
