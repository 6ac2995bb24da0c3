"""The OpenAPI 3.1 document of a set of routes."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from asgihive.asgi.arguments import JSON, MSGPACK
from asgihive.asgi.call_plans import CallPlan, plan_route
from asgihive.asgi.forms import MULTIPART, URL_ENCODED
from asgihive.asgi.operation_options import (
    Requirement,
    ResponseDescription,
    SecuritySchemes,
    describe_responses,
    find_fastapi_schemes,
    list_requirements,
)
from asgihive.asgi.results import (
    BYTES,
    LINES,
    TEXT,
    ResultAnnotation,
    get_item_kind,
)
from asgihive.asgi.routes import PathParameter, Route, Segments, list_parameters, parse_template
from asgihive.asgi.shapes import MISSING, needs_pydantic
from asgihive.asgi.signatures import Argument, ArgumentSource

Schema = dict[str, Any]

_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
_FIELDS = (ArgumentSource.PATH, ArgumentSource.QUERY, ArgumentSource.HEADER, ArgumentSource.COOKIE)
_REFERENCE = "#/components/schemas/{name}"
_CONVERTORS: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
}
_TEXTS = ("description", "deprecated")
_NAMING = ("properties", "$defs")
"""The members of a schema whose keys are names of schemas."""
_FILE: Schema = {"type": "string", "contentMediaType": BYTES}
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
    routes: Iterable[tuple[str, Route]],
    *,
    title: str,
    version: str,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
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
            plan = plan_route(route, segments)
            # The same parameter of a handler and its guard is one parameter of the request.
            arguments = {(each.source, each.key): each for each in plan.arguments}
            results = plan.results
            operation = _Operation(
                route,
                segments,
                tuple(arguments.values()),
                ResultAnnotation(MISSING) if results is None else results.annotation,
                describe_responses(route.options.responses),
                _list_requirements(route, plan),
            )
            operations.append(operation)
    schemas = _Schemas(
        [
            argument.annotation
            for each in operations
            for argument in each.arguments
            if argument.source not in {ArgumentSource.DEPENDENCY, ArgumentSource.INJECTED}
        ],
        [
            annotation
            for each in operations
            for annotation in (each.written, *(other.model for other in each.others))
        ],
    )
    security = SecuritySchemes()
    identifiers: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    used_tags: dict[str, None] = dict.fromkeys(tags or ())
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
                entry = item[method.lower()] = _describe_operation(each, schemas, identifier)
                if each.requirements:
                    entry["security"] = security.describe(each.requirements)
                used_tags.update(dict.fromkeys(each.route.options.tags))
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": info,
        "paths": {path: item for path, item in paths.items() if item},
        "components": {"schemas": {**schemas.components, _INVALID: _INVALID_SCHEMA}},
    }
    if security.components:
        document["components"]["securitySchemes"] = security.components
    if used_tags:
        described = tags or {}
        document["tags"] = [
            {"name": tag, "description": described[tag]} if tag in described else {"name": tag}
            for tag in used_tags
        ]
    return document


def _list_requirements(route: Route, plan: CallPlan) -> tuple[Requirement, ...]:
    """Return the security of an operation, also that of FastAPI's objects that guard it."""
    said = list_requirements(route.options.security)
    known = {scheme.name for requirement in said for scheme in requirement}
    found = find_fastapi_schemes(step.signature.function for step in plan.steps)
    others = tuple(each for each in found if each.name not in known)
    if not others:
        return said
    return tuple((*each, *others) for each in said) or (others,)


@dataclass(frozen=True, slots=True)
class _Operation:
    """One route as OpenAPI sees it."""

    route: Route
    segments: Segments
    arguments: tuple[Argument, ...]
    result: ResultAnnotation
    others: tuple[ResponseDescription, ...]
    """The responses that the decorator says."""

    requirements: tuple[Requirement, ...]

    @property
    def written(self) -> Any:
        """The annotation in the response that needs a schema."""
        return self.result.item if self.result.plain is MISSING else self.result.plain


