"""A function's signature → what each of its parameters is read from; at registration, once."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated, Any

from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from asgihive.asgi.annotations import Shape, refusal_of_path, shape_of
from asgihive.asgi.markers import Body, Cookie, Dependency, Header, Query

MISSING = inspect.Parameter.empty
_MARKERS = (Body, Cookie, Dependency, Header, Query)
_INJECTED = (Request, WebSocket, HTTPConnection, BackgroundTasks)
# Of the usual defaults, what needs no copy.
_IMMUTABLE = (type(None), bool, int, float, str, bytes, Enum)
_ACCEPTED = (
    "accepted are path, query, header and cookie parameters of scalar types or lists of them, "
    "one structured parameter or Annotated[T, Body()] as the body, Depends(f), Request, "
    "WebSocket, HTTPConnection and BackgroundTasks"
)


class HandlerError(ValueError):
    """The signature of a handler or a dependency says what no request can give."""

    def __init__(self, function: Callable[..., Any], parameter: str | None, reason: str) -> None:
        super().__init__(function, parameter, reason)
        self.function = function
        self.parameter = parameter
        self.reason = reason

    def __str__(self) -> str:
        what = f", parameter {self.parameter!r}" if self.parameter else ""
        return f"{find_name(self.function)} ({find_location(self.function)}){what}: {self.reason}"


class Flavour(Enum):
    """How a function is called."""

    COROUTINE = auto()
    FUNCTION = auto()
    CLASS = auto()
    ASYNC_GENERATOR = auto()
    GENERATOR = auto()


class Source(Enum):
    """Where a parameter's value comes from; `value` is how people call it."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"
    DEPENDENCY = "dependency"
    INJECTED = "injected"


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of a function."""

    name: str
    source: Source
    key: str
    """Its name in the request; of a header in lower case."""

    annotation: Any
    """Of what is converted, without markers; the class of what is injected."""

    default: Any = MISSING
    many: bool = False
    """A list of the values of a repeated field."""

    keyword_only: bool = False
    dependency: Dependency | None = None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    def own_default(self) -> Any:
        """The default; a copy where a handler might change it for all requests."""
        return self.default if isinstance(self.default, _IMMUTABLE) else deepcopy(self.default)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives."""

    function: Callable[..., Any]
    flavour: Flavour
    arguments: tuple[Argument, ...]
    result: Any = field(default=MISSING)
    """The return annotation."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a function is called from."""

    function: Callable[..., Any]
    convertors: Mapping[str, str]
    websocket: bool


def analyse(
    function: Callable[..., Any], convertors: Mapping[str, str], *, websocket: bool
) -> Signature:
    """The signature of a handler or a dependency.

    Args:
        convertors: of the path parameters, by name.
        websocket: of a websocket's handshake, which has no body.

    Raises:
        HandlerError: a parameter that no request can give.
    """
    place = _Place(function, convertors, websocket)
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        reason = f"{error}: annotations must be importable at run time, not for type checkers only"
        raise HandlerError(function, None, reason) from error
    except (TypeError, ValueError) as error:
        raise HandlerError(function, None, f"it has no signature ({error})") from error
    arguments = tuple(_argument(place, each) for each in signature.parameters.values())
    return Signature(function, _flavour(function), arguments, signature.return_annotation)


def find_name(function: Callable[..., Any]) -> str:
    """The name of a handler, for people."""
    plain = _plain(function)
    return str(getattr(plain, "__qualname__", type(plain).__qualname__))


