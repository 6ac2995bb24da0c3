"""What a handler's parameters are read from: its signature, taken apart once, at registration."""

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import msgspec
from starlette.background import BackgroundTasks
from starlette.datastructures import UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from asgihive.asgi.forms import load_parser
from asgihive.asgi.markers import (
    MARKERS,
    Body,
    Cookie,
    Dependency,
    Depends,
    Form,
    Header,
    Query,
    describe_foreign_marker,
)
from asgihive.asgi.metadata import (
    ACCEPTED,
    FieldFacts,
    MetadataRefused,
    check_body,
    check_metadata,
    find_field,
    translate_annotation,
)
from asgihive.asgi.shapes import (
    MISSING,
    Shape,
    can_be_captured,
    find_shape,
    fits_annotation,
    is_model,
    is_structure,
    is_union,
    list_hints,
    resolve_alias,
)
from asgihive.asgi.signatures import (
    Argument,
    ArgumentSource,
    FieldsOf,
    Flavour,
    HandlerError,
    Signature,
    find_flavour,
)

_FIELD_MARKERS = (Query, Header, Cookie, Form)
_NAMED_SOURCES = (
    ArgumentSource.QUERY,
    ArgumentSource.HEADER,
    ArgumentSource.COOKIE,
    ArgumentSource.FORM,
)
_INJECTED = (Request, WebSocket, HTTPConnection, BackgroundTasks, Response)
_OF_HTTP = (Request, BackgroundTasks, Response)
_ACCEPTED = (
    "accepted are path, query, header and cookie parameters of scalar types or lists of them, "
    "one structured parameter or Annotated[T, Body()] as the body, fields of a form with Form() "
    "and UploadFile, Depends(f), Request, WebSocket, HTTPConnection, BackgroundTasks and Response"
)


def analyse_function(
    function: Callable[..., Any],
    convertors: Mapping[str, str],
    *,
    websocket: bool,
    takes_body: bool = True,
) -> Signature:
    """Return the signature of a handler or a dependency.

    Args:
        convertors: of the path parameters, by name.
        websocket: whether it is called for a websocket's handshake, which has no body.
        takes_body: whether a structure without a marker may be the request's body.

    Raises:
        HandlerError: a parameter that no request can give.
    """
    kind, marker = function, None
    if isinstance(function, FieldsOf):
        kind, marker = function.kind, function.marker
    reader = _ParameterReader(kind, convertors, websocket, takes_body, marker)
    if is_model(kind):
        model: Any = kind
        if any(each.__module__.startswith("pydantic_settings") for each in model.__mro__):
            reason = "clients would set the settings: depend on a function that returns them"
            raise HandlerError(kind, None, reason)
        fields = tuple(reader.read_model_field(*each) for each in model.model_fields.items())
        return Signature(function, Flavour.STRUCTURE, fields, kind)
    try:
        signature = inspect.signature(kind, eval_str=True)
    except NameError as error:
        reason = f"{error}: annotations must be importable at run time, not for type checkers only"
        raise HandlerError(kind, None, reason) from error
    except (TypeError, ValueError) as error:
        raise HandlerError(kind, None, f"it has no signature ({error})") from error
    parameters = signature.parameters.values()
    if is_structure(kind):
        names = _list_encoded_names(kind)
        fields = tuple(reader.read_field(each, names.get(each.name)) for each in parameters)
        _refuse_doubled(kind, fields)
        return Signature(function, Flavour.STRUCTURE, fields, kind)
    arguments = tuple(map(reader.read, parameters))
    _refuse_doubled(kind, arguments)
    result = resolve_alias(signature.return_annotation)
    return Signature(function, find_flavour(function), arguments, result)


def _refuse_doubled(function: Callable[..., Any], arguments: Iterable[Argument]) -> None:
    """Refuse two parameters of one function that read the same field of the request."""
    seen: dict[tuple[ArgumentSource, str], str] = {}
    for each in arguments:
        if each.source in _NAMED_SOURCES:
            other = seen.setdefault((each.source, each.key), each.name)
            if other != each.name:
                field = f"the {each.source.value} parameter {each.key!r}"
                reason = f"it reads {field}, as {other!r} does: give one of them another name"
                raise HandlerError(function, each.name, reason)


def _list_encoded_names(kind: Any) -> dict[str, str]:
    """Return the names that a `Struct` has for its fields in JSON."""
    if not issubclass(kind, msgspec.Struct):
        return {}
    return {each.name: each.encode_name for each in msgspec.structs.fields(kind)}