def _choose_identifier(operation: _Operation, method: str, taken: set[str]) -> str:
    """Return an `operationId` that no other operation has: its route's name, if it is free."""
    name = operation.route.options.operation_id or operation.route.name
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
    if form := [each for each in operation.arguments if each.source is ArgumentSource.FORM]:
        entry["requestBody"] = _describe_form(form, schemas)
    entry["responses"] = _describe_responses(operation, schemas)
    return entry


def _describe_form(fields: Iterable[Argument], schemas: "_Schemas") -> dict[str, Any]:
    properties, required, media_types = {}, [], [MULTIPART]
    for each in fields:
        schema = _FILE if each.is_file else schemas.find(each.annotation)
        if each.is_file and each.many:
            schema = {"type": "array", "items": _FILE}
        properties[each.key] = schema if each.is_file else _add_default(schema, each)
        if each.required:
            required.append(each.key)
    if not any(each.is_file for each in fields):
        media_types.append(URL_ENCODED)
    form: Schema = {"type": "object", "properties": properties}
    if required:
        form["required"] = required
    content = {each: {"schema": form} for each in media_types}
    return {"required": bool(required), "content": content}


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
            schema = _add_default(schemas.find(each.annotation), each)
            # Where pages look for them.
            entry.update({name: schema[name] for name in _TEXTS if name in schema})
            yield {**entry, "schema": schema}


def _add_default(schema: Schema, argument: Argument) -> Schema:
    if argument.required:
        return schema
    try:
        default = msgspec.to_builtins(argument.default, str_keys=True)
    except TypeError:  # an object of some class, which JSON cannot say
        default = None
    # None is what leaving it out means as well.
    is_said = default is not None and _is_sayable(default)
    return {**schema, "default": default} if is_said else schema


def _describe_responses(operation: _Operation, schemas: "_Schemas") -> dict[str, Any]:
    options = operation.route.options
    if operation.route.handler is None:
        responses: dict[str, Any] = {"default": {"description": "As the application answers"}}
    elif operation.written is None and options.status == 200:
        responses = {"204": {"description": "No content"}}
    else:
        success: dict[str, Any] = {"description": "Success"}
        if content := _describe_content(operation, schemas):
            success["content"] = content
        responses = {str(options.status): success}
    read = {*_FIELDS, ArgumentSource.BODY, ArgumentSource.FORM}
    if any(each.source in read for each in operation.arguments):
        schema = {"$ref": _REFERENCE.format(name=_INVALID)}
        responses["422"] = {
            "description": "What is wrong with the request, and where",
            "content": {JSON: {"schema": schema}},
        }
    for each in operation.others:
        known = responses.get(each.status, {}) if each.model is MISSING else {}
        responses[each.status] = {**known, **each.members}
        if each.model is not MISSING:
            schema = schemas.find(each.model, written=True)
            own = each.members.get("content", {})
            responses[each.status]["content"] = {JSON: {"schema": schema}, **own}
    return responses


