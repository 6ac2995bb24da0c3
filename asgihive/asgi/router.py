"""The router: which application answers a path and a method."""

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Never, TypedDict, TypeVar, Unpack

from starlette.datastructures import URLPath
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgihive.asgi.call_plans import plan_route
from asgihive.asgi.errors import HTTPException, send_error
from asgihive.asgi.handlers import build_application
from asgihive.asgi.layers import (
    LAYER,
    LayeredState,
    LayeredUrls,
    NamedRoutes,
    adopt_before_answer,
    adopt_route,
    announce_route,
    enter_layer,
    find_url,
    forget_route,
)
from asgihive.asgi.routes import (
    ANY_METHOD,
    Handler,
    Options,
    OverridesOfTests,
    PathParameter,
    Route,
    RouteKind,
    RouteTable,
    Segments,
    add_trailing_slash,
    quote_path,
)

_Handler = TypeVar("_Handler", bound=Handler)

_BODY_MESSAGES = {  # the second and third are ASGI extensions
    "http.response.body",
    "http.response.pathsend",
    "http.response.zerocopysend",
}


# What FastAPI calls otherwise.
_INSTEAD = {
    "status_code": "status",
    "response_model": "the return annotation, which is applied",
    "response_class": "the response as the return annotation, or media_type",
    "response_description": "responses={200: …}",
}
_INSTEAD_OF_ROUTER = {
    "prefix": "write include_router(router, prefix), or the paths of its routes with it: that of "
    "an endpoint is its folder's name",
    "responses": "write it at each route",
    "redirect_slashes": "write optional_trailing_slash=True",
    "lifespan": "write `lifespan(context)` in the endpoint's module",
    "route_class": "write a dependency, or middleware",
    "default_response_class": "write media_type at each route",
}


class RouteOptions(TypedDict, total=False):
    """What the decorators of a `Router` take; see `Options`."""

    tags: Sequence[str]
    status: int
    summary: str | None
    description: str | None
    deprecated: bool
    operation_id: str | None
    responses: Mapping[Any, Any]
    security: Any
    include_in_schema: bool
    dependencies: Sequence[Any]
    media_type: str | None
    max_body_bytes: int
    max_form_bytes: int
    max_form_files: int
    max_form_fields: int


