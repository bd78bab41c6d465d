"""What the buttons of pages ask for. The answer is the run's page again, which says what became of it."""

from typing import Annotated
from uuid import uuid4

import structlog
from flask import Blueprint, redirect, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from werkzeug.exceptions import BadRequest, NotFound

from bridge.core.runs import Kind
from bridge.flows.acting import act
from bridge.web.access import require_form_of_actor
from bridge.web.gateway import gateway
from bridge.web.identities import Identity
from bridge.web.sessions import tell

LONGEST_FORM_BYTES = 16 * 1024
SEE_OTHER = 303
_KINDS = frozenset({"retry", "rerun", "cancel", "approve"})

page_acts = Blueprint("page_acts", __name__)

_log = structlog.get_logger("bridge.web")


class _Form(BaseModel):
    """What a button sends. An unknown field is not of ours and is not looked at."""

    model_config = ConfigDict(hide_input_in_errors=True)

    request: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)] = ""
    """Is the same when the button is pressed twice."""
    follows: int | None = Field(None, ge=0)
    """The attempt that the page showed."""


@page_acts.before_request
def _bound() -> None:
    request.max_content_length = LONGEST_FORM_BYTES


@page_acts.post("/runs/<run_id>/<kind>")
def act_on_run(run_id: str, kind: str) -> ResponseReturnValue:
    """Retry, rerun, cancel or approve a run."""
    who = require_form_of_actor(request, gateway())
    if kind not in _KINDS or kind not in set(Kind):
        raise NotFound(f"there is no such button as {kind[:40]}")
    return _asked(run_id, Kind(kind), who=who)


@page_acts.post("/runs/<run_id>/steps/<step>/retry")
def retry_step(run_id: str, step: str) -> ResponseReturnValue:
    """Retry one step of a run, and what comes after it."""
    who = require_form_of_actor(request, gateway())
    return _asked(run_id, Kind.RETRY, who=who, only=(step,))


def _asked(run_id: str, kind: Kind, *, who: Identity, only: tuple[str, ...] = ()) -> ResponseReturnValue:
    form = _form()
    acted = act(
        gateway().runs,
        run_id,
        kind,
        request=form.request or str(uuid4()),
        who=who.name,
        source="page",
        now=gateway().clock.now(),
        follows=form.follows,
        only=only,
    )
    _log.info(kind.value, run=run_id, accepted=acted.accepted, who=who.name, message=acted.message)
    answer = redirect(url_for("pages.run", run_id=run_id), SEE_OTHER)
    tell(answer, gateway(), acted.message)
    return answer


def _form() -> _Form:
    try:
        return _Form.model_validate(request.form.to_dict())
    except ValidationError as error:
        fields = ", ".join(str(one["loc"][0])[:60] for one in error.errors()[:5])
        raise BadRequest(f"the form cannot be used ({fields}): load its page again") from None
