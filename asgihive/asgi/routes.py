"""What a router knows: path templates, its routes, and the table that finds them."""

import functools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

from starlette.types import ASGIApp

from asgihive.asgi.markers import Dependency, describe_foreign_marker
from asgihive.asgi.operation_options import describe_responses, list_requirements

T = TypeVar("T")

Handler = Callable[..., Any]
RouteKind = Literal["http", "websocket", "mount"]
Overrides = Mapping[Handler, Handler]
"""By the function that a signature names: the one to call instead."""


class OverridesOfTests(dict[Handler, Handler]):
    """By the function that a signature names: the one that is called in its place."""

    def __setitem__(self, function: Any, other: Any) -> None:
        for each in (function, other):
            if not callable(each):
                reason = f"overrides[{function!r}] = {other!r}: {each!r} is no function"
                raise TypeError(f"{reason}; write overrides[f] = g, with the f of Depends(f)")
        super().__setitem__(function, other)

    def update(self, *mappings: Any) -> None:
        """Add those of each mapping.

        Raises:
            TypeError: what is overridden, or what is called instead, is no function.
        """
        for mapping in mappings:
            for function, other in mapping.items():
                self[function] = other

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self


ANY_METHOD = "*"

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
# 640 digits: what `int` converts under every setting of `sys.set_int_max_str_digits`.
_INTEGER = re.compile(r"-?[0-9]{1,640}")
_FLOAT = re.compile(r"-?[0-9]{1,640}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,5})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # RFC 9562 §4


def _convert_float(segment: str) -> float | None:
    value = float(segment) if _FLOAT.fullmatch(segment) else math.inf
    return value if math.isfinite(value) else None


# Segment → value, or None where it does not fit; tried in this order, narrowest first.
_CONVERTORS: dict[str, Callable[[str], Any]] = {
    "int": lambda segment: int(segment) if _INTEGER.fullmatch(segment) else None,
    "float": _convert_float,
    "uuid": lambda segment: UUID(segment) if _UUID.fullmatch(segment) else None,
    "str": lambda segment: segment or None,
}
_REST = "path"


@dataclass(frozen=True, slots=True)
class PathParameter:
    """A path parameter `{name:convertor}`."""

    name: str
    convertor: str
    """One of int, float, uuid, str and path."""


Segments = tuple[str | PathParameter, ...]


@functools.lru_cache(maxsize=4096)
def parse_template(template: str) -> Segments:
    """Return the segments of a path template such as `/scans/{number:int}/{rest:path}`.

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
    segments: list[str | PathParameter] = []
    for text in template[1:].split("/"):
        if "{" not in text and "}" not in text:
            segments.append(text)
            continue
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} in the path {template!r} is not one whole {{parameter}}")
        name, convertor = match[1], match[2] or "str"
        if convertor not in _CONVERTORS and convertor != _REST:
            accepted = ", ".join((*_CONVERTORS, _REST))
            raise ValueError(f"{text!r} in the path {template!r}: convertors are {accepted}")
        segments.append(PathParameter(name, convertor))
    parameters = list_parameters(segments)
    if len({each.name for each in parameters}) < len(parameters):
        raise ValueError(f"The path {template!r} uses a parameter name twice")
    if any(each.convertor == _REST for each in list_parameters(segments[:-1])):
        raise ValueError(f"The path {template!r} goes on after its path parameter")
    return tuple(segments)


def list_parameters(segments: Sequence[str | PathParameter]) -> tuple[PathParameter, ...]:
    """Return the parameters among the segments, in their order."""
    return tuple(each for each in segments if isinstance(each, PathParameter))


def quote_path(text: str) -> str:
    """Return the text of a path, percent-encoded where RFC 3986 §3.3 asks for it."""
    return quote(text, safe="/!$&'()*+,;=:@")


def add_trailing_slash(segments: Segments) -> tuple[Segments, ...]:
    """Return the templates with and without one trailing slash; one if the slash is captured."""
    bare = segments[:-1] if segments[-1] == "" else segments
    if not bare or (isinstance(bare[-1], PathParameter) and bare[-1].convertor == _REST):
        return (segments,)
    return bare, (*bare, "")


@dataclass(frozen=True, slots=True)
class Options:
    """What a decorator says about a handler.

    Raises:
        TypeError: the tags are one text, a dependency is neither `Depends(f)` nor a function, or
            `responses` or `security` are not as OpenAPI has them.
    """

    tags: Sequence[str] = ()
    """OpenAPI's, after those of the router."""

    status: int = 200
    """Of the answer, unless the handler returns a response itself."""

    summary: str | None = None
    """For OpenAPI; by default the handler's name as words."""

    description: str | None = None
    """For OpenAPI; by default the handler's docstring."""

    deprecated: bool = False
    """For OpenAPI."""

    operation_id: str | None = None
    """OpenAPI's `operationId`; by default the handler's name."""

    responses: Mapping[Any, Any] = field(default_factory=dict)
    """Further responses for OpenAPI, by status: a description, the type of the body, or a
    mapping with `description`, `model` and what OpenAPI has."""

    security: Any = ()
    """For OpenAPI: by name a security scheme, as `{"bearer": {"type": "http", "scheme":
    "bearer"}}`; several mappings are alternatives. It guards nothing: dependencies do."""

    include_in_schema: bool = True
    """Whether OpenAPI and the documentation page have the route."""

    dependencies: Sequence[Any] = ()
    """Guards: `Depends(f)` or `f`, called for what they raise, after those of the router and
    before the handler's own."""

    media_type: str | None = None
    """Of what the handler returns, for text, bytes and streams of them."""

    max_body_bytes: int = 1 << 20
    """A longer body is answered by 413, and so is a longer field of a form that is no file."""

    max_form_bytes: int = 64 << 20
    """A longer multipart form is answered by 413, its files included."""

    max_form_files: int = 100
    """A form with more files is answered by 413."""

    max_form_fields: int = 1000
    """A form with more other fields is answered by 413."""

    def __post_init__(self) -> None:
        tags, dependencies = self.tags, self.dependencies
        if isinstance(tags, str):
            raise TypeError(f"The tags {tags!r} are one text: a list of texts is accepted")
        for each in dependencies:
            if isinstance(each, Dependency) and each.function is not None:
                continue
            if (foreign := describe_foreign_marker(each)) is not None and not callable(each):
                raise TypeError(f"The dependency {each!r} would guard nothing: {foreign}")
            if not callable(each):
                raise TypeError(f"The dependency {each!r} is neither Depends(f) nor a function")
        guards = (
            each if isinstance(each, Dependency) else Dependency(each) for each in dependencies
        )
        describe_responses(self.responses)
        list_requirements(self.security)
        object.__setattr__(self, "tags", tuple(dict.fromkeys(tags)))
        object.__setattr__(self, "dependencies", tuple(guards))

    def add_outer(self, tags: Sequence[str], dependencies: Sequence[Any]) -> "Options":
        """Return the options of the route in a router that has tags and guards itself."""
        if not tags and not dependencies:
            return self
        outer = Options(tags, dependencies=dependencies)
        guards = (*outer.dependencies, *self.dependencies)
        return replace(self, tags=(*outer.tags, *self.tags), dependencies=guards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One registration of a `Router`."""

    kind: RouteKind
    path: str
    """The template; of a mount its prefix."""

    methods: frozenset[str]
    """The registered ones: a GET route answers HEAD too. A websocket's handshake is a GET
    (RFC 6455 §4.1); a mount has `*`, every method."""

    name: str
    target: Callable[..., Any]
    """The plain function as it was decorated, or a bare ASGI application."""

    is_handler: bool
    """Whether `target` is a function; else it is an ASGI application."""

    options: Options
    overrides: tuple[Overrides, ...] = field(default=(), repr=False)
    """Of the routers that the route is in, outermost first; the first that has a function wins."""

    optional_trailing_slash: bool = False
    """Whether one of those routers says so."""

    yielded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Of a mount: what the lifespan of the application has yielded, which its requests see in
    their state; a copy of the route has the same."""

    plan: Any = field(default=None, repr=False)
    """What is called for a request, see `handlers.CallPlan`; a copy of the route has the same."""

    app: ASGIApp = field(repr=False)
    """What answers: of a handler, it has that as `__wrapped__`."""

    segments: Segments = field(init=False, repr=False)
    path_format: str = field(init=False, repr=False)
    """The template without convertors, for what names spans and metrics by it."""
    parameter_names: tuple[str, ...] = field(init=False, repr=False)
    """Of the path, in their order."""

    def __post_init__(self) -> None:
        is_mount = self.kind == "mount"
        segments = (
            parse_template(self.path + "/")[:-1] if is_mount else parse_template(self.path or "/")
        )
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "path_format", re.sub(r":[a-z]+\}", "}", self.path))
        names = tuple(each.name for each in self.parameters)
        object.__setattr__(self, "parameter_names", names)

    @property
    def parameters(self) -> tuple[PathParameter, ...]:
        """The path parameters, in their order."""
        return list_parameters(self.segments)

    @property
    def endpoint(self) -> Handler:
        """What answers, by the name that Starlette's routes have for it."""
        return self.target

    def fill_path(self, values: Mapping[str, Any]) -> str | None:
        """Return the path with these values, percent-encoded; None if they do not fit."""
        if values.keys() != set(self.parameter_names):
            return None
        parts = []
        for each in self.segments:
            if isinstance(each, str):
                parts.append(each)
                continue
            text = str(values[each.name])
            is_rest = each.convertor == _REST
            if not is_rest and ("/" in text or _CONVERTORS[each.convertor](text) is None):
                return None
            parts.append(quote_path(text))
        return "/" + "/".join(parts) if parts else ""

    @property
    def handler(self) -> Handler | None:
        """The plain function as it was decorated; None of a bare ASGI application."""
        return self.target if self.is_handler else None

    def __str__(self) -> str:
        what = ",".join(sorted(self.methods)) if self.kind == "http" else self.kind
        return f"{what} {self.path or '/'} ({self.name})"


# Takes one of the values that are registered for a path, by method, or none.
_Choose = Callable[[dict[str, T]], T | None]


def _choose_for(method: str, place: dict[str, T]) -> T | None:
    value = place.get(method)
    if value is None and method == "HEAD":
        value = place.get("GET")
    return place.get(ANY_METHOD) if value is None else value


class _PathNode(Generic[T]):
    """One segment deep in the tree of templates that have parameters."""

    __slots__ = ("_typed", "here", "rest", "static", "ways")

    def __init__(self) -> None:
        self.static: dict[str, _PathNode[T]] = {}
        self.ways: tuple[tuple[Callable[[str], Any], _PathNode[T]], ...] = ()
        """What converts the next segment, and where it leads to, narrowest first."""
        self.here: dict[str, T] = {}
        self.rest: dict[str, T] = {}
        self._typed: dict[str, _PathNode[T]] = {}

    def add_child(self, segment: str | PathParameter) -> "_PathNode[T]":
        if isinstance(segment, str):
            return self.static.setdefault(segment, _PathNode())
        node = self._typed.setdefault(segment.convertor, _PathNode())
        self.ways = tuple(
            (convert, self._typed[name])
            for name, convert in _CONVERTORS.items()
            if name in self._typed
        )
        return node

    def search(
        self, segments: Sequence[str], begin: int, captured: tuple[Any, ...], choose: "_Choose[T]"
    ) -> tuple[T, tuple[Any, ...]] | None:
        """Return the first value that `choose` takes, with what was captured on the way to it.

        A node is visited once at most: a lookup is bounded by the templates, not by the path.

        Args:
            segments: of the whole path; those from `begin` on are below this node.
        """
        node = self
        for segment in segments[begin:]:
            begin += 1
            child = node.static.get(segment)
            if child is not None:
                if not node.ways and not node.rest:
                    node = child
                    continue
                if (found := child.search(segments, begin, captured, choose)) is not None:
                    return found
            for convert, child in node.ways:
                if (converted := convert(segment)) is not None:
                    found = child.search(segments, begin, (*captured, converted), choose)
                    if found is not None:
                        return found
            value = choose(node.rest) if node.rest else None
            return None if value is None else (value, (*captured, "/".join(segments[begin - 1 :])))
        value = choose(node.here) if node.here else None
        return None if value is None else (value, captured)


class RouteTable(Generic[T]):
    """Values by path template and method.

    A static path costs one dict lookup, however many there are. Otherwise a tree is walked
    segment by segment with backtracking; at each segment static text is tried first, then
    int, float, uuid, str, and last the rest of the path. The first template in that order
    which answers the method wins: its own method, then GET for HEAD, then `ANY_METHOD`.
    """

    def __init__(self) -> None:
        self.static: dict[str, dict[str, T]] = {}
        """By path and method: what needs no search."""

        self._tree: _PathNode[T] = _PathNode()
        self._most_segments = 0
        """Of the templates in the tree: a path is not taken apart any further."""

    def add(self, templates: Sequence[Segments], methods: Collection[str], value: T) -> None:
        """Register `value` for every template and method, or for none.

        Raises:
            ValueError: one of them is taken; the message names both values.
        """
        places = [self._find_place(segments) for segments in templates]
        for place in places:
            for method in methods:
                if method in place:
                    raise ValueError(f"{value} answers the same requests as {place[method]}")
        for place in places:
            place.update(dict.fromkeys(methods, value))

    def find(self, path: str, method: str) -> tuple[T, tuple[Any, ...]] | None:
        """Return the value for a request, with the captured and converted path parameters."""
        choose: _Choose[T] = partial(_choose_for, method)
        place = self.static.get(path)
        if place is not None and (value := choose(place)) is not None:
            return value, ()
        segments = self._split(path)
        return None if segments[0] else self._tree.search(segments, 1, (), choose)

    def list_methods(self, path: str) -> list[str]:
        """Return the methods that would find something, sorted; none if the path is unknown."""
        methods = {*self.static.get(path, ())}
        segments = self._split(path)
        if not segments[0]:
            # It takes nothing, so that it is asked about every place.
            self._tree.search(segments, 1, (), methods.update)
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def _split(self, path: str) -> list[str]:
        """Return what is before the first slash, the segments, and what no template reaches."""
        return path.split("/", self._most_segments + 1)

    def _find_place(self, segments: Segments) -> dict[str, T]:
        if not list_parameters(segments):
            return self.static.setdefault("/" + "/".join(map(str, segments)), {})
        self._most_segments = max(self._most_segments, len(segments))
        node = self._tree
        for segment in segments:
            if isinstance(segment, PathParameter) and segment.convertor == _REST:
                return node.rest
            node = node.add_child(segment)
        return node.here
