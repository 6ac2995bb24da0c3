"""The router: which application answers a path and a method."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi.errors import HTTPException, send_error
from asgihive.asgi.handlers import build_application
from asgihive.asgi.paths import (
    ANY_METHOD,
    Parameter,
    RouteTable,
    Segments,
    get_route_path,
    parse_template,
    with_trailing_slash,
)
from asgihive.asgi.routes import (
    Endpoint,
    Handler,
    Kind,
    Options,
    Route,
    RouteOptions,
    as_dependencies,
    as_tags,
)

_Handler = TypeVar("_Handler", bound=Handler)

_BODY_MESSAGES = {  # the second and third are ASGI extensions
    "http.response.body",
    "http.response.pathsend",
    "http.response.zerocopysend",
}


class Router:
    """An ASGI application that hands http and websocket scopes to the routes it holds.

    Nothing is redirected. 404, 405 (with `Allow`) and rejected handshakes are answered as
    `HTTPException` renders them; exceptions of the routes are passed on, so put an
    `ErrorBoundary` around. Paths are matched as the server decoded them: an encoded slash
    is a slash. The application gets a copy of the scope with `path_params` set.

    Args:
        optional_trailing_slash: every route answers with and without one trailing slash.
            By default paths are exact. Mounts are not concerned: they answer both anyway.
        tags: OpenAPI's, of every route.
        dependencies: guards of every route, bare applications and mounts included:
            `Depends(f)` or `f`. What they raise is the answer.
        max_body_bytes: the default of the handlers: a longer body is answered by 413.
    """

    def __init__(
        self,
        *,
        optional_trailing_slash: bool = False,
        tags: Sequence[str] = (),
        dependencies: Sequence[Any] = (),
        max_body_bytes: int = Options().max_body_bytes,
    ) -> None:
        self.optional_trailing_slash = optional_trailing_slash
        self.overrides: dict[Handler, Handler] = {}
        """For tests: what is called instead of a dependency, here and in what includes this."""
        self._common = Options(
            as_tags(tags),
            dependencies=as_dependencies(dependencies),
            max_body_bytes=max_body_bytes,
        )
        self._routes: list[Route] = []
        self._tables: dict[str, RouteTable[Route]] = {
            "http": RouteTable(),
            "websocket": RouteTable(),
        }

    @property
    def registered(self) -> tuple[Route, ...]:
        """The routes in the order of their registration."""
        return tuple(self._routes)

    def add(
        self,
        path: str,
        app: ASGIApp,
        methods: Collection[str] = ("GET",),
        name: str | None = None,
    ) -> Route:
        """Let an ASGI application answer `path`; `"*"` stands for every method.

        A GET route also answers HEAD, unless a route is registered for that: the
        application sees the method HEAD, and body bytes that it sends all the same are
        dropped.

        Args:
            path: a template, see `parse_template`.
            name: by default the application's own.

        Raises:
            ValueError: a bad template, no method, or a route that is registered already.
        """
        endpoint = Endpoint(app, False, self._common)
        return self._register("http", path, _methods(path, methods), name, endpoint)

    def add_websocket(self, path: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer the websocket scopes of `path`; raises as `add`."""
        endpoint = Endpoint(app, False, self._common)
        return self._register("websocket", path, frozenset({"GET"}), name, endpoint)

    def mount(self, prefix: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer everything below `prefix`, http and websocket.

        Routes win over mounts of the same place, longer static prefixes over shorter ones.
        The prefix moves to `root_path`, the full path stays in `path`, as the ASGI
        specification has it; `/prefix` alone arrives as `/prefix/`.

        Raises:
            ValueError: a bad prefix, or one that is mounted already.
        """
        endpoint = Endpoint(app, False, self._common)
        return self._register("mount", prefix.rstrip("/"), frozenset({ANY_METHOD}), name, endpoint)

    def include_router(
        self,
        router: "Router",
        prefix: str = "",
        *,
        tags: Sequence[str] = (),
        dependencies: Sequence[Any] = (),
    ) -> tuple[Route, ...]:
        """Register every route that `router` has now here as well, below `prefix`.

        No mount: one table answers all, `root_path` does not change, and `prefix` may have
        parameters, which the handlers may take. A route of the path `""` answers `prefix`
        itself, one of `/` answers `prefix` with a slash after it.

        Args:
            prefix: a path template without a trailing slash.
            tags: before those of the routes.
            dependencies: guards, called before those of the routes.

        Returns:
            The new routes.

        Raises:
            ValueError: `router` is this one, a bad prefix, or a route that is registered here.
        """
        if router is self:
            raise ValueError("A router cannot include itself")
        included = []
        for route in router.registered:
            of_route = route.endpoint
            endpoint = Endpoint(
                of_route.target,
                of_route.is_handler,
                of_route.options.within(tags, dependencies).within(
                    self._common.tags, self._common.dependencies
                ),
                of_route.overrides,
                of_route.optional_trailing_slash,
            )
            path = prefix.rstrip("/") + route.path
            included.append(self._register(route.kind, path, route.methods, route.name, endpoint))
        return tuple(included)

    def route(
        self,
        path: str,
        methods: Collection[str] = ("GET",),
        name: str | None = None,
        **options: Unpack[RouteOptions],
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler: a function that gets what its signature says and returns a value.

        `async def` runs on the event loop, `def` in a worker thread. See `Options` for the
        options, `add` for the rest.

        Raises:
            HandlerError: the signature says something that no request can give.
        """

        def register(handler: _Handler) -> _Handler:
            endpoint = Endpoint(handler, True, self._options(options))
            self._register("http", path, _methods(path, methods), name, endpoint)
            return handler

        return register

    def get(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """`GET`, which answers `HEAD` too; see `route`."""
        return self.route(path, ("GET",), name, **options)

    def post(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """`POST`; see `route`."""
        return self.route(path, ("POST",), name, **options)

    def put(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """`PUT`; see `route`."""
        return self.route(path, ("PUT",), name, **options)

    def patch(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """`PATCH`; see `route`."""
        return self.route(path, ("PATCH",), name, **options)

    def delete(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """`DELETE`; see `route`."""
        return self.route(path, ("DELETE",), name, **options)

    def websocket(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate an `async def` handler of websockets; as `route`, without a body or result."""

        def register(handler: _Handler) -> _Handler:
            endpoint = Endpoint(handler, True, self._options(options))
            self._register("websocket", path, frozenset({"GET"}), name, endpoint)
            return handler

        return register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _complete_lifespan(receive, send)
            return
        table = self._tables[kind]
        path = get_route_path(scope) or "/"
        method = scope.get("method", "GET")
        found = table.find(path, method)
        if found is None:
            await send_error(_unmatched(path, method, table.allowed(path)), scope, receive, send)
            return
        route, captured = found
        if route.kind == "mount":
            scope = _mounted_scope(scope, path, route, captured)
        else:
            scope = {**scope, "path_params": _path_params(scope, route, captured)}
            if method == "HEAD":
                send = _without_body(send)
        await route.app(scope, receive, send)

    def _options(self, options: RouteOptions) -> Options:
        given: dict[str, Any] = {"max_body_bytes": self._common.max_body_bytes, **options}
        unknown = given.keys() - Options.__dataclass_fields__.keys()
        if unknown:
            accepted = ", ".join(Options.__dataclass_fields__)
            raise TypeError(f"No such option: {', '.join(unknown)}; accepted are {accepted}")
        given["tags"] = as_tags(given.get("tags", ()))
        given["dependencies"] = as_dependencies(given.get("dependencies", ()))
        return Options(**given).within(self._common.tags, self._common.dependencies)

    def _register(
        self,
        kind: Kind,
        path: str,
        methods: frozenset[str],
        name: str | None,
        endpoint: Endpoint,
    ) -> Route:
        endpoint = replace(
            endpoint,
            overrides=(self.overrides, *endpoint.overrides),
            optional_trailing_slash=(
                self.optional_trailing_slash or endpoint.optional_trailing_slash
            ),
        )
        if kind == "mount":
            segments = parse_template(path + "/")[:-1]
            below = (*segments, Parameter("", "path"))
            templates: tuple[Segments, ...] = (segments, below) if segments else (below,)
        else:
            segments = parse_template(path or "/")
            both = endpoint.optional_trailing_slash
            templates = with_trailing_slash(segments) if both else (segments,)
        app = build_application(kind, segments, endpoint)
        route = Route(kind, path, methods, name or _name(endpoint.target), app, segments, endpoint)
        for table in self._tables.values() if kind == "mount" else (self._tables[kind],):
            table.add(templates, methods, route)
        self._routes.append(route)
        return route


def _methods(path: str, methods: Collection[str]) -> frozenset[str]:
    if isinstance(methods, str) or not methods:
        raise ValueError(f"The methods of {path!r} are a collection of at least one")
    return frozenset(each.upper() for each in methods)


def _name(target: Handler | ASGIApp) -> str:
    return str(getattr(target, "__name__", type(target).__name__))


def _path_params(scope: Scope, route: Route, captured: tuple[Any, ...]) -> dict[str, Any]:
    # A mount captures the rest of the path as well, which is no parameter of anyone.
    params = dict(zip(route.parameter_names, captured, strict=False))
    return {**outer, **params} if (outer := scope.get("path_params")) else params


def _mounted_scope(scope: Scope, path: str, route: Route, captured: tuple[Any, ...]) -> Scope:
    below = "/" + captured[-1] if len(captured) > len(route.parameter_names) else ""
    prefix = path.removesuffix(below)
    root_path = scope.get("root_path", "")
    return {
        **scope,
        "path": root_path + prefix + (below or "/"),
        "root_path": root_path + prefix,
        "app_root_path": scope.get("app_root_path", root_path),  # for Starlette's `url_for`
        "path_params": _path_params(scope, route, captured),
    }


def _unmatched(path: str, method: str, allowed: list[str]) -> HTTPException:
    if not allowed:
        return HTTPException(404, f"No such route: {path[:200]}")
    message = f"The method {method[:40]} is not allowed here: use {', '.join(allowed)}"
    return HTTPException(405, message, {"Allow": ", ".join(allowed)})


def _without_body(send: Send) -> Send:
    """For HEAD (RFC 9110 §9.3.2): everything but body bytes."""

    async def send_without_body(message: Message) -> None:
        if message["type"] not in _BODY_MESSAGES:
            await send(message)
        elif not message.get("more_body", False):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_without_body


async def _complete_lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
