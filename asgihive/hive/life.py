"""`Life`: what a hive is made into for one start-to-stop."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import Documentation, ErrorBoundary, Router
from asgihive.errors import ComponentError
from asgihive.hive.components import Component, ModuleHooks, get_class
from asgihive.hive.config import EXTERNAL_HOOKS, HiveConfig
from asgihive.hive.hooks import (
    ComponentStates,
    HiveInterface,
    LifeContext,
    RequestStates,
    attach_context,
    is_overridden,
    run_hook,
)
from asgihive.hive.lifespan import SETUP, TEARDOWN, HookUnit, LifePlan, ManagerUnit, UnitGroup
from asgihive.hive.requests import (
    POST_CALL,
    PRE_CALL,
    FailureKeeper,
    HookStep,
    ManagerStep,
    RequestHooks,
    RequestStep,
)

_STEPS = (*EXTERNAL_HOOKS, SETUP, TEARDOWN)


class Life:
    """One life of a hive: its states, its router, its plan, and the way of a request.

    Args:
        hive: what requests and hooks see as the application.
        components: in start order.
        router: everything is mounted into it.
        post_hook_seconds: see `RequestHooks`.
    """

    def __init__(
        self,
        hive: HiveInterface,
        config: HiveConfig,
        components: Sequence[Component],
        router: Router,
        post_hook_seconds: float,
    ) -> None:
        self.router = router
        self._hive = hive
        self._config = config
        self._post_hook_seconds = post_hook_seconds
        self._cornerstones = [each for each in components if each.kind == "cornerstone"]
        self._endpoints = [each for each in components if each.kind == "endpoint"]
        self._known = {each.key: each for each in self._cornerstones}
        self.cornerstones = ComponentStates("cornerstone", self._cornerstones)
        self.endpoints = ComponentStates("endpoint", self._endpoints)
        self._contexts: dict[str, LifeContext] = {}
        self._mounted: dict[str, MountedApplication] = {}
        self._statuses: dict[type[Exception], int] = {}
        self._request_hooks: list[RequestHooks] = []
        for each in components:
            states = self.cornerstones if each.kind == "cornerstone" else self.endpoints
            states[each.key].update(each.state)
            self._contexts[each.key] = LifeContext(hive, each, states[each.key])
            self._statuses.update(each.statuses)
            lifespan = _find_lifespan(each.router)
            if each.router is not None and lifespan is not None:
                self._mounted[each.key] = MountedApplication(each.router, lifespan)

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

    def make_plan(self, documentation: Documentation | None) -> LifePlan:
        """Make the hooks objects, and plan what starts and stops, mounting included.

        Raises:
            ComponentError: a hooks class cannot be called.
        """
        external = []
        for prefix, kind in (("", "plain"), ("async_", "coroutine")):
            given = {step: getattr(self._config, prefix + step) for step in EXTERNAL_HOOKS}
            hooks = {step: partial(run_hook, hook) for step, hook in given.items() if hook}
            external.append(HookUnit("HiveConfig", f"its {kind} functions", hooks))
        endpoints = []
        for each in self._endpoints:
            groups = [self._make_group(each, (module,)) for module in each.modules]
            mounted = self._mounted.get(each.key)
            if mounted is not None:
                unit = ManagerUnit(each.key, each.file, mounted.lifespan, mounted.keep_state)
                groups.append(UnitGroup(managers=(unit,)))
            endpoints.append(tuple(groups))
        return LifePlan(
            external=tuple(external),
            cornerstones=tuple(self._make_group(each, each.modules) for each in self._cornerstones),
            endpoints=tuple(endpoints),
            mount=partial(self.mount, documentation),
        )

    def make_application(self, app: ASGIApp | None = None) -> ASGIApp:
        """Make the ASGI application that answers requests.

        Args:
            app: another application around which the hooks run; it keeps its own
                `scope["app"]`. By default the routes of the hive answer.
        """
        steps = self._list_request_steps()
        inner: ASGIApp
        if steps:
            around = self.router if app is None else FailureKeeper(app)
            inner = RequestHooks(around, steps, self._statuses, self._post_hook_seconds)
            self._request_hooks.append(inner)
        else:
            inner = ErrorBoundary(self.router, self._statuses) if app is None else app
        hive, known, is_own = self._hive, self._known, app is None

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            state = {**scope.get("state", {}), "cornerstones": RequestStates(known)}
            scope = {**scope, "state": state}
            if is_own or "app" not in scope:
                scope["app"] = hive
            await inner(scope, receive, send)

        return application

    async def wait_for_request_hooks(self) -> None:
        """Return when the hooks after requests have run, or have had their time."""
        with anyio.move_on_after(self._post_hook_seconds):
            for each in self._request_hooks:
                await each.wait_until_finished()

    def _mount_endpoint(self, component: Component, router: Router | ASGIApp) -> None:
        prefix = self._config.make_prefix(component.container, component.name)
        try:
            if isinstance(router, Router):
                tag = self._config.make_tag(component.container, component.name)
                self.router.include_router(router, prefix, tags=[tag])
            else:
                name = str(getattr(router, "__name__", type(router).__name__))
                self.router.mount(prefix, self._mounted.get(component.key, router), name=name)
        except ValueError as error:
            detail = f"cannot be mounted at {prefix or '/'}: {error}"
            raise ComponentError(component.key, component.file, detail) from error

    def _make_group(self, component: Component, modules: Sequence[ModuleHooks]) -> UnitGroup:
        context = self._contexts[component.key]
        units: list[HookUnit] = []
        managers = []
        for module in modules:
            for each in module.hooks:
                try:
                    hooks = each() if isinstance(each, type) else each
                except Exception as error:
                    detail = f"{get_class(each).__name__}() failed: {type(error).__name__}: {error}"
                    raise ComponentError(component.key, module.file, detail) from error
                attach_context(hooks, context)
                steps = {
                    step: partial(run_hook, getattr(hooks, step))
                    for step in _STEPS
                    if is_overridden(type(hooks), step)
                }
                units.append(HookUnit(component.key, module.file, steps))
            if module.lifespan is not None:
                make: Callable[[], Any] = partial(module.lifespan, context)
                managers.append(ManagerUnit(component.key, module.file, make))
        return UnitGroup(tuple(units), tuple(managers))

    def _list_request_steps(self) -> list[list[RequestStep]]:
        """List them by cornerstone, without those that have no request hooks."""
        groups: list[list[RequestStep]] = []
        for each in self._cornerstones:
            context = self._contexts[each.key]
            group: list[RequestStep] = [
                HookStep(each.key, context, hooks)
                for module in each.modules
                for hooks in module.hooks
                if any(is_overridden(get_class(hooks), step) for step in (PRE_CALL, POST_CALL))
            ]
            group += [
                ManagerStep(each.key, context, module.request)
                for module in each.modules
                if module.request is not None
            ]
            groups += [group] if group else []
        return groups


class MountedApplication:
    """An application with a lifespan of its own; its requests see what that yields."""

    def __init__(
        self, app: ASGIApp, lifespan: Callable[[object], AbstractAsyncContextManager[object]]
    ) -> None:
        self.lifespan = partial(lifespan, app)
        self.__wrapped__ = app  # `inspect.unwrap` finds where it is written
        self._app = app
        self._state: Mapping[str, Any] = {}

    def keep_state(self, yielded: object) -> None:
        """Keep what the lifespan yielded, if it is a mapping."""
        self._state = yielded if isinstance(yielded, Mapping) else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._state:
            scope = {**scope, "state": {**scope["state"], **self._state}}
        await self._app(scope, receive, send)


def _find_lifespan(
    app: object,
) -> Callable[[object], AbstractAsyncContextManager[object]] | None:
    """Find `lifespan` of a hive and its like, or `router.lifespan_context` of Starlette's."""
    if isinstance(app, Router):
        return None
    found = getattr(app, "lifespan", None)
    if found is None:
        found = getattr(getattr(app, "router", None), "lifespan_context", None)
    return found if callable(found) else None
