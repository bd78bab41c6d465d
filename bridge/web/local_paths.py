"""Where a browser may be sent by what came with a request."""

from urllib.parse import urlsplit

from flask import url_for


def local_path(given: str) -> str:
    """`given` if it is a path here, with its query; else the list of runs. A browser is sent nowhere else."""
    parts = urlsplit(given) if given.isascii() and given.isprintable() else urlsplit("")
    # Browsers read a backslash as a slash, and two slashes as the beginning of another host.
    plain = not parts.scheme and not parts.netloc and "\\" not in given
    return given if plain and given.startswith("/") and not given.startswith("//") else url_for("pages.index")