class Router:
    """An ASGI application that hands http and websocket scopes to the routes it holds.

    Nothing is redirected. 404, 405 (with `Allow`) and rejected handshakes are answered as
    `send_error` does it; exceptions of the routes are passed on, so put a `Gate`
    around. Paths are matched as the server decoded them: an encoded slash is a slash. The
    route that answers is told in the scope, as Starlette does it: `route`, `endpoint` and
    `path_params`; what is mounted gets a copy of the scope.

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
        **unknown: Never,
    ) -> None:
        if unknown:
            hints = [
                f"for {each} {_INSTEAD_OF_ROUTER[each]}"
                for each in unknown
                if each in _INSTEAD_OF_ROUTER
            ]
            accepted = "optional_trailing_slash, tags, dependencies and max_body_bytes are accepted"
            said = ", ".join(f"{each}=…" for each in unknown)
            raise TypeError("; ".join((f"Router({said})", *hints, accepted)))
        self.optional_trailing_slash = optional_trailing_slash
        self.overrides: dict[Handler, Handler] = OverridesOfTests()
        """For tests: function → the one to call in its place, here and in routers that include
        this one."""
        self.refuse: Callable[[HTTPException, Scope, Receive, Send], Awaitable[None]] = send_error
        """What answers 404 and 405; a hive puts its own here."""
        self._common = Options(tags, dependencies=dependencies, max_body_bytes=max_body_bytes)
        self._routes: list[Route] = []
        self._tables: dict[str, RouteTable[Route]] = {
            "http": RouteTable(),
            "websocket": RouteTable(),
        }

    @property
    def routes(self) -> tuple[NamedRoutes, ...]:
        """What Starlette looks for in what it mounts; `registered` are the routes themselves."""
        return (NamedRoutes(self),)

    @property
    def registered(self) -> tuple[Route, ...]:
        """The routes in the order of their registration."""
        return tuple(self._routes)

    def add(
        self, path: str, app: ASGIApp, methods: Collection[str] = ("GET",), name: str | None = None
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
        return self._register("http", path, methods, name, app, self._common)

    def add_websocket(self, path: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer the websocket scopes of `path`; raises as `add`."""
        return self._register("websocket", path, ("GET",), name, app, self._common)

    def mount(self, prefix: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer everything below `prefix`, http and websocket.

        Routes win over mounts of the same place, longer static prefixes over shorter ones.
        The prefix moves to `root_path`, the full path stays in `path`, as the ASGI
        specification has it; `/prefix` alone arrives as `/prefix/`.

        Raises:
            ValueError: a bad prefix, or one that is mounted already.
        """
        return self._register("mount", prefix.rstrip("/"), (ANY_METHOD,), name, app, self._common)

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
            options = route.options.add_outer(tags, dependencies)
            copy = replace(
                route,
                path=prefix.rstrip("/") + route.path,
                options=options.add_outer(self._common.tags, self._common.dependencies),
            )
            included.append(self._add_route(copy))
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
            self._register("http", path, methods, name, handler, self._make_options(options), True)
            return handler

        return register

    def get(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler of `GET`, which answers `HEAD` too; see `route`."""
        return self.route(path, ("GET",), name, **options)

    def post(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler of `POST`; see `route`."""
        return self.route(path, ("POST",), name, **options)

    def put(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler of `PUT`; see `route`."""
        return self.route(path, ("PUT",), name, **options)

    def patch(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler of `PATCH`; see `route`."""
        return self.route(path, ("PATCH",), name, **options)

    def delete(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler of `DELETE`; see `route`."""
        return self.route(path, ("DELETE",), name, **options)

    def websocket(
        self, path: str, name: str | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_Handler], _Handler]:
        """Decorate an `async def` handler of websockets; as `route`, without a body or result."""

        def register(handler: _Handler) -> _Handler:
            given = self._make_options(options)
            self._register("websocket", path, ("GET",), name, handler, given, True)
            return handler

        return register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
            return
        urls = scope.get("router")
        if urls is None:
            scope["router"] = self
        elif urls is not self and getattr(urls, "own", None) is not self:
            scope = enter_layer(scope, {"router": LayeredUrls(self, scope)})
        table = self._tables[scope["type"]]
        path = (get_route_path(scope) if scope.get("root_path") else scope["path"]) or "/"
        method = scope.get("method", "GET")
        # Most requests ask for a static path, which is found without a call.
        place = table.static.get(path)
        found: tuple[Route, tuple[Any, ...]] | None
        if place is not None and method in place:
            found = place[method], ()
        elif (found := table.find(path, method)) is None:
            forget_route(scope)
            error = _refuse_path(path, method, table)
            await self.refuse(error, scope, receive, send)
            return
        route, captured = found
        # A mount captures the rest of the path as well, which has no name.
        params: dict[str, Any] = dict(zip(route.parameter_names, captured, strict=False))
        if outer := scope.get("path_params"):
            params = {**outer, **params}
        if LAYER in scope or "app_root_path" in scope:
            announce_route(scope, route, params)
        else:
            scope["route"] = route
            scope["endpoint"] = route.target
            scope["path_params"] = params
        if route.kind == "mount":
            await _answer_below(route, captured, path, scope, receive, send)
            return
        if method == "HEAD":
            send = _drop_body(send)
        await route.app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Return the path of a route, for `request.url_for`; as Starlette's router does.

        Of a mount `name` takes what is below it as `path`, and `name:inner` is a route of the
        mounted application. Of several routes of a name the first one that takes the parameters
        counts.

        Raises:
            NoMatchFound: there is none.
        """
        for route in self._routes:
            path = _make_url_path(route, name, path_params)
            if path is not None:
                return path
        from starlette.routing import NoMatchFound  # noqa: PLC0415  # only where URLs are made

        raise NoMatchFound(name, path_params)

    def _make_options(self, options: RouteOptions) -> Options:
        given: dict[str, Any] = {"max_body_bytes": self._common.max_body_bytes, **options}
        unknown = given.keys() - Options.__dataclass_fields__.keys()
        if unknown:
            accepted = ", ".join(Options.__dataclass_fields__)
            hints = [f"for {each} write {_INSTEAD[each]}" for each in unknown if each in _INSTEAD]
            reason = "; ".join((f"No such option: {', '.join(unknown)}", *hints))
            raise TypeError(f"{reason}; accepted are {accepted}")
        return Options(**given).add_outer(self._common.tags, self._common.dependencies)

    def _register(  # noqa: PLR0913, PLR0917  # each is one fact
        self,
        kind: RouteKind,
        path: str,
        methods: Collection[str],
        name: str | None,
        target: Callable[..., Any],
        options: Options,
        is_handler: bool = False,
    ) -> Route:
        if isinstance(methods, str) or not methods:
            raise ValueError(f"The methods of {path!r} are a collection of at least one")
        route = Route(
            kind=kind,
            path=path,
            methods=frozenset(each.upper() for each in methods),
            name=name or str(getattr(target, "__name__", type(target).__name__)),
            target=target,
            is_handler=is_handler,
            options=options,
            app=target,
        )
        return self._add_route(route)

    def _add_route(self, route: Route) -> Route:
        """Register a route, which may be one of another router, at this one."""
        route = replace(
            route,
            overrides=(self.overrides, *route.overrides),
            optional_trailing_slash=self.optional_trailing_slash or route.optional_trailing_slash,
        )
        segments = route.segments
        templates: tuple[Segments, ...] = (segments,)
        if route.kind == "mount":
            below = (*segments, PathParameter("", "path"))
            templates = (segments, below) if segments else (below,)
        elif route.optional_trailing_slash:
            templates = add_trailing_slash(segments)
        plan = plan_route(route)
        route = replace(route, app=build_application(route, plan), plan=plan)
        is_mount = route.kind == "mount"
        for table in self._tables.values() if is_mount else (self._tables[route.kind],):
            table.add(templates, route.methods, route)
        self._routes.append(route)
        return route


def list_routes(router: Router, prefix: str = "") -> Iterator[tuple[str, Route]]:
    """Yield every route of a router and of the routers that it mounts, with its whole path.

    A route below a mount has the tags and guards of the mount as well.
    """
    for route in router.registered:
        path = prefix + route.path
        if route.kind != "mount" or not isinstance(route.target, Router):
            yield path, route
            continue
        outer = route.options
        for below, each in list_routes(route.target, path):
            options = each.options.add_outer(outer.tags, outer.dependencies)
            yield below, replace(each, options=options)


async def _answer_below(  # noqa: PLR0913, PLR0917  # the three of ASGI, and three of the match
    route: Route,
    captured: Sequence[Any],
    path: str,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Let the application of a mount answer, in a scope of its own."""
    below = "/" + captured[-1] if len(captured) > len(route.parameter_names) else ""
    prefix = path.removesuffix(below)
    root_path = scope.get("root_path", "")
    changes = {
        "path": root_path + prefix + (below or "/"),
        "root_path": root_path + prefix,
        "app_root_path": scope.get("app_root_path", root_path),  # for Starlette's `url_for`
    }
    if route.yielded:
        changes["state"] = LayeredState({**route.yielded}, scope.setdefault("state", {}))
    inner = enter_layer(scope, changes, route)
    del inner["route"], inner["endpoint"]
    try:
        await route.app(inner, receive, adopt_before_answer(adopt_route, inner, send))
    finally:
        adopt_route(inner)


def _make_url_path(route: Route, name: str, params: Mapping[str, Any]) -> URLPath | None:
    """Return the path of a route, if it has this name, or of one below a mount."""
    if route.kind != "mount":
        path = route.fill_path(params) if name == route.name else None
        if path is None and hasattr(route.target, "url_path_for"):
            return find_url(route.target, name, params)  # an application that has whole paths
        return None if path is None else URLPath(path, protocol=route.kind)
    own = {each: params[each] for each in route.parameter_names if each in params}
    rest = {each: value for each, value in params.items() if each not in own}
    prefix = route.fill_path(own)
    if prefix is None:
        return None
    if name == route.name and rest.keys() == {"path"}:
        return URLPath(f"{prefix}/{quote_path(str(rest['path']).lstrip('/'))}")
    target = inspect.unwrap(route.target)
    if not name.startswith(f"{route.name}:") or not hasattr(target, "url_path_for"):
        return None
    below = find_url(target, name[len(route.name) + 1 :], rest)
    return below and URLPath(prefix + below, protocol=below.protocol, host=below.host)


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    """Answer a server's lifespan: a router has nothing to start."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


def get_route_path(scope: Scope) -> str:
    """Return the path below `root_path`, whether or not the server keeps that in `path`.

    As Starlette's function of that name: empty for the root itself without a trailing slash.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    return path if rest and rest[0] != "/" else rest


def _refuse_path(path: str, method: str, table: RouteTable[Route]) -> HTTPException:
    allowed = table.list_methods(path)
    if not allowed:
        other = path[:-1] if path.endswith("/") else f"{path}/"
        there = " (there is one with a trailing slash)"
        if path.endswith("/"):
            there = " (there is one without its trailing slash)"
        near = there if table.list_methods(other) else ""
        return HTTPException(404, f"No such route: {path[:200]}{near}")
    message = f"The method {method[:40]} is not allowed here: use {', '.join(allowed)}"
    return HTTPException(405, message, {"Allow": ", ".join(allowed)})


def _drop_body(send: Send) -> Send:
    """Return a `send` for HEAD (RFC 9110 §9.3.2), which sends everything but body bytes."""

    async def send_without_body(message: Message) -> None:
        if message["type"] not in _BODY_MESSAGES:
            await send(message)
        elif not message.get("more_body", False):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_without_body
