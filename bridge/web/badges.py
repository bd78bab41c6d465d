"""Badges: how a pipeline stands on a branch, as a small picture for a README.

They are for everybody unless the settings say otherwise, so they tell one word and nothing else: of a project or
a pipeline that there is not, of a branch on which nothing ran, and of a wrong name they all say `unknown`.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import islice

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue
from markupsafe import escape

from bridge.core.runs import Phase, Run
from bridge.core.verdicts import Verdict
from bridge.errors import NotFound
from bridge.ports import RunFilter
from bridge.web.access import require_reader
from bridge.web.gateway import gateway
from bridge.web.remembering import Remembered

KEPT_SECONDS = 60
LOOKED_THROUGH = 1000
"""So many of the newest runs may tell how a branch stands; it has not much to say if none of them does."""
_PAGE = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LONGEST = 250
_CHARACTER_PIXELS = 6.5
_MARGIN_PIXELS = 12
# White text on each of them, and on the label's, has a contrast above 4.5.
_LABEL_COLOUR = "#424a53"
_COLOURS = {
    "succeeded": "#1a7f37",
    "failed": "#cf222e",
    "timed out": "#cf222e",
    "error": "#a04100",
    "cancelled": "#59636e",
    "running": "#0969da",
    "unknown": "#59636e",
}
_EXTENSION = "bridge_badges"

badges = Blueprint("badges", __name__)


@badges.get("/badge/<path:project>/<pipeline>.svg")
def badge(project: str, pipeline: str) -> ResponseReturnValue:
    """The newest verdict of a pipeline's pushes to `branch`, or to any branch without it."""
    shared = gateway().badges
    if not shared:
        require_reader(request, gateway())
    label = pipeline if _NAME.fullmatch(pipeline) else "pipeline"
    asked = (project[:_LONGEST], pipeline[:_LONGEST], request.args.get("branch", "")[:_LONGEST])
    text = _drawn(label, _remembered().get(asked, gateway().clock.monotonic(), lambda: _word(*asked)))
    answer = Response(text, content_type="image/svg+xml; charset=utf-8")
    answer.headers["Cache-Control"] = f"{'public' if shared else 'private'}, max-age={KEPT_SECONDS}"
    # Pictures of other sites' pages.
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.set_etag(sha256(text.encode()).hexdigest()[:32])
    return answer.make_conditional(request)


def _remembered() -> Remembered[tuple[str, str, str], str]:
    # Nobody has to be known to ask, so nobody may make the store work for each request.
    kept: Remembered[tuple[str, str, str], str]
    kept = current_app.extensions.setdefault(_EXTENSION, Remembered(seconds=KEPT_SECONDS, most=1000))
    return kept


def _word(project: str, pipeline: str, branch: str) -> str:
    """How it stands. What was cancelled says nothing of the commit, and counts if there is nothing else."""
    running, cancelled = False, False
    wanted = RunFilter(project=project, pipeline=pipeline, branch=branch, limit=_PAGE)
    for run in islice(_newest(wanted), LOOKED_THROUGH):
        # The base branch of a pull request is this one; what strangers propose is not on it.
        if run.event.pull_request is not None:
            continue
        if run.phase is not Phase.CLOSED or run.verdict is None:
            running = True
        elif run.verdict is Verdict.CANCELLED:
            cancelled = True
        else:
            return run.verdict.value.replace("_", " ")
    return "running" if running else "cancelled" if cancelled else "unknown"


def _newest(wanted: RunFilter) -> Iterator[Run]:
    """The runs of a list, the newest first, a page at a time: mostly the first one tells."""
    found = gateway().runs.list(wanted)
    while found:
        yield from found
        try:
            found = gateway().runs.list(replace(wanted, after=found[-1].id))
        except NotFound:
            # It was forgotten just now, being the oldest that there was.
            return


def _drawn(label: str, word: str) -> str:
    left = round(len(label) * _CHARACTER_PIXELS) + _MARGIN_PIXELS
    right = round(len(word) * _CHARACTER_PIXELS) + _MARGIN_PIXELS
    title = escape(f"{label}: {word}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-labelledby="t"><title id="t">{title}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="{_LABEL_COLOUR}"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[word]}"/></g>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" aria-hidden="true">'
        f"{_written(label, 0, left)}{_written(word, left, right)}</g></svg>\n"
    )


def _written(text: str, x: int, width: int) -> str:
    return (
        f'<text x="{x + _MARGIN_PIXELS // 2}" y="14" textLength="{width - _MARGIN_PIXELS}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )
