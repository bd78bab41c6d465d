"""Dark or light: what the system says, unless somebody chose one here. The choice is kept by the browser."""

from flask import Blueprint, Flask, redirect, request
from flask.typing import ResponseReturnValue

from bridge.web.local_paths import local_path

THEMES = ("dark", "light")
COOKIE = "bridge-theme"
SEE_OTHER = 303
_YEAR_SECONDS = 365 * 86400
_LONGEST_FORM_BYTES = 8 * 1024

themes = Blueprint("themes", __name__)


@themes.before_request
def _bound() -> None:
    request.max_content_length = _LONGEST_FORM_BYTES


@themes.post("/theme")
def choose() -> ResponseReturnValue:
    """Keep `theme` of the form, or forget the choice if it is none; then go back to the page `next`.

    Nothing but how pages look comes of it, so it asks for no proof of who sends it.
    """
    answer = redirect(local_path(request.form.get("next", "")), SEE_OTHER)
    chosen = request.form.get("theme", "")
    if chosen in THEMES:
        answer.set_cookie(
            COOKIE, chosen, max_age=_YEAR_SECONDS, httponly=True, samesite="Lax", secure=request.is_secure
        )
    else:
        answer.delete_cookie(COOKIE, httponly=True, samesite="Lax")
    return answer


def install_themes(app: Flask) -> None:
    """Give the templates of `app` the variable `theme`: `dark`, `light` or empty."""

    @app.context_processor
    def _theme() -> dict[str, str]:
        chosen = request.cookies.get(COOKIE, "")
        return {"theme": chosen if chosen in THEMES else ""}
