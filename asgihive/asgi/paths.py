"""Path templates, and the table that finds what is registered for a path and a method."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from starlette.types import Scope

T = TypeVar("T")

ANY_METHOD = "*"

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
# 640 digits: what `int` converts under every setting of `sys.set_int_max_str_digits`.
_INTEGER = re.compile(r"-?[0-9]{1,640}")
_FLOAT = re.compile(r"-?[0-9]{1,640}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,5})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # RFC 9562 §4


def _integer(segment: str) -> int | None:
    return int(segment) if _INTEGER.fullmatch(segment) else None


def _float(segment: str) -> float | None:
    value = float(segment) if _FLOAT.fullmatch(segment) else math.inf
    return value if math.isfinite(value) else None


def _uuid(segment: str) -> UUID | None:
    return UUID(segment) if _UUID.fullmatch(segment) else None


def _text(segment: str) -> str | None:
    return segment or None


# Segment → value, or None where it does not fit; tried in this order, narrowest first.
_CONVERTORS: dict[str, Callable[[str], Any]] = {
    "int": _integer,
    "float": _float,
    "uuid": _uuid,
    "str": _text,
}
_REST = "path"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A path parameter `{name:convertor}`; `convertor` is int, float, uuid, str or path."""

    name: str
    convertor: str


Segments = tuple[str | Parameter, ...]


def parse_template(template: str) -> Segments:
    """The segments of a path template such as `/scans/{number:int}/{rest:path}`.

    A parameter is a whole segment: `{name}` any text without a slash, `{name:int}` ASCII
    digits with an optional minus sign, `{name:float}` a finite decimal number,
    `{name:uuid}` the hyphenated form of RFC 9562, `{name:path}` the rest of the path,
    slashes included, possibly empty.

    Raises:
        ValueError: no leading slash, a brace outside of a parameter, an unknown convertor,
            a name used twice, or `path` before the end.
    """
    if not template.startswith("/"):
        raise ValueError(f"The path {template!r} has no leading slash")
    segments = tuple(_parse_segment(template, text) for text in template[1:].split("/"))
    names = [each.name for each in parameters_of(segments)]
    if len(set(names)) < len(names):
        raise ValueError(f"The path {template!r} uses a parameter name twice")
    if any(each.convertor == _REST for each in parameters_of(segments[:-1])):
        raise ValueError(f"The path {template!r} goes on after its path parameter")
    return segments


def _parse_segment(template: str, text: str) -> str | Parameter:
    if "{" not in text and "}" not in text:
        return text
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} in the path {template!r} is not one whole {{parameter}}")
    name, convertor = match[1], match[2] or "str"
    if convertor not in _CONVERTORS and convertor != _REST:
        accepted = ", ".join((*_CONVERTORS, _REST))
        raise ValueError(f"{text!r} in the path {template!r}: convertors are {accepted}")
    return Parameter(name, convertor)


def parameters_of(segments: Segments) -> tuple[Parameter, ...]:
    """The parameters among the segments, in their order."""
    return tuple(each for each in segments if isinstance(each, Parameter))


def with_trailing_slash(segments: Segments) -> tuple[Segments, ...]:
    """The templates with and without one trailing slash; one where the slash is captured."""
    bare = segments[:-1] if segments[-1] == "" else segments
    if not bare or (isinstance(bare[-1], Parameter) and bare[-1].convertor == _REST):
        return (segments,)
    return bare, (*bare, "")


