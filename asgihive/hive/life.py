"""What a hive is made into for one life: states, router, plan, and the way of a request."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import Documentation, ErrorBoundary, Router
from asgihive.errors import ComponentError
from asgihive.hive.components import Component, ModuleHooks, class_of, life_object
from asgihive.hive.config import EXTERNAL_HOOKS, HiveConfig
from asgihive.hive.hooks import (
    Application,
    LifeContext,
    RequestStates,
    States,
    attach,
    call,
    is_overridden,
)
from asgihive.hive.lifespan import SETUP, TEARDOWN, Group, HookUnit, ManagerUnit, Plan
from asgihive.hive.requests import (
    POST_CALL,
    PRE_CALL,
    HookStep,
    ManagerStep,
    Outer,
    RequestHooks,
    RequestStep,
)

_STEPS = (*EXTERNAL_HOOKS, SETUP, TEARDOWN)


class Assembly:
    """One life of a hive.

    Args:
        hive: what requests and hooks see as the application.
        components: in start order.
        router: empty; everything is mounted into it.
        post_hook_seconds: see `RequestHooks`.
    """

    def __init__(
        self,
        hive: Application,
        config: HiveConfig,
        components: Sequence[Component],
        router: Router,
        post_hook_seconds: float,
    ) -> None:
        self.router = router
        self._hive = hive
        self._config = config
        self._seconds = post_hook_seconds
        self._cornerstones = [each for each in components if each.kind == "cornerstone"]
        self._endpoints = [each for each in components if each.kind == "endpoint"]
        self.cornerstones = States("cornerstone", self._metadata(self._cornerstones))
        self.endpoints = States("endpoint", self._metadata(self._endpoints))
        self._contexts = {each.key: self._context(each) for each in components}
        self._mounted = {
            each.key: MountedApplication(each.router, lifespan)
            for each in self._endpoints
            if each.router is not None and (lifespan := _lifespan_of(each.router)) is not None
        }
        self._request_hooks: list[RequestHooks] = []
        self._statuses: dict[type[Exception], int] = {}
        for each in components:
            self._statuses.update(each.statuses)

    def mount(self, documentation: Documentation | None) -> None:
        """Mount the endpoints' routers, and the documentation.

        Raises:
            ComponentError: a route is there already.
        """
        for each in self._endpoints:
            if each.router is not None and self._config.router_mount_automated:
                self._mount_endpoint(each, each.router)
        if documentation is not None:
            try:
                documentation.add_to(self.router)
            except ValueError as error:
                detail = f"{error}; docs=False leaves the documentation out"
                raise ComponentError("documentation", "of the hive", detail) from error

    def plan(self, documentation: Documentation | None) -> Plan:
        """What starts and stops, mounting included; makes the hooks objects.

        Raises:
            ComponentError: a hooks class cannot be called.
        """
        return Plan(
            external=self._external(),
            cornerstones=tuple(self._group(each, each.modules) for each in self._cornerstones),
            endpoints=tuple(self._endpoint_groups(each) for each in self._endpoints),
            mount=partial(self.mount, documentation),
        )

    def application(self) -> ASGIApp:
        """What answers requests with the routes of the hive."""
        steps = self._request_steps()
        app: ASGIApp
        if any(steps):
            app = self._around(self.router, steps)
        else:
            app = ErrorBoundary(self.router, self._statuses)
        hive, known = self._hive, self._metadata(self._cornerstones)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            state = {**scope.get("state", {}), "cornerstones": RequestStates(known)}
            await app({**scope, "app": hive, "state": state}, receive, send)

        return application

    def surrounding(self, app: ASGIApp) -> ASGIApp:
        """The hooks around another application, which keeps its own `scope["app"]`."""
        steps = self._request_steps()
        inner = self._around(Outer(app), steps) if steps else app
        hive, known = self._hive, self._metadata(self._cornerstones)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            state = {**scope.get("state", {}), "cornerstones": RequestStates(known)}
            await inner({"app": hive, **scope, "state": state}, receive, send)

        return application

    def _around(self, app: ASGIApp, steps: Sequence[Sequence[RequestStep]]) -> RequestHooks:
        hooks = RequestHooks(app, steps, self._statuses, self._seconds)
        self._request_hooks.append(hooks)
        return hooks

    async def left(self) -> None:
        """Return when the hooks after requests have run, or have had their time."""
        with anyio.move_on_after(self._seconds):
            for each in self._request_hooks:
                await each.left()

    @staticmethod
    def _metadata(components: Sequence[Component]) -> dict[str, Any]:
        return {each.key: each.metadata for each in components}

    def _context(self, component: Component) -> LifeContext:
        states = self.cornerstones if component.kind == "cornerstone" else self.endpoints
        state = states[component.key]
        state.update(component.state)
        return LifeContext(self._hive, component.metadata, state)

    def _mount_endpoint(self, component: Component, router: Router | ASGIApp) -> None:
        prefix = self._config.make_prefix(component.container, component.name)
        try:
            if isinstance(router, Router):
                tag = self._config.make_tag(component.container, component.name)
                self.router.include_router(router, prefix, tags=[tag])
            else:
                app = self._mounted.get(component.key, router)
                self.router.mount(prefix, app, name=_name_of_application(router))
        except ValueError as error:
            detail = f"cannot be mounted at {prefix or '/'}: {error}"
            raise ComponentError(component.key, component.file, detail) from error

    def _external(self) -> tuple[HookUnit, ...]:
        units = []
        for prefix in ("", "async_"):
            given = {step: getattr(self._config, prefix + step) for step in EXTERNAL_HOOKS}
            hooks = {step: partial(call, hook) for step, hook in given.items() if hook is not None}
            kind = "coroutine" if prefix else "plain"
            units.append(HookUnit("HiveConfig", f"its {kind} functions", hooks))
        return tuple(units)

    def _endpoint_groups(self, endpoint: Component) -> tuple[Group, ...]:
        groups = [self._group(endpoint, (part,)) for part in endpoint.modules]
        mounted = self._mounted.get(endpoint.key)
        if mounted is not None:
            unit = ManagerUnit(endpoint.key, endpoint.file, mounted.lifespan, mounted.keep)
            groups.append(Group(managers=(unit,)))
        return tuple(groups)

    def _group(self, component: Component, parts: Sequence[ModuleHooks]) -> Group:
        context = self._contexts[component.key]
        hooks: list[HookUnit] = []
        managers = []
        for part in parts:
            for each in part.hooks:
                try:
                    found = life_object(each)
                except Exception as error:
                    detail = f"{class_of(each).__name__}() failed: {type(error).__name__}: {error}"
                    raise ComponentError(component.key, part.file, detail) from error
                attach(found, context)
                steps = {
                    step: partial(call, getattr(found, step))
                    for step in _STEPS
                    if is_overridden(type(found), step)
                }
                hooks.append(HookUnit(component.key, part.file, steps))
            if part.lifespan is not None:
                make: Callable[[], Any] = partial(part.lifespan, context)
                managers.append(ManagerUnit(component.key, part.file, make))
        return Group(tuple(hooks), tuple(managers))

    def _request_steps(self) -> list[list[RequestStep]]:
        """By cornerstone; none for one that has no request hooks."""
        found: list[list[RequestStep]] = []
        for each in self._cornerstones:
            context = self._contexts[each.key]
            hooks: list[RequestStep] = [
                HookStep(each.key, context, hook)
                for part in each.modules
                for hook in part.hooks
                if any(is_overridden(class_of(hook), step) for step in (PRE_CALL, POST_CALL))
            ]
            managers: list[RequestStep] = [
                ManagerStep(each.key, context, part.request)
                for part in each.modules
                if part.request is not None
            ]
            if hooks or managers:
                found.append([*hooks, *managers])
        return found


class MountedApplication:
    """An application with a lifespan of its own; its requests see what that yields."""

    def __init__(
        self, app: ASGIApp, lifespan: Callable[[object], AbstractAsyncContextManager[object]]
    ) -> None:
        self.lifespan = partial(lifespan, app)
        self.__wrapped__ = app  # for whoever asks where it is written
        self._app = app
        self._state: Mapping[str, Any] = {}

    def keep(self, yielded: object) -> None:
        """Remember what the lifespan yielded, if it is a mapping."""
        self._state = yielded if isinstance(yielded, Mapping) else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._state:
            scope = {**scope, "state": {**scope["state"], **self._state}}
        await self._app(scope, receive, send)


def _lifespan_of(
    app: object,
) -> Callable[[object], AbstractAsyncContextManager[object]] | None:
    """`lifespan` of a hive and its like, `router.lifespan_context` of Starlette and FastAPI."""
    if isinstance(app, Router):
        return None
    found = getattr(app, "lifespan", None)
    if found is None:
        found = getattr(getattr(app, "router", None), "lifespan_context", None)
    return found if callable(found) else None


def _name_of_application(app: object) -> str:
    return str(getattr(app, "__name__", type(app).__name__))
