"""`Life`: what a hive is made into for one start-to-stop."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Scope

from asgihive.asgi import Documentation, Router, find_location, find_name, list_routes
from asgihive.asgi.gate import Gate
from asgihive.asgi.layers import LayeredState, LayeredUrls, enter_layer
from asgihive.errors import ComponentError, ConfigurationError
from asgihive.hive.components import Component, ModuleHooks, get_class, list_provided
from asgihive.hive.config import EXTERNAL_HOOKS, HiveConfig
from asgihive.hive.contexts import HiveInterface, LifeContext
from asgihive.hive.error_answers import ErrorAnswers, ErrorRules
from asgihive.hive.fastapi_routers import (
    APIRouterInclusion,
    FastAPIRoutes,
    is_api_router,
    list_asked_by_fastapi,
    list_functions,
)
from asgihive.hive.graph import record_foreign_routes
from asgihive.hive.hooks import attach_context, is_overridden, run_hook
from asgihive.hive.in_flight import RequestsInFlight, answer_stopping
from asgihive.hive.lifespan import (
    SETUP,
    TEARDOWN,
    HookUnit,
    LifePlan,
    ManagerUnit,
    UnitGroup,
)
from asgihive.hive.mounted import MountedApplication
from asgihive.hive.provided import (
    ProvidedReader,
    ProvidedValues,
    format_type,
    list_asked,
)
from asgihive.hive.requests import (
    REQUEST_STEPS,
    HookStep,
    ManagerStep,
    RequestHooks,
    RequestStep,
)
from asgihive.hive.states import ComponentStates, Metadata, RequestStates

_logger = logging.getLogger("asgihive.hive")

_STEPS = (*EXTERNAL_HOOKS, SETUP, TEARDOWN)


def _keep_yielded(states: list[dict[str, Any]], yielded: object) -> None:
    """Let the mounts of an application show what its lifespan yielded, if it is a mapping."""
    for each in states:
        each.update(yielded if isinstance(yielded, Mapping) else {})


class Life:
    """One life of a hive: its states, its router, its plan, and the way of a request.

    Args:
        hive: what requests and hooks see as the application.
        components: in start order.
        router: everything is mounted into it.
        post_hook_seconds: see `RequestHooks`.
        open_fastapi: makes what answers for FastAPI's routers.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # each is one fact
        self,
        hive: HiveInterface,
        config: HiveConfig,
        components: Sequence[Component],
        router: Router,
        post_hook_seconds: float,
        open_fastapi: Callable[[ComponentStates, ComponentStates], FastAPIRoutes],
    ) -> None:
        self._open_fastapi = open_fastapi
        self._is_mounted = False
        self.router = router
        self._hive = hive
        self._config = config
        self._post_hook_seconds = post_hook_seconds
        self._cornerstones = [each for each in components if each.kind == "cornerstone"]
        self._endpoints = [each for each in components if each.kind == "endpoint"]
        self.known: Mapping[str, Metadata] = {each.key: each for each in self._cornerstones}
        """The cornerstones, by `container.name`."""
        self.cornerstones = ComponentStates("cornerstone", self._cornerstones)
        self.endpoints = ComponentStates("endpoint", self._endpoints)
        self._contexts: dict[str, LifeContext] = {}
        self._mounted: dict[str, MountedApplication] = {}
        self._outer_units: dict[int, ManagerUnit] = {}
        self._yielded: dict[int, list[dict[str, Any]]] = {}
        self.provided = ProvidedValues()
        """What cornerstones provide by type."""
        self.errors = ErrorAnswers()
        """What answers exceptions."""
        self.middleware: list[Middleware] = []
        """Around the hooks and the routes, outermost first."""
        self.api_routers: list[APIRouterInclusion] = []
        """FastAPI's routers that are to be included when the endpoints are mounted."""
        self.has_fastapi = False
        """Whether a FastAPI application answers what the hive does not."""
        self._fastapi: FastAPIRoutes | None = None
        self.requests: RequestsInFlight | None = None
        """Those being answered; None where no shutdown waits for them."""
        for each in components:
            states = self.cornerstones if each.kind == "cornerstone" else self.endpoints
            for key, value in each.state.items():
                if isinstance(key, str):
                    states[each.key][key] = value
            self._contexts[each.key] = LifeContext(hive, each, states[each.key], self.provided)
            if each.kind == "cornerstone":
                self._add_provided(each)
            has_own = isinstance(each.router, Router) or is_api_router(each.router)
            if each.router is not None and not has_own:
                self._mounted[each.key] = MountedApplication(each.router)
            self._add_error_rules(each)
        if self.errors.common.answers:
            router.refuse = self.errors.refuse

    def _add_provided(self, component: Component) -> None:
        for kind in list_provided(component):
            self.provided.declare(kind, component.key, component.file)
        for kind, value in component.state.items():
            if not isinstance(kind, str):
                self.provided.provide(component.key, kind, value)

    def check_asked(self) -> None:
        """Check that some cornerstone provides what handlers and dependencies ask for by type.

        Raises:
            ComponentError: none does, or not for websockets.
        """
        if not ProvidedReader.are_used:
            return
        steps = self._list_request_steps()
        of_websockets = {each.owner for each in steps if each.websockets}
        asked = [*list_asked(self.router)]
        if self._fastapi is not None:
            asked += list_asked_by_fastapi(self._fastapi.app)
        for function, parameter, kind, of_websocket in asked:
            owner = self.provided.owners.get(kind)
            name = format_type(kind)
            if owner is None:
                problem = f"which no cornerstone provides; {self.provided.list_types(name)}"
                # Not told apart from one that nothing provides: no request has come yet.
                problem += f"; what is provided for a request is said by `provides = ({name},)`"
            elif of_websocket and kind not in self.provided.values and owner not in of_websockets:
                problem = f"which {owner} provides for http only: it needs `websockets = True`"
            else:
                continue
            place = find_location(function)
            detail = f"the parameter {parameter!r} asks for {name}, {problem}"
            raise ComponentError(find_name(function), place, detail)

    def _add_error_rules(self, component: Component) -> None:
        rules = self.errors.common if component.kind == "cornerstone" else ErrorRules()
        answers = [each.answer for each in component.modules if each.answer is not None]
        statuses = {**component.statuses}
        for module in component.modules:
            statuses |= module.statuses
        rules.add(self._contexts[component.key], answers[::-1], statuses)
        if component.kind == "endpoint":
            router = component.router
            routes = router.registered if isinstance(router, Router) else ()
            targets = [*(each.target for each in routes), self._mounted.get(component.key, router)]
            targets += list_functions(router) if is_api_router(router) else ()
            self.errors.add_endpoint(targets, rules)

    def mount(self, documentation: Documentation | None) -> None:
        """Mount the endpoints' routers, and the documentation.

        Raises:
            ComponentError: a route is there already.
        """
        for each in self._endpoints:
            if each.router is not None and self._config.router_mount_automated:
                self._mount_endpoint(each, each.router)
        self._is_mounted = True
        try:
            self._mount_fastapi()
        except ValueError as error:
            raise ComponentError("FastAPI", "of the hive", str(error)) from error
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
            find_mounted=self._find_outer_units,
        )

    def _find_outer_units(self) -> Sequence[ManagerUnit]:
        """Return what starts the applications that are mounted in routers, in their order.

        Hooks may mount some: each call finds those that are there by then. One that is mounted
        twice starts once.
        """
        own = {id(inspect.unwrap(each.router)) for each in self._endpoints if each.router}
        for path, route in list_routes(self.router):
            app = inspect.unwrap(route.target)
            if route.kind != "mount" or id(app) in own:
                continue
            states = self._yielded.setdefault(id(app), [])
            if not any(each is route.yielded for each in states):
                route.yielded.clear()
                states.append(route.yielded)
            if id(app) not in self._outer_units:
                mounted = route.target
                if not isinstance(mounted, MountedApplication):
                    mounted = MountedApplication(route.target)
                owner, file = f"the application at {path or '/'}", find_location(app)
                keep = partial(_keep_yielded, states)
                unit = ManagerUnit(owner, file or route.name, mounted.lifespan, keep)
                self._outer_units[id(app)] = unit
        if self._fastapi is not None and id(self._fastapi) not in self._outer_units:
            unit = ManagerUnit(
                "FastAPI", "of the hive", self._fastapi.lifespan, self._fastapi.keep_state
            )
            self._outer_units[id(self._fastapi)] = unit
        return (*self._outer_units.values(),)

    def make_application(self, app: ASGIApp | None = None) -> ASGIApp:
        """Make the ASGI application that answers requests: `app` behind the request hooks.

        Args:
            app: another application, whose exceptions an outer one answers. By default the
                routes of the hive.
        """
        steps = self._list_request_steps()
        answering = self.router if app is None else app
        if steps:
            answering = RequestHooks(
                answering,
                steps,
                self.errors.send,
                self._post_hook_seconds,
                passes_errors=app is not None,
            )
        if app is None and self.middleware:
            # So that a middleware sees the answer of an error, as it does in Starlette.
            if not steps:
                answering = gate = Gate(answering)
                gate.errors = self.errors.send
            for each in reversed(self.middleware):
                try:
                    answering = each.cls(answering, *each.args, **each.kwargs)
                except Exception as error:
                    detail = f"{each!r} failed with {type(error).__name__}: {error}"
                    raise ConfigurationError("middleware", detail) from error
        if self.requests is None:
            return answering
        tracked = self.requests.track(answering)
        # Of the hive itself, the gate answers.
        return tracked if app is None else answer_stopping(tracked)

    def warn_of_silent_hooks(self) -> None:
        """Warn where hooks around requests leave out websockets, and do not say so."""
        routes = [
            path
            for path, route in list_routes(self.router)
            if route.kind == "websocket" and route.target is not self._fastapi
        ]
        if self._fastapi is not None:
            others = record_foreign_routes(self._fastapi.app.routes, "")
            routes += [each.url for each in others if each.methods == ("WEBSOCKET",)]
        if not routes:
            return
        steps = self._list_request_steps()
        owners = dict.fromkeys(step.owner for step in steps if step.websockets is None)
        if owners:
            text = (
                "The request hooks of %s do not run for websockets (%s): "
                "say `websockets = True` there if they shall, else `websockets = False`"
            )
            _logger.warning(text, ", ".join(owners), ", ".join(routes))

    def enter(self, scope: Scope) -> Scope:
        """Return the scope of a request for the hive: what is around sees what is set in it.

        Inside of another application it is a copy, which has its own `app` and `root_path`.
        """
        state = scope.setdefault("state", {})
        if "app" in scope or "router" in scope or "cornerstones" in state:
            return self._enter_layer(scope)
        scope["app"], scope["router"] = self._hive, self.router
        state["cornerstones"] = RequestStates(self.known, self.provided)
        return scope

    def _enter_layer(self, scope: Scope) -> Scope:
        if "app" in scope or "router" in scope:
            urls = LayeredUrls(self.router, scope) if "router" in scope else self.router
            changes = {"app": self._hive, "router": urls, "state": scope["state"]}
            scope = enter_layer(scope, changes)
            for each in ("route", "endpoint"):  # those of the mount, until one of the hive answers
                scope.pop(each, None)
        else:
            scope["app"], scope["router"] = self._hive, self.router
        _share_state(scope, RequestStates(self.known, self.provided))
        return scope

    def surround(self, scope: Scope) -> Scope:
        """Return the scope of a request for an application that the hooks are around."""
        scope.setdefault("app", self._hive)
        if "cornerstones" in scope.get("state", ()):
            scope = enter_layer(scope)
        _share_state(scope, RequestStates(self.known, self.provided))
        return scope

    def include_api_router(self, inclusion: APIRouterInclusion) -> None:
        """Include a router of FastAPI, when the endpoints are mounted or at once after that.

        Raises:
            ValueError: FastAPI refuses it.
        """
        self.api_routers.append(inclusion)
        if self._is_mounted:
            self._mount_fastapi()

    def _mount_fastapi(self) -> None:
        if self._fastapi is None and (self.api_routers or self.has_fastapi):
            self._fastapi = self._open_fastapi(self.cornerstones, self.endpoints)
        if self._fastapi is not None:
            while self.api_routers:
                router, prefix, tags, options = self.api_routers.pop(0)
                self._fastapi.include(router, prefix, tags, **options)
            self._fastapi.mount(self.router)

    def release(self) -> None:
        """Leave the FastAPI application as it was."""
        if self._fastapi is not None:
            self._fastapi.release()

    def _mount_endpoint(self, component: Component, router: Router | ASGIApp) -> None:
        prefix = self._config.make_prefix(component.container, component.name)
        try:
            if isinstance(router, Router):
                tag = self._config.make_tag(component.container, component.name)
                self.router.include_router(router, prefix, tags=[tag])
            elif is_api_router(router):
                tag = self._config.make_tag(component.container, component.name)
                self.api_routers.append((router, prefix, [tag], {}))
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

    def _list_request_steps(self) -> list[RequestStep]:
        """List those that have request hooks, in start order."""
        steps: list[RequestStep] = []
        for each in self._cornerstones:
            context = self._contexts[each.key]
            steps += (
                HookStep(each.key, context, hooks, module.websockets)
                for module in each.modules
                for hooks in module.hooks
                if any(is_overridden(get_class(hooks), step) for step in REQUEST_STEPS)
            )
            steps += (
                ManagerStep(each.key, context, module)
                for module in each.modules
                if module.request is not None or module.before_answer is not None
            )
        return steps


def _share_state(scope: Scope, states: RequestStates) -> None:
    """Put the cornerstones' states of a request beside what is in its state already.

    Another hive around it keeps its own. Hypercorn gives the requests of one connection one
    state, so that those of an earlier one may be there.
    """
    state = scope.setdefault("state", {})
    if "cornerstones" in state:
        scope["state"] = LayeredState({"cornerstones": states}, state)
    else:
        state["cornerstones"] = states
