"""What pydantic found wrong, in words for whoever wrote the file: the field's path, what is wrong, what to do."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS = 60

_PLAIN = {
    "too_short": "is empty; name at least one",
    "too_long": "holds too many; make it shorter",
    "string_type": "must be text; put it in quotes if it looks like something else",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
}
"""In place of pydantic's own words, which are a programmer's."""


def complaints(
    error: ValidationError,
    *,
    model: type[BaseModel],
    sections: Mapping[str, type[BaseModel]],
    examples: Mapping[str, str],
) -> list[str]:
    """A line for everything in `error`; of values it quotes none but the names of keys.

    `model` is what was validated, `sections` the models of its fields that have fields themselves, `examples`
    what to write for a required field.
    """
    known = {field: list(section.model_fields) for field, section in sections.items()}
    known[""] = list(model.model_fields)
    found = error.errors(include_url=False)
    return [_complaint(details, known, examples) for details in found if not _follows(details, found)]


def instead(name: str, known: Iterable[str]) -> str:
    """What to write for `name`, which is not among `known`."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known are {', '.join(names)}"


def cut(text: str) -> str:
    """Foreign text, short and printable."""
    return "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_CHARACTERS])


def _complaint(details: ErrorDetails, known: Mapping[str, list[str]], examples: Mapping[str, str]) -> str:
    location, kind, message = details["loc"], details["type"], details["msg"]
    path = _path(location)
    name = str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        section = str(location[0]) if len(location) > 1 else ""
        return f"{path}: unknown field{instead(name, known.get(section, known['']))}"
    if kind == "missing":
        return f"{path}: is missing; write for example `{examples.get(name, f'{name}: …')}`"
    if kind == "value_error":
        return f"{path}: {message.removeprefix('Value error, ')}"
    return f"{path}: {_PLAIN.get(kind) or message.replace('Input should', 'should')}"


def _follows(details: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a list is only called too short because what is in it is wrong."""
    place = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found
    )


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{cut(part)}" if path else cut(part)
    return path or "the file"
