"""Argo's `{{…}}`, as far as it is looked up and never evaluated.

A text is filled in once and what was put in is not read again, so that a value that holds `{{` stays a value
(facts/argo.md: Untrusted text must never enter a manifest). Pure.
"""

import re
from collections.abc import Mapping

from bridge.errors import BadPipeline

STATUS = "workflow.status"
RETRIES = "retries"
WORKFLOW_PARAMETER = "workflow.parameters."
INPUT = "inputs.parameters."

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SHOWN_CHARACTERS = 60


def names_in(text: str) -> frozenset[str]:
    """The names between `{{` and `}}`. Raises BadPipeline for a `{{` that is never closed, and for `{{=…}}`."""
    found = frozenset(match[1].strip() for match in _TAG.finditer(text))
    if "{{" in _TAG.sub("", text):
        raise BadPipeline(f"`{_shown(text)}` has a {{{{ without its }}}}; close it")
    for name in found:
        if name.startswith("="):
            raise BadPipeline(
                f"{{{{{_shown(name)}}}}} is an expression, and the one-machine engine evaluates none"
            )
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `{{name}}` replaced by its value. Raises BadPipeline for a name that has none."""
    for name in sorted(names_in(text)):
        if name not in values:
            raise BadPipeline(unknown(name, values))
    return _TAG.sub(lambda match: values[match[1].strip()], text)


def unknown(name: str, known: Mapping[str, str]) -> str:
    """What to say of a name that stands for nothing here."""
    there = ", ".join(sorted(known))
    return f"{{{{{_shown(name)}}}}} stands for nothing in this place; known are {there}"


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_CHARACTERS])
