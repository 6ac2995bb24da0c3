"""The OpenAPI 3.1 document of a set of routes; pure."""

import inspect
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from asgihive.asgi.bodies import JSON, MSGPACK
from asgihive.asgi.handlers import plan_of
from asgihive.asgi.paths import Parameter, Segments, parameters_of, parse_template
from asgihive.asgi.routes import Route
from asgihive.asgi.schemas import Schema, Schemas
from asgihive.asgi.signature import MISSING, Argument, Source
from asgihive.asgi.streams import BYTES, LINES, TEXT, annotated_kind, item_annotation
from asgihive.encoders import media_types

_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
_FIELDS = (Source.PATH, Source.QUERY, Source.HEADER, Source.COOKIE)
_CONVERTORS: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
}
_INVALID = "asgihive.InvalidRequest"
_INVALID_SCHEMA: Schema = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string", "description": "What is wrong, for people."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "message"],
                "properties": {
                    "where": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """One route as OpenAPI sees it."""

    path: str
    route: Route
    segments: Segments
    arguments: tuple[Argument, ...]
    result: Any
    """The return annotation."""

    @property
    def body(self) -> Argument | None:
        return next((each for each in self.arguments if each.source is Source.BODY), None)


def make_openapi_document(
    routes: Iterable[tuple[str, Route]],
    *,
    title: str,
    version: str,
    description: str | None = None,
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of routes, each with its whole path template.

    Routes of other kinds and methods than OpenAPI has, and those that are not to be
    included, are left out; of two that differ in their path's convertors alone, the second.
    Of bare ASGI applications nothing is known but path and method.
    """
    operations = [_operation(path, route) for path, route in routes if _is_documented(route)]
    schemas = Schemas(
        [argument.annotation for each in operations for argument in each.arguments],
        [item for each in operations for item in _written(each)],
    )
    identifiers = _Identifiers()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for each in operations:
        item = paths.setdefault(_openapi_path(each.segments), {})
        for method in _METHODS:
            if method not in each.route.methods or method.lower() in item:
                continue
            identifier = identifiers.of(each, method)
            item[method.lower()] = _operation_object(each, schemas, identifier)
            tags.update(dict.fromkeys(each.route.tags))
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": info,
        "paths": {path: item for path, item in paths.items() if item},
        "components": {"schemas": {**schemas.components, _INVALID: _INVALID_SCHEMA}},
    }
    if tags:
        document["tags"] = [{"name": tag} for tag in tags]
    return document


def _is_documented(route: Route) -> bool:
    return route.kind == "http" and route.include_in_schema


def _operation(path: str, route: Route) -> _Operation:
    segments = parse_template(path or "/")
    plan = plan_of(route.kind, segments, route.endpoint)
    # The same parameter of a handler and its guard is one parameter of the request.
    arguments = {(each.source, each.key): each for each in plan.arguments}
    result = MISSING if plan.handler is None else plan.handler.signature.result
    return _Operation(path, route, segments, tuple(arguments.values()), result)


def _openapi_path(segments: Segments) -> str:
    return "/" + "/".join(
        f"{{{each.name}}}" if isinstance(each, Parameter) else each for each in segments
    )


class _Identifiers:
    """Gives each operation an `operationId` that no other has: its route's name, if free."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, operation: _Operation, method: str) -> str:
        words = [operation.route.name, method.lower()]
        words += [each.name if isinstance(each, Parameter) else each for each in operation.segments]
        candidates = [words[0], "_".join(filter(None, words))]
        identifier = next((each for each in candidates if each not in self._taken), None)
        number = 2
        while identifier is None or identifier in self._taken:
            identifier = f"{candidates[-1]}_{number}"
            number += 1
        self._taken.add(identifier)
        return identifier


def _operation_object(operation: _Operation, schemas: Schemas, identifier: str) -> dict[str, Any]:
    route = operation.route
    options = route.endpoint.options
    described = options.description or (route.handler and inspect.getdoc(route.handler))
    entry: dict[str, Any] = {
        "operationId": identifier,
        "summary": options.summary or route.name.replace("_", " ").strip().capitalize(),
    }
    if described:
        entry["description"] = described
    if route.tags:
        entry["tags"] = list(route.tags)
    if options.deprecated:
        entry["deprecated"] = True
    if parameters := list(_parameters(operation, schemas)):
        entry["parameters"] = parameters
    if operation.body is not None:
        entry["requestBody"] = _request_body(operation.body, schemas)
    entry["responses"] = _responses(operation, schemas)
    return entry


def _parameters(operation: _Operation, schemas: Schemas) -> Iterator[dict[str, Any]]:
    arguments = [each for each in operation.arguments if each.source in _FIELDS]
    bound = {each.key: each for each in arguments if each.source is Source.PATH}
    for parameter in parameters_of(operation.segments):
        argument = bound.get(parameter.name)
        schema = _CONVERTORS.get(parameter.convertor, {"type": "string"})
        if argument is not None and argument.annotation is not MISSING:
            schema = schemas.of(argument.annotation)
        yield {"name": parameter.name, "in": "path", "required": True, "schema": schema}
    for each in arguments:
        if each.source is Source.PATH:
            continue
        entry: dict[str, Any] = {"name": each.key, "in": each.source.value}
        if each.required:
            entry["required"] = True
        entry["schema"] = _with_default(schemas.of(each.annotation), each)
        yield entry


def _with_default(schema: Schema, argument: Argument) -> Schema:
    if argument.required:
        return schema
    try:
        default = msgspec.json.decode(msgspec.json.encode(argument.default))
    except TypeError:  # an object of some class, which nothing of JSON says
        default = None
    # Neither None, which is what leaving it out means, nor what JSON has null for, as infinity.
    return schema if default is None else {**schema, "default": default}


def _request_body(argument: Argument, schemas: Schemas) -> dict[str, Any]:
    if argument.annotation is bytes:
        content: dict[str, Any] = {BYTES: {"schema": {}}}
    else:
        schema = _with_default(schemas.of(argument.annotation), argument)
        content = {JSON: {"schema": schema}, MSGPACK: {"schema": schema}}
    return {"required": argument.required, "content": content}


def _responses(operation: _Operation, schemas: Schemas) -> dict[str, Any]:
    options = operation.route.endpoint.options
    if operation.route.handler is None:
        responses: dict[str, Any] = {"default": {"description": "As the application answers"}}
    elif operation.result is None and options.status == 200:
        responses = {"204": {"description": "No content"}}
    else:
        success: dict[str, Any] = {"description": "Success"}
        if content := _content(operation, schemas):
            success["content"] = content
        responses = {str(options.status): success}
    if any(each.source in {*_FIELDS, Source.BODY} for each in operation.arguments):
        schema = {"$ref": f"#/components/schemas/{_INVALID}"}
        responses["422"] = {
            "description": "What is wrong with the request, and where",
            "content": {JSON: {"schema": schema}},
        }
    return responses


def _content(operation: _Operation, schemas: Schemas) -> dict[str, Any]:
    """What a return annotation says about the body; nothing of responses made by hand."""
    result, media_type = operation.result, operation.route.endpoint.options.media_type
    kind = typing.get_origin(result) or result
    if _says_nothing(result) or _is_response(kind):
        return {}
    if kind is str:
        return {media_type or TEXT.partition(";")[0]: {"schema": {"type": "string"}}}
    if kind is bytes:
        return {media_type or BYTES: {"schema": {}}}
    if isinstance(kind, type) and issubclass(kind, (np.ndarray, np.generic)):
        return {each: {"schema": {}} for each in media_types()}
    if item_annotation(result) is not None:
        item = annotated_kind(result)
        default = TEXT.partition(";")[0] if item is str else BYTES if item is bytes else LINES
        schema = schemas.of(item_annotation(result), written=True) if default == LINES else {}
        return {media_type or default: {"schema": schema}}
    schema = schemas.of(result, written=True)
    accepted = (media_type,) if media_type else (JSON, MSGPACK)
    return {each: {"schema": schema} for each in accepted}


def _written(operation: _Operation) -> Iterator[Any]:
    """The annotations of what an operation returns that need a schema."""
    kind = typing.get_origin(operation.result) or operation.result
    if _says_nothing(operation.result) or _is_response(kind):
        return
    item = item_annotation(operation.result)
    yield operation.result if item is None else item


def _says_nothing(annotation: Any) -> bool:
    return annotation is MISSING or annotation is Any or annotation is None


def _is_response(kind: Any) -> bool:
    """Whether values of a type are called: responses, and any ASGI application."""
    return isinstance(kind, type) and any("__call__" in base.__dict__ for base in kind.__mro__)