def _describe_content(operation: _Operation, schemas: "_Schemas") -> dict[str, Any]:
    """Return what a return annotation says about the body."""
    result, media_type = operation.result, operation.route.options.media_type
    written = operation.written
    text = TEXT.partition(";")[0]
    if result.plain is MISSING and result.item is not MISSING:
        item = get_item_kind(written)
        default = text if item is str else BYTES if item is bytes else LINES
        schema = schemas.find(written, written=True)
        return {media_type or default: {"schema": schema if default == LINES else {}}}
    if "array" in result.sent_as_is:
        from asgihive.encoders import map_media_types  # noqa: PLC0415  # imports NumPy

        return {each: {"schema": {}} for each in map_media_types()}
    if result.says_nothing or written is None:
        return {}
    if written is str:
        return {media_type or text: {"schema": {"type": "string"}}}
    if written is bytes:
        return {media_type or BYTES: {"schema": {}}}
    schema = schemas.find(written, written=True)
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
        models = [pair for pair in self._kept if needs_pydantic(pair[0])]
        own = [pair for pair in self._kept if not needs_pydantic(pair[0]) and _has_schema(pair[0])]
        for (annotation, is_written), schema in zip(own, self._describe_own(own), strict=True):
            self._schemas[id(annotation), is_written] = schema
        for annotation, is_written in models:
            self._schemas[id(annotation), is_written] = self._describe_model(annotation, is_written)

    def find(self, annotation: Any, *, written: bool = False) -> Schema:
        """Return the schema of one of the annotations; `{}`, anything, if it has none."""
        return dict(self._schemas.get((id(annotation), written), {}))

    def _describe_own(self, own: list[tuple[Any, bool]]) -> list[Schema]:
        annotations = [annotation for annotation, _ in own]
        try:
            schemas, self.components = _make_schemas(annotations, _REFERENCE)
        except KeyError:  # classes with the same name of the same module, as a function makes them
            return [self._add(partial(_make_own_schema, each)) for each in annotations]
        return list(schemas)

    def _describe_model(self, annotation: Any, is_written: bool) -> Schema:
        pydantic = sys.modules["pydantic"]
        mode = "serialization" if is_written else "validation"
        # Alone a model would be described in its place, in a list it is one of the definitions,
        # by whose name programs know it.
        is_named = isinstance(annotation, type)
        try:
            adapter = pydantic.TypeAdapter(list[annotation] if is_named else annotation)
        except pydantic.errors.PydanticUserError:  # as for a union with a `Struct`
            return {}

        def make_schema(template: str) -> tuple[Schema, dict[str, Schema]]:
            named = template.replace("{name}", "{model}")
            schema: Schema = _keep_sayable(adapter.json_schema(ref_template=named, mode=mode))
            definitions = schema.pop("$defs", {})
            return (dict(schema["items"]) if is_named else schema), definitions

        return self._add(make_schema)

    def _add(self, make_schema: Callable[[str], tuple[Schema, dict[str, Schema]]]) -> Schema:
        """Return a schema, made for a template of references, and keep its definitions."""
        suffix = ""
        while True:
            schema, found = make_schema(_REFERENCE + suffix)
            definitions = {name + suffix: each for name, each in found.items()}
            if all(self.components.get(name, each) == each for name, each in definitions.items()):
                self.components.update(definitions)
                return schema
            # Another type has that name, or the same one that is written differently than read.
            suffix = f"-{int(suffix[1:] or 1) + 1}"


def _make_schemas(annotations: list[Any], template: str) -> tuple[Any, dict[str, Schema]]:
    schemas, components = msgspec.json.schema_components(
        annotations, schema_hook=_accept_anything, ref_template=template
    )
    return [_keep_sayable(each) for each in schemas], _keep_sayable(components, are_names=True)


def _keep_sayable(schema: Any, *, are_names: bool = False) -> Any:
    """Return a schema without the defaults that JSON cannot say, as infinity.

    Args:
        are_names: whether the keys are names of schemas, `default` among them.
    """
    if isinstance(schema, list | tuple):
        return [_keep_sayable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _keep_sayable(each, are_names=key in _NAMING and not are_names)
        for key, each in schema.items()
        if are_names or key != "default" or _is_sayable(each)
    }


def _is_sayable(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    except TypeError:  # as of a date, which `msgspec` encodes
        return True
    return True


def _make_own_schema(annotation: Any, template: str) -> tuple[Schema, dict[str, Schema]]:
    (schema,), definitions = _make_schemas([annotation], template)
    return schema, definitions


def _accept_anything(kind: type) -> Schema:  # noqa: ARG001  # the signature of a schema hook
    return {}


def _has_schema(annotation: Any) -> bool:
    if annotation is MISSING:
        return False
    try:
        _make_schemas([annotation], _REFERENCE)
    except (TypeError, NameError):
        # As a union of a response and a structure, which a handler may well return.
        return False
    return True
