"""What a handler's parameters are read from: its signature, taken apart once, at registration."""

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any

from msgspec import inspect as types
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class _NamedMarker:
    name: str | None = None


class Query(_NamedMarker):
    """`Annotated[int, Query("page-size")]`: a query parameter of another name."""


class Header(_NamedMarker):
    """`Annotated[str, Header()]`: a header field, in any case.

    By default it has the parameter's name with hyphens for underscores.
    """


class Cookie(_NamedMarker):
    """`Annotated[str, Cookie()]`: a cookie; by default it has the parameter's name."""


@dataclass(frozen=True, slots=True)
class Body:
    """`Annotated[list[int], Body()]`: the request's body, whatever its type."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A function whose result a handler needs, or that guards it."""

    function: Callable[..., Any]


def Depends(function: Callable[..., Any]) -> Any:  # noqa: N802  # the name people know
    """Declare a parameter that is what `function` returns.

    Written as `Annotated[T, Depends(f)]` or `= Depends(f)`. `function` is called at most once
    per request, its own parameters bound like a handler's. `async def` runs on the event loop,
    `def` in a worker thread, a class on the event loop.

    A generator function, sync or async, yields the value once. What follows its `yield` runs
    when the response has been sent to its last byte and its background tasks are done, in
    reverse order of the calls, shielded from cancellation; the exception that ended the
    request, if any, is raised at the `yield`. So it must not hold a cancel scope or task
    group open across the `yield` (PEP 789).

    Raises:
        TypeError: `function` is not callable.
    """
    if not callable(function):
        raise TypeError(f"Depends({function!r}): a function or a class is accepted")
    return Dependency(function)


_MARKERS = (Body, Cookie, Dependency, Header, Query)
_INJECTED = (Request, WebSocket, HTTPConnection, BackgroundTasks)
# Of the usual defaults, those that need no copy.
_IMMUTABLE = (type(None), bool, int, float, str, bytes, Enum)
_ACCEPTED = (
    "accepted are path, query, header and cookie parameters of scalar types or lists of them, "
    "one structured parameter or Annotated[T, Body()] as the body, Depends(f), Request, "
    "WebSocket, HTTPConnection and BackgroundTasks"
)
_NUMBERS = (types.FloatType, types.DecimalType)
_TIMES = (types.DateTimeType, types.DateType, types.TimeDeltaType, types.TimeType)
_NAMED = (types.EnumType, types.LiteralType, types.BoolType, types.NoneType, types.UUIDType)
_SCALARS = (*_NUMBERS, *_TIMES, *_NAMED, types.BytesType, types.IntType, types.StrType)
_SEQUENCES = (types.FrozenSetType, types.ListType, types.SetType, types.VarTupleType)
# The types that a path convertor's value can be converted to; text can be to any.
_CAPTURED: dict[str, tuple[type[types.Type], ...]] = {
    "int": (*_NUMBERS, types.IntType, types.LiteralType, types.EnumType),
    "float": _NUMBERS,
    "uuid": (types.UUIDType,),
}


class HandlerError(ValueError):
    """The signature of a handler or a dependency has a parameter that no request can give."""

    def __init__(self, function: Callable[..., Any], parameter: str | None, reason: str) -> None:
        super().__init__(function, parameter, reason)
        self.function = function
        self.parameter = parameter
        self.reason = reason

    def __str__(self) -> str:
        parameter = f", parameter {self.parameter!r}" if self.parameter else ""
        place = f"{find_name(self.function)} ({find_location(self.function)})"
        return f"{place}{parameter}: {self.reason}"


class Flavour(Enum):
    """How a function is called."""

    COROUTINE = auto()
    FUNCTION = auto()
    CLASS = auto()
    ASYNC_GENERATOR = auto()
    GENERATOR = auto()


class ArgumentSource(Enum):
    """Where an argument comes from; `value` is what people call it."""

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
    source: ArgumentSource
    key: str
    """Its name in the request; of a header in lower case."""

    annotation: Any
    """The type of the values, without markers; of an injected argument its class."""

    default: Any = MISSING
    many: bool = False
    """Whether it is a list of the values of a repeated field."""

    keyword_only: bool = False
    dependency: Dependency | None = None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    def copy_default(self) -> Any:
        """Return the default; a copy where a handler might change it for all requests."""
        return self.default if isinstance(self.default, _IMMUTABLE) else deepcopy(self.default)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives."""

    function: Callable[..., Any]
    flavour: Flavour
    arguments: tuple[Argument, ...]
    result: Any = MISSING
    """The return annotation."""


def analyse_function(
    function: Callable[..., Any], convertors: Mapping[str, str], *, websocket: bool
) -> Signature:
    """Return the signature of a handler or a dependency.

    Args:
        convertors: of the path parameters, by name.
        websocket: whether it is called for a websocket's handshake, which has no body.

    Raises:
        HandlerError: a parameter that no request can give.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        reason = f"{error}: annotations must be importable at run time, not for type checkers only"
        raise HandlerError(function, None, reason) from error
    except (TypeError, ValueError) as error:
        raise HandlerError(function, None, f"it has no signature ({error})") from error
    reader = _ParameterReader(function, convertors, websocket)
    arguments = tuple(reader.read(each) for each in signature.parameters.values())
    result = resolve_alias(signature.return_annotation)
    return Signature(function, _find_flavour(function), arguments, result)


