"""`Hive`: an ASGI application out of cornerstones and endpoints."""

import importlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Never, NoReturn, TypeVar

from starlette.datastructures import State, URLPath
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import (
    Documentation,
    HTTPException,
    Route,
    Router,
    find_location,
    find_name,
    list_routes,
    send_error,
)
from asgihive.asgi.gate import SEND_TIMEOUT_SECONDS, Gate
from asgihive.asgi.layers import NamedRoutes
from asgihive.concurrency import run_in_worker
from asgihive.errors import (
    ComponentError,
    ConfigurationError,
    HiveError,
    HiveRunning,
    join_names,
    suggest_name,
)
from asgihive.hive.components import Component, make_replacement
from asgihive.hive.config import EXTERNAL_HOOKS, HiveConfig
from asgihive.hive.discovery import (
    FoundComponent,
    find_components,
    find_installed,
    load_component,
)
from asgihive.hive.documentation import HiveDocumentation
from asgihive.hive.fastapi_routers import (
    APIRouterInclusion,
    FastAPIRoutes,
    check_fastapi,
    is_api_router,
    make_fastapi,
)
from asgihive.hive.graph import (
    GraphNode,
    RouteRecord,
    add_types,
    record_foreign_routes,
    refuse_duplicates,
    sort_components,
)
from asgihive.hive.imports import Builder, Importer, find_builder
from asgihive.hive.in_flight import RequestsInFlight
from asgihive.hive.life import Life
from asgihive.hive.lifespan import run_plan
from asgihive.hive.lifespan_protocol import answer_lifespan
from asgihive.hive.mounted import MountedApplication
from asgihive.hive.other_names import describe_arguments, describe_attribute
from asgihive.hive.provided import NotProvided
from asgihive.hive.states import ComponentKind, ComponentStates

_HOW_TO_START = (
    "serve it by itself, under a server that runs the lifespan (uvicorn: --lifespan on); "
    "where it is mounted or a middleware, give the outer application `lifespan=hive.lifespan`; "
    "in tests, use `async with hive.running(): …`"
)
T = TypeVar("T")
Phase = Literal["never started", "starting", "running", "stopping", "stopped"]


