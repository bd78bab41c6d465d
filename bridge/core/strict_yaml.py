"""YAML without its surprises: `on`, `yes` and `no` are words, dates and `1:30` are text, keys come once.

What is read here is written by people and reviewed by others, so what looks like one thing must not be another.
Anchors, aliases, tags and merge keys are refused: they hide what is meant, and let a short text grow without end.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 40
"""Deeper than anything that is meant, and far from the parser's own limits."""


class NotStrictYaml(ValueError):
    """The text cannot be read; the message says where and what to do, and quotes none of it but a key's name."""


def loaded(text: str) -> object:
    """The one document in `text` as dicts with text keys, lists, text, int, float, bool and None.

    Raises NotStrictYaml.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise NotStrictYaml(f"it is longer than {MAX_BYTES} bytes")
    try:
        _check_events(text)
        # _Loader is a SafeLoader: it makes plain values only.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as exc:
        raise NotStrictYaml(f"{_place(exc.problem_mark)}{_problem(exc)}") from exc
    except yaml.YAMLError as exc:
        raise NotStrictYaml("it holds characters that YAML does not allow") from exc
    except ValueError as exc:
        raise NotStrictYaml("a number in it cannot be read; put it in quotes") from exc


def _check_events(text: str) -> None:
    """Refuse what must not even be composed. The events come without recursion, however deep the text."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor):
            raise _refused("anchors and aliases are not read here; write the value out", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags (`!…`) are not read here; leave it out", event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refused(f"it is nested more than {MAX_DEPTH} deep", event.start_mark)


def _problem(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part) or "this is no YAML"


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


class _Loader(yaml.SafeLoader):
    """Resolves as YAML 1.2's core schema does, and refuses a key that is there already."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise _refused("a key must be a word; put it in quotes", key.start_mark)
            if key.value in seen:
                raise _refused(f"the key `{key.value[:40]}` is there twice; keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}", "-+0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"(?:{_pattern})\Z", re.ASCII),
        ["" if c == "\0" else c for c in _first],
    )