def find_location(function: Callable[..., Any]) -> str:
    """`file:line` of a handler's definition, or its module where it has no source."""
    plain = _plain(function)
    owner = plain if isinstance(plain, type) else type(plain)
    method = getattr(owner, "__init__" if owner is plain else "__call__", None)
    code = getattr(plain, "__code__", None) or getattr(method, "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return str(getattr(plain, "__module__", type(plain).__module__))
    return f"{code.co_filename}:{code.co_firstlineno}"


def _plain(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def _flavour(function: Callable[..., Any]) -> Flavour:
    if isinstance(function, type):
        return Flavour.CLASS
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return Flavour.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Flavour.GENERATOR
    return Flavour.COROUTINE if inspect.iscoroutinefunction(function) else Flavour.FUNCTION


def _argument(place: _Place, parameter: inspect.Parameter) -> Argument:
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        raise HandlerError(place.function, str(parameter), f"its name says nothing; {_ACCEPTED}")
    base, metadata = _unwrapped(parameter.annotation)
    markers = [each for each in metadata if isinstance(each, _MARKERS)]
    if any(isinstance(each, type) and issubclass(each, _MARKERS) for each in metadata):
        raise HandlerError(place.function, parameter.name, "call the marker: Header(), not Header")
    default = parameter.default
    if isinstance(default, Dependency):
        markers.append(default)
        default = MISSING
    elif isinstance(default, _MARKERS):
        reason = f"write Annotated[…, {default!r}]; a default is a plain value"
        raise HandlerError(place.function, parameter.name, reason)
    if len(markers) > 1:
        raise HandlerError(place.function, parameter.name, f"only one of {markers} is accepted")
    rest = tuple(each for each in metadata if not isinstance(each, _MARKERS))
    annotation = Annotated[(base, *rest)] if rest and base is not MISSING else base
    marker = markers[0] if markers else None
    keyword_only = parameter.kind is parameter.KEYWORD_ONLY
    if isinstance(marker, Dependency):
        return Argument(
            parameter.name,
            Source.DEPENDENCY,
            parameter.name,
            annotation,
            keyword_only=keyword_only,
            dependency=marker,
        )
    source, key, annotation, many = _source(place, parameter.name, annotation, marker)
    return Argument(parameter.name, source, key, annotation, default, many, keyword_only)


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(annotation) is not Annotated:
        return annotation, ()
    base, *metadata = typing.get_args(annotation)
    return base, tuple(metadata)


def _source(
    place: _Place, name: str, annotation: Any, marker: Any
) -> tuple[Source, str, Any, bool]:
    injected = _injected(place, name, annotation)
    if injected is not None:
        return Source.INJECTED, name, injected, False
    if name in place.convertors and marker is None:
        return Source.PATH, name, _path_annotation(place, name, annotation), False
    if annotation is MISSING:
        raise HandlerError(place.function, name, f"it has no annotation; {_ACCEPTED}")
    try:
        shape = shape_of(annotation)
    except TypeError as error:
        raise HandlerError(place.function, name, str(error)) from error
    if isinstance(marker, Body) or (marker is None and shape is Shape.STRUCTURE):
        if place.websocket:
            raise HandlerError(place.function, name, "a websocket's handshake has no body")
        return Source.BODY, name, annotation, False
    if shape not in {Shape.SCALAR, Shape.SCALARS}:
        raise HandlerError(place.function, name, f"{annotation!r} is not scalar; {_ACCEPTED}")
    if isinstance(marker, Cookie) and shape is Shape.SCALARS:
        raise HandlerError(place.function, name, "a cookie has one value")
    source, key = _field(name, marker)
    return source, key, annotation, shape is Shape.SCALARS


def _field(name: str, marker: Query | Header | Cookie | None) -> tuple[Source, str]:
    """Where a scalar comes from, and what it is called there."""
    match marker:
        case Header():
            return Source.HEADER, (marker.name or name.replace("_", "-")).lower()
        case Cookie():
            return Source.COOKIE, marker.name or name
        case _:
            return Source.QUERY, (marker and marker.name) or name


def _injected(place: _Place, name: str, annotation: Any) -> type | None:
    """What is handed over as it is, by its class; an unannotated `request` as well."""
    if annotation is MISSING and name not in place.convertors:
        annotation = {"request": Request, "websocket": WebSocket}.get(name)
    if not isinstance(annotation, type) or not issubclass(annotation, _INJECTED):
        return None
    if annotation not in _INJECTED:
        accepted = ", ".join(each.__name__ for each in _INJECTED)
        reason = f"nobody makes a {annotation.__name__}; accepted are {accepted}"
        raise HandlerError(place.function, name, reason)
    absent = (Request, BackgroundTasks) if place.websocket else (WebSocket,)
    if annotation in absent:
        here = "a websocket" if place.websocket else "an HTTP request"
        other = "HTTPConnection stands for both" if annotation is not BackgroundTasks else ""
        raise HandlerError(place.function, name, f"{here} has no {annotation.__name__}; {other}")
    return annotation


def _path_annotation(place: _Place, name: str, annotation: Any) -> Any:
    if annotation is MISSING:
        return annotation
    try:
        reason = refusal_of_path(annotation, place.convertors[name])
    except TypeError as error:
        reason = str(error)
    if reason is not None:
        raise HandlerError(place.function, name, reason)
    return annotation
