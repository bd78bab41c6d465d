"""Where a browser may be sent by what came with a request."""

import re

from flask import url_for

# One slash and what a browser sends in a path and its query; it reads a backslash as a slash, and two slashes as
# the beginning of another host.
_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")


def local_path(given: str) -> str:
    """`given` if it is a path here, with its query; else the list of runs. A browser is sent nowhere else."""
    return given if _PATH.fullmatch(given) else url_for("pages.index")