def get_route_path(scope: Scope) -> str:
    """The path below `root_path`, whether or not the server keeps that in `path`.

    As Starlette's `get_route_path`: empty for the root itself without a trailing slash.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    return path if rest and rest[0] != "/" else rest


# Takes something of what is registered for a path, by method, or nothing.
_Choose = Callable[[dict[str, T]], T | None]


def _value_for(method: str, place: dict[str, T]) -> T | None:
    value = place.get(method)
    if value is None and method == "HEAD":
        value = place.get("GET")
    return place.get(ANY_METHOD) if value is None else value


# One for each of the common methods, made once.
_CHOOSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    method: partial(_value_for, method) for method in ("GET", "POST", "PUT", "DELETE", "HEAD")
}


class _Node(Generic[T]):
    """One segment deep in the tree of templates that have parameters."""

    __slots__ = ("here", "rest", "static", "typed")

    def __init__(self) -> None:
        self.static: dict[str, _Node[T]] = {}
        self.typed: dict[str, _Node[T]] = {}
        self.here: dict[str, T] = {}
        self.rest: dict[str, T] = {}

    def child(self, segment: str | Parameter) -> "_Node[T]":
        if isinstance(segment, str):
            return self.static.setdefault(segment, _Node())
        node = self.typed.setdefault(segment.convertor, _Node())
        self.typed = {kind: self.typed[kind] for kind in _CONVERTORS if kind in self.typed}
        return node

    def search(
        self, path: str, start: int, captured: tuple[Any, ...], choose: "_Choose[T]"
    ) -> tuple[T, tuple[Any, ...]] | None:
        """The first thing that `choose` takes, with what was captured on the way to it."""
        # Visits a node once at most: a lookup is bounded by the templates, not by the path.
        end = path.find("/", start)
        segment = path[start:] if end < 0 else path[start:end]
        found = None
        if (child := self.static.get(segment)) is not None:
            found = child.below(path, end, captured, choose)
        for kind, child in self.typed.items():
            if found is not None:
                break
            if (value := _CONVERTORS[kind](segment)) is not None:
                found = child.below(path, end, (*captured, value), choose)
        if found is None and self.rest and (rest := choose(self.rest)) is not None:
            found = rest, (*captured, path[start:])
        return found

    def below(
        self, path: str, end: int, captured: tuple[Any, ...], choose: "_Choose[T]"
    ) -> tuple[T, tuple[Any, ...]] | None:
        """As `search`, of this node itself where the path ends with its segment."""
        if end >= 0:
            return self.search(path, end + 1, captured, choose)
        if self.here and (here := choose(self.here)) is not None:
            return here, captured
        return None


class RouteTable(Generic[T]):
    """Values by path template and method.

    A static path costs one dict lookup, however many there are. Otherwise a tree is walked
    segment by segment with backtracking; at each segment static text is tried first, then
    int, float, uuid, str, and last the rest of the path. The first template in that order
    which answers the method wins: its own method, then GET for HEAD, then `ANY_METHOD`.
    """

    def __init__(self) -> None:
        self._static: dict[str, dict[str, T]] = {}
        self._tree: _Node[T] = _Node()

    def add(self, templates: Sequence[Segments], methods: Collection[str], value: T) -> None:
        """Register `value` for every template and method, or for none.

        Raises:
            ValueError: one of them is taken; the message names both values.
        """
        places = [self._place(segments) for segments in templates]
        for place in places:
            for method in methods:
                if method in place:
                    raise ValueError(f"{value} answers the same requests as {place[method]}")
        for place in places:
            place.update(dict.fromkeys(methods, value))

    def find(self, path: str, method: str) -> tuple[T, tuple[Any, ...]] | None:
        """The value for a request, with the captured and converted path parameters."""
        place = self._static.get(path)
        if place is not None and (value := place.get(method)) is not None:
            return value, ()
        return self._search(path, _CHOOSE.get(method) or partial(_value_for, method))

    def allowed(self, path: str) -> list[str]:
        """The methods that would find something, sorted; empty where the path is unknown."""
        methods: set[str] = set()
        # Takes nothing, so that it is asked about every place.
        self._search(path, methods.update)
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def _search(self, path: str, choose: _Choose[T]) -> tuple[T, tuple[Any, ...]] | None:
        if not path.startswith("/"):
            return None
        place = self._static.get(path)
        if place is not None and (value := choose(place)) is not None:
            return value, ()
        return self._tree.search(path, 1, (), choose)

    def _place(self, segments: Segments) -> dict[str, T]:
        if not parameters_of(segments):
            return self._static.setdefault("/" + "/".join(map(str, segments)), {})
        node = self._tree
        for segment in segments:
            if isinstance(segment, Parameter) and segment.convertor == _REST:
                return node.rest
            node = node.child(segment)
        return node.here
