"""FastAPI's `APIRouter`s as endpoints: a FastAPI application answers them inside of the hive.

FastAPI is imported only where one of its routers is handed over.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.datastructures import URLPath
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import Router
from asgihive.asgi.call_plans import READ_ARGUMENT
from asgihive.asgi.layers import (
    LayeredState,
    LayeredUrls,
    adopt_before_answer,
    adopt_route,
    enter_layer,
    forget_route,
)
from asgihive.asgi.markers import MARKERS
from asgihive.asgi.signatures import HandlerError
from asgihive.errors import ConfigurationError, HiveError
from asgihive.hive.provided import Asked, ProvidedReader
from asgihive.hive.states import ComponentStates

_REST = "asgihive_rest"


APIRouterInclusion = tuple[Any, str, Sequence[str], Mapping[str, Any]]
"""A router, its prefix, its tags, and other arguments of FastAPI's `include_router`."""


def is_api_router(router: object) -> bool:
    """Return whether it is a `fastapi.APIRouter`."""
    kind = getattr(sys.modules.get("fastapi"), "APIRouter", None)
    return kind is not None and isinstance(router, kind)


def list_functions(router: Any) -> Iterator[Any]:
    """Yield the functions that answer the routes of an `APIRouter`, and of those it includes."""
    for route in router.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        for each in (route,) if contexts is None else contexts():
            function = getattr(getattr(each, "original_route", each), "endpoint", None)
            if function is not None:
                yield function


def list_asked_by_fastapi(app: Any) -> Iterator[Asked]:
    """Yield what the routes of a FastAPI application ask for by type."""
    for dependant, is_websocket in _list_dependants(app.router):
        yield from _list_asked_below(dependant, is_websocket, app.dependency_overrides)


def _list_asked_below(
    dependant: Any, is_websocket: bool, overrides: Mapping[Any, Any]
) -> Iterator[Asked]:
    for each in dependant.dependencies:
        if each.call in overrides:
            continue
        if isinstance(each.call, ProvidedReader):
            yield Asked(dependant.call, each.name, each.call.kind, is_websocket)
        yield from _list_asked_below(each, is_websocket, overrides)


def refuse_own_markers(router: Any) -> None:
    """Refuse asgihive's markers in what FastAPI calls: it passes over them.

    A guard would never run, and what a cornerstone provides would be read from the request.

    Raises:
        HandlerError: a parameter has one.
    """
    checked: set[int] = set()
    for dependant, _ in _list_dependants(router):
        for function in _list_called(dependant):
            if id(function) not in checked:
                checked.add(id(function))
                _refuse_in_function(function)


def _list_dependants(router: Any) -> Iterator[tuple[Any, bool]]:
    """Yield what FastAPI calls for each of its routes, and whether that is of websockets."""
    for route in router.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        for each in (route,) if contexts is None else contexts():
            # Of a websocket the context that FastAPI of 2026 has says nothing.
            known = getattr(each, "starlette_route", None) or each
            dependant = getattr(known, "dependant", None)
            if dependant is not None:
                yield dependant, not getattr(known, "methods", None)


def _list_called(dependant: Any) -> Iterator[Any]:
    """Yield the function of a FastAPI route, and its dependencies."""
    if dependant.call is not None:
        yield dependant.call
    for each in dependant.dependencies:
        yield from _list_called(each)


def _refuse_in_function(function: Any) -> None:
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError):  # FastAPI has understood it, or has refused it
        return
    foreign = sys.modules["fastapi.params"].Depends
    for each in parameters:
        said = (*getattr(each.annotation, "__metadata__", ()), each.default)
        own = next((one for one in said if isinstance(one, MARKERS)), None)
        if own is None or any(isinstance(one, foreign) for one in said):
            continue
        kind = type(own).__name__.replace("Dependency", "Depends")
        reason = (
            f"{kind} is asgihive's, and means nothing in a route of FastAPI; write fastapi.{kind}"
        )
        if hasattr(getattr(own, "function", None), READ_ARGUMENT):
            reason = "import fastapi before the module in which FromHive[…] is written"
        raise HandlerError(function, each.name, reason)


def check_fastapi(app: object) -> None:
    """Refuse what is no FastAPI application.

    Raises:
        ConfigurationError: it is none.
    """
    kind = getattr(sys.modules.get("fastapi"), "FastAPI", None)
    if kind is None or not isinstance(app, kind):
        detail = f"is {app!r}: a FastAPI application is accepted; others are mounted"
        raise ConfigurationError("app", detail)


def make_fastapi(title: str, version: str) -> Any:
    """Make a FastAPI application without documentation of its own."""
    from fastapi import FastAPI  # noqa: PLC0415  # the user has handed one of its routers over

    return FastAPI(title=title, version=version, openapi_url=None)


