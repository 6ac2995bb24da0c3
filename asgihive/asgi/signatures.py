"""What a function takes and gives: the facts of a signature, and how errors name a function."""

import functools
import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from asgihive.asgi.markers import Cookie, Dependency, Form, Header, Query
from asgihive.asgi.shapes import MISSING

# Of the usual defaults, those that need no copy.
_IMMUTABLE = (type(None), bool, int, float, str, bytes, Enum)


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
    STRUCTURE = auto()
    """A class whose values are built of what was read of a request, which may not fit."""


class ArgumentSource(Enum):
    """Where an argument comes from; `value` is what people call it."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    FORM = "form"
    BODY = "body"
    DEPENDENCY = "dependency"
    INJECTED = "injected"


@dataclass(frozen=True, slots=True)
class FieldsOf:
    """Stands for a function that returns a structure, each of whose fields is an argument."""

    kind: type
    marker: Query | Header | Cookie | Form

    def __call__(self, **fields: Any) -> Any:
        return self.kind(**fields)


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
    make_default: Callable[[], Any] | None = None
    """Of a `pydantic.Field`: returns the default."""

    is_left_out: bool = False
    """Whether it is not handed over where a request has none: a structure knows its defaults."""

    is_raw: bool = False
    """Whether its text is handed over as it is: a model of `pydantic` converts it."""

    is_file: bool = False
    """Whether it is a file of a form, or a list of them."""

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
        if self.make_default is not None:
            return self.make_default()
        return self.default if isinstance(self.default, _IMMUTABLE) else deepcopy(self.default)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and gives."""

    function: Callable[..., Any]
    flavour: Flavour
    arguments: tuple[Argument, ...]
    result: Any = MISSING
    """The return annotation."""


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
    if isinstance(function, FieldsOf):
        return function.kind
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def find_flavour(function: Callable[..., Any]) -> Flavour:
    if isinstance(function, type):
        return Flavour.CLASS
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return Flavour.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Flavour.GENERATOR
    return Flavour.COROUTINE if inspect.iscoroutinefunction(function) else Flavour.FUNCTION
