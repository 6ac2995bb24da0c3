"""What a router knows about each of its routes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

from starlette.types import ASGIApp

from asgihive.asgi.markers import Dependency
from asgihive.asgi.paths import Parameter, Segments, parameters_of

Handler = Callable[..., Any]
Kind = Literal["http", "websocket", "mount"]
# By the function that a signature names: the one to call instead.
Overrides = Mapping[Handler, Handler]


class RouteOptions(TypedDict, total=False):
    """What the decorators of a `Router` take; see `Options`."""

    tags: Sequence[str]
    status: int
    summary: str | None
    description: str | None
    deprecated: bool
    include_in_schema: bool
    dependencies: Sequence[Any]
    media_type: str | None
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a decorator says about a handler.

    Args:
        tags: OpenAPI's, after those of the router.
        status: of the answer, unless the handler returns a response itself.
        summary: for OpenAPI; by default the handler's name as words.
        description: for OpenAPI; by default the handler's docstring.
        deprecated: for OpenAPI.
        include_in_schema: whether OpenAPI and the documentation page have the route.
        dependencies: guards: `Depends(f)` or `f`, called for what they raise, after those
            of the router and before the handler's own.
        media_type: of what the handler returns, for text, bytes and streams of them.
        max_body_bytes: a longer body is answered by 413.
    """

    tags: tuple[str, ...] = ()
    status: int = 200
    summary: str | None = None
    description: str | None = None
    deprecated: bool = False
    include_in_schema: bool = True
    dependencies: tuple[Dependency, ...] = ()
    media_type: str | None = None
    max_body_bytes: int = 1 << 20

    def within(self, tags: Sequence[str], dependencies: Sequence[Any]) -> "Options":
        """The options of a route of a router that has tags and guards itself."""
        if not tags and not dependencies:
            return self
        return replace(
            self,
            tags=tuple(dict.fromkeys((*as_tags(tags), *self.tags))),
            dependencies=(*as_dependencies(dependencies), *self.dependencies),
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a route leads to: a handler, or a bare ASGI application, and its options."""

    target: Callable[..., Any]
    is_handler: bool
    options: Options
    overrides: tuple[Overrides, ...] = ()
    """Of the routers that the route is in, outermost first; the first that has a function wins."""
    optional_trailing_slash: bool = False
    """Whether one of those routers says so."""


@dataclass(frozen=True, slots=True)
class Route:
    """One registration of a `Router`, for whoever lists or documents them.

    `methods` are the registered ones: a GET route answers HEAD too. A WebSocket's handshake
    is a GET (RFC 6455 §4.1); a mount has `*`, every method, and `path` is its prefix.
    Of a handler, `app` has it as `__wrapped__`.
    """

    kind: Kind
    path: str
    methods: frozenset[str]
    name: str
    app: ASGIApp = field(repr=False)
    segments: Segments = field(repr=False)
    endpoint: Endpoint = field(repr=False)
    parameter_names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameter_names", tuple(each.name for each in self.parameters))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The path parameters, in their order."""
        return parameters_of(self.segments)

    @property
    def handler(self) -> Handler | None:
        """The plain function as it was decorated; None of a bare ASGI application."""
        return self.endpoint.target if self.endpoint.is_handler else None

    @property
    def tags(self) -> tuple[str, ...]:
        """OpenAPI's, those of the outermost router first."""
        return self.endpoint.options.tags

    @property
    def summary(self) -> str | None:
        """As the decorator said."""
        return self.endpoint.options.summary

    @property
    def include_in_schema(self) -> bool:
        """Whether OpenAPI has the route."""
        return self.endpoint.options.include_in_schema

    def __str__(self) -> str:
        what = ",".join(sorted(self.methods)) if self.kind == "http" else self.kind
        return f"{what} {self.path or '/'} ({self.name})"


def as_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags as a tuple.

    Raises:
        TypeError: they are one text.
    """
    if isinstance(tags, str):
        raise TypeError(f"The tags {tags!r} are one text: a list of texts is accepted")
    return tuple(tags)


def as_dependencies(dependencies: Sequence[Any]) -> tuple[Dependency, ...]:
    """Guards as records.

    Raises:
        TypeError: one is neither `Depends(f)` nor a function.
    """
    for each in dependencies:
        if not isinstance(each, Dependency) and not callable(each):
            raise TypeError(f"The dependency {each!r} is neither Depends(f) nor a function")
    return tuple(
        each if isinstance(each, Dependency) else Dependency(each) for each in dependencies
    )
