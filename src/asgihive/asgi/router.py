"""The router: which application answers a path and a method."""

import functools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgihive.asgi.exceptions import HTTPException, send_error
from asgihive.asgi.paths import (
    ANY_METHOD,
    Parameter,
    RouteTable,
    Segments,
    parameters_of,
    parse_template,
    route_path,
    with_trailing_slash,
)

RequestEndpoint = Callable[[Request], Awaitable[ASGIApp]]
WebSocketEndpoint = Callable[[WebSocket], Awaitable[None]]
_RequestEndpoint = TypeVar("_RequestEndpoint", bound=RequestEndpoint)
_WebSocketEndpoint = TypeVar("_WebSocketEndpoint", bound=WebSocketEndpoint)

_BODY_MESSAGES = {  # the second and third are ASGI extensions
    "http.response.body",
    "http.response.pathsend",
    "http.response.zerocopysend",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One registration of a `Router`, for whoever lists or documents them.

    `methods` are the registered ones: a GET route answers HEAD too. A WebSocket's handshake
    is a GET (RFC 6455 §4.1); a mount has `*`, every method, and `path` is its prefix.
    Of an endpoint function, `app` has it as `__wrapped__`.
    """

    kind: Literal["http", "websocket", "mount"]
    path: str
    methods: frozenset[str]
    name: str
    app: ASGIApp = field(repr=False)
    segments: Segments = field(repr=False)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The path parameters, in their order."""
        return parameters_of(self.segments)

    def __str__(self) -> str:
        what = ",".join(sorted(self.methods)) if self.kind == "http" else self.kind
        return f"{what} {self.path or '/'} ({self.name})"


class Router:
    """An ASGI application that hands http and websocket scopes to the routes it holds.

    Nothing is redirected. 404, 405 (with `Allow`) and rejected handshakes are answered as
    `HTTPException` renders them; exceptions of the routes are passed on, so put an
    `ErrorBoundary` around. Paths are matched as the server decoded them: an encoded slash
    is a slash. The application gets a copy of the scope with `path_params` set.

    Args:
        optional_trailing_slash: every route answers with and without one trailing slash.
            By default paths are exact. Mounts are not concerned: they answer both anyway.
    """

    def __init__(self, *, optional_trailing_slash: bool = False) -> None:
        self.optional_trailing_slash = optional_trailing_slash
        self._routes: list[Route] = []
        self._tables: dict[str, RouteTable[Route]] = {
            "http": RouteTable(),
            "websocket": RouteTable(),
        }

    @property
    def routes(self) -> tuple[Route, ...]:
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
        if isinstance(methods, str) or not methods:
            raise ValueError(f"The methods of {path!r} are a collection of at least one")
        return self._add_route("http", path, app, {each.upper() for each in methods}, name)

    def add_websocket(self, path: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer the websocket scopes of `path`; raises as `add`."""
        return self._add_route("websocket", path, app, {"GET"}, name)

    def mount(self, prefix: str, app: ASGIApp, name: str | None = None) -> Route:
        """Let an ASGI application answer everything below `prefix`, http and websocket.

        Routes win over mounts of the same place, longer static prefixes over shorter ones.
        The prefix moves to `root_path`, the full path stays in `path`, as the ASGI
        specification has it; `/prefix` alone arrives as `/prefix/`.

        Raises:
            ValueError: a bad prefix, or one that is mounted already.
        """
        prefix = prefix.rstrip("/")
        segments = parse_template(prefix + "/")[:-1]
        below = (*segments, Parameter("", "path"))
        route = Route("mount", prefix, frozenset({ANY_METHOD}), _name(app, name), app, segments)
        for table in self._tables.values():
            table.add((segments, below) if segments else (below,), route.methods, route)
        self._routes.append(route)
        return route

    def route(
        self, path: str, methods: Collection[str] = ("GET",), name: str | None = None
    ) -> Callable[[_RequestEndpoint], _RequestEndpoint]:
        """Decorate `async def endpoint(request)` which returns any ASGI response; as `add`."""

        def register(endpoint: _RequestEndpoint) -> _RequestEndpoint:
            self.add(path, _request_application(endpoint), methods, name)
            return endpoint

        return register

    get = functools.partialmethod(route, methods=("GET",))
    post = functools.partialmethod(route, methods=("POST",))
    put = functools.partialmethod(route, methods=("PUT",))
    patch = functools.partialmethod(route, methods=("PATCH",))
    delete = functools.partialmethod(route, methods=("DELETE",))

    def websocket(
        self, path: str, name: str | None = None
    ) -> Callable[[_WebSocketEndpoint], _WebSocketEndpoint]:
        """Decorate `async def endpoint(websocket)`; as `add_websocket`."""

        def register(endpoint: _WebSocketEndpoint) -> _WebSocketEndpoint:
            self.add_websocket(path, _websocket_application(endpoint), name)
            return endpoint

        return register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _complete_lifespan(receive, send)
            return
        table = self._tables[kind]
        path = route_path(scope) or "/"
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

    def _add_route(
        self,
        kind: Literal["http", "websocket"],
        path: str,
        app: ASGIApp,
        methods: Collection[str],
        name: str | None,
    ) -> Route:
        segments = parse_template(path)
        route = Route(kind, path, frozenset(methods), _name(app, name), app, segments)
        templates = with_trailing_slash(segments) if self.optional_trailing_slash else (segments,)
        self._tables[kind].add(templates, route.methods, route)
        self._routes.append(route)
        return route


def _name(app: ASGIApp, name: str | None) -> str:
    return name or str(getattr(app, "__name__", type(app).__name__))


def _path_params(scope: Scope, route: Route, captured: tuple[Any, ...]) -> dict[str, Any]:
    # A mount captures the rest of the path as well, which is no parameter of anyone.
    params = {each.name: value for each, value in zip(route.parameters, captured, strict=False)}
    return {**scope.get("path_params", {}), **params}


def _mounted_scope(scope: Scope, path: str, route: Route, captured: tuple[Any, ...]) -> Scope:
    below = "/" + captured[-1] if len(captured) > len(route.parameters) else ""
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


def _request_application(endpoint: RequestEndpoint) -> ASGIApp:
    @functools.wraps(endpoint)
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return application


def _websocket_application(endpoint: WebSocketEndpoint) -> ASGIApp:
    @functools.wraps(endpoint)
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await endpoint(WebSocket(scope, receive, send))

    return application


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
