"""What an application consists of: hives, routers, and others that they are mounted in."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, WebSocketRoute
from starlette.routing import Router as StarletteRouter

from asgihive.asgi import Router, find_location, find_name
from asgihive.hive import Hive, HiveConfig, HiveMiddleware, RouteRecord

# What is listed; anything else is looked into if it calls an `app` inside, as middleware does.
KINDS = (Hive, HiveMiddleware, Router, Starlette, StarletteRouter)


@dataclass(frozen=True, slots=True)
class Application:
    """One of the applications that APP consists of.

    Args:
        prefix: of its URLs.
        name: of its class.
        hive: itself, if it is one.
        routes: if it is none, with their whole URLs.
        has_more: whether it keeps routes that cannot be listed.
        surrounds: whether it is the hive of a `HiveMiddleware`: its hooks run, its own
            routes are not there.
    """

    prefix: str
    name: str
    hive: Hive | None = None
    routes: tuple[RouteRecord, ...] = ()
    has_more: bool = False
    surrounds: bool = False

    def records(self) -> tuple[RouteRecord, ...]:
        """Its routes, with their whole URLs; those of a hive import its components.

        Raises:
            ComponentError: the hive has a component that cannot be imported, ordered or mounted.
        """
        if self.hive is None:
            return self.routes
        return () if self.surrounds else _below(self.prefix, self.hive)


def applications(app: Any, prefix: str = "") -> Iterator[Application]:
    """The applications in `app`, outermost first; none if it is nothing that can be listed."""
    name = type(app).__name__
    if isinstance(app, Hive):
        yield Application(prefix, name, app)
    elif isinstance(app, Router):
        yield Application(prefix, name, routes=_below(prefix, _around(app)))
    elif isinstance(app, Starlette | StarletteRouter):
        yield from _starlette(app, name, prefix)
    elif hasattr(app, "app"):
        if isinstance(app, HiveMiddleware):
            yield _surrounding(app.hive, prefix)
        yield from applications(app.app, prefix)


def _below(prefix: str, hive: Hive) -> tuple[RouteRecord, ...]:
    return tuple(replace(each, url=prefix + each.url) for each in hive.route_records())


def _around(router: Router) -> Hive:
    """A hive with the routes of a router, and nothing else."""
    config = HiveConfig(cornerstone_package_path=())
    hive = Hive(config, docs=False, entry_points=False)
    hive.include_router(router)
    return hive


def _surrounding(hive: Any, prefix: str) -> Application:
    return Application(prefix, type(hive).__name__, hive, surrounds=True)


def _starlette(app: Starlette | StarletteRouter, name: str, prefix: str) -> Iterator[Application]:
    for each in app.user_middleware if isinstance(app, Starlette) else ():
        kind: object = each.cls
        if kind is HiveMiddleware:
            hives = (*each.args, *each.kwargs.values())
            yield from (_surrounding(hive, prefix) for hive in hives)
    own: list[RouteRecord] = []
    inner: list[Application] = []
    has_more = False
    for route in app.routes:
        if isinstance(route, Mount | Host):
            below = f"{prefix}{route.path}" if isinstance(route, Mount) else _host(route, prefix)
            found = tuple(applications(route.app, below))
            inner += found
            if not found:
                own.append(RouteRecord(("*",), below or "/", "", _name(route.app), "", 0))
        elif hasattr(route, "path") and hasattr(route, "endpoint"):
            own.append(_record(route, prefix + route.path, route.endpoint))
        else:
            has_more = True
    yield Application(prefix, name, routes=tuple(own), has_more=has_more)
    yield from inner


def _host(route: Host, prefix: str) -> str:
    return f"//{route.host}{prefix}"


def _name(app: Any) -> str:
    return find_name(app) if inspect.isroutine(app) else type(app).__name__


def _record(route: BaseRoute, path: str, endpoint: Any) -> RouteRecord:
    methods = getattr(route, "methods", None) or {"*"}
    if isinstance(route, WebSocketRoute):
        methods = {"WEBSOCKET"}
    tag = ", ".join(str(each) for each in getattr(route, "tags", None) or ())
    file, _, line = find_location(endpoint).rpartition(":")
    number = int(line) if line.isdecimal() else 0
    return RouteRecord(tuple(sorted(methods)), path, tag, find_name(endpoint), file, number)
