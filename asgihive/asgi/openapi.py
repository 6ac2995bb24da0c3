"""The OpenAPI 3.1 document of a set of routes; pure."""

import inspect
import sys
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from asgihive.asgi.arguments import JSON, MSGPACK
from asgihive.asgi.handlers import plan_calls
from asgihive.asgi.parameters import MISSING, Argument, ArgumentSource, has_model
from asgihive.asgi.results import (
    BYTES,
    LINES,
    TEXT,
    get_item_annotation,
    get_item_kind,
    is_array_type,
)
from asgihive.asgi.routes import PathParameter, Route, Segments, list_parameters, parse_template

Schema = dict[str, Any]

_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
_FIELDS = (ArgumentSource.PATH, ArgumentSource.QUERY, ArgumentSource.HEADER, ArgumentSource.COOKIE)
_REFERENCE = "#/components/schemas/{name}"
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


def make_openapi_document(
    routes: Iterable[tuple[str, Route]], *, title: str, version: str, description: str | None = None
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of routes, each with its whole path template.

    Routes of other kinds and methods than OpenAPI has, and those that are not to be
    included, are left out; of two that differ in their path's convertors alone, the second.
    Of a bare ASGI application the document has only path and method.
    """
    operations = []
    for path, route in routes:
        if route.kind == "http" and route.options.include_in_schema:
            segments = parse_template(path or "/")
            plan = plan_calls(route, segments)
            # The same parameter of a handler and its guard is one parameter of the request.
            arguments = {(each.source, each.key): each for each in plan.arguments}
            result = MISSING if plan.handler is None else plan.handler.signature.result
            operations.append(_Operation(route, segments, tuple(arguments.values()), result))
    schemas = _Schemas(
        [argument.annotation for each in operations for argument in each.arguments],
        [each.written for each in operations],
    )
    identifiers: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for each in operations:
        names = [
            f"{{{part.name}}}" if isinstance(part, PathParameter) else part
            for part in each.segments
        ]
        item = paths.setdefault("/" + "/".join(names), {})
        for method in _METHODS:
            if method in each.route.methods and method.lower() not in item:
                identifier = _choose_identifier(each, method, identifiers)
                identifiers.add(identifier)
                item[method.lower()] = _describe_operation(each, schemas, identifier)
                tags.update(dict.fromkeys(each.route.options.tags))
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


@dataclass(frozen=True, slots=True)
class _Operation:
    """One route as OpenAPI sees it."""

    route: Route
    segments: Segments
    arguments: tuple[Argument, ...]
    result: Any
    """The return annotation."""

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is known of the response: it is also made by hand."""
        kind = typing.get_origin(self.result) or self.result
        # Objects that can be called are responses, or any ASGI application.
        is_response = isinstance(kind, type) and any(
            "__call__" in base.__dict__ for base in kind.__mro__
        )
        return is_response or any(self.result is each for each in (MISSING, Any, None))

    @property
    def written(self) -> Any:
        """The annotation in the response that needs a schema."""
        if self.says_nothing:
            return MISSING
        item = get_item_annotation(self.result)
        return self.result if item is None else item


def _choose_identifier(operation: _Operation, method: str, taken: set[str]) -> str:
    """Return an `operationId` that no other operation has: its route's name, if it is free."""
    name = operation.route.name
    if name not in taken:
        return name
    words = [name, method.lower()]
    words += [each.name if isinstance(each, PathParameter) else each for each in operation.segments]
    longer = identifier = "_".join(filter(None, words))
    number = 2
    while identifier in taken:
        identifier = f"{longer}_{number}"
        number += 1
    return identifier


def _describe_operation(
    operation: _Operation, schemas: "_Schemas", identifier: str
) -> dict[str, Any]:
    route, options = operation.route, operation.route.options
    entry: dict[str, Any] = {
        "operationId": identifier,
        "summary": options.summary or route.name.replace("_", " ").strip().capitalize(),
    }
    if described := options.description or (route.handler and inspect.getdoc(route.handler)):
        entry["description"] = described
    if options.tags:
        entry["tags"] = list(options.tags)
    if options.deprecated:
        entry["deprecated"] = True
    if parameters := list(_describe_parameters(operation, schemas)):
        entry["parameters"] = parameters
    for each in operation.arguments:
        if each.source is ArgumentSource.BODY:
            content: dict[str, Any] = {BYTES: {"schema": {}}}
            if each.annotation is not bytes:
                schema = _add_default(schemas.find(each.annotation), each)
                content = {JSON: {"schema": schema}, MSGPACK: {"schema": schema}}
            entry["requestBody"] = {"required": each.required, "content": content}
    entry["responses"] = _describe_responses(operation, schemas)
    return entry


def _describe_parameters(operation: _Operation, schemas: "_Schemas") -> Iterator[dict[str, Any]]:
    arguments = [each for each in operation.arguments if each.source in _FIELDS]
    bound = {each.key: each for each in arguments if each.source is ArgumentSource.PATH}
    for parameter in list_parameters(operation.segments):
        argument = bound.get(parameter.name)
        schema = _CONVERTORS.get(parameter.convertor, {"type": "string"})
        if argument is not None and argument.annotation is not MISSING:
            schema = schemas.find(argument.annotation)
        yield {"name": parameter.name, "in": "path", "required": True, "schema": schema}
    for each in arguments:
        if each.source is not ArgumentSource.PATH:
            entry: dict[str, Any] = {"name": each.key, "in": each.source.value}
            if each.required:
                entry["required"] = True
            entry["schema"] = _add_default(schemas.find(each.annotation), each)
            yield entry


def _add_default(schema: Schema, argument: Argument) -> Schema:
    if argument.required:
        return schema
    try:
        default = msgspec.json.decode(msgspec.json.encode(argument.default))
    except TypeError:  # an object of some class, which JSON cannot say
        default = None
    # Neither None, which leaving it out means as well, nor what JSON has null for, as infinity.
    return schema if default is None else {**schema, "default": default}


def _describe_responses(operation: _Operation, schemas: "_Schemas") -> dict[str, Any]:
    options = operation.route.options
    if operation.route.handler is None:
        responses: dict[str, Any] = {"default": {"description": "As the application answers"}}
    elif operation.result is None and options.status == 200:
        responses = {"204": {"description": "No content"}}
    else:
        success: dict[str, Any] = {"description": "Success"}
        if content := _describe_content(operation, schemas):
            success["content"] = content
        responses = {str(options.status): success}
    if any(each.source in {*_FIELDS, ArgumentSource.BODY} for each in operation.arguments):
        schema = {"$ref": _REFERENCE.format(name=_INVALID)}
        responses["422"] = {
            "description": "What is wrong with the request, and where",
            "content": {JSON: {"schema": schema}},
        }
    return responses


def _describe_content(operation: _Operation, schemas: "_Schemas") -> dict[str, Any]:
    """Return what a return annotation says about the body."""
    result, media_type = operation.result, operation.route.options.media_type
    kind = typing.get_origin(result) or result
    if operation.says_nothing:
        return {}
    text = TEXT.partition(";")[0]
    if kind is str:
        return {media_type or text: {"schema": {"type": "string"}}}
    if kind is bytes:
        return {media_type or BYTES: {"schema": {}}}
    if is_array_type(kind):
        from asgihive.encoders import map_media_types  # noqa: PLC0415  # imports NumPy

        return {each: {"schema": {}} for each in map_media_types()}
    schema = schemas.find(operation.written, written=True)
    if get_item_annotation(result) is not None:
        item = get_item_kind(result)
        default = text if item is str else BYTES if item is bytes else LINES
        return {media_type or default: {"schema": schema if default == LINES else {}}}
    return {each: {"schema": schema} for each in ((media_type,) if media_type else (JSON, MSGPACK))}


class _Schemas:
    """The JSON schemas (2020-12, as OpenAPI 3.1 has them) of a set of annotations.

    `msgspec` makes those of its types, `pydantic` those that hold its models; a type that
    neither knows accepts anything.

    Args:
        read: annotations of what is read from requests.
        written: annotations of what handlers return.
    """

    def __init__(self, read: Iterable[Any], written: Iterable[Any]) -> None:
        self.components: dict[str, Schema] = {}
        # By identity, since annotations need not be hashable; `_kept` keeps the identities.
        self._schemas: dict[tuple[int, bool], Schema] = {}
        self._kept = [*((each, False) for each in read), *((each, True) for each in written)]
        models = [pair for pair in self._kept if has_model(pair[0])]
        own = [pair for pair in self._kept if not has_model(pair[0]) and _has_schema(pair[0])]
        schemas, self.components = msgspec.json.schema_components(
            [annotation for annotation, _ in own],
            schema_hook=_accept_anything,
            ref_template=_REFERENCE,
        )
        for (annotation, is_written), schema in zip(own, schemas, strict=True):
            self._schemas[id(annotation), is_written] = schema
        for annotation, is_written in models:
            self._schemas[id(annotation), is_written] = self._describe_model(annotation, is_written)

    def find(self, annotation: Any, *, written: bool = False) -> Schema:
        """Return the schema of one of the annotations; `{}`, anything, if it has none."""
        return dict(self._schemas.get((id(annotation), written), {}))

    def _describe_model(self, annotation: Any, is_written: bool) -> Schema:
        adapter = sys.modules["pydantic"].TypeAdapter(annotation)
        mode = "serialization" if is_written else "validation"
        template, suffix = _REFERENCE.replace("{name}", "{model}"), ""
        while True:
            schema: Schema = adapter.json_schema(ref_template=template + suffix, mode=mode)
            definitions = {name + suffix: each for name, each in schema.pop("$defs", {}).items()}
            if all(self.components.get(name, each) == each for name, each in definitions.items()):
                self.components.update(definitions)
                return schema
            # Another type has that name, or the same one that is written differently than read.
            suffix = f"-{int(suffix[1:] or 1) + 1}"


def _accept_anything(kind: type) -> Schema:  # noqa: ARG001  # the signature of a schema hook
    return {}


def _has_schema(annotation: Any) -> bool:
    if annotation is MISSING:
        return False
    try:
        msgspec.json.schema_components([annotation], schema_hook=_accept_anything)
    except (TypeError, NameError):
        # As a union of a response and a structure, which a handler may well return.
        return False
    return True