def resolve_alias(annotation: Any) -> Any:
    """Return what an alias of a `type` statement (PEP 695) stands for, else the annotation.

    `numpy.typing.NDArray` is such an alias from NumPy 2.5 on.
    """
    while hasattr(origin := typing.get_origin(annotation) or annotation, "__value__"):
        arguments = dict(zip(origin.__type_params__, typing.get_args(annotation), strict=False))
        annotation = origin.__value__
        if arguments:
            used = getattr(annotation, "__parameters__", ())
            annotation = annotation[tuple(arguments[each] for each in used)] if used else annotation
    return annotation


@dataclass(frozen=True, slots=True)
class _ParameterReader:
    """Finds out where each parameter of one function comes from; raises `HandlerError`."""

    function: Callable[..., Any]
    convertors: Mapping[str, str]
    websocket: bool

    def read(self, parameter: inspect.Parameter) -> Argument:
        name, default = parameter.name, parameter.default
        annotation = resolve_alias(parameter.annotation)
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise self._refuse(str(parameter), f"its name says nothing; {_ACCEPTED}")
        markers: list[Any] = []
        if typing.get_origin(annotation) is Annotated:
            base, *metadata = typing.get_args(annotation)
            markers += [each for each in metadata if isinstance(each, _MARKERS)]
            if any(isinstance(each, type) and issubclass(each, _MARKERS) for each in metadata):
                raise self._refuse(name, "call the marker: Header(), not Header")
            others = tuple(each for each in metadata if not isinstance(each, _MARKERS))
            base = resolve_alias(base)
            annotation = Annotated[(base, *others)] if others else base
        if isinstance(default, Dependency):
            markers.append(default)
            default = MISSING
        elif isinstance(default, _MARKERS):
            raise self._refuse(name, f"write Annotated[…, {default!r}]; a default is a plain value")
        if len(markers) > 1:
            raise self._refuse(name, f"only one of {markers} is accepted")
        marker = markers[0] if markers else None
        key, many, dependency = name, False, None
        if isinstance(marker, Dependency):
            source, dependency = ArgumentSource.DEPENDENCY, marker
        elif (injected := self._find_injected(name, annotation)) is not None:
            source, annotation = ArgumentSource.INJECTED, injected
        elif name in self.convertors and marker is None:
            source = ArgumentSource.PATH
            self._check_path_annotation(name, annotation)
        else:
            source, key, many = self._find_source(name, annotation, marker)
        keyword_only = parameter.kind is parameter.KEYWORD_ONLY
        return Argument(name, source, key, annotation, default, many, keyword_only, dependency)

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
            raise self._refuse(name, reason)
        if annotation in ((Request, BackgroundTasks) if self.websocket else (WebSocket,)):
            here = "a websocket" if self.websocket else "an HTTP request"
            other = "HTTPConnection stands for both" if annotation is not BackgroundTasks else ""
            raise self._refuse(name, f"{here} has no {annotation.__name__}; {other}")
        return annotation

    def _check_path_annotation(self, name: str, annotation: Any) -> None:
        shape = Shape.ANYTHING if annotation is MISSING else self._find_shape(name, annotation)
        if shape is Shape.ANYTHING:
            return
        if shape is not Shape.SCALAR:
            raise self._refuse(name, f"a path parameter is scalar, not {annotation!r}")
        convertor = self.convertors[name]
        possible = _CAPTURED.get(convertor)
        alternatives = _list_alternatives(types.type_info(annotation))
        if possible and not any(isinstance(each, possible) for each in alternatives):
            raise self._refuse(
                name, f"the path's convertor {convertor!r} never gives {annotation!r}"
            )

    def _find_source(
        self, name: str, annotation: Any, marker: Query | Header | Cookie | Body | None
    ) -> tuple[ArgumentSource, str, bool]:
        """Return where an argument comes from, its name there, and whether it is a list."""
        if annotation is MISSING:
            raise self._refuse(name, f"it has no annotation; {_ACCEPTED}")
        shape = self._find_shape(name, annotation)
        if isinstance(marker, Body) or (marker is None and shape is Shape.STRUCTURE):
            if self.websocket:
                raise self._refuse(name, "a websocket's handshake has no body")
            return ArgumentSource.BODY, name, False
        if shape not in {Shape.SCALAR, Shape.SCALARS}:
            raise self._refuse(name, f"{annotation!r} is not scalar; {_ACCEPTED}")
        many = shape is Shape.SCALARS
        match marker:
            case Header():
                key = marker.name or name.replace("_", "-")
                return ArgumentSource.HEADER, key.lower(), many
            case Cookie():
                if many:
                    raise self._refuse(name, "a cookie has one value")
                return ArgumentSource.COOKIE, marker.name or name, False
            case _:
                return ArgumentSource.QUERY, (marker and marker.name) or name, many

    def _find_shape(self, name: str, annotation: Any) -> "Shape":
        try:
            return find_shape(annotation)
        except TypeError as error:
            raise self._refuse(name, str(error)) from error