class Hive:
    """An ASGI application that finds its components in packages.

    They are found when it is built and imported when it starts. It is started by its server,
    by `lifespan=hive.lifespan` of an outer application, or by `async with hive.running()`;
    it can be stopped and started again, on another event loop too. Until it runs it answers
    503, unless all of its components were built in code as `needs_lifespan=False`.

    `router` and `include_router`, `mount` register routes at the hive itself: before it is
    started for every life, from hooks for the one that begins.

    Args:
        config: `HiveConfig.from_environment()` by default.
        cornerstones: further ones, built in code.
        endpoints: further ones, likewise.
        title: of the OpenAPI document; by default that of `app`.
        version: of the OpenAPI document; by default that of `app`.
        tags: of the OpenAPI document: by tag its description.
        docs: whether `/openapi.json` and `/docs` are there.
        base: the folder that relative package paths begin at; by default that of the file
            which calls this.
        entry_points: whether installed distributions add components.
        post_hook_seconds: how long a hook after a request may take.
        shutdown_seconds: how long shutdown waits for requests that are still being answered.
            Then they are cancelled, and their hooks and cleanups run before the teardown.
        send_timeout_seconds: how long a client may take for one part of a response, before its
            connection is dropped.
        optional_trailing_slash: see `Router`.
        app: a FastAPI application, which answers what the hive does not, and into which endpoints'
            `APIRouter`s are included; its lifespan runs with the hive's. Without one, the hive
            makes one where it is needed.
        middleware: Starlette's `Middleware(…)`, outermost first, around hooks and routes, of http
            and of websockets.

    Raises:
        ConfigurationError: a field or a package path cannot be used.
    """

    def __init__(  # noqa: PLR0913  # given by name, and each is one fact
        self,
        config: HiveConfig | None = None,
        *,
        cornerstones: Sequence[Component] = (),
        endpoints: Sequence[Component] = (),
        title: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        docs: bool = True,
        base: str | os.PathLike[str] | None = None,
        entry_points: bool = True,
        post_hook_seconds: float = 10.0,
        shutdown_seconds: float = 10.0,
        send_timeout_seconds: float = SEND_TIMEOUT_SECONDS,
        optional_trailing_slash: bool = False,
        middleware: Sequence[Middleware] = (),
        app: Any = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise TypeError(describe_arguments(unknown, HiveConfig.__struct_fields__))
        self.config = HiveConfig.from_environment() if config is None else config
        self.state = State()
        if app is not None:
            check_fastapi(app)
        self._app = app
        self._has_own_fastapi = app is not None
        self._api_routers: list[APIRouterInclusion] = []
        self._title = title or str(getattr(app, "title", "asgihive"))
        self._version = version or str(getattr(app, "version", "0.1.0"))
        self._tags = tags
        self._docs = docs
        self._post_hook_seconds = post_hook_seconds
        self._shutdown_seconds = shutdown_seconds
        self._optional_trailing_slash = optional_trailing_slash
        _check_middleware(middleware)
        self._middleware = [*middleware]
        builder = find_builder(sys._getframe(1))  # noqa: SLF001  # as `logging` and `warnings` do
        if base is not None:
            builder = Builder(os.path.abspath(base))
        self._importer = Importer(builder)
        installed = find_installed() if entry_points else ()
        self._built = (*cornerstones, *endpoints)
        self._found = (*find_components(self.config, builder.folder), *installed)
        _check_kind("cornerstone", cornerstones)
        _check_kind("endpoint", endpoints)
        # Now, so that what else is imported afterwards is the same module.
        for folder in dict.fromkeys(each.folder for each in self._found if each.folder):
            self._importer.name_container(folder)
        self._records: tuple[FoundComponent | Component, ...] = (*self._built, *self._found)
        self._loaded: dict[str, Component] = {}
        self._overrides: dict[str, Component] = {}
        self._own = self._make_router()
        self._life: Life | None = None
        self._phase: Phase = "never started"
        self.gate = Gate(self._answer_unavailable, send_timeout_seconds=send_timeout_seconds)
        self._idle: Life | None = None
        self.life: Life | None = None
        """The life that answers now, also that of a hive that answers without a lifespan."""
        self._make_idle()

    if not TYPE_CHECKING:  # type checkers know what there is

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(describe_attribute(name), name=name, obj=self)

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and is not being stopped."""
        return self._phase in {"starting", "running"}

    @property
    def router(self) -> Router:
        """That of the life that has begun; else what code registers for every life."""
        return self._own if self._life is None else self._life.router

    @property
    def routes(self) -> tuple[NamedRoutes, ...]:
        """What Starlette looks for in what it mounts; `route_records` lists the routes."""
        return (NamedRoutes(self),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(self.running, receive, send)
            return
        life = self.life
        if life is not None:
            scope = life.enter(scope)
        await self.gate(scope, receive, send)

    @property
    def fastapi(self) -> Any:
        """The FastAPI application of the endpoints that have an `APIRouter`; `app`, if given.

        Tests set its `dependency_overrides`.
        """
        if self._app is None:
            self._app = make_fastapi(self._title, self._version)
        return self._app

    def include_router(
        self, router: Any, prefix: str = "", *, tags: Sequence[str] = (), **options: Any
    ) -> tuple[Route, ...]:
        """Do as `Router.include_router`, at the hive's own root: `api_prefix` is not added.

        Args:
            router: a `Router`, or an `APIRouter` of FastAPI.
            options: of FastAPI's `include_router`, for an `APIRouter`.
        """
        if not is_api_router(router):
            return self.router.include_router(router, prefix, tags=tags, **options)
        inclusion = (router, prefix, tags, options)
        if self._life is None:
            self._api_routers.append(inclusion)
        else:
            self._life.include_api_router(inclusion)
        return ()

    def mount(self, prefix: str, app: ASGIApp, name: str | None = None) -> Route:
        """Do as `Router.mount`, at the hive's own root: `api_prefix` is not added.

        The lifespan of the application, if it has one, runs with the hive's: it starts when the
        endpoints are mounted.
        """
        name = name or str(getattr(app, "__name__", type(app).__name__))
        is_router = isinstance(app, Router | MountedApplication)
        return self.router.mount(prefix, app if is_router else MountedApplication(app), name)

    def add_middleware(self, middleware: Callable[..., ASGIApp], *args: Any, **kwargs: Any) -> None:
        """Put a middleware around all others, as Starlette's method of that name does.

        Before the hive is started it is for every life; from a hook of start-up for the one that
        begins.

        Args:
            middleware: a class, or a function, called with the application, `args` and `kwargs`.

        Raises:
            HiveRunning: the hive runs, so that it is too late.
        """
        added = Middleware(middleware, *args, **kwargs)
        if self._phase == "starting" and self._life is not None:
            self._life.middleware.insert(0, added)
            return
        self._refuse_if_running(
            "take a middleware any more, which a hook of start-up, or code before it, can add"
        )
        self._middleware.insert(0, added)
        self._return_to_idle()

    def ask(self, kind: type[T]) -> T:
        """Return the value of a type that a cornerstone provides for the life.

        Raises:
            NotProvided: there is none, or the hive does not run.
        """
        life = self.life
        if life is None:
            raise NotProvided(f"This hive is {self._phase} and provides nothing")
        if kind not in life.provided.values:
            raise life.provided.refuse(kind, "for the life")
        found: T = life.provided.values[kind]
        return found

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Do as `Router.url_path_for`: `request.url_for` in a hook asks this."""
        return self.router.url_path_for(name, **path_params)

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """Return the lifespan for an outer application: a mounted one gets no lifespan events."""
        return self.running()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the hive in the calling task, and stop it there at the end.

        Components are imported in a worker thread. What start-up and shutdown raise, and in
        which order they go on, is said at `asgihive.hive.lifespan.run_plan`.

        Raises:
            HiveRunning: it runs already.
            ComponentError: a component cannot be imported, ordered, made or mounted.
            HookFailed, ExceptionGroup: hooks failed.
        """
        self._refuse_if_running("be started")
        self._phase = "starting"
        try:
            components, _ = await run_in_worker(self._sort_components)
            life = self._life = self._make_life(components)
            requests = life.requests = RequestsInFlight()
            self._show_states(life)
            async with run_plan(life.make_plan(self._make_documentation(life.router))):
                life.check_asked()
                self.gate.app, self.gate.errors = life.make_application(), life.errors.send
                self.life = life
                life.warn_of_silent_hooks()
                self._phase = "running"
                try:
                    yield
                finally:
                    self._phase = "stopping"
                    self.life = None
                    self.gate.app = self._answer_unavailable
                    cleanup_seconds = max(self._post_hook_seconds, self._shutdown_seconds)
                    await requests.end(self._shutdown_seconds, cleanup_seconds)
        finally:
            if self._life is not None:
                self._life.release()
            self._phase = "stopped"
            self._life = None
            self.gate.errors = None
            if self._is_idle_stale:
                self._make_idle()
            else:
                self._return_to_idle()

    @contextmanager
    def override(self, key: str, fake: object) -> Iterator[None]:
        """Put something else in the place of a component, for the lives that begin inside.

        The real one is not imported then.

        Args:
            key: `container.name`.
            fake: a hooks class or object, a mapping (what its `app_state` holds), for an
                endpoint also a `Router` or an ASGI application, a `Component`, or anything with
                the names that a module offers.

        Raises:
            HiveRunning: it is too late.
            ComponentError: there is no such component, or `fake` cannot be used.
        """
        self._refuse_if_running("override a component")
        known = {each.key: each for each in self._records}
        if key not in known:
            there = join_names(known, "none")
            detail = f"there is no such component{suggest_name(key, known)}; there is: {there}"
            raise ComponentError(key, "an override", detail)
        real = known[key]
        before = dict(self._overrides)
        self._overrides[key] = make_replacement(real.kind, real.container, real.name, fake)
        try:
            self._make_idle()
            yield
        finally:
            self._overrides = before
            self._make_idle()

    def graph(self) -> tuple[GraphNode, ...]:
        """Return the components in start order, and what they require; import them.

        Raises:
            ComponentError: as `running`.
        """
        components, nodes = self._sort_components()
        return add_types(components, nodes)

    def route_records(self) -> tuple[RouteRecord, ...]:
        """List every route, those of mounted routers too; import the components, run no hook.

        Of a running hive also list what its hooks mounted.

        Raises:
            ComponentError: as `running`.
        """
        with self._showing() as life:
            return tuple(self._list_records(life.router))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; as `route_records`. Of a hive without one it is empty.

        Raises:
            ComponentError: as `running`.
        """
        with self._showing() as life:
            documentation = self._make_documentation(life.router)
            return {} if documentation is None else documentation.document()

    @contextmanager
    def _showing(self) -> Iterator[Life]:
        """Give the life that answers, or one that only has its routes."""
        life = self.life or self._life
        if life is not None:
            yield life
            return
        life = self._make_life(self._sort_components()[0])
        try:
            life.mount(self._make_documentation(life.router))
            yield life
        finally:
            life.release()

    def _list_records(self, router: Router) -> Iterator[RouteRecord]:
        seen: set[int] = set()
        routes = [*list_routes(router)]
        own = {path for path, route in routes if not isinstance(route.target, FastAPIRoutes)}
        for path, route in routes:
            app: Any = None if route.is_handler else inspect.unwrap(route.target)
            below: Iterable[RouteRecord] = ()
            if isinstance(app, Hive):
                below = (replace(each, url=path + each.url) for each in app.route_records())
            elif isinstance(app, FastAPIRoutes):
                if id(app) not in seen:  # the hive answers what both have
                    found = record_foreign_routes(app.app.routes, "")
                    below = (each for each in found if each.url not in own)
                seen.add(id(app))
            elif isinstance(getattr(app, "routes", None), list):  # Starlette's, FastAPI's
                below = record_foreign_routes(app.routes, path)
            else:
                below = (_make_record(path, route),)
            yield from below

    async def _answer_unavailable(self, scope: Scope, receive: Receive, send: Send) -> None:
        how = f": {_HOW_TO_START}" if self._phase in {"never started", "stopped"} else ""
        was = "was" if self._phase == "never started" else "is"
        message = f"This hive {was} {self._phase}{how}"
        await send_error(HTTPException(503, message), scope, receive, send)

    def _make_idle(self) -> None:
        """Make the life that answers without a lifespan, if there can be one.

        A hive that runs makes it when it has stopped.
        """
        self._is_idle_stale = self._phase not in {"never started", "stopped"}
        if self._is_idle_stale:
            return
        if self._can_answer_without_lifespan():
            self._idle = self._make_life(self._sort_components()[0])
            self._idle.mount(self._make_documentation(self._idle.router))
        self._return_to_idle()

    def _return_to_idle(self) -> None:
        """Answer as a hive that does not run."""
        self.life = idle = self._idle
        self.gate.app = self._answer_unavailable
        if idle is not None:
            idle.middleware = [*self._middleware]
            self.gate.app, self.gate.errors = idle.make_application(), idle.errors.send
        self._show_states(idle)

    def _show_states(self, life: Life | None) -> None:
        empty = ComponentStates("cornerstone", ()), ComponentStates("endpoint", ())
        states = empty if life is None else (life.cornerstones, life.endpoints)
        self.state.cornerstones, self.state.endpoints = states

    def _refuse_if_running(self, what: str) -> None:
        if self._phase in {"starting", "running", "stopping"}:
            text = f"This hive is {self._phase} and cannot {what}: stop it, or build another one"
            raise HiveRunning(text)

    def _can_answer_without_lifespan(self) -> bool:
        hooks = (*EXTERNAL_HOOKS, *(f"async_{each}" for each in EXTERNAL_HOOKS))
        needs = any(getattr(self.config, each) is not None for each in hooks)
        needs = needs or any(each.needs_lifespan for each in self._built)
        needs = needs or self._has_own_fastapi or any(is_api_router(e.router) for e in self._built)
        return bool(self._built) and not self._found and not needs

    def _sort_components(self) -> tuple[list[Component], tuple[GraphNode, ...]]:
        """Import the components that are not overridden, and sort all of them."""
        refuse_duplicates(self._records)
        importlib.invalidate_caches()  # for files that are as young as the last look at them
        components = {}
        for each in self._records:
            component = self._overrides.get(each.key) or self._loaded.get(each.key)
            if component is None:
                if isinstance(each, Component):
                    component = each
                else:
                    component = load_component(each, self._importer)
                self._loaded[each.key] = component
            components[each.key] = component
        nodes = sort_components([*components.values()])
        return [components[node.key] for node in nodes], nodes

    def _make_life(self, components: Sequence[Component]) -> Life:
        router = self._make_router()
        router.overrides = self._own.overrides  # of every life, and of the endpoints too
        router.include_router(self._own)
        life = Life(
            self, self.config, components, router, self._post_hook_seconds, self._open_fastapi
        )
        life.api_routers += self._api_routers
        life.has_fastapi = self._has_own_fastapi
        life.middleware += self._middleware
        return life

    def _open_fastapi(
        self, cornerstones: ComponentStates, endpoints: ComponentStates
    ) -> FastAPIRoutes:
        has_own = self._has_own_fastapi
        return FastAPIRoutes(self.fastapi, cornerstones, endpoints, has_own_routes=has_own)

    def _make_router(self) -> Router:
        return Router(optional_trailing_slash=self._optional_trailing_slash)

    def _make_documentation(self, router: Router) -> Documentation | None:
        if not self._docs:
            return None
        return HiveDocumentation(router, title=self._title, version=self._version, tags=self._tags)


class HiveMiddleware:
    """Runs the request hooks of `hive` around `app`, and gives its routes the states.

    The routes find `request.app.state.cornerstones` and `.endpoints` at their own
    application, and `request.state.cornerstones`. An exception that they raise goes on to the
    outer application, after the hooks after the request; `status` is None then, since nothing
    was sent yet. What hooks raise is answered here.

    It starts nothing: give the application `lifespan=hive.lifespan`. A hive that does not
    run answers 503.

    Args:
        app: the next application; Starlette and FastAPI give it themselves:
            `Middleware(HiveMiddleware, hive=hive)`.
        hive: whose hooks and states.

    Raises:
        HiveError: at a request: another hive gives its states to the application already.
    """

    def __init__(self, app: ASGIApp, hive: Hive) -> None:
        self.app = app
        self.hive = hive
        self._life: Life | None = None
        self._answer: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        life = self.hive.life
        if life is None:
            await self.hive(scope, receive, send)
            return
        if life is not self._life:
            for app in (scope.get("app"), self.app):
                self._give_states(app, life)
            self._life, self._answer = life, life.make_application(self.app)
        await self._answer(life.surround(scope), receive, send)

    def _give_states(self, app: object, life: Life) -> None:
        state = getattr(app, "state", None)
        if state is None or app is self.hive:
            return
        if getattr(state, "asgihive", self.hive) is not self.hive:
            message = "The application has the states of another hive already: give it one only"
            raise HiveError(message)
        state.asgihive = self.hive
        state.cornerstones = life.cornerstones
        state.endpoints = life.endpoints


def _check_middleware(middleware: Sequence[object]) -> None:
    for each in middleware:
        if not isinstance(each, Middleware):
            detail = f"has {each!r}: Middleware(…) of starlette.middleware is accepted"
            raise ConfigurationError("middleware", detail)


def _check_kind(kind: ComponentKind, components: Sequence[Component]) -> None:
    for each in components:
        if not isinstance(each, Component) or each.kind != kind:
            detail = f"has {each!r}: a Component of the kind {kind} is accepted"
            raise ConfigurationError(f"{kind}s", detail)


def _make_record(path: str, route: Route) -> RouteRecord:
    target = route.target
    file, _, line = find_location(target).rpartition(":")
    return RouteRecord(
        methods=("WEBSOCKET",) if route.kind == "websocket" else tuple(sorted(route.methods)),
        url=path or "/",
        tag=", ".join(route.options.tags),
        handler=find_name(target) if route.handler is not None else route.name,
        file=file,
        line=int(line) if line.isdigit() else 0,
    )