class FastAPIRoutes:
    """The routes of a FastAPI application, as far as they are those of one life of a hive.

    Routers are included into the application itself, so that its dependency overrides, exception
    handlers and middleware are theirs; `release` takes them out again.

    Args:
        app: the FastAPI application.
        cornerstones, endpoints: what it shows as `app.state.cornerstones` and `.endpoints`.
        has_own_routes: whether the application answers what the hive does not.
    """

    def __init__(
        self,
        app: Any,
        cornerstones: ComponentStates,
        endpoints: ComponentStates,
        *,
        has_own_routes: bool,
    ) -> None:
        self.app = app
        self._state: Mapping[str, Any] = {}
        # Whether each is mounted; the first one has all paths.
        self._prefixes: dict[str, bool] = {"": False} if has_own_routes else {}
        if hasattr(app.state, "asgihive_routes"):
            raise HiveError("The FastAPI application is that of a hive that runs: make another one")
        app.state.asgihive_routes = self
        app.state.cornerstones, app.state.endpoints = cornerstones, endpoints
        router = app.router
        # FastAPI takes over the start-up functions and the lifespan of what it includes.
        lists = (router.routes, *(getattr(router, each, []) for each in _EVENTS))
        self._before = [(each, [*each]) for each in lists]
        self._lifespan_before = router.lifespan_context

    def include(self, router: Any, prefix: str, tags: Sequence[str], **options: Any) -> None:
        """Include a router as FastAPI does.

        Raises:
            ValueError: FastAPI refuses it.
        """
        try:
            self.app.include_router(router, prefix=prefix, tags=[*tags], **options)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(str(error)) from error
        self.app.openapi_schema = None
        self._prefixes.setdefault(prefix, False)

    def mount(self, router: Router) -> None:
        """Let a router hand over what the application answers.

        Raises:
            ValueError: a path is taken, or a parameter has a marker of asgihive's.
        """
        refuse_own_markers(self.app.router)
        for prefix, is_mounted in self._prefixes.items():
            rest = f"{prefix}/{{{_REST}:path}}"
            if not is_mounted and not self._prefixes.get(""):  # which has them all
                for path in (prefix, rest) if prefix else (rest,):
                    router.add(path, self, ("*",), name="fastapi")
                    router.add_websocket(path, self, name="fastapi")
            self._prefixes[prefix] = True

    def openapi(self) -> dict[str, Any]:
        """Return the application's OpenAPI document."""
        document: dict[str, Any] = self.app.openapi()
        return document

    def release(self) -> None:
        """Take out of the application what was included."""
        for each, before in self._before:
            each[:] = before
        router = self.app.router
        router.lifespan_context = self._lifespan_before
        getattr(router, "_mark_routes_changed", lambda: None)()
        self.app.openapi_schema = None
        for name in ("cornerstones", "endpoints", "asgihive_routes"):
            if hasattr(self.app.state, name):
                delattr(self.app.state, name)

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Return what starts and stops the application, and what it has included."""
        manager: AbstractAsyncContextManager[object] = self.app.router.lifespan_context(self.app)
        return manager

    def keep_state(self, yielded: object) -> None:
        """Keep what the lifespan yielded, if it is a mapping."""
        self._state = yielded if isinstance(yielded, Mapping) else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = {name: each for name, each in scope["path_params"].items() if name != _REST}
        changes = {
            "app": self.app,
            "router": LayeredUrls(self.app.router, scope),
            "path_params": params,
        }
        if self._state:
            changes["state"] = LayeredState({**self._state}, scope["state"])
        if self.app.root_path:
            changes["root_path"] = self.app.root_path
        inner = enter_layer(scope, changes)
        for each in ("route", "endpoint"):
            inner.pop(each, None)
        try:
            send = adopt_before_answer(_adopt_route, inner, send)
            await self._find_application()(inner, receive, send)
        finally:
            _adopt_route(inner)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Return the path of a route of the application; as that does."""
        path: URLPath = self.app.router.url_path_for(name, **path_params)
        return path

    def _find_application(self) -> ASGIApp:
        """Return what answers: what the application does not handle is left to the hive."""
        from starlette.middleware.errors import (  # noqa: PLC0415  # FastAPI imports it, Hive not
            ServerErrorMiddleware,
        )

        app = self.app
        if app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()
        stack = app.middleware_stack
        if type(stack) is ServerErrorMiddleware and stack.handler is None and not stack.debug:
            return stack.app
        found: ASGIApp = stack
        return found


def _adopt_route(inner: Scope) -> None:
    """Tell which route of the application answers, if one does."""
    # FastAPI of 2026 has the route as it was before it was included, and beside it this.
    context = inner.get("fastapi", {}).get("effective_route_context")
    if context is not None:
        inner["route"] = context.starlette_route or context
    (adopt_route if "route" in inner else forget_route)(inner)


_EVENTS = ("on_startup", "on_shutdown")