def find_name(function: Callable[..., Any]) -> str:
    """Return the name of a handler, for people."""
    plain = _unwrap(function)
    return str(getattr(plain, "__qualname__", type(plain).__qualname__))


def find_location(function: Callable[..., Any]) -> str:
    """Return `file:line` of a handler's definition, or its module where it has no source."""
    plain = _unwrap(function)
    owner = plain if isinstance(plain, type) else type(plain)
    method = getattr(owner, "__init__" if owner is plain else "__call__", None)
    code = getattr(plain, "__code__", None) or getattr(method, "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return str(getattr(plain, "__module__", type(plain).__module__))
    return f"{code.co_filename}:{code.co_firstlineno}"


def _unwrap(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def _find_flavour(function: Callable[..., Any]) -> Flavour:
    if isinstance(function, type):
        return Flavour.CLASS
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return Flavour.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Flavour.GENERATOR
    return Flavour.COROUTINE if inspect.iscoroutinefunction(function) else Flavour.FUNCTION


class Shape(Enum):
    """What a value is for a request: one text, several, or a body."""

    SCALAR = auto()
    SCALARS = auto()
    STRUCTURE = auto()
    ANYTHING = auto()


def find_shape(annotation: Any) -> Shape:
    """Return the shape of the values of an annotation.

    Raises:
        TypeError: `msgspec`, or `pydantic` if it has a model, cannot read it.
    """
    if has_model(annotation):
        return Shape.STRUCTURE
    info = types.type_info(annotation)
    for custom in _list_custom_classes(info, set()):
        raise TypeError(f"values of {custom!r} cannot be read from a request")
    alternatives = [
        each for each in _list_alternatives(info) if not isinstance(each, types.NoneType)
    ]
    if any(isinstance(each, types.AnyType) for each in alternatives):
        return Shape.ANYTHING
    if alternatives and all(_is_sequence(each) for each in alternatives):
        return Shape.SCALARS
    if all(isinstance(each, _SCALARS) for each in alternatives):
        return Shape.SCALAR
    return Shape.STRUCTURE


def list_accepted_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of enumerations and literals in an annotation; none if it has others."""
    values: list[Any] = []
    for each in _list_alternatives(types.type_info(annotation)):
        if isinstance(each, types.EnumType):
            values.extend(member.value for member in each.cls)
        elif isinstance(each, types.LiteralType):
            values.extend(each.values)
        elif not isinstance(each, types.NoneType):
            return ()
    return tuple(values)


def has_model(annotation: Any) -> bool:
    """Return whether an annotation is a model of `pydantic`, or holds one as an argument.

    `pydantic` is never imported here: a model exists only where the application imported it.
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return False
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return True
    return any(has_model(each) for each in typing.get_args(annotation))


def _list_alternatives(info: types.Type) -> Iterator[types.Type]:
    """Yield the members of a union, of whatever depth, or the one type that it is."""
    if isinstance(info, types.Metadata):
        yield from _list_alternatives(info.type)
    elif isinstance(info, types.UnionType):
        for each in info.types:
            yield from _list_alternatives(each)
    else:
        yield info


def _is_sequence(info: types.Type) -> bool:
    if isinstance(info, types.TupleType):
        items = info.item_types
    elif isinstance(info, _SEQUENCES):
        items = (info.item_type,)
    else:
        return False
    return all(isinstance(each, _SCALARS) for item in items for each in _list_alternatives(item))


def _list_custom_classes(value: Any, seen: set[type]) -> Iterator[Any]:
    """Yield the classes anywhere inside a type that `msgspec` does not know."""
    if isinstance(value, types.CustomType):
        yield value.cls
    if isinstance(value, tuple):
        for each in value:
            yield from _list_custom_classes(each, seen)
    if not isinstance(value, (types.Type, types.Field)):
        return
    owner = getattr(value, "cls", None)
    if isinstance(owner, type):
        if owner in seen:  # a class may hold itself
            return
        seen.add(owner)
    for name in ("type", "types", "fields", "item_type", "item_types", "key_type", "value_type"):
        yield from _list_custom_classes(getattr(value, name, None), seen)
