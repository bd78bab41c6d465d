"""Reading objects of the Kubernetes API: nothing in them is trusted to be of the type that it should be."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]


def mapping(values: Json, *keys: str) -> Json:
    """The mapping at `values[key][key]…`; an empty one where there is none."""
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def mappings(values: Json, key: str) -> list[Json]:
    """The mappings in the list at `key`."""
    found = values.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def text(values: Json, key: str) -> str:
    """The text at `key`; empty where there is none."""
    value = values.get(key)
    return value if isinstance(value, str) else ""


def seconds(values: Json, key: str) -> float | None:
    """The time at `key` as seconds since the epoch; None where there is none."""
    try:
        return datetime.fromisoformat(text(values, key)).timestamp()
    except (ValueError, OverflowError):
        return None


def is_being_deleted(found: Json) -> bool:
    """Whether an object has a deletionTimestamp: finalizers or its kubelet hold it up."""
    return bool(text(mapping(found, "metadata"), "deletionTimestamp"))