@dataclass(frozen=True, slots=True)
class _ParameterReader:
    """Finds out where each parameter of one function comes from; raises `HandlerError`."""

    function: Callable[..., Any]
    convertors: Mapping[str, str]
    websocket: bool
    takes_body: bool
    marker: Query | Header | Cookie | Form | None
    """Of the parameters that have none themselves."""

    def read(self, parameter: inspect.Parameter) -> Argument:
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise self._refuse(str(parameter), f"its name says nothing; {_ACCEPTED}")
        kind, markers, metadata = self._split_annotation(parameter)
        marker, default = self._find_marker(parameter, markers)
        try:
            field = find_field((*metadata, default))
            if field is not None and find_field((default,)) is not None:
                metadata = (*metadata, default)
                default = MISSING
            annotation = Annotated[(kind, *metadata)] if metadata else kind
            if isinstance(marker, Dependency):
                check_metadata(annotation)
            elif annotation is not MISSING:
                annotation = translate_annotation(annotation)
        except MetadataRefused as refused:
            raise self._refuse(name, str(refused)) from refused
        self._check_default(name, default, annotation)
        if field is not None:
            marker = self._name_marker(name, marker, field)
        argument = self._place(name, annotation, marker)
        argument = self._add_default(argument, default, field)
        return replace(argument, keyword_only=parameter.kind is parameter.KEYWORD_ONLY)

    def read_field(self, parameter: inspect.Parameter, encoded_name: str | None) -> Argument:
        """Read a parameter of a `Struct` or dataclass, whose defaults may be factories."""
        has_default = parameter.default is not MISSING
        is_factory = has_default and repr(parameter.default) == "<factory>"
        argument = self.read(parameter.replace(default=None) if is_factory else parameter)
        key = argument.key
        is_natural = key in {argument.name, argument.name.replace("_", "-").lower()}
        if encoded_name not in {None, argument.name} and argument.source in _NAMED_SOURCES:
            key = str(encoded_name) if is_natural else key
        return replace(argument, key=key, is_left_out=has_default, keyword_only=True)

    def read_model_field(self, name: str, field: Any) -> Argument:
        """Read a field of a model of `pydantic`, which converts the text itself."""
        # As it was written: `pydantic` merges what it takes for fields of its own.
        hint = list_hints(self.function).get(name, field.annotation)
        written = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint)
        _, markers, _ = self._split_annotation(written)
        parameter = written.replace(annotation=Annotated[(field.annotation, *markers, field)])
        argument = self.read(parameter)
        if argument.source in {ArgumentSource.DEPENDENCY, ArgumentSource.INJECTED}:
            return argument
        alias = field.validation_alias or field.alias or name
        return replace(argument, name=alias, is_left_out=True, is_raw=True)

    def _split_annotation(
        self, parameter: inspect.Parameter
    ) -> tuple[Any, list[Any], tuple[Any, ...]]:
        """Return the type, our markers, and what else is said of it."""
        name, annotation = parameter.name, resolve_alias(parameter.annotation)
        markers: list[Any] = []
        others: tuple[Any, ...] = ()
        while typing.get_origin(annotation) is Annotated:
            annotation, *metadata = typing.get_args(annotation)
            annotation = resolve_alias(annotation)
            metadata = _drop_doubled(metadata)
            for each in metadata:
                if each is Depends or (isinstance(each, type) and issubclass(each, MARKERS)):
                    raise self._refuse(name, f"call the marker: {each.__name__}(…)")
                if (foreign := describe_foreign_marker(each)) is not None:
                    raise self._refuse(name, foreign)
            markers += [each for each in metadata if isinstance(each, MARKERS)]
            own = tuple(each for each in metadata if not isinstance(each, MARKERS))
            others = (*own, *others)
        return annotation, markers, others

    def _find_marker(self, parameter: inspect.Parameter, markers: list[Any]) -> tuple[Any, Any]:
        """Return the marker, or None, and the default that is left."""
        name, default = parameter.name, parameter.default
        if isinstance(default, Dependency):
            markers.append(default)
            default = MISSING
        elif isinstance(default, MARKERS):
            raise self._refuse(name, f"write Annotated[…, {default!r}]; a default is a plain value")
        elif (foreign := describe_foreign_marker(default)) is not None:
            raise self._refuse(name, foreign)
        if len(markers) > 1:
            raise self._refuse(name, f"only one of {markers} is accepted")
        return (markers[0] if markers else self.marker), default

    def _name_marker(self, name: str, marker: Any, field: FieldFacts) -> Any:
        """Return the marker with the alias that a `pydantic.Field` says."""
        alias = field.alias
        if alias is None or isinstance(marker, (Body, Dependency)):
            return marker
        if marker is None and name in self.convertors:
            raise self._refuse(name, f"the path names it, and not the alias {alias!r}")
        if marker is not None and marker.name not in {None, alias}:
            raise self._refuse(name, f"it has two names, {marker.name!r} and {alias!r}")
        return type(marker or Query())(alias)

    def _check_default(self, name: str, default: Any, annotation: Any) -> None:
        if default is MISSING or fits_annotation(default, annotation):
            return
        what = "plain value" if annotation in {MISSING, Any} else f"value of {annotation!r}"
        text = repr(default)
        text = text if len(text) <= 100 else f"{text[:99]}…"
        raise self._refuse(name, f"the default {text} is no {what}; {ACCEPTED}")

    def _add_default(self, argument: Argument, default: Any, field: FieldFacts | None) -> Argument:
        if argument.source in {ArgumentSource.DEPENDENCY, ArgumentSource.INJECTED}:
            if default is not MISSING and default is not None:
                reason = f"the default {default!r} is never used: the value is always there"
                raise self._refuse(argument.name, reason)
            return argument
        if default is not MISSING or field is None or not field.has_default:
            return replace(argument, default=default)
        make_default = None
        if not is_model(self.function):
            try:
                adapter: Any = sys.modules["pydantic"].TypeAdapter(argument.annotation)
            except Exception as error:  # whatever a type does when its schema is asked for
                raise self._refuse(argument.name, str(error)) from error
            make_default = partial(_get_default, adapter)
        return replace(argument, default=field.default, make_default=make_default)

    def _place(self, name: str, annotation: Any, marker: Any) -> Argument:
        """Return the argument, without its default."""
        if isinstance(marker, Dependency):
            return self._place_dependency(name, annotation, marker)
        if (injected := self._find_injected(name, annotation)) is not None:
            return Argument(name, ArgumentSource.INJECTED, name, injected)
        if (file_shape := self._find_file_shape(name, annotation)) is not None:
            return self._place_file(name, annotation, marker, file_shape)
        if name in self.convertors and marker is None:
            self._check_path_annotation(name, annotation)
            return Argument(name, ArgumentSource.PATH, name, annotation)
        if isinstance(marker, Form):
            self._check_form(name)
        kind = _strip_metadata(annotation)
        if isinstance(marker, _FIELD_MARKERS) and is_structure(kind):
            if marker.name is not None or self.marker is not None:
                reason = f"the fields of {kind.__name__} are no parameter {marker.name or name!r}"
                raise self._refuse(name, f"{reason}: each has a name of its own")
            return self._place_dependency(name, annotation, Dependency(FieldsOf(kind, marker)))
        source, key, many = self._find_source(name, annotation, marker)
        return Argument(name, source, key, annotation, many=many)

    def _refuse(self, name: str, reason: str) -> HandlerError:
        return HandlerError(self.function, name, reason)

    def _find_injected(self, name: str, annotation: Any) -> type | None:
        """Return the class of an argument that is handed over as it is, else None.

        An unannotated `request` or `websocket` is one as well.
        """
        if annotation is MISSING and name not in self.convertors:
            annotation = {"request": Request, "websocket": WebSocket}.get(name)
        if not isinstance(annotation, type) or not issubclass(annotation, _INJECTED):
            return None
        if annotation not in _INJECTED:
            accepted = ", ".join(each.__name__ for each in _INJECTED)
            reason = f"no request gives a {annotation.__name__}; accepted are {accepted}"
            raise self._refuse(name, describe_foreign_marker(annotation) or reason)
        if annotation in (_OF_HTTP if self.websocket else (WebSocket,)):
            here = "a websocket" if self.websocket else "an HTTP request"
            is_connection = issubclass(annotation, HTTPConnection)
            other = "; HTTPConnection stands for both" if is_connection else ""
            raise self._refuse(name, f"{here} has no {annotation.__name__}{other}")
        return annotation

    def _place_dependency(self, name: str, annotation: Any, dependency: Dependency) -> Argument:
        if dependency.function is None:
            if not isinstance(annotation, type):
                raise self._refuse(name, f"Depends() stands for a class, not {annotation!r}")
            dependency = replace(dependency, function=annotation)
        source = ArgumentSource.DEPENDENCY
        return Argument(name, source, name, annotation, dependency=dependency)

    def _place_file(self, name: str, annotation: Any, marker: Any, shape: Shape) -> Argument:
        if marker is not None and not isinstance(marker, Form):
            raise self._refuse(name, f"a file comes with a form, not by {marker!r}")
        self._check_form(name)
        key = (marker and marker.name) or name
        is_many = shape is Shape.SCALARS
        source = ArgumentSource.FORM
        return Argument(name, source, key, annotation, many=is_many, is_file=True)

    def _find_file_shape(self, name: str, annotation: Any) -> Shape | None:
        """Return whether an annotation is a file or a list of files; None if it is neither."""
        kind = _strip_metadata(annotation)
        if is_union(kind):
            kinds = [each for each in typing.get_args(kind) if each is not type(None)]
            kind = kinds[0] if len(kinds) == 1 else kind
        shape = Shape.SCALAR
        if typing.get_origin(kind) is list:
            kind, shape = typing.get_args(kind)[0], Shape.SCALARS
        if not isinstance(kind, type) or not issubclass(kind, UploadFile):
            return None
        if kind is not UploadFile:
            reason = describe_foreign_marker(kind) or "write asgihive.UploadFile"
            raise self._refuse(name, reason)
        return shape

    def _check_form(self, name: str) -> None:
        if self.websocket or not self.takes_body:
            what = "a websocket's handshake" if self.websocket else "a GET"
            raise self._refuse(name, f"{what} has no form")
        if not load_parser():
            reason = "forms need the package python-multipart: pip install 'asgihive[forms]'"
            raise self._refuse(name, reason)

    def _check_path_annotation(self, name: str, annotation: Any) -> None:
        shape = Shape.ANYTHING if annotation is MISSING else self._find_shape(name, annotation)
        if shape is Shape.ANYTHING:
            return
        if shape is not Shape.SCALAR:
            raise self._refuse(name, f"a path parameter is scalar, not {annotation!r}")
        convertor = self.convertors[name]
        if not can_be_captured(annotation, convertor):
            raise self._refuse(
                name, f"the path's convertor {convertor!r} never gives {annotation!r}"
            )

    def _find_source(
        self, name: str, annotation: Any, marker: Query | Header | Cookie | Form | Body | None
    ) -> tuple[ArgumentSource, str, bool]:
        """Return where an argument comes from, its name there, and whether it is a list."""
        if annotation is MISSING:
            raise self._refuse(name, f"it has no annotation; {_ACCEPTED}")
        shape = self._find_shape(name, annotation)
        if isinstance(marker, Body) or (marker is None and shape is Shape.STRUCTURE):
            self._check_body(name, annotation, marker)
            return ArgumentSource.BODY, name, False
        if shape not in {Shape.SCALAR, Shape.SCALARS}:
            raise self._refuse(name, f"{annotation!r} is not scalar; {_ACCEPTED}")
        many = shape is Shape.SCALARS
        match marker:
            case Header():
                key = marker.name or name.replace("_", "-")
                return ArgumentSource.HEADER, key.lower(), many
            case Form():
                return ArgumentSource.FORM, marker.name or name, many
            case Cookie():
                if many:
                    raise self._refuse(name, "a cookie has one value")
                return ArgumentSource.COOKIE, marker.name or name, False
            case _:
                return ArgumentSource.QUERY, (marker and marker.name) or name, many

    def _check_body(self, name: str, annotation: Any, marker: Body | None) -> None:
        if self.websocket:
            raise self._refuse(name, "a websocket's handshake has no body")
        if marker is None and not self.takes_body:
            reason = "a GET has no body: write Annotated[…, Query()] for fields of the query"
            raise self._refuse(name, f"{reason}, or Annotated[…, Body()] all the same")
        try:
            check_body(annotation)
        except MetadataRefused as refused:
            raise self._refuse(name, str(refused)) from refused

    def _find_shape(self, name: str, annotation: Any) -> Shape:
        try:
            return find_shape(annotation)
        except TypeError as error:
            raise self._refuse(name, str(error)) from error


def _strip_metadata(annotation: Any) -> Any:
    is_annotated = typing.get_origin(annotation) is Annotated
    return typing.get_args(annotation)[0] if is_annotated else annotation


def _get_default(adapter: Any) -> Any:
    """Return the default that a `pydantic.Field` says, which may come from a factory."""
    return adapter.get_default_value().value


def _drop_doubled(metadata: list[Any]) -> list[Any]:
    """Leave out FastAPI's `Depends` of a function beside our own of the same: it is for both."""
    own = [each.function for each in metadata if isinstance(each, Dependency)]
    return [
        each
        for each in metadata
        if not own or getattr(each, "dependency", None) is None or each.dependency not in own
    ]
