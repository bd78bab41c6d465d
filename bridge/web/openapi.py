"""The API's one table: each route is written down once, with what it takes and answers; OpenAPI is made of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from bridge.core.answers import Problem

Json = dict[str, Any]
View = Callable[..., ResponseReturnValue]

_PARAMETER = re.compile(r"<(\w+)>")
_PROBLEMS = {
    400: "it cannot be used; the detail says what is wrong with it",
    401: "an identity is needed",
    403: "this identity may not",
    404: "it is not there",
    409: "the run has no such step",
    413: "the body is too large",
    415: "the body is no JSON",
    429: "too many ask at the moment; ask again after Retry-After seconds",
    500: "the gateway is not set up correctly or has a fault",
    503: "it cannot be found out or stored now; ask again after Retry-After seconds",
}
_TOLD_ELSEWHERE = frozenset({"title", "description", "anyOf"})
_READ = (400, 401, 429, 500, 503)
_ACT = (400, 401, 403, 404, 409, 413, 415, 429, 500, 503)


@dataclass(frozen=True)
class Answer:
    """What a route answers with one status."""

    says: str
    shape: Any = None
    """The type of its JSON; None: it is text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that it adds, each with its meaning."""


@dataclass(frozen=True)
class Operation:
    """One route of the API."""

    method: str
    rule: str
    """As Flask has it."""
    view: View
    answers: Mapping[int, Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    """Headers that it reads, by their aliases."""

    @property
    def problems(self) -> tuple[int, ...]:
        """The statuses of the problems that it may answer."""
        if self.method == "POST":
            return _ACT
        return tuple(sorted({*_READ, 404})) if _PARAMETER.search(self.rule) or self.query else _READ


class Table:
    """The operations of a blueprint, in order."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self.operations: list[Operation] = []

    def route(self, method: str, rule: str, **told: Any) -> Callable[[View], View]:
        """Make a view a route of the blueprint and an operation of the table; `told` are Operation's fields."""

        def add(view: View) -> View:
            self.operations.append(Operation(method, rule, view, **told))
            self._blueprint.add_url_rule(rule, view_func=view, methods=[method])
            return view

        return add

    def document(self, *, prefix: str, version: str) -> Json:
        """The OpenAPI 3.1 document. `prefix` is where the blueprint is."""
        paths: dict[str, Json] = {}
        for one in self.operations:
            path = prefix + _PARAMETER.sub(r"{\1}", one.rule)
            paths.setdefault(path, {})[one.method.lower()] = _operation(one)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "brigade-argo-bridge",
                "version": version,
                "description": "Runs of durable pull-request pipelines. Examples: docs/api.md.",
            },
            "paths": paths,
            "components": {
                "schemas": _schemas(self.operations),
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A token that may `read`, or `act`, too. On one machine nobody needs any.",
                    }
                },
            },
        }


def _operation(one: Operation) -> Json:
    summary, _, more = (one.view.__doc__ or "").partition("\n\n")
    told: Json = {
        "operationId": one.view.__name__,
        "summary": _line(summary),
        "security": [{"bearer": ["act" if one.method == "POST" else "read"]}],
        "parameters": [
            *_in_path(one.rule),
            *_parameters("query", one.query),
            *_parameters("header", one.headers),
        ],
        "responses": {
            **{str(status): _answer(answer) for status, answer in one.answers.items()},
            **{str(status): _problem(status) for status in one.problems},
        },
    }
    if more:
        told["description"] = _line(more)
    if one.body is not None:
        told["requestBody"] = {"content": {"application/json": {"schema": _reference(one.body.__name__)}}}
    return told


def _in_path(rule: str) -> list[Json]:
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in _PARAMETER.findall(rule)]


def _parameters(place: str, model: type[BaseModel] | None) -> list[Json]:
    if model is None:
        return []
    found = model.model_json_schema()
    return [
        {
            "name": name,
            "in": place,
            "required": name in found.get("required", ()),
            "description": _line(schema.get("description", "")),
            "schema": _flat(schema, found.get("$defs", {})),
        }
        for name, schema in found["properties"].items()
    ]


def _flat(schema: Json, shapes: Json) -> Json:
    """A parameter has no null: what may be left out is left out."""
    kept = {key: value for key, value in schema.items() if key not in _TOLD_ELSEWHERE and value is not None}
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            kept |= choice
    if "$ref" in kept:
        kept |= _flat(shapes[kept.pop("$ref").rpartition("/")[2]], shapes)
    return kept


def _answer(answer: Answer) -> Json:
    told: Json = {"description": answer.says}
    if answer.shape is None:
        told["content"] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        told["content"] = {"application/json": {"schema": _reference(answer.shape.__name__)}}
    if answer.headers:
        told["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in answer.headers.items()
        }
    return told


def _problem(status: int) -> Json:
    content = {"application/problem+json": {"schema": _reference(Problem.__name__)}}
    return {"description": _PROBLEMS[status], "content": content}


def _schemas(operations: list[Operation]) -> Json:
    shapes: dict[str, Any] = {Problem.__name__: Problem}
    for one in operations:
        shapes |= {answer.shape.__name__: answer.shape for answer in one.answers.values() if answer.shape}
    _, found = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(shape)) for name, shape in shapes.items()],
        ref_template="#/components/schemas/{model}",
    )
    _, asked = models_json_schema(
        [(one.body, "validation") for one in operations if one.body is not None],
        ref_template="#/components/schemas/{model}",
    )
    return {**found.get("$defs", {}), **asked.get("$defs", {})}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _line(text: str) -> str:
    return " ".join(text.split())
